//! Looks for what is wrong with a node's surroundings, and says what to do. Changes nothing.

use crate::control;
use crate::failure::Exit;
use crate::request::{Progress, Request};
use atoll_node::backup::kept;
use atoll_node::{Config, Error, Node};
use serde::Serialize;
use serde_json::Value as Json;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

const LITTLE_SPACE_BYTES: u64 = 1 << 30;
const NO_SPACE_BYTES: u64 = 100 << 20;
/// A clock off by more than this is worth a word: the later of two writes wins.
const SKEW_MS: i64 = 5_000;
const NO_BACKUPS: &str = "none are made by themselves: backup.every_hours is 0";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Fine,
    Warning,
    Wrong,
}

/// One thing that was looked at.
#[derive(Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// What to do; empty if all is fine.
    pub advice: String,
}

impl Check {
    fn fine(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fine, found: found.into(), advice: String::new() }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, found: found.into(), advice: advice.into() }
    }

    fn wrong(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Wrong, found: found.into(), advice: advice.into() }
    }
}

pub async fn examine(config: &Config) -> Vec<Check> {
    let mut checks = vec![space(&config.data)];
    let file = config.data.join(atoll_storage::store::FILE);
    let is_there = file.try_exists();
    if let Err(error) = &is_there {
        let failure = crate::failure::Failure::io("look into", &config.data, error);
        checks.push(Check::wrong(
            "data folder",
            failure.message,
            "doctor must run as that account too",
        ));
        return checks;
    }
    if !is_there.unwrap_or_default() {
        let advice = "`atoll serve` makes it";
        checks.push(Check::warning(
            "data folder",
            format!("{} holds no node yet", config.data.display()),
            advice,
        ));
        checks.extend(ports(config));
        return checks;
    }
    checks.extend(permissions(&config.data));
    match Node::open(config.clone()) {
        Ok(node) => {
            checks.push(Check::fine("lock", "no other process holds the folder"));
            checks.extend(ports(config));
            checks.push(integrity(&node));
            checks.push(backups(&node));
            let status = crate::request::perform(
                node.clone(),
                Request::SyncStatus,
                Progress::new(|_, _| {}),
            )
            .await;
            checks.extend(status.ok().iter().flat_map(network));
            crate::serve::close(&node).await;
        }
        Err(Error::Store(atoll_storage::Error::Locked(_))) => {
            let asked =
                control::ask(&config.data, &Request::SyncStatus, &Progress::new(|_, _| {})).await;
            match asked {
                Ok(status) => {
                    checks.push(Check::fine("lock", "a node runs on this folder and answers"));
                    checks.push(backups_of(&status["backup"]));
                    checks.extend(network(&status));
                }
                Err(failure) => {
                    checks.push(Check::wrong(
                        "lock",
                        failure.to_string(),
                        "wait a moment; if it stays so, stop that process",
                    ));
                }
            }
        }
        Err(error) => checks.push(cannot_open(error)),
    }
    checks
}

fn cannot_open(error: Error) -> Check {
    let failure = crate::failure::Failure::from(error);
    let advice = match failure.exit {
        Exit::Damaged => {
            "`atoll restore BACKUP --data NEW_FOLDER`, or `atoll serve --join TICKET` in a new folder"
        }
        _ => "",
    };
    Check::wrong("database", failure.message, advice)
}

