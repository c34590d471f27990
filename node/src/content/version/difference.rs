//! What lies between two versions: the fields that differ, and the body by line or by word. A diff that takes long gives
//! what it has: correct, if not the smallest.

use super::{all_kept, readable, standing};
use crate::access::Actor;
use crate::content::read;
use crate::error::Result;
use crate::runtime::Node;
use atoll_storage::Id;
use serde_json::{Map, Value as Json};
use similar::{ChangeTag, TextDiff};
use std::time::Duration;

const DIFF_TIME: Duration = Duration::from_millis(200);

/// What the body is compared by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum By {
    #[default]
    Line,
    Word,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Difference {
    pub from: u64,
    pub to: u64,
    /// Names of the fields that differ, each with the value before and after.
    pub fields: Map<String, Json>,
    /// Of the body by line, as a unified diff; empty if it is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Of the body by word: all of it, in pieces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Piece>>,
}

/// A run of words with one fate.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Piece {
    /// `equal`, `delete` or `insert`.
    pub op: &'static str,
    pub text: String,
}

/// What turns version `from` into version `to`.
pub async fn difference(
    node: &Node,
    actor: &Actor,
    key: Id,
    (from, to): (u64, u64),
    by: By,
) -> Result<Difference> {
    let (before, after) = read(node, |reader| {
        let post = readable(reader, actor, key)?;
        Ok((standing(reader, &post, from)?, standing(reader, &post, to)?))
    })?;
    let fields = changed_fields(&before.post, &after.post);
    let compare = move || match by {
        By::Line => (Some(unified(from, &before.body, to, &after.body)), None),
        By::Word => (None, Some(pieces(&before.body, &after.body))),
    };
    let (body, words) = node.run_on_pool(compare).await?;
    Ok(Difference { from, to, fields, body, words })
}

fn changed_fields(before: &Map<String, Json>, after: &Map<String, Json>) -> Map<String, Json> {
    let mut changed = Map::new();
    for field in all_kept() {
        let (was, is) = (before.get(field.name), after.get(field.name));
        if was != is {
            changed.insert(field.name.to_owned(), serde_json::json!({ "from": was, "to": is }));
        }
    }
    changed
}

fn unified(from: u64, before: &str, to: u64, after: &str) -> String {
    let diff = TextDiff::configure().timeout(DIFF_TIME).diff_lines(before, after);
    let (before, after) = (format!("version {from}"), format!("version {to}"));
    diff.unified_diff().context_radius(3).header(&before, &after).to_string()
}

/// What turns one text into another, by word.
pub fn pieces(before: &str, after: &str) -> Vec<Piece> {
    let diff = TextDiff::configure().timeout(DIFF_TIME).diff_words(before, after);
    let mut pieces: Vec<Piece> = Vec::new();
    for change in diff.iter_all_changes() {
        let op = match change.tag() {
            ChangeTag::Equal => "equal",
            ChangeTag::Delete => "delete",
            ChangeTag::Insert => "insert",
        };
        match pieces.last_mut() {
            Some(last) if last.op == op => last.text.push_str(change.value()),
            _ => pieces.push(Piece { op, text: change.value().to_owned() }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_with_their_fate() {
        let told: Vec<_> = pieces("the quick fox\n", "the slow fox\n")
            .into_iter()
            .map(|piece| (piece.op, piece.text))
            .collect();
        let wanted =
            [("equal", "the "), ("delete", "quick"), ("insert", "slow"), ("equal", " fox\n")];
        assert_eq!(told, wanted.map(|(op, text)| (op, text.to_owned())));
    }
}
