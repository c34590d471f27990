//! Full-text search: an index folder fed from a cursor, and the only place that knows the search engine. It never
//! holds the only copy of anything: a folder that is damaged or of another schema is set aside, and the feed begins
//! again at cursor 0. Reading never waits for writing.

mod exclude;
mod facets;
mod find;
mod folder;
mod gate;
mod merging;
mod schema;
mod snippet;
mod suggest;
mod text;
mod words;

use crate::id::Id;
use gate::Gate;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tantivy::indexer::IndexWriterOptions;
use tantivy::{Index, IndexReader, IndexWriter, TantivyError};

/// Hits of one page, at most.
pub const MAX_LIMIT: usize = 100;
/// How far into the hits a page may begin.
pub const MAX_OFFSET: usize = 10_000;
pub const MAX_SUGGESTIONS: usize = 25;

/// The writer's buffer; a batch beyond it becomes several segments.
const WRITER_BYTES: usize = 20_000_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk is full: free some space; the search index goes on where it stopped")]
    Full,
    #[error("the search index is damaged ({0}): open it again, and it is made anew from the store")]
    Damaged(String),
    #[error("another process writes to this search index ({0}): stop it first")]
    Locked(String),
    #[error("the search index is closed: the node stops")]
    Closed,
    #[error("search: {0}")]
    Engine(String),
    #[error("search: {0}")]
    Io(#[from] std::io::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What may be found. Long titles, bodies (1 MiB) and lists (100) are cut, not refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    pub id: Id,
    pub kind: u16,
    pub tenant: Id,
    pub title: String,
    pub body: String,
    pub keywords: Vec<String>,
    pub public: bool,
    pub status: String,
    pub parent: Option<Id>,
    /// Names with values, counted and filtered by; a name may have several values.
    pub facets: Vec<(String, String)>,
    pub date_ms: i64,
    /// Lifts a document a little among equals, and in suggestions; 0 for none.
    pub rank: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Document),
    Remove(Id),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    #[default]
    Relevance,
    Newest,
}

/// Words are all wanted, "quoted ones" as a phrase, -those not; the last may be unfinished. No text at all lists
/// everything, newest first.
#[derive(Debug, Clone, Default)]
pub struct SearchQuery {
    pub tenant: Id,
    pub text: String,
    /// Empty for all.
    pub kinds: Vec<u16>,
    pub public_only: bool,
    pub status: Option<String>,
    pub parent: Option<Id>,
    /// Values of one name are alternatives; every name must be met.
    pub facets: Vec<(String, String)>,
    /// Names whose values are counted among all hits.
    pub count_facets: Vec<String>,
    pub from_ms: Option<i64>,
    /// Exclusive.
    pub to_ms: Option<i64>,
    /// 0 counts only.
    pub limit: usize,
    pub offset: usize,
    pub sort: Sort,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub id: Id,
    pub kind: u16,
    pub score: f32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hits {
    pub total: u64,
    pub hits: Vec<Hit>,
    pub facets: Vec<(String, Vec<(String, u64)>)>,
    pub took_us: u64,
}

/// What `open` found, and so from where the feed goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    Existing { cursor: u64 },
    Fresh,
    SetAside { why: String, moved_to: PathBuf },
}

impl Opened {
    pub fn cursor(&self) -> u64 {
        if let Self::Existing { cursor } = self { *cursor } else { 0 }
    }
}

pub struct SearchIndex {
    dir: PathBuf,
    schema_version: u32,
    index: Index,
    fields: schema::Fields,
    reader: IndexReader,
    gate: Gate,
    /// Made with the first change, as it costs some 20 MB; see `release_writer`.
    writer: Mutex<Option<IndexWriter>>,
    cursor: AtomicU64,
}

impl SearchIndex {
    /// Opens or makes the index in `dir`. `schema_version` is the caller's: raise it when documents come to be made
    /// differently, and the index is fed anew.
    pub fn open(dir: &Path, schema_version: u32) -> Result<(Self, Opened)> {
        let (folder, opened) = folder::open(dir, schema_version)?;
        let search = Self {
            dir: dir.to_owned(),
            schema_version,
            index: folder.index,
            fields: folder.fields,
            reader: folder.reader,
            gate: folder.gate,
            writer: Mutex::new(None),
            cursor: AtomicU64::new(folder.cursor),
        };
        Ok((search, opened))
    }

    /// Takes a batch and the cursor after it in one commit, on disk and visible when this returns. Repeating a batch
    /// changes nothing. After an error nothing of the batch is kept.
    ///
    /// # Errors
    /// `Closed`, also in the middle of it, once [`SearchIndex::close`] was called.
    pub fn apply(&self, batch: &[Change], cursor: u64) -> Result<()> {
        self.write(cursor, |writer| {
            for change in batch.iter().take_while(|_| !self.is_closed()) {
                let id = match change {
                    Change::Put(document) => document.id,
                    Change::Remove(id) => *id,
                };
                writer.delete_term(self.fields.id_term(id));
                if let Change::Put(document) = change {
                    writer.add_document(self.fields.row(document))?;
                }
            }
            Ok(())
        })
    }

    /// Removes all documents and sets the cursor to 0.
    pub fn clear(&self) -> Result<()> {
        self.write(0, |writer| writer.delete_all_documents().map(drop))
    }

