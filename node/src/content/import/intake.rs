//! Collects the items of a source and writes them batch by batch, each batch one transaction with the note of how far
//! the import is. Whatever an item does wrong is its own, and leaves nothing behind; what the store cannot do ends the
//! import.

use super::entry::{self, Entry, Item, hash_of};
use super::media;
use super::report::{Ledger, Log, Report};
use crate::access::{Actor, Permission};
use crate::content::post::COVER;
use crate::error::{Error, Result};
use crate::exchange::restore;
use crate::job::{Progress, Task};
use crate::runtime::Node;
use atoll_storage::Value;
use atoll_storage::tx::Tx;
use std::path::Path;
use std::sync::Arc;

/// Items of one transaction, at most.
const BATCH_ITEMS: usize = 200;
/// Times that a batch is tried: each time without what was refused before.
const ATTEMPTS: usize = 4;
/// A batch ends early once its texts are this long.
const BATCH_BYTES: usize = 4 << 20;

/// Hears of the report so far, and of how much is done of how much.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&Report, u64, u64);

pub(crate) struct Intake<'a> {
    node: &'a Node,
    actor: Actor,
    dry_run: bool,
    /// Where the old site is, if that was said.
    site: String,
    batch: Vec<Item>,
    batch_bytes: usize,
    ledger: Ledger,
    /// Items that came so far, and those of them that an earlier life of this import has done.
    seen: u64,
    skipped: u64,
    /// How far the source is read, in its own measure.
    done: u64,
    of: u64,
    task: Option<Arc<Task>>,
    log: Option<Log>,
    watch: Watch<'a>,
}

impl<'a> Intake<'a> {
    pub fn new(node: &'a Node, actor: &Actor, dry_run: bool, watch: Watch<'a>) -> Result<Self> {
        actor.require(Permission::PostsWrite)?;
        actor.require(Permission::PostsPublish)?;
        let mut ledger = Ledger::default();
        ledger.report.dry_run = dry_run;
        Ok(Self {
            node,
            actor: *actor,
            dry_run,
            site: String::new(),
            batch: vec![],
            batch_bytes: 0,
            ledger,
            seen: 0,
            skipped: 0,
            done: 0,
            of: 0,
            task: None,
            log: None,
            watch,
        })
    }

    /// What stands beside the texts is at this address.
    pub fn of_site(mut self, site: &str) -> Self {
        site.clone_into(&mut self.site);
        self
    }

    pub fn site(&self) -> &str {
        &self.site
    }

    /// With a line for each item in a new file.
    pub fn with_log(mut self, file: &Path) -> Result<Self> {
        self.log = Some(Log::open(file, &self.ledger)?);
        Ok(self)
    }

    /// As the work of a job, which goes on where it was, and leaves a line for each item in the file `log`.
    pub fn of_task(mut self, task: Arc<Task>, log: &Path) -> Result<Self> {
        if !task.job.position.is_null() {
            let kept = serde_json::from_value(task.job.position.clone());
            self.ledger = kept.map_err(|error| Error::Internal(error.to_string()))?;
        }
        self.skipped = self.ledger.at;
        self.log = Some(Log::open(log, &self.ledger)?);
        self.ledger = std::mem::take(&mut self.ledger).turned();
        self.task = Some(task);
        Ok(self)
    }

    /// Whoever imports, with what he may do now: a job can take long.
    pub fn actor(&self) -> Result<Actor> {
        self.task.as_ref().map_or(Ok(self.actor), |task| task.actor())
    }

    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// How far the source is read.
    pub fn at(&mut self, done: u64, of: u64) {
        (self.done, self.of) = (done, of);
    }

    /// Whether the next item was done in an earlier life, so that it need not be read.
    pub fn is_done(&self) -> bool {
        self.seen < self.skipped
    }

    /// # Errors
    /// What stops the import as a whole: a full disk, a store that is closed, a job that was cancelled.
    pub fn add(&mut self, mut item: Item) -> Result<()> {
        self.seen += 1;
        if self.seen > self.skipped {
            if let Item::Post(entry) = &mut item {
                settle_files(entry, &self.site);
            }
            self.batch_bytes += item.size_bytes();
            self.batch.push(item);
        }
        (self.watch)(&self.ledger.report, self.done, self.of);
        if self.batch.len() >= BATCH_ITEMS || self.batch_bytes >= BATCH_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let batch: Arc<[Item]> = std::mem::take(&mut self.batch).into();
        self.batch_bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        match self.write(&batch, false) {
            Err(error) if ends_all(&error) => Err(error),
            // One of them did it: the others are kept.
            Err(_) => batch.iter().try_for_each(|item| self.write(&[item.clone()].into(), true)),
            Ok(()) => Ok(()),
        }
    }

    /// Writes the items in one transaction. `alone`: a failure of the store is theirs.
    fn write(&mut self, items: &Arc<[Item]>, alone: bool) -> Result<()> {
        match self.settle(items) {
            Err(error) if alone && !ends_all(&error) => {
                let source = items.first().map(source_of).unwrap_or_default();
                self.settle(&[Item::bad(source, error)].into())
            }
            outcome => outcome,
        }
    }

    /// An item that was refused may have made a tag or an account before: then all is undone, and the others come once
    /// more without it.
    fn settle(&mut self, items: &Arc<[Item]>) -> Result<()> {
        let mut items = Arc::clone(items);
        for _ in 0..ATTEMPTS {
            let refused = self.attempt(&items)?;
            if refused.is_empty() {
                return Ok(());
            }
            let mut kept = items.to_vec();
            for (at, message) in refused {
                if let Some(item) = kept.get_mut(at) {
                    *item = Item::bad(source_of(item), message);
                }
            }
            items = kept.into();
        }
        Err(Error::Internal("the items of a batch refuse each other".to_owned()))
    }

