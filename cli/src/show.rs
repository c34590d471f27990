//! Answers as people read them. With `--json` they are printed as they are.

mod bucket;
mod bundle;
mod peer;

use crate::failure::{Failure, Outcome};
use crate::request::{Progress, Request};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value as Json;

pub fn json(answer: &Json) -> Outcome {
    say!("{}", serde_json::to_string_pretty(answer).map_err(Failure::failed)?);
    Ok(())
}

/// What a request answered.
pub fn answer(request: &Request, answer: &Json) -> Outcome {
    match request {
        Request::UserCreate { .. } | Request::UserResetPassword { .. } => user(answer),
        Request::UserList { .. } => {
            table(
                answer,
                &[
                    ("email", "E-MAIL"),
                    ("username", "USERNAME"),
                    ("role", "ROLE"),
                    ("status", "STATUS"),
                    ("id", "ID"),
                ],
            );
        }
        Request::UserImport { .. } => accounts(answer),
        Request::UserExport { .. } => put!("{}", text(&answer["csv"])),
        Request::PeerTicket { .. } => {
            say!("{}", text(&answer["ticket"]));
            complain!(
                "One new node can join with it until {}, by `atoll serve --join TICKET`. Whoever reads it can: treat it like a password.",
                text(&answer["expires_at"])
            );
            warn_of_loopback(&answer["addresses"]);
        }
        Request::PeerAdd { .. } => {
            say!("Listed {} as {}.", text(&answer["node"]), text(&answer["name"]));
            complain!("It takes nothing from this node before it lists this one as well.");
        }
        Request::BucketAdd(_) => bucket::added(answer),
        Request::BundleExport { order, .. } => bundle::made(order, answer),
        Request::BundleInfo { .. } => bundle::described(answer),
        Request::BundleVerify { .. } => bundle::seen(answer, "holds"),
        Request::BundleImport { .. } => bundle::seen(answer, "brought"),
        Request::PeerJoin { .. } => say!("Joined the network of {}.", text(&answer["name"])),
        Request::PeerGrant { .. } => {
            say!("{} {}.", text(&answer["name"]), text(&answer["words"]));
            say!(
                "It holds here at once, and on other nodes that trust this one as soon as they hear of it."
            );
        }
        Request::PeerGrants => grants(answer),
        Request::PeerList => peer::all(answer),
        Request::PeerNearby => table(
            answer,
            &[("name", "NAME"), ("addresses", "ADDRESSES"), ("known", "A PEER"), ("node", "NODE")],
        ),
        Request::PeerRemove { .. } => {
            if answer["bucket"] == true {
                say!("Removed {}. What this node left there stays.", text(&answer["name"]));
            } else {
                say!("Removed {}. It can join again with a new ticket.", text(&answer["name"]));
            }
        }
        Request::PeerRevoke { .. } => {
            say!("{}", text(&answer["words"]));
            say!("Every node refuses its key as soon as it hears of it.");
        }
        Request::SyncStatus | Request::SyncNow { .. } => status(answer),
        Request::SyncPlan => plan(answer),
        Request::SyncQuarantine { .. } => quarantine(answer),
        Request::SyncConflicts { .. } => conflicts(answer),
        Request::CarryList | Request::CarryChange { .. } => carries(answer),
        Request::Import(_) => return imported(answer),
        Request::Export { file, password_hashes, .. } => {
            say!(
                "{} records, {} bytes in {}.",
                text(&answer["records"]),
                text(&answer["size_bytes"]),
                file.display()
            );
            if *password_hashes {
                say!("It holds hashes of passwords: keep it as safe as the node.");
            }
        }
        Request::JobList { .. } => table(answer, JOB),
        Request::JobCancel { .. } | Request::JobRetry { .. } => {
            say!("Job {} is {}.", text(&answer["id"]), text(&answer["state"]));
        }
        Request::JobRemove { .. } => say!("Job {} is forgotten.", text(&answer["removed"])),
        Request::BackupCreate { to: None } => say!(
            "Made and proven: {} files, {} bytes, {} records.",
            text(&answer["files"]),
            text(&answer["size_bytes"]),
            text(&answer["records"])
        ),
        Request::BackupList => table(answer, BACKUP),
        Request::BackupCreate { to: Some(_) } => {
            say!(
                "{} files, {} bytes in {}.",
                text(&answer["files"]),
                text(&answer["bytes"]),
                text(&answer["folder"])
            );
            say!("It holds the node's keys and all password hashes: keep it as safe as the node.");
        }
        Request::Rebuild => say!(
            "All views were made anew; {} records are in the search index.",
            text(&answer["searched_records"])
        ),
        Request::Verify => return verified(answer),
    }
    Ok(())
}

/// What decides the exit code beside the printing: a report that found something is a failure.
pub fn outcome(request: &Request, answer: &Json) -> Outcome {
    match request {
        Request::Import(_) | Request::UserImport { .. } => import_outcome(answer),
        Request::Verify => verify_outcome(answer),
        Request::BundleInfo { .. } => bundle::info_outcome(answer),
        Request::BundleVerify { .. } | Request::BundleImport { .. } => bundle::outcome(answer),
        _ => Ok(()),
    }
}

