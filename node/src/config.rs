//! Every setting of a node, declared once: its name, what it does, its default, how it is read. From the table
//! come the file, the `ATOLL_*` variables, the flags, `config show` and the reference in docs/CONFIG.md.
//! Reads no file and no variable itself; that is the command line's work.

mod form;
mod loaded;
mod setting;

use crate::blob::policy::Policy;
use form::Show;
pub use loaded::{Given, Loaded, Source};
pub use setting::{SETTINGS, Setting, reference};

use std::net::SocketAddr;
use std::path::PathBuf;

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
    pub cors_origins: Origins,
    pub log: LogFormat,
    pub log_level: String,
    pub admin_email: String,
    pub mail: Mail,
    pub oidc: Oidc,
    pub limits: Limits,
    /// Days for which the log of ops is kept; 0 keeps it for good.
    pub history_days: u32,
    pub history_acknowledged_days: u32,
    pub posts: Posts,
    pub tenants: Tenants,
    pub import: Import,
    pub export: Export,
    pub backup: Backup,
    pub sync: Sync,
    pub blobs: Blobs,
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
        f.write_str(&self.show())
    }
}

/// Origins whose pages may call the API; `*` is any.
#[derive(Clone, Debug, PartialEq)]
pub struct Origins(pub Vec<String>);

impl Origins {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Requests a second that one address or user may make for long; 0 for no limit.
    pub rate: u32,
    /// Requests that it may make at once.
    pub burst: u32,
    /// Sign-ins and other tries at a secret that one address may make a minute; 0 for no limit.
    pub sign_ins_per_minute: u32,
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
pub struct Tenants {
    /// Days that a deleted tenant can be restored; 0 keeps it for good.
    pub keep_days: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// Of a file that is sent to be imported.
    pub max_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Blobs {
    pub policy: Policies,
    /// Up to this size a blob is fetched at once where its scope has no policy.
    pub eager_bytes: u64,
    /// What all blobs may take; 0 for no limit.
    pub quota_bytes: u64,
    /// What is left free of the disk.
    pub keep_free_bytes: u64,
    /// How long a request waits for a blob from another node.
    pub wait_s: u64,
}

/// By scope.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Policies(pub Vec<(String, Policy)>);

impl Policies {
    pub fn of(&self, scope: &str) -> Option<Policy> {
        self.0.iter().find(|(known, _)| known == scope).map(|(_, policy)| *policy)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// How long an export, and the report of an import, can be fetched.
    pub keep_hours: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// Announces itself to its network, and listens who else is there.
    pub discover: bool,
    /// Rules of what the node carries, for its first start; empty: everything.
    pub carries: Vec<String>,
    /// Between two visits to a bucket.
    pub bucket_s: u64,
    /// What files take in one bucket.
    pub bucket_files_bytes: u64,
    /// What of files goes, and comes, in one visit.
    pub bucket_visit_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Hours between two that the node makes by itself; 0: none.
    pub every_hours: u64,
    /// Proven ones that are kept.
    pub keep: usize,
    /// Empty: `backups` in the data folder.
    pub folder: PathBuf,
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
            cors_origins: Origins(vec!["*".to_owned()]),
            log: LogFormat::Pretty,
            log_level: "info".to_owned(),
            admin_email: "admin@atoll.local".to_owned(),
            mail: Mail::default(),
            oidc: Oidc::default(),
            limits: Limits::default(),
            posts: Posts::default(),
            history_days: 90,
            history_acknowledged_days: 0,
            tenants: Tenants { keep_days: 30 },
            import: Import { max_bytes: 1 << 30 },
            export: Export { keep_hours: 48 },
            sync: Sync {
                discover: false,
                carries: vec![],
                bucket_s: 60,
                bucket_files_bytes: 4 << 30,
                bucket_visit_bytes: 256 << 20,
            },
            backup: Backup { every_hours: 0, keep: 7, folder: PathBuf::new() },
            blobs: Blobs::default(),
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
            sign_ins_per_minute: 30,
            body_bytes: 2 << 20,
            request_timeout_s: 30,
            requests: 512,
            cache_bytes: 32 << 20,
            proxies: 0,
        }
    }
}

impl Default for Blobs {
    fn default() -> Self {
        Self {
            policy: Policies::default(),
            eager_bytes: 1 << 20,
            quota_bytes: 0,
            keep_free_bytes: 256 << 20,
            wait_s: 10,
        }
    }
}

impl Default for Posts {
    fn default() -> Self {
        Self { trash_days: 30, path: "/posts/{slug}".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(source: Source, name: &str, value: &str) -> Given {
        let (name, value) = (name.to_owned(), value.to_owned());
        Given { source, origin: source.name().to_owned(), name, value }
    }

    #[test]
    fn a_flag_stands_over_a_variable_and_a_variable_over_the_file() {
        let loaded = Loaded::new(vec![
            given(Source::Flag, "name", "flag"),
            given(Source::File, "name", "file"),
            given(Source::File, "limits.rate", "7"),
            given(Source::Variable, "name", "variable"),
            given(Source::Variable, "limits.rate", "8"),
            given(Source::File, "log", "json"),
        ])
        .unwrap();
        assert_eq!((loaded.config.name.as_str(), loaded.config.limits.rate), ("flag", 8));
        let source = |name: &str| loaded.rows().find(|row| row.0 == name).map(|row| row.2);
        assert_eq!(source("name"), Some(Source::Flag));
        assert_eq!(source("limits.rate"), Some(Source::Variable));
        assert_eq!(source("log"), Some(Source::File));
        assert_eq!(source("listen"), Some(Source::Default));
    }

    #[test]
    fn an_unknown_setting_names_the_nearest_and_all_mistakes_are_told() {
        let mistakes = Loaded::new(vec![
            given(Source::File, "lisen", "x"),
            given(Source::File, "limits.rate", "1000001"),
            given(Source::Flag, "listen", "here"),
        ])
        .unwrap_err();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes[0].contains("did you mean `listen`?"), "{mistakes:?}");
        assert!(mistakes[1].contains("from 0 to 1000000"), "{mistakes:?}");
        assert_eq!(Setting::nearest("something_else_entirely"), None);
    }

    #[test]
    fn the_password_of_the_mail_server_is_never_shown() {
        let mut config = Config::default();
        let setting = Setting::find("mail.server").unwrap();
        setting.set(&mut config, "smtp://ada:se%40cret@mail.example.org:587").unwrap();
        assert_eq!(setting.show(&config), "smtp://ada:***@mail.example.org:587");
        assert!(!format!("{config:?}").contains("cret"));
        for bad in ["mail.example.org", "http://mail.example.org", "smtp://"] {
            assert!(setting.set(&mut config, bad).is_err(), "{bad}");
        }
        let from = Setting::find("mail.from").unwrap();
        assert!(from.set(&mut config, "Ada <ada@example.org>").is_ok());
        assert!(from.set(&mut config, "ada").is_err());
    }

    #[test]
    fn every_setting_reads_back_what_it_shows() {
        let config = Config::default();
        for setting in SETTINGS {
            let mut copy = config.clone();
            setting.set(&mut copy, &setting.show(&config)).unwrap();
            assert_eq!(copy, config, "{}", setting.name);
        }
    }
}
