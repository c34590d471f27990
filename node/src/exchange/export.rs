//! A tenant as an archive: tar under zstd, with a file of JSON Lines for each kind, cut into pieces, and the pictures of
//! its users. Holds no key and no token, only hashes of them, and of passwords, if they are asked for. Works in constant memory, on a thread that may wait; cut
//! off, it begins anew.

use super::line::{self, PARTS, Part};
use super::{FILES, Folder, HEAD, fetched};
use crate::access::{Actor, Permission};
use crate::audit::AUDIT_ENTRY;
use crate::content::post::{BODY, POST};
use crate::content::version::{HEADS, POST_VERSION};
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::identity::{avatar, tenant, user};
use crate::job::{self, Job, Progress, Task};
use crate::runtime::Node;
use atoll_storage::blob::BlobId;
use atoll_storage::query::{Cursor, Query};
use atoll_storage::read::{Read as _, Reader};
use atoll_storage::{Field, Id, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The queue whose jobs are exports.
pub const QUEUE: &str = "content.export";
/// What an export gives, in its job's folder.
const FILE: &str = "export.tar.zst";
/// Raised when a release writes what earlier ones cannot read.
const FORMAT: u32 = 1;
/// A piece of a kind's lines is kept in memory until it is whole.
const PIECE_BYTES: usize = 4 << 20;
/// Records in memory at once, with their bodies.
const PAGE: usize = 50;
const LEVEL: i32 = 3;

/// What is exported beside what everybody may have who administers the tenant. The hashes are those of API keys, too.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Order {
    pub password_hashes: bool,
}

/// What an export holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    pub records: u64,
    /// Pictures of users.
    #[serde(default)]
    pub files: u64,
    /// Of them, those that this node has not fetched from its peers.
    #[serde(default)]
    pub files_missing: u64,
    pub size_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(flatten)]
    order: Order,
    folder: String,
}

/// Puts an export of the actor's tenant into the queue.
pub async fn start(node: &Node, actor: &Actor, order: Order) -> Result<Job> {
    permit(actor)?;
    let folder = Folder::make(node)?;
    let payload = serde_json::to_value(Payload { order, folder: folder.name().to_owned() });
    let job = job::start(node, actor, QUEUE, payload.map_err(internal)?).await?;
    folder.keep();
    Ok(job)
}

fn permit(actor: &Actor) -> Result<()> {
    [Permission::PostsAdminister, Permission::UsersAdminister, Permission::JobsAdminister]
        .into_iter()
        .try_for_each(|needed| actor.require(needed))
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

fn unwritable(error: std::io::Error) -> Error {
    super::failed(error)
}

/// The archive of a job that is done.
///
/// # Errors
/// `Conflict` (`not_ready`) while it goes on; `NotFound` once it is gone.
pub fn file(node: &Node, job: &Job) -> Result<PathBuf> {
    if job.state != job::DONE {
        return Err(Error::conflict("not_ready", "the export is not done: look at its job"));
    }
    fetched(node, job, FILE).ok_or(Error::NotFound("export"))
}

pub(crate) async fn work(node: Arc<Node>, job: Job) -> Result<()> {
    let work = move || perform(&Arc::new(Task::new(node, job)));
    tokio::task::spawn_blocking(work).await.map_err(internal)?
}

fn perform(task: &Arc<Task>) -> Result<()> {
    let payload: Payload = serde_json::from_value(task.job.payload.clone()).map_err(internal)?;
    let actor = task.actor()?;
    let folder = Id::parse(&payload.folder).unwrap_or_default();
    let path = task.node.folder().exchange().join(folder.to_string());
    fs::create_dir_all(&path).map_err(unwritable)?;
    let part = path.join("unfinished");
    let file = private(&part).map_err(unwritable)?;
    let told = write(&task.node, &actor, payload.order, file, &mut |done, of| {
        let to = Progress { done, of, note: format!("{done} records"), position: Json::Null };
        let holder = task.clone();
        task.node.store.write_blocking(move |tx| holder.advance(tx, &to))
    })?;
    fs::rename(&part, path.join(FILE)).map_err(unwritable)?;
    let (job, result) = (task.job.clone(), serde_json::to_value(told).map_err(internal)?);
    task.node.store.write_blocking(move |tx| job::finish_in(tx, &job, &result))
}

/// Writes the tenant into a file, here and now, which stands in its place once it is whole. `progress` hears how many records
/// are written of how many. For a thread that may wait.
pub fn run(
    node: &Node,
    actor: &Actor,
    order: Order,
    to: &Path,
    progress: impl Fn(u64, u64),
) -> Result<Told> {
    let mut tell = |done, of| {
        progress(done, of);
        Ok(())
    };
    // To a pipe or a device, as it comes.
    if fs::metadata(to).is_ok_and(|there| !there.is_file()) {
        return write(node, actor, order, private(to).map_err(unwritable)?, &mut tell);
    }
    let to = to.canonicalize().unwrap_or_else(|_| to.to_owned());
    let (draft, file) = Draft::file(&to, "unfinished").map_err(unwritable)?;
    let told = write(node, actor, order, file, &mut tell)?;
    draft.place().map_err(unwritable)?;
    Ok(told)
}

type Tell<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

fn write(node: &Node, actor: &Actor, order: Order, file: File, tell: Tell<'_>) -> Result<Told> {
    permit(actor)?;
    let encoder = zstd::stream::write::Encoder::new(file, LEVEL).map_err(unwritable)?;
    let of =
        parts(order).try_fold(0, |sum, part| Ok::<_, Error>(sum + count(node, actor, part)?))?;
    let mut archive = Archive {
        tar: tar::Builder::new(encoder),
        piece: Vec::new(),
        done: 0,
        of,
        files: HashSet::new(),
        files_missing: 0,
        tell,
    };
    let head = json!({
        "format": FORMAT,
        "release": env!("CARGO_PKG_VERSION"),
        "tenant_id": actor.tenant,
        "exported_ms": node.clock.now_ms(),
        "password_hashes": order.password_hashes,
    });
    archive.file(HEAD, head.to_string().as_bytes())?;
    for part in parts(order) {
        archive.part(node, actor, order, part)?;
    }
    if actor.can(Permission::AuditRead) {
        archive.lines(node, actor, order, &AUDIT, "audit")?;
    }
    let (records, files_missing) = (archive.done, archive.files_missing);
    let files = archive.files.len() as u64 - files_missing;
    let file = archive.tar.into_inner().and_then(|encoder| encoder.finish()).map_err(unwritable)?;
    file.sync_all().map_err(unwritable)?;
    let size_bytes = file.metadata().map_err(unwritable)?.len();
    Ok(Told { records, files, files_missing, size_bytes })
}

/// For its owner alone: it may hold hashes of passwords.
fn private(to: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(to)
}

/// To be read, and never restored: what somebody did stands in the log of where he did it.
static AUDIT: Part = Part::of(&AUDIT_ENTRY);

fn parts(order: Order) -> impl Iterator<Item = &'static Part> {
    PARTS.iter().filter(move |part| order.password_hashes || !part.needs_hashes)
}

