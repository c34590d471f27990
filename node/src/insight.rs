//! What is counted: views and unique visitors, in all and by day. Cookieless: a visitor is a hash that is only
//! ever folded into a sketch and never stored. Bots are left out.

use crate::access::{Actor, Permission};
use crate::community::comment::{self, COMMENT};
use crate::community::like::{self, LIKE};
use crate::content::post::{self, POST};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::{Field, Id, Kind, Value};
use std::collections::{BTreeMap, HashMap};

/// The scope of the streams that hold all of this.
pub const SCOPE: &str = "insight";

pub const VIEWS: Field = Field::counter(1, "views").column();
pub const VISITORS: Field = Field::sketch(2, "visitors").column();

/// Under the post's own key.
pub static POST_STATS: Kind = Kind {
    fields: &[VIEWS, VISITORS],
    indexes: &[&["views"]],
    doc: "Views and visitors of a post since it was published.",
    ..Kind::new(60, "post_stats", "post_stats", SCOPE)
};

/// Under a natural key of post and day.
pub static POST_DAY: Kind = Kind {
    fields: &[VIEWS, VISITORS],
    doc: "Views and visitors of a post on one day (UTC).",
    ..Kind::new(61, "post_day", "post_days", SCOPE)
};

/// Views that one request may report.
pub const MAX_HITS: usize = 100;
pub const MAX_DAYS: u64 = 366;
const DAY_MS: u64 = 86_400_000;

/// One look at a post.
#[derive(Clone, Debug)]
pub struct Hit {
    pub post: Id,
    /// A hash of whatever tells visitors apart; see [`visitor`].
    pub visitor: [u8; 32],
}

/// Tells visitors of a tenant apart without keeping anything of them.
pub fn visitor(tenant: Id, address: &str, user_agent: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("atoll 2026 visitor of a tenant");
    for part in [&tenant.0[..], address.as_bytes(), user_agent.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Programs that say that they are no people.
pub fn is_bot(user_agent: &str) -> bool {
    const MARKS: [&str; 10] = [
        "bot",
        "crawl",
        "spider",
        "slurp",
        "preview",
        "headless",
        "monitor",
        "fetch",
        "scrape",
        "python-requests",
    ];
    let agent = user_agent.to_ascii_lowercase();
    agent.is_empty() || MARKS.iter().any(|mark| agent.contains(mark))
}

fn day_key(post: Id, day: u64) -> Id {
    Id::natural(&[b"post_day", &post.0, &day.to_le_bytes()])
}

/// Counts looks at posts that the actor may see. Returns how many counted; the others named no post of his.
pub async fn track(node: &Node, actor: &Actor, hits: Vec<Hit>) -> Result<usize> {
    if hits.len() > MAX_HITS {
        return Err(Error::field(
            "events",
            "too_many",
            format!("takes at most {MAX_HITS} events at once"),
        ));
    }
    let actor = *actor;
    node.store
        .write(move |tx| {
            let day = tx.now_ms() / DAY_MS;
            let mut by_post: BTreeMap<Id, Vec<[u8; 32]>> = BTreeMap::new();
            hits.iter().for_each(|hit| by_post.entry(hit.post).or_default().push(hit.visitor));
            let mut counted = 0;
            for (key, visitors) in by_post {
                if !tx.get(&POST, key)?.is_some_and(|post| post::may_see(&actor, &post)) {
                    continue;
                }
                let views = [(&VIEWS, visitors.len() as u64)];
                let members: Vec<(&Field, &[u8])> =
                    visitors.iter().map(|v| (&VISITORS, v.as_slice())).collect();
                tx.count(&POST_STATS, actor.tenant, key, &views, &members)?;
                tx.count(&POST_DAY, actor.tenant, day_key(key, day), &views, &members)?;
                counted += visitors.len();
            }
            Ok(counted)
        })
        .await
}

#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Figures {
    pub views: u64,
    /// Estimated, within about 2 %.
    pub visitors: u64,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Day {
    /// As `2026-11-21`, UTC.
    pub day: String,
    #[serde(flatten)]
    pub figures: Figures,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Statistics {
    #[serde(flatten)]
    pub figures: Figures,
    /// Oldest first, today last; days without a view are zero.
    pub days: Vec<Day>,
}

fn figures(record: Option<&atoll_storage::Record>) -> Figures {
    record.map_or_else(Figures::default, |r| Figures {
        views: r.total(&VIEWS),
        visitors: r.estimate(&VISITORS),
    })
}

/// Views of one post, for whoever may see the post: the number alone.
pub fn views(reader: &impl Read, post: Id) -> Result<Figures> {
    Ok(figures(reader.get(&POST_STATS, post)?.as_ref()))
}

/// What stands beside a post in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Counts {
    pub view_count: u64,
    pub like_count: u64,
    pub comment_count: u64,
}

/// The counts of posts that the actor may see, in their order: three queries, however many they are.
pub fn counts(node: &Node, tenant: Id, posts: &[Id]) -> Result<Vec<Counts>> {
    let keys: Vec<Value> = posts.iter().map(|key| Value::Id(*key)).collect();
    let stats = Query::of(&POST_STATS, tenant).any_of("key", keys.clone());
    let stats = stats.limit(keys.len().max(1)).without_total();
    Ok(node.store.read(|reader| {
        let stats = reader.list(&stats)?.records;
        let views: HashMap<Id, u64> =
            stats.iter().map(|stats| (stats.key, stats.total(&VIEWS))).collect();
        let likes = reader.totals(&LIKE, tenant, like::TARGET_ID.name, &keys)?;
        let comments = reader.totals(&COMMENT, tenant, comment::SAID_ON, &keys)?;
        let count = |key: &Value| Counts {
            view_count: key.as_id().and_then(|id| views.get(&id).copied()).unwrap_or(0),
            like_count: likes.get(key).copied().unwrap_or(0),
            comment_count: comments.get(key).copied().unwrap_or(0),
        };
        Ok(keys.iter().map(count).collect())
    })?)
}

/// A post's figures over the last `days`, for its author and for those who read analytics.
pub fn of_post(node: &Node, actor: &Actor, post: Id, days: u64) -> Result<Statistics> {
    let record = post::get(node, actor, post)?;
    post::require_author_or(actor, &record, Permission::AnalyticsRead)?;
    let today = node.clock.now_ms() / DAY_MS;
    let days = days.clamp(1, MAX_DAYS);
    Ok(node.store.read(|reader| {
        let mut list = Vec::with_capacity(days as usize);
        for day in (today + 1).saturating_sub(days)..=today {
            let record = reader.get(&POST_DAY, day_key(post, day))?;
            list.push(Day { day: date_of(day), figures: figures(record.as_ref()) });
        }
        let figures = figures(reader.get(&POST_STATS, post)?.as_ref());
        Ok(Statistics { figures, days: list })
    })?)
}

/// The civil date of a count of days since 1970 (after Howard Hinnant's `civil_from_days`).
fn date_of(day: u64) -> String {
    let z = day + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        assert_eq!(date_of(0), "1970-01-01");
        assert_eq!(date_of(19_782), "2024-02-29");
        assert_eq!(date_of(20_778), "2026-11-21");
    }

    #[test]
    fn people_are_told_from_programs() {
        assert!(is_bot("") && is_bot("Googlebot/2.1") && is_bot("HeadlessChrome/120"));
        assert!(!is_bot("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"));
    }
}
