//! What an operation answers, and how it may be refused.

use super::schema::{of_fields, reference, type_name};
use crate::route::{Access, Route, Shape};
use axum::http::Method;
use serde_json::{Map, Value, json};

pub(super) fn responses(route: &Route) -> Value {
    let refused_with = |name: &str| json!({ "$ref": format!("#/components/responses/{name}") });
    let mut all = Map::new();
    let status = if route.method == Method::GET { "200" } else { "2XX" };
    all.insert(status.into(), success(route));
    if route.method == Method::GET && !route.is_bare {
        all.insert("304".into(), json!({ "description": "The client has this answer already." }));
    }
    let mut refused = Vec::new();
    if !route.is_bare {
        refused.extend(["400", "401", "429"]);
    }
    if route.access != Access::Public {
        refused.push("403");
    }
    if route.path.contains('{') {
        refused.push("404");
    }
    if route.takes.is_some() {
        refused.extend(["409", "413", "415", "422"]);
    }
    if route.is_page {
        // Who reads is told in words.
        refused.clear();
    }
    for status in refused {
        let (name, ..) = REFUSALS.iter().find(|(_, known, _)| *known == status).unwrap_or(&OTHER);
        all.insert(status.into(), refused_with(name));
    }
    all.insert("default".into(), refused_with(if route.is_page { ON_PAGE.0 } else { OTHER.0 }));
    Value::Object(all)
}

/// Name, status, and when it is given.
const REFUSALS: [(&str, &str, &str); 9] = [
    ("Malformed", "400", "The request cannot be read, or a query parameter is unknown or wrong."),
    ("Unauthenticated", "401", "There is no token, or it is not good any more."),
    ("Denied", "403", "Whoever asks may not."),
    ("NotFound", "404", "There is no such thing, or none that may be known of."),
    ("Conflict", "409", "What is there stands against it."),
    ("TooLarge", "413", "The body is larger than this endpoint takes."),
    ("UnsupportedMediaType", "415", "The body is of another type than this endpoint takes."),
    ("Invalid", "422", "The body can be read; `errors` names each field that was refused."),
    ("TooManyRequests", "429", "Too many requests: `Retry-After` says when to come back."),
];
const OTHER: (&str, &str, &str) = ("Problem", "default", "Refused or failed, and why.");
const ON_PAGE: (&str, &str) = ("OnPage", "Not found, moved, or refused: told on a page.");

pub(super) fn shared_responses() -> Value {
    let number = |doc: &str| json!({ "description": doc, "schema": { "type": "integer" } });
    let one = |(name, status, doc): &(&str, &str, &str)| {
        let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
        let mut response = json!({ "description": doc, "content": content });
        if *status == "429" {
            response["headers"] = json!({ "Retry-After": number("Seconds to wait.") });
        }
        ((*name).to_owned(), response)
    };
    let mut all: Map<String, Value> = REFUSALS.iter().chain([&OTHER]).map(one).collect();
    let text = json!({ "schema": { "type": "string" } });
    let content = json!({
        "text/html": text, "text/plain": text,
        "application/problem+json": { "schema": reference("Problem") },
    });
    all.insert(ON_PAGE.0.into(), json!({ "description": ON_PAGE.1, "content": content }));
    all.into()
}

fn success(route: &Route) -> Value {
    let item = match route.gives {
        None => return json!({ "description": "Done." }),
        Some(Shape::Of(kind)) => reference(&type_name(kind)),
        Some(Shape::Fields(fields)) => of_fields(fields, false),
    };
    // A tree comes whole, and so do the rows of a batch.
    let is_paged = route.query.contains(&"cursor") || matches!(route.gives, Some(Shape::Of(_)));
    let required: &[&str] =
        if is_paged && !route.query.contains(&"tree") { &["data", "page"] } else { &["data"] };
    let schema = if route.is_list {
        json!({
            "type": "object",
            "required": required,
            "properties": { "data": { "type": "array", "items": item }, "page": reference("Page") },
        })
    } else if route.is_plain {
        item
    } else {
        json!({ "type": "object", "required": ["data"], "properties": { "data": item } })
    };
    json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } })
}
