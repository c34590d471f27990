//! The row of a record and what hangs on it: columns, names, elements of sets, totals, the inbox, the search queue.
//! Everything here can be made again from the states.

use crate::apply::Place;
use crate::claim::{self, Claim};
use crate::conflict::{self, Cause, Entry};
use crate::db::Db;
use crate::digest::Digest;
use crate::error::Result;
use crate::id::{Id, StreamId};
use crate::kind::{Field, Kind, Merge, confirmation_of};
use crate::record::Record;
use crate::schema::table_of;
use crate::seal;
use crate::value::Value;
use rusqlite::types::ToSql;
use rusqlite::{OptionalExtension, params};
use std::collections::BTreeSet;

/// What must be settled once the request's writes are done, since it depends on more than one record.
/// Records on one way up a tree; what is deeper is no tree that somebody made.
const MOST_ABOVE: usize = 10_000;

#[derive(Default)]
pub(crate) struct Unsettled {
    names: BTreeSet<(Id, &'static str, String)>,
    /// (kind, tenant, key, the parent before)
    moves: BTreeSet<(u16, Id, Id, Option<Id>)>,
}

/// The values of a kind's columns, in order.
pub(crate) fn columns_of(record: &Record) -> Vec<(&'static str, Value)> {
    let fields = record.kind.fields.iter().filter(|f| f.column);
    let mut columns: Vec<_> =
        fields.filter_map(|f| Some((f.name, column_value(record, f)?))).collect();
    columns.extend(record.kind.derived.iter().map(|d| (d.name, (d.value)(record))));
    columns
}

fn column_value(record: &Record, field: &Field) -> Option<Value> {
    match field.merge {
        Merge::Register if field.claim.is_some() && record.opt_text(field).is_some() => {
            Some(Value::from(record.text(field)))
        }
        Merge::Register => Some(record.value(field).clone()),
        Merge::Counter => Some(Value::from(record.total(field))),
        Merge::Sketch => Some(Value::from(record.estimate(field))),
        Merge::Set | Merge::Body => None,
    }
}

fn counted(kind: &Kind, columns: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let mut buckets = vec![("", Value::Text(String::new()))];
    let columns = columns.iter().filter(|(name, _)| kind.counted.contains(name));
    let value = |(name, value): &(&'static str, Value)| {
        crate::heads::bucket_of(value).map(|value| (*name, value))
    };
    buckets.extend(columns.filter_map(value));
    buckets
}

fn claim_of(record: &Record, field: &Field) -> Option<(String, Claim)> {
    let cell = record.state.register(field.code)?;
    let name = claim::normalise(cell.value.as_text()?);
    let confirmed = record.state.register(confirmation_of(field.code));
    let confirmed = confirmed.is_some_and(|c| c.value == Value::Text(name.clone()));
    let claim = Claim {
        key: record.key,
        kind: record.kind.code,
        field: field.code,
        hlc: cell.hlc,
        dot: cell.dot,
        confirmed,
        won: true,
    };
    (!name.is_empty()).then_some((name, claim))
}

impl Db {
    pub(crate) fn put_row(
        &mut self,
        place: &Place,
        old: Option<&Record>,
        record: &mut Record,
        digest: Digest,
        state: &[u8],
    ) -> Result<()> {
        record.stream = place.stream;
        self.forget_kept(place.kind, place.key);
        if record.kind.seals {
            seal::note_seal(&self.conn, record)?;
        }
        if record.kind.erases {
            self.note_erasure(record)?;
        }
        if record.kind.revokes {
            self.note_cuts(&StreamId::new(place.tenant, record.kind.scope), record)?;
        }
        self.move_claims(place, old, record)?;
        self.move_elements(old, Some(record))?;
        self.move_references(place, old, Some(record))?;
        self.note_disputes(place, old, Some(record))?;
        if let Some(tree) = record.kind.tree {
            let parent = |r: &Record| r.state.register(tree).and_then(|c| c.value.as_id());
            let (before, now) = (old.and_then(parent), parent(record));
            if old.is_none() || before != now || stamp_of(old, tree) != stamp_of(Some(record), tree)
            {
                self.unsettled.moves.insert((place.kind, place.tenant, place.key, before));
                record.tree_parent = now;
            }
        }
        let columns = columns_of(record);
        self.move_totals(record.kind, place.tenant, old, &counted(record.kind, &columns));
        let (created, updated) = (record.created_ms() as i64, record.updated_ms() as i64);
        let digest = digest.to_bytes();
        let parent = record.tree_parent.map(|id| id.0);
        let mut args: Vec<&dyn ToSql> =
            vec![&place.key.0, &place.tenant.0, &place.stream, &created, &updated];
        args.extend(columns.iter().map(|(_, value)| value as &dyn ToSql));
        if record.kind.tree.is_some() {
            args.push(&parent);
        }
        args.extend([&digest as &dyn ToSql, &state]);
        let plan = self.plans.plan(place.kind)?;
        self.conn.prepare_cached(&plan.put)?.execute(args.as_slice())?;
        self.note_search(place)
    }

