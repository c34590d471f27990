//! What an import did: counts, the failures among them one by one, and a file with a line for each item. The file
//! follows the store: after a kill it is cut to what was committed, so that no item stands in it twice or never.

use crate::error::{Error, Result};
use atoll_storage::Id;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// Failures that a report tells one by one; the rest are only counted.
const FAILURES_TOLD: usize = 1_000;
/// Of those, as many stay in the store with a job; its file tells all.
const FAILURES_KEPT: usize = 100;
/// The longest message of a line.
const MESSAGE_CHARS: usize = 500;

/// What an import did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub created: u64,
    pub updated: u64,
    /// Was here already, as it is.
    pub unchanged: u64,
    pub failed: u64,
    /// Was left alone on purpose: what is no post, hidden files, the trash.
    #[serde(default)]
    pub skipped: u64,
    /// Items that came over, but not as they stood there.
    #[serde(default)]
    pub noted: u64,
    /// New ones, under the posts that were imported.
    pub comments: u64,
    /// Old addresses that lead to posts from now on.
    pub redirects: u64,
    /// Nothing was written: this is what would have been.
    pub dry_run: bool,
    pub failures: Vec<Failure>,
    /// What was skipped and why, and what is other than it stood there.
    #[serde(default)]
    pub notes: Vec<Failure>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The file, or the row of the table.
    pub source: String,
    pub message: String,
}

impl Report {
    /// Items looked at so far.
    pub fn done(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.failed + self.skipped
    }
}

/// What became of one item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Created,
    Updated,
    Unchanged,
}

/// What was done for an item.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub fate: Fate,
    pub key: Id,
    pub comments: u64,
    pub redirects: u64,
    /// What is other than it stood in the source, a sentence each.
    pub notes: Vec<String>,
}

impl Done {
    pub fn plain(fate: Fate, key: Id) -> Self {
        Self { fate, key, comments: 0, redirects: 0, notes: vec![] }
    }
}

/// The report as it stands after a batch, with what its file has and has yet to get. A job keeps it as its position.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    pub report: Report,
    /// Items of the source that are done.
    pub at: u64,
    /// Bytes of the file before `lines`.
    file_bytes: u64,
    /// Of the last batch.
    lines: String,
}

#[derive(Serialize)]
struct Line<'a> {
    item: u64,
    source: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

impl Ledger {
    /// For the next batch, once the lines of this one are in the file.
    pub fn turned(mut self) -> Self {
        self.file_bytes += self.lines.len() as u64;
        self.lines.clear();
        self
    }

    /// An item that is told of by nobody: the others hang on it.
    pub fn pass(&mut self) {
        self.at += 1;
    }

    pub fn note(&mut self, source: &str, outcome: Result<Done, String>) {
        match &outcome {
            Ok(done) => {
                self.report.comments += done.comments;
                self.report.redirects += done.redirects;
                let name = self.count(done.fate);
                self.remark(source, &done.notes);
                self.line(source, name, Some(done.key), None, &done.notes);
            }
            Err(message) => {
                self.report.failed += 1;
                told(&mut self.report.failures, source, message);
                self.line(source, "failed", None, Some(&cut(message)), &[]);
            }
        }
    }

    /// It was left alone on purpose.
    pub fn skip(&mut self, source: &str, message: &str) {
        self.report.skipped += 1;
        told(&mut self.report.notes, source, message);
        self.line(source, "skipped", None, Some(&cut(message)), &[]);
    }

    fn remark(&mut self, source: &str, notes: &[String]) {
        self.report.noted += u64::from(!notes.is_empty());
        notes.iter().for_each(|note| told(&mut self.report.notes, source, note));
    }

    fn line(
        &mut self,
        source: &str,
        outcome: &'static str,
        id: Option<Id>,
        message: Option<&str>,
        notes: &[String],
    ) {
        self.at += 1;
        let notes: Vec<String> = notes.iter().map(|note| cut(note)).collect();
        let line = Line { item: self.at, source, outcome, id, message, notes };
        if let Ok(line) = serde_json::to_string(&line) {
            self.lines.push_str(&line);
            self.lines.push('\n');
        }
    }

    fn count(&mut self, fate: Fate) -> &'static str {
        let report = &mut self.report;
        let (count, name) = match fate {
            Fate::Created => (&mut report.created, "created"),
            Fate::Updated => (&mut report.updated, "updated"),
            Fate::Unchanged => (&mut report.unchanged, "unchanged"),
        };
        *count += 1;
        name
    }

    /// As it goes into the store.
    pub fn kept(&self) -> serde_json::Value {
        let mut kept = self.clone();
        kept.report.failures.truncate(FAILURES_KEPT);
        kept.report.notes.truncate(FAILURES_KEPT);
        serde_json::to_value(kept).unwrap_or_default()
    }
}

fn told(list: &mut Vec<Failure>, source: &str, message: &str) {
    if list.len() < FAILURES_TOLD {
        list.push(Failure { source: source.to_owned(), message: cut(message) });
    }
}

fn cut(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS).collect()
}

/// The file with a line for each item.
pub(super) struct Log(File);

impl Log {
    /// As it must stand after what the ledger tells.
    pub fn open(path: &Path, ledger: &Ledger) -> Result<Self> {
        let open = || -> std::io::Result<File> {
            let mut file =
                OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            file.set_len(ledger.file_bytes)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(ledger.lines.as_bytes())?;
            file.sync_data()?;
            Ok(file)
        };
        open().map(Self).map_err(unwritable)
    }

    /// On disk before the next batch counts on it.
    pub fn append(&mut self, ledger: &Ledger) -> Result<()> {
        let write = self.0.write_all(ledger.lines.as_bytes()).and_then(|()| self.0.sync_data());
        write.map_err(unwritable)
    }
}

fn unwritable(error: std::io::Error) -> Error {
    Error::Store(atoll_storage::Error::Io(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(fate: Fate) -> Result<Done, String> {
        Ok(Done { comments: 2, redirects: 1, ..Done::plain(fate, Id::NIL) })
    }

    #[test]
    fn a_file_that_ran_ahead_or_behind_is_set_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.jsonl");
        let mut first = Ledger::default();
        first.note("a", done(Fate::Created));
        Log::open(&path, &first).unwrap();
        let mut second = first.clone().turned();
        second.note("b", Err("no".to_owned()));
        // Killed before the second batch's lines were in the file.
        Log::open(&path, &second).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        // Killed after they were.
        let mut log = Log::open(&path, &second).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let mut third = second.turned();
        third.note("c", done(Fate::Unchanged));
        log.append(&third).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().nth(1).unwrap().contains("\"message\":\"no\""), "{text}");
        let report = third.report;
        assert_eq!((report.created, report.unchanged, report.failed), (1, 1, 1));
        assert_eq!((report.comments, report.done()), (4, 3));
    }
}
