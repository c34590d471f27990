//! The tables of a Ghost export as a stream: rows of the tables that are wanted, one at a time; all else is read over
//! without being kept.

use super::super::{Stream, date};
use crate::error::{Error, Result};
use crate::exchange::Bounded;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value as Json;
use std::cell::Cell;
use std::fmt;
use std::io::BufReader;
use std::rc::Rc;

/// The longest row.
const MAX_ROW_BYTES: usize = 16 << 20;

pub(super) trait Sink {
    fn wants(&self, table: &str) -> bool;

    /// `at`: how far the file is read.
    fn row(&mut self, table: &str, row: &Json, at: u64) -> Result<()>;
}

/// A row, read by names that may be missing.
pub(super) struct Row<'a>(pub &'a Json);

impl Row<'_> {
    pub fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    pub fn is_set(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// Older exports number their rows, newer ones give them texts.
    pub fn id(&self, name: &str) -> String {
        match &self.0[name] {
            Json::String(text) => text.clone(),
            Json::Number(number) => number.to_string(),
            _ => String::new(),
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        let value = &self.0[name];
        value.as_bool().unwrap_or(value.as_i64() == Some(1))
    }

    /// As text, or in milliseconds in older exports.
    pub fn time(&self, name: &str) -> Option<i64> {
        self.0[name].as_i64().or_else(|| date::parse(self.text(name)))
    }
}

/// Hands the rows of an export over. What broke the reading off, if anything did.
///
/// # Errors
/// Those of the sink, and a file that is no such export at all.
pub(super) fn each(stream: Stream<'_>, sink: &mut dyn Sink) -> Result<Option<String>> {
    let Stream { name, reader: inner, count, .. } = stream;
    let left = Rc::new(Cell::new(usize::MAX));
    let message = "a row is longer than 16 MiB";
    let reader = BufReader::new(Bounded { inner, left: left.clone(), message });
    let mut walk = Walk { sink, left, count: count.clone(), refused: None, tables: 0 };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let read = Level(&mut walk).deserialize(&mut json);
    if let Some(error) = walk.refused {
        return Err(error);
    }
    let unreadable =
        |why: &dyn fmt::Display| Err(Error::Malformed(format!("{name} cannot be read: {why}")));
    match read {
        Err(error) if walk.tables == 0 => unreadable(&error),
        Ok(()) if walk.tables == 0 => unreadable(&"it holds no tables of Ghost (`db`, `data`)"),
        Ok(()) => Ok(None),
        Err(error) => Ok(Some(error.to_string())),
    }
}

struct Walk<'s> {
    sink: &'s mut dyn Sink,
    left: Rc<Cell<usize>>,
    count: Rc<Cell<u64>>,
    /// Why the sink took no more.
    refused: Option<Error>,
    tables: usize,
}

/// The objects around the tables: `{"db": [{"data": {...}}]}`, or only the inner ones.
struct Level<'w, 's>(&'w mut Walk<'s>);

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an export of Ghost")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "db" => map.next_value_seed(Level(self.0))?,
                "data" => map.next_value_seed(Tables(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Level(self.0))?.is_some() {}
        Ok(())
    }
}

struct Tables<'w, 's>(&'w mut Walk<'s>);

impl<'de> DeserializeSeed<'de> for Tables<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tables<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tables of an export of Ghost")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            self.0.tables += 1;
            if self.0.sink.wants(&name) {
                map.next_value_seed(Rows { walk: self.0, table: &name })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Rows<'w, 's, 't> {
    walk: &'w mut Walk<'s>,
    table: &'t str,
}

impl<'de> DeserializeSeed<'de> for Rows<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rows of a table")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let walk = self.walk;
        loop {
            walk.left.set(MAX_ROW_BYTES);
            let Some(row) = seq.next_element::<Json>()? else { break };
            let at = walk.count.get();
            if let Err(error) = walk.sink.row(self.table, &row, at) {
                walk.refused = Some(error);
                return Err(A::Error::custom("the rows are not taken any more"));
            }
        }
        // What is read over is not kept, and so may be long.
        walk.left.set(usize::MAX);
        Ok(())
    }
}
