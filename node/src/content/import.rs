//! Content from elsewhere: folders and archives of Markdown, tables, JSON Lines, exports of WordPress, Ghost and Atoll,
//! each as it is or compressed.
//! What was imported before is found again by where it came from, so that a repeat changes what changed and doubles
//! nothing. A bad item is a row of the report and stops nothing. Works in constant memory, in batches of one
//! transaction each, on a thread that may wait.

mod archive;
mod date;
pub(crate) mod entry;
mod folder;
mod front_matter;
mod ghost;
pub(crate) mod intake;
mod layout;
mod lines;
mod media;
pub(crate) mod report;
mod table;
mod wordpress;

pub use folder::import_markdown;
pub use report::{Failure, Report};
pub use table::{import_csv, rows_of_csv};

use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::exchange::{self, Opened, Unpacking, Upload, restore};
use crate::job::{self, Job, Task};
use crate::runtime::Node;
use intake::Intake;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// The queue whose jobs are imports.
pub const QUEUE: &str = "content.import";
/// The file of a job's folder with a line for each item.
const REPORT: &str = "report.jsonl";
/// Failures that the result of a job tells; the file tells all.
const FAILURES_TOLD: usize = 100;
/// What tells two sources of one form apart, at most so long.
const NAME_MAX: usize = 100;
/// The longest address of an old site, in bytes.
const SITE_MAX: usize = 200;

/// In what form the content comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Markdown,
    WordPress,
    Ghost,
    Jsonl,
    Atoll,
}

impl Format {
    pub const NAMES: &'static [&'static str] =
        &["csv", "markdown", "wordpress", "ghost", "jsonl", "atoll"];

    pub fn parse(name: &str) -> Option<Self> {
        use Format::{Atoll, Csv, Ghost, Jsonl, Markdown, WordPress};
        let all = [Csv, Markdown, WordPress, Ghost, Jsonl, Atoll];
        Self::NAMES.iter().position(|known| *known == name).and_then(|at| all.get(at).copied())
    }
}

/// What to import, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub format: Format,
    /// What the source is called: two sources that name their items alike are told apart by it.
    pub name: String,
    /// Tries everything, and undoes it.
    pub dry_run: bool,
    /// Where the old site is: pictures and files on it are led there.
    #[serde(default)]
    pub site: String,
}

impl Order {
    /// # Errors
    /// `Invalid` for a name that is too long.
    pub fn new(format: Format, name: &str, dry_run: bool) -> Result<Self> {
        if name.chars().count() > NAME_MAX {
            let message = format!("takes at most {NAME_MAX} characters");
            return Err(Error::field("name", "too_long", message));
        }
        Ok(Self { format, name: name.to_owned(), dry_run, site: String::new() })
    }

    /// # Errors
    /// `Invalid` for what is no address of a site.
    pub fn of_site(self, site: &str) -> Result<Self> {
        let site = site.trim().trim_end_matches('/');
        let host = ["https://", "http://"].iter().find_map(|scheme| site.strip_prefix(scheme));
        let is_plain = |c: char| c.is_alphanumeric() || "-._~:/%".contains(c);
        let fits = host.is_some_and(|host| !host.is_empty() && host.chars().all(is_plain));
        if !(site.is_empty() || fits && site.len() <= SITE_MAX) {
            let message = "takes an address such as https://old.example.org";
            return Err(Error::field("site", "malformed_address", message));
        }
        Ok(Self { site: site.to_owned(), ..self })
    }
}

/// Imports a file, or a folder of Markdown, here and now. `log`: a file that gets a line for each item. `progress` hears
/// of the report so far, and of how much is done of how much. For a thread that may wait.
///
/// # Errors
/// Only what stops all: a file that cannot be read, a missing permission, a full disk.
pub fn run(
    node: &Node,
    actor: &Actor,
    order: &Order,
    file: &Path,
    log: Option<&Path>,
    mut progress: impl FnMut(&Report, u64, u64),
) -> Result<Report> {
    let mut intake = Intake::new(node, actor, order.dry_run, &mut progress)?;
    if let Some(log) = log {
        intake = intake.with_log(log)?;
    }
    feed(node, intake, order, file)
}

fn feed(node: &Node, intake: Intake<'_>, order: &Order, file: &Path) -> Result<Report> {
    let mut intake = intake.of_site(&order.site);
    match order.format {
        Format::Csv => table::read(&mut intake, file, &order.name)?,
        Format::Markdown if file.is_dir() => folder::read(&mut intake, file)?,
        Format::Markdown => archive::read_markdown(&mut intake, file, &order.name)?,
        Format::WordPress => wordpress::read(&mut intake, file)?,
        Format::Ghost => ghost::read(&mut intake, file, &order.name)?,
        Format::Jsonl => lines::read(&mut intake, file, &order.name)?,
        Format::Atoll => restore::read(node, &mut intake, file)?,
    }
    intake.finish()
}

