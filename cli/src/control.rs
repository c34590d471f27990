//! How a command reaches the node that holds the data folder: a port on loopback, and a token in a file that only
//! the folder's owner can read. One request a connection, JSON by the line. Bounded in size, time and number; a
//! wrong token learns nothing.

use crate::failure::{Exit, Failure, Outcome};
use crate::request::{self, Progress, Request};
use atoll_node::Node;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

const FILE: &str = "control.json";
const MAX_REQUEST_BYTES: u64 = 1 << 20;
const MAX_ANSWER_BYTES: u64 = 64 << 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 8;
/// Progress lines that wait for a slow reader; more are left out.
const WAITING_LINES: usize = 16;

#[derive(Serialize, Deserialize)]
struct Door {
    address: SocketAddr,
    token: String,
}

#[derive(Serialize, Deserialize)]
struct Asked {
    token: String,
    request: Request,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Progress(u64, u64),
    Done(Json),
    Failed(Failure),
}

/// Answers commands while it lives; the file goes with it.
pub struct Control {
    file: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Control {
    pub async fn open(node: Arc<Node>) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(Failure::failed)?;
        let address = listener.local_addr().map_err(Failure::failed)?;
        let token = hex(&node.random::<32>());
        let file = node.folder().path().join(FILE);
        let door = Door { address, token: token.clone() };
        write_private(&file, &serde_json::to_vec(&door).unwrap_or_default())
            .map_err(|error| Failure::io("write", &file, &error))?;
        let task = tokio::spawn(answer_all(listener, node, Arc::from(token)));
        Ok(Self { file, task })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.file);
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

async fn answer_all(listener: TcpListener, node: Arc<Node>, token: Arc<str>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (node, token) = (node.clone(), token.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &node, &token).await {
                tracing::debug!(%error, "a command was not answered");
            }
            drop(place);
        });
    }
}

async fn answer(stream: TcpStream, node: &Arc<Node>, token: &str) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(MAX_REQUEST_BYTES));
    let asked = tokio::time::timeout(REQUEST_TIMEOUT, read.read_line(&mut line)).await;
    asked.map_err(|_| std::io::ErrorKind::TimedOut)??;
    let Ok(asked) = serde_json::from_str::<Asked>(&line) else { return Ok(()) };
    if !is_equal(&asked.token, token) {
        return Ok(());
    }
    let (tell, mut told) = mpsc::channel(WAITING_LINES);
    let progress = Progress::new(move |done, of| {
        let _ = tell.try_send(Said::Progress(done, of));
    });
    let node = node.clone();
    // On a thread of its own: it goes on if the command is interrupted, as it would be half done otherwise.
    let runtime = tokio::runtime::Handle::current();
    let work = move || runtime.block_on(request::perform(node, asked.request, progress));
    let mut work = tokio::task::spawn_blocking(work);
    loop {
        let said = tokio::select! {
            Some(said) = told.recv() => said,
            outcome = &mut work => {
                let outcome = outcome.unwrap_or_else(|_| Err(Failure::failed("the node gave the work up")));
                let last = outcome.map_or_else(Said::Failed, Said::Done);
                return say(&mut write, &last).await;
            }
        };
        say(&mut write, &said).await?;
    }
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), said: &Said) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// In a time that says nothing of where they differ.
fn is_equal(a: &str, b: &str) -> bool {
    blake3::hash(a.as_bytes()) == blake3::hash(b.as_bytes())
}

/// Has the node that holds the folder do it.
pub async fn ask(folder: &Path, request: &Request, progress: &Progress) -> Outcome<Json> {
    let busy = |why: String| {
        Failure::new(Exit::Locked, format!("another process holds {}, and {why}", folder.display()))
    };
    let door = fs::read(folder.join(FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Door>(&bytes).ok());
    let door =
        door.ok_or_else(|| busy("it takes no commands: wait until it is done".to_owned()))?;
    let stream = TcpStream::connect(door.address).await.map_err(|error| {
        busy(format!("it does not answer commands ({error}): is it starting or stopping?"))
    })?;
    let (read, mut write) = stream.into_split();
    let asked = Asked { token: door.token, request: request.clone() };
    let mut line = serde_json::to_vec(&asked).map_err(Failure::failed)?;
    line.push(b'\n');
    write.write_all(&line).await.map_err(Failure::failed)?;
    let mut lines = BufReader::new(read.take(MAX_ANSWER_BYTES)).lines();
    while let Some(line) = lines.next_line().await.map_err(Failure::failed)? {
        match serde_json::from_str(&line).map_err(Failure::failed)? {
            Said::Progress(done, of) => progress.tell(done, of),
            Said::Done(answer) => return Ok(answer),
            Said::Failed(failure) => return Err(failure),
        }
    }
    Err(busy("it ended before it answered".to_owned()))
}
