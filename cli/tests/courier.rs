//! Bundles as a person carries them: the real binary, two nodes that no network joins, and one stick that nobody ever clears.

use atoll_tests::harness::noise;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code, standard output, standard error.
fn end(data: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    let inherited = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in inherited.filter(|name| name.starts_with("ATOLL_")) {
        command.env_remove(name);
    }
    command.env("ATOLL_ADMIN_PASSWORD", "a long enough password").arg("--data").arg(data);
    command.arg("--name").arg(data.file_name().unwrap());
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run(data: &Path, args: &[&str]) -> (String, String) {
    let (code, out, err) = end(data, args);
    assert_eq!(code, 0, "{args:?}: {err}");
    (out, err)
}

fn json_of(data: &Path, args: &[&str]) -> Json {
    let args = [args, &["--json"]].concat();
    serde_json::from_str(&run(data, &args).0).unwrap()
}

fn status(data: &Path) -> Json {
    json_of(data, &["sync", "status"])
}

fn key_of(data: &Path) -> String {
    status(data)["public_key"].as_str().unwrap().to_owned()
}

fn assert_equal(core: &Path, school: &Path) {
    assert_eq!(status(core)["digest"], status(school)["digest"]);
}

/// Writes something on a node.
fn write(data: &Path, name: &str, text: &str) {
    let pages = data.with_extension(format!("{name}.pages"));
    fs::create_dir(&pages).unwrap();
    fs::write(pages.join(format!("{name}.md")), format!("# {name}\n\n{text}")).unwrap();
    run(data, &["import", "markdown", pages.to_str().unwrap()]);
}

/// A core, and a school that belongs to its network and lists it; each lists the other.
fn acquainted(core: &Path, school: &Path) {
    run(core, &["init"]);
    run(school, &["init", "--courier-from", &key_of(core)]);
    run(core, &["peer", "add", &key_of(school), "--name", "school"]);
}

#[test]
fn one_stick_serves_many_trips_and_what_else_lies_on_it_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (core, school, stranger, stick) = (at("core"), at("school"), at("stranger"), at("stick"));
    let (core, school) = (core.as_path(), school.as_path());
    acquainted(core, school);
    fs::create_dir(&stick).unwrap();
    let file = |name: &str| stick.join(name).to_str().unwrap().to_owned();
    let whole = stick.to_str().unwrap();
    run(school, &["bundle", "want", &file("school.atoll")]);
    run(&stranger, &["init"]);
    run(&stranger, &["bundle", "export", &file("foreign.atoll")]);
    run(core, &["bundle", "import", whole]);
    for trip in 1..=3 {
        write(core, &format!("core-{trip}"), "from the core");
        run(
            core,
            &["bundle", "export", &file(&format!("trip{trip}.atoll")), "--to", "school", "--lock"],
        );
        let (out, err) = run(school, &["bundle", "import", whole]);
        assert!(out.contains("A bundle of core") && out.contains("New here: "), "{out}");
        let foreign = "foreign.atoll was passed over: the bundle was made by";
        assert!(err.contains(foreign), "{err}");
        assert_equal(core, school);
        write(school, &format!("school-{trip}"), "from the school");
        run(
            school,
            &["bundle", "export", &file(&format!("home{trip}.atoll")), "--to", "core", "--lock"],
        );
        let (_, err) = run(core, &["bundle", "import", whole]);
        let own = format!(
            "trip{trip}.atoll was passed over: this node made it itself, locked for school."
        );
        assert!(err.contains(&own), "{err}");
        assert_equal(core, school);
    }
    // All of it is checked, also what only the other one reads.
    let (_, err) = run(school, &["bundle", "verify", whole]);
    assert!(err.contains("locked for others") && err.contains("no peer of this node"), "{err}");
    // Nothing is for this node.
    for name in ["foreign.atoll", "trip3.atoll"] {
        let (code, _, err) = end(core, &["bundle", "import", &file(name)]);
        assert_eq!(code, 1, "{err}");
    }
    // A stick that was pulled out too early, and a file that is no bundle.
    let bytes = fs::read(file("home3.atoll")).unwrap();
    fs::write(file("cut.atoll"), &bytes[..bytes.len() - 70]).unwrap();
    fs::write(file("none.atoll"), "no bundle").unwrap();
    for verb in ["verify", "import", "info"] {
        let (code, _, err) = end(core, &["bundle", verb, &file("cut.atoll")]);
        assert!(code == 5 && err.contains("cut off"), "{verb} {code} {err}");
        let (code, _, err) = end(core, &["bundle", verb, whole]);
        assert!(code == 5 && err.contains("none.atoll: this is no bundle"), "{verb} {code} {err}");
        let (code, _, err) = end(core, &["bundle", verb, &file("none.atoll")]);
        assert!(code == 2 && err.contains("this is no bundle"), "{verb} {code} {err}");
    }
    assert_equal(core, school);
    run(core, &["verify"]);
}

