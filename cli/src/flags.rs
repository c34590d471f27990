//! The command line, declared once: help, completions and docs/CLI.md come from it. The only place that knows flags.

use atoll_node::config::{Given, Source};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Parser, Debug)]
#[command(
    name = "atoll",
    version,
    about = "A whole content platform in one binary: it stores, searches, serves and syncs",
    long_about = "A whole content platform in one binary: it stores, searches, serves and syncs. \
                  Nodes that can reach each other become equal; a node that can reach nobody goes on working.\n\n\
                  `atoll serve` needs no configuration. `atoll demo` shows three nodes meet.",
    after_help = EXIT_CODES,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Flags {
    #[command(flatten)]
    pub settings: SettingFlags,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, \
                              4 locked or busy, 5 damaged data";

/// Settings that have a flag of their own; any other is given by `--set`.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Settings")]
pub struct SettingFlags {
    /// The configuration file [default: atoll.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The data folder [default: atoll-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<String>,
    /// Where HTTP listens [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where other nodes are answered, by UDP [default: 127.0.0.1:8081]
    #[arg(long, global = true, value_name = "ADDR")]
    pub sync_listen: Option<String>,
    /// What this node calls itself; `init` keeps it [default: what it was made with, or atoll]
    #[arg(long, global = true)]
    pub name: Option<String>,
    /// The form of log lines: pretty or json
    #[arg(long, global = true, value_name = "FORM")]
    pub log: Option<String>,
    /// How much is logged: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Any other setting; can be repeated
    #[arg(long, global = true, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

impl Flags {
    /// The settings that were given: without the name that a peer is to have, whose flag is the one of the node's own.
    pub fn take_settings(&mut self) -> SettingFlags {
        let mut settings = std::mem::take(&mut self.settings);
        if let Command::Peer(Peer::Add(_)) = &self.command {
            settings.name = None;
        }
        settings
    }
}

impl SettingFlags {
    /// # Errors
    /// The `--set` that has no `=`.
    pub fn given(&self) -> Result<Vec<Given>, String> {
        let own = [
            ("data", "--data", &self.data),
            ("listen", "--listen", &self.listen),
            ("sync_listen", "--sync-listen", &self.sync_listen),
            ("name", "--name", &self.name),
            ("log", "--log", &self.log),
            ("log_level", "--log-level", &self.log_level),
        ];
        let flag = |origin: &str, name: &str, value: &str| Given {
            source: Source::Flag,
            origin: origin.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let mut given: Vec<Given> = own
            .into_iter()
            .filter_map(|(name, origin, value)| Some(flag(origin, name, value.as_deref()?)))
            .collect();
        for pair in &self.set {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("--set {pair}: write it as NAME=VALUE"))?;
            given.push(flag("--set", name, value));
        }
        Ok(given)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a number from 1 on".to_owned())
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a node: makes its data folder, keys and first admin if they are not there
    Serve(Serve),
    /// Show three nodes that write apart from each other and become equal when they meet
    Demo(Demo),
    /// Make the data folder, keys and first admin, and stop
    Init(Init),
    /// Users of this node's tenant
    #[command(subcommand)]
    User(User),
    /// Other nodes
    #[command(subcommand)]
    Peer(Peer),
    /// How far this node and its peers are equal
    #[command(subcommand)]
    Sync(Sync),
    /// What a courier carries on a stick between nodes that no network joins
    #[command(subcommand)]
    Bundle(Bundle),
    /// Bring content in
    #[command(subcommand)]
    Import(Import),
    /// Write a tenant's content and users into an archive
    Export(Export),
    /// Long work of this node's tenant: imports and exports that were asked for over HTTP
    #[command(subcommand)]
    Job(Job),
    /// Backups of the whole node
    #[command(subcommand)]
    Backup(Backup),
    /// Make a data folder of a backup
    ///
    /// With `--at` it is the node as it was then: the backup, and after it what the log of the same node says was written up
    /// to that time. What others wrote counts as written when it came. The log reaches back as far as `history_days` says.
    /// A node that has peers gets back from them what came after, so look at such a folder apart from the network.
    Restore {
        /// The folder that `backup create` made
        from: PathBuf,
        /// A time after the backup, as in RFC 3339: 2026-03-01T09:30:00Z
        #[arg(long, value_name = "TIME", requires = "log_from")]
        at: Option<String>,
        /// Where the log is taken from: the node's data folder, also while it works, or a later backup
        #[arg(long, value_name = "FOLDER", requires = "at")]
        log_from: Option<PathBuf>,
    },
    /// Make all views and the search index anew from the records
    Rebuild,
    /// Prove that the views are what the records say
    Verify,
    /// Look for what is wrong, and say what to do
    Doctor,
    /// The settings in force
    #[command(subcommand)]
    Config(Config),
    /// Print the OpenAPI description of the HTTP interface
    Openapi,
    /// Print a completion script
    Completions {
        /// The shell that reads it
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// Print a page of the reference that is made from this program
    #[command(hide = true)]
    Reference { page: ReferencePage },
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum ReferencePage {
    Cli,
    Config,
}

#[derive(Args, Debug, Default)]
pub struct Serve {
    /// Join the network of the node that gave this ticket, instead of beginning a new one
    #[arg(long, value_name = "TICKET")]
    pub join: Option<String>,
    /// Write the addresses in use to this file, as JSON, once they are bound
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Init {
    /// Join the network of the node that gave this ticket, instead of beginning a new one
    #[arg(long, value_name = "TICKET")]
    pub join: Option<String>,
    /// Belong to the network of the node with this public key, without a link to it: a courier brings what it has
    #[arg(long, value_name = "KEY", conflicts_with = "join")]
    pub courier_from: Option<String>,
    /// What to call that node
    #[arg(long, value_name = "NAME", default_value = "core", requires = "courier_from")]
    pub courier_name: String,
}

#[derive(Args, Debug)]
pub struct Demo {
    /// A folder of Markdown files to import [default: a small one that is part of this program]
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,
    /// Import every page so many times, to see more of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub copies: u32,
    /// End when it is done, with status 0 only if all nodes are equal
    #[arg(long)]
    pub exit: bool,
}

#[derive(Subcommand, Debug)]
pub enum User {
    /// Make a user
    Create {
        /// The address that the user signs in with
        #[arg(long)]
        email: String,
        /// Another name to sign in with [default: made of the e-mail address]
        #[arg(long)]
        username: Option<String>,
        /// superadmin, admin, editor, moderator or viewer
        #[arg(long, default_value = "viewer")]
        role: String,
        /// Read the password from standard input; without it one is made and shown once
        #[arg(long)]
        password_stdin: bool,
    },
    /// List users
    List {
        /// How many, from 1 on
        #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
        limit: usize,
    },
    /// Every row of a CSV file becomes a user; the first row names the fields
    Import {
        /// UTF-8, with commas; `user export` writes one
        file: PathBuf,
        /// Only say what would become of each row
        #[arg(long)]
        dry_run: bool,
    },
    /// Print all users as CSV, which `user import` takes
    Export {
        /// With the hashes of passwords, by which people sign in where it is imported
        #[arg(long)]
        password_hashes: bool,
    },
    /// Give a user a new password and end all sessions
    ResetPassword {
        /// E-mail address, username or id
        user: String,
        /// Read the password from standard input; without it one is made and shown once
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum Peer {
    /// Make a ticket that lets one new node join, once
    Ticket {
        /// Hours for which it holds
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=720))]
        hours: u64,
        /// Where this node is reached, as host:port; can be repeated [default: the setting `sync_address`]
        #[arg(long = "address", value_name = "HOST:PORT")]
        addresses: Vec<String>,
        #[command(flatten)]
        grant: GrantFlags,
    },
    /// Join the network of the node that gave this ticket
    Join {
        /// The line that `peer ticket` printed on the other node
        ticket: String,
    },
    /// List a node by its public key, without a ticket, or add a bucket: a store where nodes meet that are never up together
    ///
    /// A node has to list this one too. A bucket is a prefix of an S3-compatible store, or a folder; each node adds it for
    /// itself, and takes from it what nodes left that it lists. Keys come from the flags, else from AWS_ENDPOINT_URL,
    /// AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; they are kept in the data folder.
    Add(PeerAdd),
    /// Say what a node may do from now on: here, and on the nodes that trust this one with everything
    ///
    /// What is not named stays as it was said. A link to the node begins anew. With `--may none` nothing goes to the node any
    /// more and nothing comes from it.
    Grant {
        /// Its id, public key or name
        peer: String,
        #[command(flatten)]
        grant: GrantFlags,
    },
    /// List what nodes may do, who says so, and whether it counts here
    Grants,
    /// List the nodes that this one knows, and its buckets
    List,
    /// List the nodes that were heard on this network; for a node that runs with `sync.discover`
    Nearby,
    /// Cut a node off, at once and until it joins again with a new ticket; or visit a bucket no more
    ///
    /// For a node that is lost or stolen there is --everywhere. That cannot be taken back: the machine can come back with
    /// a new data folder, and so with a new key, and a new ticket.
    Remove {
        /// Its id, public key or name; the name or address of a bucket
        peer: String,
        /// Let the whole network refuse its key, for good; for this, it need not be a peer of this node
        #[arg(long)]
        everywhere: bool,
        /// Why, for whoever looks at it later
        #[arg(long, requires = "everywhere")]
        reason: Option<String>,
    },
}

#[derive(Args, Debug)]
pub struct PeerAdd {
    /// A public key, as `sync status` shows it on the other node; or s3://bucket/prefix, or file:///path
    pub peer: String,
    /// What to call it [default for a bucket: its address]
    #[arg(long)]
    pub name: Option<String>,
    /// Where to dial a node; without one it is met by couriers or in a bucket, or dials itself
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Leave everything in the bucket for whoever comes, unlocked: who can read the bucket can read it all
    #[arg(long)]
    pub open: bool,
    /// Of the store [default: AWS in the region]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// That the bucket is in [default: us-east-1]
    #[arg(long)]
    pub region: Option<String>,
    /// The id of the access key
    #[arg(long, value_name = "ID")]
    pub access_key_id: Option<String>,
    /// Read the secret key from standard input
    #[arg(long)]
    pub secret_key_stdin: bool,
    #[command(flatten)]
    pub grant: GrantFlags,
}

/// What a node may do on this one.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "What it may do [default: everything, without end]")]
pub struct GrantFlags {
    /// In these tenants only, by id or slug; * for all
    #[arg(long, value_name = "TENANT", value_delimiter = ',')]
    pub tenants: Option<Vec<String>>,
    /// Of these scopes only: identity, content, community, insight, inbox; * for all
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    pub scopes: Option<Vec<String>>,
    /// read: it gets what is here; write: what it wrote is taken; relay: what others wrote is taken from it; or none
    #[arg(long, value_name = "WAY", value_delimiter = ',')]
    pub may: Option<Vec<String>>,
    /// Until the end of this day in UTC, or a time as in RFC 3339; or never
    #[arg(long, value_name = "DATE")]
    pub until: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Files {
    None,
    /// Up to blobs.eager_bytes
    Small,
    All,
}

#[derive(Subcommand, Debug)]
pub enum Bundle {
    /// Write what other nodes lack into a bundle, split in volumes if it is long
    Export {
        /// The first volume, such as trip.atoll; later ones are trip.2.atoll and so on
        file: PathBuf,
        /// For this peer, by id, key or name: only what it lacks, as far as its last bundle told; can be repeated
        #[arg(long, value_name = "PEER")]
        to: Vec<String>,
        /// Only those peers can read it
        #[arg(long, requires = "to")]
        lock: bool,
        /// Pictures and other files that what is in the bundle names; with small and all also those that the peers asked for
        #[arg(long, value_name = "WHICH", value_enum, default_value_t = Files::Small)]
        files: Files,
        /// All files together take at most so many MiB
        #[arg(long, value_name = "MIB", default_value_t = 8_192, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
        files_mib: u64,
        /// A volume is at most so many MiB long
        #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=2_048))]
        volume_mib: Option<u64>,
    },
    /// Write what this node has, so that another can make a bundle of what it lacks
    Want {
        /// A file that is not there yet
        file: PathBuf,
    },
    /// Say who made a bundle, for whom, and what it brings from where to where; quick, also without a node and without the key
    Info {
        /// Volumes, or folders of them
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say what volumes hold and check every part, without taking anything in
    Verify {
        /// Volumes, or folders of them
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Take in what volumes hold; again, in part or in any order does no harm
    Import {
        /// Volumes, or folders of them
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Subcommand, Debug)]
pub enum Sync {
    /// Peers with their lag and last contact, streams, digest
    Status,
    /// For every peer: what is missing where, since when, and why it does not come
    Plan,
    /// Contact all peers now and visit all buckets, and wait until that is done
    Now {
        /// Seconds to wait
        #[arg(long, default_value_t = 30)]
        timeout: u64,
    },
    /// What of the network this node carries
    #[command(subcommand)]
    Carry(Carry),
    /// Ops that could not be applied, and what nodes wrote after they were removed
    Quarantine {
        /// How many, the newest first
        #[arg(long, default_value_t = 50, value_parser = at_least_one)]
        limit: usize,
    },
    /// What was written on two nodes apart from each other
    Conflicts {
        /// How many, the newest first
        #[arg(long, default_value_t = 50, value_parser = at_least_one)]
        limit: usize,
    },
}

#[derive(Subcommand, Debug)]
pub enum Carry {
    /// Print the rules, and what is being removed
    List,
    /// Carry more, from now on
    Add {
        /// tenant/scope, with * for any; a tenant by id or slug
        #[arg(required = true, value_name = "RULE")]
        rules: Vec<String>,
    },
    /// Carry less, and remove what is here of it
    Drop {
        /// tenant/scope, with * for any; a tenant by id or slug
        #[arg(required = true, value_name = "RULE")]
        rules: Vec<String>,
        /// Remove also what no other node is known to have
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum Import {
    /// Every Markdown file in a folder becomes a post; a repeat changes what changed and doubles nothing
    Markdown {
        /// A folder, or an archive of one: zip, or tar, plain or under gzip or zstd
        folder: PathBuf,
        #[command(flatten)]
        how: ImportHow,
    },
    /// Every row of a CSV file becomes a post; the first row names the fields
    Csv {
        /// UTF-8, with commas
        file: PathBuf,
        #[command(flatten)]
        how: ImportHow,
    },
    /// Every line of a file of JSON Lines becomes a post
    Jsonl {
        file: PathBuf,
        #[command(flatten)]
        how: ImportHow,
    },
    /// Posts, pages, authors, categories, tags and comments of an export of WordPress (WXR)
    Wordpress {
        /// What Tools, Export wrote (.xml)
        file: PathBuf,
        #[command(flatten)]
        how: ImportHow,
    },
    /// Posts, pages, authors and tags of an export of Ghost (JSON)
    Ghost {
        /// What Settings, Export wrote (.json)
        file: PathBuf,
        #[command(flatten)]
        how: ImportHow,
    },
    /// A tenant as `export` wrote it: records keep their ids, names, dates and authors
    Atoll {
        /// The archive that `export` wrote
        file: PathBuf,
        #[command(flatten)]
        how: ImportHow,
    },
}

#[derive(Args, Debug)]
pub struct ImportHow {
    /// Try everything, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The tenant, by id or slug [default: the first one]
    #[arg(long)]
    pub tenant: Option<String>,
    /// Where the old site is: pictures and files that posts name without a host are led there
    #[arg(long, value_name = "URL")]
    pub site: Option<String>,
    /// A file that gets a line of JSON for each item: what became of it, and why
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Export {
    /// The archive to write (tar under zstd)
    pub file: PathBuf,
    /// The tenant, by id or slug [default: the first one]
    #[arg(long)]
    pub tenant: Option<String>,
    /// Write the hashes of passwords too, so that people can go on signing in
    #[arg(long)]
    pub password_hashes: bool,
}

#[derive(Subcommand, Debug)]
pub enum Job {
    /// List jobs, the newest first
    List {
        /// Only those in this state: waiting, running, done, dead or cancelled
        #[arg(long)]
        state: Option<String>,
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// End a job; what it has done stays
    Cancel { id: i64 },
    /// Take a dead or cancelled job up again, where it stopped
    Retry { id: i64 },
    /// Forget a job that has ended
    Remove { id: i64 },
}

#[derive(Subcommand, Debug)]
pub enum Backup {
    /// Write a backup to a new folder, while the node runs or not
    ///
    /// Without a folder it is one of the node's own backups: it lies where `backup.folder` says, is restored into a
    /// scratch folder and verified, and takes the place of the oldest.
    Create {
        /// A folder that is not there yet
        to: Option<PathBuf>,
    },
    /// The node's own backups, and which of them are proven
    List,
    /// Check a backup: every file's hash, then the database
    Verify {
        /// The folder that `backup create` made
        from: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub enum Config {
    /// Every setting with its value and where it comes from
    Show,
    /// Check the settings and say what is wrong
    Check,
}

#[cfg(test)]
mod tests;
