//! Records as JSON, written straight into the answer: what their kind shows, to this caller, in this request.
//! A secret field is never written, and a private one only to its owner and to those who administer the kind.

use crate::call::Call;
use crate::list::ListQuery;
use crate::moment::Moment;
use crate::params::Params;
use crate::problem::Problem;
use crate::reply::Turn;
use atoll_node::content::category::{self, CATEGORY};
use atoll_node::{Actor, Permission};
use atoll_storage::query::Page;
use atoll_storage::read::Read;
use atoll_storage::{Field, Id, Kind, Merge, Record, Shown, Type, Value};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::collections::HashMap;

/// The most records that one answer embeds.
const MAX_EMBEDDED: usize = 1_000;
const CREATED: u128 = 1 << 126;
const UPDATED: u128 = 1 << 127;

/// What of its records a request wants to see.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Bits by place of a field in its kind; all if none are named.
    wanted: u128,
    expand: Vec<Expansion>,
    /// What the area's handler is to add; all that `added` names if the request names no fields.
    added: Option<Vec<&'static str>>,
    added_by_expand: Vec<&'static str>,
    pub(crate) bodies: bool,
}

/// What the handlers of an area add to its records: by themselves or if `fields` names it, and if `expand` does.
fn added(kind: &Kind) -> (&'static [&'static str], &'static [&'static str]) {
    match kind.name {
        "post" => (&["reading_minutes"], &["counts"]),
        "category" | "tag" => (&["post_count"], &[]),
        _ => (&[], &[]),
    }
}

/// The names of what is added to records of this kind by themselves.
pub(crate) fn added_names(kind: &Kind) -> &'static [&'static str] {
    added(kind).0
}

/// What a handler adds to one record; it takes the place of a field of the same name.
pub(crate) type More = serde_json::Map<String, serde_json::Value>;

#[derive(Clone, Copy, Debug)]
struct Expansion {
    field: &'static Field,
    /// `author` of `author_id`, `tags` of `tag_ids`.
    name: &'static str,
    /// What the name in the answer begins with.
    stem: &'static str,
    plural: bool,
}

impl View {
    const EMBEDDED: Self = Self {
        wanted: u128::MAX,
        expand: Vec::new(),
        added: None,
        added_by_expand: Vec::new(),
        bodies: false,
    };

    pub(crate) fn read(
        kind: &'static Kind,
        params: &Params,
        bodies: bool,
    ) -> Result<Self, Problem> {
        let mut view = Self { bodies, ..Self::EMBEDDED };
        let (by_itself, by_expand) = added(kind);
        let among =
            |names: &[&'static str], name: &str| names.iter().find(|n| **n == name).copied();
        if let Some(text) = params.get("fields") {
            view.wanted = 0;
            let mut named = Vec::new();
            for name in text.split(',').map(str::trim) {
                match among(by_itself, name) {
                    Some(name) => named.push(name),
                    None => view.wanted |= bit_of(kind, name)?,
                }
            }
            view.added = Some(named);
            let is_body = |(i, field): (usize, &Field)| {
                field.merge == Merge::Body && view.wanted >> i & 1 == 1
            };
            view.bodies = kind.fields.iter().enumerate().any(is_body);
        }
        if let Some(text) = params.get("expand") {
            for name in text.split(',').map(str::trim) {
                match among(by_expand, name) {
                    Some(name) => view.added_by_expand.push(name),
                    None => view.expand.push(expansion_of(kind, name)?),
                }
            }
        }
        Ok(view)
    }

    fn wants(&self, place: usize) -> bool {
        place < 126 && self.wanted >> place & 1 == 1
    }

    /// Whether the request wants this field of the kind.
    pub(crate) fn wants_field(&self, kind: &Kind, name: &str) -> bool {
        kind.fields.iter().position(|f| f.name == name).is_some_and(|place| self.wants(place))
    }

    /// Whether the handler is to add this.
    pub(crate) fn wants_added(&self, name: &str) -> bool {
        self.added.as_ref().is_none_or(|named| named.contains(&name))
    }

    /// Whether `expand` asks the handler to add this.
    pub(crate) fn expands(&self, name: &str) -> bool {
        self.added_by_expand.contains(&name)
    }
}

fn bit_of(kind: &'static Kind, name: &str) -> Result<u128, Problem> {
    match name {
        "id" => return Ok(0),
        "created_at" => return Ok(CREATED),
        "updated_at" => return Ok(UPDATED),
        _ => {}
    }
    let place =
        kind.fields.iter().position(|field| field.name == name && field.shown != Shown::Never);
    let unknown = || {
        Problem::parameter(
            "fields",
            "unknown_field",
            format!("{} has no field {name:?}", kind.name),
        )
    };
    place.filter(|place| *place < 126).map(|place| 1 << place).ok_or_else(unknown)
}

fn expansion_of(kind: &'static Kind, name: &str) -> Result<Expansion, Problem> {
    let known = || expansion_names(kind);
    expansions(kind).find(|expansion| expansion.name == name).ok_or_else(|| {
        let known = known().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "nothing".to_owned() } else { known };
        Problem::parameter("expand", "unknown_field", format!("{name:?} is none of: {known}"))
    })
}

