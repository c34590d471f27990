//! The program as people and scripts use it: the real binary, real folders, real ports.

#[path = "cli/exchange.rs"]
mod exchange;

use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

const FREE_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--sync-listen", "127.0.0.1:0"];

fn atoll(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with("ATOLL_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    atoll(folder).args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Json {
    assert_eq!(code(output), 0, "{}", err(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A node that is ready.
struct Served {
    child: Child,
    /// What it printed until then.
    greeting: String,
    ports: Json,
}

impl Served {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = atoll(folder)
            .args(["serve", "--port-file", "ports.json"])
            .args(FREE_PORTS)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut greeting = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            greeting.push_str(&line);
            greeting.push('\n');
            // The last line of the greeting.
            if line.trim_start().starts_with("data ") {
                break;
            }
        }
        let ports =
            std::fs::read(folder.join("ports.json")).unwrap_or_else(|_| panic!("{greeting}"));
        Self { child, greeting, ports: serde_json::from_slice(&ports).unwrap() }
    }

    fn get(&self, path: &str) -> String {
        let address = self.ports["http"].as_str().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn terminate(mut self) -> Option<i32> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_needs_no_configuration_and_stops_cleanly() {
    let folder = scratch();
    let served = Served::start(folder.path(), &[]);
    assert!(served.greeting.contains("The first admin was made."), "{}", served.greeting);
    assert!(served.greeting.contains("password  ") && served.greeting.contains("/api/docs"));
    // It was ready when it greeted: nobody waits any more.
    assert!(served.get("/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(served.terminate(), Some(0));
    assert!(!folder.path().join("ports.json").exists());
    assert!(!folder.path().join("atoll-data/control.json").exists());

    let again = Served::start(folder.path(), &[]);
    assert!(!again.greeting.contains("admin"), "{}", again.greeting);
    assert_eq!(again.terminate(), Some(0));
    let verified = json(&run(folder.path(), &["verify", "--json"]));
    assert_eq!(verified["problems"], serde_json::json!([]));
}

#[cfg(unix)]
#[test]
fn folder_and_keys_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    let data = folder.path().join("atoll-data");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!((mode(&data.join("node.key")), mode(&data.join("token.key"))), (0o600, 0o600));
}

#[test]
fn a_second_process_on_one_folder_is_refused_and_commands_reach_the_first() {
    let folder = scratch();
    let served = Served::start(folder.path(), &[]);
    let second =
        run(folder.path(), &["serve", FREE_PORTS[0], FREE_PORTS[1], FREE_PORTS[2], FREE_PORTS[3]]);
    assert_eq!(code(&second), 4, "{}", err(&second));
    assert!(
        err(&second).contains("another process") && err(&second).contains("atoll-data"),
        "{}",
        err(&second)
    );

    let made =
        json(&run(folder.path(), &["user", "create", "--email", "ada@example.org", "--json"]));
    assert_eq!((made["username"].as_str(), made["role"].as_str()), (Some("ada"), Some("viewer")));
    assert!(made["password"].as_str().unwrap().len() > 15);
    let users = json(&run(folder.path(), &["user", "list", "--json"]));
    assert_eq!(users.as_array().unwrap().len(), 2);
    let again = run(folder.path(), &["user", "create", "--email", "ada@example.org"]);
    assert_ne!(code(&again), 0);
    let missing = run(folder.path(), &["user", "reset-password", "nobody"]);
    assert_eq!(code(&missing), 3, "{}", err(&missing));
    assert_eq!(served.terminate(), Some(0));

    let alone = json(&run(folder.path(), &["user", "list", "--json"]));
    assert_eq!(alone, users);
}

#[test]
fn users_come_in_and_go_out_as_a_table() {
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    let table = "email,display_name,password_hash\n\
                 ada@example.org,=Ada,$2b$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS\n\
                 nobody,,md5\n";
    std::fs::write(folder.path().join("users.csv"), table).unwrap();
    for dry in [&["--dry-run"][..], &[]] {
        let imported = run(folder.path(), &[&["user", "import", "users.csv"], dry].concat());
        assert_eq!(code(&imported), 1, "{}", err(&imported));
        assert!(out(&imported).starts_with("1 "), "{}", out(&imported));
        assert!(err(&imported).contains("row 2: email"), "{}", err(&imported));
    }
    let exported = run(folder.path(), &["user", "export"]);
    assert_eq!(code(&exported), 0, "{}", err(&exported));
    let csv = out(&exported);
    assert!(csv.starts_with("id,email,") && csv.contains(",ada@example.org,ada,'=Ada,"), "{csv}");
    assert!(!csv.contains("$2b$"), "{csv}");
    assert_eq!(code(&run(folder.path(), &["user", "import", "nowhere.csv"])), 3);
}

#[test]
fn flags_stand_over_variables_and_variables_over_the_file() {
    let folder = scratch();
    std::fs::write(
        folder.path().join("atoll.toml"),
        "name = 'file'\nlog_level = 'warn'\n[limits]\nrate = 7\n",
    )
    .unwrap();
    let show = |args: &[&str]| {
        let mut command = atoll(folder.path());
        command.env("ATOLL_NAME", "variable").env("ATOLL_LIMITS_RATE", "8");
        json(&command.args(["config", "show", "--json"]).args(args).output().unwrap())
    };
    let row = |rows: &Json, name: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
        (row["value"].as_str().unwrap().to_owned(), row["source"].as_str().unwrap().to_owned())
    };
    let rows = show(&["--set", "limits.rate=9"]);
    assert_eq!(row(&rows, "limits.rate"), ("9".into(), "flag".into()));
    assert_eq!(row(&rows, "name"), ("variable".into(), "variable".into()));
    assert_eq!(row(&rows, "log_level"), ("warn".into(), "file".into()));
    assert_eq!(row(&rows, "listen").1, "default");
    assert_eq!(row(&show(&["--name", "flag"]), "name"), ("flag".into(), "flag".into()));
}

#[test]
fn a_broken_file_of_settings_is_told_with_all_its_mistakes() {
    let folder = scratch();
    let file = folder.path().join("atoll.toml");
    std::fs::write(&file, "listn = '127.0.0.1:1'\nlog = 'loud'\n").unwrap();
    let checked = run(folder.path(), &["config", "check"]);
    assert_eq!(code(&checked), 2);
    let told = err(&checked);
    assert!(told.contains("did you mean `listen`?") && told.contains("pretty or json"), "{told}");
    assert_eq!(code(&run(folder.path(), &["serve"])), 2);
    assert!(!folder.path().join("atoll-data").exists(), "nothing is made with wrong settings");

    std::fs::write(&file, "listen = \n").unwrap();
    let cut = run(folder.path(), &["config", "check"]);
    assert_eq!(code(&cut), 2);
    assert!(err(&cut).contains("atoll.toml"), "{}", err(&cut));
    assert_eq!(code(&run(folder.path(), &["version"])), 0, "the version needs no settings");
    assert_eq!(code(&run(folder.path(), &["fly"])), 2);
}

#[test]
fn a_database_cut_in_half_is_told_and_left_alone() {
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    let file = folder.path().join("atoll-data/atoll.db");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    for command in [&["serve", FREE_PORTS[0], FREE_PORTS[1]][..], &["user", "list"], &["verify"]] {
        let refused = run(folder.path(), command);
        assert_eq!(code(&refused), 5, "{command:?}: {}", err(&refused));
        assert!(
            err(&refused).contains("damaged") && err(&refused).contains("backup"),
            "{}",
            err(&refused)
        );
        assert!(!err(&refused).contains("panicked"), "{}", err(&refused));
    }
    assert_eq!(std::fs::read(&file).unwrap().len(), whole.len() / 2);
    let examined = run(folder.path(), &["doctor"]);
    assert_eq!(code(&examined), 1);
    assert!(out(&examined).contains("restore it from a backup"), "{}", out(&examined));
}

#[test]
fn a_damaged_search_folder_or_cache_is_set_aside_and_made_again() {
    let folder = scratch();
    std::fs::create_dir(folder.path().join("pages")).unwrap();
    std::fs::write(folder.path().join("pages/reef.md"), "# Reef\n\nA page about parrotfish.\n")
        .unwrap();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    assert_eq!(code(&run(folder.path(), &["import", "markdown", "pages"])), 0);
    assert_eq!(code(&run(folder.path(), &["rebuild"])), 0);
    let data = folder.path().join("atoll-data");
    for entry in std::fs::read_dir(data.join("search")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"not what it was").unwrap();
        }
    }
    std::fs::remove_dir_all(data.join("cache")).unwrap();
    std::fs::write(data.join("cache"), b"a file").unwrap();
    assert_eq!(code(&run(folder.path(), &["rebuild"])), 0);
    let names: Vec<String> = std::fs::read_dir(&data)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("search") && name != "search"), "{names:?}");
    let verified = json(&run(folder.path(), &["verify", "--json"]));
    assert_eq!(verified["problems"], serde_json::json!([]));
}