#[test]
fn info_tells_of_whom_for_whom_and_from_where_to_where() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (core, school, nowhere, stick) = (at("core"), at("school"), at("nowhere"), at("stick"));
    let (core, school) = (core.as_path(), school.as_path());
    acquainted(core, school);
    fs::create_dir(&stick).unwrap();
    let file = |name: &str| stick.join(name).to_str().unwrap().to_owned();
    let info =
        |data: &Path, file: &str| json_of(data, &["bundle", "info", file])["bundles"][0].clone();

    // What a new node wants: everything.
    run(school, &["bundle", "want", &file("school.atoll")]);
    let want = info(core, &file("school.atoll"));
    assert_eq!((&want["made_by"], &want["is_known"]), (&json!("school"), &json!(true)), "{want}");
    assert_eq!(
        (&want["brings"]["ops"], &want["carries"]),
        (&json!(0), &json!("everything")),
        "{want}"
    );
    let (out, _) = run(core, &["bundle", "info", &file("school.atoll")]);
    assert!(
        out.contains("A bundle of school") && out.contains("Its maker carries everything"),
        "{out}"
    );

    // All of it, unlocked: everybody can tell, also where there is no node.
    write(core, "first", "from the core");
    run(core, &["bundle", "export", &file("all.atoll")]);
    let seen = info(&nowhere, &file("all.atoll"));
    assert!(!nowhere.exists(), "looking makes no node");
    assert_eq!((&seen["is_known"], &seen["locked_for"]), (&Json::Null, &json!([])), "{seen}");
    let streams = seen["brings"]["list"].as_array().unwrap();
    let content = streams.iter().find(|stream| stream["scope"] == "content").unwrap();
    assert_eq!(content["from"], json!({}), "a new node is brought everything");
    let (out, _) = run(&nowhere, &["bundle", "info", &file("all.atoll")]);
    assert!(out.contains("Whoever has it can read it") && out.contains(", core 1 to "), "{out}");

    // The next one goes on where the first ended, and only its reader can tell what is in it.
    run(core, &["bundle", "import", &file("school.atoll")]);
    run(school, &["bundle", "import", &file("all.atoll")]);
    run(school, &["bundle", "want", &file("again.atoll")]);
    run(core, &["bundle", "import", &file("again.atoll")]);
    write(core, "second", "from the core");
    run(core, &["bundle", "export", &file("trip.atoll"), "--to", "school", "--lock"]);
    let trip = info(school, &file("trip.atoll"));
    assert_eq!(
        (&trip["is_readable"], &trip["locked_for"]),
        (&json!(true), &json!(["school"])),
        "{trip}"
    );
    let streams = trip["brings"]["list"].as_array().unwrap();
    let next = streams.iter().find(|stream| stream["scope"] == "content").unwrap();
    assert_eq!(next["from"], content["to"], "{trip}");
    for who in [core, &nowhere] {
        let hidden = info(who, &file("trip.atoll"));
        assert_eq!(
            (&hidden["is_readable"], &hidden["brings"]),
            (&json!(false), &Json::Null),
            "{hidden}"
        );
        assert_eq!(
            (&hidden["made_by"], &hidden["parts"]),
            (&json!("core"), &trip["parts"]),
            "{hidden}"
        );
    }

    // Volumes that are there and missing.
    for n in 0..4 {
        write(core, &format!("page{n}"), &noise(n, 900_000));
    }
    run(core, &["bundle", "export", &file("long.atoll"), "--volume-mib", "1"]);
    fs::remove_file(file("long.2.atoll")).unwrap();
    let pieces = ["long.atoll", "long.3.atoll", "long.4.atoll"].map(file);
    let args = [&["bundle", "info"][..], &pieces.each_ref().map(String::as_str)].concat();
    let seen = json_of(core, &args)["bundles"][0].clone();
    assert_eq!(seen["missing_volumes"][0], json!([2, 2]), "{seen}");
    let (_, err) = run(core, &args);
    assert!(err.contains("Volume 2 is not among these files."), "{err}");
}

