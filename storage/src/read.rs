//! Reading: records, lists, names, bodies. Over a pooled connection, or within a write.

use crate::body::{self, Content};
use crate::conflict::{self, Conflict};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::heads::{StreamHead, read_heads};
use crate::id::{Dot, Id};
use crate::kind::{Field, Kind, Merge};
use crate::listing::{Found, MOST_KEYS, Since};
use crate::op::{BodyEdit, Payload};
use crate::query::{Cursor, Page, Query};
use crate::record::Record;
use crate::schema::{Plan, table_of};
use crate::state::State;
use crate::value::Value;
use crate::vector::Vector;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use std::collections::HashMap;

/// The most values that one query counts by.
const MOST_GROUPS: usize = 1_000;

/// The kinds that this node knows, with their statements.
pub struct Plans {
    pub kinds: &'static [&'static Kind],
    plans: Vec<Plan>,
    by_code: HashMap<u16, usize>,
}

impl Plans {
    pub fn new(kinds: &'static [&'static Kind]) -> Self {
        let plans = kinds.iter().map(|kind| Plan::new(kind)).collect();
        let by_code = kinds.iter().enumerate().map(|(i, kind)| (kind.code, i)).collect();
        Self { kinds, plans, by_code }
    }

    pub fn plan(&self, code: u16) -> Result<&Plan> {
        self.of(code).ok_or(Error::Missing("kind"))
    }

    pub fn kind(&self, code: u16) -> Result<&'static Kind> {
        Ok(self.plan(code)?.kind)
    }

    pub fn of(&self, code: u16) -> Option<&Plan> {
        self.by_code.get(&code).map(|i| &self.plans[*i])
    }
}

/// One read transaction.
pub struct Reader<'c> {
    pub(crate) conn: &'c Connection,
    pub(crate) plans: &'c Plans,
    /// None where nobody keeps them.
    pub(crate) listings: Option<Since<'c>>,
}

impl Read for Reader<'_> {
    fn conn(&self) -> &Connection {
        self.conn
    }
    fn plans(&self) -> &Plans {
        self.plans
    }
    fn listings(&self) -> Option<Since<'_>> {
        self.listings
    }
}

