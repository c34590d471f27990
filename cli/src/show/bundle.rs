//! Bundles as people read about them: what was made, what came, what is damaged and what to do about it.

use super::text;
use crate::failure::{Exit, Failure, Outcome};
use atoll_node::courier::Order;
use atoll_node::moment::Moment;
use serde_json::Value as Json;

pub fn made(order: &Order, answer: &Json) {
    for file in list(&answer["files"]) {
        say!("{}", text(file));
    }
    if order.want_only {
        complain!(
            "Bring it to another node, and run `atoll bundle import` and `atoll bundle export --to` there."
        );
        return;
    }
    let (ops, records) = (&answer["ops"], &answer["records"]);
    let (blobs, bytes) = (&answer["blobs"], text(&answer["bytes"]));
    complain!("{ops} ops, {records} records and {blobs} files, {bytes} bytes.");
    left_at_home(&answer["blobs_left"]);
    if !order.lock {
        complain!(
            "Whoever gets it can read it: --lock makes one that only its receivers can read."
        );
    }
}

fn left_at_home(left: &Json) {
    let count = |name: &str| left[name].as_u64().unwrap_or_default();
    if count("larger") > 0 {
        complain!(
            "{} files are larger than what goes along unasked: --files all takes them.",
            count("larger")
        );
    }
    if count("no_room") > 0 {
        complain!(
            "{} files did not go, or not whole: there was no room for more (--files-mib, and the disk). What is missing \
             comes with the next bundle, once its receiver has told what it lacks.",
            count("no_room")
        );
    }
    if count("not_here") > 0 {
        complain!("{} files are not on this node themselves.", count("not_here"));
    }
}

fn unread(answer: &Json) {
    for unread in list(&answer["unread"]) {
        complain!("{}: {}", text(&unread["file"]), text(&unread["why"]));
    }
}

/// What bundles say of themselves.
pub fn described(answer: &Json) {
    unread(answer);
    for bundle in list(&answer["bundles"]) {
        let made_at = Moment::of(bundle["made_ms"].as_u64().unwrap_or_default());
        let maker = match &bundle["is_known"] {
            Json::Bool(true) => "",
            Json::Bool(false) => ", which is no peer of this node",
            _ => ", unchecked: there is no node here",
        };
        let (name, key) = (text(&bundle["made_by"]), text(&bundle["maker"]));
        say!("A bundle of {name} ({key}{maker}), made at {made_at}.");
        let readers: Vec<String> = list(&bundle["locked_for"]).map(text).collect();
        match readers.as_slice() {
            [] => say!("  Whoever has it can read it."),
            readers => say!("  Only {} can read it.", readers.join(", ")),
        }
        let of = bundle["of_volumes"].as_u64().map_or_else(String::new, |of| format!(" of {of}"));
        for file in list(&bundle["files"]) {
            let (volume, bytes, parts) = (&file["volume"], &file["bytes"], &file["parts"]);
            say!("  {}: volume {volume}{of}, {bytes} bytes, {parts} parts.", text(&file["file"]));
            if file["damaged_bytes"].as_u64() > Some(0) {
                complain!(
                    "  {} bytes of it are damaged, or it was cut off: `atoll bundle verify` says where.",
                    file["damaged_bytes"]
                );
            }
        }
        for missing in missing_volumes(bundle) {
            complain!("  {missing}");
        }
        if bundle["of_volumes"].is_null() {
            say!("  Whether more volumes belong to it cannot be told from these files.");
        }
        brings(bundle);
    }
}

fn missing_volumes(bundle: &Json) -> impl Iterator<Item = String> {
    list(&bundle["missing_volumes"]).map(|missing| match (&missing[0], &missing[1]) {
        (from, to) if from == to => format!("Volume {from} is not among these files."),
        (from, to) => format!("Volumes {from} to {to} are not among these files."),
    })
}

fn brings(bundle: &Json) {
    if bundle["is_readable"] == false {
        say!("  What it brings is not in these files, or cannot be read here.");
        return;
    }
    let streams = |all: &Json| {
        for stream in list(&all["list"]) {
            say!("    {}", text(&stream["words"]));
        }
        if all["streams"].as_u64() > Some(list(&all["list"]).count() as u64) {
            say!("    and more");
        }
    };
    let brings = &bundle["brings"];
    match brings["ops"].as_u64() {
        None => say!(
            "  It does not say what it brings, as one of an older release: `atoll bundle verify` counts it."
        ),
        Some(0) => say!("  It brings no ops."),
        Some(ops) => {
            say!("  It brings {ops} ops in {} streams:", brings["streams"]);
            streams(brings);
        }
    }
    let has = &bundle["has"];
    if has.is_null() {
        return;
    }
    let carries = text(&bundle["carries"]);
    let (ops, of, files) = (&has["ops"], &has["streams"], &bundle["asks_for_files"]);
    say!(
        "  Its maker carries {carries}, has {ops} ops in {of} streams, wants what is beyond them, and asks for {files} files."
    );
    if brings["ops"] == 0 {
        streams(has);
    }
}

