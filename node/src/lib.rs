//! The domain: one folder a bounded context, each the one place that knows its rules, and the runtime that starts
//! the workers. Knows nothing of HTTP and parses no flags.

pub mod access;
pub mod audit;
pub mod backup;
pub mod blob;
pub mod bucket;
pub mod carries;
pub mod community;
pub mod config;
pub mod conflict;
pub mod content;
pub mod courier;
mod draft;
pub mod error;
pub mod exchange;
pub mod identity;
pub mod insight;
pub mod job;
pub mod kinds;
pub mod mail;
pub mod moment;
pub mod peer;
pub mod percent;
pub mod runtime;
pub mod seal;
pub mod search;

pub use access::{Actor, Permission, PermissionSet, Role};
pub use config::Config;
pub use error::{Error, FieldError, Result};
pub use runtime::Node;