fn space(data: &Path) -> Check {
    let name = "disk space";
    // The folder may not be there yet: what it will lie in is.
    let place = data.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    match fs4::available_space(place) {
        Ok(bytes) if bytes < NO_SPACE_BYTES => {
            Check::wrong(name, mebibytes(bytes), "free some space: writes will fail soon")
        }
        Ok(bytes) if bytes < LITTLE_SPACE_BYTES => {
            Check::warning(name, mebibytes(bytes), "free some space before long")
        }
        Ok(bytes) => Check::fine(name, mebibytes(bytes)),
        Err(error) => {
            Check::warning(name, format!("it cannot be told: {error}"), "look at the disk yourself")
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB free", bytes >> 20)
}

#[cfg(unix)]
fn permissions(data: &Path) -> Vec<Check> {
    use std::os::unix::fs::PermissionsExt;
    let mut checks = Vec::new();
    for (path, wanted) in
        [(data.to_owned(), 0o700), (data.join("node.key"), 0o600), (data.join("token.key"), 0o600)]
    {
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let found =
                format!("{} can be used by other accounts (mode {mode:03o})", path.display());
            checks.push(Check::wrong(
                "permissions",
                found,
                format!("chmod {wanted:o} {}", path.display()),
            ));
        }
    }
    if checks.is_empty() {
        checks.push(Check::fine("permissions", "folder and keys belong to their owner alone"));
    }
    checks
}

#[cfg(not(unix))]
fn permissions(_: &Path) -> Vec<Check> {
    Vec::new()
}

fn ports(config: &Config) -> Vec<Check> {
    let http = TcpListener::bind(config.listen).map(drop);
    let sync = UdpSocket::bind(config.sync_listen).map(drop);
    let check = |name, address, bound: std::io::Result<()>, flag| match bound {
        Ok(()) => Check::fine(name, format!("{address} is free")),
        Err(error) => {
            Check::wrong(name, format!("{address}: {error}"), format!("choose another with {flag}"))
        }
    };
    vec![
        check("HTTP port", config.listen, http, "--listen"),
        check("port for other nodes", config.sync_listen, sync, "--sync-listen"),
    ]
}

fn integrity(node: &Node) -> Check {
    let name = "integrity";
    match node.store.verify() {
        Ok(report) if report.problems.is_empty() => Check::fine(
            name,
            format!("{} records and {} ops are as they should be", report.records, report.ops),
        ),
        Ok(report) => Check::wrong(
            name,
            format!("{} problems, the first: {}", report.problems.len(), report.problems[0]),
            "`atoll rebuild` makes the views anew; if that does not help, restore a backup",
        ),
        Err(error) => cannot_open(Error::Store(error)),
    }
}

const BACKUPS_ADVICE: &str = "`atoll backup create` makes one now, and says what is in its way";

/// As a node that runs tells it.
fn backups_of(told: &Json) -> Check {
    let name = "backups";
    match (told["warning"].as_str(), told["proven_at"].as_str()) {
        (Some(warning), _) => Check::warning(name, warning, BACKUPS_ADVICE),
        (None, Some(at)) => Check::fine(name, format!("the last one was proven, and is of {at}")),
        (None, None) if told["state"] == "off" => Check::fine(name, NO_BACKUPS),
        (None, None) => Check::fine(name, "the first one is not made yet"),
    }
}

fn backups(node: &Node) -> Check {
    let name = "backups";
    let standing = match kept::look(node) {
        Ok(standing) => standing,
        Err(error) => return Check::wrong(name, error.to_string(), "name another backup.folder"),
    };
    let now_ms = node.clock.now_ms();
    if let Some(warning) = standing.warning(now_ms) {
        return Check::warning(name, warning, BACKUPS_ADVICE);
    }
    match &standing.last_proven {
        Some(proof) => {
            let age = kept::age(now_ms.saturating_sub(proof.created_ms));
            Check::fine(name, format!("the last one was proven, and is {age} old"))
        }
        None if standing.every_ms == 0 => Check::fine(name, NO_BACKUPS),
        None => Check::fine(name, "the first one is not made yet"),
    }
}

fn network(status: &Json) -> Vec<Check> {
    let mut checks = Vec::new();
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    if status["is_removed"] == true {
        checks.push(Check::wrong(
            "removed",
            "this node was removed from the network: no other one talks to it, and nobody can sign in",
            "take out by `atoll export` what only it has; then give it a new data folder and a new ticket",
        ));
    }
    if number("quarantined") > 0 {
        let found = format!("{} ops of other nodes could not be applied", number("quarantined"));
        checks.push(Check::warning(
            "quarantine",
            found,
            "upgrade this node: a newer release may know them",
        ));
    }
    if let Some(words) = status["seals"]["latest"].get(0) {
        checks.push(Check::wrong(
            "seals",
            crate::show::text(words),
            "somebody between this node and the author changes what passes: find out by which peers it came, and remove the one that lies",
        ));
    }
    for peer in status["peers"].as_array().into_iter().flatten() {
        checks.push(peer_check(peer));
        let skew_ms = peer["clock_skew_ms"].as_i64().unwrap_or_default();
        if skew_ms.abs() > SKEW_MS {
            let found = format!(
                "the clock of {} differs by {} s",
                crate::show::text(&peer["name"]),
                skew_ms / 1_000
            );
            checks.push(Check::warning(
                "clock",
                found,
                "set both clocks, best by NTP: of two writes the later one shows",
            ));
        }
    }
    checks
}

fn peer_check(peer: &Json) -> Check {
    let name = crate::show::text(&peer["name"]);
    let reason = crate::show::text(&peer["reason"]);
    if peer["diverged"] == true {
        let advice = "keep the logs of both nodes and report it; the repair runs by itself";
        return Check::wrong("peer", format!("{name} has the same ops and another state"), advice);
    }
    match peer["state"].as_str() {
        Some("level" | "catching_up") => Check::fine("peer", format!("{name} is linked")),
        _ => Check::warning(
            "peer",
            format!("{name} is not linked: {reason}"),
            "check that it runs and can be reached",
        ),
    }
}

/// For people.
pub fn show(checks: &[Check]) {
    for check in checks {
        let mark = match check.verdict {
            Verdict::Fine => "ok   ",
            Verdict::Warning => "look ",
            Verdict::Wrong => "WRONG",
        };
        say!("{mark}  {}: {}", check.name, check.found);
        if !check.advice.is_empty() {
            say!("       -> {}", check.advice);
        }
    }
}
