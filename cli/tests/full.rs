//! The real binary on a disk that is really full: a small file system of its own, where the system lets users make one.

use atoll_node::runtime::Workers;
use atoll_node::{Actor, peer};
use atoll_storage::Id;
use atoll_sync::runner::Obstacle;
use atoll_tests::harness::{Client, TestNode, noise};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const EMAIL: &str = "admin@example.org";
const PASSWORD: &str = "a long enough password";
const PATIENCE: Duration = Duration::from_secs(120);

/// Set where users may not mount: the tests of this file then test nothing and say so.
const MAY_SKIP: &str = "ATOLL_SKIP_FULL_DISK";

/// Serves, and looks through the folder when that has ended. Killed, it serves once more if that is wanted: as after a
/// power cut, and without any room if that is wanted too.
const SCRIPT: &str = r#"
mount -t tmpfs -o size="$SIZE" tmpfs "$DISK" || exit 77
head -c "$BALLAST" /dev/zero > "$DISK/ballast" || exit 77
: > "$PORTS.mounted"
serves() {
    "$ATOLL" --data "$DISK/data" --listen 127.0.0.1:0 --sync-listen 127.0.0.1:0 --set limits.rate=0 \
        serve ${JOIN:+--join "$JOIN"} --port-file "$1"
}
ports=$PORTS
lives=1
until serves "$ports"; do
    [ -e "$PORTS.wanted" ] || exit 1
    rm -f "$PORTS.wanted" "$DISK/data/atoll.db-shm"
    [ -e "$DISK/ballast" ] && cat /dev/zero > "$DISK/rest"
    JOIN=
    ports=$PORTS.$lives
    lives=$((lives + 1))
done
"$ATOLL" --data "$DISK/data" verify
"#;

struct Small {
    child: Child,
    disk: PathBuf,
    ports: PathBuf,
    lives: u32,
}

/// How large the disk is, what of it is taken from the beginning, and whom a node on it joins.
struct Room<'a> {
    size: &'a str,
    ballast: &'a str,
    join: &'a str,
}

fn not_here() -> Option<Small> {
    assert!(
        std::env::var_os(MAY_SKIP).is_some(),
        "no file system can be made here (unshare --mount): to leave these tests out, set {MAY_SKIP}"
    );
    println!("no file system can be made here: nothing was tested");
    None
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
    /// None where users may not mount and that may be.
    fn start(folder: &Path) -> Option<Self> {
        Self::start_in(folder, &Room { size: "64m", ballast: "36M", join: "" })
    }

    fn start_in(folder: &Path, room: &Room) -> Option<Self> {
        let (disk, ports) = (folder.join("disk"), folder.join("ports"));
        std::fs::create_dir(&disk).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT]);
        command.env("DISK", &disk).env("PORTS", &ports).env("ATOLL", env!("CARGO_BIN_EXE_atoll"));
        command.env("SIZE", room.size).env("BALLAST", room.ballast).env("JOIN", room.join);
        command.env("ATOLL_ADMIN_EMAIL", EMAIL).env("ATOLL_ADMIN_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else { return not_here() };
        while !ports.exists() {
            if let Some(ended) = child.try_wait().unwrap() {
                let is_mounted = ports.with_extension("mounted").exists();
                assert!(!is_mounted, "the node ended at its start: {ended}");
                return not_here();
            }
            std::thread::yield_now();
        }
        Some(Self { child, disk, ports, lives: 1 })
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
        self.ports.set_extension(self.lives.to_string());
        self.lives += 1;
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
    let Some(small) = Small::start(folder.path()) else { return };
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
    let Some(small) = Small::start(folder.path()) else { return };
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
    let Some(mut small) = Small::start(folder.path()) else { return };
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

/// A node with more than a small disk holds, and a ticket of it.
async fn large() -> (TestNode, Workers, String) {
    let hub = TestNode::start().await;
    let workers = hub.node.start().await.unwrap();
    let admin = hub.admin().await;
    for n in 0..400 {
        let post = json!({ "title": format!("Post {n}"), "body": noise(n, 64 << 10) });
        admin.post("/api/v1/posts", &post).await.expect(201);
    }
    let hour = Duration::from_secs(3_600);
    let issued = peer::ticket(&hub.node, &Actor::system(Id::NIL), hour, vec![]).await.unwrap();
    (hub, workers, issued.line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_first_sync_fills_its_disk_starts_again_as_often_as_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, workers, ticket) = large().await;
    let room = Room { size: "24m", ballast: "0", join: &ticket };
    let Some(mut small) = Small::start_in(folder.path(), &room) else { return };
    let is_full = || {
        let peers = hub.node.sync().unwrap().status();
        peers.iter().any(|peer| peer.obstacle == Some(Obstacle::DiskFullThere))
    };
    let fills = async {
        while !is_full() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, fills).await.expect("the disk fills");
    std::fs::remove_file(small.inside("ballast")).unwrap();
    for _ in 0..20 {
        small.killed_and_started_again();
        let client = small.client();
        assert_eq!(client.get("/health").await.status, 200);
    }
    workers.shutdown().await;
    assert!(small.ends_soundly(), "verify found something");
}
