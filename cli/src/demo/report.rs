//! What came of it: read on each node by itself, and compared.

use super::nodes::Three;
use super::table::Paint;
use super::writes::{LIKERS, Stage, TWIN_EMAIL, VIEWS};
use crate::failure::Outcome;
use atoll_node::community::comment::{self, COMMENT};
use atoll_node::community::like::{self, Target};
use atoll_node::content::category::{self, CATEGORY};
use atoll_node::content::post::{self, POST};
use atoll_node::identity::user::{self, USER};
use atoll_node::{Actor, Node, conflict, insight};
use atoll_storage::conflict::Conflict;
use atoll_storage::query::Query;
use atoll_storage::read::{Read, Reader};
use serde_json::{Value as Json, json};

/// All that one node answers to the same questions.
#[derive(Clone, PartialEq, Debug)]
struct Answers {
    digest: String,
    body: String,
    excerpt: String,
    is_back: bool,
    /// Name and parent of the two that were moved under each other.
    categories: Vec<(String, Option<String>)>,
    /// The e-mail addresses that the two users answer to.
    twins: Vec<String>,
    counts: Vec<(&'static str, u64)>,
    conflicts: Vec<String>,
}

pub struct Report {
    answers: Vec<Answers>,
}

impl Report {
    pub fn of(three: &Three, stage: &Stage) -> Outcome<Self> {
        let admin = three.admin()?;
        let answers = three.all.iter().map(|running| ask(&running.node, &admin, stage));
        Ok(Self { answers: answers.collect::<Outcome<_>>()? })
    }

    pub fn is_equal(&self) -> bool {
        self.answers.windows(2).all(|pair| pair[0] == pair[1])
            && self.answers.iter().all(Answers::is_whole)
    }

    pub fn to_json(&self) -> Json {
        let row = |answers: &Answers| {
            let counts: serde_json::Map<String, Json> = answers
                .counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), json!(count)))
                .collect();
            json!({
                "digest": answers.digest,
                "body": answers.body,
                "excerpt": answers.excerpt,
                "twins": answers.twins,
                "counts": counts,
                "conflicts": answers.conflicts,
            })
        };
        Json::Array(self.answers.iter().map(row).collect())
    }

    pub fn print(&self, paint: Paint) {
        let Some(first) = self.answers.first() else { return };
        say!("\n{}", paint.bold("The body that two nodes edited, as all three have it now:"));
        first.body.lines().for_each(|line| say!("  | {line}"));
        say!("  excerpt: {}", first.excerpt);
        let trashed = if first.is_back { "is back, with its edit" } else { "is gone" };
        say!("\nThe post that was put into the trash while it was edited {trashed}.");
        say!("The two users with one e-mail answer to: {}", first.twins.join(" and "));
        for (name, parent) in &first.categories {
            say!(
                "The category {name} lies {}",
                parent.as_ref().map_or("at the top".to_owned(), |p| format!("under {p}"))
            );
        }
        say!("\n{}", paint.bold("The conflict inbox, the same on all three:"));
        first.conflicts.iter().for_each(|line| say!("  - {line}"));
        say!(
            "\n  {:22} {:>10} {:>10} {:>10}",
            "count",
            super::nodes::NAMES[0],
            super::nodes::NAMES[1],
            super::nodes::NAMES[2]
        );
        for (at, (name, _)) in first.counts.iter().enumerate() {
            let cells: Vec<String> =
                self.answers.iter().map(|a| format!("{:>10}", a.counts[at].1)).collect();
            say!("  {name:22} {}", cells.join(" "));
        }
        for (name, answers) in super::nodes::NAMES.iter().zip(&self.answers) {
            say!("  digest of {name:11} {}", answers.digest);
        }
        let verdict = if self.is_equal() {
            paint.good("All three are equal.")
        } else {
            "They are NOT equal.".to_owned()
        };
        say!("\n{verdict}");
    }
}

impl Answers {
    /// Nothing of what was written apart was lost.
    fn is_whole(&self) -> bool {
        let count = |name: &str| {
            self.counts.iter().find(|(n, _)| *n == name).map_or(0, |(_, count)| *count)
        };
        let merged =
            ["three days", "six litres", "a lamp"].iter().all(|part| self.body.contains(part));
        let counted = count("comments of the post") == 3
            && count("likes of the post") == LIKERS.len() as u64
            && count("views of the post") == VIEWS as u64;
        merged && counted && self.is_back && self.twins.len() == 2 && !self.conflicts.is_empty()
    }
}

fn ask(node: &Node, admin: &Actor, stage: &Stage) -> Outcome<Answers> {
    let answers = node.store.read(|reader| Ok(read(reader, admin, stage)))??;
    let inbox = conflict::list(node, admin, 100, None)?;
    let told = |c: &Conflict| {
        let field = if c.field.is_empty() { String::new() } else { format!("{} of ", c.field) };
        format!("{field}a {}: {}", c.kind_name, c.explanation)
    };
    let mut conflicts: Vec<String> = inbox.conflicts.iter().map(told).collect();
    conflicts.sort();
    Ok(Answers { conflicts, ..answers })
}

fn read(reader: &Reader<'_>, admin: &Actor, stage: &Stage) -> atoll_node::Result<Answers> {
    let tenant = admin.tenant;
    let shared = reader.get_full(&POST, stage.shared)?;
    let trashed = reader.get_full(&POST, stage.trashed)?;
    let text = |field| shared.as_ref().map(|post| post.text(field).to_owned()).unwrap_or_default();
    let views = insight::views(reader, stage.shared)?;
    let all = |kind| reader.count(&Query::of(kind, tenant));
    let counts = vec![
        ("posts", all(&POST)?),
        ("categories", all(&CATEGORY)?),
        ("users", all(&USER)?),
        ("comments", all(&COMMENT)?),
        ("comments of the post", comment::count_of(reader, tenant, stage.shared)?),
        ("likes of the post", like::count(reader, tenant, Target::Post(stage.shared))?),
        ("views of the post", views.views),
        ("visitors of the post", views.visitors),
        ("conflicts", reader.conflict_count(Some(tenant))?),
    ];
    Ok(Answers {
        digest: reader.root()?.to_string(),
        body: shared.as_ref().map(|post| post.body(&post::BODY).to_owned()).unwrap_or_default(),
        excerpt: text(&post::EXCERPT),
        is_back: trashed
            .is_some_and(|post| !post::is_trashed(&post) && post.body(&post::BODY).contains("ten")),
        categories: places(reader, stage)?,
        twins: twins(reader, admin)?,
        counts,
        conflicts: Vec::new(),
    })
}

fn places(
    reader: &impl Read,
    stage: &Stage,
) -> atoll_storage::Result<Vec<(String, Option<String>)>> {
    let name = |record: &atoll_storage::Record| record.text(&category::NAME).to_owned();
    let mut places = Vec::new();
    for key in [stage.tides, stage.winds] {
        let Some(record) = reader.get(&CATEGORY, key)? else { continue };
        let parent =
            record.tree_parent().map(|parent| reader.get(&CATEGORY, parent)).transpose()?.flatten();
        places.push((name(&record), parent.map(|parent| name(&parent))));
    }
    Ok(places)
}

/// In the order in which they were made.
fn twins(reader: &impl Read, admin: &Actor) -> atoll_storage::Result<Vec<String>> {
    let page = reader.list(&Query::of(&USER, admin.tenant).limit(1_000))?;
    let twins = page.records.iter().filter(|user| user.wanted(&user::EMAIL) == TWIN_EMAIL);
    Ok(twins.map(|user| user.text(&user::EMAIL).to_owned()).collect())
}
