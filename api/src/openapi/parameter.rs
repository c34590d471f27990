//! Parameters of an operation: of its path, its list or record, its own, and the headers that all share.

use super::schema::scalar_schema;
use crate::list;
use crate::route::Route;
use crate::show;
use atoll_storage::{Kind, Merge, Shown, Type};
use axum::http::Method;
use serde_json::{Value, json};

pub(super) fn parameters(route: &Route) -> Value {
    let mut all = Vec::new();
    for name in route.path_names() {
        all.push(
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        );
    }
    let shared = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
    match route.kind() {
        Some(kind) if route.is_list => {
            all.extend(["Limit", "Cursor"].map(shared));
            let columns = list::column_names(kind, false);
            let keys = columns.iter().flat_map(|name| [(*name).to_owned(), format!("-{name}")]);
            all.push(query(
                "sort",
                &json!({ "type": "string", "enum": keys.collect::<Vec<_>>() }),
                "A minus descends.",
            ));
            all.extend(view_parameters(kind));
            all.extend(filters(kind, &columns, route.query));
        }
        Some(kind) => all.extend(view_parameters(kind)),
        None => {}
    }
    for name in route.query {
        all.push(match *name {
            "limit" => shared("Limit"),
            "cursor" => shared("Cursor"),
            name => own(name),
        });
    }
    if !route.is_bare {
        all.push(shared("Tenant"));
    }
    if route.method == Method::POST && !route.is_strict && !route.is_upload {
        all.push(shared("IdempotencyKey"));
    }
    if route.kind().is_some()
        && matches!(route.method, Method::PUT | Method::PATCH | Method::DELETE)
    {
        all.push(shared("IfMatch"));
    }
    Value::Array(all)
}

/// What a parameter holds that is an endpoint's own. One name means the same wherever it stands; a test finds
/// those that are missing here.
fn known(name: &str) -> Option<(Value, &'static str)> {
    let text = || json!({ "type": "string" });
    let flag = || json!({ "type": "boolean", "default": false });
    let number =
        |least: u32, most: u32| json!({ "type": "integer", "minimum": least, "maximum": most });
    let time = || json!({ "type": "string", "format": "date-time" });
    Some(match name {
        "action" => (text(), "Only entries of this action, such as `user.role`."),
        "actor" => (text(), "Only what this user did: an id or a username."),
        "after" => (text(), "As the header Last-Event-ID: the id of the last event that was seen."),
        "atomic" => (flag(), "All rows or none."),
        "author" => (text(), "Only of this author: an id or a username."),
        "by" => (
            json!({ "type": "string", "enum": ["line", "word"] }),
            "What the difference is made of.",
        ),
        "category" => (text(), "Only in this category: an id or a slug."),
        "code" => (text(), "What the provider gave."),
        "days" => (number(1, 365), "How many days back."),
        "diff" => {
            (number(1, i32::MAX as u32), "The number of another version: answers the differences.")
        }
        "dry_run" => (flag(), "Tries everything and writes nothing."),
        "error" | "error_description" | "error_uri" => {
            (text(), "What the provider says went wrong.")
        }
        "everywhere" => (flag(), "By the whole network, for good; not by this node alone."),
        "featured" | "pinned" => (json!({ "type": "boolean" }), "Only those that are so."),
        "format" => (
            json!({ "type": "string", "enum": atoll_node::content::import::Format::NAMES }),
            "What the file is.",
        ),
        "iss" | "session_state" | "scope" | "authuser" | "prompt" | "hd" => {
            (text(), "What providers add; not looked at.")
        }
        "from" => (time(), "Not before this time."),
        "include" => (text(), "`password_hashes` exports them too."),
        "mine" => (flag(), "Only one's own."),
        "name" => (text(), "What the file is called: its rows are told apart by it."),
        "offset" => (number(0, 10_000), "How many hits to pass over."),
        "purge" => (flag(), "Removes it for good, without the trash."),
        "q" => (text(), "Words to look for."),
        "queue" => (text(), "Only jobs of this queue."),
        "reassign_to" => (text(), "Where what hangs on it goes: an id or a name."),
        "return_to" => (text(), "A path on this site to come back to, such as `/welcome`."),
        "reason" => (text(), "Why, in at most 200 characters; kept only with `everywhere`."),
        "render" => (flag(), "With the body as sanitised HTML."),
        "site" => (
            text(),
            "Where the posts stood, to complete their addresses: `https://old.example.org`.",
        ),
        "sort" => (text(), "A minus descends."),
        "state" => (text(), "Only jobs in this state."),
        "status" => (text(), "Only those with this status."),
        "sub_category" => (text(), "Only in this category below another: an id or a slug."),
        "tag" => (text(), "Only with this tag: an id or a slug."),
        "target" => {
            (json!({ "type": "string", "format": "uuid" }), "Only what was done to this record.")
        }
        "tenant" => (text(), "The tenant that is meant: an id or a slug."),
        "threaded" => (flag(), "Answers under what they answer, in the order of the thread."),
        "to" => (time(), "Not after this time."),
        "token" => (text(), "What the letter's link holds."),
        "trashed" => (flag(), "What is in the trash, and nothing else."),
        "tree" => (flag(), "All of them as a tree, each with its `children`."),
        "type" => (text(), "Only of this type; of events, those whose type begins so."),
        _ => return None,
    })
}

