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
    complain!("{ops} ops and {records} records, {} bytes.", text(&answer["bytes"]));
    if !order.lock {
        complain!(
            "Whoever gets it can read it: --lock makes one that only its receivers can read."
        );
    }
}

/// `verb`: what the bundles do in this sentence.
pub fn seen(answer: &Json, verb: &str) {
    for unread in list(&answer["unread"]) {
        complain!("{}: {}", text(&unread["file"]), text(&unread["why"]));
    }
    for bundle in list(&answer["bundles"]) {
        let made_at = Moment::of(bundle["made_ms"].as_u64().unwrap_or_default());
        let of = bundle["of_parts"].as_u64().map_or_else(String::new, |of| format!(" of {of}"));
        let volumes: Vec<String> = list(&bundle["volumes"]).map(text).collect();
        say!(
            "A bundle of {}, made at {made_at}: volume {}, {}{of} parts. It {verb} {} ops and {} records.",
            text(&bundle["made_by"]),
            volumes.join(", "),
            bundle["parts"],
            bundle["ops"],
            bundle["records"]
        );
        if verb == "brought" {
            let (applied, had) = (&bundle["applied"], &bundle["had_already"]);
            say!("New here: {applied} ops. {had} were here already.");
        }
        if bundle["is_known"] == false {
            complain!("Its maker is no peer of this node ({}).", text(&bundle["maker"]));
        }
        problems(bundle);
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
    for missing in list(&bundle["missing"]) {
        complain!("Parts {} to {} are in none of these files.", missing[0], missing[1]);
    }
    let count = |name: &str| bundle[name].as_u64().unwrap_or_default();
    if count("waiting") > 0 {
        complain!(
            "{} ops build on parts that are not here: bring those, then these files again.",
            count("waiting")
        );
    }
    if count("quarantined") > 0 {
        complain!("{} ops could not be applied and are in quarantine.", count("quarantined"));
    }
}

/// Whole or not, for scripts.
pub fn outcome(answer: &Json) -> Outcome {
    let is_damaged = list(&answer["bundles"]).any(|bundle| {
        list(&bundle["damaged"]).next().is_some() || bundle["waiting"].as_u64() > Some(0)
    });
    if is_damaged || list(&answer["unread"]).next().is_some() {
        let advice = "what is whole counts; bring a sound copy for the rest";
        return Err(Failure::new(Exit::Damaged, format!("not all of it could be read: {advice}")));
    }
    Ok(())
}

fn list(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}