#[test]
fn a_backup_restores_into_a_new_life_and_never_over_another() {
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    assert_eq!(code(&run(folder.path(), &["user", "create", "--email", "ada@example.org"])), 0);
    let made = json(&run(folder.path(), &["backup", "create", "copy", "--json"]));
    assert!(made["files"].as_u64().unwrap() >= 3);
    let sound = json(&run(folder.path(), &["backup", "verify", "copy", "--json"]));
    assert_eq!(sound["sound"], true);
    assert_eq!(
        json(&run(folder.path(), &["backup", "verify", "copy", "--json"])),
        sound,
        "a check changes nothing"
    );

    let over = run(folder.path(), &["restore", "copy"]);
    assert_eq!(code(&over), 1);
    assert!(err(&over).contains("not empty"), "{}", err(&over));

    let restored = json(&run(folder.path(), &["restore", "copy", "--data", "again", "--json"]));
    assert!(restored["epoch"].as_u64() > Some(1), "{restored}");
    let status = json(&run(folder.path(), &["sync", "status", "--data", "again", "--json"]));
    assert_eq!(
        (status["epoch"].as_u64(), status["node"].as_str()),
        (restored["epoch"].as_u64(), restored["node"].as_str())
    );
    let users = |data| json(&run(folder.path(), &["user", "list", "--data", data, "--json"]));
    assert_eq!(users("again"), users("atoll-data"));

    assert_eq!(code(&run(folder.path(), &["user", "create", "--email", "bob@example.org"])), 0);
    let at = |time: &str, to: &str| {
        let log = ["--at", time, "--log-from", "atoll-data", "--log", "json", "--json"];
        run(folder.path(), &[&["restore", "copy", "--data", to], &log[..]].concat())
    };
    assert_eq!(code(&at("2999-01-01T00:00:00Z", "later")), 0);
    assert_eq!(users("later"), users("atoll-data"), "with what was written after the backup");
    let early = at("1999-01-01T00:00:00Z", "early");
    assert_eq!(code(&early), 1, "{}", err(&early));
    assert!(!folder.path().join("early").exists());

    let file = folder.path().join("copy/atoll.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = run(folder.path(), &["backup", "verify", "copy"]);
    assert_eq!(code(&damaged), 5, "{}", err(&damaged));
    assert_eq!(code(&run(folder.path(), &["restore", "copy", "--data", "third"])), 5);
    assert!(!folder.path().join("third").exists());
}

#[test]
fn a_node_joins_by_ticket_once_and_takes_the_network_over() {
    let folder = scratch();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    std::fs::create_dir_all(&first).unwrap();
    std::fs::create_dir_all(&second).unwrap();
    let issuer = Served::start(&first, &["--name", "first"]);
    let ticket = json(&run(&first, &["peer", "ticket", "--json"]));
    let ticket = ticket["ticket"].as_str().unwrap();
    let joiner = Served::start(&second, &["--name", "second", "--join", ticket]);
    assert!(joiner.greeting.contains("Joined the network of first"), "{}", joiner.greeting);
    assert!(!joiner.greeting.contains("The first admin was made"));

    let level = json(&run(&second, &["sync", "now", "--json"]));
    let of_first = json(&run(&first, &["sync", "now", "--json"]));
    assert_eq!(level["digest"], of_first["digest"]);
    let users = |folder| json(&run(folder, &["user", "list", "--json"]));
    assert_eq!(users(&second), users(&first));

    let third = folder.path().join("third");
    std::fs::create_dir_all(&third).unwrap();
    let used = run(&third, &[&["init", "--join", ticket][..], &FREE_PORTS].concat());
    assert_eq!(code(&used), 1, "{}", err(&used));
    assert!(err(&used).contains("was used"), "{}", err(&used));

    let node = joiner.ports["node"].as_str().unwrap();
    assert_eq!(json(&run(&first, &["peer", "remove", node, "--json"]))["removed"], node);
    assert_eq!(json(&run(&first, &["peer", "list", "--json"])), serde_json::json!([]));
    assert_eq!(code(&run(&first, &["peer", "remove", node])), 3);
    assert_eq!(joiner.terminate(), Some(0));
    assert_eq!(issuer.terminate(), Some(0));
}

#[test]
fn commands_without_a_node_say_how_to_make_one() {
    let folder = scratch();
    let refused = run(folder.path(), &["sync", "status"]);
    assert_eq!(code(&refused), 3);
    assert!(err(&refused).contains("atoll serve"), "{}", err(&refused));
    assert!(!folder.path().join("atoll-data").exists());
    let as_json = run(folder.path(), &["sync", "status", "--json"]);
    let told: Json = serde_json::from_str(&err(&as_json)).unwrap();
    assert_eq!(told["error"]["exit"], "not_found");
}

#[test]
fn the_demo_ends_with_equal_nodes() {
    let folder = scratch();
    let shown = json(&run(folder.path(), &["demo", "--exit", "--json"]));
    assert_eq!(shown["equal"], true);
    assert_eq!(shown["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing of it stays");
}

#[test]
fn descriptions_and_completions_are_printed() {
    let folder = scratch();
    let described = json(&run(folder.path(), &["openapi"]));
    assert_eq!(described["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    assert!(out(&run(folder.path(), &["completions", "bash"])).contains("atoll"));
    assert_eq!(
        out(&run(folder.path(), &["version"])).trim(),
        format!("atoll {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_tenant_is_exported_and_comes_back_in_another_folder() {
    let folder = scratch();
    std::fs::write(folder.path().join("posts.csv"), "id,title,body\n1,Reef,text\n2,,no title\n")
        .unwrap();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    let tried = run(folder.path(), &["import", "csv", "posts.csv", "--dry-run", "--json"]);
    assert_eq!(code(&tried), 1, "{}", err(&tried));
    let report: Json = serde_json::from_slice(&tried.stdout).unwrap();
    assert_eq!((&report["created"], &report["failed"]), (&1.into(), &1.into()), "{report}");
    let imported = run(folder.path(), &["import", "csv", "posts.csv"]);
    assert!(out(&imported).contains("1 created, 0 updated, 0 unchanged, 0 skipped, 1 failed"));
    let told = json(&run(folder.path(), &["export", "all.tar.zst", "--json"]));
    assert!(told["records"].as_u64() >= Some(3), "{told}");
    let unknown = run(folder.path(), &["export", "none.tar.zst", "--tenant", "nowhere"]);
    assert_eq!(code(&unknown), 3, "{}", err(&unknown));

    let other = scratch();
    assert_eq!(code(&run(other.path(), &["init"])), 0);
    let archive = folder.path().join("all.tar.zst");
    let restored = run(other.path(), &["import", "atoll", archive.to_str().unwrap(), "--json"]);
    let report = json(&restored);
    assert_eq!((&report["created"], &report["failed"]), (&1.into(), &0.into()), "{report}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = scratch();
    for args in [&["openapi"][..], &["completions", "zsh"], &["config", "show", "--json"]] {
        let mut child = atoll(folder.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((code(&ended), err(&ended).as_str()), (0, ""), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written_is_told() {
    let folder = scratch();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = atoll(folder.path()).arg("openapi").stdout(full).output().unwrap();
    assert_eq!(code(&ended), 1);
    assert!(err(&ended).contains("standard output"), "{}", err(&ended));
}

#[test]
fn wrong_usage_is_told_as_json_to_whoever_asks_for_json() {
    let folder = scratch();
    let refused = run(folder.path(), &["user", "create", "--json"]);
    assert_eq!(code(&refused), 2);
    let told: Json = serde_json::from_str(&err(&refused)).unwrap();
    assert_eq!(told["error"]["exit"], "usage");
    assert!(told["error"]["message"].as_str().unwrap().contains("--email"), "{told}");
    assert_eq!(code(&run(folder.path(), &["user", "list", "--limit", "0"])), 2);
}

#[test]
fn a_start_that_fails_makes_no_admin_whose_password_nobody_saw() {
    let folder = scratch();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let failed = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--sync-listen", &taken]);
    assert_eq!(code(&failed), 1, "{}", err(&failed));
    let served = Served::start(folder.path(), &[]);
    assert!(served.greeting.contains("password  "), "{}", served.greeting);
}

#[test]
fn a_key_without_its_database_begins_a_new_life() {
    let folder = scratch();
    let made = json(&run(folder.path(), &["init", "--json"]));
    for file in ["atoll.db", "atoll.db-wal", "atoll.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join("atoll-data").join(file));
    }
    assert_eq!(json(&run(folder.path(), &["init", "--json"]))["node"], made["node"]);
    let status = json(&run(folder.path(), &["sync", "status", "--json"]));
    assert!(status["epoch"].as_u64() > Some(1), "what was written before could be named twice");
}

#[test]
fn a_search_index_that_is_no_folder_is_set_aside() {
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    let data = folder.path().join("atoll-data");
    std::fs::remove_dir_all(data.join("search")).unwrap();
    std::fs::write(data.join("search"), b"a file").unwrap();
    assert_eq!(code(&run(folder.path(), &["verify"])), 0);
    assert!(data.join("search.damaged-1").is_file() && data.join("search").is_dir());
}

#[cfg(unix)]
#[test]
fn what_a_node_writes_is_private_even_in_a_folder_that_is_not() {
    use std::os::unix::fs::PermissionsExt;
    let folder = scratch();
    let data = folder.path().join("open");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(code(&run(folder.path(), &["init", "--data", "open"])), 0);
    for entry in std::fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", entry.path().display());
    }
}

#[test]
fn short_names_and_many_users_are_no_trouble() {
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    let made = json(&run(folder.path(), &["user", "create", "--email", "z@example.org", "--json"]));
    assert_eq!(made["username"], "user-z");
    let listed = |limit| json(&run(folder.path(), &["user", "list", "--limit", limit, "--json"]));
    assert_eq!(listed("1").as_array().unwrap().len(), 1);
    assert_eq!(listed("1000").as_array().unwrap().len(), 2);
}

#[test]
fn a_backup_that_fails_leaves_nothing_and_a_folder_that_is_there_is_named() {
    let folder = scratch();
    assert_eq!(code(&run(folder.path(), &["init"])), 0);
    std::fs::create_dir(folder.path().join("there")).unwrap();
    let refused = run(folder.path(), &["backup", "create", "there"]);
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("name a new folder"), "{}", err(&refused));
}
