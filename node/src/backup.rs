//! Backups: the database as it stands in one moment, the blobs, the keys, and a manifest with the hash of each file.
//! A restore begins a new life of the node (its epoch is raised), so that nothing it wrote after the backup can be
//! named twice. A backup counts as proven once it was restored and found whole: see [`kept`]. Never writes over
//! anything.

mod error;
mod file;
pub mod kept;
mod manifest;
pub mod work;

pub use error::Error;
pub use manifest::Manifest;

use crate::draft::Draft;
use crate::kinds;
use crate::moment::Moment;
use crate::runtime::{NAME, Node, UNFINISHED};
use atoll_storage::read::Read as _;
use atoll_storage::reference;
use atoll_storage::replay::Replayed;
use atoll_storage::verify::{Report, heads_in};
use atoll_storage::{Clock, Db, Digest, StreamHead, Vector};
use atoll_sync::key::NodeKey;
use file::{copy, copy_from, entry, make_private};
use serde::Serialize;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

const DATABASE: &str = atoll_storage::store::FILE;
/// Besides the database and the blobs. The second is made by the node if it is not there.
const KEYS: [&str; 2] = ["node.key", "token.key"];

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Told how far the work is: bytes done, and of how many. An error ends the work.
pub type Tell<'a> = &'a dyn Fn(u64, u64) -> Result<()>;

/// A backup that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    pub folder: PathBuf,
    pub files: usize,
    pub bytes: u64,
}

/// A backup that was looked through.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    pub sound: bool,
    pub files: usize,
    pub records: u64,
    pub ops: u64,
    pub created_at: String,
    pub node: String,
}

/// A data folder made of a backup.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    pub data: PathBuf,
    pub node: String,
    pub epoch: u32,
    /// Writes after the backup that were taken from a log, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u64>,
    /// Writes of that log that came after the time asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
}

/// A moment after a backup, and where the log stands that leads there.
#[derive(Clone, Debug)]
pub struct Later {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// A data folder of the same node, at work or not, or a later backup.
    pub log: PathBuf,
}

/// Writes a backup of a node that may be at work. One that fails leaves nothing; what a killed process left of one goes with
/// the next.
pub fn create(node: &Node, to: &Path, tell: Tell<'_>) -> Result<Made> {
    if to.exists() {
        let place = to.display();
        let refused = if !to.is_dir() || to.join(manifest::FILE).exists() || is_empty(to)? {
            format!("{place} is there already: name a new folder")
        } else {
            format!("{place} is there, and is no whole backup: remove it, or name a new folder")
        };
        return Err(Error::Refused(refused));
    }
    let failed = |error| Error::io("make", to, error);
    let draft = Draft::folder(to, "unfinished").map_err(failed)?;
    let made = write_all(node, draft.path(), tell)?;
    draft.place().map_err(failed)?;
    Ok(Made { folder: to.to_owned(), ..made })
}

/// What a backup of the node takes, as far as can be told before.
pub fn size_bytes(node: &Node) -> Result<u64> {
    let path = node.store.path();
    let database = fs::metadata(path).map_err(|error| Error::io("read", path, error))?;
    let blobs = node.blobs.total_bytes()?;
    Ok(database.len() + blobs)
}

fn write_all(node: &Node, to: &Path, tell: Tell<'_>) -> Result<Made> {
    let of = size_bytes(node)?;
    tell(0, of)?;
    crate::blob::erased::drop_all(node)?;
    let database = to.join(DATABASE);
    let heads = || node.store.read(|reader| reader.streams());
    let before = heads()?;
    node.store.backup_to(&database, |_, _| {})?;
    let copied = heads_in(&database)?;
    is_of_between(&before, &copied, &heads()?)?;
    make_private(&database)?;
    let mut files = vec![entry(to, DATABASE)?];
    for name in KEYS.into_iter().chain([NAME]) {
        let from = node.folder().path().join(name);
        if from.exists() {
            files.push(copy(&from, to, name)?);
        }
    }
    let mut done = files[0].size_bytes;
    for blob in node.blobs.iter() {
        tell(done.min(of), of)?;
        let (id, size) = blob?;
        // Removed meanwhile: then nothing names it.
        let Some(mut from) = node.blobs.get(&id)? else { continue };
        let name = id.to_string();
        files.push(copy_from(&mut from, to, &format!("blobs/{}/{name}", &name[..2]))?);
        done += size;
    }
    let origin = node.store.origin();
    let now_ms = node.clock.now_ms();
    let manifest = Manifest {
        format: manifest::FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: origin.node.to_string(),
        epoch: origin.epoch,
        created_at: Moment::of(now_ms).to_string(),
        created_ms: now_ms,
        digest: whole(root_of(&copied)),
        files,
    };
    // Last: a backup without it was cut off.
    manifest.write(to)?;
    Ok(Made { folder: to.to_owned(), files: manifest.files.len(), bytes: manifest.size_bytes() })
}

