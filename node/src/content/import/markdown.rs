//! A folder of Markdown files, with or without front matter. Follows no links, and reads nothing outside the folder.

use super::super::post::{BODY, EXCERPT, TITLE};
use super::{Entry, Import, Report, date, fitting, front_matter, hash_of};
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::tx::Changes;
use std::fs::{File, ReadDir};
use std::io::Read as _;
use std::path::{Path, PathBuf};

const MAX_DEPTH: usize = 64;
/// A body and the front matter before it.
const MAX_FILE_BYTES: u64 = (1 << 20) + (64 << 10);

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
    let mut import = Import::new(node, actor)?;
    let total = Files::open(dir)?.flatten().count() as u64;
    for file in Files::open(dir)? {
        match file.and_then(|path| read(dir, &path)) {
            Ok(entry) => import.add(entry)?,
            Err(Unread { source, message }) => import.report.fail(source, message),
        }
        progress(&import.report, total);
    }
    let report = import.finish()?;
    progress(&report, total);
    Ok(report)
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
                Ok(ty) if ty.is_file() && is_markdown(&path) => return Some(Ok(path)),
                Ok(_) => {}
            }
        }
    }
}

fn is_markdown(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ext| ext.eq_ignore_ascii_case("md") || ext.eq_ignore_ascii_case("markdown"))
}

fn read(dir: &Path, path: &Path) -> Result<Entry, Unread> {
    let fail = |message: &dyn std::fmt::Display| Unread::new(path, message);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| fail(&e))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| fail(&e))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(fail(&format!("is longer than a post can be: {} bytes", BODY.max)));
    }
    let text = String::from_utf8(bytes).map_err(|_| fail(&"is not UTF-8"))?;
    let origin = path.strip_prefix(dir).unwrap_or(path);
    let origin: Vec<_> =
        origin.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let source = path.display().to_string();
    Ok(Entry { source, hash: hash_of(&[text.as_bytes()]), ..entry_of(&origin.join("/"), &text) })
}

/// What the text of a file says. `origin`: its path within the folder.
fn entry_of(origin: &str, text: &str) -> Entry {
    let (head, body) = front_matter::split(text);
    let title = head
        .text(&["title"])
        .or_else(|| heading(body))
        .map_or_else(|| name_of(origin), str::to_owned);
    let mut changes = Changes::new();
    if let Some(excerpt) = head.text(&["excerpt", "summary", "description"]) {
        changes.put(&EXCERPT, fitting(&EXCERPT, excerpt));
    }
    let several = |keys: &[&str]| -> Vec<String> {
        match head.list(keys) {
            [one] => one.split(',').map(|part| part.trim().to_owned()).collect(),
            many => many.to_vec(),
        }
    };
    Entry {
        origin: origin.to_owned(),
        title: fitting(&TITLE, &title),
        body: body.to_owned(),
        changes,
        slug: head.text(&["slug"]).map(str::to_owned),
        category: head.text(&["category", "categories"]).map(str::to_owned),
        tags: several(&["tags", "tag", "keywords"]),
        is_draft: head.flag("draft") || head.text(&["published"]) == Some("false"),
        published_ms: head.text(&["date", "published_at", "pubdate"]).and_then(date::parse),
        ..Entry::default()
    }
}

/// The text of the first heading of the first level, if one stands before any text.
fn heading(body: &str) -> Option<&str> {
    let first =
        body.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("<!--"))?;
    let title = first.strip_prefix("# ")?.trim().trim_end_matches('#').trim_end();
    Some(title).filter(|title| !title.is_empty())
}

/// `guide/first-steps.md` is called `first steps`, and `guide/index.md` `guide`.
fn name_of(origin: &str) -> String {
    let path = Path::new(origin);
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let is_index =
        |name: &String| matches!(name.to_ascii_lowercase().as_str(), "index" | "readme" | "_index");
    let name = match stem(path) {
        Some(name) if is_index(&name) => path.parent().and_then(stem).unwrap_or(name),
        Some(name) => name,
        None => origin.to_owned(),
    };
    let words = name.replace(['-', '_'], " ");
    if words.trim().is_empty() { origin.to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_called_by_its_front_matter_its_heading_or_its_file() {
        assert_eq!(entry_of("a.md", "---\ntitle: One\n---\n# Two").title, "One");
        assert_eq!(entry_of("a.md", "\n<!-- x -->\n# Two #\ntext").title, "Two");
        assert_eq!(entry_of("guide/first-steps.md", "text\n# Two").title, "first steps");
        assert_eq!(entry_of("guide/README.md", "").title, "guide");
    }

    #[test]
    fn tags_are_taken_as_a_list_or_with_commas() {
        assert_eq!(entry_of("a.md", "---\ntags: a, b\n---\n").tags, ["a", "b"]);
        assert_eq!(entry_of("a.md", "---\ntags: [a, b]\n---\n").tags, ["a", "b"]);
        assert!(entry_of("a.md", "---\ndraft: true\n---\n").is_draft);
    }
}
