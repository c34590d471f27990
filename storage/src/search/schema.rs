//! The fields of the index, and how a document fills them. Bodies are indexed and never stored.

use super::Document;
use super::gate::Gate;
use super::words::{analyzer_until, clip};
use crate::id::Id;
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, SchemaBuilder,
    TextFieldIndexing, TextOptions,
};
use tantivy::{Index, TantivyDocument, Term};

/// Raised with any change to the fields below or to how words are cut.
pub const FORMAT: u32 = 1;

const ANALYZER: &str = "words";
const MAX_TITLE_BYTES: usize = 2_000;
const MAX_BODY_BYTES: usize = 1 << 20;
const MAX_NAME_BYTES: usize = 64;
const MAX_VALUE_BYTES: usize = 256;
/// Of keywords and of facets, each.
const MAX_LIST: usize = 100;
/// Stands between a facet's name and its value; no text keeps it.
pub const SEPARATOR: char = '\u{1f}';

pub const ID_HIGH: &str = "id_high";
pub const ID_LOW: &str = "id_low";
pub const KIND: &str = "kind";
pub const DATE: &str = "date";
pub const RANK: &str = "rank";
pub const FACET: &str = "facet";

#[derive(Clone, Copy)]
pub struct Fields {
    pub id: Field,
    id_high: Field,
    id_low: Field,
    pub kind: Field,
    pub tenant: Field,
    pub title: Field,
    pub keywords: Field,
    pub body: Field,
    pub public: Field,
    pub status: Field,
    pub parent: Field,
    pub facet: Field,
    pub date: Field,
    rank: Field,
}

/// The fields always come in this order, so that the same build of them names those of an index on disk.
pub fn build() -> (Schema, Fields) {
    let mut schema = SchemaBuilder::new();
    let fields = Fields {
        id: schema.add_bytes_field("id", INDEXED),
        id_high: schema.add_u64_field(ID_HIGH, FAST),
        id_low: schema.add_u64_field(ID_LOW, FAST),
        kind: schema.add_u64_field(KIND, INDEXED | FAST),
        tenant: schema.add_bytes_field("tenant", INDEXED),
        title: schema.add_text_field("title", prose() | STORED),
        keywords: schema.add_text_field("keywords", prose()),
        body: schema.add_text_field("body", prose()),
        public: schema.add_bool_field("public", INDEXED),
        status: schema.add_text_field("status", STRING),
        parent: schema.add_bytes_field("parent", INDEXED),
        facet: schema.add_text_field(FACET, STRING | FAST),
        date: schema.add_i64_field(DATE, FAST),
        rank: schema.add_u64_field(RANK, FAST),
    };
    (schema.build(), fields)
}

fn prose() -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(ANALYZER)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    TextOptions::default().set_indexing_options(indexing)
}

/// For what is indexed: no words are cut any more once the gate is shut.
pub fn register_analyzer(index: &Index, gate: Gate) {
    index.tokenizers().register(ANALYZER, analyzer_until(gate));
}

/// The one term of a facet's value.
pub fn facet_term(name: &str, value: &str) -> String {
    let plain = |text: &str, bytes| clip(text, bytes).replace(SEPARATOR, " ");
    format!("{}{SEPARATOR}{}", plain(name, MAX_NAME_BYTES), plain(value, MAX_VALUE_BYTES))
}

pub fn status_text(status: &str) -> &str {
    clip(status, MAX_NAME_BYTES)
}

pub fn halves(id: Id) -> (u64, u64) {
    let whole = u128::from_be_bytes(id.0);
    ((whole >> 64) as u64, whole as u64)
}

pub fn joined(high: u64, low: u64) -> Id {
    Id((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

impl Fields {
    pub fn id_term(&self, id: Id) -> Term {
        Term::from_field_bytes(self.id, &id.0)
    }

    pub fn row(&self, document: &Document) -> TantivyDocument {
        let mut row = TantivyDocument::new();
        let (high, low) = halves(document.id);
        row.add_bytes(self.id, &document.id.0);
        row.add_u64(self.id_high, high);
        row.add_u64(self.id_low, low);
        row.add_u64(self.kind, u64::from(document.kind));
        row.add_bytes(self.tenant, &document.tenant.0);
        row.add_text(self.title, clip(&document.title, MAX_TITLE_BYTES));
        row.add_text(self.body, clip(&document.body, MAX_BODY_BYTES));
        for keyword in document.keywords.iter().take(MAX_LIST) {
            row.add_text(self.keywords, clip(keyword, MAX_VALUE_BYTES));
        }
        row.add_bool(self.public, document.public);
        row.add_text(self.status, status_text(&document.status));
        if let Some(parent) = document.parent {
            row.add_bytes(self.parent, &parent.0);
        }
        for (name, value) in document.facets.iter().take(MAX_LIST) {
            row.add_text(self.facet, facet_term(name, value));
        }
        row.add_i64(self.date, document.date_ms);
        row.add_u64(self.rank, document.rank);
        row
    }
}