fn root_of(heads: &[StreamHead]) -> Digest {
    let mut root = Digest::default();
    heads.iter().filter(|head| !head.is_empty()).for_each(|head| root.add(head.leaf()));
    root
}

/// All of it: people are shown the first half, which proves nothing.
fn whole(digest: Digest) -> String {
    blake3::Hash::from_bytes(digest.to_bytes()).to_hex().to_string()
}

/// The copy holds each stream as it stood at some moment while it was made: all that was there before, nothing that
/// was not there afterwards, and the same state where nothing was written meanwhile.
fn is_of_between(before: &[StreamHead], copied: &[StreamHead], after: &[StreamHead]) -> Result<()> {
    let by_stream = |heads: &[StreamHead]| -> HashMap<String, StreamHead> {
        heads.iter().map(|head| (head.stream.to_string(), head.clone())).collect()
    };
    let (copied, after) = (by_stream(copied), by_stream(after));
    let nothing = Vector::default();
    let vector = |heads: &HashMap<String, StreamHead>, name: &str| {
        heads.get(name).map_or_else(|| nothing.clone(), |head| head.vector.clone())
    };
    for head in before {
        let name = head.stream.to_string();
        let (then, now) = (vector(&copied, &name), vector(&after, &name));
        let is_same = copied.get(&name).map(|copy| copy.digest) == Some(head.digest);
        let was_still =
            head.vector == now && after.get(&name).is_some_and(|h| h.digest == head.digest);
        if !then.includes(&head.vector) || !now.includes(&then) || (was_still && !is_same) {
            let what = format!("the copy of the stream {name} is not what the node holds");
            return Err(Error::Unsound(what));
        }
    }
    Ok(())
}

/// Checks every file's hash, then the database in a copy of it.
pub fn verify(from: &Path, tell: Tell<'_>) -> Result<Verified> {
    let manifest = Manifest::read(from)?;
    check_files(from, &manifest, tell)?;
    let scratch = tempfile::tempdir()
        .map_err(|error| Error::io("make a folder in", &std::env::temp_dir(), error))?;
    let report = verify_in(from, &manifest, scratch.path())?;
    Ok(Verified {
        sound: true,
        files: manifest.files.len(),
        records: report.records,
        ops: report.ops,
        created_at: manifest.created_at,
        node: manifest.node,
    })
}

fn verify_in(from: &Path, manifest: &Manifest, scratch: &Path) -> Result<Report> {
    for name in [DATABASE, KEYS[0]] {
        if from.join(name).exists() {
            copy(&from.join(name), scratch, name)?;
        }
    }
    prove(scratch, manifest)
}

/// That the database in a folder is sound and holds what the manifest says.
fn prove(folder: &Path, manifest: &Manifest) -> Result<Report> {
    let db = open_database(&folder.join(DATABASE), folder)?;
    let report = db.verify()?;
    if !report.problems.is_empty() {
        let told = report.problems.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        return Err(Error::Unsound(format!("the database in the backup is not sound: {told}")));
    }
    let digest = whole(db.reader().root()?);
    if !manifest.digest.is_empty() && digest != manifest.digest {
        let what = format!("it holds {digest}, and the backup was made of {}", manifest.digest);
        return Err(Error::Unsound(what));
    }
    Ok(report)
}

/// Makes a data folder of a backup. `to` must not be there, or be empty. With `later` it is the node as it was then: the
/// backup, and what the log says was written since.
///
/// # Errors
/// `Refused` for a time before the backup, a log of another node, or one that no longer reaches back to the backup.
pub fn restore(from: &Path, to: &Path, later: Option<&Later>, tell: Tell<'_>) -> Result<Restored> {
    let manifest = Manifest::read(from)?;
    refuse_full(to)?;
    if let Some(later) = later {
        refuse_wrong(later, &manifest)?;
    }
    check_files(from, &manifest, tell)?;
    let failed = |error| Error::io("make", to, error);
    let draft = Draft::folder(to, "restoring").map_err(failed)?;
    let unfinished = draft.path().join(UNFINISHED);
    fs::write(&unfinished, "").map_err(failed)?;
    fill(from, &manifest, draft.path(), &|_, _| Ok(()))?;
    let (epoch, replayed) = {
        let mut db = open_database(&draft.path().join(DATABASE), draft.path())?;
        let replayed =
            later.map(|later| replay(&mut db, draft.path(), &manifest, later, tell)).transpose()?;
        (db.raise_epoch()?.epoch, replayed)
    };
    fs::remove_file(&unfinished).map_err(failed)?;
    if to.exists() {
        fs::remove_dir(to).map_err(|error| Error::io("replace", to, error))?;
    }
    draft.place().map_err(failed)?;
    Ok(Restored {
        data: to.to_owned(),
        node: manifest.node,
        epoch,
        replayed: replayed.map(|replayed| replayed.ops),
        left_out: replayed.map(|replayed| replayed.left_out),
    })
}

