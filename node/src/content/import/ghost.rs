//! An export of Ghost: one object of JSON with its tables. Read twice as a stream, with one row in memory at a time:
//! first who wrote what under which tags, which stands after the posts, then the posts. A row that is odd is told and
//! passed over. A body that Ghost did not render is rendered here.

mod card;
mod lexical;
mod mobiledoc;
mod tables;

use super::super::post::{
    CANONICAL_URL, COVER, EXCERPT, FEATURED, FORMAT, META_DESCRIPTION, META_TITLE, TITLE,
    VISIBILITY,
};
use super::entry::{Entry, Item, Place, fitting, hash_of, is_address};
use super::intake::Intake;
use crate::error::{Error, Result};
use crate::identity::author::Author;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Value};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::path::Path;
use tables::{Row, Sink};

/// Rows of the small tables that are kept in mind.
const MAX_ROWS: usize = 1_000_000;
/// What stands for the address of the site.
const SITE: &str = "__GHOST_URL__";

/// `name`: what its posts are told apart by from those of another blog.
pub(super) fn read(intake: &mut Intake<'_>, file: &Path, name: &str) -> Result<()> {
    let mut around = Around::default();
    // Where it breaks off, the posts before that are taken all the same; the second reading tells of it.
    super::each_stream(file, ".json", &mut |stream| tables::each(stream, &mut around).map(drop))?;
    around.sort();
    let ended = super::each_stream(file, ".json", &mut |stream| {
        let site = intake.site().to_owned();
        let size_bytes = stream.size_bytes;
        let mut posts =
            Posts { intake: &mut *intake, around: &around, name, site, number: 0, size_bytes };
        let broken = tables::each(stream, &mut posts)?;
        broken.map_or(Ok(()), |message| intake.add(Item::bad("the file", message)))
    })?;
    ended.map_or(Ok(()), |message| intake.add(Item::bad("the archive", message)))
}

/// What stands around the posts.
#[derive(Default)]
struct Around {
    rows: usize,
    tags: HashMap<String, Place>,
    users: HashMap<String, Author>,
    /// Of a post: tags and authors in their order, and what search engines show.
    tags_of: HashMap<String, Vec<(i64, String)>>,
    authors_of: HashMap<String, Vec<(i64, String)>>,
    meta_of: HashMap<String, (String, String)>,
}

impl Sink for Around {
    fn wants(&self, table: &str) -> bool {
        matches!(table, "tags" | "users" | "posts_tags" | "posts_authors" | "posts_meta")
    }

