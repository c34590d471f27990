//! JSON schemas of kinds and fields, as they are written and as they are shown.

use crate::show;
use atoll_storage::{Field, Kind, Merge, Shown, Type};
use serde_json::{Map, Value, json};

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `PostVersion` of `post_version`.
pub(super) fn type_name(kind: &Kind) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
    };
    kind.name.split('_').map(capital).collect()
}

pub(super) fn scalar_schema(ty: Type, choices: &[&str], max: Option<usize>) -> Value {
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
pub(super) fn field_schema(field: &Field, writing: bool) -> Value {
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

pub(super) fn of_fields(fields: &[Field], writing: bool) -> Value {
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

pub(super) fn written(kind: &Kind, creating: bool) -> Value {
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

pub(super) fn shown(kind: &'static Kind) -> Value {
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

pub(super) fn problem_schema() -> Value {
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

pub(super) fn page_schema() -> Value {
    json!({
        "type": "object",
        "required": ["next", "total"],
        "properties": {
            "next": { "type": ["string", "null"], "description": "The `cursor` of the next page." },
            "total": { "type": "integer", "minimum": 0, "description": "Of all pages together." },
        },
    })
}
