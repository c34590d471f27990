//! `demo`: the main job on real content. Three nodes in this process, each with its own folder and ports; one takes
//! in a corpus, the others bootstrap; the links are cut, all three write; the links come back, and they become equal.
//! Everything is real: files, sockets, HTTP. Nothing of it stays.

mod corpus;
mod nodes;
mod report;
mod table;
mod writes;

use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::secret;
use crate::serve::Signals;
use crate::show;
use atoll_node::content::import;
use nodes::Three;
use serde_json::json;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use table::{Paint, Table};
use tempfile::TempDir;

/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(50);
/// In a terminal somebody reads along: it all takes a second otherwise.
const BREATH: Duration = Duration::from_millis(1_200);
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(600);
const MEETING_TIMEOUT: Duration = Duration::from_secs(120);

pub async fn run(flags: flags::Demo, as_json: bool) -> Outcome {
    let mut signals = Signals::new()?;
    // Before anything starts: a mistake is told at once.
    corpus::check(flags.corpus.as_deref())?;
    let scratch = TempDir::with_prefix("atoll-demo-").map_err(Failure::failed)?;
    let mut three = None;
    let told = tokio::select! {
        told = perform(&flags, &scratch, &mut three, as_json) => told,
        _ = signals.next() => Err(Failure::failed("stopped before it was done")),
    };
    if let Some(three) = &three
        && told.is_ok()
        && !flags.exit
    {
        three.invite();
        signals.next().await;
    }
    if let Some(three) = three {
        three.stop().await;
    }
    told
}

async fn perform(
    flags: &flags::Demo,
    scratch: &TempDir,
    place: &mut Option<Three>,
    as_json: bool,
) -> Outcome {
    let tale = Tale::new(flags, as_json);
    tale.chapter(
        "Three nodes start, each with its own folder and ports. The first begins a network.",
    )
    .await;
    *place = Some(Three::start(scratch.path()).await?);
    let Some(three) = place.as_mut() else { return Ok(()) };
    let first = three.all[0].node.clone();
    let password = secret::make(&first);
    three.found(&password).await?;

    let pages = corpus::prepare(flags.corpus.as_deref(), flags.copies, scratch.path())?;
    let [reef, lagoon, shore] = nodes::NAMES;
    tale.chapter(&format!("{reef} takes in {} pages.", pages.count)).await;
    let imported = take_in(three, &pages).await?;
    tale.line(&imported);
    let stage = writes::prepare(three).await?;

    tale.chapter("The others join with a one-time ticket each, and take everything over.").await;
    let begun = Instant::now();
    three.join().await?;
    settle(three, &tale, BOOTSTRAP_TIMEOUT, &EVERYBODY).await?;
    tale.line(&format!("Level after {:.1} s.", begun.elapsed().as_secs_f64()));

    tale.chapter("The links are cut. All three go on writing.").await;
    three.cut();
    for line in writes::apart(three, &stage).await? {
        tale.line(&line);
    }
    if !as_json {
        say!();
        Table::of(three)?.print(tale.paint);
    }
    tale.breathe().await;
    tale.breathe().await;

    tale.chapter(&format!(
        "The link between {reef} and {lagoon} comes back; {shore} is still alone."
    ))
    .await;
    three.mend(&[0, 1]);
    settle(three, &tale, MEETING_TIMEOUT, &[0, 1]).await?;
    tale.breathe().await;

    tale.chapter(&format!("{shore} comes back.")).await;
    let begun = Instant::now();
    three.mend(&[2]);
    settle(three, &tale, MEETING_TIMEOUT, &EVERYBODY).await?;
    tale.line(&format!("Level after {:.1} s.", begun.elapsed().as_secs_f64()));
    tale.breathe().await;

    let report = report::Report::of(three, &stage)?;
    if as_json {
        show::json(
            &json!({ "equal": report.is_equal(), "pages": pages.count, "nodes": report.to_json() }),
        )?;
    } else {
        report.print(tale.paint);
    }
    if report.is_equal() {
        Ok(())
    } else {
        Err(Failure::failed("the nodes are not equal: this is a bug"))
    }
}

async fn take_in(three: &Three, pages: &corpus::Pages) -> Outcome<String> {
    let (progress, bar) = show::bar("importing");
    let (node, actor, folder) = (three.all[0].node.clone(), three.admin()?, pages.folder.clone());
    let begun = Instant::now();
    let report = crate::request::blocking(move || {
        let tell = |report: &import::Report, of: u64| progress.tell(report.done(), of);
        Ok(import::import_markdown(&node, &actor, &folder, tell)?)
    })
    .await;
    bar.finish_and_clear();
    let (report, seconds) = (report?, begun.elapsed().as_secs_f64());
    if report.created == 0 {
        return Err(Failure::failed(
            "nothing could be imported: is it a folder of Markdown files?",
        ));
    }
    let failed =
        if report.failed > 0 { format!(", {} failed", report.failed) } else { String::new() };
    let speed = report.created as f64 / seconds.max(0.001);
    Ok(format!("{} posts in {seconds:.1} s ({speed:.0} a second){failed}.", report.created))
}

/// The places of all nodes.
const EVERYBODY: [usize; 3] = [0, 1, 2];

/// Shows the vectors meeting until these nodes are equal.
async fn settle(three: &Three, tale: &Tale, timeout: Duration, whose: &[usize]) -> Outcome {
    let begun = Instant::now();
    let mut live = table::Live::new(tale.is_terminal, tale.paint);
    loop {
        let table = Table::of(three)?;
        live.show(&table);
        if table.are_equal(whose) && (whose.len() < EVERYBODY.len() || three.is_linked()) {
            if !live.is_live() && !tale.is_quiet {
                table.print(tale.paint);
            }
            return Ok(());
        }
        if begun.elapsed() > timeout {
            table.print(tale.paint);
            let why = three.reasons();
            return Err(Failure::failed(format!(
                "the nodes were not equal after {} s. {why}",
                timeout.as_secs()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Tale {
    is_quiet: bool,
    is_terminal: bool,
    is_slow: bool,
    paint: Paint,
}

impl Tale {
    fn new(flags: &flags::Demo, as_json: bool) -> Self {
        let is_terminal = std::io::stdout().is_terminal() && !as_json;
        Self {
            is_quiet: as_json,
            is_terminal,
            is_slow: is_terminal && !flags.exit,
            paint: Paint::of(is_terminal),
        }
    }

    async fn chapter(&self, text: &str) {
        if !self.is_quiet {
            say!("\n{}", self.paint.bold(text));
        }
        self.breathe().await;
    }

    async fn breathe(&self) {
        if self.is_slow {
            tokio::time::sleep(BREATH).await;
        }
    }

    fn line(&self, text: &str) {
        if !self.is_quiet {
            say!("  {text}");
        }
    }
}