    /// The items that were refused, and why: then nothing was kept.
    fn attempt(&mut self, items: &Arc<[Item]>) -> Result<Vec<(usize, String)>> {
        let (items, actor, dry_run) = (Arc::clone(items), self.actor()?, self.dry_run);
        let (before, task) = (self.ledger.clone(), self.task.clone());
        let (done, of) = (self.done, self.of);
        let wrote = self.node.store.write_blocking(move |tx| {
            let mut ledger = before;
            let mut refused = Vec::new();
            for (at, item) in items.iter().enumerate() {
                refused.extend(take(tx, &actor, item, &mut ledger)?.map(|message| (at, message)));
            }
            if !refused.is_empty() {
                return Err(Ended::Refused(refused));
            }
            if dry_run {
                return Err(Ended::Dry(Box::new(ledger)));
            }
            note(tx, task.as_deref(), &ledger, done, of)?;
            Ok(ledger)
        });
        let ledger = match wrote {
            Ok(ledger) => ledger,
            Err(Ended::Failed(error)) => return Err(error),
            Err(Ended::Refused(refused)) => return Ok(refused),
            Err(Ended::Dry(ledger)) => self.note_alone(*ledger)?,
        };
        if let Some(log) = &mut self.log {
            log.append(&ledger)?;
        }
        self.ledger = ledger.turned();
        Ok(vec![])
    }

    /// What was tried is undone; how far that is, is kept.
    fn note_alone(&self, ledger: Ledger) -> Result<Ledger> {
        let Some(task) = self.task.clone() else { return Ok(ledger) };
        let (done, of) = (self.done, self.of);
        self.node.store.write_blocking(move |tx| {
            note(tx, Some(&task), &ledger, done, of)?;
            Ok(ledger)
        })
    }

    pub fn finish(mut self) -> Result<Report> {
        self.flush()?;
        (self.watch)(&self.ledger.report, self.of, self.of);
        Ok(self.ledger.report)
    }
}

/// Leads what the body names to where it is, or tells of it.
fn settle_files(entry: &mut Entry, site: &str) {
    let (settled, mut lost) = media::settle(&entry.body, site, &entry.base);
    let cover = entry.changes.get(&COVER).and_then(Value::as_text).map(str::to_owned);
    if let Some(cover) = cover.filter(|cover| media::is_here(cover)) {
        match media::led(site, &entry.base, &cover) {
            Some(there) => entry.changes.put(&COVER, there),
            None => {
                lost.insert(cover);
            }
        }
    }
    entry.notes.extend(media::note(&lost));
    if let Some(body) = settled {
        entry.body = body;
    }
    if !site.is_empty() {
        entry.hash = hash_of(&[&entry.hash, site.as_bytes()]);
    }
}

/// Why a batch was not kept.
enum Ended {
    /// It was never meant to be.
    Dry(Box<Ledger>),
    /// These items cannot be taken.
    Refused(Vec<(usize, String)>),
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<atoll_storage::Error> for Ended {
    fn from(error: atoll_storage::Error) -> Self {
        Self::Failed(error.into())
    }
}

fn note(tx: &mut Tx<'_>, task: Option<&Task>, ledger: &Ledger, done: u64, of: u64) -> Result<()> {
    let Some(task) = task else { return Ok(()) };
    let note = format!("{} items, {} failed", ledger.report.done(), ledger.report.failed);
    task.advance(tx, &Progress { done, of, note, position: ledger.kept() })
}

/// Why the item cannot be taken, if it cannot.
fn take(
    tx: &mut Tx<'_>,
    actor: &Actor,
    item: &Item,
    ledger: &mut Ledger,
) -> Result<Option<String>> {
    let outcome = match item {
        Item::Bad { source, message } => {
            ledger.note(source, Err(message.clone()));
            return Ok(None);
        }
        Item::Skipped { source, message } => {
            ledger.skip(source, message);
            return Ok(None);
        }
        Item::Post(entry) => entry::put(tx, actor, entry).map(|done| Some((&entry.source, done))),
        Item::Record(record) => {
            restore::put(tx, actor, record).map(|done| Some((&record.source, done)))
        }
        Item::Category(place) => entry::make(tx, actor, place).map(|_| None),
    };
    match refused(outcome)? {
        Ok(Some((source, done))) => ledger.note(source, Ok(done)),
        Ok(None) => ledger.pass(),
        Err(message) => return Ok(Some(message)),
    }
    Ok(None)
}

/// A refusal is the item's own; what the store could not do undoes the batch.
fn refused<T>(outcome: Result<T>) -> Result<Result<T, String>> {
    match outcome {
        Err(error @ (Error::Store(_) | Error::Internal(_))) => Err(error),
        outcome => Ok(outcome.map_err(|error| error.to_string())),
    }
}

fn source_of(item: &Item) -> String {
    match item {
        Item::Post(entry) => entry.source.clone(),
        Item::Category(place) => format!("category {}", place.name),
        Item::Record(record) => record.source.clone(),
        Item::Bad { source, .. } | Item::Skipped { source, .. } => source.clone(),
    }
}

fn ends_all(error: &Error) -> bool {
    use atoll_storage::Error as E;
    match error {
        Error::Store(E::Full | E::Damaged(_) | E::Closed | E::Locked(_) | E::Io(_)) => true,
        Error::Conflict { code, .. } => *code == "job_stopped",
        _ => false,
    }
}