/// Of two references with one stem, a single one has the name and the set is named as its field.
fn expansions(kind: &'static Kind) -> impl Iterator<Item = Expansion> {
    let references =
        move || kind.fields.iter().filter(|f| f.refers.is_some() && f.shown == Shown::Always);
    let stem_of = |field: &'static Field| {
        let ending = if field.merge == Merge::Set { "_ids" } else { "_id" };
        field.name.strip_suffix(ending).unwrap_or(field.name)
    };
    references().map(move |field| {
        let (stem, plural) = (stem_of(field), field.merge == Merge::Set);
        let is_taken = plural && references().any(|f| f.code != field.code && stem_of(f) == stem);
        Expansion { field, name: if is_taken { field.name } else { stem }, stem, plural }
    })
}

/// The names that `expand` takes for this kind.
pub(crate) fn expansion_names(kind: &'static Kind) -> impl Iterator<Item = &'static str> {
    expansions(kind).map(|expansion| expansion.name).chain(added(kind).1.iter().copied())
}

/// Whether the actor sees the private fields of all records of this kind.
pub(crate) fn administers(actor: &Actor, kind: &Kind) -> bool {
    actor.can(match kind.scope {
        "identity" => Permission::UsersAdminister,
        "content" => Permission::PostsAdminister,
        "community" => Permission::CommentsModerate,
        "insight" => Permission::AnalyticsRead,
        _ => Permission::TenantsAdminister,
    })
}

fn owns(actor: &Actor, record: &Record) -> bool {
    let Some(user) = actor.user else { return false };
    let is_owner = |field: &Field| match field.name {
        "author_id" | "user_id" | "owner_id" => record.id(field) == Some(user),
        "author_ids" => record.has(field, &Value::Id(user)),
        _ => false,
    };
    (record.key == user && record.kind.name == "user") || record.kind.fields.iter().any(is_owner)
}

/// The records that an answer embeds, by id.
type Embedded = HashMap<Id, Record>;

struct Showing<'a> {
    actor: &'a Actor,
    view: &'a View,
    embedded: &'a Embedded,
}

struct One<'a> {
    record: &'a Record,
    showing: &'a Showing<'a>,
    private: bool,
    more: Option<&'a More>,
}

/// `{"data": {...}}`. Reads the bodies if the record came without them and they are wanted.
pub(crate) fn one(
    call: &Call,
    record: &Record,
    view: &View,
    more: Option<&More>,
) -> Result<Vec<u8>, Problem> {
    let full = if view.bodies && !record.has_bodies() {
        call.node.store.read(|reader| reader.get_full(record.kind, record.key))?
    } else {
        None
    };
    // Only if nobody wrote in between: version and text must be of one moment.
    let full = full.filter(|full| full.version() == record.version());
    let record = full.as_ref().unwrap_or(record);
    let embedded = embed(call, std::slice::from_ref(record), view)?;
    let showing = Showing { actor: &call.actor, view, embedded: &embedded };
    let mut json = Vec::with_capacity(4096);
    json.extend_from_slice(b"{\"data\":");
    write(&mut json, &One { more, ..showing.one(record) })?;
    json.push(b'}');
    Ok(json)
}

/// `{"data": [...], "page": {...}}`. `more`: of each record in its order, or nothing.
pub(crate) fn many(
    call: &Call,
    page: &Page,
    query: &ListQuery,
    more: &[More],
) -> Result<Vec<u8>, Problem> {
    let embedded = embed(call, &page.records, &query.view)?;
    let showing = Showing { actor: &call.actor, view: &query.view, embedded: &embedded };
    let mut json = Vec::with_capacity(1024 + 512 * page.records.len());
    json.extend_from_slice(b"{\"data\":[");
    for (i, record) in page.records.iter().enumerate() {
        if i > 0 {
            json.push(b',');
        }
        write(&mut json, &One { more: more.get(i), ..showing.one(record) })?;
    }
    json.extend_from_slice(b"],\"page\":");
    let next = query.next(page);
    write(&mut json, &Turn { next: next.as_deref(), total: page.total })?;
    json.push(b'}');
    Ok(json)
}

/// A record as it is shown, for answers that hold more than records.
pub fn value(call: &Call, record: &Record) -> Result<serde_json::Value, Problem> {
    let view = View { bodies: record.has_bodies(), ..View::EMBEDDED };
    let showing = Showing { actor: &call.actor, view: &view, embedded: &Embedded::new() };
    serde_json::to_value(showing.one(record)).map_err(|e| Problem::internal(e.to_string()))
}

