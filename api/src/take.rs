//! JSON bodies as what the domain takes: typed values, or changes of a kind's writable fields. Names every
//! wrong field, not only the first; never accepts a field that the kind does not let clients write.

use crate::moment::Moment;
use crate::problem::Problem;
use atoll_node::FieldError;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Kind, Merge, Record, Type, Value};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Err(Problem::malformed("the body is empty: send JSON"));
    }
    // Serde fills a struct from an array too, field by field, and an empty one says nothing of any.
    if body.trim_ascii_start().first() == Some(&b'[') && wants_object::<T>() {
        return Err(Problem::invalid(vec![FieldError::new("", "wrong_type", "must be an object")]));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let path = if path == "." { "" } else { &path };
                Problem::invalid(vec![refusal(path, &inner.to_string())])
            }
            _ => not_json(inner),
        }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn wants_object<T: DeserializeOwned>() -> bool {
    T::deserialize(Asked).is_err_and(|Wish { is_object }| is_object)
}

/// Has no value, and tells which form of one it was asked for.
struct Asked;

#[derive(Debug)]
struct Wish {
    is_object: bool,
}

impl std::fmt::Display for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Wish {}

impl serde::de::Error for Wish {
    fn custom<M: std::fmt::Display>(_: M) -> Self {
        Self { is_object: false }
    }
}

impl<'de> serde::Deserializer<'de> for Asked {
    type Error = Wish;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Wish> {
        Err(Wish { is_object: false })
    }

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Wish> {
        Err(Wish { is_object: true })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::malformed(format!("the body is no JSON in UTF-8: {error}"))
}

/// What serde says of a value, in the words and codes that everything else uses. Names of our types stay here.
fn refusal(path: &str, said: &str) -> FieldError {
    let said = said.split(" at line ").next().unwrap_or_default();
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let named = |beginning: &str| said.strip_prefix(beginning)?.split('`').nth(1);
    if let Some(name) = named("missing field") {
        return FieldError::new(below(name), "required", "is required");
    }
    if let Some(name) = named("unknown field") {
        // The path leads to the field itself where it is known.
        let field = if path.ends_with(name) { path.to_owned() } else { below(name) };
        return FieldError::new(field, "unknown_field", "is not known here");
    }
    if let Some(name) = named("duplicate field") {
        let field = if path.ends_with(name) { path.to_owned() } else { below(name) };
        return FieldError::new(field, "repeated", "stands more than once");
    }
    if said.starts_with("unknown variant") {
        let known: Vec<&str> = said.split('`').skip(3).step_by(2).collect();
        return FieldError::new(
            path,
            "unknown_choice",
            format!("must be one of {}", known.join(", ")),
        );
    }
    let wanted = said.rsplit_once("expected ").map_or("", |(_, wanted)| wanted);
    FieldError::new(path, "wrong_type", format!("must be {}", in_words(wanted)))
}

fn in_words(wanted: &str) -> &'static str {
    match wanted {
        "a boolean" => "true or false",
        "a string" | "a borrowed string" | "a character" => "text",
        wanted if wanted.starts_with("a sequence") => "an array",
        wanted if wanted.starts_with('u') && wanted.len() <= 5 => {
            "a whole number, not below 0, that is not too large"
        }
        wanted if wanted.starts_with('i') && wanted.len() <= 5 => {
            "a whole number that is not too large"
        }
        wanted if wanted.starts_with('f') && wanted.len() <= 3 => "a number",
        wanted if wanted.starts_with("struct") || wanted == "a map" => "an object",
        _ => "of another form: see the description at /api/docs",
    }
}

/// A JSON object in which every name stands once.
pub(crate) struct Object(pub(crate) serde_json::Map<String, Json>);

impl<'de> serde::Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> serde::de::Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some((name, value)) = access.next_entry::<String, Json>()? {
            if object.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("duplicate field `{name}`")));
            }
            object.insert(name, value);
        }
        Ok(Object(object))
    }
}

/// `present`: the record as it is, whose sets an array replaces.
pub(crate) fn changes(
    body: &[u8],
    kind: &'static Kind,
    present: Option<&Record>,
) -> Result<Changes, Problem> {
    changes_of(&json::<Object>(body)?.0, kind, present)
}

