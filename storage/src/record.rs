//! A record as its readers see it: its state, seen through its kind.

use crate::digest::Digest;
use crate::id::Id;
use crate::kind::{Field, Kind, Merge};
use crate::state::State;
use crate::value::Value;

static NULL: Value = Value::Null;

#[derive(Clone)]
pub struct Record {
    pub kind: &'static Kind,
    pub key: Id,
    pub tenant: Id,
    pub state: State,
    /// The stream's number in this file; 0 until the record is stored.
    pub(crate) stream: i64,
    pub(crate) names: Vec<(u16, String)>,
    pub(crate) texts: Vec<(u16, String)>,
    pub(crate) tree_parent: Option<Id>,
    pub(crate) digest: Digest,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.name, self.key)
    }
}

impl Record {
    pub(crate) fn new(kind: &'static Kind, key: Id, tenant: Id, state: State) -> Self {
        Self {
            kind,
            key,
            tenant,
            state,
            stream: 0,
            names: vec![],
            texts: vec![],
            tree_parent: None,
            digest: Digest::default(),
        }
    }

    /// The winning value of a register; `Null` if there is none.
    pub fn value(&self, field: &Field) -> &Value {
        self.state.register(field.code).map_or(&NULL, |cell| &cell.value)
    }

    /// A register's text, "" if there is none. Of a claim: the name that this record answers to, which is not
    /// the one it wants if another record holds that.
    pub fn text(&self, field: &Field) -> &str {
        let name = self.names.iter().find(|(code, _)| *code == field.code);
        name.map_or_else(|| self.wanted(field), |(_, name)| name)
    }

    pub fn opt_text(&self, field: &Field) -> Option<&str> {
        Some(self.text(field)).filter(|text| !text.is_empty())
    }

    /// A claim's name as it was written.
    pub fn wanted(&self, field: &Field) -> &str {
        self.value(field).as_text().unwrap_or_default()
    }

    pub fn int(&self, field: &Field) -> Option<i64> {
        self.value(field).as_int()
    }

    pub fn flag(&self, field: &Field) -> bool {
        self.value(field).as_bool().unwrap_or(false)
    }

    pub fn id(&self, field: &Field) -> Option<Id> {
        self.value(field).as_id()
    }

    pub fn bytes(&self, field: &Field) -> Option<&[u8]> {
        self.value(field).as_bytes()
    }

    pub fn set(&self, field: &Field) -> impl Iterator<Item = &Value> {
        self.state.set(field.code)
    }

    pub fn has(&self, field: &Field, value: &Value) -> bool {
        self.set(field).any(|element| element == value)
    }

    /// A body's text; empty unless it was read with its bodies.
    pub fn body(&self, field: &Field) -> &str {
        self.texts.iter().find(|(code, _)| *code == field.code).map_or("", |(_, text)| text)
    }

    pub fn has_bodies(&self) -> bool {
        !self.texts.is_empty() || !self.kind.fields.iter().any(|f| f.merge == Merge::Body)
    }

    /// The automerge heads of the body that shows; empty if it was never edited.
    pub fn heads(&self, field: &Field) -> &[[u8; 32]] {
        self.state.body(field.code).map_or(&[], |body| &body.heads)
    }

    /// Names the text of a body without reading it: equal texts by equal edits have one name. None without a body.
    pub fn body_name(&self, field: &Field) -> Option<[u8; 32]> {
        let body = self.state.body(field.code)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&body.born).update(body.heads.as_flattened());
        Some(*hasher.finalize().as_bytes())
    }

    pub fn total(&self, field: &Field) -> u64 {
        self.state.total(field.code)
    }

    pub fn estimate(&self, field: &Field) -> u64 {
        self.state.sketches.get(&field.code).map_or(0, crate::sketch::Sketch::estimate)
    }

    /// When it was made, in Unix milliseconds by its maker's clock.
    pub fn created_ms(&self) -> u64 {
        self.state.created_hlc().ms()
    }

    pub fn updated_ms(&self) -> u64 {
        self.state.latest_hlc().ms()
    }

    /// A hash of the state: two records with one version are equal, bodies included.
    pub fn version(&self) -> [u8; 16] {
        let mut version = [0; 16];
        version.copy_from_slice(&self.digest.to_bytes()[..16]);
        version
    }

    /// The parent in the tenant's tree, after cycles were resolved. Only for kinds with a tree.
    pub fn tree_parent(&self) -> Option<Id> {
        self.tree_parent
    }
}
