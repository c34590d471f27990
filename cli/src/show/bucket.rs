//! Buckets in front of people.

use super::text;
use serde_json::Value as Json;

pub fn added(answer: &Json) {
    say!("Added {}.", text(&answer["bucket"]));
    if let Some(why) = answer["not_reached"].as_str() {
        complain!("It could not be reached now ({why}); it is tried again by itself.");
    }
    if answer["open"] == true {
        complain!(
            "What this node leaves there is not locked: who can read the bucket can read it all."
        );
    }
    complain!(
        "It takes only what nodes left there that it lists: `atoll peer add KEY --name NAME`."
    );
}

/// Under the peers.
pub fn all(buckets: &Json) {
    for bucket in buckets.as_array().into_iter().flatten() {
        say!("");
        say!("bucket {}  {}", text(&bucket["name"]), text(&bucket["state"]));
        one(bucket);
    }
}

fn one(bucket: &Json) {
    let contact = text(&bucket["contact_at"]);
    if !contact.is_empty() {
        say!("  last visited {contact}");
    }
    if let Some(why) = bucket["reason"].as_str().filter(|why| !why.is_empty()) {
        let advice = text(&bucket["advice"]);
        let advice = if advice.is_empty() { String::new() } else { format!(" To do: {advice}.") };
        say!("  {why}.{advice}");
    }
    if let Some(next_s) = bucket["next_s"].as_u64() {
        say!("  next visit in {next_s} s");
    }
    if bucket["objects"].is_null() {
        return;
    }
    let [objects, own, bytes] =
        ["objects", "own_objects", "size_bytes"].map(|name| text(&bucket[name]));
    say!("  {objects} objects there, {own} of this node; {bytes} bytes in all");
    for member in bucket["members"].as_array().into_iter().flatten() {
        let absent = if member["absent"] == true { ", and did not come for long" } else { "" };
        let carries = match member["carries"].as_str() {
            Some(carries) => format!(", of what it carries ({carries})"),
            None => String::new(),
        };
        let [name, ops] = ["name", "lacks_ops"].map(|field| text(&member[field]));
        let files = match member["lacks_files"].as_u64() {
            Some(files) if files > 0 => format!(" and asks for {files} files"),
            _ => String::new(),
        };
        say!("  {name} lacks {ops} ops{files}{carries}{absent}");
        if let Some(streams) = member["differs_in"].as_u64().filter(|streams| *streams > 0) {
            say!(
                "  {name} has the same ops and another state in {streams} streams: being repaired"
            );
        }
    }
    if let Some(waiting) = bucket["waiting"].as_u64().filter(|waiting| *waiting > 0) {
        say!(
            "  {waiting} bundles build on what is not here: who has it leaves it at its next visit"
        );
    }
    if let Some(asked) = bucket["files_asked"].as_u64().filter(|asked| *asked > 0) {
        say!(
            "  this node asks for {asked} files; {} parcels with files there",
            text(&bucket["parcels"])
        );
    }
    for left in bucket["files_left_out"].as_array().into_iter().flatten() {
        say!("  not taken {}: {}", text(&left["file"]), text(&left["reason"]));
    }
    for refused in bucket["refused"].as_array().into_iter().flatten() {
        say!("  passed over {}: {}", text(&refused["object"]), text(&refused["reason"]));
    }
    for foreign in bucket["foreign"].as_array().into_iter().flatten() {
        say!("  foreign {}", text(foreign));
    }
}
