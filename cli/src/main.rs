//! The command line: reads flags and settings, does one thing, and ends with a code that says how it went.
//! The only place that parses flags; no rule of the domain is decided here.

#![deny(clippy::print_stdout, clippy::print_stderr)] // see `out`

#[macro_use]
mod out;

mod control;
mod demo;
mod doctor;
mod failure;
mod first;
mod flags;
mod log;
mod reference;
mod request;
mod secret;
mod serve;
mod settings;
mod show;
mod surroundings;

use atoll_node::bucket::{Access, Location};
use atoll_node::config::{Loaded, Source};
use atoll_node::content::import::Format;
use atoll_node::moment::Moment;
use atoll_node::{Config, Error, Node, backup, courier};
use clap::{CommandFactory, Parser};
use failure::{Exit, Failure, Outcome};
use flags::{Command, Flags};
use request::{Progress, Request, blocking};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Requests make and drop many small things on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    surroundings::prepare();
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return misunderstood(&error),
    };
    if matches!(flags.command, Command::Serve(_) | Command::Demo(_)) {
        surroundings::keep_memory_small();
    }
    let as_json = flags.json;
    match run(flags).and_then(|()| out::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure, as_json),
    }
}

fn failed(failure: &Failure, as_json: bool) -> ExitCode {
    if as_json {
        let error = json!({ "error": { "exit": failure.exit, "message": failure.message } });
        complain!("{error}");
    } else {
        complain!("atoll: {failure}");
    }
    ExitCode::from(failure.exit as u8)
}

/// Help and versions are asked for, and no mistake.
fn misunderstood(error: &clap::Error) -> ExitCode {
    let is_mistake = error.use_stderr();
    if is_mistake && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let told = text.split("\n\n").next().unwrap_or_default();
        return failed(&Failure::usage(told.trim_start_matches("error: ").trim()), true);
    }
    let _ = error.print();
    if is_mistake { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS }
}

fn run(mut flags: Flags) -> Outcome {
    // Those that need no settings, and so work whatever the settings are.
    match &flags.command {
        Command::Version => return version(flags.json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Flags::command(), "atoll", &mut script);
            put!("{}", String::from_utf8_lossy(&script));
            return Ok(());
        }
        Command::Reference { page } => {
            put!("{}", reference::page(*page));
            return Ok(());
        }
        Command::Openapi => {
            return show::json(&atoll_api::openapi::document(&atoll_api::all_routes()));
        }
        _ => {}
    }
    let loaded = settings::load(&flags.take_settings())?;
    log::begin(&loaded, matches!(flags.command, Command::Serve(_)))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(dispatch(flags, loaded))
}

fn later_of(at: &str, log: PathBuf) -> Result<backup::Later, Failure> {
    let moment = Moment::parse(at).and_then(|moment| u64::try_from(moment.0).ok());
    let at_ms = moment.ok_or_else(|| {
        Failure::usage(format!("{at:?} is no time: write it as 2026-03-01T09:30:00Z"))
    })?;
    Ok(backup::Later { at_ms, log })
}

async fn dispatch(flags: Flags, loaded: Loaded) -> Outcome {
    let as_json = flags.json;
    let config = loaded.config.clone();
    match flags.command {
        Command::Serve(serve) => serve::serve(config, serve).await,
        Command::Demo(demo) => demo::run(demo, as_json).await,
        Command::Init(init) => {
            let is_named = loaded.source("name") > Source::File;
            initialised(&serve::init(config, init, is_named).await?, as_json)
        }
        Command::Restore { from, at, log_from } => {
            let later = at.zip(log_from).map(|(at, log)| later_of(&at, log)).transpose()?;
            let (progress, bar) = show::bar("checking and copying");
            let to = config.data.clone();
            let restored = blocking(move || {
                let tell = |done, of| told(&progress, done, of);
                request::as_json(backup::restore(&from, &to, later.as_ref(), &tell)?)
            });
            let restored = restored.await;
            bar.finish_and_clear();
            let restored = restored?;
            print(as_json, &restored, || {
                let place = show::text(&restored["data"]);
                say!("Restored to {place}. Start it with `atoll serve --data {place}`.");
                if let (Some(taken), Some(left)) =
                    (restored["replayed"].as_u64(), restored["left_out"].as_u64())
                {
                    say!("After the backup it has {taken} writes of the log; {left} came later.");
                }
                say!("What it wrote after the backup comes back from its peers, if it has any.");
            })
        }
        Command::Backup(flags::Backup::Verify { from }) => {
            let (progress, bar) = show::bar("checking");
            let verified = blocking(move || {
                request::as_json(backup::verify(&from, &|done, of| told(&progress, done, of))?)
            });
            let verified = verified.await;
            bar.finish_and_clear();
            let verified = verified?;
            print(as_json, &verified, || {
                say!(
                    "Sound: {} files, {} records, made at {}.",
                    show::text(&verified["files"]),
                    show::text(&verified["records"]),
                    show::text(&verified["created_at"])
                );
            })
        }
        Command::Doctor => examined(&config, as_json).await,
        Command::Config(flags::Config::Show) => show_config(&loaded, as_json),
        Command::Config(flags::Config::Check) => {
            print(as_json, &json!({ "sound": true }), || say!("The settings are sound."))
        }
        command => ask(&config, request_of(command)?, as_json).await,
    }
}