fn own(name: &str) -> Value {
    let (schema, doc) = known(name).unwrap_or_else(|| (json!({ "type": "string" }), ""));
    query(name, &schema, doc)
}

fn query(name: &str, schema: &Value, doc: &str) -> Value {
    let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
    if !doc.is_empty() {
        parameter["description"] = doc.into();
    }
    parameter
}

fn view_parameters(kind: &'static Kind) -> Vec<Value> {
    let named =
        |names: Vec<&str>| json!({ "type": "array", "items": { "type": "string", "enum": names } });
    let list = |name: &str, names: Vec<&str>, doc: &str| {
        let mut parameter = query(name, &named(names), doc);
        parameter["style"] = "form".into();
        parameter["explode"] = false.into();
        parameter
    };
    let fields =
        kind.fields.iter().filter(|field| field.shown != Shown::Never).map(|field| field.name);
    let added = show::added_names(kind).iter().copied();
    let fields =
        ["id", "created_at", "updated_at"].into_iter().chain(fields).chain(added).collect();
    let mut all = vec![list("fields", fields, "Only these fields.")];
    let embedded: Vec<&str> = show::expansion_names(kind).collect();
    if !embedded.is_empty() {
        all.push(list("expand", embedded, "Records to embed."));
    }
    all
}

fn filters(kind: &'static Kind, columns: &[&'static str], extra: &[&str]) -> Vec<Value> {
    let scalar = columns.iter().filter_map(|name| {
        let ty = kind.columns().find(|(column, _)| column == name).map(|(_, ty)| ty);
        let ty = ty.unwrap_or(if *name == "id" { Type::Id } else { Type::Time });
        let choices = kind.field(name).map_or(&[][..], |field| field.choices);
        (!extra.contains(name))
            .then(|| query(name, &scalar_schema(ty, choices, None), "Only those with this value."))
    });
    let sets = kind.fields.iter().filter(|field| {
        field.merge == Merge::Set
            && field.column
            && field.shown == Shown::Always
            && !extra.contains(&field.name)
    });
    let sets = sets.map(|set| {
        query(set.name, &scalar_schema(set.ty, set.choices, None), "Only those that hold it.")
    });
    scalar.chain(sets).collect()
}

pub(super) fn shared_parameters() -> Value {
    let header = |name: &str, doc: &str| json!({ "name": name, "in": "header", "description": doc, "schema": { "type": "string" } });
    json!({
        "Limit": {
            "name": "limit", "in": "query", "description": "Records on a page.",
            "schema": { "type": "integer", "minimum": 1, "maximum": list::MAX_LIMIT, "default": list::DEFAULT_LIMIT },
        },
        "Cursor": {
            "name": "cursor", "in": "query", "description": "`page.next` of the page before.",
            "schema": { "type": "string" },
        },
        "Tenant": header("X-Tenant", "A tenant's id or slug; else the host's name tells it."),
        "IdempotencyKey": header("Idempotency-Key", "A repeat under one key gets the first answer."),
        "IfMatch": header("If-Match", "The ETag of the record as it was read: 412 if it was changed since."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_says_what_it_holds() {
        for route in crate::all_routes() {
            for name in route.query.iter().filter(|name| !matches!(**name, "limit" | "cursor")) {
                assert!(known(name).is_some(), "{} of {} is not described", name, route.path);
            }
        }
    }
}