#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(flatten)]
    order: Order,
    folder: String,
}

/// Puts the import of a file that was sent here into the queue.
pub async fn start(node: &Node, actor: &Actor, order: Order, upload: Upload) -> Result<Job> {
    for needed in [Permission::PostsAdminister, Permission::PostsPublish] {
        actor.require(needed)?;
    }
    if order.format == Format::Atoll {
        actor.require(Permission::UsersAdminister)?;
    }
    let folder = upload.finish().await?;
    let payload = serde_json::to_value(Payload { order, folder: folder.name().to_owned() });
    let payload = payload.map_err(|error| Error::Internal(error.to_string()))?;
    let job = job::start(node, actor, QUEUE, payload).await?;
    folder.keep();
    Ok(job)
}

/// The order of an import's job.
pub fn order_of(job: &Job) -> Option<Order> {
    serde_json::from_value::<Payload>(job.payload.clone()).ok().map(|payload| payload.order)
}

/// The report of an import as it stands: the job's own while it goes on.
pub fn report_of(job: &Job) -> Option<Report> {
    let json = if job.result.is_null() { &job.position["report"] } else { &job.result };
    serde_json::from_value(json.clone()).ok()
}

/// The file with a line for each item.
///
/// # Errors
/// `NotFound` before the import began, and once it is gone.
pub fn report_file(node: &Node, job: &Job) -> Result<PathBuf> {
    exchange::fetched(node, job, REPORT).ok_or(Error::NotFound("report"))
}

/// What the queue does with a job.
pub(crate) async fn work(node: Arc<Node>, job: Job) -> Result<()> {
    let work = move || perform(&Arc::new(Task::new(node, job)));
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?
}

fn perform(task: &Arc<Task>) -> Result<()> {
    let payload: Payload = serde_json::from_value(task.job.payload.clone())
        .map_err(|error| Error::Internal(error.to_string()))?;
    let (node, actor, order) = (&task.node, task.actor()?, payload.order);
    let missing = || Error::Malformed("the file that was sent is not here any more".into());
    let file = exchange::file_of(node, &task.job, exchange::BODY).ok_or_else(missing)?;
    let log = file.with_file_name(REPORT);
    let mut nobody = |_: &Report, _: u64, _: u64| {};
    let intake = Intake::new(node, &actor, order.dry_run, &mut nobody)?;
    let mut result = feed(node, intake.of_task(task.clone(), &log)?, &order, &file)?;
    result.failures.truncate(FAILURES_TOLD);
    result.notes.truncate(FAILURES_TOLD);
    let result =
        serde_json::to_value(result).map_err(|error| Error::Internal(error.to_string()))?;
    let job = task.job.clone();
    node.store.write_blocking(move |tx| job::finish_in(tx, &job, &result))?;
    exchange::drop_file(&file);
    Ok(())
}

fn unreadable(file: &Path, error: impl std::fmt::Display) -> Error {
    Error::Malformed(format!("{} cannot be read: {error}", name_of(file)))
}

/// Paths of this machine are not for whoever sent the file.
fn name_of(file: &Path) -> String {
    match file.file_name().map(|name| name.to_string_lossy().into_owned()) {
        Some(name) if name != exchange::BODY => name,
        _ => "the file".to_owned(),
    }
}

/// A file as a stream, taken out of its gzip or zstd.
fn open(file: &Path) -> Result<Opened> {
    exchange::opened(file).map_err(|error| unreadable(file, error))
}

/// A stream of one export, what the report calls it, and how far the file around it is read.
pub(super) struct Stream<'a> {
    name: &'a str,
    reader: &'a mut dyn Read,
    count: &'a Rc<Cell<u64>>,
    size_bytes: u64,
}

/// The file itself, or each file with this ending in the zip that it is.
fn each_stream(
    file: &Path,
    ending: &str,
    take: &mut dyn FnMut(Stream<'_>) -> Result<()>,
) -> Result<Option<String>> {
    if !exchange::is_zip(file) {
        let Opened { mut reader, count, size_bytes } = open(file)?;
        let stream = Stream { name: "the file", reader: &mut *reader, count: &count, size_bytes };
        return take(stream).map(|()| None);
    }
    let mut found = 0;
    let ended = Unpacking::open(file)?.each(&mut |path, reader, count, size_bytes| {
        if folder::Passed::is_hidden(path) || !path.to_ascii_lowercase().ends_with(ending) {
            return Ok(());
        }
        found += 1;
        take(Stream { name: path, reader, count, size_bytes })
    })?;
    if found == 0 {
        let message = ended.unwrap_or_else(|| format!("the archive holds no file *{ending}"));
        return Err(unreadable(file, message));
    }
    Ok(ended)
}
