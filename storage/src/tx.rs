//! Writing from the domain: what it asks for becomes ops of this node, and goes through the one apply function.

use crate::apply::Stored;
use crate::body::{self, Heads};
use crate::clock::Hlc;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::{Dot, Id, Origin, StreamId};
use crate::kind::{Field, Kind, Merge, confirmation_of};
use crate::op::{BodyEdit, BodyWrite, CellWrite, Count, Op, Payload, Write};
use crate::read::{Plans, Read, load_content};
use crate::record::Record;
use crate::sketch::Sketch;
use crate::state::State;
use crate::value::Value;
use rusqlite::Connection;

/// What to write: fields by name, set elements added and dropped, bodies as whole texts.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub registers: Vec<(Field, Value)>,
    pub added: Vec<(Field, Value)>,
    pub dropped: Vec<(Field, Value)>,
    pub bodies: Vec<(Field, String)>,
    bases: Vec<(Field, Heads)>,
    confirmed: Vec<Field>,
}

impl Changes {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn set(mut self, field: &Field, value: impl Into<Value>) -> Self {
        self.put(field, value);
        self
    }

    /// As `set`, in place; a later value replaces an earlier one.
    pub fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.registers.retain(|(f, _)| f.code != field.code);
        self.registers.push((*field, value.into()));
    }

    #[must_use]
    pub fn add(mut self, set: &Field, element: impl Into<Value>) -> Self {
        self.added.push((*set, element.into()));
        self
    }

    #[must_use]
    pub fn drop(mut self, set: &Field, element: impl Into<Value>) -> Self {
        self.dropped.push((*set, element.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, field: &Field, text: impl Into<String>) -> Self {
        self.bodies.retain(|(f, _)| f.code != field.code);
        self.bodies.push((*field, text.into()));
        self
    }

    /// The text of this body was made from the one at these heads, not from the present one: what was changed since
    /// stays.
    #[must_use]
    pub fn based_on(mut self, field: &Field, heads: Heads) -> Self {
        self.bases.retain(|(f, _)| f.code != field.code);
        self.bases.push((*field, heads));
        self
    }

    /// Confirms the record's claim on its name, so that it comes before unconfirmed ones.
    #[must_use]
    pub fn confirm(mut self, claim: &Field) -> Self {
        self.confirmed.push(*claim);
        self
    }

    pub fn get(&self, field: &Field) -> Option<&Value> {
        self.registers.iter().find(|(f, _)| f.code == field.code).map(|(_, value)| value)
    }

    pub fn get_body(&self, field: &Field) -> Option<&str> {
        self.bodies.iter().find(|(f, _)| f.code == field.code).map(|(_, text)| text.as_str())
    }

    pub fn is_empty(&self) -> bool {
        self.registers.is_empty()
            && self.added.is_empty()
            && self.dropped.is_empty()
            && self.bodies.is_empty()
            && self.confirmed.is_empty()
    }
}

/// One request within a transaction. It is kept whole or not at all.
pub struct Tx<'d> {
    pub(crate) db: &'d mut Db,
    pub(crate) now_ms: u64,
}

impl Read for Tx<'_> {
    fn conn(&self) -> &Connection {
        &self.db.conn
    }
    fn plans(&self) -> &Plans {
        &self.db.plans
    }
    fn get(&self, kind: &'static Kind, key: Id) -> Result<Option<Record>> {
        self.db.get(kind, key)
    }
}