fn write(json: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Problem> {
    serde_json::to_writer(json, value).map_err(|e| Problem::internal(e.to_string()))
}

fn embed(call: &Call, records: &[Record], view: &View) -> Result<Embedded, Problem> {
    let mut embedded = Embedded::new();
    if view.expand.is_empty() {
        return Ok(embedded);
    }
    call.node.store.read(|reader| {
        for expansion in &view.expand {
            let Some(kind) = kind_named(expansion.field.refers) else { continue };
            for id in records.iter().flat_map(|record| referred(record, expansion)) {
                if embedded.len() < MAX_EMBEDDED
                    && !embedded.contains_key(&id)
                    && let Some(found) = reader.get(kind, id)?
                    && may_see(&call.actor, &found)
                {
                    embedded.insert(id, found);
                }
            }
        }
        Ok::<_, atoll_storage::Error>(())
    })?;
    Ok(embedded)
}

fn kind_named(name: Option<&str>) -> Option<&'static Kind> {
    atoll_node::kinds::ALL.iter().find(|kind| Some(kind.name) == name).copied()
}

fn referred<'a>(record: &'a Record, expansion: &'a Expansion) -> Box<dyn Iterator<Item = Id> + 'a> {
    if expansion.plural {
        Box::new(record.set(expansion.field).filter_map(Value::as_id))
    } else {
        Box::new(reference(record, expansion.field).into_iter())
    }
}

/// A reference that makes a tree is shown as it stands after cycles were resolved.
fn reference(record: &Record, field: &Field) -> Option<Id> {
    if record.kind.tree == Some(field.code) { record.tree_parent() } else { record.id(field) }
}

/// What is not public (a draft, a comment or a category that waits) is embedded only for those who see it anyway.
fn may_see(actor: &Actor, record: &Record) -> bool {
    let is_public = || {
        let text = record.kind.search.map(|search| search(record));
        text.is_none_or(|text| text.is_some_and(|text| text.public))
    };
    if record.kind.code == CATEGORY.code {
        return category::may_see(actor, record);
    }
    record.tenant == actor.tenant
        && (is_public() || owns(actor, record) || administers(actor, record.kind))
}

impl<'a> Showing<'a> {
    fn one(&'a self, record: &'a Record) -> One<'a> {
        let has_private = record.kind.fields.iter().any(|field| field.shown == Shown::Privately);
        let private =
            has_private && (owns(self.actor, record) || administers(self.actor, record.kind));
        One { record, showing: self, private, more: None }
    }
}

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, showing, private, more } = self;
        let view = showing.view;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &record.key)?;
        for (place, field) in record.kind.fields.iter().enumerate() {
            let is_seen = match field.shown {
                Shown::Always => true,
                Shown::Privately => *private,
                Shown::Never => false,
            };
            let is_replaced = more.is_some_and(|more| more.contains_key(field.name));
            if is_seen && view.wants(place) && !is_replaced {
                field_entry(&mut map, record, field, view)?;
            }
        }
        if view.wanted & CREATED != 0 {
            map.serialize_entry("created_at", &Moment::of(record.created_ms()))?;
        }
        if view.wanted & UPDATED != 0 {
            map.serialize_entry("updated_at", &Moment::of(record.updated_ms()))?;
        }
        for expansion in &view.expand {
            self.expansion_entry(&mut map, expansion)?;
        }
        if let Some(more) = more {
            for (name, value) in *more {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

impl One<'_> {
    fn expansion_entry<M: SerializeMap>(
        &self,
        map: &mut M,
        expansion: &Expansion,
    ) -> Result<(), M::Error> {
        let embedded = self.showing.embedded;
        let showing = Showing { view: &View::EMBEDDED, ..*self.showing };
        let show = |record| One { record, showing: &showing, private: false, more: None };
        let found: Vec<One> =
            referred(self.record, expansion).filter_map(|id| embedded.get(&id)).map(show).collect();
        if expansion.plural {
            let name = format!("{}s", expansion.stem);
            map.serialize_entry(&name, &found)
        } else {
            map.serialize_entry(expansion.stem, &found.first())
        }
    }
}

fn field_entry<M: SerializeMap>(
    map: &mut M,
    record: &Record,
    field: &Field,
    view: &View,
) -> Result<(), M::Error> {
    match field.merge {
        Merge::Register if field.ty == Type::Id => {
            map.serialize_entry(field.name, &reference(record, field))
        }
        Merge::Register if field.ty == Type::Text => {
            map.serialize_entry(field.name, &record.opt_text(field))
        }
        Merge::Register if field.ty == Type::Bool => {
            map.serialize_entry(field.name, &record.flag(field))
        }
        Merge::Register => map.serialize_entry(field.name, &Scalar(record.value(field), field.ty)),
        Merge::Set => map.serialize_entry(field.name, &Set(record, field)),
        Merge::Body if view.bodies => map.serialize_entry(field.name, record.body(field)),
        Merge::Body => Ok(()),
        Merge::Counter => map.serialize_entry(field.name, &record.total(field)),
        Merge::Sketch => map.serialize_entry(field.name, &record.estimate(field)),
    }
}

struct Scalar<'a>(&'a Value, Type);

impl Serialize for Scalar<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0, self.1) {
            (Value::Int(ms), Type::Time) => serializer.collect_str(&Moment(*ms)),
            (value, _) => value.serialize(serializer),
        }
    }
}

impl Serialize for Set<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(None)?;
        for element in self.0.set(self.1) {
            array.serialize_element(&Scalar(element, self.1.ty))?;
        }
        array.end()
    }
}

struct Set<'a>(&'a Record, &'a Field);
