//! Proving that the views are what the records say, and making them again from the records.

use crate::apply::{Place, digest_of};
use crate::claim;
use crate::db::Db;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::heads::{StreamHead, read_heads};
use crate::id::{Id, Origin};
use crate::kind::Kind;
use crate::log::{self, Met};
use crate::read::{Read, load_content, record_of};
use crate::record::Record;
use crate::schema::{self, table_of};
use crate::state::State;
use crate::value::Value;
use crate::view::columns_of;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

/// What `verify` found. No problems means that every view is what the records say.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    pub records: u64,
    pub ops: u64,
    pub problems: Vec<String>,
}

/// More are not listed: after so many a rebuild is due anyway.
const MAX_PROBLEMS: usize = 200;
const BATCH: usize = 1_000;

impl Report {
    pub(crate) fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }
}

/// The streams of a database that nobody has open, without changing a byte of it.
pub fn heads_in(file: &Path) -> Result<Vec<StreamHead>> {
    let path = file.to_str().ok_or_else(|| Error::Internal("the path is no UTF-8".into()))?;
    // What has a meaning in an address of a file.
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?;
    Ok(read_heads(&conn, None)?.into_iter().map(|(_, head)| head).collect())
}

impl Db {
    /// Checks the file, every record, digest, column, name, counter and the log. Reads everything once.
    pub fn verify(&self) -> Result<Report> {
        let mut report = Report::default();
        let check: String = self.conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
        if check != "ok" {
            report.problem(format!("the file is damaged: {check}"));
        }
        let mut digests: BTreeMap<i64, (Digest, u64)> = BTreeMap::new();
        for kind in self.plans.kinds {
            self.verify_kind(kind, &mut digests, &mut report)?;
        }
        self.verify_aliens(&mut digests, &mut report)?;
        let mut statement = self.conn.prepare("SELECT id, digest, records FROM stream")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let (digest, count) = digests.remove(&id).unwrap_or_default();
            let stored = Digest::from_slice(row.get_ref(1)?.as_blob().unwrap_or_default());
            if stored != Some(digest) || row.get::<_, i64>(2)? as u64 != count {
                report
                    .problem(format!("stream {id}: the digest is not that of its {count} records"));
            }
        }
        self.verify_log(&mut report)?;
        Ok(report)
    }

    fn verify_kind(
        &self,
        kind: &'static Kind,
        digests: &mut BTreeMap<i64, (Digest, u64)>,
        report: &mut Report,
    ) -> Result<()> {
        let plan = self.plans.plan(kind.code)?;
        let names: String = kind.columns().map(|(name, _)| format!(", c_{name}")).collect();
        let sql = format!("SELECT {}{names} FROM {}", plan.head, table_of(kind));
        let mut statement = self.conn.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut totals: BTreeMap<(Id, &str, Value), i64> = BTreeMap::new();
        let mut references = 0;
        while let Some(row) = rows.next()? {
            let (record, width) = match record_of(plan, row) {
                Ok(read) => read,
                Err(error) => {
                    report.problem(format!("a {} cannot be read: {error}", kind.name));
                    continue;
                }
            };
            report.records += 1;
            let stream = record.stream;
            let place = Place { stream, tenant: record.tenant, kind: kind.code, key: record.key };
            let digest = digest_of(&place, &record.state.to_bytes());
            if digest != record.digest {
                report.problem(format!(
                    "{} {}: the digest is not that of its state",
                    kind.name, record.key
                ));
            }
            let slot = digests.entry(stream).or_default();
            slot.0.add(digest);
            slot.1 += 1;
            for (i, (name, value)) in columns_of(&record).iter().enumerate() {
                if !is_same(value, row.get_ref(width + i)?) {
                    report.problem(format!("{} {}: column {name} is stale", kind.name, record.key));
                }
                if kind.counted.contains(name)
                    && let Some(bucket) = crate::heads::bucket_of(value)
                {
                    *totals.entry((record.tenant, name, bucket)).or_default() += 1;
                }
            }
            *totals.entry((record.tenant, "", Value::Text(String::new()))).or_default() += 1;
            self.verify_names(&record, report)?;
            references += self.verify_references(&record, report)?;
            self.verify_bodies(&record, report)?;
        }
        self.verify_reference_count(kind, references, report)?;
        self.verify_totals(kind, totals, report)
    }

    fn verify_names(&self, record: &Record, report: &mut Report) -> Result<()> {
        for field in record.kind.fields.iter().filter(|f| f.claim.is_some()) {
            let Some(name) = record.opt_text(field) else { continue };
            let space = field.claim.unwrap_or_default();
            if claim::holder(&self.conn, record.tenant, space, name)? != Some(record.key) {
                report.problem(format!(
                    "{} {}: does not answer to its {}",
                    record.kind.name, record.key, field.name
                ));
            }
        }
        Ok(())
    }

    fn verify_bodies(&self, record: &Record, report: &mut Report) -> Result<()> {
        for body in &record.state.bodies {
            let content =
                load_content(&self.conn, record.stream, record.key, body.field, body.creation);
            let sound = match content {
                Ok(content) => {
                    let born = *blake3::hash(content.born.as_bytes()).as_bytes() == body.born;
                    let heads =
                        crate::body::apply_if_edited(&content, body.creation).map(|c| c.heads);
                    born && heads.is_ok_and(|heads| heads == body.heads)
                }
                Err(_) => false,
            };
            if !sound {
                report.problem(format!(
                    "{} {}: the body is not the one its record names",
                    record.kind.name, record.key
                ));
            }
        }
        Ok(())
    }

    fn verify_totals(
        &self,
        kind: &Kind,
        mut counted: BTreeMap<(Id, &str, Value), i64>,
        report: &mut Report,
    ) -> Result<()> {
        let mut statement = self
            .conn
            .prepare("SELECT tenant, col, value, n FROM total WHERE kind = ?1 AND n <> 0")?;
        let mut rows = statement.query([kind.code])?;
        while let Some(row) = rows.next()? {
            let (tenant, column): (Id, String) = (Id(row.get(0)?), row.get(1)?);
            let value = crate::read::value_of(row.get_ref(2)?, "");
            let n: i64 = row.get(3)?;
            let slot = counted
                .keys()
                .find(|(t, c, v)| *t == tenant && *c == column && *v == value)
                .cloned();
            if slot.and_then(|slot| counted.remove(&slot)) != Some(n) {
                report.problem(format!("the kept count of {} by {column:?} is wrong", kind.plural));
            }
        }
        for (_, column, _) in counted.keys() {
            report.problem(format!("the kept count of {} by {column:?} is missing", kind.plural));
        }
        Ok(())
    }

    fn verify_aliens(
        &self,
        digests: &mut BTreeMap<i64, (Digest, u64)>,
        report: &mut Report,
    ) -> Result<()> {
        let mut statement =
            self.conn.prepare("SELECT kind, key, tenant, stream, state FROM alien")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let place = Place {
                kind: row.get(0)?,
                key: Id(row.get(1)?),
                tenant: Id(row.get(2)?),
                stream: row.get(3)?,
            };
            let state = row.get_ref(4)?.as_blob().unwrap_or_default();
            let slot = digests.entry(place.stream).or_default();
            slot.0.add(digest_of(&place, state));
            slot.1 += 1;
            report.records += 1;
        }
        Ok(())
    }

    fn verify_log(&self, report: &mut Report) -> Result<()> {
        let heads: HashMap<i64, StreamHead> = read_heads(&self.conn, None)?.into_iter().collect();
        let origins = log::origins(&self.conn)?;
        let mut counts: BTreeMap<(i64, Origin), u64> = BTreeMap::new();
        let mut damaged = Vec::new();
        log::scan_with(&self.conn, 0, |met| {
            let entry = match met {
                Met::Op(entry) => entry,
                Met::Damaged(name, error) => {
                    damaged.push(format!("block {name} of the log: {error}"));
                    return Ok(ControlFlow::Continue(()));
                }
            };
            if let (Some(head), Some(origin)) =
                (heads.get(&entry.stream), origins.get(&entry.origin))
                && entry.seq > head.floor.get(*origin)
            {
                *counts.entry((entry.stream, *origin)).or_default() += 1;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        damaged.into_iter().for_each(|problem| report.problem(problem));
        for (id, head) in read_heads(&self.conn, None)? {
            for (origin, seq) in &head.vector.0 {
                let floor = head.floor.get(*origin).min(*seq);
                let ops = counts.get(&(id, *origin)).copied().unwrap_or_default();
                report.ops += ops;
                if ops != seq - floor {
                    report.problem(format!(
                        "stream {id}: {ops} ops of {origin} in the log, {} counted",
                        seq - floor
                    ));
                }
            }
        }
        Ok(())
    }

    /// Makes all read models again from the records. `progress` gets (done, of).
    pub fn rebuild(&mut self, progress: impl FnMut(u64, u64)) -> Result<()> {
        let kinds = self.plans.kinds;
        self.rebuild_with(kinds, progress)
    }

    pub(crate) fn rebuild_kinds(&mut self, kinds: &[&'static Kind]) -> Result<()> {
        self.rebuild_with(kinds, |_, _| {})
    }

    fn rebuild_with(
        &mut self,
        kinds: &[&'static Kind],
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        for (done, kind) in kinds.iter().enumerate() {
            progress(done as u64, kinds.len() as u64);
            self.begin()?;
            let result = self.savepoint(|db| db.rebuild_kind(kind));
            self.commit()?;
            result?;
        }
        progress(kinds.len() as u64, kinds.len() as u64);
        Ok(())
    }

    fn rebuild_kind(&mut self, kind: &'static Kind) -> Result<()> {
        self.forget_all_kept();
        let table = table_of(kind);
        self.conn.flush_prepared_statement_cache();
        let names = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL";
        let indexes: Vec<String> = {
            let mut statement = self.conn.prepare(names)?;
            let rows = statement.query_map([&table], |r| r.get(0))?;
            rows.collect::<rusqlite::Result<_>>()?
        };
        for index in indexes {
            self.conn.execute_batch(&format!("DROP INDEX {index}"))?;
        }
        self.conn.execute_batch(&format!("ALTER TABLE {table} RENAME TO old_{table}"))?;
        schema::create_view(&self.conn, kind)?;
        for derived in schema::DERIVED_TABLES {
            self.conn.execute(&format!("DELETE FROM {derived} WHERE kind = ?1"), [kind.code])?;
        }
        let lost = crate::conflict::Cause::LostWrite as u8;
        self.conn.execute(
            "DELETE FROM conflict WHERE kind = ?1 AND cause <> ?2",
            params![kind.code, lost],
        )?;
        self.refill(
            kind,
            &format!("SELECT key, tenant, stream, state FROM old_{table} WHERE key > ?1"),
        )?;
        let aliens = format!(
            "SELECT key, tenant, stream, state FROM alien WHERE kind = {} AND key > ?1",
            kind.code
        );
        self.refill(kind, &aliens)?;
        self.conn.execute("DELETE FROM alien WHERE kind = ?1", [kind.code])?;
        self.conn.execute_batch(&format!("DROP TABLE old_{table}"))?;
        schema::put_meta(&self.conn, &format!("view.{}", kind.name), &kind.view_version())
    }

    fn refill(&mut self, kind: &'static Kind, select: &str) -> Result<()> {
        let mut after: Vec<u8> = vec![];
        loop {
            let batch = {
                let mut statement =
                    self.conn.prepare(&format!("{select} ORDER BY key LIMIT {BATCH}"))?;
                let rows = statement.query_map([&after], |r| {
                    Ok((
                        r.get::<_, [u8; 16]>(0)?,
                        r.get::<_, [u8; 16]>(1)?,
                        r.get::<_, i64>(2)?,
                        r.get::<_, Vec<u8>>(3)?,
                    ))
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()?
            };
            let Some((last, ..)) = batch.last() else { return Ok(()) };
            after = last.to_vec();
            for (key, tenant, stream, bytes) in batch {
                let place = Place { stream, tenant: Id(tenant), kind: kind.code, key: Id(key) };
                let mut record =
                    Record::new(kind, place.key, place.tenant, State::from_bytes(&bytes)?);
                record.digest = digest_of(&place, &bytes);
                let digest = record.digest;
                self.put_row(&place, None, &mut record, digest, &bytes)?;
            }
            self.settle()?;
        }
    }

    /// A consistent copy of the whole file, made while writes go on. `progress` gets (done, of) pages.
    pub fn backup_from(
        conn: &Connection,
        to: &Path,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        if to.exists() {
            return Err(Error::Internal(format!("{} is there already", to.display())));
        }
        let pages: i64 = conn.query_row("PRAGMA page_count", [], |r| r.get(0))?;
        progress(0, pages as u64);
        let path = to.to_str().ok_or_else(|| Error::Internal("the path is no UTF-8".into()))?;
        conn.execute("VACUUM INTO ?1", [path])?;
        std::fs::File::open(to)?.sync_all()?;
        progress(pages as u64, pages as u64);
        Ok(())
    }

    /// Alive records of a kind, for reports.
    pub fn count_all(&self, kind: &'static Kind) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {}", table_of(kind));
        let n: Option<i64> = self.reader().conn().query_row(&sql, [], |r| r.get(0)).optional()?;
        Ok(n.unwrap_or(0) as u64)
    }
}

fn is_same(value: &Value, stored: ValueRef<'_>) -> bool {
    match (value, stored) {
        (Value::Null, ValueRef::Null) => true,
        (Value::Bool(flag), ValueRef::Integer(int)) => i64::from(*flag) == int,
        (Value::Int(a), ValueRef::Integer(b)) => *a == b,
        (Value::Text(a), ValueRef::Text(b)) => a.as_bytes() == b,
        (Value::Id(a), ValueRef::Blob(b)) => a.0 == *b,
        (Value::Bytes(a), ValueRef::Blob(b)) => a == b,
        _ => false,
    }
}
