//! What a node is told from outside, and the defaults. Every setting is declared once, in the table of
//! `config/setting.rs`. Reads no file and no variable itself; that is the command line's work.

mod loaded;
mod setting;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use loaded::{Given, Loaded, Source};
pub use setting::{SETTINGS, Setting, reference};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Pretty,
    Json,
}

/// What a node is told from outside. Everything has a default.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub sync_listen: SocketAddr,
    /// `host:port` at which other nodes reach this one; empty: the address it listens on.
    pub sync_address: String,
    pub name: String,
    /// Without a slash at its end; empty: made of `listen`.
    pub public_url: String,
    pub log: LogFormat,
    pub log_level: String,
    pub admin_email: String,
    pub mail: Mail,
    pub oidc: Oidc,
    pub limits: Limits,
    pub posts: Posts,
    pub import: Import,
    pub export: Export,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    /// Empty: nothing is sent.
    pub server: Secret,
    pub from: String,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Oidc {
    /// Hosts of providers that may stand at internal addresses, and be without encryption.
    pub internal_hosts: Vec<String>,
}

/// A value with a password in it: taken, compared, and never shown whole.
#[derive(Clone, PartialEq, Default)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&value::shown(self))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Requests a second that one address or user may make for long; 0 for no limit.
    pub rate: u32,
    /// Requests that it may make at once.
    pub burst: u32,
    /// Where an endpoint names no limit of its own.
    pub body_bytes: usize,
    pub request_timeout_s: u64,
    /// Requests in work at once; beyond them the answer is 503.
    pub requests: usize,
    pub cache_bytes: u64,
    /// Proxies in front of this node whose `X-Forwarded-For` is believed.
    pub proxies: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Posts {
    /// Days that a post stays in the trash; 0 keeps it for good.
    pub trash_days: u32,
    /// The path of a post's page, with `{slug}` or `{id}` in it.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// Of a file that is sent to be imported.
    pub max_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// How long an export, and the report of an import, can be fetched.
    pub keep_hours: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("atoll-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            sync_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            sync_address: String::new(),
            name: "atoll".to_owned(),
            public_url: String::new(),
            log: LogFormat::Pretty,
            log_level: "info".to_owned(),
            admin_email: "admin@atoll.local".to_owned(),
            mail: Mail::default(),
            oidc: Oidc::default(),
            limits: Limits::default(),
            posts: Posts::default(),
            import: Import { max_bytes: 1 << 30 },
            export: Export { keep_hours: 48 },
        }
    }
}

impl Default for Mail {
    fn default() -> Self {
        Self { server: Secret::default(), from: "Atoll <atoll@localhost>".to_owned() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rate: 100,
            burst: 400,
            body_bytes: 2 << 20,
            request_timeout_s: 30,
            requests: 512,
            cache_bytes: 32 << 20,
            proxies: 0,
        }
    }
}

impl Default for Posts {
    fn default() -> Self {
        Self { trash_days: 30, path: "/api/v1/posts/slug/{slug}".to_owned() }
    }
}
