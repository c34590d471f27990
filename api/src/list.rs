//! The query of a list: `limit`, `cursor`, `sort`, `fields`, `expand`, and `field=value` filters over the
//! columns that the caller may see. An unknown parameter is refused by its name. Nothing here reads the store.

use crate::moment::Moment;
use crate::params::Params;
use crate::problem::Problem;
use crate::show::{self, View};
use atoll_node::Actor;
use atoll_storage::query::{Cursor, Page, Query};
use atoll_storage::{Field, Id, Kind, Merge, Shown, Type, Value};

pub const DEFAULT_LIMIT: usize = 20;
pub const MAX_LIMIT: usize = 100;

/// What every list takes.
pub(crate) const LIST_PARAMS: &[&str] = &["limit", "cursor", "sort", "fields", "expand"];
/// What every single record takes.
pub(crate) const RECORD_PARAMS: &[&str] = &["fields", "expand"];

#[derive(Clone, Debug)]
enum Test {
    Is(&'static str, Value),
    AtLeast(&'static str, Value),
    AtMost(&'static str, Value),
    Null(&'static str),
    Holds(&'static Field, Value),
}

pub struct ListQuery {
    pub kind: &'static Kind,
    pub limit: usize,
    pub after: Option<Cursor>,
    /// A column, and whether it descends.
    pub sort: Option<(&'static str, bool)>,
    pub(crate) view: View,
    tests: Vec<Test>,
    /// `sort` as it was asked for.
    order: String,
}

impl ListQuery {
    pub(crate) fn read(
        kind: &'static Kind,
        params: &Params,
        extra: &[&[&str]],
        actor: &Actor,
    ) -> Result<Self, Problem> {
        let order = params.get("sort").unwrap_or_default();
        let mut query = Self {
            kind,
            limit: limit_of(params.get("limit"))?,
            after: params.get("cursor").map(|text| cursor_of(text, order)).transpose()?,
            order: order.to_owned(),
            sort: None,
            view: View::read(kind, params, false)?,
            tests: Vec::new(),
        };
        let private = show::administers(actor, kind);
        query.sort = params.get("sort").map(|text| sort_of(kind, text, private)).transpose()?;
        for (name, text) in params.iter() {
            let is_taken =
                LIST_PARAMS.contains(&name) || extra.iter().any(|names| names.contains(&name));
            if !is_taken {
                let test = test_of(kind, name, text, private)?;
                query.tests.push(test.ok_or_else(|| {
                    let extra = extra.iter().flat_map(|names| names.iter());
                    let known = LIST_PARAMS.iter().chain(extra).copied();
                    unknown(name, known.chain(column_names(kind, private)))
                })?);
            }
        }
        Ok(query)
    }

    /// The order if the request names none.
    #[must_use]
    pub fn sorted_by(mut self, column: &'static str, descending: bool) -> Self {
        self.sort.get_or_insert((column, descending));
        self
    }

    /// Whether the request filters by this column.
    pub fn filters_by(&self, column: &str) -> bool {
        self.tests.iter().any(|test| match test {
            Test::Is(name, _)
            | Test::AtLeast(name, _)
            | Test::AtMost(name, _)
            | Test::Null(name) => *name == column,
            Test::Holds(field, _) => field.name == column,
        })
    }

    /// The value that the request filters this column by.
    pub fn filter(&self, column: &str) -> Option<&Value> {
        self.tests.iter().find_map(|test| match test {
            Test::Is(name, value) if *name == column => Some(value),
            Test::Holds(field, value) if field.name == column => Some(value),
            _ => None,
        })
    }

    /// The cursor of the page after this one.
    pub(crate) fn next(&self, page: &Page) -> Option<String> {
        let cursor = page.next.as_ref()?.to_text();
        Some(format!("{cursor}.{}", mark(&self.order)))
    }

    /// For the store; the handler or the domain may narrow it further.
    pub fn to_query(&self, tenant: Id) -> Query {
        let mut query = Query::of(self.kind, tenant).limit(self.limit).after(self.after.clone());
        for test in &self.tests {
            query = match test {
                Test::Is(column, value) => query.filter(column, value.clone()),
                Test::AtLeast(column, value) => query.filter_ge(column, value.clone()),
                Test::AtMost(column, value) => query.filter_le(column, value.clone()),
                Test::Null(column) => query.is_null(column),
                Test::Holds(set, value) => query.contains(set, value.clone()),
            };
        }
        if let Some((column, descending)) = self.sort {
            query = query.sort(column, descending);
        }
        if self.view.bodies { query.with_bodies() } else { query }
    }
}

pub(crate) fn limit_of(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        Problem::parameter("limit", "out_of_range", "must be a number from 1 to 100")
    })
}

fn cursor_of(text: &str, order: &str) -> Result<Cursor, Problem> {
    let wrong = || {
        let message = "give the `next` of a page as it stands, under the same `sort`";
        Problem::parameter("cursor", "wrong_cursor", message)
    };
    let (cursor, made_under) = text.rsplit_once('.').ok_or_else(wrong)?;
    if made_under != mark(order) {
        return Err(wrong());
    }
    Cursor::parse(cursor).ok_or_else(wrong)
}

/// A cursor leads on in the order that it was made in, and would lead astray in any other.
fn mark(order: &str) -> String {
    blake3::hash(order.as_bytes()).to_hex().chars().take(4).collect()
}

fn sort_of(
    kind: &'static Kind,
    text: &str,
    private: bool,
) -> Result<(&'static str, bool), Problem> {
    let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    let column = column_of(kind, name, private).ok_or_else(|| {
        let known = column_names(kind, private).join(", ");
        Problem::parameter("sort", "unknown_field", format!("{name:?} is none of {known}"))
    })?;
    Ok((column.0, descending))
}

/// The columns that a caller may filter and sort by.
pub(crate) fn column_names(kind: &'static Kind, private: bool) -> Vec<&'static str> {
    let own = ["id", "created_at", "updated_at"].into_iter();
    let scalar = |name: &&str| kind.field(name).is_none_or(|field| field.merge != Merge::Set);
    let rest = kind.columns().map(|(name, _)| name).filter(scalar);
    own.chain(rest.filter(|name| column_of(kind, name, private).is_some())).collect()
}

fn column_of(kind: &'static Kind, name: &str, private: bool) -> Option<(&'static str, Type)> {
    match name {
        "id" => return Some(("key", Type::Id)),
        "created_at" => return Some(("created_at", Type::Time)),
        "updated_at" => return Some(("updated_at", Type::Time)),
        _ => {}
    }
    if let Some(field) = kind.field(name)
        && (field.merge == Merge::Set || !is_seen(field, private))
    {
        return None;
    }
    kind.columns().find(|(column, _)| *column == name)
}

fn is_seen(field: &Field, private: bool) -> bool {
    match field.shown {
        Shown::Always => true,
        Shown::Privately => private,
        Shown::Never => false,
    }
}

/// None if there is no such column.
fn test_of(
    kind: &'static Kind,
    name: &str,
    text: &str,
    private: bool,
) -> Result<Option<Test>, Problem> {
    if let Some(set) = kind.field(name).filter(|field| field.merge == Merge::Set && field.column)
        && is_seen(set, private)
    {
        return Ok(Some(Test::Holds(set, value_of(name, text, set.ty)?)));
    }
    if let Some((column, ty)) = column_of(kind, name, private) {
        if text == "null" {
            return Ok(Some(Test::Null(column)));
        }
        let value = value_of(name, text, ty)?;
        return match kind.field(name) {
            Some(field) if !field.choices.is_empty() && !field.choices.contains(&text) => {
                let known = field.choices.join(", ");
                Err(Problem::parameter(name, "unknown_choice", format!("must be one of {known}")))
            }
            _ => Ok(Some(Test::Is(column, value))),
        };
    }
    for (ending, test) in [("_from", Test::AtLeast as fn(_, _) -> _), ("_to", Test::AtMost)] {
        let column = name.strip_suffix(ending).and_then(|name| column_of(kind, name, private));
        if let Some((column, ty @ (Type::Int | Type::Time))) = column {
            return Ok(Some(test(column, value_of(name, text, ty)?)));
        }
    }
    Ok(None)
}

/// Names those that are known, as far as they are not a secret.
pub(crate) fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    known.dedup();
    let message = if known.is_empty() {
        "is not known here: this path takes no parameters".to_owned()
    } else {
        format!("is not known here; known are {}", known.join(", "))
    };
    Problem::parameter(name, "unknown_parameter", message)
}

fn value_of(name: &str, text: &str, ty: Type) -> Result<Value, Problem> {
    let (value, wanted) = match ty {
        Type::Text => (Some(Value::from(text)), "text"),
        Type::Int => (text.parse().ok().map(Value::Int), "a whole number"),
        Type::Bool => (text.parse().ok().map(Value::Bool), "true or false"),
        Type::Id => (Id::parse(text).map(Value::Id), "an id"),
        Type::Time => {
            (Moment::parse(text).map(|moment| Value::Int(moment.0)), "a time as in RFC 3339")
        }
        Type::Bytes => (None, "nothing that can be filtered by"),
    };
    value.ok_or_else(|| Problem::parameter(name, "wrong_type", format!("must be {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLE: Field = Field::text(1, "title").column();
    const STATUS: Field = Field::text(2, "status").column().choices(&["draft", "published"]);
    const SHOWN_AT: Field = Field::time(3, "shown_at").column();
    const TAGS: Field = Field::set(4, "tag_ids", Type::Id).column();
    const EMAIL: Field = Field::text(5, "email").private().column();
    const HASH: Field = Field::text(6, "hash").secret().column();
    const TEXT: Field = Field::body(7, "text");
    const OWNER: Field = Field::refers(8, "owner_id", "user").column();
    static NOTE: Kind = Kind {
        fields: &[TITLE, STATUS, SHOWN_AT, TAGS, EMAIL, HASH, TEXT, OWNER],
        ..Kind::new(901, "note", "notes", "content")
    };

    fn read(query: &str) -> Result<ListQuery, Problem> {
        let actor = Actor::stranger(Id::NIL);
        ListQuery::read(&NOTE, &Params::read(Some(query))?, &[&["q"]], &actor)
    }

    fn refused(query: &str) -> String {
        let problem = read(query).err().unwrap_or_else(|| Problem::internal("taken"));
        assert_eq!(problem.status(), 400, "{query}");
        problem.errors().first().map(|e| format!("{} {}", e.field, e.code)).unwrap_or_default()
    }

    #[test]
    fn a_list_takes_limit_sort_filters_and_extras() {
        let query = read(
            "limit=5&sort=-shown_at&status=draft&q=x&shown_at_from=2025-01-01&fields=title,text",
        );
        let query = query.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((query.limit, query.sort), (5, Some(("shown_at", true))));
        assert_eq!(query.filter("status"), Some(&Value::from("draft")));
        assert!(query.filters_by("shown_at") && !query.filters_by("title") && query.view.bodies);
        assert_eq!(read("").map(|q| q.limit).unwrap_or_default(), DEFAULT_LIMIT);
    }

    #[test]
    fn an_unknown_parameter_is_named() {
        assert_eq!(refused("colour=red"), "colour unknown_parameter");
        assert_eq!(refused("text=abc"), "text unknown_parameter");
        assert_eq!(refused("title_from=a"), "title_from unknown_parameter");
    }

    #[test]
    fn a_value_of_a_wrong_type_is_named() {
        assert_eq!(refused("limit=0"), "limit out_of_range");
        assert_eq!(refused("limit=101"), "limit out_of_range");
        assert_eq!(refused("cursor=%21"), "cursor wrong_cursor");
        assert_eq!(refused("status=red"), "status unknown_choice");
        assert_eq!(refused("shown_at=soon"), "shown_at wrong_type");
        assert_eq!(refused("tag_ids=7"), "tag_ids wrong_type");
        assert_eq!(refused("sort=tag_ids"), "sort unknown_field");
        assert_eq!(refused("fields=colour"), "fields unknown_field");
        assert_eq!(refused("expand=title"), "expand unknown_field");
    }

    #[test]
    fn private_and_secret_columns_are_unknown_to_a_stranger() {
        assert_eq!(refused("email=a"), "email unknown_parameter");
        assert_eq!(refused("hash=a"), "hash unknown_parameter");
        assert_eq!(refused("sort=hash"), "sort unknown_field");
        assert_eq!(refused("fields=hash"), "fields unknown_field");
    }
}