fn told(progress: &Progress, done: u64, of: u64) -> backup::Result<()> {
    progress.tell(done, of);
    Ok(())
}

fn print(as_json: bool, answer: &Json, people: impl FnOnce()) -> Outcome {
    if as_json {
        return show::json(answer);
    }
    people();
    Ok(())
}

fn version(as_json: bool) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    print(as_json, &json!({ "version": version, "protocol": atoll_sync::message::VERSION }), || {
        say!("atoll {version}");
    })
}

fn initialised(told: &Json, as_json: bool) -> Outcome {
    print(as_json, told, || {
        say!("data folder  {}", show::text(&told["data"]));
        say!("node         {}", show::text(&told["node"]));
        say!("name         {}", show::text(&told["name"]));
        say!("public key   {}", show::text(&told["public_key"]));
        if let Some(network) = told["courier_from"].as_str() {
            say!("It belongs to the network of {network}, which has to list it by its public key:");
            say!(
                "`atoll peer add` there. `atoll bundle want FILE` writes what a courier carries there."
            );
        } else if let Some(network) = told["joined"].as_str() {
            say!("in the network of {network}");
            say!("`atoll serve` starts it.");
        } else if told["made"] == true {
            say!("first admin  {}", show::text(&told["email"]));
            if let Some(password) = told["password"].as_str() {
                say!("password     {password}  (not shown again)");
            }
            say!("`atoll serve` starts it.");
        } else {
            say!("It was ready already: `atoll serve` starts it.");
        }
    })
}

async fn examined(config: &Config, as_json: bool) -> Outcome {
    let checks = doctor::examine(config).await;
    print(as_json, &serde_json::to_value(&checks).map_err(Failure::failed)?, || {
        doctor::show(&checks);
    })?;
    let wrong = checks.iter().filter(|check| check.verdict == doctor::Verdict::Wrong).count();
    if wrong == 0 {
        Ok(())
    } else {
        let noun = if wrong == 1 { "thing is" } else { "things are" };
        Err(Failure::failed(format!("{wrong} {noun} wrong")))
    }
}

fn show_config(loaded: &Loaded, as_json: bool) -> Outcome {
    let row = |(name, value, source): (&str, String, Source)| json!({ "name": name, "value": value, "source": source.name() });
    let rows = Json::Array(loaded.rows().map(row).collect());
    print(as_json, &rows, || {
        show::table(&rows, &[("name", "SETTING"), ("value", "VALUE"), ("source", "SOURCE")]);
    })
}