/// As [`changes`], of an object that was read already.
pub(crate) fn changes_of(
    object: &serde_json::Map<String, Json>,
    kind: &'static Kind,
    present: Option<&Record>,
) -> Result<Changes, Problem> {
    let mut changes = Changes::new();
    let mut errors = Vec::new();
    for (name, value) in object {
        changes = match kind.field(name) {
            Some(field) if field.writable => change(changes, field, value, present, &mut errors),
            Some(field) if field.shown != atoll_storage::Shown::Never => {
                errors.push(FieldError::new(name, "read_only", "cannot be set"));
                changes
            }
            _ => {
                let message = format!("{} has no such field", kind.name);
                errors.push(FieldError::new(name, "unknown_field", message));
                changes
            }
        };
    }
    if errors.is_empty() { Ok(changes) } else { Err(Problem::invalid(errors)) }
}

fn change(
    changes: Changes,
    field: &Field,
    json: &Json,
    present: Option<&Record>,
    errors: &mut Vec<FieldError>,
) -> Changes {
    match field.merge {
        Merge::Set => change_set(changes, field, json, present, errors),
        Merge::Body => match json {
            Json::String(text) => changes.body(field, text),
            Json::Null => changes.body(field, ""),
            _ => refuse(changes, errors, field.name.to_owned(), "must be text"),
        },
        _ => match scalar(field.ty, json) {
            Ok(value) => changes.set(field, value),
            Err(wanted) => refuse(changes, errors, field.name.to_owned(), wanted),
        },
    }
}

fn refuse(changes: Changes, errors: &mut Vec<FieldError>, path: String, wanted: &str) -> Changes {
    errors.push(FieldError::new(path, "wrong_type", wanted));
    changes
}

fn change_set(
    mut changes: Changes,
    field: &Field,
    json: &Json,
    present: Option<&Record>,
    errors: &mut Vec<FieldError>,
) -> Changes {
    let elements = match json {
        Json::Array(elements) => elements.as_slice(),
        Json::Null => &[],
        _ => return refuse(changes, errors, field.name.to_owned(), "must be an array"),
    };
    let mut wanted = Vec::with_capacity(elements.len());
    for (i, element) in elements.iter().enumerate() {
        match scalar(field.ty, element) {
            Ok(Value::Null) => {
                changes =
                    refuse(changes, errors, format!("{}.{i}", field.name), "must not be null");
            }
            Ok(value) => wanted.push(value),
            Err(text) => changes = refuse(changes, errors, format!("{}.{i}", field.name), text),
        }
    }
    if let Some(record) = present {
        for gone in record.set(field).filter(|element| !wanted.contains(element)) {
            changes = changes.drop(field, gone.clone());
        }
    }
    let is_new = |value: &Value| present.is_none_or(|record| !record.has(field, value));
    wanted.into_iter().filter(is_new).fold(changes, |changes, value| changes.add(field, value))
}

