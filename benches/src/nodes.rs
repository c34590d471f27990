//! Whole nodes, for the programs that measure how they become equal: in this process, or each in one of its own. Writes
//! through the store, as the domain does, without HTTP.

use crate::text;
use atoll_node::community::comment::{self, COMMENT};
use atoll_node::community::like::{self, LIKE};
use atoll_node::content::post::{self, Draft};
use atoll_node::runtime::Workers;
use atoll_node::{Actor, Config, Node, Role, config, identity, peer};
use atoll_storage::tx::Tx;
use atoll_storage::{Changes, Clock, Digest, Id, Kind, Read};
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub const POST_BYTES: usize = 2_048;
pub const PATIENCE: Duration = Duration::from_secs(900);
/// In one transaction.
pub const GROUP: usize = 500;

/// A node at work.
pub struct Running {
    pub node: Arc<Node>,
    pub workers: Workers,
}

impl Running {
    pub async fn start(data: &Path) -> Self {
        Self::start_with(data, &[], Clock::system()).await
    }

    /// `carries`: the rules of a node that carries a part; none for one that carries everything.
    pub async fn start_with(data: &Path, carries: &[String], clock: Clock) -> Self {
        let any = ([127, 0, 0, 1], 0).into();
        let data = data.to_owned();
        let sync = config::Sync { carries: carries.to_vec(), ..Config::default().sync };
        let config = Config { data, listen: any, sync_listen: any, sync, ..Config::default() };
        let node = Node::open_at(config, clock).expect("the node opens");
        let workers = node.start().await.expect("the node starts");
        Self { node, workers }
    }

    pub fn root(&self) -> Digest {
        self.node.store.read(|reader| reader.root()).expect("the root")
    }

    pub async fn ticket(&self) -> String {
        let system = Actor::system(Id::NIL);
        let hour = Duration::from_secs(3_600);
        peer::ticket(&self.node, &system, hour, vec![]).await.expect("a ticket").line
    }

    pub async fn join(&self, ticket: &str) {
        peer::join(&self.node, &Actor::system(Id::NIL), ticket).await.expect("it joins");
    }

    pub async fn set_up(&self) -> Actor {
        let made = identity::setup(&self.node, "admin@example.org", "a long enough password").await;
        let made = made.expect("the first admin");
        Actor::of(made.tenant.key, made.user.key, Role::Superadmin)
    }

    pub fn pause(&self, pauses: bool) {
        let links = self.node.sync().expect("it talks to others");
        if pauses { links.pause() } else { links.resume() }
    }
}

/// Two linked nodes in this process.
pub struct Pair {
    pub a: Running,
    pub b: Running,
    pub author: Actor,
    _folders: [TempDir; 2],
}

impl Pair {
    pub async fn start() -> Self {
        Self::start_at(&Clock::system()).await
    }

    pub async fn start_at(clock: &Clock) -> Self {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
        let a = Running::start_with(folders[0].path(), &[], clock.clone()).await;
        let author = a.set_up().await;
        let b = Running::start_with(folders[1].path(), &[], clock.clone()).await;
        b.join(&a.ticket().await).await;
        let pair = Self { a, b, author, _folders: folders };
        pair.until_equal().await;
        pair
    }

