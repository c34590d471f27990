//! Tables of posts in CSV: a file to import, or the body of a batch. The first row names the columns.

use super::super::post::{
    CANONICAL_URL, COVER, EXCERPT, FEATURED, FORMAT, META_DESCRIPTION, META_TITLE, PINNED, POST,
    TITLE, VISIBILITY,
};
use super::entry::{Entry, Item, Place, fitting, hash_of};
use super::intake::Intake;
use super::report::Report;
use super::{date, unreadable};
use crate::access::Actor;
use crate::error::{Error, FieldError, Result};
use crate::exchange::{Bounded, Opened};
use crate::identity::author::Author;
use crate::runtime::Node;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Merge, Type, Value};
use csv::StringRecord;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::rc::Rc;

/// The longest row, its quotes included.
const MAX_ROW_BYTES: usize = 4 << 20;
/// Titles that are counted; rows of others are found again by their number.
const MAX_TITLES: usize = 1 << 20;

/// Makes a post of every row, under the columns of [`KNOWN`]. A row is found again by its `id`, else by its `slug`, else
/// by its title; of several rows of one title, by which of them it is. For a thread that may wait.
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

/// Columns that a table may have, `title` alone must be there. Several tags, categories' names aside, have commas or
/// semicolons between them; old addresses blanks.
const KNOWN: &[&str] = &[
    "id",
    "title",
    "slug",
    "body",
    "content",
    "format",
    "excerpt",
    "category",
    "tags",
    "author",
    "date",
    "published_at",
    "created_at",
    "updated_at",
    "draft",
    "status",
    "visibility",
    "cover",
    "featured",
    "pinned",
    "meta_title",
    "meta_description",
    "canonical_url",
    "aliases",
    "url",
];
/// Columns that go into fields of their names, if they fit.
const TEXTS: [&Field; 5] = [&EXCERPT, &META_TITLE, &META_DESCRIPTION, &CANONICAL_URL, &COVER];

/// Takes every row; `name` is what rows without an id are told apart by.
pub(super) fn read(intake: &mut Intake<'_>, file: &Path, name: &str) -> Result<()> {
    let Opened { reader: inner, count, size_bytes: total_bytes } = super::open(file)?;
    let left = Rc::new(Cell::new(MAX_ROW_BYTES));
    let bounded = Bounded { inner, left: left.clone(), message: "a row is longer than 4 MiB" };
    let mut bounded = BufReader::with_capacity(64 << 10, bounded);
    let separator = separator_of(&mut bounded).map_err(|error| unreadable(file, error))?;
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).delimiter(separator).from_reader(bounded);
    let columns = reader.headers().map_err(|e| unreadable(file, e))?.clone();
    let columns: Vec<String> = columns.iter().map(|name| name.trim().to_lowercase()).collect();
    if !columns.iter().any(|name| name == "title") {
        return Err(Error::Malformed(
            "the first row must name the columns, one of them title".to_owned(),
        ));
    }
    for odd in columns.iter().filter(|name| !KNOWN.contains(&name.as_str())) {
        let message = format!("is not known: there are {}", KNOWN.join(", "));
        intake.add(Item::skipped(format!("column {odd}"), message))?;
    }
    let mut row = StringRecord::new();
    let mut titles = Titles::default();
    let mut number: u64 = 1;
    loop {
        left.set(MAX_ROW_BYTES);
        number += 1;
        intake.at(count.get(), total_bytes);
        match reader.read_record(&mut row) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                intake.add(Item::Post(Box::new(entry_of(
                    name,
                    number,
                    &columns,
                    &row,
                    &mut titles,
                ))))?;
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

/// What stands between the names of the columns: a comma, or what programs write where the comma is in numbers. Leaves
/// out the mark that some begin with.
fn separator_of(reader: &mut impl BufRead) -> std::io::Result<u8> {
    let start = reader.fill_buf()?;
    let mark = if start.starts_with(&[0xef, 0xbb, 0xbf]) { 3 } else { 0 };
    let line = start[mark..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let (mut is_quoted, mut counts) = (false, [(b',', 0), (b';', 0), (b'\t', 0)]);
    for byte in line {
        is_quoted ^= *byte == b'"';
        counts.iter_mut().filter(|(c, _)| c == byte && !is_quoted).for_each(|(_, n)| *n += 1);
    }
    let most = counts.iter().rev().max_by_key(|(_, count)| *count);
    let separator = most.filter(|(_, count)| *count > 0).map_or(b',', |(c, _)| *c);
    reader.consume(mark);
    Ok(separator)
}

/// How many rows there were of each title, of those that have nothing better to be found again by.
#[derive(Default)]
struct Titles(HashMap<[u8; 16], u32>);

impl Titles {
    /// What a row is found again by.
    fn name(&mut self, title: &str, number: u64) -> String {
        let Id(hash) = Id::natural(&[title.to_lowercase().as_bytes()]);
        if self.0.len() >= MAX_TITLES && !self.0.contains_key(&hash) {
            return format!("row {number}");
        }
        let count = self.0.entry(hash).or_default();
        *count += 1;
        format!("title {title} {count}")
    }
}

fn entry_of(
    file: &str,
    number: u64,
    columns: &[String],
    row: &StringRecord,
    titles: &mut Titles,
) -> Entry {
    let cell = |name: &str| {
        let at = columns.iter().position(|column| column == name)?;
        row.get(at).map(str::trim).filter(|text| !text.is_empty())
    };
    let id = match cell("id").or_else(|| cell("slug")) {
        Some(id) => id.to_owned(),
        None => titles.name(cell("title").unwrap_or_default(), number),
    };
    let mut changes = Changes::new();
    for field in TEXTS {
        if let Some(text) = cell(field.name) {
            changes.put(field, fitting(field, text));
        }
    }
    for field in [&FORMAT, &VISIBILITY] {
        if let Some(choice) = cell(field.name) {
            changes.put(field, choice.to_lowercase());
        }
    }
    let is_true = |text: &str| matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "1");
    for field in [&FEATURED, &PINNED] {
        if let Some(flag) = cell(field.name) {
            changes.put(field, is_true(flag));
        }
    }
    let cells: Vec<&[u8]> = row.iter().map(str::as_bytes).collect();
    let tags =
        cell("tags").map(|text| text.split([',', ';']).map(str::trim).map(Place::named).collect());
    let aliases = ["aliases", "url"].into_iter().filter_map(cell).flat_map(str::split_whitespace);
    let mut notes = Vec::new();
    let mut time = |names: &[&str]| time_of(names.iter().find_map(|name| cell(name)), &mut notes);
    let (published_ms, made_ms, changed_ms) =
        (time(&["date", "published_at"]), time(&["created_at"]), time(&["updated_at"]));
    let is_draft = cell("draft").is_some_and(is_true)
        || cell("status").is_some_and(|status| is_draft(status, &mut notes));
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
        author: cell("author").map(author_of),
        is_draft,
        published_ms,
        made_ms,
        changed_ms,
        aliases: aliases.map(str::to_owned).collect(),
        notes,
        ..Entry::default()
    }
}