/// What can be read, alike from a [`Reader`] and within a write.
pub trait Read {
    #[doc(hidden)]
    fn conn(&self) -> &Connection;
    #[doc(hidden)]
    fn plans(&self) -> &Plans;
    /// What lists found lately; nothing within a write, which sees what others do not.
    #[doc(hidden)]
    fn listings(&self) -> Option<Since<'_>> {
        None
    }

    /// The record without the text of its bodies, if it is alive.
    fn get(&self, kind: &'static Kind, key: Id) -> Result<Option<Record>> {
        let Some(plan) = self.plans().of(kind.code) else { return Ok(None) };
        load(self.conn(), plan, key)
    }

    /// The record with the text of its bodies.
    fn get_full(&self, kind: &'static Kind, key: Id) -> Result<Option<Record>> {
        let Some(mut record) = self.get(kind, key)? else { return Ok(None) };
        load_texts(self.conn(), &mut record)?;
        Ok(Some(record))
    }

    fn list(&self, query: &Query) -> Result<Page> {
        let Some(plan) = self.plans().of(query.kind.code) else {
            return Ok(Page { records: vec![], next: None, total: 0 });
        };
        let Some(listings) = self.listings().filter(|_| query.is_of_one_kind()) else {
            return list_anew(self, plan, query, None);
        };
        let name = query.name()?;
        if let Some(page) = listings.page(name, query.kind.code) {
            return Ok(Page::clone(&page));
        }
        let page = if query.is_quick() {
            list_anew(self, plan, query, None)?
        } else {
            let all = query.all();
            let found = listings.find(all.name()?, query.kind.code, || look_up(self, &all))?;
            match page_of(self.conn(), plan, query, &found)? {
                Some(page) => page,
                None => list_anew(self, plan, query, Some(found.total))?,
            }
        };
        if !query.wants_bodies() {
            listings.keep_page(name, page.clone());
        }
        Ok(page)
    }

    /// How many records match: from a kept counter where one answers, else by counting.
    fn count(&self, query: &Query) -> Result<u64> {
        if let (Some(bucket), Some(tenant)) = (query.bucket(), query.tenant()) {
            let sql =
                "SELECT n FROM total WHERE kind = ?1 AND tenant = ?2 AND col = ?3 AND value = ?4";
            let mut statement = self.conn().prepare_cached(sql)?;
            let mut kept = |column: &str, value: &Value| -> Result<u64> {
                let args = params![query.kind.code, tenant.0, column, value];
                let n: Option<i64> = statement.query_row(args, |r| r.get(0)).optional()?;
                Ok(n.unwrap_or(0).max(0) as u64)
            };
            let n = kept(bucket.column, &bucket.value)?;
            if !bucket.is_rest {
                return Ok(n);
            }
            return Ok(kept("", &Value::Text(String::new()))?.saturating_sub(n));
        }
        let (sql, args) = query.count_sql(&table_of(query.kind))?;
        let n: i64 =
            self.conn().prepare_cached(&sql)?.query_row(params_from_iter(args), |r| r.get(0))?;
        Ok(n as u64)
    }

    /// How many records match for each of these values of a column or set, in one query; a value that none has is
    /// left out. At most as many values as one page has records.
    fn count_by(&self, query: &Query, by: &Field, values: &[Value]) -> Result<HashMap<Value, u64>> {
        if values.is_empty() || self.plans().of(query.kind.code).is_none() {
            return Ok(HashMap::new());
        }
        let values = &values[..values.len().min(MOST_GROUPS)];
        let (sql, args) = query.group_sql(&table_of(query.kind), by, values)?;
        let mut statement = self.conn().prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(args))?;
        let mut counts = HashMap::with_capacity(values.len());
        while let Some(row) = rows.next()? {
            counts.insert(value_of(row.get_ref(0)?, by.name), row.get::<_, i64>(1)? as u64);
        }
        Ok(counts)
    }

    /// The kept counts of a kind's records by these values of a counted column, in one query.
    fn totals(
        &self,
        kind: &'static Kind,
        tenant: Id,
        column: &str,
        values: &[Value],
    ) -> Result<HashMap<Value, u64>> {
        let values = &values[..values.len().min(MOST_GROUPS)];
        let marks: Vec<String> = (4..4 + values.len()).map(|i| format!("?{i}")).collect();
        let sql = format!(
            "SELECT value, n FROM total WHERE kind = ?1 AND tenant = ?2 AND col = ?3 AND value IN ({})",
            marks.join(",")
        );
        let head = [Value::Int(i64::from(kind.code)), Value::Id(tenant), Value::from(column)];
        let args = head.iter().chain(values);
        let mut statement = self.conn().prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(args))?;
        let mut totals = HashMap::with_capacity(values.len());
        while let Some(row) = rows.next()? {
            let n: i64 = row.get(1)?;
            totals.insert(value_of(row.get_ref(0)?, column), n.max(0) as u64);
        }
        Ok(totals)
    }

    /// Who answers to a name in a space of the tenant.
    fn claimed(&self, tenant: Id, space: &str, name: &str) -> Result<Option<Id>> {
        crate::claim::holder(self.conn(), tenant, space, name)
    }

    /// A body's text as it stood at these heads; as born if there are none.
    fn body_at(
        &self,
        kind: &'static Kind,
        key: Id,
        field: &Field,
        heads: &[[u8; 32]],
    ) -> Result<String> {
        let record = self.get(kind, key)?.ok_or(Error::Missing(kind.name))?;
        let Some(state) = record.state.body(field.code) else { return Ok(String::new()) };
        body::text_at(
            &load_content(self.conn(), record.stream, key, field.code, state.creation)?,
            heads,
        )
    }

    /// The conflict inbox, newest first, of one tenant or of all.
    fn conflicts(
        &self,
        tenant: Option<Id>,
        limit: usize,
        after: Option<Id>,
    ) -> Result<Vec<Conflict>> {
        conflict::list(self.conn(), self.plans(), tenant, limit, after)
    }

    fn conflict(&self, id: Id) -> Result<Option<Conflict>> {
        conflict::find(self.conn(), self.plans(), id)
    }

    fn conflict_count(&self, tenant: Option<Id>) -> Result<u64> {
        let sql = "SELECT count(*) FROM conflict WHERE ?1 IS NULL OR tenant = ?1";
        let n: i64 =
            self.conn().prepare_cached(sql)?.query_row([tenant.map(|t| t.0)], |r| r.get(0))?;
        Ok(n as u64)
    }

    fn streams(&self) -> Result<Vec<StreamHead>> {
        Ok(read_heads(self.conn(), None)?.into_iter().map(|(_, head)| head).collect())
    }

    /// What any record of a stream holds: the stream's vector, and what a snapshot that is not whole brought beyond it.
    fn held(&self, head: &StreamHead) -> Result<Vector> {
        crate::ahead::held_by_any(self.conn(), head)
    }

    /// What this node was told to carry; none if it never was, and so carries everything.
    fn carries(&self) -> Result<Option<crate::carries::Carries>> {
        crate::shed::told_carries(self.conn())
    }

    /// Streams that are carried no more, and of which something is left to be removed.
    fn leaving(&self) -> Result<Vec<crate::id::StreamId>> {
        crate::shed::leaving(self.conn())
    }

    /// The digest over all streams: equal on two nodes with the same ops and the same state.
    fn root(&self) -> Result<Digest> {
        let mut root = Digest::default();
        self.streams()?
            .iter()
            .filter(|head| !head.is_empty())
            .for_each(|head| root.add(head.leaf()));
        Ok(root)
    }

    fn quarantined_count(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM quarantine";
        let n: i64 = self.conn().prepare_cached(sql)?.query_row([], |r| r.get(0))?;
        Ok(n as u64)
    }

    fn quarantined(&self, limit: usize) -> Result<Vec<Quarantined>> {
        let sql = "SELECT op, at_ms, reason FROM quarantine ORDER BY at_ms DESC LIMIT ?1";
        let mut statement = self.conn().prepare_cached(sql)?;
        let rows = statement.query_map([limit.min(1_000) as i64], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        })?;
        let mut all = Vec::new();
        for row in rows {
            let (bytes, at_ms, reason) = row?;
            all.push(Quarantined {
                op: crate::codec::decode(&bytes)?,
                at_ms: at_ms as u64,
                reason,
            });
        }
        Ok(all)
    }
}

