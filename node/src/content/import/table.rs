//! Tables of posts in CSV: a file to import, or the body of a batch. The first row names the columns.

use super::super::post::{EXCERPT, FORMAT, POST, TITLE};
use super::entry::{Entry, Item, Place, fitting, hash_of};
use super::intake::Intake;
use super::report::Report;
use super::{date, unreadable};
use crate::access::Actor;
use crate::error::{Error, FieldError, Result};
use crate::exchange::Bounded;
use crate::runtime::Node;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Merge, Type, Value};
use csv::StringRecord;
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

/// The longest row, its quotes included.
const MAX_ROW_BYTES: usize = 4 << 20;

/// Makes a post of every row. Columns: `title`, and any of `id`, `slug`, `body`, `excerpt`, `format`, `category`,
/// `tags` (by name, with commas or semicolons between), `date`, `draft`, `status`. A row is found again by its `id`,
/// else by its `slug`, else by its place. For a thread that may wait.
///
/// # Errors
/// Only what stops all: a file that cannot be read, no column `title`, a missing permission, a full disk.
pub fn import_csv(
    node: &Node,
    actor: &Actor,
    file: &Path,
    mut progress: impl FnMut(&Report, u64),
) -> Result<Report> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut watch = |report: &Report, _: u64, of: u64| progress(report, of);
    let mut intake = Intake::new(node, actor, false, &mut watch)?;
    read(&mut intake, file, &name)?;
    intake.finish()
}

/// Takes every row; `name` is what rows without an id are told apart by.
pub(super) fn read(intake: &mut Intake<'_>, file: &Path, name: &str) -> Result<()> {
    let (inner, total_bytes) = super::open(file)?;
    let (count, left) = (inner.count(), Rc::new(Cell::new(MAX_ROW_BYTES)));
    let bounded = Bounded { inner, left: left.clone(), message: "a row is longer than 4 MiB" };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bounded);
    let columns = reader.headers().map_err(|e| unreadable(file, e))?.clone();
    let columns: Vec<String> = columns.iter().map(|name| name.trim().to_lowercase()).collect();
    if !columns.iter().any(|name| name == "title") {
        return Err(Error::Malformed(
            "the first row must name the columns, one of them title".to_owned(),
        ));
    }
    let mut row = StringRecord::new();
    let mut number: u64 = 1;
    loop {
        left.set(MAX_ROW_BYTES);
        number += 1;
        intake.at(count.get(), total_bytes);
        match reader.read_record(&mut row) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                intake.add(Item::Post(Box::new(entry_of(name, number, &columns, &row))))?;
            }
            Err(error) => {
                let ends = matches!(error.kind(), csv::ErrorKind::Io(_));
                intake.add(Item::bad(format!("row {number}"), error))?;
                if ends {
                    return Ok(());
                }
            }
        }
    }
}

fn entry_of(file: &str, number: u64, columns: &[String], row: &StringRecord) -> Entry {
    let cell = |name: &str| {
        let at = columns.iter().position(|column| column == name)?;
        row.get(at).map(str::trim).filter(|text| !text.is_empty())
    };
    let id =
        cell("id").or_else(|| cell("slug")).map_or_else(|| format!("row {number}"), str::to_owned);
    let mut changes = Changes::new();
    if let Some(excerpt) = cell("excerpt") {
        changes.put(&EXCERPT, fitting(&EXCERPT, excerpt));
    }
    if let Some(format) = cell("format") {
        changes.put(&FORMAT, format);
    }
    let cells: Vec<&[u8]> = row.iter().map(str::as_bytes).collect();
    let tags =
        cell("tags").map(|text| text.split([',', ';']).map(str::trim).map(Place::named).collect());
    let is_true = |text: &str| matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "1");
    Entry {
        source: format!("row {number}"),
        origin: format!("{file}#{id}"),
        hash: hash_of(&cells),
        title: fitting(&TITLE, cell("title").unwrap_or_default()),
        body: cell("body").or_else(|| cell("content")).unwrap_or_default().to_owned(),
        changes,
        slug: cell("slug").map(str::to_owned),
        category: cell("category").map(Place::named),
        tags: tags.unwrap_or_default(),
        is_draft: cell("draft").is_some_and(is_true) || cell("status") == Some("draft"),
        published_ms: cell("date").or_else(|| cell("published_at")).and_then(date::parse),
        ..Entry::default()
    }
}

