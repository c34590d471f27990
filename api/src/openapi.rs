//! The OpenAPI 3.1 document, made of the routes and kinds: nothing in it is written a second time.

mod parameter;
mod response;
mod schema;

use crate::call::Call;
use crate::reply::Reply;
use crate::route::{Access, Answer, Route, Shape, get};
use atoll_storage::Kind;
use axum::http::Method;
use bytes::Bytes;
use parameter::{parameters, shared_parameters};
use response::{responses, shared_responses};
use schema::{
    field_schema, of_fields, page_schema, problem_schema, reference, shown, type_name, written,
};
use serde_json::{Map, Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/openapi.json", Access::Public, show)
            .bare()
            .doc("This API as an OpenAPI 3.1 document."),
    ]
}

async fn show(call: Call) -> Answer {
    let make = || Bytes::from(serde_json::to_vec(&document(&call.app.routes)).unwrap_or_default());
    Reply::text("application/json", call.app.openapi.get_or_init(make).clone())
}

/// What holds for every endpoint, in Markdown.
const CONVENTIONS: &str = "\
An answer is JSON with what was asked for under `data`. Times are RFC 3339 in UTC, ids are UUIDv7; where a record has a \
slug, `{id}` takes either.

**Lists** are pages: `{\"data\": [...], \"page\": {\"next\": ..., \"total\": ...}}`. `limit` is 20, at most 100; `cursor` \
takes `page.next` of the page before, and the header `Link` has both. `sort=-created_at` descends, `field=value` filters, \
numbers and times also by `field_from` and `field_to`, `fields=` keeps only what is named, `expand=` embeds what is \
referred to. A parameter that is not known is refused.

**Refusals** are `application/problem+json` (RFC 9457) with a stable `code`, a `message` for people, `errors` by field, \
and the `request_id` that the log of the node has.

**Changes.** Every record has an `ETag`: `If-None-Match` answers 304, `If-Match` on a change answers 412 if somebody was \
faster. `Idempotency-Key` on POST gives a repeat the first answer, for a day.

**Limits.** `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` tell what is left; 429 and 503 say in \
`Retry-After` when to come back.

**Tenants.** The host's name tells the tenant, or the header `X-Tenant` with an id or a slug.";