/// The value, or what it must be.
fn scalar(ty: Type, json: &Json) -> Result<Value, &'static str> {
    let (value, wanted) = match (ty, json) {
        (_, Json::Null) => return Ok(Value::Null),
        (Type::Text, json) => (json.as_str().map(Value::from), "must be text"),
        (Type::Int, json) => (json.as_i64().map(Value::Int), "must be a whole number"),
        (Type::Bool, json) => (json.as_bool().map(Value::Bool), "must be true or false"),
        (Type::Id, json) => (json.as_str().and_then(Id::parse).map(Value::Id), "must be an id"),
        (Type::Time, json) => {
            let moment = json.as_str().and_then(Moment::parse);
            (moment.map(|moment| Value::Int(moment.0)), "must be a time as in RFC 3339")
        }
        (Type::Bytes, json) => {
            (json.as_str().and_then(unhex).map(Value::Bytes), "must be hexadecimal")
        }
    };
    value.ok_or(wanted)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|char| char.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLE: Field = Field::text(1, "title").required();
    const COUNT: Field = Field::int(2, "count");
    const TAGS: Field = Field::set(3, "tags", Type::Text);
    const TEXT: Field = Field::body(4, "text");
    const HASH: Field = Field::text(5, "hash").secret();
    const MAKER: Field = Field::text(6, "maker").read_only();
    static NOTE: Kind = Kind {
        fields: &[TITLE, COUNT, TAGS, TEXT, HASH, MAKER],
        ..Kind::new(902, "note", "notes", "content")
    };

    fn refused(body: &str) -> (u16, Vec<String>) {
        let problem = changes(body.as_bytes(), &NOTE, None)
            .err()
            .unwrap_or_else(|| Problem::internal("taken"));
        let mut errors: Vec<String> =
            problem.errors().iter().map(|e| format!("{} {}", e.field, e.code)).collect();
        errors.sort();
        (problem.status().as_u16(), errors)
    }

    #[test]
    fn an_array_is_no_object_in_another_form() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wanted {
            until: Option<String>,
        }
        for body in ["[]", " [\"2026\"]", "7"] {
            let problem = json::<Wanted>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.status().as_u16(), 422, "{body}");
            assert_eq!(problem.errors()[0].code, "wrong_type", "{body}");
        }
        assert_eq!(json::<Wanted>(b"{}").unwrap().until, None);
        assert_eq!(json::<Vec<String>>(b"[\"a\"]").unwrap(), ["a"]);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let body =
            r#"{"title":7,"count":"x","tags":["a",1],"text":[],"hash":"h","maker":"m","colour":1}"#;
        let wanted = [
            "colour unknown_field",
            "count wrong_type",
            "hash unknown_field",
            "maker read_only",
            "tags.1 wrong_type",
            "text wrong_type",
            "title wrong_type",
        ];
        assert_eq!(refused(body), (422, wanted.map(str::to_owned).to_vec()));
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for body in ["", "{", "{} {}", "\u{0}"] {
            assert_eq!(refused(body).0, 400, "{body}");
        }
        assert_eq!(refused("[]").0, 422);
        assert_eq!(json::<Json>(b"{\"a\":\"\xff\"}").unwrap_err().status(), 400);
        let deep = "[".repeat(100_000);
        assert_eq!(json::<Json>(deep.as_bytes()).unwrap_err().status(), 400);
    }

    #[test]
    fn a_typed_body_names_the_path_of_a_wrong_value() {
        #[derive(serde::Deserialize, Debug)]
        struct Login {
            #[serde(rename = "name")]
            _name: String,
        }
        let problem = json::<Login>(br#"{"name":5}"#).unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.errors()[0].field.as_str()), (422, "name"));
        let missing = json::<Login>(b"{}").unwrap_err();
        let missing = &missing.errors()[0];
        assert_eq!((missing.field.as_str(), missing.code), ("name", "required"));
    }

    #[test]
    fn a_wrong_value_is_told_in_words_that_are_not_ours() {
        #[derive(serde::Deserialize, Debug)]
        #[serde(deny_unknown_fields)]
        struct Order {
            #[serde(rename = "count")]
            _count: Option<u32>,
            #[serde(rename = "how")]
            _how: Option<How>,
        }
        #[derive(serde::Deserialize, Debug)]
        #[serde(rename_all = "snake_case")]
        enum How {
            Fast,
            Slow,
        }
        assert!(matches!((How::Fast, How::Slow), (How::Fast, How::Slow)));
        let told = |body: &str| {
            let problem = json::<Order>(body.as_bytes()).unwrap_err();
            let error = &problem.errors()[0];
            format!("{} {} {}", error.field, error.code, error.message)
        };
        assert_eq!(told("[]"), " wrong_type must be an object");
        assert_eq!(told("7"), " wrong_type must be an object");
        assert!(told("{\"count\":-1}").starts_with("count wrong_type must be a whole number"));
        assert!(told("{\"count\":1e99}").starts_with("count wrong_type must be a whole number"));
        assert_eq!(told("{\"what\":1}"), "what unknown_field is not known here");
        assert_eq!(told("{\"count\":1,\"count\":2}"), "count repeated stands more than once");
        assert_eq!(told("{\"how\":\"x\"}"), "how unknown_choice must be one of fast, slow");
        assert_eq!(
            refused("{\"title\":\"a\",\"title\":\"b\"}"),
            (422, vec!["title repeated".into()])
        );
    }

    #[test]
    fn fields_of_every_type_are_taken() {
        let body = br#"{"title":null,"count":-3,"tags":["a","b"],"text":"long"}"#;
        assert!(changes(body, &NOTE, None).is_ok());
    }
}