fn request_of(command: Command) -> Outcome<Request> {
    let password = |wanted: bool| if wanted { secret::read_stdin().map(Some) } else { Ok(None) };
    Ok(match command {
        Command::User(flags::User::Create { email, username, role, password_stdin }) => {
            Request::UserCreate { email, username, role, password: password(password_stdin)? }
        }
        Command::User(flags::User::List { limit }) => Request::UserList { limit },
        Command::User(flags::User::Import { file, dry_run }) => {
            Request::UserImport { file: whole(&file)?, dry_run }
        }
        Command::User(flags::User::Export { password_hashes }) => {
            Request::UserExport { password_hashes }
        }
        Command::User(flags::User::ResetPassword { user, password_stdin }) => {
            Request::UserResetPassword { user, password: password(password_stdin)? }
        }
        Command::Peer(flags::Peer::Ticket { hours, addresses, grant }) => {
            Request::PeerTicket { hours, addresses, asked: asked_of(grant) }
        }
        Command::Peer(flags::Peer::Grant { peer, grant }) => {
            let asked = asked_of(grant);
            if asked == atoll_node::peer::Asked::default() {
                return Err(Failure::usage(
                    "say what it may do: --tenants, --scopes, --may or --until; `atoll peer grants` shows what it may",
                ));
            }
            Request::PeerGrant { peer, asked }
        }
        Command::Peer(flags::Peer::Grants) => Request::PeerGrants,
        Command::Peer(flags::Peer::Join { ticket }) => Request::PeerJoin { ticket },
        Command::Peer(flags::Peer::Add(add)) => peer_of(add)?,
        Command::Peer(flags::Peer::List) => Request::PeerList,
        Command::Peer(flags::Peer::Nearby) => Request::PeerNearby,
        Command::Peer(flags::Peer::Remove { peer, everywhere: false, .. }) => {
            Request::PeerRemove { peer }
        }
        Command::Peer(flags::Peer::Remove { peer, reason, .. }) => {
            Request::PeerRevoke { peer, reason }
        }
        Command::Sync(flags::Sync::Status) => Request::SyncStatus,
        Command::Sync(flags::Sync::Plan) => Request::SyncPlan,
        Command::Sync(flags::Sync::Now { timeout }) => Request::SyncNow { timeout_s: timeout },
        Command::Sync(flags::Sync::Carry(flags::Carry::List)) => Request::CarryList,
        Command::Sync(flags::Sync::Carry(flags::Carry::Add { rules })) => {
            Request::CarryChange { added: rules, dropped: vec![], force: false }
        }
        Command::Sync(flags::Sync::Carry(flags::Carry::Drop { rules, force })) => {
            Request::CarryChange { added: vec![], dropped: rules, force }
        }
        Command::Sync(flags::Sync::Quarantine { limit }) => Request::SyncQuarantine { limit },
        Command::Sync(flags::Sync::Conflicts { limit }) => Request::SyncConflicts { limit },
        Command::Bundle(bundle) => bundle_of(bundle)?,
        Command::Import(import) => import_of(import)?,
        Command::Export(flags::Export { file, tenant, password_hashes }) => {
            Request::Export { file: to_be(&file)?, tenant, password_hashes }
        }
        Command::Job(flags::Job::List { state, limit }) => Request::JobList { state, limit },
        Command::Job(flags::Job::Cancel { id }) => Request::JobCancel { id },
        Command::Job(flags::Job::Retry { id }) => Request::JobRetry { id },
        Command::Job(flags::Job::Remove { id }) => Request::JobRemove { id },
        Command::Backup(flags::Backup::Create { to }) => {
            Request::BackupCreate { to: to.as_deref().map(to_be).transpose()? }
        }
        Command::Backup(flags::Backup::List) => Request::BackupList,
        Command::Rebuild => Request::Rebuild,
        Command::Verify => Request::Verify,
        _ => return Err(Failure::failed("this command asks nothing of a node")),
    })
}

fn asked_of(grant: flags::GrantFlags) -> atoll_node::peer::Asked {
    let flags::GrantFlags { tenants, scopes, may, until } = grant;
    atoll_node::peer::Asked { tenants, scopes, may, until }
}