/// `verb`: what the bundles do in this sentence.
pub fn seen(answer: &Json, verb: &str) {
    unread(answer);
    for passed in list(&answer["passed_over"]) {
        let files: Vec<String> = list(&passed["files"]).map(text).collect();
        complain!("{} was passed over: {}.", files.join(", "), text(&passed["why"]));
    }
    for bundle in list(&answer["bundles"]) {
        let made_at = Moment::of(bundle["made_ms"].as_u64().unwrap_or_default());
        let of = bundle["of_parts"].as_u64().map_or_else(String::new, |of| format!(" of {of}"));
        let volumes: Vec<String> = list(&bundle["volumes"]).map(text).collect();
        say!(
            "A bundle of {}, made at {made_at}: volume {}, {}{of} parts. It {verb} {} ops, {} records and {}.",
            text(&bundle["made_by"]),
            volumes.join(", "),
            bundle["parts"],
            bundle["ops"],
            bundle["records"],
            files(bundle)
        );
        if verb == "brought" {
            let (applied, had) = (&bundle["applied"], &bundle["had_already"]);
            let (new, here) = (&bundle["blobs_new"], &bundle["blobs_had"]);
            say!(
                "New here: {applied} ops and {new} files. {had} ops and {here} files were here already."
            );
        }
        if bundle["is_known"] == false {
            complain!("Its maker is no peer of this node ({}).", text(&bundle["maker"]));
        }
        problems(bundle);
    }
}

fn files(bundle: &Json) -> String {
    let count = |name: &str| bundle[name].as_u64().unwrap_or_default();
    let (all, whole, bytes) = (count("blobs"), count("blobs_whole"), count("blob_bytes"));
    match all {
        0 => "no files".to_owned(),
        _ if whole < all => format!("{all} files ({whole} of them whole, {bytes} bytes)"),
        _ => format!("{all} files ({bytes} bytes)"),
    }
}

fn problems(bundle: &Json) {
    for damage in list(&bundle["damaged"]) {
        let part = damage["part"].as_u64().map_or_else(
            || format!("bytes {} to {}", damage["from_byte"], damage["to_byte"]),
            |part| format!("part {part}"),
        );
        complain!("Volume {}, {part}: {}.", damage["volume"], text(&damage["why"]));
    }
    missing_volumes(bundle).for_each(|missing| complain!("{missing}"));
    if lacks_end(bundle) {
        complain!(
            "The last volume is not among these files: how many belong to it cannot be told without it."
        );
    }
    for missing in list(&bundle["missing"]) {
        complain!("Parts {} to {} are in none of these files.", missing[0], missing[1]);
    }
    let count = |name: &str| bundle[name].as_u64().unwrap_or_default();
    if count("newer") > 0 {
        complain!(
            "{} parts are of kinds that only a newer release reads: upgrade this node, then bring these files again.",
            count("newer")
        );
    }
    if count("locked") > 0 {
        complain!(
            "{} parts are locked for others: they are as they were signed, and what is in them is not known here.",
            count("locked")
        );
    }
    if count("blobs_unfinished") > 0 {
        complain!(
            "{} files are here in part. Other volumes bring the rest, or the next bundle that is made for this node.",
            count("blobs_unfinished")
        );
    }
    for left in list(&bundle["blobs_left_out"]) {
        let (blob, size) = (text(&left["blob"]), &left["size_bytes"]);
        complain!("File {blob} ({size} bytes) was left out: {}.", text(&left["why"]));
    }
    if count("blobs_left") > list(&bundle["blobs_left_out"]).count() as u64 {
        complain!("{} files were left out in all.", count("blobs_left"));
    }
    if count("waiting") > 0 {
        complain!(
            "{} of these ops build on what is in none of these files and not here yet. They do not count: bring that, then these files again.",
            count("waiting")
        );
    }
    if count("quarantined") > 0 {
        complain!("{} ops could not be applied and are in quarantine.", count("quarantined"));
    }
}

/// Whole or not, for scripts. What lies there for others is no fault.
pub fn outcome(answer: &Json) -> Outcome {
    let is_unread = list(&answer["unread"]).next().is_some();
    if is_unread || list(&answer["bundles"]).any(is_damaged) {
        let advice = "what is whole counts; bring a sound copy for the rest";
        return Err(Failure::new(Exit::Damaged, format!("not all of it could be read: {advice}")));
    }
    if list(&answer["bundles"]).any(is_incomplete) {
        let told = "what is here is sound, and not all of it is here: bring the rest as well";
        return Err(Failure::new(Exit::NotFound, told));
    }
    Ok(())
}

/// Parts can only be missing from a volume that is there if something took them out.
fn is_damaged(bundle: &Json) -> bool {
    let is_any = |name: &str| list(&bundle[name]).next().is_some();
    let has_all_volumes = !lacks_end(bundle) && !is_any("missing_volumes");
    is_any("damaged") || (has_all_volumes && is_any("missing"))
}

fn is_incomplete(bundle: &Json) -> bool {
    let is_any = |name: &str| list(&bundle[name]).next().is_some();
    lacks_end(bundle)
        || is_any("missing_volumes")
        || is_any("missing")
        || bundle["waiting"].as_u64() > Some(0)
}

/// Where a bundle ends is not told to those who have no key for it.
fn lacks_end(bundle: &Json) -> bool {
    bundle["of_parts"].is_null() && bundle["locked"] == 0
}

/// Of what was only looked at.
pub fn info_outcome(answer: &Json) -> Outcome {
    let mut files = list(&answer["bundles"]).flat_map(|bundle| list(&bundle["files"]));
    let is_damaged = files.any(|file| file["damaged_bytes"].as_u64() > Some(0));
    if is_damaged || list(&answer["unread"]).next().is_some() {
        return Err(Failure::new(Exit::Damaged, "not all of it could be read"));
    }
    Ok(())
}

fn list(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}