fn query(actor: &Actor, part: &Part) -> Query {
    let query = Query::of(part.kind, actor.tenant);
    query.sort("key", false).limit(PAGE).without_total().with_bodies()
}

fn count(node: &Node, actor: &Actor, part: &Part) -> Result<u64> {
    if part.kind.code == tenant::TENANT.code {
        return Ok(1);
    }
    Ok(node.store.read(|reader| reader.count(&Query::of(part.kind, actor.tenant)))?)
}

struct Archive<'a> {
    tar: tar::Builder<zstd::stream::write::Encoder<'static, File>>,
    /// Lines that are not in the archive yet.
    piece: Vec<u8>,
    done: u64,
    of: u64,
    /// Those that were asked for.
    files: HashSet<BlobId>,
    files_missing: u64,
    tell: Tell<'a>,
}

impl Archive<'_> {
    fn part(&mut self, node: &Node, actor: &Actor, order: Order, part: &Part) -> Result<()> {
        if part.kind.code == tenant::TENANT.code {
            let own = node.store.read(|reader| reader.get(part.kind, actor.tenant))?;
            self.line(&line::of(&own.ok_or(Error::NotFound("tenant"))?, part.told))?;
            return self.cut(part.kind.plural, 1);
        }
        self.lines(node, actor, order, part, part.kind.plural)
    }

    /// `name`: what its files are called.
    fn lines(
        &mut self,
        node: &Node,
        actor: &Actor,
        order: Order,
        part: &Part,
        name: &str,
    ) -> Result<()> {
        let is_user = part.kind.code == user::USER.code;
        let told = part.secrets(order.password_hashes);
        let (mut after, mut number) = (None, 1);
        loop {
            let (lines, next) = page(node, actor, part, &told, after)?;
            for line in &lines {
                if is_user {
                    self.picture(node, line)?;
                }
                self.line(line)?;
                if self.piece.len() >= PIECE_BYTES {
                    self.cut(name, number)?;
                    number += 1;
                }
            }
            (self.tell)(self.done, self.of)?;
            after = next;
            if after.is_none() {
                return self.cut(name, number);
            }
        }
    }

    /// What a user uploaded stands before him, once.
    fn picture(&mut self, node: &Node, line: &Json) -> Result<()> {
        let id = line["fields"][user::AVATAR.name].as_str().and_then(BlobId::parse);
        let Some(id) = id.filter(|id| self.files.insert(*id)) else { return Ok(()) };
        match node.blobs.read_range(&id, 0, avatar::MAX_BYTES).map_err(internal)? {
            Some(bytes) => self.file(&format!("{FILES}{id}"), &bytes),
            None => {
                self.files_missing += 1;
                Ok(())
            }
        }
    }

    fn line(&mut self, line: &Json) -> Result<()> {
        serde_json::to_writer(&mut self.piece, line).map_err(internal)?;
        self.piece.push(b'\n');
        self.done += 1;
        Ok(())
    }

    /// `posts-0001.jsonl`.
    fn cut(&mut self, name: &str, number: u32) -> Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        self.file(&format!("{name}-{number:04}.jsonl"), &piece)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        self.tar.append_data(&mut header, name, bytes).map_err(unwritable)
    }
}

type Lines = (Vec<Json>, Option<Cursor>);

fn page(
    node: &Node,
    actor: &Actor,
    part: &Part,
    told: &[&Field],
    after: Option<Cursor>,
) -> Result<Lines> {
    Ok(node.store.read(|reader| {
        let page = reader.list(&query(actor, part).after(after))?;
        let lines = page.records.iter().map(|record| described(reader, record, told));
        Ok((lines.collect::<atoll_storage::Result<_>>()?, page.next))
    })?)
}

/// A version comes with the text that it stands for, which only the post's document knows.
fn described(reader: &Reader<'_>, record: &Record, told: &[&Field]) -> atoll_storage::Result<Json> {
    let mut line = line::of(record, told);
    if record.kind.code == POST_VERSION.code {
        let post = line["fields"]["post_id"].as_str().and_then(Id::parse).unwrap_or_default();
        let (heads, _) = record.bytes(&HEADS).unwrap_or_default().as_chunks::<32>();
        let body = match reader.get(&POST, post)? {
            Some(_) => reader.body_at(&POST, post, &BODY, heads)?,
            None => String::new(),
        };
        line["body"] = body.into();
    }
    Ok(line)
}