fn plan(answer: &Json) {
    let plans = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if plans.is_empty() {
        say!("This node has no peers: `atoll peer ticket` lets one join.");
    }
    for plan in plans {
        say!("{}", text(&plan["name"]));
        for sentence in plan["words"].as_array().into_iter().flatten() {
            say!("  {}", text(sentence));
        }
    }
}

/// A ticket that leads nowhere from the machine on which it will be used.
fn warn_of_loopback(addresses: &Json) {
    let mut addresses = addresses.as_array().into_iter().flatten().filter_map(Json::as_str);
    let is_local = |address: &str| {
        address.starts_with("127.")
            || address.starts_with("[::1]")
            || address.starts_with("localhost:")
    };
    if addresses.all(is_local) {
        complain!(
            "It works on this machine only: for others, start this node with --sync-listen 0.0.0.0:8081 and name its address by --address HOST:8081, or once and for all by the setting sync_address."
        );
    }
}

pub fn text(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Columns as wide as they must be.
pub fn table(rows: &Json, columns: &[(&str, &str)]) {
    let empty = Vec::new();
    let rows = rows.as_array().unwrap_or(&empty);
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|(key, _)| text(&row[*key])).collect()).collect();
    let width = |at: usize| {
        let longest = cells.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
        longest.max(columns[at].1.chars().count())
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: Vec<&str>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        say!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(columns.iter().map(|(_, title)| *title).collect());
    cells.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
}

const BACKUP: &[(&str, &str)] = &[
    ("created_at", "MADE"),
    ("proven_at", "PROVEN"),
    ("size_bytes", "BYTES"),
    ("records", "RECORDS"),
    ("folder", "FOLDER"),
];

const JOB: &[(&str, &str)] = &[
    ("id", "ID"),
    ("queue", "QUEUE"),
    ("state", "STATE"),
    ("percent", "%"),
    ("created_at", "CREATED"),
    ("note", "NOTE"),
    ("error", "ERROR"),
];

fn user(answer: &Json) {
    say!("{} ({}), {}", text(&answer["email"]), text(&answer["username"]), text(&answer["role"]));
    if let Some(password) = answer["password"].as_str() {
        say!("password  {password}");
        say!("It is not shown again, and must be changed at the first sign-in.");
    }
}

fn accounts(answer: &Json) {
    let made = if answer["dry_run"] == true { "would be created" } else { "created" };
    let [created, same, failed] =
        ["created", "unchanged", "failed"].map(|name| text(&answer[name]));
    say!("{created} {made}, {same} unchanged, {failed} failed");
    for row in answer["rows"].as_array().into_iter().flatten() {
        for error in row["errors"].as_array().into_iter().flatten() {
            let (field, message) = (text(&error["field"]), text(&error["message"]));
            complain!("row {}: {field} {message}", text(&row["row"]));
        }
    }
}

fn grants(answer: &Json) {
    let columns = [
        ("name", "NODE"),
        ("words", "WHAT IT MAY"),
        ("by", "SAYS"),
        ("issued_at", "SINCE"),
        ("counts", "COUNTS HERE"),
    ];
    table(answer, &columns);
}

fn status(answer: &Json) {
    say!(
        "{}  node {}  epoch {}",
        text(&answer["name"]),
        text(&answer["node"]),
        text(&answer["epoch"])
    );
    say!("digest {}  (equal on nodes that are equal)", text(&answer["digest"]));
    let counts = ["records", "streams", "conflicts", "quarantined", "late", "parked"];
    let counts = counts.map(|name| format!("{} {name}", text(&answer[name])));
    say!("{}", counts.join(", "));
    seals(&answer["seals"]);
    blobs(&answer["blobs"]);
    say!("");
    peer::all(&answer["peers"]);
    bucket::all(&answer["buckets"]);
    for words in answer["removed"].as_array().into_iter().flatten() {
        say!("{}", text(words));
    }
}

fn seals(answer: &Json) {
    say!(
        "{} ops proven by their authors' seals",
        answer["proven_ops"].as_u64().unwrap_or_default()
    );
    for words in answer["latest"].as_array().into_iter().flatten() {
        complain!("{}", text(words));
    }
}

fn blobs(answer: &Json) {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let (wanted, missing, resting) = (number("wanted"), number("missing"), number("resting"));
    say!(
        "{} of {wanted} files here, {} missing, {resting} rest until somebody asks for them; {} MiB",
        wanted.saturating_sub(missing),
        missing.saturating_sub(resting),
        number("size_bytes") >> 20
    );
    if answer["disk_full"] == true {
        say!("The disk is full: no files are fetched until there is room again.");
    }
    for peer in answer["full_peers"].as_array().into_iter().flatten() {
        say!("The disk of {} is full.", text(peer));
    }
    for transfer in answer["transfers"].as_array().into_iter().flatten() {
        let number = |name: &str| transfer[name].as_u64().unwrap_or_default();
        let percent = (number("here_bytes") * 100).checked_div(number("size_bytes")).unwrap_or(0);
        let (id, size, peers) = (text(&transfer["id"]), number("size_bytes"), number("peers"));
        let id = id.get(..12).unwrap_or(&id);
        say!("  {id}  {percent} % of {size} bytes, from {peers} peers");
    }
}

