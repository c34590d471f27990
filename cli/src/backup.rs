//! Backups: the database as it stands in one moment, the blobs, the keys, and a manifest with the hash of each file.
//! A restore begins a new life of the node (its epoch is raised), so that nothing it wrote after the backup can be
//! named twice. Never writes over anything.

use crate::failure::{Exit, Failure, Outcome};
use crate::request::Progress;
use atoll_api::moment::Moment;
use atoll_node::{Node, kinds};
use atoll_storage::{Clock, Db};
use atoll_sync::key::NodeKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

const MANIFEST: &str = "manifest.json";
const DATABASE: &str = atoll_storage::store::FILE;
const FORMAT: u32 = 1;
/// Besides the database and the blobs. The second is made by the node if it is not there.
const KEYS: [&str; 2] = ["node.key", "token.key"];
const MAX_MANIFEST_BYTES: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    version: String,
    node: String,
    epoch: u32,
    created_at: String,
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// Under the backup's folder, with `/`.
    path: String,
    size_bytes: u64,
    blake3: String,
}

/// Writes a backup of a node that may be at work. One that fails leaves nothing.
pub fn create(node: &Node, to: &Path, progress: &Progress) -> Outcome<Json> {
    if to.exists() {
        return Err(Failure::failed(format!(
            "{} is there already: name a new folder",
            to.display()
        )));
    }
    make_folder(to)?;
    let made = write_all(node, to, progress);
    if made.is_err() {
        let _ = fs::remove_dir_all(to);
    }
    made
}

fn write_all(node: &Node, to: &Path, progress: &Progress) -> Outcome<Json> {
    let database = to.join(DATABASE);
    node.store.backup_to(&database, |done, of| progress.tell(done, of))?;
    make_private(&database)?;
    let mut files = vec![entry(to, DATABASE)?];
    for key in KEYS {
        let from = node.folder().path().join(key);
        if from.exists() {
            files.push(copy(&from, to, key)?);
        }
    }
    for blob in node.blobs.iter() {
        let (id, _) = blob.map_err(Failure::failed)?;
        // Removed meanwhile: then nothing names it.
        let Some(mut from) = node.blobs.get(&id).map_err(Failure::failed)? else { continue };
        let name = id.to_string();
        files.push(copy_from(&mut from, to, &format!("blobs/{}/{name}", &name[..2]))?);
    }
    let origin = node.store.origin();
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: origin.node.to_string(),
        epoch: origin.epoch,
        created_at: Moment::of(node.clock.now_ms()).to_string(),
        files,
    };
    // Last: a backup without it was cut off.
    let text = serde_json::to_vec_pretty(&manifest).map_err(Failure::failed)?;
    let path = to.join(MANIFEST);
    write_new(&path, &mut &text[..]).map_err(|error| Failure::io("write", &path, &error))?;
    let bytes: u64 = manifest.files.iter().map(|file| file.size_bytes).sum();
    Ok(json!({ "folder": to.display().to_string(), "files": manifest.files.len(), "bytes": bytes }))
}

/// Checks every file's hash, then the database in a copy of it.
pub fn verify(from: &Path, progress: &Progress) -> Outcome<Json> {
    let manifest = read_manifest(from)?;
    check_files(from, &manifest, progress)?;
    let scratch = tempfile::tempdir().map_err(Failure::failed)?;
    let copy = scratch.path().join(DATABASE);
    fs::copy(from.join(DATABASE), &copy)
        .map_err(|error| Failure::io("copy", &from.join(DATABASE), &error))?;
    let report = open_database(&copy, from)?.verify()?;
    if !report.problems.is_empty() {
        let told = report.problems.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        return Err(Failure::new(
            Exit::Damaged,
            format!("the database in the backup is not sound: {told}"),
        ));
    }
    Ok(json!({
        "sound": true,
        "files": manifest.files.len(),
        "records": report.records,
        "ops": report.ops,
        "created_at": manifest.created_at,
        "node": manifest.node,
    }))
}

/// Makes a data folder of a backup. `to` must not be there, or be empty.
pub fn restore(from: &Path, to: &Path, progress: &Progress) -> Outcome<Json> {
    let manifest = read_manifest(from)?;
    refuse_full(to)?;
    check_files(from, &manifest, progress)?;
    let draft = beside(to, "restoring")?;
    make_folder(&draft)?;
    let made = fill(from, &manifest, &draft);
    let made = made.and_then(|epoch| {
        if to.exists() {
            fs::remove_dir(to).map_err(|error| Failure::io("replace", to, &error))?;
        }
        fs::rename(&draft, to).map_err(|error| Failure::io("make", to, &error))?;
        Ok(epoch)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&draft);
    }
    Ok(json!({ "data": to.display().to_string(), "node": manifest.node, "epoch": made? }))
}

