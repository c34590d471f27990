//! The OpenAPI 3.1 document, made of the routes and kinds: nothing in it is written a second time.

use crate::call::Call;
use crate::list;
use crate::reply::Reply;
use crate::route::{Access, Answer, Route, Shape, get};
use crate::show;
use atoll_storage::{Field, Kind, Merge, Shown, Type};
use axum::http::Method;
use bytes::Bytes;
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
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": shared_parameters(),
            "responses": { "Problem": {
                "description": "Refused or failed, and why.",
                "content": { "application/problem+json": { "schema": reference("Problem") } },
            } },
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `PostVersion` of `post_version`.
fn type_name(kind: &Kind) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
    };
    kind.name.split('_').map(capital).collect()
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

fn parameters(route: &Route) -> Value {
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
            name => query(name, &json!({ "type": "string" }), ""),
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

fn responses(route: &Route) -> Value {
    let problem = json!({ "$ref": "#/components/responses/Problem" });
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
    for status in refused {
        all.insert(status.into(), problem.clone());
    }
    all.insert("default".into(), problem);
    Value::Object(all)
}

fn success(route: &Route) -> Value {
    let item = match route.gives {
        None => return json!({ "description": "Done." }),
        Some(Shape::Of(kind)) => reference(&type_name(kind)),
        Some(Shape::Fields(fields)) => of_fields(fields, false),
    };
    let schema = if route.is_list {
        json!({
            "type": "object",
            "required": ["data", "page"],
            "properties": { "data": { "type": "array", "items": item }, "page": reference("Page") },
        })
    } else {
        json!({ "type": "object", "required": ["data"], "properties": { "data": item } })
    };
    json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } })
}

fn scalar_schema(ty: Type, choices: &[&str], max: Option<usize>) -> Value {
    let mut schema = match ty {
        Type::Text => json!({ "type": "string" }),
        Type::Int => json!({ "type": "integer", "format": "int64" }),
        Type::Bool => json!({ "type": "boolean" }),
        Type::Id => json!({ "type": "string", "format": "uuid" }),
        Type::Time => json!({ "type": "string", "format": "date-time" }),
        Type::Bytes => json!({ "type": "string", "pattern": "^([0-9a-fA-F]{2})*$" }),
    };
    if !choices.is_empty() {
        schema["enum"] = json!(choices);
    }
    if let (Type::Text, Some(max)) = (ty, max) {
        schema["maxLength"] = max.into();
    }
    schema
}

/// `writing`: with the bounds that are checked on the way in.
fn field_schema(field: &Field, writing: bool) -> Value {
    let max = writing.then_some(field.max);
    let mut schema = match field.merge {
        Merge::Set => {
            let mut array =
                json!({ "type": "array", "items": scalar_schema(field.ty, field.choices, None) });
            if writing {
                array["maxItems"] = field.max.into();
            }
            array
        }
        Merge::Counter | Merge::Sketch => json!({ "type": "integer", "minimum": 0 }),
        Merge::Body => scalar_schema(Type::Text, &[], max),
        Merge::Register => scalar_schema(field.ty, field.choices, max),
    };
    let is_scalar = field.merge == Merge::Register && (writing || field.ty != Type::Bool);
    if is_scalar && !field.required {
        nullable(&mut schema);
    }
    if !field.doc.is_empty() {
        schema["description"] = field.doc.into();
    }
    schema
}

fn nullable(schema: &mut Value) {
    schema["type"] = json!([schema["type"], "null"]);
    if let Some(choices) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        choices.push(Value::Null);
    }
}

fn of_fields(fields: &[Field], writing: bool) -> Value {
    let required: Vec<&str> =
        fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.to_owned(), field_schema(field, writing))).collect();
    object(properties, &required)
}

fn object(properties: Map<String, Value>, required: &[&str]) -> Value {
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn written(kind: &Kind, creating: bool) -> Value {
    let fields =
        || kind.fields.iter().filter(|field| field.writable && field.shown != Shown::Never);
    let properties =
        fields().map(|field| (field.name.to_owned(), field_schema(field, true))).collect();
    let required: Vec<&str> =
        fields().filter(|field| creating && field.required).map(|field| field.name).collect();
    let mut schema = object(properties, &required);
    schema["additionalProperties"] = false.into();
    if !kind.doc.is_empty() {
        schema["description"] = kind.doc.into();
    }
    schema
}

fn shown(kind: &'static Kind) -> Value {
    let time = || json!({ "type": "string", "format": "date-time" });
    let mut properties = Map::new();
    properties.insert("id".into(), scalar_schema(Type::Id, &[], None));
    for field in kind.fields.iter().filter(|field| field.shown != Shown::Never) {
        properties.insert(field.name.into(), field_schema(field, false));
    }
    for name in show::added_names(kind) {
        properties.insert((*name).into(), json!({ "type": "integer", "minimum": 0 }));
    }
    properties.insert("created_at".into(), time());
    properties.insert("updated_at".into(), time());
    let mut schema = object(properties, &["id"]);
    if !kind.doc.is_empty() {
        schema["description"] = kind.doc.into();
    }
    schema
}

fn problem_schema() -> Value {
    let text = || json!({ "type": "string" });
    json!({
        "type": "object",
        "description": "A refusal or failure, as in RFC 9457.",
        "required": ["type", "title", "status", "code", "message", "request_id"],
        "properties": {
            "type": text(), "title": text(), "status": { "type": "integer" },
            "code": { "type": "string", "description": "Stable, in snake case: to branch on." },
            "message": { "type": "string", "description": "For people." },
            "detail": text(),
            "errors": { "type": "array", "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": { "field": text(), "code": text(), "message": text() },
            } },
            "request_id": text(),
        },
    })
}

fn page_schema() -> Value {
    json!({
        "type": "object",
        "required": ["next", "total"],
        "properties": {
            "next": { "type": ["string", "null"], "description": "The `cursor` of the next page." },
            "total": { "type": "integer", "minimum": 0, "description": "Of all pages together." },
        },
    })
}

fn shared_parameters() -> Value {
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