/// The document over these routes.
pub fn document(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    schemas.insert("Problem".into(), problem_schema());
    schemas.insert("Page".into(), page_schema());
    let mut kinds: Vec<&'static Kind> = Vec::new();
    for route in routes {
        for shape in [route.takes, route.gives].into_iter().flatten() {
            if let Shape::Of(kind) = shape
                && !kinds.iter().any(|known| known.name == kind.name)
            {
                kinds.push(kind);
            }
        }
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    kinds.sort_by_key(|kind| kind.name);
    for kind in kinds {
        let name = type_name(kind);
        schemas.insert(format!("{name}Draft"), written(kind, true));
        schemas.insert(format!("{name}Patch"), written(kind, false));
        schemas.insert(name, shown(kind));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Atoll",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A content platform in one binary whose nodes work apart and meet again.",
            "description": CONVENTIONS,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": shared_parameters(),
            "responses": shared_responses(),
            "securitySchemes": { "bearer": {
                "type": "http", "scheme": "bearer",
                "description": "An access token, as `POST /api/v1/auth/login` gives it, or an API key.",
            } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let words = route
        .path
        .split(['/', '{', '}', '.', '-'])
        .filter(|word| !matches!(*word, "" | "api" | "v1"));
    let name = words
        .fold(route.method.as_str().to_ascii_lowercase(), |name, word| format!("{name}_{word}"));
    // A page bears the name of what it shows.
    let name = if route.is_page { format!("{name}_page") } else { name };
    let mut operation = json!({
        "operationId": name,
        "summary": route.doc.split_inclusive(". ").next().unwrap_or_default().trim(),
        "description": described(route),
        "tags": [tag_of(route)],
        "parameters": parameters(route),
        "responses": responses(route),
    });
    operation["security"] = match route.access {
        Access::Public => json!([{}, { "bearer": [] }]),
        _ => json!([{ "bearer": [] }]),
    };
    if let Some(shape) = route.takes {
        let schema = match shape {
            Shape::Of(kind) if !route.also.is_empty() => {
                let mut schema = written(kind, route.method == Method::POST);
                for field in route.also {
                    schema["properties"][field.name] = field_schema(field, true);
                }
                schema
            }
            Shape::Of(kind) if route.method != Method::POST => {
                reference(&format!("{}Patch", type_name(kind)))
            }
            Shape::Of(kind) => reference(&format!("{}Draft", type_name(kind))),
            Shape::Fields(fields) => of_fields(fields, true),
        };
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    if route.is_upload {
        let file = json!({ "schema": { "type": "string", "format": "binary" } });
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/octet-stream": file } });
    }
    operation
}

fn described(route: &Route) -> String {
    let access = match route.access {
        Access::Public => "Open to anybody.".to_owned(),
        Access::User => "For whoever is signed in.".to_owned(),
        Access::Can(permission) => format!("Needs the permission `{permission}`."),
        Access::Author(permission) => {
            format!("For the author of the record, or with the permission `{permission}`.")
        }
    };
    format!("{} {access}", route.doc).trim().to_owned()
}

/// The area: the part after the version.
fn tag_of(route: &Route) -> &'static str {
    let rest = route.path.strip_prefix("/api/v1/").unwrap_or("node");
    rest.split('/').next().unwrap_or("node")
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_storage::Field;

    const TITLE: Field = Field::text(1, "title").required().max(300).column();
    const STATUS: Field = Field::text(2, "status").choices(&["draft", "published"]).column();
    const HASH: Field = Field::text(3, "hash").secret().column();
    const WRITER: Field = Field::refers(4, "writer_id", "user").column();
    static NOTE: Kind = Kind {
        fields: &[TITLE, STATUS, HASH, WRITER],
        ..Kind::new(903, "long_note", "long_notes", "content")
    };

    async fn nothing(_: Call) -> Answer {
        Reply::none()
    }

    #[test]
    fn routes_and_kinds_make_the_document() {
        let routes = [
            get("/api/v1/notes", Access::Public, nothing).lists(&NOTE).query(&["q"]),
            crate::post("/api/v1/notes", Access::User, nothing).takes(&NOTE).gives(&NOTE),
            crate::patch("/api/v1/notes/{id}", Access::User, nothing).takes(&NOTE).gives(&NOTE),
        ];
        let document = document(&routes);
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["LongNoteDraft"]["required"], json!(["title"]));
        assert_eq!(schemas["LongNotePatch"]["required"], Value::Null);
        assert_eq!(schemas["LongNote"]["properties"]["hash"], Value::Null);
        assert!(!schemas.to_string().contains("hash"), "a secret field is named");
        let list = &document["paths"]["/api/v1/notes"]["get"];
        let names: Vec<&str> = list["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["name"].as_str())
            .collect();
        let wanted = [
            "sort",
            "fields",
            "expand",
            "id",
            "created_at",
            "updated_at",
            "title",
            "status",
            "writer_id",
            "q",
        ];
        assert_eq!(names, wanted);
        let patch = &document["paths"]["/api/v1/notes/{id}"]["patch"];
        let body = &patch["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(body, "#/components/schemas/LongNotePatch");
        assert_eq!(patch["security"], json!([{ "bearer": [] }]));
    }

    #[test]
    fn every_reference_leads_somewhere_and_operations_have_names_of_their_own() {
        let document = document(&crate::all_routes());
        let mut names = std::collections::BTreeSet::new();
        walk(&document, &mut |key, value| {
            if key == "$ref" {
                let place = value.as_str().unwrap_or_default().trim_start_matches('#');
                assert!(document.pointer(place).is_some(), "{value}");
            }
            if key == "operationId" {
                assert!(names.insert(value.to_string()), "{value} twice");
            }
        });
        assert!(names.len() > 5);
    }

    fn walk(value: &Value, visit: &mut impl FnMut(&str, &Value)) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                visit(key, value);
                walk(value, visit);
            }),
            Value::Array(all) => all.iter().for_each(|value| walk(value, visit)),
            _ => {}
        }
    }
}
