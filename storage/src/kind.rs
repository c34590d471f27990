//! What an entity is, declared once: its fields, how each merges, what is a column, indexed, searched, shown.
//! From this come the table, the merge, sync, rebuild, export and the OpenAPI schema.

use crate::record::Record;
use crate::value::Value;

/// How a field's values from different nodes become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// The last writer wins; concurrent values are kept as a conflict.
    Register,
    /// Elements added and removed one by one.
    Set,
    /// Long text, merged by character.
    Body,
    /// A total an origin, summed.
    Counter,
    /// Distinct members, estimated.
    Sketch,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    Text,
    Int,
    Bool,
    Id,
    /// Unix milliseconds; RFC 3339 over HTTP.
    Time,
    Bytes,
}

/// Who sees a field over HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    Always,
    /// To the record's owner and to those who administer it.
    Privately,
    Never,
}

#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Stable for ever: it names the field in ops.
    pub code: u16,
    pub name: &'static str,
    pub ty: Type,
    pub merge: Merge,
    pub shown: Shown,
    /// May be set by clients.
    pub writable: bool,
    pub required: bool,
    /// Most characters, bytes or elements.
    pub max: usize,
    pub column: bool,
    /// The space in which this name must be unique in its tenant.
    pub claim: Option<&'static str>,
    /// The closed list of values.
    pub choices: &'static [&'static str],
    /// The kind that an id refers to, by name.
    pub refers: Option<&'static str>,
    /// Its values, or some of them, are names of blobs.
    pub blob: bool,
    /// Nobody writes it by hand: where writes made apart meet in it, the inbox says nothing.
    pub silent: bool,
    pub doc: &'static str,
}

impl Field {
    const fn new(code: u16, name: &'static str, ty: Type, merge: Merge) -> Self {
        Self {
            code,
            name,
            ty,
            merge,
            shown: Shown::Always,
            writable: true,
            required: false,
            max: 1_000,
            column: false,
            claim: None,
            choices: &[],
            refers: None,
            blob: false,
            silent: false,
            doc: "",
        }
    }

    pub const fn text(code: u16, name: &'static str) -> Self {
        Self::new(code, name, Type::Text, Merge::Register)
    }

    pub const fn int(code: u16, name: &'static str) -> Self {
        Self::new(code, name, Type::Int, Merge::Register)
    }

    pub const fn flag(code: u16, name: &'static str) -> Self {
        Self::new(code, name, Type::Bool, Merge::Register)
    }

    pub const fn time(code: u16, name: &'static str) -> Self {
        Self::new(code, name, Type::Time, Merge::Register)
    }

    pub const fn bytes(code: u16, name: &'static str) -> Self {
        Self::new(code, name, Type::Bytes, Merge::Register)
    }

    /// An id that refers to a record of the kind named.
    pub const fn refers(code: u16, name: &'static str, kind: &'static str) -> Self {
        let mut field = Self::new(code, name, Type::Id, Merge::Register);
        field.refers = Some(kind);
        field
    }

    pub const fn set(code: u16, name: &'static str, ty: Type) -> Self {
        let mut field = Self::new(code, name, ty, Merge::Set);
        field.max = 100;
        field
    }

    pub const fn body(code: u16, name: &'static str) -> Self {
        let mut field = Self::new(code, name, Type::Text, Merge::Body);
        field.max = 1 << 20;
        field
    }

    pub const fn counter(code: u16, name: &'static str) -> Self {
        Self::new(code, name, Type::Int, Merge::Counter).read_only()
    }

    pub const fn sketch(code: u16, name: &'static str) -> Self {
        Self::new(code, name, Type::Int, Merge::Sketch).read_only()
    }

    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    #[must_use]
    pub const fn max(mut self, max: usize) -> Self {
        self.max = max;
        self
    }

    /// Kept as a column: it can be filtered, sorted and indexed.
    #[must_use]
    pub const fn column(mut self) -> Self {
        self.column = true;
        self
    }

    /// A name that is unique in its tenant within `space`.
    #[must_use]
    pub const fn claim(mut self, space: &'static str) -> Self {
        self.claim = Some(space);
        self.column = true;
        self
    }

    #[must_use]
    pub const fn choices(mut self, choices: &'static [&'static str]) -> Self {
        self.choices = choices;
        self
    }

    /// Holds names of blobs: as text in 64 hex digits, or as 32 bytes. What is none of both names no blob.
    #[must_use]
    pub const fn blob(mut self) -> Self {
        self.blob = true;
        self
    }

    /// Nobody writes it by hand: where writes made apart meet in it, the rule settles that and the inbox says nothing.
    #[must_use]
    pub const fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    #[must_use]
    pub const fn private(mut self) -> Self {
        self.shown = Shown::Privately;
        self
    }

    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.shown = Shown::Never;
        self.writable = false;
        self
    }

    #[must_use]
    pub const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }
}

/// A column computed from the record alone.
#[derive(Clone, Copy)]
pub struct Derived {
    pub name: &'static str,
    pub ty: Type,
    pub value: fn(&Record) -> Value,
}

/// Whether a kind's records travel, and how they may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Shared,
    /// Only ever added.
    Fact,
}