/// The new epoch.
fn fill(from: &Path, manifest: &Manifest, to: &Path) -> Outcome<u32> {
    for file in &manifest.files {
        let source = from.join(&file.path);
        let mut opened =
            File::open(&source).map_err(|error| Failure::io("read", &source, &error))?;
        let copied = copy_from(&mut opened, to, &file.path)?;
        if copied.blake3 != file.blake3 {
            return Err(Failure::new(
                Exit::Damaged,
                format!("{} changed while it was read", source.display()),
            ));
        }
    }
    let origin = open_database(&to.join(DATABASE), to)?.raise_epoch()?;
    Ok(origin.epoch)
}

fn open_database(file: &Path, keys: &Path) -> Outcome<Db> {
    let key = NodeKey::load_or_create(&keys.join(KEYS[0])).map_err(Failure::failed)?;
    Ok(Db::open(file, kinds::ALL, key.node_id(), Clock::system())?)
}

fn read_manifest(from: &Path) -> Outcome<Manifest> {
    let path = from.join(MANIFEST);
    let size = fs::metadata(&path).map_err(|error| {
        let failure = Failure::io("read", &path, &error);
        let why = if from.is_dir() {
            "a backup without a manifest is none, or was cut off"
        } else {
            "name the folder that `atoll backup create` made"
        };
        Failure::new(failure.exit, format!("{failure}; {why}"))
    })?;
    if size.len() > MAX_MANIFEST_BYTES {
        return Err(Failure::new(
            Exit::Damaged,
            format!("{} is too large for a manifest", path.display()),
        ));
    }
    let text = fs::read(&path).map_err(|error| Failure::io("read", &path, &error))?;
    let damaged = |why: String| Failure::new(Exit::Damaged, format!("{}: {why}", path.display()));
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if manifest.format > FORMAT {
        return Err(Failure::failed("this backup was made by a newer release: upgrade"));
    }
    let is_inside =
        |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(file) = manifest.files.iter().find(|file| !is_inside(&file.path)) {
        return Err(damaged(format!("{:?} leads out of the backup", file.path)));
    }
    if !manifest.files.iter().any(|file| file.path == DATABASE) {
        return Err(damaged("it names no database".to_owned()));
    }
    Ok(manifest)
}

fn check_files(from: &Path, manifest: &Manifest, progress: &Progress) -> Outcome {
    let of = manifest.files.iter().map(|file| file.size_bytes).sum();
    let mut done = 0;
    for file in &manifest.files {
        let found = entry(from, &file.path)?;
        if found.blake3 != file.blake3 {
            let path = from.join(&file.path);
            return Err(Failure::new(
                Exit::Damaged,
                format!("{} is damaged: use another backup", path.display()),
            ));
        }
        done += file.size_bytes;
        progress.tell(done, of);
    }
    Ok(())
}

fn entry(folder: &Path, name: &str) -> Outcome<Entry> {
    let path = folder.join(name);
    let failed = |error: &std::io::Error| {
        Failure::new(Exit::Damaged, Failure::io("read", &path, error).message)
    };
    let mut file = File::open(&path).map_err(|error| failed(&error))?;
    let mut hasher = blake3::Hasher::new();
    let size_bytes = std::io::copy(&mut file, &mut hasher).map_err(|error| failed(&error))?;
    Ok(Entry { path: name.to_owned(), size_bytes, blake3: hasher.finalize().to_hex().to_string() })
}

fn copy(from: &Path, to: &Path, name: &str) -> Outcome<Entry> {
    let mut file = File::open(from).map_err(|error| Failure::io("read", from, &error))?;
    copy_from(&mut file, to, name)
}

/// Hashes what it copies, so that the manifest says what was written.
fn copy_from(from: &mut File, folder: &Path, name: &str) -> Outcome<Entry> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Failure::io("make", parent, &error))?;
    }
    let mut hashed = Hashed { from, hasher: blake3::Hasher::new(), bytes: 0 };
    write_new(&path, &mut hashed).map_err(|error| Failure::io("write", &path, &error))?;
    let blake3 = hashed.hasher.finalize().to_hex().to_string();
    Ok(Entry { path: name.to_owned(), size_bytes: hashed.bytes, blake3 })
}

struct Hashed<'a> {
    from: &'a mut File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Mode 0600, on disk when it returns.
fn write_new(path: &Path, from: &mut impl Read) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    std::io::copy(from, &mut file)?;
    file.flush()?;
    file.sync_all()
}

fn make_private(path: &Path) -> Outcome {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|error| Failure::io("protect", path, &error))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// A new folder that only its owner can read.
fn make_folder(path: &Path) -> Outcome {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| Failure::io("make", parent, &error))?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| Failure::io("make", path, &error))
}

fn refuse_full(to: &Path) -> Outcome {
    let mut entries = match fs::read_dir(to) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::io("read", to, &error)),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let advice = "restore into a new folder, or move this one away first";
    Err(Failure::failed(format!("{} is not empty: {advice}", to.display())))
}

fn beside(path: &Path, suffix: &str) -> Outcome<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{} names no folder", path.display())))?;
    let mut name = name.to_owned();
    name.push(format!(".{suffix}-{}", std::process::id()));
    Ok(path.with_file_name(name))
}
