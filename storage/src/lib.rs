//! Storage: ops, records and everything that is made of them, in one SQLite file; beside it the search index,
//! the blobs and the cache. It knows records, logs, tables and bytes, but no post and no user.

mod ahead;
pub mod apply;
pub mod blob;
pub mod body;
pub mod bucket;
pub mod cache;
pub mod carries;
pub mod claim;
pub mod clock;
pub mod codec;
pub mod conflict;
pub mod courier;
pub mod db;
pub mod digest;
pub mod erasure;
pub mod error;
pub mod granted;
pub mod heads;
pub mod id;
pub mod idempotency;
pub mod job;
pub mod kind;
pub mod late;
mod listing;
mod log;
pub mod op;
pub mod outbox;
pub mod peer;
pub mod query;
pub mod read;
pub mod record;
pub mod reference;
pub mod replay;
pub mod replica;
pub mod revoked;
pub mod rights;
pub mod schema;
pub mod seal;
pub mod search;
mod shed;
pub mod sketch;
pub mod state;
pub mod store;
mod trim;
pub mod tx;
pub mod value;
pub mod vector;
pub mod verify;
pub mod view;

pub use carries::{Carries, Rule};
pub use clock::{Clock, Hlc};
pub use digest::Digest;
pub use error::{Error, Result};
pub use id::{Dot, Id, NodeId, Origin, StreamId};
pub use kind::{Class, Derived, Field, Kind, Merge, SearchText, Shown, Type};
pub use op::{Op, Payload};
pub use state::State;
pub use value::Value;
pub use vector::Vector;

pub use conflict::{Cause, Conflict, ConflictValue};
pub use db::{Applied, Chance, Db};
pub use heads::StreamHead;
pub use outbox::{Event, StoredEvent};
pub use query::{Cursor, Page, Query};
pub use read::{Quarantined, Read, Reader};
pub use record::Record;
pub use replica::{
    ChunkHead, Lane, OpBatch, RecordKey, RecordRange, Replica, SnapshotBody, SnapshotChunk,
    SnapshotIndex, SnapshotRecord,
};
pub use rights::Rights;
pub use store::{OpenOptions, Store, Unindexed};
pub use tx::{Changes, Tx};
pub use verify::Report;