impl Tx<'_> {
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub fn origin(&self) -> Origin {
        self.db.origin
    }

    /// A new UUIDv7.
    pub fn new_id(&mut self) -> Id {
        Id::v7(self.now_ms, self.db.random())
    }

    /// Makes a record. One that is alive under this key already is given back as it is.
    pub fn create(
        &mut self,
        kind: &'static Kind,
        tenant: Id,
        key: Id,
        changes: Changes,
    ) -> Result<Record> {
        if let Some(there) = self.get(kind, key)? {
            return Ok(there);
        }
        let write = creation(changes)?;
        let texts: Vec<(u16, String)> = write.bodies.iter().filter_map(born).collect();
        let record = self.issue(Target::free(kind, tenant, key), Payload::Write(write))?;
        let mut record = record.ok_or(Error::Missing(kind.name))?;
        if record.state.creations.len() == 1 {
            record.texts = texts;
        }
        Ok(record)
    }

    /// As `create`, for what was made elsewhere and before: it keeps the times of its making and of its last change,
    /// in Unix milliseconds. Times ahead of now count as now.
    pub fn create_at(
        &mut self,
        kind: &'static Kind,
        tenant: Id,
        key: Id,
        changes: Changes,
        (made_ms, changed_ms): (u64, u64),
    ) -> Result<Record> {
        if let Some(there) = self.get(kind, key)? {
            return Ok(there);
        }
        let stamp = |ms: u64, now_ms: u64| Hlc(ms.min(now_ms) << 16);
        let (made, changed) = (stamp(made_ms, self.now_ms), stamp(changed_ms, self.now_ms));
        // The last op of the log does not tell the clock then.
        self.db.heads.hlc_must_be_kept = true;
        let mut write = creation(changes)?;
        let later = (changed > made).then(|| std::mem::take(&mut write.cells));
        let record = self.issue_at(Target::free(kind, tenant, key), made, Payload::Write(write))?;
        let record = record.ok_or(Error::Missing(kind.name))?;
        let Some(cells) = later.filter(|cells| !cells.is_empty()) else { return Ok(record) };
        let write = Write { seen: record.state.seen(), cells, ..Write::default() };
        let record = self.issue_at(Target::of(record), changed, Payload::Write(write))?;
        record.ok_or(Error::Missing(kind.name))
    }

    /// Changes a record; what says so already is left out. `Missing` if it is not alive.
    pub fn edit(&mut self, kind: &'static Kind, key: Id, changes: Changes) -> Result<Record> {
        let (record, write) = self.difference(kind, key, changes)?;
        if write.cells.is_empty() && write.bodies.is_empty() {
            return Ok(record);
        }
        self.issue(Target::of(record), Payload::Write(write))?.ok_or(Error::Missing(kind.name))
    }

    /// Writes values into a register as if nodes had written them apart from each other: all take the place of what is
    /// there, none that of another, and the last one shows. `Missing` if the record is not alive.
    pub fn write_apart(
        &mut self,
        kind: &'static Kind,
        key: Id,
        field: &Field,
        values: Vec<Value>,
    ) -> Result<()> {
        let mut record = self.get(kind, key)?.ok_or(Error::Missing(kind.name))?;
        let seen = record.state.seen();
        for value in values {
            let cell = CellWrite { field: field.code, element: None, value: Some(value) };
            let write = Write { seen: seen.clone(), cells: vec![cell], ..Write::default() };
            let after = self.issue(Target::of(record), Payload::Write(write))?;
            record = after.ok_or(Error::Missing(kind.name))?;
        }
        Ok(())
    }

    /// As `edit`, for what was changed elsewhere and before; as `create_at` with the time. What is there and is newer
    /// stays the newer.
    pub fn edit_at(
        &mut self,
        kind: &'static Kind,
        key: Id,
        changes: Changes,
        at_ms: u64,
    ) -> Result<Record> {
        let (record, write) = self.difference(kind, key, changes)?;
        if write.cells.is_empty() && write.bodies.is_empty() {
            return Ok(record);
        }
        self.db.heads.hlc_must_be_kept = true;
        let at = Hlc(at_ms.min(self.now_ms) << 16);
        self.issue_at(Target::of(record), at, Payload::Write(write))?
            .ok_or(Error::Missing(kind.name))
    }

    /// The record, and what makes it say what the changes want.
    fn difference(
        &mut self,
        kind: &'static Kind,
        key: Id,
        changes: Changes,
    ) -> Result<(Record, Write)> {
        let record = self.get(kind, key)?.ok_or(Error::Missing(kind.name))?;
        let state = &record.state;
        let mut write = Write { seen: state.seen(), ..Write::default() };
        let mut registers = changes.registers;
        for field in changes.confirmed {
            let name = registers.iter().find(|(f, _)| f.code == field.code).map(|(_, v)| v.clone());
            let name = name.unwrap_or_else(|| record.value(&field).clone());
            let name = Value::from(crate::claim::normalise(name.as_text().unwrap_or_default()));
            registers.push((Field { code: confirmation_of(field.code), ..field }, name));
        }
        for (field, value) in registers {
            if differs(state, field.code, &value) {
                write.cells.push(CellWrite {
                    field: field.code,
                    element: None,
                    value: Some(value),
                });
            }
        }
        for (field, element) in changes.added {
            if !record.has(&field, &element) {
                write.cells.push(add(&field, element));
            }
        }
        for (field, element) in changes.dropped {
            if record.has(&field, &element) {
                write.cells.push(CellWrite {
                    field: field.code,
                    element: Some(element),
                    value: None,
                });
            }
        }
        for (field, text) in changes.bodies {
            let base = changes.bases.iter().find(|(f, _)| f.code == field.code);
            let base = base.map(|(_, heads)| heads.as_slice());
            if let Some(edit) = self.edit_body(&record, &field, base, &text)? {
                write.bodies.push(BodyWrite { field: field.code, edit });
            }
        }
        Ok((record, write))
    }

    fn edit_body(
        &mut self,
        record: &Record,
        field: &Field,
        base: Option<&[[u8; 32]]>,
        text: &str,
    ) -> Result<Option<BodyEdit>> {
        let Some(body) = record.state.body(field.code) else {
            return Err(Error::Body(format!(
                "the {} was made without a {}",
                record.kind.name, field.name
            )));
        };
        let creation = body.creation;
        let content = load_content(&self.db.conn, record.stream, record.key, field.code, creation)?;
        if content.text != text {
            body::must_be_short(&content)?;
        }
        let author = self.db.origin;
        let change = match base {
            Some(base) => body::edit_from(&content, creation, author, base, text)?,
            None => body::edit(&content, creation, author, self.now_ms, text)?,
        };
        let size = change.as_ref().map_or(0, Vec::len);
        if size > body::MAX_CHANGE_BYTES {
            return Err(Error::TooLong { size, limit: body::MAX_CHANGE_BYTES });
        }
        Ok(change.map(|bytes| BodyEdit::Change { creation, bytes }))
    }

    /// Deletes a record for good. `Missing` if it is not alive.
    pub fn remove(&mut self, kind: &'static Kind, key: Id) -> Result<()> {
        let record = self.get(kind, key)?.ok_or(Error::Missing(kind.name))?;
        let payload = Payload::Delete { seen: record.state.seen() };
        self.issue(Target::of(record), payload)?;
        Ok(())
    }

    /// Adds to counters and sketches of a record, which comes into being with its first count.
    /// Members that a sketch has seen already write nothing.
    pub fn count(
        &mut self,
        kind: &'static Kind,
        tenant: Id,
        key: Id,
        increments: &[(&Field, u64)],
        members: &[(&Field, &[u8])],
    ) -> Result<()> {
        let registers: Vec<(&Field, Vec<(u16, u8)>)> = members
            .iter()
            .map(|(field, member)| (*field, vec![Sketch::register_of(member)]))
            .collect();
        self.count_up(kind, tenant, key, increments, &registers)
    }

    /// As `count`, with registers of sketches as they were counted elsewhere.
    pub fn count_up(
        &mut self,
        kind: &'static Kind,
        tenant: Id,
        key: Id,
        increments: &[(&Field, u64)],
        sketches: &[(&Field, Vec<(u16, u8)>)],
    ) -> Result<()> {
        let target = match self.get(kind, key)? {
            Some(record) => Target::of(record),
            None => Target::free(kind, tenant, key),
        };
        let nothing = State::default();
        let state = target.there.as_ref().map_or(&nothing, |record| &record.state);
        let mut counts = Vec::new();
        for (field, by) in increments.iter().filter(|(_, by)| *by > 0) {
            let mine = state.totals.get(&(field.code, self.db.origin)).copied().unwrap_or(0);
            counts.push(Count::Total { field: field.code, total: mine.saturating_add(*by) });
        }
        let all = sketches.iter().flat_map(|(field, all)| all.iter().map(move |one| (field, *one)));
        for (field, (index, rank)) in all {
            let seen = state.sketches.get(&field.code).map_or(0, |s| s.rank(index));
            let twin = counts.iter_mut().find_map(|c| match c {
                Count::Sketch { field: f, registers } if *f == field.code => Some(registers),
                _ => None,
            });
            match twin {
                _ if rank <= seen => {}
                Some(registers) => registers.push((index, rank)),
                None => {
                    counts
                        .push(Count::Sketch { field: field.code, registers: vec![(index, rank)] });
                }
            }
        }
        if !counts.is_empty() {
            self.issue(target, Payload::Count(counts))?;
        }
        Ok(())
    }

    fn issue(&mut self, target: Target, payload: Payload) -> Result<Option<Record>> {
        let past = target.there.as_ref().map_or(Hlc(0), |record| record.state.latest_hlc());
        let clock = self.db.heads.hlc;
        let hlc = clock.tick(self.now_ms, past);
        self.db.heads.hlc = clock.after(self.now_ms, hlc);
        // Then the last op of the log does not tell the clock.
        self.db.heads.hlc_must_be_kept |= self.db.heads.hlc != hlc;
        self.issue_at(target, hlc, payload)
    }

    fn issue_at(&mut self, target: Target, hlc: Hlc, payload: Payload) -> Result<Option<Record>> {
        let Target { kind, tenant, key, there } = target;
        let stream = StreamId::new(tenant, kind.scope);
        self.db.must_carry(&stream)?;
        let origin = self.db.origin;
        let seq = self.db.heads.head(&stream).map_or(0, |head| head.vector.get(origin)) + 1;
        let dot = Dot { origin, seq };
        let op = Op { stream, dot, hlc, kind: kind.code, schema: kind.schema, key, payload };
        let place = self.db.place_of(&op)?;
        self.db.apply_to(&place, there.map(Stored::of), &op)
    }
}

