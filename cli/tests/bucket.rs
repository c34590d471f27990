//! The real binary at a real S3 server: two nodes that are never up together, one of which is killed while it writes.

use atoll_tests::harness::noise;
use atoll_tests::object_store::{BUCKET, Fault, KEY_ID, ObjectStore, SECRET_KEY};
use serde_json::Value as Json;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn atoll(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    let inherited = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in inherited.filter(|name| name.starts_with("ATOLL_") || name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("ATOLL_ADMIN_PASSWORD", "a long enough password").arg("--data").arg(data);
    let any = ["--listen", "127.0.0.1:0", "--sync-listen", "127.0.0.1:0"];
    command.args(any).stdin(Stdio::null());
    command
}

fn done(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{error}");
    let all = String::from_utf8(output.stdout).unwrap();
    assert!(!all.contains(SECRET_KEY) && !error.contains(SECRET_KEY), "{all} {error}");
    all
}

fn run(data: &Path, args: &[&str]) -> String {
    done(atoll(data).args(args).output().unwrap())
}

fn status(data: &Path) -> Json {
    serde_json::from_str(&run(data, &["sync", "status", "--json"])).unwrap()
}

fn key_of(data: &Path) -> String {
    status(data)["public_key"].as_str().unwrap().to_owned()
}

/// Each is up alone, for one visit.
fn take_turns(nodes: &[&Path], times: usize) {
    for _ in 0..times {
        for node in nodes {
            run(node, &["sync", "now"]);
        }
    }
}

fn have_met(core: &Path, school: &Path) {
    take_turns(&[core, school], 2);
    assert_eq!(status(core)["digest"], status(school)["digest"]);
    for node in [core, school] {
        run(node, &["verify"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_meet_in_a_bucket_and_a_killed_writer_does_no_harm() {
    let store = ObjectStore::open().await;
    let folder = tempfile::tempdir().unwrap();
    let (core, school) = (folder.path().join("core"), folder.path().join("school"));
    let (core, school) = (core.as_path(), school.as_path());
    run(core, &["init"]);
    run(school, &["init", "--courier-from", &key_of(core)]);
    run(core, &["peer", "add", &key_of(school), "--name", "school"]);
    let (url, endpoint) = (format!("s3://{BUCKET}/nodes"), store.endpoint());
    let add = ["peer", "add", &url, "--name", "pool"];
    // Everything from the variables that such programs share.
    let mut command = atoll(core);
    command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("AWS_ENDPOINT_URL", &endpoint).env("AWS_REGION", "eu-north-1");
    done(command.args(add).output().unwrap());
    // A wrong secret is refused on the spot.
    let with = ["--endpoint", &endpoint, "--access-key-id", KEY_ID, "--secret-key-stdin"];
    for (secret, code) in [("wrong", 1), (SECRET_KEY, 0)] {
        let mut command = atoll(school);
        command.args(add).args(with).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{secret}").unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
    let listed = run(school, &["peer", "list"]);
    assert!(listed.contains("pool") && listed.contains(&url), "{listed}");
    have_met(core, school);

    // Some megabytes, so that the bundle has several volumes; the process is killed while it sends the second one.
    let pages = folder.path().join("pages");
    std::fs::create_dir(&pages).unwrap();
    for n in 0..12 {
        let text = format!("# Page {n}\n\n{}", noise(n, 900_000));
        std::fs::write(pages.join(format!("{n}.md")), text).unwrap();
    }
    run(core, &["import", "markdown", pages.to_str().unwrap()]);
    store.fail(|method, path| method == "PUT" && path.contains("-0002"), Fault::Hang);
    let mut serving =
        atoll(core).arg("serve").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    tokio::time::timeout(Duration::from_secs(120), store.hung()).await.expect("it sends");
    serving.kill().unwrap();
    serving.wait().unwrap();
    store.heal();
    let half = store.objects();
    assert!(half.iter().any(|name| name.ends_with("-0001.atoll")), "{half:?}");
    assert!(!half.iter().any(|name| name.contains("-0002")), "{half:?}");
    have_met(school, core);
    let found = run(school, &["sync", "status"]);
    assert!(found.contains("bucket pool  reached"), "{found}");

    // Offline: told, and no fault of the rest.
    let mut store = store;
    store.close().await;
    let late = atoll(school).args(["sync", "now"]).output().unwrap();
    let error = String::from_utf8_lossy(&late.stderr);
    assert!(late.status.code() == Some(1) && error.contains("is not reached"), "{error}");
    run(school, &["peer", "remove", "pool"]);
    assert!(!run(school, &["peer", "list"]).contains("pool"));
}