    fn row(&mut self, table: &str, row: &Json, _: u64) -> Result<()> {
        self.rows += 1;
        if self.rows > MAX_ROWS {
            return Err(Error::Malformed("the export has too many tags and authors".into()));
        }
        let row = Row(row);
        let order = row.0["sort_order"].as_i64().unwrap_or(0);
        match table {
            "tags" if !row.text("name").starts_with('#') => {
                let slug = Some(row.text("slug").to_owned()).filter(|slug| !slug.is_empty());
                self.tags.insert(row.id("id"), Place { slug, ..Place::named(row.text("name")) });
            }
            "users" => {
                let author = Author {
                    email: row.text("email").to_owned(),
                    username: row.text("slug").to_owned(),
                    name: row.text("name").to_owned(),
                };
                self.users.insert(row.id("id"), author);
            }
            "posts_tags" => {
                self.tags_of.entry(row.id("post_id")).or_default().push((order, row.id("tag_id")));
            }
            "posts_authors" => {
                let authors = self.authors_of.entry(row.id("post_id")).or_default();
                authors.push((order, row.id("author_id")));
            }
            "posts_meta" => {
                let texts = (row.text("meta_title").into(), row.text("meta_description").into());
                self.meta_of.insert(row.id("post_id"), texts);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Around {
    fn sort(&mut self) {
        self.tags_of.values_mut().chain(self.authors_of.values_mut()).for_each(|all| all.sort());
    }
}

struct Posts<'a, 'i> {
    intake: &'a mut Intake<'i>,
    around: &'a Around,
    name: &'a str,
    site: String,
    number: u64,
    size_bytes: u64,
}

impl Sink for Posts<'_, '_> {
    fn wants(&self, table: &str) -> bool {
        table == "posts"
    }

    fn row(&mut self, _: &str, row: &Json, at: u64) -> Result<()> {
        self.number += 1;
        self.intake.at(at, self.size_bytes);
        let item = item_of(self.around, &Row(row), (self.name, &self.site), self.number);
        self.intake.add(item)
    }
}

/// `of`: what the blog is called, and where it is if that is known.
fn item_of(around: &Around, row: &Row<'_>, of: (&str, &str), number: u64) -> Item {
    let (name, site) = of;
    let id = row.id("id");
    let source = match row.text("slug") {
        "" => format!("post {number}"),
        slug => format!("post {slug}"),
    };
    if id.is_empty() {
        return Item::bad(source, "has no id: it could not be told from others");
    }
    let mut notes = Vec::new();
    let html = match html_of(row, &mut notes) {
        Ok(html) => html,
        Err(message) => return Item::bad(source, message),
    };
    let tags = around.tags_of.get(&id).into_iter().flatten();
    let tags: Vec<Place> = tags.filter_map(|(_, tag)| around.tags.get(tag)).cloned().collect();
    let written = around.authors_of.get(&id).into_iter().flatten().map(|(_, id)| id.clone());
    let mut written: Vec<String> = written.collect();
    if written.is_empty() {
        written.push(row.id("author_id"));
    }
    let mut authors = written.iter().filter_map(|id| around.users.get(id)).cloned();
    let (author, others): (Option<Author>, Vec<Author>) = (authors.next(), authors.collect());
    let meta = around.meta_of.get(&id);
    let status = row.text("status");
    if status == "sent" {
        notes.push("was sent by e-mail alone and was never on the site: it is a draft".to_owned());
    }
    if row.is_set("codeinjection_head") || row.is_set("codeinjection_foot") {
        notes.push("had code at its head or foot, which was left out".to_owned());
    }
    let slug = Some(row.text("slug").to_owned()).filter(|slug| !slug.is_empty());
    let named: Vec<&str> = tags.iter().map(|tag| tag.name.as_str()).collect();
    let told = format!("{}{named:?}{author:?}{others:?}{meta:?}", row.0);
    Item::Post(Box::new(Entry {
        source,
        origin: format!("ghost:{name}#{id}"),
        hash: hash_of(&[told.as_bytes()]),
        title: fitting(&TITLE, row.text("title")),
        body: located(&html, site),
        changes: changes_of(row, meta, site),
        aliases: slug.iter().map(|slug| format!("/{slug}/")).collect(),
        slug,
        may_rename: true,
        tags,
        author,
        others,
        is_draft: !matches!(status, "published" | "scheduled"),
        published_ms: row.time("published_at"),
        made_ms: row.time("created_at"),
        changed_ms: row.time("updated_at"),
        notes,
        ..Entry::default()
    }))
}

/// As Ghost rendered it, or else from what its editors keep.
fn html_of(row: &Row<'_>, notes: &mut Vec<String>) -> Result<String, String> {
    if row.is_set("html") {
        return Ok(row.text("html").to_owned());
    }
    let read = if row.is_set("lexical") {
        lexical::page(row.text("lexical"))
    } else if row.is_set("mobiledoc") {
        mobiledoc::page(row.text("mobiledoc"))
    } else {
        return Ok(String::new());
    };
    let page = read.map_err(|message| format!("its body cannot be read: {message}"))?;
    notes.extend(page.note());
    Ok(page.html)
}

/// What stands for the address of the site is resolved: files are there, pages lead to here by their old addresses.
fn located(text: &str, site: &str) -> String {
    text.replace(&format!("{SITE}/content/"), &format!("{site}/content/")).replace(SITE, "")
}

fn changes_of(row: &Row<'_>, meta: Option<&(String, String)>, site: &str) -> Changes {
    let mut changes = Changes::new().set(&FORMAT, "html").set(&FEATURED, row.flag("featured"));
    let texts: [(&Field, &str); 4] = [
        (&EXCERPT, row.text("custom_excerpt")),
        (&META_TITLE, meta.map_or(row.text("meta_title"), |meta| meta.0.as_str())),
        (&META_DESCRIPTION, meta.map_or(row.text("meta_description"), |meta| meta.1.as_str())),
        (&CANONICAL_URL, row.text("canonical_url")),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        changes.put(field, fitting(field, text));
    }
    let cover = located(row.text("feature_image"), site);
    if is_address(&cover) {
        changes.put(&COVER, fitting(&COVER, &cover));
    }
    let seen_by = match row.text("visibility") {
        "" | "public" => "public",
        "members" => "members",
        // What others pay for is shown to nobody who has not.
        _ => "private",
    };
    changes.put(&VISIBILITY, Value::from(seen_by));
    changes
}

#[cfg(test)]
mod tests {
    use super::super::date;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_becomes_a_post_with_what_stands_around_it() {
        let mut around = Around::default();
        let rows = [
            ("tags", json!({ "id": "t1", "name": "News", "slug": "news" })),
            ("tags", json!({ "id": "t2", "name": "#hidden", "slug": "hash-hidden" })),
            ("users", json!({ "id": 1, "name": "Ada", "slug": "ada", "email": "ada@x.org" })),
            ("posts_tags", json!({ "post_id": "p", "tag_id": "t2", "sort_order": 0 })),
            ("posts_tags", json!({ "post_id": "p", "tag_id": "t1", "sort_order": 1 })),
            ("posts_authors", json!({ "post_id": "p", "author_id": 1 })),
        ];
        for (table, row) in &rows {
            around.row(table, row, 0).unwrap();
        }
        let row = json!({
            "id": "p", "title": "One", "slug": "one", "status": "published", "featured": 1,
            "html": "<img src=\"__GHOST_URL__/content/a.png\"><a href=\"__GHOST_URL__/two/\">", "published_at": "2024-01-31T12:00:00.000Z",
            "feature_image": "__GHOST_URL__/b.png",
        });
        let read = |row: &Json| match item_of(&around, &Row(row), ("", "https://old.org"), 1) {
            Item::Post(entry) => entry,
            other => panic!("{other:?}"),
        };
        let entry = read(&row);
        assert_eq!(
            (entry.title.as_str(), entry.body.as_str()),
            ("One", "<img src=\"https://old.org/content/a.png\"><a href=\"/two/\">")
        );
        assert_eq!(entry.tags.len(), 1);
        assert_eq!(entry.author.as_ref().map(|author| author.name.as_str()), Some("Ada"));
        assert_eq!(entry.published_ms, date::parse("2024-01-31T12:00:00Z"));
        assert_eq!(entry.changes.get(&COVER).and_then(Value::as_text), Some("/b.png"));
        assert_eq!(entry.aliases, ["/one/"]);
        let odd = json!({ "id": "q", "lexical": "{}" });
        assert!(matches!(item_of(&around, &Row(&odd), ("", ""), 2), Item::Bad { .. }));
        let lexical = r#"{"root":{"children":[{"type":"text","text":"a"},{"type":"signup"}]}}"#;
        let sent = json!({ "id": "r", "status": "sent", "lexical": lexical });
        let entry = read(&sent);
        assert_eq!((entry.body.trim_end(), entry.is_draft, entry.notes.len()), ("a", true, 2));
    }
}
