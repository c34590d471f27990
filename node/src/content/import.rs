//! Content from files: folders of Markdown, tables in CSV. What was imported before is found again by where it came
//! from, so that a repeat changes what changed and doubles nothing. A bad file is a row of the report and stops
//! nothing. Works in constant memory, in batches of one transaction each, on a thread that may wait.

mod date;
mod front_matter;
mod markdown;
mod table;

pub use markdown::import_markdown;
pub use table::{import_csv, rows_of_csv};

use super::post::{
    BODY, CATEGORY_ID, DRAFT, Draft, IMPORTED_HASH, POST, PUBLISH_AT, PUBLISHED, PUBLISHED_AT,
    SCHEDULED, SLUG, STATUS, TAG_IDS, TITLE, change, emit, is_trashed,
};
use super::{category, tag};
use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Record, Value};
use std::sync::Arc;

/// Posts of one transaction, at most.
const BATCH_ROWS: usize = 200;
/// A batch ends early once its texts are this long.
const BATCH_BYTES: usize = 4 << 20;
/// Failures that a report tells one by one; the rest are only counted.
const FAILURES_TOLD: usize = 1_000;

/// What an import did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    pub created: u64,
    pub updated: u64,
    /// Was here already, as it is.
    pub unchanged: u64,
    pub failed: u64,
    pub failures: Vec<Failure>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Failure {
    /// The file, or the row of the table.
    pub source: String,
    pub message: String,
}

impl Report {
    /// Files or rows looked at so far.
    pub fn done(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.failed
    }

    fn fail(&mut self, source: impl Into<String>, message: impl Into<String>) {
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(Failure { source: source.into(), message: message.into() });
        }
    }

    fn count(&mut self, source: &str, outcome: Result<Done>) {
        match outcome {
            Ok(Done::Created) => self.created += 1,
            Ok(Done::Updated) => self.updated += 1,
            Ok(Done::Unchanged) => self.unchanged += 1,
            Err(error) => self.fail(source, error.to_string()),
        }
    }
}

enum Done {
    Created,
    Updated,
    Unchanged,
}

/// One post as its source tells it.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// What the report calls it.
    source: String,
    /// Where it came from, the same in every import: its key is made of that.
    origin: String,
    hash: Vec<u8>,
    title: String,
    body: String,
    /// Other fields that the source sets.
    changes: Changes,
    /// Written in the source, or none.
    slug: Option<String>,
    category: Option<String>,
    tags: Vec<String>,
    is_draft: bool,
    published_ms: Option<i64>,
}

/// Collects entries and writes them batch by batch.
struct Import<'a> {
    node: &'a Node,
    actor: Actor,
    batch: Vec<Entry>,
    batch_bytes: usize,
    report: Report,
}

impl<'a> Import<'a> {
    fn new(node: &'a Node, actor: &Actor) -> Result<Self> {
        actor.require(Permission::PostsWrite)?;
        actor.require(Permission::PostsPublish)?;
        Ok(Self { node, actor: *actor, batch: vec![], batch_bytes: 0, report: Report::default() })
    }

    /// # Errors
    /// What stops the import as a whole: a full disk, a store that is closed.
    fn add(&mut self, entry: Entry) -> Result<()> {
        self.batch_bytes += entry.body.len();
        self.batch.push(entry);
        if self.batch.len() >= BATCH_ROWS || self.batch_bytes >= BATCH_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = Arc::new(std::mem::take(&mut self.batch));
        self.batch_bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        let (entries, actor) = (Arc::clone(&batch), self.actor);
        let together = self.node.store.write_blocking(move |tx| {
            let mut outcomes = Vec::with_capacity(entries.len());
            for entry in entries.iter() {
                outcomes.push(refused(put(tx, &actor, entry))?);
            }
            Ok::<_, Error>(outcomes)
        });
        match together {
            Ok(outcomes) => {
                for (entry, outcome) in batch.iter().zip(outcomes) {
                    self.report.count(&entry.source, outcome);
                }
                Ok(())
            }
            Err(error) if is_fatal(&error) => Err(error),
            Err(_) => self.one_by_one(&batch),
        }
    }

