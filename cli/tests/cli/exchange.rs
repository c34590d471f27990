//! What comes in and goes out by files: what is refused, and what comes back.

use super::{code, err, out, run, scratch};
use std::process::Command;

#[test]
fn a_file_that_is_no_export_is_refused_with_what_is_expected() {
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    let feed = "<?xml version=\"1.0\"?><rss version=\"2.0\"><channel><title>t</title>\
                <item><title>One</title><description>x</description></item></channel></rss>";
    let files: [(&str, &[u8]); 5] = [
        ("feed.xml", feed.as_bytes()),
        ("text", b"# A page"),
        ("nothing", b""),
        ("bytes", &[0xf3; 3_000]),
        ("open.xml", b"<rss><channel><item a=\"x"),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        for (form, expected) in [
            ("wordpress", "export of WordPress (WXR)"),
            ("markdown", "takes zip, or tar"),
            ("atoll", "takes zip, or tar"),
        ] {
            let refused = run(folder.path(), &["import", form, name]);
            assert_eq!(code(&refused), 2, "{form} {name}: {}", err(&refused));
            assert!(err(&refused).contains(expected), "{form} {name}: {}", err(&refused));
        }
    }
    let tar =
        Command::new("tar").args(["-cf", "other.tar", "text"]).current_dir(folder.path()).status();
    assert!(tar.unwrap().success());
    let refused = run(folder.path(), &["import", "atoll", "other.tar"]);
    assert_eq!(code(&refused), 2, "{}", err(&refused));
    assert!(err(&refused).contains("atoll export"), "{}", err(&refused));
}

#[test]
fn a_table_of_users_comes_back() {
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    let made = ["user", "create", "--email", "ada@example.org", "--role", "editor"];
    assert_eq!(code(&run(folder.path(), &made)), 0);
    let table = out(&run(folder.path(), &["user", "export", "--password-hashes"]));
    assert!(table.contains("$argon2id$") && table.lines().count() == 3, "{table}");
    let file = folder.path().join("users.csv");
    std::fs::write(&file, &table).unwrap();
    let same = run(folder.path(), &["user", "import", "users.csv"]);
    assert!(
        out(&same).contains("0 created, 2 unchanged, 0 failed"),
        "{} {}",
        out(&same),
        err(&same)
    );
    let other = scratch();
    assert_eq!(code(&run(other.path(), &["init"])), 0);
    let tried = run(other.path(), &["user", "import", file.to_str().unwrap(), "--dry-run"]);
    assert!(
        out(&tried).contains("1 would be created, 1 unchanged, 0 failed"),
        "{} {}",
        out(&tried),
        err(&tried)
    );
}
