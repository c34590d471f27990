//! A folder of Markdown files, with or without front matter. Follows no links, and reads nothing outside the folder.

use super::super::post::BODY;
use super::entry::Item;
use super::intake::Intake;
use super::layout;
use super::report::Report;
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::runtime::Node;
use std::collections::BTreeSet;
use std::fs::{File, ReadDir};
use std::io::Read;
use std::path::{Path, PathBuf};

const MAX_DEPTH: usize = 64;
/// A body and the front matter before it.
pub(super) const MAX_FILE_BYTES: u64 = (1 << 20) + (64 << 10);

/// Makes a post of every page below `dir`. `progress` hears of the report so far and of how
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
    let is_page = |found: &Result<Found, Unread>| matches!(found, Ok(Found::Page(_)));
    let total = Files::open(dir)?.filter(is_page).count() as u64;
    let (mut number, mut passed) = (0, Passed::default());
    for found in Files::open(dir)? {
        let item = match found {
            Ok(Found::Page(path)) => {
                number += 1;
                intake.at(number, total);
                read_file(dir, &path)
            }
            Ok(Found::Hidden(path)) => match passed.hidden(&within(dir, &path)) {
                Some(item) => Ok(item),
                None => continue,
            },
            Ok(Found::Other(path)) => {
                passed.other(&within(dir, &path));
                continue;
            }
            Err(unread) => Err(unread),
        };
        intake.add(item.unwrap_or_else(|Unread { source, message }| Item::bad(source, message)))?;
    }
    passed.others().map_or(Ok(()), |item| intake.add(item))
}

/// The path below the folder, with slashes.
fn within(dir: &Path, path: &Path) -> String {
    let path = path.strip_prefix(dir).unwrap_or(path);
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// Hidden files and folders that are told of one by one.
const HIDDEN_TOLD: usize = 1_000;

/// What a folder or archive holds beside pages.
#[derive(Default)]
pub(super) struct Passed {
    hidden: BTreeSet<String>,
    others: u64,
    /// One of them.
    example: String,
}

impl Passed {
    pub fn is_hidden(path: &str) -> bool {
        path.split('/').any(|part| part.starts_with('.'))
    }

    /// An item for the report, if that part of the path is not told of yet.
    pub fn hidden(&mut self, path: &str) -> Option<Item> {
        let parts: Vec<&str> = path.split('/').collect();
        let at = parts.iter().position(|part| part.starts_with('.')).unwrap_or_default();
        let part = parts[..=at].join("/");
        let is_new = self.hidden.len() < HIDDEN_TOLD && self.hidden.insert(part.clone());
        is_new
            .then(|| Item::skipped(part, "its name begins with a dot: such files are not imported"))
    }

    pub fn other(&mut self, path: &str) {
        if self.others == 0 {
            path.clone_into(&mut self.example);
        }
        self.others += 1;
    }

    /// An item for the report, if there was any.
    pub fn others(&self) -> Option<Item> {
        let (count, example) = (self.others, &self.example);
        let message = "is no page: only texts are imported, other files stay where they are";
        match count {
            0 => None,
            1 => Some(Item::skipped(example, message)),
            _ => Some(Item::skipped(format!("{count} files, such as {example}"), message)),
        }
    }
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

enum Found {
    Page(PathBuf),
    /// Its name begins with a dot.
    Hidden(PathBuf),
    Other(PathBuf),
}

/// The files of a folder and those below it: one open folder a level, nothing else in memory.
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
    type Item = Result<Found, Unread>;

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
                Ok(_) if is_hidden => return Some(Ok(Found::Hidden(path))),
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
                Ok(ty) if ty.is_file() && layout::is_page(&path) => {
                    return Some(Ok(Found::Page(path)));
                }
                Ok(_) => return Some(Ok(Found::Other(path))),
            }
        }
    }
}

fn read_file(dir: &Path, path: &Path) -> Result<Item, Unread> {
    let file = File::open(path).map_err(|error| Unread::new(path, error))?;
    let text = text_of(file).map_err(|message| Unread::new(path, message))?;
    Ok(layout::item_of(&path.display().to_string(), &within(dir, path), &text))
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