/// An op that could not be applied, or that was written after its node was removed: kept raw, counted as received, shown.
#[derive(Clone, Debug)]
pub struct Quarantined {
    pub op: crate::op::Op,
    pub at_ms: u64,
    pub reason: String,
}

pub(crate) fn value_of(value: ValueRef<'_>, column: &str) -> Value {
    match value {
        ValueRef::Null | ValueRef::Real(_) => Value::Null,
        ValueRef::Integer(int) => Value::Int(int),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => match Id::from_slice(bytes).filter(|_| column != "bytes") {
            Some(id) => Value::Id(id),
            None => Value::Bytes(bytes.to_vec()),
        },
    }
}

/// A record of a row that begins with the plan's columns, and how many they are.
pub(crate) fn record_of(plan: &Plan, row: &Row<'_>) -> Result<(Record, usize)> {
    let blob = |i: usize| -> Result<&[u8]> {
        row.get_ref(i)?.as_blob().map_err(|_| Error::Damaged(format!("{} row", plan.kind.name)))
    };
    let id = |i: usize| blob(i).map(|b| Id::from_slice(b).unwrap_or_default());
    let mut record = Record::new(plan.kind, id(0)?, id(1)?, State::from_bytes(blob(2)?)?);
    record.digest = Digest::from_slice(blob(3)?).unwrap_or_default();
    record.stream = row.get(4)?;
    let mut at = 5;
    for field in &plan.claims {
        if let ValueRef::Text(name) = row.get_ref(at)? {
            record.names.push((field.code, String::from_utf8_lossy(name).into_owned()));
        }
        at += 1;
    }
    if plan.kind.tree.is_some() {
        record.tree_parent = row.get_ref(at)?.as_blob().ok().and_then(Id::from_slice);
        at += 1;
    }
    Ok((record, at))
}

/// A page out of the database.
fn list_anew(
    reader: &(impl Read + ?Sized),
    plan: &Plan,
    query: &Query,
    total: Option<u64>,
) -> Result<Page> {
    let mut records: Vec<Record> = Vec::with_capacity(query.page_size());
    let (mut last, mut next) = (Value::Null, None);
    for part in query.parts() {
        if next.is_some() {
            break;
        }
        let (sql, args) = part.select(&plan.head, &table_of(query.kind))?;
        let mut statement = reader.conn().prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(args))?;
        while let Some(row) = rows.next()? {
            if records.len() == query.page_size() {
                next = records.last().map(|r| Cursor { value: last.clone(), key: r.key });
                break;
            }
            let (record, width) = record_of(plan, row)?;
            last = value_of(row.get_ref(width)?, query.sort_column());
            records.push(record);
        }
    }
    if query.wants_bodies() {
        records.iter_mut().try_for_each(|record| load_texts(reader.conn(), record))?;
    }
    let total = match total {
        Some(total) => total,
        None if query.wants_total() => reader.count(query)?,
        None => records.len() as u64,
    };
    Ok(Page { records, next, total })
}

