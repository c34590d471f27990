//! The real binary on a disk that is really full: a small file system of its own, where the system lets users make one.

use atoll_tests::harness::Client;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const EMAIL: &str = "admin@example.org";
const PASSWORD: &str = "a long enough password";

/// Serves, and looks through the folder when that has ended. Killed, it serves once more if that is wanted: as after a
/// power cut, and without any room.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=64m tmpfs "$DISK" || exit 77
head -c 36M /dev/zero > "$DISK/ballast" || exit 77
: > "$PORTS.mounted"
serves() {
    "$ATOLL" --data "$DISK/data" --listen 127.0.0.1:0 --sync-listen 127.0.0.1:0 --set limits.rate=0 \
        serve --port-file "$1"
}
if ! serves "$PORTS"; then
    [ -e "$PORTS.wanted" ] || exit 1
    rm -f "$DISK/data/atoll.db-shm"
    cat /dev/zero > "$DISK/rest"
    serves "$PORTS.again" || exit 1
fi
"$ATOLL" --data "$DISK/data" verify
"#;

struct Small {
    child: Child,
    disk: PathBuf,
    ports: PathBuf,
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Some(pid) = self.told()["pid"].as_u64() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Small {
    /// None where users may not mount.
    fn start(folder: &Path) -> Option<Self> {
        let (disk, ports) = (folder.join("disk"), folder.join("ports"));
        std::fs::create_dir(&disk).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT]);
        command.env("DISK", &disk).env("PORTS", &ports).env("ATOLL", env!("CARGO_BIN_EXE_atoll"));
        command.env("ATOLL_ADMIN_EMAIL", EMAIL).env("ATOLL_ADMIN_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        while !ports.exists() {
            if let Some(ended) = child.try_wait().unwrap() {
                let is_mounted = ports.with_extension("mounted").exists();
                assert!(!is_mounted, "the node ended at its start: {ended}");
                return None;
            }
            std::thread::yield_now();
        }
        Some(Self { child, disk, ports })
    }

    fn told(&self) -> Json {
        let told = std::fs::read(&self.ports).unwrap_or_default();
        serde_json::from_slice(&told).unwrap_or_default()
    }

    fn client(&self) -> Client {
        let address = self.told()["http"].as_str().unwrap().parse().unwrap();
        Client { address, token: None, tenant: None }
    }

    /// As the node itself sees it.
    fn inside(&self, name: &str) -> PathBuf {
        let disk = self.disk.strip_prefix("/").unwrap();
        Path::new("/proc").join(self.child.id().to_string()).join("root").join(disk).join(name)
    }

    /// Kills the node, and waits until it serves again.
    fn killed_and_started_again(&mut self) {
        std::fs::write(self.ports.with_extension("wanted"), "").unwrap();
        let pid = self.told()["pid"].to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        self.ports.set_extension("again");
        while !self.told()["http"].is_string() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it did not start again");
            std::thread::yield_now();
        }
    }

    /// Ends the node in order; whether `verify` found nothing then.
    fn ends_soundly(mut self) -> bool {
        let pid = self.told()["pid"].to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.child.wait().unwrap().success()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_loses_none_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::start(folder.path()) else {
        println!("no file system can be made here: nothing was tested");
        return;
    };
    let client = small.client().login(EMAIL, PASSWORD).await;
    let draft = |n: usize| {
        let body: String = (0..6_000).map(|word| format!("{} ", n * 7_919 + word * 31)).collect();
        json!({ "title": format!("Post {n}"), "body": body })
    };
    let (mut answered, mut refused) = (Vec::new(), 0);
    for n in 0..5_000 {
        let answer = client.post("/api/v1/posts", &draft(n)).await;
        if answer.status == 201 {
            answered.push(answer.data()["id"].as_str().unwrap().to_owned());
            continue;
        }
        assert_eq!((answer.status, answer.code().as_str()), (507, "disk_full"));
        refused += 1;
        if refused > 20 {
            break;
        }
    }
    assert!(refused > 20 && answered.len() > 20, "{} answered", answered.len());
    for id in &answered {
        client.get(&format!("/api/v1/posts/{id}")).await.expect(200);
    }
    std::fs::remove_file(small.inside("ballast")).unwrap();
    for n in 5_000..5_010 {
        let made = client.post("/api/v1/posts", &draft(n)).await.expect(201).data();
        answered.push(made["id"].as_str().unwrap().to_owned());
    }
    let listed = client.get("/api/v1/posts").await.expect(200).json();
    assert_eq!(listed["page"]["total"], answered.len());
    assert!(small.ends_soundly(), "verify found something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_would_not_fit_is_refused_with_what_it_needs_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::start(folder.path()) else {
        println!("no file system can be made here: nothing was tested");
        return;
    };
    let client = small.client().login(EMAIL, PASSWORD).await;
    let asked = client.post("/api/v1/backups", &json!({})).await.expect(202);
    let job = loop {
        let job = client.get(asked.header("location").unwrap()).await.expect(200).data();
        if job["state"] != "waiting" && job["state"] != "running" {
            break job;
        }
        std::thread::yield_now();
    };
    let why = job["error"].as_str().unwrap();
    assert!(why.contains("MiB are needed") && why.contains("backup.folder"), "{job}");
    assert_eq!((&job["state"], &job["attempts"]), (&"dead".into(), &1.into()), "not tried again");
    let left = std::fs::read_dir(small.inside("data/backups")).unwrap().count();
    assert_eq!(left, 0);
    let health = client.get("/health").await.expect(200).json();
    assert_eq!(health["checks"]["backup"], "failed", "{health}");
    client.post("/api/v1/posts", &json!({ "title": "Still", "body": "x" })).await.expect(201);
    assert!(small.ends_soundly(), "verify found something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_starts_on_a_disk_without_any_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut small) = Small::start(folder.path()) else {
        println!("no file system can be made here: nothing was tested");
        return;
    };
    let draft = |title: &str| json!({ "title": title, "body": "It opens at nine." });
    let client = small.client().login(EMAIL, PASSWORD).await;
    let made = client.post("/api/v1/posts", &draft("Before")).await.expect(201).data();
    small.killed_and_started_again();
    let client = Client { address: small.client().address, ..client };
    let path = format!("/api/v1/posts/{}", made["id"].as_str().unwrap());
    assert_eq!(client.get(&path).await.expect(200).data()["title"], "Before");
    for name in ["ballast", "rest"] {
        std::fs::remove_file(small.inside(name)).unwrap();
    }
    client.post("/api/v1/posts", &draft("After")).await.expect(201);
    assert!(small.ends_soundly(), "verify found something");
}