    pub(crate) fn remove_row(&mut self, place: &Place, old: &Record) -> Result<()> {
        self.forget_kept(place.kind, place.key);
        for field in old.kind.fields.iter().filter(|f| f.claim.is_some()) {
            self.drop_claim(place, old, field)?;
        }
        self.move_elements(Some(old), None)?;
        self.move_references(place, Some(old), None)?;
        self.move_totals(old.kind, old.tenant, Some(old), &[]);
        self.note_disputes(place, Some(old), None)?;
        if let Some(tree) = old.kind.tree {
            let before = old.state.register(tree).and_then(|c| c.value.as_id());
            self.unsettled.moves.insert((place.kind, place.tenant, place.key, before));
            conflict::remove(&self.conn, place.kind, place.key, Cause::Cycle)?;
        }
        let plan = self.plans.plan(place.kind)?;
        self.conn.prepare_cached(&plan.remove)?.execute([place.key.0])?;
        self.note_search(place)
    }

    fn note_search(&self, place: &Place) -> Result<()> {
        if !self.is_logging && self.plans.kind(place.kind)?.search.is_some() {
            let sql = "INSERT INTO dirty (kind, key) VALUES (?1, ?2)";
            self.conn.prepare_cached(sql)?.execute(params![place.kind, place.key.0])?;
        }
        Ok(())
    }

    fn move_claims(
        &mut self,
        place: &Place,
        old: Option<&Record>,
        record: &mut Record,
    ) -> Result<()> {
        let kind = record.kind;
        for field in kind.fields.iter().filter(|f| f.claim.is_some()) {
            let before = old.and_then(|old| claim_of(old, field));
            let now = claim_of(record, field);
            let same = |a: &Option<(String, Claim)>, b: &Option<(String, Claim)>| match (a, b) {
                (Some((n, a)), Some((m, b))) => {
                    n == m && (a.hlc, a.dot, a.confirmed) == (b.hlc, b.dot, b.confirmed)
                }
                (None, None) => true,
                _ => false,
            };
            // Of two writes under one dot, the one may name in capitals what the other does not.
            let is_written_alike = old.is_none_or(|old| old.wanted(field) == record.wanted(field));
            if same(&before, &now) && is_written_alike {
                continue;
            }
            if let Some(old) = old {
                self.drop_claim(place, old, field)?;
            }
            record.names.retain(|(code, _)| *code != field.code);
            if let (Some((name, claim)), Some(space)) = (now, field.claim) {
                record.names.push((field.code, record.wanted(field).to_owned()));
                claim::put(&self.conn, place.tenant, space, &name, &claim)?;
                self.unsettled.names.insert((place.tenant, space, name));
            }
        }
        Ok(())
    }

    fn drop_claim(&mut self, place: &Place, old: &Record, field: &Field) -> Result<()> {
        if let (Some((name, _)), Some(space)) = (claim_of(old, field), field.claim) {
            claim::remove(&self.conn, place.tenant, space, &name, place.key)?;
            if old.text(field) != old.wanted(field) {
                let id = conflict::id_of(place.kind, place.key, Cause::Claim, field.code, b"");
                conflict::remove_id(&self.conn, id)?;
            }
            self.unsettled.names.insert((place.tenant, space, name));
        }
        Ok(())
    }

    fn move_elements(&self, old: Option<&Record>, new: Option<&Record>) -> Result<()> {
        let Some(any) = new.or(old) else { return Ok(()) };
        let sets = any.kind.fields.iter().filter(|f| f.merge == Merge::Set && f.column);
        for field in sets {
            let before: BTreeSet<&Value> = old.into_iter().flat_map(|r| r.set(field)).collect();
            let now: BTreeSet<&Value> = new.into_iter().flat_map(|r| r.set(field)).collect();
            for value in before.difference(&now) {
                let sql = "DELETE FROM element WHERE kind = ?1 AND field = ?2 AND tenant = ?3 AND value = ?4 AND key = ?5";
                let args = params![any.kind.code, field.code, any.tenant.0, value, any.key.0];
                self.conn.prepare_cached(sql)?.execute(args)?;
            }
            for value in now.difference(&before) {
                let sql = "INSERT OR IGNORE INTO element VALUES (?1, ?2, ?3, ?4, ?5)";
                let args = params![any.kind.code, field.code, any.tenant.0, value, any.key.0];
                self.conn.prepare_cached(sql)?.execute(args)?;
            }
        }
        Ok(())
    }