fn peer_of(add: flags::PeerAdd) -> Outcome<Request> {
    let flags::PeerAdd {
        peer,
        name,
        address,
        open,
        endpoint,
        region,
        access_key_id,
        secret_key_stdin,
        grant,
    } = add;
    let asked = asked_of(grant);
    if !Location::is_location(&peer) {
        let name =
            name.ok_or_else(|| Failure::usage("a node needs a name to know it by: give --name"))?;
        return Ok(Request::PeerAdd { public_key: peer, name, address, asked });
    }
    if asked != atoll_node::peer::Asked::default() {
        return Err(Failure::usage("a bucket is granted nothing: nodes are, one by one"));
    }
    let mut access = Access::default();
    if peer.trim().starts_with("s3:") {
        let given = |flag: Option<String>, variables: &[&str]| {
            let variable = || variables.iter().find_map(|name| std::env::var(name).ok());
            flag.or_else(variable).unwrap_or_default()
        };
        access = Access {
            endpoint: given(endpoint, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            region: given(region, &["AWS_REGION", "AWS_DEFAULT_REGION"]),
            key_id: given(access_key_id, &["AWS_ACCESS_KEY_ID"]),
            secret_key: if secret_key_stdin {
                secret::read_stdin()?
            } else {
                given(None, &["AWS_SECRET_ACCESS_KEY"])
            },
            session_token: given(None, &["AWS_SESSION_TOKEN"]),
        };
    }
    let name = name.unwrap_or_default();
    Ok(Request::BucketAdd(request::bucket::Asked { url: peer, name, access, is_open: open }))
}

fn bundle_of(bundle: flags::Bundle) -> Outcome<Request> {
    use flags::Bundle as B;
    let all = |files: Vec<std::path::PathBuf>| -> Outcome<Vec<std::path::PathBuf>> {
        files.iter().map(|file| whole(file)).collect()
    };
    Ok(match bundle {
        B::Export { file, to, lock, files, files_mib, volume_mib } => {
            let files = match files {
                flags::Files::None => courier::Files::None,
                flags::Files::Small => courier::Files::Small,
                flags::Files::All => courier::Files::All,
            };
            let files_mib = Some(files_mib);
            let order = courier::Order { to, lock, files, files_mib, volume_mib, want_only: false };
            Request::BundleExport { file: to_be(&file)?, order }
        }
        B::Want { file } => {
            let order = courier::Order { want_only: true, ..courier::Order::default() };
            Request::BundleExport { file: to_be(&file)?, order }
        }
        B::Info { files } => Request::BundleInfo { files: all(files)? },
        B::Verify { files } => Request::BundleVerify { files: all(files)? },
        B::Import { files } => Request::BundleImport { files: all(files)? },
    })
}

fn import_of(import: flags::Import) -> Outcome<Request> {
    use flags::Import as I;
    let (format, file, how) = match import {
        I::Markdown { folder, how } => (Format::Markdown, folder, how),
        I::Csv { file, how } => (Format::Csv, file, how),
        I::Jsonl { file, how } => (Format::Jsonl, file, how),
        I::Wordpress { file, how } => (Format::WordPress, file, how),
        I::Ghost { file, how } => (Format::Ghost, file, how),
        I::Atoll { file, how } => (Format::Atoll, file, how),
    };
    let report = how.report.as_deref().map(to_be).transpose()?;
    let flags::ImportHow { dry_run, tenant, site, .. } = how;
    let file = whole(&file)?;
    Ok(Request::Import(request::Import { format, file, dry_run, tenant, site, report }))
}

/// The node that does it may have another current folder.
fn whole(path: &std::path::Path) -> Outcome<std::path::PathBuf> {
    path.canonicalize().map_err(|error| Failure::io("read", path, &error))
}

/// The same for a file that is not there yet.
fn to_be(path: &std::path::Path) -> Outcome<std::path::PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::io("find", path, &error))
}

/// Does it on the data folder, or has the node do it that holds the folder.
async fn ask(config: &Config, request: Request, as_json: bool) -> Outcome {
    let (progress, bar) = show::bar("working");
    let answer = answer(config, &request, progress).await;
    bar.finish_and_clear();
    let answer = answer?;
    if as_json {
        show::json(&answer)?;
    } else {
        show::answer(&request, &answer)?;
    }
    show::outcome(&request, &answer)
}

async fn answer(config: &Config, request: &Request, progress: Progress) -> Outcome<Json> {
    let file = config.data.join(atoll_storage::store::FILE);
    if !file.try_exists().map_err(|error| Failure::io("look into", &config.data, &error))? {
        if let Request::BundleInfo { files } = request {
            let files = files.clone();
            return blocking(move || request::as_json(courier::info_alone(&files)?)).await;
        }
        let place = config.data.display();
        let advice = "run `atoll serve` or `atoll init` first, or name the folder with --data";
        return Err(Failure::new(Exit::NotFound, format!("there is no node in {place}: {advice}")));
    }
    match Node::open(config.clone()) {
        Ok(node) => here(&node, request.clone(), progress).await,
        Err(Error::Store(atoll_storage::Error::Locked(_))) => {
            control::ask(&config.data, request, &progress).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn here(node: &Arc<Node>, request: Request, progress: Progress) -> Outcome<Json> {
    if !request.needs_peers() {
        let answer = request::perform(node.clone(), request, progress).await;
        serve::close(node).await;
        return answer;
    }
    if matches!(request, Request::PeerTicket { .. }) && node.config.sync_listen.port() == 0 {
        serve::close(node).await;
        return Err(Failure::failed(
            "the port for other nodes is chosen at each start: ask while the node runs",
        ));
    }
    let workers = node.start().await?;
    let answer = request::perform(node.clone(), request, progress).await;
    workers.shutdown().await;
    answer
}