    /// Frees the writer's memory and threads, once merges under way are done. The next change makes it again.
    pub fn release_writer(&self) -> Result<()> {
        let mut slot = self.lock_writer();
        let Some(writer) = slot.take() else { return Ok(()) };
        if self.is_closed() {
            return Ok(());
        }
        match self.writing(|| Ok(writer.wait_merging_threads()?)) {
            Err(Error::Closed) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.watched(|| Ok(self.reader.reload()?)),
        }
    }

    /// Ends writing for good, from any thread: when this returns, the folder stays as the last commit left it. What
    /// writes meanwhile gives up soon, merges among it. Reading goes on.
    pub fn close(&self) {
        self.gate.shut();
    }

    pub fn is_closed(&self) -> bool {
        self.gate.is_shut()
    }

    pub fn query(&self, query: &SearchQuery) -> Result<Hits> {
        self.watched(|| find::find(&self.reader.searcher(), &self.fields, query))
    }

    /// Titles of public documents that hold the words typed so far, the last of them unfinished.
    pub fn suggest(&self, tenant: Id, prefix: &str, limit: usize) -> Result<Vec<String>> {
        self.watched(|| {
            suggest::suggest(&self.reader.searcher(), &self.fields, tenant, prefix, limit)
        })
    }

    /// HTML that shows why `text` was found: hits within `<mark>`, all else escaped.
    pub fn snippet(&self, query: &SearchQuery, text: &str) -> String {
        snippet::snippet(&query.text, text)
    }

    /// Documents of all tenants.
    pub fn count(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// The cursor of the last commit.
    pub fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Acquire)
    }

    /// Reads all of the index against its checksums; a job for the night, not for a request.
    pub fn verify(&self) -> Result<()> {
        self.watched(|| folder::verify(&self.index))
    }

    fn lock_writer(&self) -> MutexGuard<'_, Option<IndexWriter>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A writer that failed is dropped with all it had not committed.
    fn write(
        &self,
        cursor: u64,
        fill: impl FnOnce(&IndexWriter) -> tantivy::Result<()>,
    ) -> Result<()> {
        let mut slot = self.lock_writer();
        let outcome = self.writing(|| {
            if self.is_closed() {
                return Err(Error::Closed);
            }
            let mut writer = match slot.take() {
                Some(writer) => writer,
                None => self.make_writer()?,
            };
            commit(&mut writer, fill, &folder::payload(self.schema_version, cursor))?;
            *slot = Some(writer);
            Ok(())
        });
        outcome?;
        self.cursor.store(cursor, Ordering::Release);
        self.watched(|| Ok(self.reader.reload()?))
    }

    fn make_writer(&self) -> Result<IndexWriter> {
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(WRITER_BYTES)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer: IndexWriter = self.index.writer_with_options(options)?;
        writer.set_merge_policy(Box::new(merging::Bounded::default()));
        Ok(writer)
    }

    /// What fails while the gate shuts fails for no other reason.
    fn writing<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match guarded(work) {
            Err(_) if self.is_closed() => Err(Error::Closed),
            outcome => self.watched(|| outcome),
        }
    }

    /// Damage met on the way is noted in the folder, so that the next `open` looks at all of it.
    fn watched<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let outcome = guarded(work);
        if let Err(Error::Damaged(why)) = &outcome {
            tracing::warn!(why, "the search index seems damaged");
            folder::mark_suspect(&self.dir);
        }
        outcome
    }
}

impl std::fmt::Debug for SearchIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchIndex").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn commit(
    writer: &mut IndexWriter,
    fill: impl FnOnce(&IndexWriter) -> tantivy::Result<()>,
    payload: &str,
) -> Result<()> {
    if let Err(error) = fill(writer) {
        // A change is refused because the indexing thread died; what it died of shows where it is joined.
        return Err(writer.prepare_commit().err().unwrap_or(error).into());
    }
    let mut prepared = writer.prepare_commit()?;
    prepared.set_payload(payload);
    prepared.commit()?;
    Ok(())
}

/// The engine answers damaged bytes with a panic as often as with an error.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::Damaged(text.unwrap_or("the engine panicked").to_owned()))
    })
}

impl From<TantivyError> for Error {
    fn from(error: TantivyError) -> Self {
        use tantivy::directory::error::{OpenReadError, OpenWriteError};
        let text = error.to_string();
        match error {
            TantivyError::IoError(io)
            | TantivyError::OpenReadError(OpenReadError::IoError { io_error: io, .. })
            | TantivyError::OpenWriteError(OpenWriteError::IoError { io_error: io, .. }) => {
                of_io(&io, text)
            }
            TantivyError::LockFailure(..) => Self::Locked(text),
            TantivyError::OpenReadError(_)
            | TantivyError::DataCorruption(_)
            | TantivyError::IncompatibleIndex(_)
            | TantivyError::FieldNotFound(_)
            | TantivyError::SchemaError(_) => Self::Damaged(text),
            _ => Self::Engine(text),
        }
    }
}

impl From<tantivy::directory::error::OpenReadError> for Error {
    fn from(error: tantivy::directory::error::OpenReadError) -> Self {
        TantivyError::from(error).into()
    }
}

/// The engine reports bytes it cannot read as I/O errors of its own; those of the system bear the system's number.
fn of_io(error: &std::io::Error, text: String) -> Error {
    use std::io::ErrorKind;
    const BAD_SECTOR: i32 = 5;
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => Error::Full,
        (_, None | Some(BAD_SECTOR)) => Error::Damaged(text),
        _ => Error::Engine(text),
    }
}
