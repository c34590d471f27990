//! Posts as JSON Lines: an object a line, with the names that a table's columns have; tags as a list or with commas.
//! A line that is too long or no object is passed over and told.

use super::super::post::{COVER, EXCERPT, FORMAT, META_DESCRIPTION, META_TITLE, TITLE};
use super::entry::{Entry, Item, Place, fitting, hash_of};
use super::intake::Intake;
use super::table::{self, time_of};
use super::unreadable;
use crate::error::Result;
use crate::exchange::Opened;
use atoll_storage::tx::Changes;
use serde_json::{Map, Value as Json};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

const MAX_LINE_BYTES: u64 = 4 << 20;

/// Takes every line; `name` is what lines without an id are told apart by.
pub(super) fn read(intake: &mut Intake<'_>, file: &Path, name: &str) -> Result<()> {
    let Opened { reader, count, size_bytes: total_bytes } = super::open(file)?;
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut number: u64 = 0;
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(|error| unreadable(file, error))? == 0 {
            return Ok(());
        }
        number += 1;
        intake.at(count.get(), total_bytes);
        let source = format!("line {number}");
        if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
            reader.skip_until(b'\n').map_err(|error| unreadable(file, error))?;
            intake.add(Item::bad(source, "is longer than 4 MiB"))?;
        } else if !line.trim_ascii().is_empty() {
            intake.add(match serde_json::from_slice(&line) {
                Ok(object) => Item::Post(Box::new(entry_of(name, source, &line, &object))),
                Err(error) => Item::bad(source, format!("is no object of JSON: {error}")),
            })?;
        }
    }
}

fn entry_of(name: &str, source: String, line: &[u8], object: &Map<String, Json>) -> Entry {
    let text = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| object.get(*key)?.as_str());
        found.filter(|text| !text.trim().is_empty())
    };
    let id = object.get("id").filter(|id| !id.is_null()).map(|id| match id {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    });
    let id = id.or_else(|| text(&["slug"]).map(str::to_owned)).unwrap_or_else(|| source.clone());
    let mut changes = Changes::new();
    for field in [&EXCERPT, &FORMAT, &COVER, &META_TITLE, &META_DESCRIPTION] {
        if let Some(text) = text(&[field.name]) {
            changes.put(field, fitting(field, text));
        }
    }
    let mut notes = Vec::new();
    let is_draft = object.get("draft").and_then(Json::as_bool).unwrap_or(false);
    let mut time = |keys: &[&str]| time_of(text(keys), &mut notes);
    let (published_ms, made_ms, changed_ms) =
        (time(&["date", "published_at"]), time(&["created_at"]), time(&["updated_at"]));
    let is_draft =
        is_draft || text(&["status"]).is_some_and(|status| table::is_draft(status, &mut notes));
    Entry {
        source,
        origin: format!("{name}#{id}"),
        hash: hash_of(&[line]),
        title: fitting(&TITLE, text(&["title"]).unwrap_or_default()),
        body: text(&["body", "content"]).unwrap_or_default().to_owned(),
        changes,
        slug: text(&["slug"]).map(str::to_owned),
        category: text(&["category"]).map(Place::named),
        tags: texts_of(object.get("tags")).into_iter().map(Place::named).collect(),
        author: text(&["author"]).map(table::author_of),
        is_draft,
        published_ms,
        made_ms,
        changed_ms,
        aliases: texts_of(object.get("aliases")),
        notes,
        ..Entry::default()
    }
}

fn texts_of(value: Option<&Json>) -> Vec<String> {
    let texts: Vec<&str> = match value {
        Some(Json::Array(items)) => items.iter().filter_map(Json::as_str).collect(),
        Some(Json::String(text)) => text.split([',', ';']).collect(),
        _ => vec![],
    };
    texts.into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_post() {
        let line =
            br#"{"id":7,"title":"One","tags":["a","b"],"author":"ada@x.org","status":"draft"}"#;
        let object = serde_json::from_slice(line).unwrap();
        let entry = entry_of("posts", "line 1".into(), line, &object);
        assert_eq!((entry.origin.as_str(), entry.title.as_str()), ("posts#7", "One"));
        assert_eq!(entry.tags, [Place::named("a"), Place::named("b")]);
        assert_eq!(entry.author.map(|author| author.email).as_deref(), Some("ada@x.org"));
        assert!(entry.is_draft);
    }
}
