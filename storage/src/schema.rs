//! The tables, and the read models of each kind with their versions.

use crate::error::{Error, Result};
use crate::kind::{Field, Kind, Merge, Type};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, params};

/// The format of what is not derived. Raised only by a release that cannot read the old one in place.
const FORMAT: i64 = 2;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS origin (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS stream (
  id INTEGER PRIMARY KEY, tenant BLOB NOT NULL, scope TEXT NOT NULL, digest BLOB NOT NULL,
  records INTEGER NOT NULL DEFAULT 0, vectors BLOB, UNIQUE (tenant, scope));
CREATE TABLE IF NOT EXISTS ahead (
  stream INTEGER NOT NULL, low BLOB NOT NULL, high BLOB NOT NULL, vector BLOB NOT NULL,
  PRIMARY KEY (stream, low)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS op (
  pos INTEGER PRIMARY KEY, stream INTEGER NOT NULL, origin INTEGER NOT NULL, seq INTEGER NOT NULL,
  hlc INTEGER NOT NULL, kind INTEGER NOT NULL, schema INTEGER NOT NULL, key BLOB NOT NULL, payload BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS op_dot ON op (stream, origin, seq);
CREATE TABLE IF NOT EXISTS block (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, size INTEGER NOT NULL, ops BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS block_run (
  stream INTEGER NOT NULL, origin INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
  block INTEGER NOT NULL, PRIMARY KEY (stream, origin, low)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS block_run_block ON block_run (block);
CREATE TABLE IF NOT EXISTS log_mark (at_ms INTEGER PRIMARY KEY, pos INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS alien (
  kind INTEGER NOT NULL, key BLOB NOT NULL, tenant BLOB NOT NULL, stream INTEGER NOT NULL, state BLOB NOT NULL,
  PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS body (
  key BLOB NOT NULL, field INTEGER NOT NULL, creation BLOB NOT NULL, born TEXT, text TEXT, doc BLOB,
  PRIMARY KEY (key, field, creation));
CREATE TABLE IF NOT EXISTS claim (
  tenant BLOB NOT NULL, space TEXT NOT NULL, name TEXT NOT NULL, key BLOB NOT NULL, kind INTEGER NOT NULL,
  field INTEGER NOT NULL, hlc INTEGER NOT NULL, dot BLOB NOT NULL, confirmed INTEGER NOT NULL,
  won INTEGER NOT NULL, PRIMARY KEY (tenant, space, name, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS element (
  kind INTEGER NOT NULL, field INTEGER NOT NULL, tenant BLOB NOT NULL, value BLOB NOT NULL, key BLOB NOT NULL,
  PRIMARY KEY (kind, field, tenant, value, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob_ref (
  blob BLOB NOT NULL, kind INTEGER NOT NULL, key BLOB NOT NULL, field INTEGER NOT NULL, stream INTEGER NOT NULL,
  PRIMARY KEY (blob, kind, key, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob_want (
  pos INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL UNIQUE, rests INTEGER NOT NULL DEFAULT 0,
  size INTEGER, since_ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS blob_want_next ON blob_want (pos) WHERE rests = 0;
CREATE TABLE IF NOT EXISTS blob_loose (blob BLOB PRIMARY KEY, since_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob_left (
  blob BLOB NOT NULL, kind INTEGER NOT NULL, key BLOB NOT NULL, at_ms INTEGER NOT NULL, erased INTEGER NOT NULL,
  PRIMARY KEY (blob, kind, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_left_record ON blob_left (kind, key);
CREATE INDEX IF NOT EXISTS blob_left_age ON blob_left (erased, at_ms);
CREATE TABLE IF NOT EXISTS total (
  kind INTEGER NOT NULL, tenant BLOB NOT NULL, col TEXT NOT NULL, value NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (kind, tenant, col, value)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS conflict (
  id BLOB PRIMARY KEY, tenant BLOB NOT NULL, stream INTEGER NOT NULL, kind INTEGER NOT NULL, key BLOB NOT NULL,
  cause INTEGER NOT NULL, field INTEGER NOT NULL, hlc INTEGER NOT NULL, detail BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS conflict_record ON conflict (kind, key);
CREATE TABLE IF NOT EXISTS quarantine (
  stream INTEGER NOT NULL, origin INTEGER NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  reason TEXT NOT NULL, op BLOB NOT NULL, PRIMARY KEY (stream, origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erasing (
  kind INTEGER NOT NULL, key BLOB NOT NULL, pos INTEGER NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sealed (
  stream INTEGER NOT NULL, origin INTEGER NOT NULL, high INTEGER NOT NULL, name BLOB NOT NULL,
  PRIMARY KEY (stream, origin)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seal_due (kind INTEGER NOT NULL, key BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seal_broken (
  kind INTEGER NOT NULL, key BLOB NOT NULL, at_ms INTEGER NOT NULL, words TEXT NOT NULL,
  PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dirty (pos INTEGER PRIMARY KEY, kind INTEGER NOT NULL, key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
  pos INTEGER PRIMARY KEY, id BLOB NOT NULL, type TEXT NOT NULL, at_ms INTEGER NOT NULL,
  tenant BLOB NOT NULL, user BLOB, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS job (
  id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, payload TEXT NOT NULL, run_at_ms INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'waiting', error TEXT,
  done INTEGER NOT NULL DEFAULT 0, of INTEGER NOT NULL DEFAULT 0, result TEXT);
CREATE INDEX IF NOT EXISTS job_due ON job (state, run_at_ms);
CREATE TABLE IF NOT EXISTS answer (
  scope BLOB NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL, request BLOB NOT NULL, status INTEGER NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (scope, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answer_age ON answer (at_ms);
CREATE TABLE IF NOT EXISTS peer (
  node BLOB PRIMARY KEY, public_key BLOB NOT NULL, name TEXT NOT NULL, address TEXT, added_ms INTEGER NOT NULL,
  removed_ms INTEGER, contact_ms INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revoked (
  node BLOB PRIMARY KEY, at_ms INTEGER NOT NULL, about TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS granted (
  issuer BLOB NOT NULL, holder BLOB NOT NULL, serial INTEGER NOT NULL, statement BLOB NOT NULL,
  PRIMARY KEY (issuer, holder)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cut (
  node BLOB NOT NULL, name BLOB NOT NULL, said_by BLOB NOT NULL, cut BLOB NOT NULL, UNIQUE (node, name));
CREATE TABLE IF NOT EXISTS late (
  id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, origin INTEGER NOT NULL, seq INTEGER NOT NULL,
  at_ms INTEGER, kind INTEGER NOT NULL, key BLOB NOT NULL, inverse BLOB NOT NULL,
  UNIQUE (stream, origin, seq));
CREATE INDEX IF NOT EXISTS late_record ON late (kind, key);
CREATE TABLE IF NOT EXISTS late_walk (node BLOB PRIMARY KEY, pos INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS courier (
  node BLOB PRIMARY KEY, has BLOB NOT NULL, bundle_key BLOB NOT NULL, made_ms INTEGER NOT NULL,
  heard_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bucket (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, url TEXT NOT NULL, access BLOB NOT NULL,
  is_open INTEGER NOT NULL, added_ms INTEGER NOT NULL, contact_ms INTEGER);
CREATE TABLE IF NOT EXISTS bucket_object (
  bucket INTEGER NOT NULL, name TEXT NOT NULL, about BLOB NOT NULL, PRIMARY KEY (bucket, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bucket_member (
  bucket INTEGER NOT NULL, node BLOB NOT NULL, name TEXT NOT NULL, object TEXT NOT NULL, has BLOB NOT NULL,
  bundle_key BLOB NOT NULL, refused BLOB NOT NULL, seen_ms INTEGER NOT NULL,
  PRIMARY KEY (bucket, node)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invitation (
  secret_hash BLOB PRIMARY KEY, expires_ms INTEGER NOT NULL) WITHOUT ROWID;
";

/// Columns that came after the first release of their table.
const LATER_COLUMNS: &[(&str, &str, &str)] = &[
    ("job", "tenant", "BLOB"),
    ("job", "user", "BLOB"),
    ("job", "lease", "INTEGER NOT NULL DEFAULT 0"),
    ("job", "created_ms", "INTEGER NOT NULL DEFAULT 0"),
    ("job", "started_ms", "INTEGER"),
    ("job", "ended_ms", "INTEGER"),
    ("job", "note", "TEXT"),
    ("job", "position", "TEXT"),
    ("job", "share", "BLOB NOT NULL DEFAULT x''"),
    ("stream", "leaving", "INTEGER NOT NULL DEFAULT 0"),
    ("peer", "carries", "BLOB"),
    ("blob_want", "asked_ms", "INTEGER"),
    ("courier", "lacks", "BLOB NOT NULL DEFAULT x''"),
    ("invitation", "rights", "BLOB"),
    ("courier", "carries", "BLOB"),
    ("bucket_member", "carries", "BLOB"),
    ("bucket_member", "lacks", "BLOB NOT NULL DEFAULT x''"),
    ("bucket_member", "lacks_object", "TEXT NOT NULL DEFAULT ''"),
    ("bucket_member", "states", "BLOB"),
];

const LATER_INDEXES: &str = "
CREATE INDEX IF NOT EXISTS job_tenant ON job (tenant, id);
CREATE INDEX IF NOT EXISTS job_turn ON job (share, run_at_ms) WHERE state IN ('waiting', 'running');
";

pub const DERIVED_TABLES: [&str; 4] = ["claim", "element", "blob_ref", "total"];

/// Makes what is missing. Returns the kinds whose read model is of another version and must be rebuilt.
pub fn prepare(conn: &Connection, kinds: &[&'static Kind]) -> Result<Vec<&'static Kind>> {
    let format: i64 = conn.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    if format > FORMAT {
        return Err(Error::Newer { found: format, known: FORMAT });
    }
    conn.execute_batch(TABLES)?;
    add_later_columns(conn)?;
    // To set it is a write, and a full disk takes none.
    if format != FORMAT {
        conn.pragma_update(None, "user_version", FORMAT)?;
    }
    let mut stale = Vec::new();
    for kind in kinds {
        crate::conflict::hush(conn, kind)?;
        let name = format!("view.{}", kind.name);
        let known: Option<Vec<u8>> = meta(conn, &name)?;
        let version = kind.view_version();
        if known.is_none() {
            create_view(conn, kind)?;
            put_meta(conn, &name, &version)?;
            if has_aliens(conn, kind)? {
                stale.push(*kind);
            }
        } else if known.as_deref() != Some(&version) {
            stale.push(*kind);
        }
    }
    Ok(stale)
}

/// A plan never depends on what is bound to it. Without this SQLite looks at bound values for some statements (a LIMIT, a
/// LEFT JOIN), and prepares those anew at each use.
pub fn plan_once(conn: &Connection) -> Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn add_later_columns(conn: &Connection) -> Result<()> {
    for (table, column, ty) in LATER_COLUMNS {
        let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
        if !conn.query_row(sql, [table, column], |r| r.get::<_, bool>(0))? {
            conn.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {ty}"))?;
        }
    }
    Ok(conn.execute_batch(LATER_INDEXES)?)
}

fn has_aliens(conn: &Connection, kind: &Kind) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM alien WHERE kind = ?1)";
    Ok(conn.query_row(sql, [kind.code], |r| r.get(0))?)
}

pub fn meta(conn: &Connection, name: &str) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT value FROM meta WHERE name = ?1";
    Ok(conn.prepare_cached(sql)?.query_row([name], |r| r.get(0)).optional()?)
}

pub fn put_meta(conn: &Connection, name: &str, value: &[u8]) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}

pub fn table_of(kind: &Kind) -> String {
    format!("k_{}", kind.name)
}

pub fn create_view(conn: &Connection, kind: &Kind) -> Result<()> {
    let mut columns = String::new();
    for (name, ty) in kind.columns() {
        let affinity = match ty {
            Type::Text => "TEXT",
            Type::Int | Type::Bool | Type::Time => "INTEGER",
            Type::Id | Type::Bytes => "BLOB",
        };
        columns.push_str(&format!(", c_{name} {affinity}"));
    }
    if kind.tree.is_some() {
        columns.push_str(", c_tree_parent BLOB");
    }
    let table = table_of(kind);
    conn.execute_batch(&format!(
        "CREATE TABLE {table} (key BLOB PRIMARY KEY, tenant BLOB NOT NULL, stream INTEGER NOT NULL, \
         c_created_at INTEGER NOT NULL, c_updated_at INTEGER NOT NULL{columns}, digest BLOB NOT NULL, \
         state BLOB NOT NULL) WITHOUT ROWID;
         CREATE INDEX {table}_0 ON {table} (tenant, c_created_at, key);"
    ))?;
    for (number, index) in kind.indexes.iter().enumerate() {
        let columns: Vec<String> =
            index.iter().map(|c| format!("c_{}", c.trim_start_matches('+'))).collect();
        let (columns, only) = (columns.join(", "), only_rows(kind, index));
        let sql = format!(
            "CREATE INDEX {table}_{} ON {table} (tenant, {columns}, key){only}",
            number + 1
        );
        conn.execute_batch(&sql)?;
    }
    Ok(())
}

/// Rows that nobody looks for by an index are left out of it, and cost it nothing: those without a reference or without
/// the flag that it begins with, and those without a value where the declaration says so.
fn only_rows(kind: &Kind, index: &[&str]) -> String {
    let first = index.first().and_then(|first| kind.columns().find(|(name, _)| name == first));
    let first = match first {
        Some((name, Type::Bool)) => Some(format!("c_{name} = 1")),
        Some((name, Type::Id)) => Some(format!("c_{name} IS NOT NULL")),
        _ => None,
    };
    let sparse = index.iter().filter_map(|c| c.strip_prefix('+'));
    let sparse = sparse.map(|name| format!("c_{name} IS NOT NULL"));
    let all: Vec<String> = first.into_iter().chain(sparse).collect();
    if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
}

/// The statements of one kind, made once.
pub struct Plan {
    pub kind: &'static Kind,
    pub get: String,
    pub put: String,
    pub remove: String,
    /// Fields with a claim, in the order of their columns in `get`.
    pub claims: Vec<Field>,
    pub indexed_sets: Vec<Field>,
    pub head: String,
}

impl Plan {
    pub fn new(kind: &'static Kind) -> Self {
        let table = table_of(kind);
        let claims: Vec<Field> =
            kind.fields.iter().filter(|f| f.claim.is_some()).copied().collect();
        let is_set = |f: &&Field| f.merge == Merge::Set && f.column;
        let mut head = "key, tenant, state, digest, stream".to_owned();
        claims.iter().for_each(|f| head.push_str(&format!(", c_{}", f.name)));
        if kind.tree.is_some() {
            head.push_str(", c_tree_parent");
        }
        let tree = usize::from(kind.tree.is_some());
        let marks = vec!["?"; 7 + kind.columns().count() + tree];
        Self {
            kind,
            get: format!("SELECT {head} FROM {table} WHERE key = ?1"),
            // In the order in which `create_view` has them: the text is hashed whenever the statement is used.
            put: format!("INSERT OR REPLACE INTO {table} VALUES ({})", marks.join(",")),
            remove: format!("DELETE FROM {table} WHERE key = ?1"),
            indexed_sets: kind.fields.iter().filter(is_set).copied().collect(),
            claims,
            head,
        }
    }
}