/// By his e-mail address, or else by his username.
pub(super) fn author_of(name: &str) -> Author {
    let (email, username) = if name.contains('@') { (name, "") } else { ("", name) };
    Author { email: email.into(), username: username.into(), name: String::new() }
}

pub(super) fn time_of(text: Option<&str>, notes: &mut Vec<String>) -> Option<i64> {
    let text = text?;
    let time = date::parse(text);
    if time.is_none() {
        notes.push(format!("{text:?} is no date that can be read"));
    }
    time
}

/// Only what says that it is for readers comes out.
pub(super) fn is_draft(status: &str, notes: &mut Vec<String>) -> bool {
    match status.to_lowercase().as_str() {
        "published" | "publish" | "public" | "live" | "scheduled" | "future" => false,
        "draft" | "pending" => true,
        other => {
            notes.push(format!("its status {other} is not known: it is a draft"));
            true
        }
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

    fn first_row(table: &str) -> (u8, Entry) {
        let mut bytes = table.as_bytes();
        let separator = separator_of(&mut bytes).unwrap();
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(bytes);
        let columns: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        (
            separator,
            entry_of(
                "t",
                2,
                &columns,
                &reader.records().next().unwrap().unwrap(),
                &mut Titles::default(),
            ),
        )
    }

    #[test]
    fn a_table_of_a_spreadsheet_is_read_whatever_stands_between_its_columns() {
        for (table, wanted) in [
            ("title,body\nOne,\"a;b\"\n", b','),
            ("\u{feff}title;body;\"x,y,z\"\nOne;a,b;\n", b';'),
            ("title\tbody\nOne\ta\n", b'\t'),
            ("title\nOne\n", b','),
        ] {
            let (separator, entry) = first_row(table);
            assert_eq!((separator, entry.title.as_str()), (wanted, "One"), "{table:?}");
        }
    }

    #[test]
    fn only_what_says_so_comes_out_and_what_is_odd_is_told() {
        let entry = |status: &str| first_row(&format!("title,status,date\nA,{status},soon\n")).1;
        for status in ["Draft", "pending", "retired"] {
            assert!(entry(status).is_draft, "{status}");
        }
        for status in ["", "Published", "publish"] {
            assert!(!entry(status).is_draft, "{status}");
        }
        assert_eq!(entry("retired").notes.len(), 2);
        let (_, full) = first_row("title,author,url,cover\nA,ada@x.org,https://old.org/a,/c.png\n");
        assert_eq!(full.author.map(|author| author.email).as_deref(), Some("ada@x.org"));
        assert_eq!(full.aliases, ["https://old.org/a"]);
        assert!(full.changes.get(&COVER).is_some());
    }

    #[test]
    fn rows_without_an_id_are_told_apart_by_their_titles_and_not_by_their_place() {
        let names = |table: &str| -> Vec<String> {
            let mut titles = Titles::default();
            let columns = ["title".to_owned(), "slug".to_owned()];
            let mut reader =
                csv::ReaderBuilder::new().has_headers(false).from_reader(table.as_bytes());
            let rows = reader.records().zip(1..);
            rows.map(|(row, n)| entry_of("t", n, &columns, &row.unwrap(), &mut titles).origin)
                .collect()
        };
        let first = names("One,\nTwo,\nNews,\nNEWS,\nFour,four\n");
        let later = names("Two,\nNews,\nOther,\nFour,four\n");
        assert_eq!(first.iter().collect::<std::collections::HashSet<_>>().len(), 5);
        assert_eq!((&later[0], &later[1], &later[3]), (&first[1], &first[2], &first[4]));
        assert!(!first.contains(&later[2]));
    }

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