/// The rows of a batch that came as CSV: columns are fields that clients may write, elements of sets have semicolons
/// between them, an empty cell is a field left out. A row that cannot be read is that row's error.
///
/// # Errors
/// `Malformed` for an unknown column, or more rows than `max`.
pub fn rows_of_csv(bytes: &[u8], max: usize) -> Result<Vec<Result<Changes>>> {
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
    let columns = reader
        .headers()
        .map_err(|e| Error::Malformed(format!("the first row cannot be read: {e}")))?;
    let mut fields = Vec::with_capacity(columns.len());
    for name in columns {
        let field = POST.field(name.trim()).filter(|field| field.writable);
        fields.push(field.ok_or_else(|| {
            Error::Malformed(format!("there is no column {:?} to write", name.trim()))
        })?);
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        if rows.len() == max {
            return Err(Error::Malformed(format!("a batch takes at most {max} rows")));
        }
        let row = record.map_err(|e| Error::Malformed(e.to_string()));
        rows.push(row.and_then(|row| changes_of(&fields, &row)));
    }
    Ok(rows)
}

fn changes_of(fields: &[&'static Field], row: &StringRecord) -> Result<Changes> {
    let mut changes = Changes::new();
    let mut errors = Vec::new();
    for (field, cell) in fields.iter().zip(row).filter(|(_, cell)| !cell.trim().is_empty()) {
        match field.merge {
            Merge::Body => changes = changes.body(field, cell),
            Merge::Set => {
                for element in cell.split(';').map(str::trim).filter(|element| !element.is_empty())
                {
                    match value_of(field, element) {
                        Ok(value) => changes = changes.add(field, value),
                        Err(wanted) => {
                            errors.push(FieldError::new(field.name, "wrong_type", wanted));
                        }
                    }
                }
            }
            _ => match value_of(field, cell.trim()) {
                Ok(value) => changes.put(field, value),
                Err(wanted) => errors.push(FieldError::new(field.name, "wrong_type", wanted)),
            },
        }
    }
    if errors.is_empty() { Ok(changes) } else { Err(Error::Invalid(errors)) }
}

fn value_of(field: &Field, cell: &str) -> Result<Value, &'static str> {
    let (value, wanted) = match field.ty {
        Type::Text => (Some(Value::from(cell)), "must be text"),
        Type::Int => (cell.parse().ok().map(Value::Int), "must be a whole number"),
        Type::Bool => {
            (cell.to_ascii_lowercase().parse().ok().map(Value::Bool), "must be true or false")
        }
        Type::Id => (Id::parse(cell).map(Value::Id), "must be an id"),
        Type::Time => (date::parse(cell).map(Value::Int), "must be a time as in RFC 3339"),
        Type::Bytes => (None, "cannot be written"),
    };
    value.ok_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_batch_are_read_and_the_bad_ones_told() {
        let text = b"title,body,featured,tag_ids\nOne,\"a, b\",true,\nTwo,,perhaps,x;y\n";
        let rows = rows_of_csv(text, 10).unwrap_or_else(|e| panic!("{e}"));
        assert!(rows[0].as_ref().is_ok_and(|row| row.get(&TITLE) == Some(&Value::from("One"))));
        assert!(matches!(&rows[1], Err(Error::Invalid(errors)) if errors.len() == 3));
        assert!(rows_of_csv(b"title,colour\n", 10).is_err());
        assert!(rows_of_csv(b"title,status\n", 10).is_err());
        assert!(rows_of_csv(text, 1).is_err());
    }
}
