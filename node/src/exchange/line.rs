//! A record as a line of an archive, and back: what its kind declares, less what is secret. The same text for the same record, so that two archives can be compared.

use crate::community::{comment, like};
use crate::content::{category, post, redirect, tag, version};
use crate::identity::{api_key, oidc, role, tenant, user};
use crate::insight;
use crate::mail::template;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Kind, Merge, Record, Shown, Type, Value};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

/// A kind that archives hold, with the secrets that are told all the same.
pub(super) struct Part {
    pub kind: &'static Kind,
    pub told: &'static [&'static Field],
    /// Told only if hashes are asked for.
    pub hashes: &'static [&'static Field],
    /// It means nothing without them.
    pub needs_hashes: bool,
}

impl Part {
    pub const fn of(kind: &'static Kind) -> Self {
        Self { kind, told: &[], hashes: &[], needs_hashes: false }
    }

    const fn telling(mut self, told: &'static [&'static Field]) -> Self {
        self.told = told;
        self
    }

    const fn with_hashes(mut self, hashes: &'static [&'static Field]) -> Self {
        self.hashes = hashes;
        self
    }

    const fn not_without(mut self) -> Self {
        self.needs_hashes = true;
        self
    }

    /// The secrets that are told.
    pub fn secrets(&self, with_hashes: bool) -> Vec<&'static Field> {
        let hashes = if with_hashes { self.hashes } else { &[] };
        self.told.iter().chain(hashes).copied().collect()
    }
}

/// In the order in which they are restored: what others refer to comes first.
pub(super) static PARTS: &[Part] = &[
    Part::of(&tenant::TENANT),
    Part::of(&role::ROLE),
    Part::of(&user::USER).with_hashes(&[&user::PASSWORD_HASH]),
    Part::of(&api_key::API_KEY).with_hashes(&[&api_key::HASH]).not_without(),
    Part::of(&oidc::OIDC_PROVIDER),
    Part::of(&category::CATEGORY),
    Part::of(&tag::TAG),
    Part::of(&post::POST).telling(&[&post::IMPORTED_HASH, &post::IMPORTED_FROM]),
    Part::of(&version::POST_VERSION).telling(&[&version::SNAPSHOT, &version::FIRST]),
    Part::of(&insight::POST_STATS),
    Part::of(&comment::COMMENT),
    Part::of(&like::LIKE),
    Part::of(&redirect::REDIRECT),
    Part::of(&template::MAIL_TEMPLATE),
];

pub(super) fn part(name: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.kind.plural == name)
}

fn is_told(field: &Field, told: &[&Field]) -> bool {
    field.shown != Shown::Never || told.iter().any(|secret| secret.code == field.code)
}

/// `record` came with its bodies.
pub(super) fn of(record: &Record, told: &[&Field]) -> Json {
    let mut fields = Map::new();
    for field in record.kind.fields.iter().filter(|field| is_told(field, told)) {
        let json = |value: &Value| serde_json::to_value(value).unwrap_or_default();
        let value = match field.merge {
            Merge::Set => Json::Array(record.set(field).map(json).collect()),
            Merge::Body => Json::from(record.body(field)),
            Merge::Register if field.claim.is_some() => Json::from(record.opt_text(field)),
            Merge::Register => json(record.value(field)),
            Merge::Counter => Json::from(record.total(field)),
            Merge::Sketch => Json::from(sketch_of(record, field)),
        };
        if !value.is_null() && value != Json::Array(vec![]) {
            fields.insert(field.name.to_owned(), value);
        }
    }
    json!({
        "id": record.key,
        "created_ms": record.created_ms(),
        "updated_ms": record.updated_ms(),
        "fields": fields,
    })
}

/// Each register as four digits of its place and two of its rank.
fn sketch_of(record: &Record, field: &Field) -> String {
    let registers = record.state.sketches.get(&field.code).map(|sketch| sketch.registers());
    registers.unwrap_or_default().into_iter().fold(String::new(), |mut text, (index, rank)| {
        let _ = write!(text, "{index:04x}{rank:02x}");
        text
    })
}

/// Fields that the kind does not have are left out: a newer release wrote them.
///
/// # Errors
/// The first field whose value is of a wrong type.
pub(super) fn changes_of(part: &Part, told: &[&Field], line: &Json) -> Result<Changes, String> {
    let mut changes = Changes::new();
    let Some(fields) = line["fields"].as_object() else { return Err("has no fields".to_owned()) };
    for (name, json) in fields {
        let known = part.kind.field(name).filter(|field| is_told(field, told));
        let Some(field) = known else { continue };
        let wrong = || format!("{name} is of a wrong type");
        match (field.merge, json) {
            (Merge::Body, Json::String(text)) => changes = changes.body(field, text.as_str()),
            (Merge::Set, Json::Array(items)) => {
                for item in items {
                    changes = changes.add(field, value_of(field, item).ok_or_else(wrong)?);
                }
            }
            (Merge::Register, json) => {
                changes.put(field, value_of(field, json).ok_or_else(wrong)?);
            }
            _ => return Err(wrong()),
        }
    }
    Ok(changes)
}

fn value_of(field: &Field, json: &Json) -> Option<Value> {
    match (field.ty, json) {
        (Type::Text, Json::String(text)) => Some(Value::from(text.as_str())),
        (Type::Id, Json::String(text)) => Id::parse(text).map(Value::Id),
        (Type::Bool, Json::Bool(flag)) => Some(Value::Bool(*flag)),
        (Type::Int | Type::Time, json) => json.as_i64().map(Value::Int),
        (Type::Bytes, Json::String(text)) => unhex(text).map(Value::Bytes),
        _ => None,
    }
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high * 16 + low) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_and_odd_ones_are_told() {
        let part = part("posts").unwrap();
        let id = Id([7; 16]).to_string();
        let line = json!({ "fields": {
            "title": "One", "body": "text", "tag_ids": [id], "featured": true, "published_at": 7,
            "imported_hash": "00ff", "trashed_heads": "00", "of_tomorrow": {},
        } });
        let changes = changes_of(part, part.told, &line).unwrap();
        assert_eq!(changes.get(&post::TITLE), Some(&Value::from("One")));
        assert_eq!(changes.get_body(&post::BODY), Some("text"));
        assert_eq!(changes.get(&post::IMPORTED_HASH), Some(&Value::Bytes(vec![0, 255])));
        assert_eq!(changes.get(&post::TRASHED_HEADS), None);
        assert_eq!(changes.added.len(), 1);
        for odd in [json!({ "fields": { "title": 7 } }), json!({}), json!([])] {
            assert!(changes_of(part, part.told, &odd).is_err(), "{odd}");
        }
    }
}