fn carries(answer: &Json) {
    if answer["everything"] == true {
        say!("This node carries everything.");
    } else {
        say!("This node carries, by the last rule that fits:");
        for rule in answer["rules"].as_array().into_iter().flatten() {
            say!("  {}", text(rule));
        }
        say!("and always what belongs to the whole network.");
    }
    for stream in answer["leaving"].as_array().into_iter().flatten() {
        say!("Being removed: {}", text(stream));
    }
}

fn quarantine(answer: &Json) {
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        say!("Nothing is in quarantine.");
        return;
    }
    for row in rows {
        let [did, kind, key] = ["did", "kind", "key"].map(|name| text(&row[name]));
        let [node, written] = ["node", "written_at"].map(|name| text(&row[name]));
        say!("{did} {kind} {key}  on node {node} at {written}");
        say!("  {}; here since {}", text(&row["reason"]), text(&row["at"]));
        if let Some(added) = row["added"].as_str() {
            say!("  added: {added:?}");
        }
    }
    say!("What they wrote: GET /api/v1/sync/quarantine");
}

fn conflicts(answer: &Json) {
    let empty = Vec::new();
    let all = answer.as_array().unwrap_or(&empty);
    if all.is_empty() {
        say!("Nothing was written apart that had to be settled.");
    }
    for conflict in all {
        let field = conflict["field"].as_str().map(|field| format!("{field} of "));
        let (id, kind) = (text(&conflict["id"]), text(&conflict["kind"]));
        say!("{id}  {}{kind} {}", field.unwrap_or_default(), text(&conflict["key"]));
        say!("  {} ({})", text(&conflict["explanation"]), text(&conflict["cause"]));
        for (place, value) in conflict["values"].as_array().unwrap_or(&empty).iter().enumerate() {
            let mark = if value["won"] == true { "shows" } else { "     " };
            say!("  {place} {mark}  {}  by {}", value["value"], writer_of(value));
        }
    }
}

/// Who wrote a value of a conflict, on which node and when, as far as it is known.
fn writer_of(value: &Json) -> String {
    let named = |name: &Json| name.as_str().map(str::to_owned);
    let at = named(&value["node_name"]).unwrap_or_else(|| text(&value["node"]));
    let author = named(&value["author"]["display_name"]);
    let author = author.unwrap_or_else(|| "somebody".to_owned());
    format!("{author} on {at} at {}", text(&value["at"]))
}

fn imported(answer: &Json) -> Outcome {
    let counts = ["created", "updated", "unchanged", "skipped", "failed"];
    say!("{}", counts.map(|name| format!("{} {name}", text(&answer[name]))).join(", "));
    for name in ["comments", "redirects"] {
        if answer[name].as_u64().is_some_and(|count| count > 0) {
            say!("{} {name}", text(&answer[name]));
        }
    }
    if answer["dry_run"] == true {
        say!("Nothing was written: this is what would have been.");
    }
    for note in answer["notes"].as_array().into_iter().flatten() {
        say!("{}: {}", text(&note["source"]), text(&note["message"]));
    }
    for failure in answer["failures"].as_array().into_iter().flatten() {
        complain!("{}: {}", text(&failure["source"]), text(&failure["message"]));
    }
    Ok(())
}

fn import_outcome(answer: &Json) -> Outcome {
    match answer["failed"].as_u64() {
        Some(failed) if failed > 0 => {
            Err(Failure::failed(format!("{failed} could not be imported")))
        }
        _ => Ok(()),
    }
}

fn verified(answer: &Json) -> Outcome {
    say!(
        "{} records, {} ops, {} blobs looked at",
        text(&answer["records"]),
        text(&answer["ops"]),
        text(&answer["blobs"])
    );
    let problems = answer["problems"].as_array().map_or(&[][..], Vec::as_slice);
    problems.iter().for_each(|problem| say!("- {}", text(problem)));
    if problems.is_empty() {
        say!("All is as it should be.");
    }
    Ok(())
}

fn verify_outcome(answer: &Json) -> Outcome {
    let problems = answer["problems"].as_array().map_or(0, Vec::len);
    if problems == 0 {
        return Ok(());
    }
    let advice = "`atoll rebuild` makes the views anew; if that does not help, restore a backup";
    Err(Failure::new(
        crate::failure::Exit::Damaged,
        format!("{problems} problems were found: {advice}"),
    ))
}

/// A bar on standard error; nothing where that is no terminal.
pub fn bar(what: &'static str) -> (Progress, ProgressBar) {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {eta}");
    let bar = ProgressBar::new(0).with_message(what);
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    let shown = bar.clone();
    let progress = Progress::new(move |done, of| {
        shown.set_length(of);
        shown.set_position(done);
    });
    (progress, bar)
}