/// What an op of this node is about: a record as the transaction has just read it, or a free place.
struct Target {
    kind: &'static Kind,
    tenant: Id,
    key: Id,
    there: Option<Record>,
}

impl Target {
    fn free(kind: &'static Kind, tenant: Id, key: Id) -> Self {
        Self { kind, tenant, key, there: None }
    }

    fn of(record: Record) -> Self {
        Self { kind: record.kind, tenant: record.tenant, key: record.key, there: Some(record) }
    }
}

fn born(body: &BodyWrite) -> Option<(u16, String)> {
    if let BodyEdit::Born(text) = &body.edit { Some((body.field, text.clone())) } else { None }
}

/// What makes a record of these changes.
fn creation(changes: Changes) -> Result<Write> {
    let mut write = Write { creates: true, ..Write::default() };
    for (field, value) in changes.registers {
        if !value.is_null() {
            write.cells.push(CellWrite { field: field.code, element: None, value: Some(value) });
        }
    }
    for (field, element) in changes.added {
        write.cells.push(add(&field, element));
    }
    for (field, text) in changes.bodies {
        if text.len() > body::MAX_BYTES {
            return Err(Error::TooLong { size: text.len(), limit: body::MAX_BYTES });
        }
        write.bodies.push(BodyWrite { field: field.code, edit: BodyEdit::Born(text) });
    }
    Ok(write)
}

fn add(set: &Field, element: Value) -> CellWrite {
    debug_assert_eq!(set.merge, Merge::Set);
    CellWrite { field: set.code, element: Some(element), value: Some(Value::Bool(true)) }
}

/// True if the register shows another value, or hides a concurrent one.
fn differs(state: &State, field: u16, value: &Value) -> bool {
    let mut cells = state.cells_of(field).iter().filter(|c| c.element.is_none()).peekable();
    let missing = cells.peek().is_none();
    (missing && !value.is_null()) || cells.any(|cell| cell.value != *value)
}