    fn move_totals(
        &mut self,
        kind: &Kind,
        tenant: Id,
        old: Option<&Record>,
        now: &[(&'static str, Value)],
    ) {
        let before = old.map(|old| counted(kind, &columns_of(old))).unwrap_or_default();
        for (column, value) in before.iter().filter(|b| !now.contains(b)) {
            self.heads.count(kind.code, tenant, column, value.clone(), -1);
        }
        for (column, value) in now.iter().filter(|n| !before.contains(n)) {
            self.heads.count(kind.code, tenant, column, value.clone(), 1);
        }
    }

    fn note_disputes(
        &self,
        place: &Place,
        old: Option<&Record>,
        new: Option<&Record>,
    ) -> Result<()> {
        let revives = |r: &Record| r.kind.revives.is_some_and(|f| f(r));
        let had = old.is_some_and(|r| !conflict::disputed(r).is_empty() || revives(r));
        if had {
            conflict::remove(&self.conn, place.kind, place.key, Cause::Concurrent)?;
            conflict::remove(&self.conn, place.kind, place.key, Cause::Revived)?;
        }
        let Some(record) = new else { return Ok(()) };
        let mut entry = Entry {
            tenant: place.tenant,
            stream: place.stream,
            kind: place.kind,
            key: place.key,
            cause: Cause::Concurrent,
            field: 0,
            hlc: record.state.latest_hlc(),
            extra: b"",
            detail: b"",
        };
        for field in conflict::disputed(record) {
            entry.field = field;
            conflict::put(&self.conn, &entry)?;
        }
        if revives(record) {
            (entry.field, entry.cause) = (0, Cause::Revived);
            conflict::put(&self.conn, &entry)?;
        }
        Ok(())
    }

    /// Settles names and trees that this request touched.
    pub(crate) fn settle(&mut self) -> Result<()> {
        while let Some((tenant, space, name)) = self.unsettled.names.pop_first() {
            self.settle_name(tenant, space, &name)?;
        }
        while let Some((kind, tenant, key, before)) = self.unsettled.moves.pop_first() {
            self.settle_tree(kind, tenant, key, before)?;
        }
        Ok(())
    }

    fn settle_name(&mut self, tenant: Id, space: &str, name: &str) -> Result<()> {
        let claims = claim::claimants(&self.conn, tenant, space, name)?;
        for (rank, claim) in claims.iter().enumerate() {
            let won = rank == 0;
            if claim.won == won {
                continue;
            }
            claim::put(&self.conn, tenant, space, name, &Claim { won, ..claim.clone() })?;
            self.rename(tenant, claim, won)?;
        }
        Ok(())
    }

    /// Writes the name that a record answers to into its row, and tells the inbox.
    fn rename(&mut self, tenant: Id, claim: &Claim, won: bool) -> Result<()> {
        let plan = self.plans.plan(claim.kind)?;
        let Some(field) = plan.kind.field_by_code(claim.field) else { return Ok(()) };
        let table = table_of(plan.kind);
        let Some(record) = crate::read::load(&self.conn, plan, claim.key)? else { return Ok(()) };
        let wanted = record.wanted(field);
        let name = if won { wanted.to_owned() } else { claim::lost_name(wanted, claim.key) };
        self.forget_kept(claim.kind, claim.key);
        let sql =
            format!("UPDATE {table} SET c_{} = ?2 WHERE key = ?1 RETURNING stream", field.name);
        let stream: Option<i64> = self
            .conn
            .prepare_cached(&sql)?
            .query_row(params![claim.key.0, name], |r| r.get(0))
            .optional()?;
        if won {
            let id = conflict::id_of(claim.kind, claim.key, Cause::Claim, claim.field, b"");
            return conflict::remove_id(&self.conn, id);
        }
        conflict::put(
            &self.conn,
            &Entry {
                tenant,
                stream: stream.unwrap_or_default(),
                kind: claim.kind,
                key: claim.key,
                cause: Cause::Claim,
                field: claim.field,
                hlc: claim.hlc,
                extra: b"",
                detail: b"",
            },
        )
    }

    /// A move of `key` can only have made or broken circles that go through it.
    fn settle_tree(&mut self, kind: u16, tenant: Id, key: Id, before: Option<Id>) -> Result<()> {
        let plan = self.plans.plan(kind)?;
        let Some((kind, tree)) = plan.kind.tree.map(|tree| (plan.kind, tree)) else {
            return Ok(());
        };
        let mut members = self.cut_above(kind, tree, before)?;
        let now = crate::read::load(&self.conn, plan, key)?;
        let now = now.and_then(|r| r.state.register(tree).and_then(|c| c.value.as_id()));
        let ring = self.ring(kind, tree, key, now)?;
        members.extend(ring);
        members.push(key);
        for member in members {
            self.place_in_tree(kind, tree, tenant, member)?;
        }
        Ok(())
    }

    /// Those on the way up from `start` that show no parent because of a circle. It may have been broken in several places
    /// at once, so the way need not lead back.
    fn cut_above(&self, kind: &'static Kind, tree: u16, start: Option<Id>) -> Result<Vec<Id>> {
        let plan = self.plans.plan(kind.code)?;
        let (mut seen, mut cut) = (BTreeSet::new(), Vec::new());
        let mut at = start;
        while let Some(id) = at.filter(|id| seen.len() < MOST_ABOVE && seen.insert(*id)) {
            let Some(record) = crate::read::load(&self.conn, plan, id)? else { break };
            at = record.state.register(tree).and_then(|c| c.value.as_id());
            if at.is_some() && record.tree_parent.is_none() {
                cut.push(id);
            }
        }
        Ok(cut)
    }

    /// Those on the way from `start` up to `key`, if the way leads there.
    fn ring(&self, kind: &'static Kind, tree: u16, key: Id, start: Option<Id>) -> Result<Vec<Id>> {
        let plan = self.plans.plan(kind.code)?;
        let mut way = Vec::new();
        let mut at = start;
        while let Some(id) = at.filter(|id| *id != key) {
            if way.contains(&id) || way.len() > MOST_ABOVE {
                return Ok(vec![]);
            }
            way.push(id);
            let record = crate::read::load(&self.conn, plan, id)?;
            at = record.and_then(|r| r.state.register(tree).and_then(|c| c.value.as_id()));
        }
        Ok(if at.is_some() { way } else { vec![] })
    }

    /// The parent that shows: the wanted one, but none for the latest move of a circle.
    fn place_in_tree(&mut self, kind: &'static Kind, tree: u16, tenant: Id, key: Id) -> Result<()> {
        let plan = self.plans.plan(kind.code)?;
        let Some(record) = crate::read::load(&self.conn, plan, key)? else { return Ok(()) };
        // A repair may have taken away the move that closed the circle.
        let Some(cell) = record.state.register(tree).cloned() else {
            return conflict::remove(&self.conn, kind.code, key, Cause::Cycle);
        };
        let wanted = cell.value.as_id();
        let mut circle = self.ring(kind, tree, key, wanted)?;
        let in_circle = !circle.is_empty() || wanted == Some(key);
        circle.push(key);
        let mut latest = None;
        for member in circle {
            let other = crate::read::load(&self.conn, plan, member)?;
            let stamp =
                other.as_ref().and_then(|r| r.state.register(tree)).map(|c| (c.hlc, c.dot, member));
            latest = latest.max(stamp);
        }
        let is_cut = in_circle && latest.is_some_and(|(_, _, member)| member == key);
        let parent = wanted.filter(|_| !is_cut);
        if parent != record.tree_parent {
            self.forget_kept(kind.code, key);
            let sql = format!("UPDATE {} SET c_tree_parent = ?2 WHERE key = ?1", table_of(kind));
            self.conn.prepare_cached(&sql)?.execute(params![key.0, parent.map(|id| id.0)])?;
        }
        if !is_cut {
            return conflict::remove(&self.conn, kind.code, key, Cause::Cycle);
        }
        let stream = crate::id::StreamId::new(tenant, kind.scope);
        let stream = self.heads.stream_number(&self.conn, &stream)?;
        let (kind, cause, hlc) = (kind.code, Cause::Cycle, cell.hlc);
        conflict::put(
            &self.conn,
            &Entry { tenant, stream, kind, key, cause, field: tree, hlc, extra: b"", detail: b"" },
        )
    }
}

/// Two lives of a node may have given one dot to two moves: a repair changes the time alone.
fn stamp_of(record: Option<&Record>, field: u16) -> Option<(crate::clock::Hlc, crate::id::Dot)> {
    record.and_then(|r| r.state.register(field)).map(|c| (c.hlc, c.dot))
}