    /// Looks with each commit of either.
    pub async fn until_equal(&self) {
        let wait = async {
            let mut commits = [&self.a, &self.b].map(|node| node.node.store.subscribe());
            while self.a.root() != self.b.root() {
                let [of_a, of_b] = &mut commits;
                let changed = tokio::select! {
                    changed = of_a.changed() => changed,
                    changed = of_b.changed() => changed,
                };
                changed.expect("the store is open");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("they become equal");
    }

    pub async fn stop(self) {
        self.a.workers.shutdown().await;
        self.b.workers.shutdown().await;
    }
}

pub fn draft(n: usize, size_bytes: usize) -> Draft {
    let mut body = text::words(n as u64, size_bytes);
    body.truncate(size_bytes);
    let changes = Changes::new().set(&post::TITLE, format!("Post {n}")).body(&post::BODY, body);
    Draft::new(changes).expect("a good draft")
}

/// Runs `each` for every number, in transactions of [`GROUP`].
pub async fn in_groups<T: Send + 'static>(
    node: &Node,
    numbers: std::ops::Range<usize>,
    each: impl Fn(&mut Tx<'_>, usize) -> Result<T, atoll_node::Error> + Clone + Send + 'static,
) -> Vec<T> {
    let mut made = Vec::with_capacity(numbers.len());
    for first in numbers.clone().step_by(GROUP) {
        let (group, each) = (first..(first + GROUP).min(numbers.end), each.clone());
        let written = node.store.write(move |tx| {
            group.map(|n| each(tx, n)).collect::<Result<Vec<T>, atoll_node::Error>>()
        });
        made.extend(written.await.expect("a group is written"));
    }
    made
}

pub async fn make_posts(
    node: &Node,
    author: Actor,
    numbers: std::ops::Range<usize>,
    size_bytes: usize,
) -> Vec<Id> {
    in_groups(node, numbers, move |tx, n| Ok(draft(n, size_bytes).create(tx, &author, None)?.key))
        .await
}

pub async fn make_comments(
    node: &Node,
    author: Actor,
    posts: &[Id],
    numbers: std::ops::Range<usize>,
) -> Vec<Id> {
    make_records(node, author, posts, numbers, &COMMENT, move |tx, n, post| {
        let changes = Changes::new()
            .set(&comment::POST_ID, post)
            .set(&comment::TEXT, text::words(n as u64, 120))
            .set(&comment::AUTHOR_ID, author.user)
            .set(&comment::STATUS, comment::APPROVED);
        (tx.new_id(), changes)
    })
    .await
}

/// Each of another person, made up.
pub async fn make_likes(
    node: &Node,
    author: Actor,
    posts: &[Id],
    numbers: std::ops::Range<usize>,
) -> Vec<Id> {
    make_records(node, author, posts, numbers, &LIKE, move |_, n, target| {
        let user = Id::natural(&[b"user", &n.to_le_bytes()]);
        let changes = Changes::new()
            .set(&like::TARGET_KIND, "post")
            .set(&like::TARGET_ID, target)
            .set(&like::USER_ID, user);
        (Id::natural(&[b"like", &author.tenant.0, &target.0, &user.0]), changes)
    })
    .await
}

/// Records that each belong to one of the posts.
async fn make_records(
    node: &Node,
    author: Actor,
    posts: &[Id],
    numbers: std::ops::Range<usize>,
    kind: &'static Kind,
    each: impl Fn(&mut Tx<'_>, usize, Id) -> (Id, Changes) + Clone + Send + 'static,
) -> Vec<Id> {
    let posts: Arc<[Id]> = posts.into();
    in_groups(node, numbers, move |tx, n| {
        let (key, changes) = each(tx, n, posts[n % posts.len()]);
        tx.create(kind, author.tenant, key, changes)?;
        Ok(key)
    })
    .await
}

/// This very program in a process of its own; it is told and tells lines, and ends when its input does.
pub struct Apart {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Apart {
    pub fn start(args: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        // As the binary `atoll` sets its allocators.
        command.envs([("MIMALLOC_PURGE_DELAY", "0"), ("MALLOC_ARENA_MAX", "2")]);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, input, output }
    }

    pub fn hear(&mut self) -> Json {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// One line, and the answer to it.
    pub fn ask(&mut self, line: &str) -> Json {
        let input = self.input.as_mut().expect("it still listens");
        writeln!(input, "{line}").expect("it listens");
        self.hear()
    }

    pub fn end(mut self) -> Json {
        drop(self.input.take());
        let last = self.hear();
        self.child.wait().expect("it ends");
        last
    }
}

/// Kilobytes of this process's memory, as the system counts them under this name (`VmRSS`, `VmHWM`).
pub fn memory_kb(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