#[test]
fn volumes_that_did_not_come_are_named_and_are_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (core, school, stick) = (at("core"), at("school"), at("stick"));
    let (core, school) = (core.as_path(), school.as_path());
    acquainted(core, school);
    fs::create_dir(&stick).unwrap();
    let file = |name: &str| stick.join(name).to_str().unwrap().to_owned();
    for n in 0..4 {
        write(core, &format!("page{n}"), &noise(n, 900_000));
    }
    run(core, &["bundle", "export", &file("long.atoll"), "--volume-mib", "1"]);
    let volume =
        |n: u32| file(&if n == 1 { "long.atoll".into() } else { format!("long.{n}.atoll") });
    let last = fs::read_dir(&stick).unwrap().count() as u32;
    assert!(last >= 4, "{last}");
    let ask = |data: &Path, verb: &str, volumes: &[u32]| {
        let files: Vec<String> = volumes.iter().map(|n| volume(*n)).collect();
        let args: Vec<&str> =
            ["bundle", verb].into_iter().chain(files.iter().map(String::as_str)).collect();
        let (code, _, err) = end(data, &args);
        let (_, out, _) = end(data, &[&args[..], &["--json"]].concat());
        let seen: Json = serde_json::from_str(&out).unwrap();
        (code, seen["bundles"][0].clone(), err)
    };

    // Two of many: nothing is damaged, and it is not whole.
    let (code, seen, err) = ask(core, "verify", &[1, 2]);
    assert_eq!((code, &seen["is_whole"]), (3, &json!(false)), "{err}");
    assert!(err.contains("The last volume is not among these files"), "{err}");
    assert!(!err.contains("damaged") && !err.contains("sound copy"), "{err}");
    // All but the third.
    let but_one: Vec<u32> = (1..=last).filter(|n| *n != 3).collect();
    let (code, seen, err) = ask(core, "verify", &but_one);
    assert_eq!((code, &seen["missing_volumes"]), (3, &json!([[3, 3]])), "{seen}");
    assert!(err.contains("Volume 3 is not among these files"), "{err}");
    let all: Vec<u32> = (1..=last).collect();
    let (code, seen, err) = ask(core, "verify", &all);
    assert_eq!(
        (code, &seen["is_whole"], &seen["of_volumes"]),
        (0, &json!(true), &json!(last)),
        "{err}"
    );

    // What came and waits is what the volume held, not all that is missing below it.
    let (code, seen, err) = ask(school, "import", &[3]);
    assert_eq!(code, 3, "{err}");
    assert_eq!(
        (&seen["waiting"], &seen["missing_volumes"]),
        (&seen["ops"], &json!([[1, 2]])),
        "{seen}"
    );
    assert!(err.contains("build on what is in none of these files"), "{err}");
    let (code, _, err) = ask(school, "import", &all);
    assert_eq!(code, 0, "{err}");
    assert_equal(core, school);

    // Missing and damaged is damaged.
    let bytes = fs::read(volume(2)).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    fs::write(volume(2), &flipped).unwrap();
    let (code, _, err) = ask(core, "verify", &[1, 2]);
    assert!(code == 5 && err.contains("sound copy"), "{code} {err}");
    fs::write(volume(2), &bytes).unwrap();

    // Of what only another one reads, the gaps are seen, and its end is not.
    run(school, &["bundle", "want", &file("school.atoll")]);
    run(core, &["bundle", "import", &file("school.atoll")]);
    for n in 4..7 {
        write(core, &format!("page{n}"), &noise(n, 900_000));
    }
    run(
        core,
        &[
            "bundle",
            "export",
            &file("locked.atoll"),
            "--to",
            "school",
            "--lock",
            "--volume-mib",
            "1",
        ],
    );
    let locked =
        |n: u32| file(&if n == 1 { "locked.atoll".into() } else { format!("locked.{n}.atoll") });
    let (code, _, err) = end(core, &["bundle", "verify", &locked(1), &locked(3)]);
    assert!(code == 3 && err.contains("Volume 2 is not among these files"), "{code} {err}");
    let (code, _, err) = end(core, &["bundle", "verify", &locked(1), &locked(2)]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn the_name_that_a_node_was_made_with_is_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let named = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("ATOLL_")) {
            command.env_remove(name);
        }
        command.current_dir(&folder).arg("--data").arg(&data);
        let output = command.args(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let name = |args: &[&str]| {
        let told = named(&[&["sync", "status", "--json"], args].concat());
        serde_json::from_str::<Json>(&told).unwrap()["name"].as_str().unwrap().to_owned()
    };
    let source = || {
        let rows: Json = serde_json::from_str(&named(&["config", "show", "--json"])).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "name").cloned();
        row.unwrap()["source"].clone()
    };
    named(&["init"]);
    assert_eq!((name(&[]), source()), ("atoll".into(), json!("default")));
    named(&["init", "--name", "reef"]);
    assert_eq!((name(&[]), source()), ("reef".into(), json!("folder")));
    assert_eq!(name(&["--name", "lagoon"]), "lagoon", "for this once");
    assert_eq!(name(&[]), "reef");
    fs::write(folder.path().join("atoll.toml"), "name = 'file'\n").unwrap();
    assert_eq!(name(&[]), "file");
    fs::remove_file(folder.path().join("atoll.toml")).unwrap();
    // A restored node is called as it was.
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    named(&["backup", "create", &at("copy")]);
    named(&["restore", &at("copy"), "--data", &at("again")]);
    assert_eq!(name(&["--data", &at("again")]), "reef");
}