/// What the search index holds of a record.
pub struct SearchText {
    pub title: String,
    pub body: String,
    pub keywords: Vec<String>,
    pub public: bool,
    pub status: String,
    pub parent: Option<crate::id::Id>,
    pub facets: Vec<(String, String)>,
    pub date_ms: i64,
}

/// Raised when rows, indexes or counts come to be made differently of the same declarations.
const VIEWS: u32 = 2;

pub struct Kind {
    /// Stable for ever: it names the kind in ops.
    pub code: u16,
    /// Singular; the table and the type over HTTP.
    pub name: &'static str,
    pub plural: &'static str,
    /// The bounded context whose stream holds its records.
    pub scope: &'static str,
    pub class: Class,
    /// Raised whenever the fields change; travels in each op.
    pub schema: u16,
    pub fields: &'static [Field],
    pub derived: &'static [Derived],
    /// Columns of each index, in order; the key is always appended. `+column`: rows without a value in it are left out,
    /// and cost nothing; a query finds by such an index only what it says has a value.
    pub indexes: &'static [&'static [&'static str]],
    /// Columns whose values are counted as they change, for exact totals.
    pub counted: &'static [&'static str],
    /// A register whose reference makes a tree of the tenant's records: cycles resolve alike everywhere.
    pub tree: Option<u16>,
    pub search: Option<fn(&Record) -> Option<SearchText>>,
    /// Read by most writes and seldom changed: the writer keeps its records in memory.
    pub kept: bool,
    /// Its records say that others were erased: see [`crate::erasure`].
    pub erases: bool,
    /// Its records say what others' ops are made of: see [`crate::seal`].
    pub seals: bool,
    /// Its records say that nodes were removed from the network: see [`crate::revoked`].
    pub revokes: bool,
    /// True of a record whose removal was overruled by an edit made apart from it: the inbox shows it.
    pub revives: Option<fn(&Record) -> bool>,
    /// Nobody writes its records by hand: all their fields are [`Field::silent`].
    pub silent: bool,
    pub doc: &'static str,
}

impl Kind {
    pub const fn new(
        code: u16,
        name: &'static str,
        plural: &'static str,
        scope: &'static str,
    ) -> Self {
        Self {
            code,
            name,
            plural,
            scope,
            class: Class::Shared,
            schema: 1,
            fields: &[],
            derived: &[],
            indexes: &[],
            counted: &[],
            tree: None,
            search: None,
            kept: false,
            erases: false,
            seals: false,
            revokes: false,
            revives: None,
            silent: false,
            doc: "",
        }
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    pub fn field_by_code(&self, code: u16) -> Option<&Field> {
        self.fields.iter().find(|f| f.code == code)
    }

    /// Whether the inbox says nothing of writes made apart that meet in this field.
    pub fn is_silent(&self, field: u16) -> bool {
        self.silent || self.field_by_code(field).is_some_and(|field| field.silent)
    }

    pub fn columns(&self) -> impl Iterator<Item = (&'static str, Type)> {
        let plain = |f: &&Field| f.column && !matches!(f.merge, Merge::Set | Merge::Body);
        let fields = self.fields.iter().filter(plain).map(|f| (f.name, f.ty));
        fields.chain(self.derived.iter().map(|d| (d.name, d.ty)))
    }

    pub fn has_column(&self, name: &str) -> bool {
        matches!(name, "key" | "created_at" | "updated_at")
            || self.columns().any(|(n, _)| n == name)
    }

    /// Whether an index orders records by this column, and holds only those with a value in it.
    pub fn is_sparse(&self, column: &str) -> bool {
        self.indexes
            .iter()
            .any(|index| index.first().and_then(|c| c.strip_prefix('+')) == Some(column))
    }

    /// Whether an index gives all records in the order of this column: one that begins with a flag or a reference leaves
    /// some out.
    pub fn is_ordered_by(&self, column: &str) -> bool {
        let is_partial =
            self.columns().any(|(name, ty)| name == column && matches!(ty, Type::Bool | Type::Id));
        let begins = |index: &&[&str]| match index.first() {
            Some(first) => *first == column && !is_partial,
            None => false,
        };
        matches!(column, "key" | "created_at")
            || self.is_sparse(column)
            || self.indexes.iter().any(begins)
    }

    /// The version of the read model: any change of what it is made of changes it.
    pub fn view_version(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&VIEWS.to_le_bytes());
        for (name, ty) in self.columns() {
            hasher.update(format!("{name}:{ty:?};").as_bytes());
        }
        for field in self.fields {
            hasher
                .update(format!("{}:{:?}:{:?};", field.code, field.merge, field.claim).as_bytes());
            if field.blob {
                hasher.update(b"blob;");
            }
        }
        hasher.update(
            format!("{:?}{:?}{:?}{}", self.indexes, self.counted, self.tree, self.schema)
                .as_bytes(),
        );
        *hasher.finalize().as_bytes()
    }
}

/// A confirmation of a claim on a name, kept as a register beside the field's own.
pub const fn confirmation_of(field: u16) -> u16 {
    field | 0x8000
}