    /// Finds the entry that the store could not take; the others are kept.
    fn one_by_one(&mut self, batch: &[Entry]) -> Result<()> {
        for entry in batch {
            let (one, actor) = (entry.clone(), self.actor);
            let outcome = self.node.store.write_blocking(move |tx| put(tx, &actor, &one));
            match outcome {
                Err(error) if is_fatal(&error) => return Err(error),
                outcome => self.report.count(&entry.source, outcome),
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Report> {
        self.flush()?;
        Ok(self.report)
    }
}

/// A refusal is the entry's own; what the store could not do undoes the batch.
fn refused(outcome: Result<Done>) -> Result<Result<Done>> {
    match outcome {
        Err(error @ (Error::Store(_) | Error::Internal(_))) => Err(error),
        outcome => Ok(outcome),
    }
}

fn is_fatal(error: &Error) -> bool {
    use atoll_storage::Error as E;
    matches!(error, Error::Store(E::Full | E::Damaged(_) | E::Closed | E::Locked(_) | E::Io(_)))
}

fn put(tx: &mut Tx<'_>, actor: &Actor, entry: &Entry) -> Result<Done> {
    let key = Id::natural(&[b"import", &actor.tenant.0, entry.origin.as_bytes()]);
    match tx.get_full(&POST, key)? {
        Some(post) if post.bytes(&IMPORTED_HASH) == Some(&entry.hash) => Ok(Done::Unchanged),
        Some(post) if is_trashed(&post) => {
            Err(Error::conflict("trashed", "the post made of it is in the trash: restore it first"))
        }
        Some(post) => update(tx, actor, &post, entry),
        None => create(tx, actor, key, entry),
    }
}

fn create(tx: &mut Tx<'_>, actor: &Actor, key: Id, entry: &Entry) -> Result<Done> {
    let mut draft = Draft::new(written(entry).set(&SLUG, entry.slug.clone()))?;
    let (category, tags) = places(tx, actor, entry)?;
    draft.changes = tags.into_iter().fold(draft.changes, |changes, tag| changes.add(&TAG_IDS, tag));
    if let Some(category) = category {
        draft.changes.put(&CATEGORY_ID, category);
    }
    let now_ms = tx.now_ms() as i64;
    if !entry.is_draft {
        draft.changes = bring_out(draft.changes, entry.published_ms.unwrap_or(now_ms), now_ms);
    }
    let post = draft.create(tx, actor, Some(key))?;
    tell(tx, actor, &post)?;
    Ok(Done::Created)
}

/// Only what the source says is changed. A draft that the source does not call one any more comes out; nothing is
/// taken back by an import.
fn update(tx: &mut Tx<'_>, actor: &Actor, post: &Record, entry: &Entry) -> Result<Done> {
    let mut changes = written(entry);
    if let Some(slug) = &entry.slug {
        changes.put(&SLUG, slug.as_str());
    }
    crate::kinds::validate(&POST, &changes, false)?;
    let (category, tags) = places(tx, actor, entry)?;
    if let Some(category) = category {
        changes.put(&CATEGORY_ID, category);
    }
    let gone = post.set(&TAG_IDS).filter(|tag| tag.as_id().is_none_or(|id| !tags.contains(&id)));
    changes = gone.fold(changes, |changes, tag| changes.drop(&TAG_IDS, tag.clone()));
    let new = tags.iter().filter(|tag| !post.has(&TAG_IDS, &Value::Id(**tag)));
    changes = new.fold(changes, |changes, tag| changes.add(&TAG_IDS, *tag));
    let comes_out = post.text(&STATUS) == DRAFT && !entry.is_draft;
    if comes_out {
        let now_ms = tx.now_ms() as i64;
        let at_ms = entry.published_ms.or(post.int(&PUBLISHED_AT)).unwrap_or(now_ms);
        changes = bring_out(changes, at_ms, now_ms);
    }
    let post = change(tx, actor, post, changes, "imported")?;
    if comes_out {
        tell(tx, actor, &post)?;
    }
    Ok(Done::Updated)
}

/// Published at its date, or scheduled if that lies ahead.
fn bring_out(changes: Changes, at_ms: i64, now_ms: i64) -> Changes {
    if at_ms > now_ms {
        changes.set(&STATUS, SCHEDULED).set(&PUBLISH_AT, at_ms)
    } else {
        changes.set(&STATUS, PUBLISHED).set(&PUBLISHED_AT, at_ms)
    }
}

fn tell(tx: &mut Tx<'_>, actor: &Actor, post: &Record) -> Result<()> {
    match post.text(&STATUS) {
        PUBLISHED => emit(tx, actor, "postal.post.published", post),
        SCHEDULED => emit(tx, actor, "postal.post.scheduled", post),
        _ => Ok(()),
    }
}

fn written(entry: &Entry) -> Changes {
    let changes =
        entry.changes.clone().set(&TITLE, entry.title.as_str()).body(&BODY, entry.body.as_str());
    changes.set(&IMPORTED_HASH, Value::Bytes(entry.hash.clone()))
}

/// The category and tags that the source names, made where there are none.
fn places(tx: &mut Tx<'_>, actor: &Actor, entry: &Entry) -> Result<(Option<Id>, Vec<Id>)> {
    let category = match &entry.category {
        Some(name) => category::ensure(tx, actor, name)?,
        None => None,
    };
    let mut tags = Vec::new();
    for name in entry.tags.iter().take(TAG_IDS.max) {
        if let Some(id) = tag::ensure(tx, actor, name)?
            && !tags.contains(&id)
        {
            tags.push(id);
        }
    }
    Ok((category, tags))
}

/// At most as many characters as the field takes: what a file says too long is cut, not refused.
fn fitting(field: &Field, text: &str) -> String {
    text.trim().chars().take(field.max).collect()
}

fn hash_of(parts: &[&[u8]]) -> Vec<u8> {
    Id::natural(parts).0.to_vec()
}
