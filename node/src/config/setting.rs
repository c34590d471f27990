//! The table of settings, and the reference that is made from it.

use super::Config;
use super::form::{
    email, folder, host_and_port, hosts, log_format, mail_server, name, origins, parsed, path,
    policies, post_path, rules, sender, shown, text, url, within,
};

/// One setting: the row of the table.
pub struct Setting {
    /// As in the file; a dot stands for a table (`limits.rate` is `rate` under `[limits]`).
    pub name: &'static str,
    pub doc: &'static str,
    /// What its values look like, for the reference.
    pub form: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
    show: fn(&Config) -> String,
}

impl Setting {
    /// `ATOLL_LIMITS_RATE` for `limits.rate`.
    pub fn variable(&self) -> String {
        format!("ATOLL_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// # Errors
    /// What the value should look like, without the setting's name.
    pub fn set(&self, config: &mut Config, value: &str) -> Result<(), String> {
        (self.set)(config, value).map_err(|why| format!("{why}; expected {}", self.form))
    }

    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The setting whose name is spelled most like this one, if any is near.
    pub fn nearest(name: &str) -> Option<&'static str> {
        let distance = |known: &str| edit_distance(name, known);
        let nearest =
            SETTINGS.iter().map(|setting| setting.name).min_by_key(|known| distance(known))?;
        (distance(nearest) <= 2.max(name.chars().count() / 3)).then_some(nearest)
    }
}

macro_rules! setting {
    ($name:literal, $form:literal, $doc:literal, $($field:ident).+, $read:expr) => {
        Setting {
            name: $name,
            doc: $doc,
            form: $form,
            set: |config, value| {
                config.$($field).+ = $read(value)?;
                Ok(())
            },
            show: |config| shown(&config.$($field).+),
        }
    };
}

pub static SETTINGS: &[Setting] = &[
    setting!(
        "data",
        "a folder",
        "The data folder; made (mode 0700) if it is not there.",
        data,
        path
    ),
    setting!(
        "listen",
        "an address and a port",
        "Where HTTP listens. Port 0 lets the system choose.",
        listen,
        parsed
    ),
    setting!(
        "sync_listen",
        "an address and a port",
        "Where other nodes are answered (QUIC, UDP).",
        sync_listen,
        parsed
    ),
    setting!(
        "sync_address",
        "host:port, or nothing",
        "Where other nodes reach this one, for tickets; the address of `sync_listen` if empty.",
        sync_address,
        host_and_port
    ),
    setting!(
        "sync.discover",
        "true or false",
        "Whether this node announces itself on its network (by multicast DNS, with its id and name), and looks who else \
         is there. A ticket is needed to join all the same.",
        sync.discover,
        parsed
    ),
    setting!(
        "sync.bucket_s",
        "a number from 1 to 604800",
        "Seconds between two visits to each bucket. After a visit that failed the pause grows, to half an hour at most.",
        sync.bucket_s,
        |value| within(value, 1, 604_800)
    ),
    setting!(
        "name",
        "up to 60 characters",
        "What this node calls itself in front of people and peers.",
        name,
        name
    ),
    setting!(
        "public_url",
        "a URL that begins with http:// or https://",
        "The URL that browsers use, if a proxy stands in front; made of `listen` if empty.",
        public_url,
        url
    ),
    setting!(
        "cors_origins",
        "origins such as https://example.org, separated by commas; * for any, or nothing",
        "Whose pages may call the API from a browser. They send a token; cookies do not come along.",
        cors_origins,
        origins
    ),
    setting!("log", "pretty or json", "The form of log lines.", log, log_format),
    setting!(
        "log_level",
        "error, warn, info, debug, trace, or a list such as info,atoll_sync=debug",
        "How much is logged.",
        log_level,
        text
    ),
    setting!(
        "admin_email",
        "an e-mail address",
        "The first admin, made at the first start.",
        admin_email,
        email
    ),
    setting!(
        "mail.server",
        "smtp://user:password@host:port, smtps://..., or nothing",
        "The server that takes mail. With a password the link must be encrypted, unless the server is this machine. \
         Without a server nothing is sent, and the log tells what would have been.",
        mail.server,
        mail_server
    ),
    setting!(
        "mail.from",
        "an e-mail address, or a name with one: Atoll <atoll@example.org>",
        "The sender of all mail.",
        mail.from,
        sender
    ),
    setting!(
        "oidc.internal_hosts",
        "host names and addresses with commas between, or nothing",
        "Hosts of OpenID providers that may stand at internal addresses, and be without encryption. All others are asked \
         over https only, and only at public addresses, whatever a tenant's administrator writes.",
        oidc.internal_hosts,
        hosts
    ),
    setting!(
        "limits.rate",
        "a number from 0 to 1000000",
        "Requests a second that one address or user may make for long; 0 for no limit.",
        limits.rate,
        |value| within(value, 0, 1_000_000)
    ),
    setting!(
        "limits.burst",
        "a number from 1 to 1000000",
        "Requests that one address or user may make at once.",
        limits.burst,
        |value| within(value, 1, 1_000_000)
    ),
    setting!(
        "limits.sign_ins_per_minute",
        "a number from 0 to 1000000",
        "Sign-ins, and other tries at a secret, that one address may make a minute; 0 for no limit.",
        limits.sign_ins_per_minute,
        |value| within(value, 0, 1_000_000)
    ),
    setting!(
        "limits.body_bytes",
        "a number from 1024 to 1073741824",
        "The largest request body where an endpoint names no limit of its own.",
        limits.body_bytes,
        |value| within(value, 1_024, 1 << 30)
    ),
    setting!(
        "limits.request_timeout_s",
        "a number from 1 to 3600",
        "Seconds after which a request is given up.",
        limits.request_timeout_s,
        |value| within(value, 1, 3_600)
    ),
    setting!(
        "limits.requests",
        "a number from 1 to 100000",
        "Requests in work at once; beyond them the answer is 503.",
        limits.requests,
        |value| within(value, 1, 100_000)
    ),
    setting!(
        "limits.cache_bytes",
        "a number from 8388608 to 68719476736",
        "What the cache may take on disk.",
        limits.cache_bytes,
        |value| within(value, 8 << 20, 64 << 30)
    ),
    setting!(
        "limits.proxies",
        "a number from 0 to 8",
        "How many proxies stand in front, whose X-Forwarded-For is believed.",
        limits.proxies,
        |value| within(value, 0, 8)
    ),
    setting!(
        "posts.trash_days",
        "a number from 0 to 3650",
        "Days after which a post in the trash is removed for good; 0 keeps it.",
        posts.trash_days,
        |value| within(value, 0, 3_650)
    ),
    setting!(
        "posts.path",
        "a path with {slug} or {id} in it",
        "Where the site shows a post, for links in feeds, sitemaps and metadata.",
        posts.path,
        post_path
    ),
    setting!(
        "history_days",
        "a number from 0 to 36500",
        "Days for which the log of writes is kept. A node that was away for less gets what it lacks write by write; \
         one that was away longer is reconciled with what is here now. 0 keeps the log for good.",
        history_days,
        |value| within(value, 0, 36_500)
    ),
    setting!(
        "history_acknowledged_days",
        "a number from 0 to 36500",
        "Days after which writes leave the log that every listed peer has acknowledged since this node was started, or told \
         by a bundle; 0 waits for `history_days`. `atoll restore --at` reaches back as far as the log does.",
        history_acknowledged_days,
        |value| within(value, 0, 36_500)
    ),
    setting!(
        "tenants.keep_days",
        "a number from 0 to 3650",
        "Days for which a deleted tenant can be restored; then all that was in it is removed for good. 0 keeps it. Give \
         all nodes of a network the same.",
        tenants.keep_days,
        |value| within(value, 0, 3_650)
    ),
    setting!(
        "import.max_bytes",
        "a number from 1024 to 1099511627776",
        "The largest file that is taken to be imported.",
        import.max_bytes,
        |value| within(value, 1_024, 1 << 40)
    ),
    setting!(
        "export.keep_hours",
        "a number from 1 to 8760",
        "Hours for which an export, and the report of an import, can be fetched.",
        export.keep_hours,
        |value| within(value, 1, 8_760)
    ),
    setting!(
        "backup.every_hours",
        "a number from 0 to 8760",
        "Hours between two backups that the node makes by itself, each of which it restores and verifies; 0 for none.",
        backup.every_hours,
        |value| within(value, 0, 8_760)
    ),
    setting!(
        "backup.keep",
        "a number from 1 to 1000",
        "How many proven backups stay. The last proven one is never removed.",
        backup.keep,
        |value| within(value, 1, 1_000)
    ),
    setting!(
        "backup.folder",
        "a folder, or nothing",
        "Where the node's own backups lie; `backups` in the data folder if empty. Another disk is better: it needs room \
         for those that are kept and twice a backup more.",
        backup.folder,
        folder
    ),
    setting!(
        "blobs.policy",
        "scope=pin, scope=eager, scope=lazy or scope=never, separated by commas; or nothing",
        "What becomes of files that records of a scope name and that are on other nodes. `pin`: fetched at once and never \
         dropped; `eager`: fetched at once; `lazy`: fetched when somebody asks for them, dropped when room is needed; \
         `never`: not fetched. In a scope that is not named, small files are eager and others lazy.",
        blobs.policy,
        policies
    ),
    setting!(
        "blobs.eager_bytes",
        "a number from 0 to 1099511627776",
        "The largest file that is small.",
        blobs.eager_bytes,
        |value| within(value, 0, 1 << 40)
    ),
    setting!(
        "blobs.quota_bytes",
        "a number from 0 to 1152921504606846976",
        "What files may take on this node's disk before lazy ones are dropped that another node has; 0 for no limit. \
         What is uploaded here is taken all the same.",
        blobs.quota_bytes,
        |value| within(value, 0, 1 << 60)
    ),
    setting!(
        "blobs.keep_free_bytes",
        "a number from 0 to 1152921504606846976",
        "What is left free of the disk: with less, no files are fetched from other nodes.",
        blobs.keep_free_bytes,
        |value| within(value, 0, 1 << 60)
    ),
    setting!(
        "blobs.wait_s",
        "a number from 0 to 3600",
        "Seconds for which a request waits for a file that is on its way from another node.",
        blobs.wait_s,
        |value| within(value, 0, 3_600)
    ),
    setting!(
        "sync.bucket_files_bytes",
        "a number from 0 to 1152921504606846976",
        "This node leaves files for others in a bucket while all that are there take no more than this; 0 to leave none.",
        sync.bucket_files_bytes,
        |value| within(value, 0, 1 << 60)
    ),
    setting!(
        "sync.bucket_visit_bytes",
        "a number from 8388608 to 1152921504606846976",
        "What of files this node leaves, and takes, in one visit to a bucket at most; the rest follows with the next.",
        sync.bucket_visit_bytes,
        |value| within(value, 8 << 20, 1 << 60)
    ),
    setting!(
        "sync.carries",
        "rules such as *, -*/community, with tenants by id, or nothing",
        "What of the network a new node carries: tenant/scope with * for any, and - in front of what is left out; the last \
         rule that fits decides. Everything if empty. Read at the first start only; later `atoll sync carry` changes it.",
        sync.carries,
        rules
    ),
];

/// The reference of all settings, as docs/CONFIG.md holds it.
pub fn reference() -> String {
    let mut text = String::from(
        "# Settings\n\nMade from the table in `node/src/config/setting.rs`; do not edit.\n\n\
         A flag stands over a variable, a variable over the file, the file over the default. `atoll init --name` has the data folder \
         keep the name of its node, which stands between the two. The file is the one named \
         by `--config` or `ATOLL_CONFIG`, else `atoll.toml` in the current folder. A name with a dot stands in a table: \
         `limits.rate` is `rate` under `[limits]`. Any setting can be given as `--set NAME=VALUE`. \
         `atoll config show` prints every value with its source.\n\n\
         | setting | variable | default | form | |\n| --- | --- | --- | --- | --- |\n",
    );
    let config = Config::default();
    for setting in SETTINGS {
        let default = setting.show(&config);
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let row = [
            format!("`{}`", setting.name),
            format!("`{}`", setting.variable()),
            default,
            setting.form.to_owned(),
            setting.doc.to_owned(),
        ];
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text.push_str(
        "\n`ATOLL_ADMIN_PASSWORD` is the first admin's password; without it one is made and shown once. It is never \
         read from the file or a flag.\n",
    );
    text
}

/// How many letters must be put in, left out or changed.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