fn refuse_wrong(later: &Later, manifest: &Manifest) -> Result<()> {
    if later.at_ms < manifest.created_ms {
        return Err(Error::Refused(format!(
            "the backup was made at {}, after that: take an older one",
            manifest.created_at
        )));
    }
    let key = later.log.join(KEYS[0]);
    let there = later.log.join(DATABASE).is_file() && key.is_file();
    let node = there.then(|| NodeKey::load_or_create(&key)).and_then(std::result::Result::ok);
    match node.map(|key| key.node_id().to_string()) {
        Some(node) if node == manifest.node => Ok(()),
        Some(node) => Err(Error::Refused(format!(
            "{} belongs to the node {node}, the backup to {}",
            later.log.display(),
            manifest.node
        ))),
        None => Err(Error::Refused(format!(
            "{} is no data folder and no backup: name one of the same node",
            later.log.display()
        ))),
    }
}

/// Writes of the log, and the files that they name as far as they lie beside it.
fn replay(
    db: &mut Db,
    to: &Path,
    manifest: &Manifest,
    later: &Later,
    tell: Tell<'_>,
) -> Result<Replayed> {
    let mut stopped = Ok(());
    let replayed = db.replay(&later.log.join(DATABASE), later.at_ms, |done, of| {
        if stopped.is_ok() {
            stopped = tell(done, of);
        }
    });
    stopped?;
    let replayed = match replayed {
        Err(error @ atoll_storage::Error::Behind { .. }) => {
            return Err(Error::Refused(error.to_string()));
        }
        Err(atoll_storage::Error::Gap { what, upto_ms }) => {
            let log = later.log.display();
            let upto = upto_ms.filter(|ms| *ms >= manifest.created_ms).map(Moment::of);
            let upto = upto.map_or_else(String::new, |at| format!("up to {at} (--at {at}), or "));
            return Err(Error::Unsound(format!(
                "the log in {log} is damaged: {what}. Restore the node {upto}as it was backed up (without --at), or by the log of a \
                 later backup that is sound"
            )));
        }
        replayed => replayed?,
    };
    let mut after = 0;
    loop {
        let wants = reference::next_wants(&db.reader(), after, 1_000)?;
        let Some(last) = wants.last() else { return Ok(replayed) };
        after = last.pos;
        for want in &wants {
            let name = want.blob.to_string();
            let path = format!("blobs/{}/{name}", &name[..2]);
            if later.log.join(&path).is_file() {
                copy(&later.log.join(&path), to, &path)?;
            }
        }
    }
}

fn fill(from: &Path, manifest: &Manifest, to: &Path, tell: Tell<'_>) -> Result<()> {
    let (mut done, of) = (0, manifest.size_bytes());
    for file in &manifest.files {
        let source = from.join(&file.path);
        let copied = copy(&source, to, &file.path)?;
        if copied.blake3 != file.blake3 {
            return Err(Error::Unsound(format!(
                "{} is damaged: use another backup",
                source.display()
            )));
        }
        done += file.size_bytes;
        tell(done, of)?;
    }
    Ok(())
}

fn open_database(file: &Path, keys: &Path) -> Result<Db> {
    let key = NodeKey::load_or_create(&keys.join(KEYS[0]))
        .map_err(|error| crate::Error::Internal(error.to_string()))?;
    Ok(Db::open(file, kinds::ALL, key.node_id(), Clock::system())?)
}

fn check_files(from: &Path, manifest: &Manifest, tell: Tell<'_>) -> Result<()> {
    let of = manifest.size_bytes();
    let mut done = 0;
    for file in &manifest.files {
        if entry(from, &file.path)?.blake3 != file.blake3 {
            let path = from.join(&file.path);
            return Err(Error::Unsound(format!(
                "{} is damaged: use another backup",
                path.display()
            )));
        }
        done += file.size_bytes;
        tell(done, of)?;
    }
    Ok(())
}

fn refuse_full(to: &Path) -> Result<()> {
    if is_empty(to)? {
        return Ok(());
    }
    let advice = "restore into a new folder, or move this one away first";
    Err(Error::Refused(format!("{} is not empty: {advice}", to.display())))
}

/// True also of a folder that is not there.
fn is_empty(folder: &Path) -> Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("read", folder, error)),
    }
}
