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
use table::Table;
use tempfile::TempDir;

/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(100);
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(600);
const MEETING_TIMEOUT: Duration = Duration::from_secs(120);

pub async fn run(flags: flags::Demo, as_json: bool) -> Outcome {
    let mut signals = Signals::new()?;
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
    let tale = Tale { is_quiet: as_json };
    tale.chapter(
        "Three nodes start, each with its own folder and ports. The first begins a network.",
    );
    *place = Some(Three::start(scratch.path()).await?);
    let Some(three) = place.as_mut() else { return Ok(()) };
    let first = three.all[0].node.clone();
    let password = secret::make(&first);
    three.found(&password).await?;

    let pages = corpus::prepare(flags.corpus.as_deref(), flags.copies, scratch.path())?;
    tale.chapter(&format!("{} takes in {} pages.", nodes::NAMES[0], pages.count));
    let imported = take_in(three, &pages).await?;
    tale.line(&imported);
    let stage = writes::prepare(three).await?;

    tale.chapter("The others join with a one-time ticket each, and take everything over.");
    let begun = Instant::now();
    three.join().await?;
    settle(three, &tale, BOOTSTRAP_TIMEOUT).await?;
    tale.line(&format!("Level after {:.1} s.", begun.elapsed().as_secs_f64()));

    tale.chapter("The links are cut. All three go on writing.");
    three.cut();
    for line in writes::apart(three, &stage).await? {
        tale.line(&line);
    }
    if !as_json {
        Table::of(three)?.print();
    }

    tale.chapter("The links come back.");
    let begun = Instant::now();
    three.mend();
    settle(three, &tale, MEETING_TIMEOUT).await?;
    tale.line(&format!("Level after {:.1} s.", begun.elapsed().as_secs_f64()));

    let report = report::Report::of(three, &stage)?;
    if as_json {
        show::json(
            &json!({ "equal": report.is_equal(), "pages": pages.count, "nodes": report.to_json() }),
        )?;
    } else {
        report.print();
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

/// Shows the vectors meeting until all three are equal.
async fn settle(three: &Three, tale: &Tale, timeout: Duration) -> Outcome {
    let begun = Instant::now();
    let mut live = table::Live::new(std::io::stdout().is_terminal() && !tale.is_quiet);
    loop {
        let table = Table::of(three)?;
        live.show(&table);
        if table.is_equal() && three.is_linked() {
            if !live.is_live() && !tale.is_quiet {
                table.print();
            }
            return Ok(());
        }
        if begun.elapsed() > timeout {
            table.print();
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
}

impl Tale {
    fn chapter(&self, text: &str) {
        if !self.is_quiet {
            println!("\n{text}");
        }
    }

    fn line(&self, text: &str) {
        if !self.is_quiet {
            println!("  {text}");
        }
    }
}
