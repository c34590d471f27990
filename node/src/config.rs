//! Every setting of a node, declared once: its name, what it does, its default, how it is read. From this table
//! come the file, the `ATOLL_*` variables, the flags, `config show` and the reference in docs/CONFIG.md.
//! Reads no file and no variable itself; that is the command line's work.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

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

/// A value with a password in it: taken, compared, and never shown whole.
#[derive(Clone, PartialEq, Default)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
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
        Self { trash_days: 30, path: "/posts/{slug}".to_owned() }
    }
}

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
];

/// Where a value came from, the strongest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    Default,
    File,
    Variable,
    Flag,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Variable => "variable",
            Self::Flag => "flag",
        }
    }
}

/// A value that somebody gave. `origin` is for error messages: `atoll.toml, line 3`, `ATOLL_LISTEN`, `--listen`.
#[derive(Clone, Debug)]
pub struct Given {
    pub source: Source,
    pub origin: String,
    pub name: String,
    pub value: String,
}

/// A configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    sources: Vec<Source>,
}

impl Loaded {
    /// Lays what was given over the defaults, the weakest source first.
    ///
    /// # Errors
    /// Every mistake, each a sentence that names its place.
    pub fn new(mut given: Vec<Given>) -> Result<Self, Vec<String>> {
        given.sort_by_key(|given| given.source);
        let mut loaded =
            Self { config: Config::default(), sources: vec![Source::Default; SETTINGS.len()] };
        let mistakes: Vec<String> =
            given.iter().filter_map(|given| loaded.lay(given).err()).collect();
        if mistakes.is_empty() { Ok(loaded) } else { Err(mistakes) }
    }

    fn lay(&mut self, given: &Given) -> Result<(), String> {
        let Some(at) = SETTINGS.iter().position(|setting| setting.name == given.name) else {
            let hint = Setting::nearest(&given.name)
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(format!("{}: there is no setting `{}`{hint}", given.origin, given.name));
        };
        SETTINGS[at]
            .set(&mut self.config, &given.value)
            .map_err(|why| format!("{}: `{}`: {why}", given.origin, given.name))?;
        self.sources[at] = given.source;
        Ok(())
    }

    /// Name, value and source of every setting, in the order of the table.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, String, Source)> + '_ {
        let row = |(setting, source): (&'static Setting, &Source)| {
            (setting.name, setting.show(&self.config), *source)
        };
        SETTINGS.iter().zip(&self.sources).map(row)
    }
}

/// The reference of all settings, as docs/CONFIG.md holds it.
pub fn reference() -> String {
    let mut text = String::from(
        "# Settings\n\nMade from the table in `node/src/config.rs`; do not edit.\n\n\
         A flag stands over a variable, a variable over the file, the file over the default. The file is the one named \
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

/// How a value is written in the file, without quotes.
trait Show {
    fn show(&self) -> String;
}

macro_rules! show_as_text {
    ($($ty:ty),*) => { $(impl Show for $ty {
        fn show(&self) -> String {
            self.to_string()
        }
    })* };
}

show_as_text!(String, SocketAddr, u32, u64, usize);

impl Show for Secret {
    /// With three asterisks in the place of the password.
    fn show(&self) -> String {
        let masked = || {
            let (scheme, rest) = self.0.split_once("://")?;
            let (login, host) = rest.rsplit_once('@')?;
            let user = login.split(':').next().unwrap_or_default();
            Some(format!("{scheme}://{user}:***@{host}"))
        };
        masked().unwrap_or_else(|| self.0.clone())
    }
}

impl Show for PathBuf {
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Show for LogFormat {
    fn show(&self) -> String {
        match self {
            Self::Pretty => "pretty".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

fn shown(value: &impl Show) -> String {
    value.show()
}

fn parsed<T: FromStr<Err: Display>>(value: &str) -> Result<T, String> {
    value.trim().parse().map_err(|error| format!("{value:?}: {error}"))
}

fn within<T: FromStr<Err: Display> + PartialOrd>(
    value: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let number: T = parsed(value)?;
    if number < least || number > most {
        Err(format!("{value} is out of range"))
    } else {
        Ok(number)
    }
}

fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(PathBuf::from(value)) }
}

fn text(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(value.to_owned()) }
}

fn name(value: &str) -> Result<String, String> {
    let value = value.trim();
    let is_fit =
        !value.is_empty() && value.chars().count() <= 60 && !value.chars().any(char::is_control);
    if is_fit { Ok(value.to_owned()) } else { Err(format!("{value:?} is no fit name")) }
}

fn url(value: &str) -> Result<String, String> {
    let value = value.trim().trim_end_matches('/');
    let is_http = value.starts_with("http://") || value.starts_with("https://");
    if value.is_empty() || is_http {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} is no such URL"))
    }
}

fn post_path(value: &str) -> Result<String, String> {
    let value = value.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~{}?=&".contains(c);
    let is_fit = value.starts_with('/')
        && !value.starts_with("//")
        && value.chars().all(fits)
        && (value.contains("{slug}") || value.contains("{id}"));
    if is_fit { Ok(value.to_owned()) } else { Err(format!("{value:?} is no such path")) }
}

fn email(value: &str) -> Result<String, String> {
    let is_fit =
        value.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if is_fit { Ok(value.trim().to_owned()) } else { Err(format!("{value:?} is no address")) }
}

fn mail_server(value: &str) -> Result<Secret, String> {
    let value = value.trim();
    let rest = value.strip_prefix("smtp://").or_else(|| value.strip_prefix("smtps://"));
    // The value is not repeated in the message: it may hold a password.
    match rest {
        None if !value.is_empty() => Err("it is no URL of a mail server".to_owned()),
        Some("") => Err("it names no host".to_owned()),
        _ => Ok(Secret(value.to_owned())),
    }
}

fn sender(value: &str) -> Result<String, String> {
    let value = value.trim();
    if crate::mail::is_mailbox(value) {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} is no sender"))
    }
}

fn host_and_port(value: &str) -> Result<String, String> {
    let is_fit = |text: &str| {
        text.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if value.is_empty() || is_fit(value) {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} has no host and port"))
    }
}

fn log_format(value: &str) -> Result<LogFormat, String> {
    match value {
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{value:?} is no form of log lines")),
    }
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
