//! Titles that go on as a person types. Only public ones, as whoever types may not be known.

use super::find::{Boxed, by_rank, exact_in, plain};
use super::schema::Fields;
use super::text::{Clause, may_go_on};
use super::words::{clip, words};
use super::{MAX_SUGGESTIONS, Result};
use crate::id::Id;
use std::collections::HashSet;
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, ConstScoreQuery, DisjunctionMaxQuery, Occur};
use tantivy::schema::Value;
use tantivy::{Searcher, TantivyDocument, Term};

const MAX_PREFIX_BYTES: usize = 200;
const MAX_WORDS: usize = 10;
/// Titles read for each one given, as several documents may bear the same.
const SPARE: usize = 4;

pub fn suggest(
    searcher: &Searcher,
    fields: &Fields,
    tenant: Id,
    prefix: &str,
    limit: usize,
) -> Result<Vec<String>> {
    let words = folded(clip(prefix, MAX_PREFIX_BYTES));
    let limit = limit.min(MAX_SUGGESTIONS);
    if words.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let top = TopDocs::with_limit(limit * SPARE).tweak_score(by_rank);
    let mut titles = Vec::new();
    for (_, at) in searcher.search(&query(fields, tenant, &words), &top)? {
        let row: TantivyDocument = searcher.doc(at)?;
        titles.extend(
            row.get_first(fields.title).and_then(|value| value.as_str()).map(str::to_owned),
        );
    }
    Ok(best_first(titles, &words, limit))
}

fn folded(text: &str) -> Vec<String> {
    words(text, MAX_WORDS).into_iter().map(|word| word.text).collect()
}

/// All words but the last stand in the title as they are, in any order; the last may go on.
fn query(fields: &Fields, tenant: Id, words: &[String]) -> BooleanQuery {
    let filters = [
        plain(Term::from_field_bytes(fields.tenant, &tenant.0)),
        plain(Term::from_field_bool(fields.public, true)),
    ];
    let mut all: Vec<(Occur, Boxed)> = Vec::new();
    all.extend(
        filters.map(|filter| (Occur::Must, Box::new(ConstScoreQuery::new(filter, 0.0)) as Boxed)),
    );
    for (i, word) in words.iter().enumerate() {
        let prefix = i + 1 == words.len() && (may_go_on(words) || word.is_ascii());
        let clause = Clause { words: vec![word.clone()], quoted: false, prefix };
        let any = exact_in(fields.title, 1.0, &clause);
        all.push((Occur::Must, Box::new(DisjunctionMaxQuery::new(any))));
    }
    BooleanQuery::new(all)
}

/// Those that begin with what was typed come first; none comes twice.
fn best_first(mut titles: Vec<String>, words: &[String], limit: usize) -> Vec<String> {
    let typed = words.join(" ");
    titles.sort_by_key(|title| !folded(title).join(" ").starts_with(&typed));
    let mut seen = HashSet::new();
    titles.retain(|title| seen.insert(title.to_lowercase()));
    titles.truncate(limit);
    titles
}