/// All matches of a list.
fn look_up(reader: &(impl Read + ?Sized), query: &Query) -> Result<Found> {
    let mut keys = Vec::new();
    for part in query.parts() {
        let (sql, args) = part.select("key", &table_of(query.kind))?;
        let mut statement = reader.conn().prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(args))?;
        while let Some(row) = rows.next()? {
            keys.extend(Id::from_slice(row.get_ref(0)?.as_blob().unwrap_or_default()));
            if keys.len() > MOST_KEYS {
                return Ok(Found { keys: None, total: reader.count(query)? });
            }
        }
    }
    let total = keys.len() as u64;
    Ok(Found { keys: Some(keys), total })
}

/// A page of what was found. None if the matches are not kept, or if the record where the last page ended is not where
/// it was.
fn page_of(conn: &Connection, plan: &Plan, query: &Query, found: &Found) -> Result<Option<Page>> {
    let Some(keys) = &found.keys else { return Ok(None) };
    let sql = query.one_sql(&plan.head, &table_of(query.kind))?;
    let mut statement = conn.prepare_cached(&sql)?;
    let mut one = |key: Id| -> Result<Option<(Record, Value)>> {
        let mut rows = statement.query([key.0])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (record, width) = record_of(plan, row)?;
        Ok(Some((record, value_of(row.get_ref(width)?, query.sort_column()))))
    };
    let mut start = 0;
    if let Some(after) = query.cursor() {
        let at = keys.iter().position(|key| *key == after.key);
        match at {
            Some(at) if one(after.key)?.is_some_and(|(_, value)| value == after.value) => {
                start = at + 1;
            }
            _ => return Ok(None),
        }
    }
    let end = keys.len().min(start + query.page_size());
    let (mut records, mut last) = (Vec::with_capacity(end - start), Value::Null);
    for key in &keys[start..end] {
        if let Some((record, value)) = one(*key)? {
            records.push(record);
            last = value;
        }
    }
    if query.wants_bodies() {
        records.iter_mut().try_for_each(|record| load_texts(conn, record))?;
    }
    let next = records.last().filter(|_| end < keys.len());
    let next = next.map(|record| Cursor { value: last, key: record.key });
    Ok(Some(Page { records, next, total: found.total }))
}

pub(crate) fn load(conn: &Connection, plan: &Plan, key: Id) -> Result<Option<Record>> {
    let mut statement = conn.prepare_cached(&plan.get)?;
    let mut rows = statement.query([key.0])?;
    rows.next()?.map(|row| record_of(plan, row).map(|(record, _)| record)).transpose()
}

pub(crate) fn load_texts(conn: &Connection, record: &mut Record) -> Result<()> {
    for field in record.kind.fields.iter().filter(|f| f.merge == Merge::Body) {
        let Some(body) = record.state.body(field.code) else { continue };
        let sql =
            "SELECT coalesce(text, born) FROM body WHERE key = ?1 AND field = ?2 AND creation = ?3";
        let mut statement = conn.prepare_cached(sql)?;
        let args = params![record.key.0, field.code, body.creation.to_bytes()];
        let text: Option<String> = statement.query_row(args, |r| r.get(0)).optional()?;
        let text = match text {
            Some(text) => text,
            None => born_text(conn, record.stream, field.code, body.creation)?,
        };
        record.texts.push((field.code, text));
    }
    Ok(())
}

/// The text that a body was born with, out of the log.
fn born_text(conn: &Connection, stream: i64, field: u16, creation: Dot) -> Result<String> {
    let sql = "SELECT payload FROM op WHERE stream = ?1 AND origin = (SELECT id FROM origin WHERE bytes = ?2) AND seq = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let args = params![stream, creation.origin.to_bytes(), creation.seq as i64];
    let mut rows = statement.query(args)?;
    let row = rows.next()?.ok_or(Error::Missing("body"))?;
    born_in(row.get_ref(0)?.as_blob().unwrap_or_default(), field)
}

/// The text that an op of the log gave a body.
pub(crate) fn born_in(payload: &[u8], field: u16) -> Result<String> {
    if let Payload::Write(write) = crate::codec::unpack(payload)? {
        for body in write.bodies.into_iter().filter(|body| body.field == field) {
            if let BodyEdit::Born(text) = body.edit {
                return Ok(text);
            }
        }
    }
    Err(Error::Damaged("a body stands neither in its table nor in the log".into()))
}

pub(crate) fn load_content(
    conn: &Connection,
    stream: i64,
    key: Id,
    field: u16,
    creation: Dot,
) -> Result<Content> {
    let sql = "SELECT born, text, doc FROM body WHERE key = ?1 AND field = ?2 AND creation = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![key.0, field, creation.to_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(Content::born(born_text(conn, stream, field, creation)?));
    };
    let (born, text, doc): (String, Option<String>, Option<Vec<u8>>) =
        (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Content { text: text.unwrap_or_else(|| born.clone()), born, doc, heads: vec![] })
}
