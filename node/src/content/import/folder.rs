//! A folder of Markdown files, with or without front matter. Follows no links, and reads nothing outside the folder.

use super::super::post::BODY;
use super::entry::Item;
use super::intake::Intake;
use super::layout;
use super::report::Report;
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::runtime::Node;
use std::fs::{File, ReadDir};
use std::io::Read;
use std::path::{Path, PathBuf};

const MAX_DEPTH: usize = 64;
/// A body and the front matter before it.
pub(super) const MAX_FILE_BYTES: u64 = (1 << 20) + (64 << 10);

/// Makes a post of every `.md` and `.markdown` file below `dir`. `progress` hears of the report so far and of how
/// many files there are, after each file. For a thread that may wait.
///
/// # Errors
/// Only what stops all: a folder that cannot be read, a missing permission, a full disk.
pub fn import_markdown(
    node: &Node,
    actor: &Actor,
    dir: &Path,
    mut progress: impl FnMut(&Report, u64),
) -> Result<Report> {
    let mut watch = |report: &Report, _: u64, of: u64| progress(report, of);
    let mut intake = Intake::new(node, actor, false, &mut watch)?;
    read(&mut intake, dir)?;
    intake.finish()
}

pub(super) fn read(intake: &mut Intake<'_>, dir: &Path) -> Result<()> {
    let total = Files::open(dir)?.flatten().count() as u64;
    for (number, file) in Files::open(dir)?.enumerate() {
        intake.at(number as u64 + 1, total);
        let item = file.and_then(|path| read_file(dir, &path));
        intake.add(item.unwrap_or_else(|Unread { source, message }| Item::bad(source, message)))?;
    }
    Ok(())
}

/// A file or folder that cannot be taken, and why.
struct Unread {
    source: String,
    message: String,
}

impl Unread {
    fn new(path: &Path, message: impl std::fmt::Display) -> Self {
        Self { source: path.display().to_string(), message: message.to_string() }
    }
}

/// The Markdown files of a folder and those below it: one open folder a level, nothing else in memory.
struct Files {
    open: Vec<(PathBuf, ReadDir)>,
}

impl Files {
    fn open(dir: &Path) -> Result<Self> {
        let read = std::fs::read_dir(dir);
        let read = read.map_err(|e| {
            Error::Malformed(format!("the folder {} cannot be read: {e}", dir.display()))
        })?;
        Ok(Self { open: vec![(dir.to_owned(), read)] })
    }
}

impl Iterator for Files {
    type Item = Result<PathBuf, Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (folder, entries) = self.open.last_mut()?;
            let entry = match entries.next() {
                None => {
                    self.open.pop();
                    continue;
                }
                Some(Err(error)) => return Some(Err(Unread::new(folder, error))),
                Some(Ok(entry)) => entry,
            };
            let path = entry.path();
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            match entry.file_type() {
                Err(error) => return Some(Err(Unread::new(&path, error))),
                Ok(_) if is_hidden => {}
                Ok(ty) if ty.is_dir() && self.open.len() >= MAX_DEPTH => {
                    return Some(Err(Unread::new(
                        &path,
                        format!("folders nest more than {MAX_DEPTH} deep"),
                    )));
                }
                Ok(ty) if ty.is_dir() => match std::fs::read_dir(&path) {
                    Ok(entries) => self.open.push((path, entries)),
                    Err(error) => return Some(Err(Unread::new(&path, error))),
                },
                Ok(ty) if ty.is_file() && layout::is_markdown(&path) => return Some(Ok(path)),
                Ok(_) => {}
            }
        }
    }
}

fn read_file(dir: &Path, path: &Path) -> Result<Item, Unread> {
    let file = File::open(path).map_err(|error| Unread::new(path, error))?;
    let text = text_of(file).map_err(|message| Unread::new(path, message))?;
    let origin = path.strip_prefix(dir).unwrap_or(path);
    let origin: Vec<_> =
        origin.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let mut entry = layout::entry_of(&origin.join("/"), &text);
    entry.source = path.display().to_string();
    Ok(Item::Post(Box::new(entry)))
}

/// The text of a file, or why it can be none of a post.
pub(super) fn text_of(file: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is longer than a post can be: {} bytes", BODY.max));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}
