//! Every kind there is, and what their declarations alone say about a change: required, length, choices,
//! references, names. Rules that a declaration can't say stand in the noun's own file.

use crate::error::{Error, FieldError, Result};
use crate::identity;
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Kind, Type, Value};

/// In the order of their codes. One line a kind.
pub static ALL: &[&Kind] = &[
    // network 1-9
    &identity::tenant::TENANT,
    &identity::signing_key::SIGNING_KEY,
    &crate::peer::revocation::REVOCATION,
    &crate::peer::grant::GRANT,
    // identity 10-19
    &identity::user::USER,
    &identity::session::SESSION,
    &identity::api_key::API_KEY,
    &crate::mail::template::MAIL_TEMPLATE,
    &identity::oidc::OIDC_PROVIDER,
    &identity::role::ROLE,
    &crate::audit::AUDIT_ENTRY,
    &identity::tenant::quota::TENANT_USAGE,
    &identity::user::erase::ERASURE,
    // content 20-39
    &crate::content::category::CATEGORY,
    &crate::content::tag::TAG,
    &crate::content::post::POST,
    &crate::content::version::POST_VERSION,
    &crate::content::autosave::POST_AUTOSAVE,
    &crate::content::preview::PREVIEW_LINK,
    &crate::content::redirect::REDIRECT,
    // community 40-59
    &crate::community::comment::COMMENT,
    &crate::community::like::LIKE,
    // insight 60-69
    &crate::insight::POST_STATS,
    &crate::insight::POST_DAY,
    // conflict 90
    &crate::conflict::CONFLICT_DISMISSAL,
    &crate::conflict::settlement::SETTLEMENT,
    // seals 92-99, one a scope
    &crate::seal::NETWORK_SEAL,
    &crate::seal::IDENTITY_SEAL,
    &crate::seal::AUDIT_SEAL,
    &crate::seal::USAGE_SEAL,
    &crate::seal::CONTENT_SEAL,
    &crate::seal::COMMUNITY_SEAL,
    &crate::seal::INSIGHT_SEAL,
    &crate::seal::INBOX_SEAL,
];

/// The most characters of one element of a set.
const ELEMENT_MAX: usize = 200;

pub fn named(name: &str) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.name == name).copied()
}

/// Whether the changes fit the declaration, without a look at the store: types, lengths, choices, and when
/// `creating` that no required field is missing that clients may write. All that is wrong is named.
pub fn validate(kind: &'static Kind, changes: &Changes, creating: bool) -> Result<()> {
    let mut errors = Vec::new();
    for (field, value) in &changes.registers {
        errors.extend(
            wrong(field, value, field.max)
                .map(|(code, text)| FieldError::new(field.name, code, text)),
        );
    }
    for (i, (field, element)) in changes.added.iter().enumerate() {
        let path = || format!("{}.{i}", field.name);
        errors.extend(
            wrong(field, element, ELEMENT_MAX)
                .map(|(code, text)| FieldError::new(path(), code, text)),
        );
    }
    for (field, text) in &changes.bodies {
        errors.extend(
            wrong_body(field, text).map(|(code, text)| FieldError::new(field.name, code, text)),
        );
    }
    if creating {
        let missing = kind
            .fields
            .iter()
            .filter(|field| field.required && field.writable && is_absent(changes, field));
        errors.extend(missing.map(|field| FieldError::new(field.name, "required", "is required")));
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

fn is_absent(changes: &Changes, field: &Field) -> bool {
    changes.get(field).is_none()
        && changes.get_body(field).is_none()
        && !changes.added.iter().any(|(added, _)| added.code == field.code)
}

type Wrong = Option<(&'static str, String)>;

fn wrong(field: &Field, value: &Value, max: usize) -> Wrong {
    let fits = match (value, field.ty) {
        (Value::Null, _) => return field.required.then(|| ("required", "is required".to_owned())),
        (Value::Text(text), Type::Text) => return wrong_text(field, text, max),
        (Value::Bytes(bytes), Type::Bytes) => {
            return (bytes.len() > max).then(|| ("too_long", format!("takes at most {max} bytes")));
        }
        (Value::Int(_), Type::Int | Type::Time)
        | (Value::Bool(_), Type::Bool)
        | (Value::Id(_), Type::Id) => true,
        _ => false,
    };
    (!fits).then(|| ("wrong_type", format!("must be of type {}", type_name(field.ty))))
}

fn wrong_text(field: &Field, text: &str, max: usize) -> Wrong {
    if field.required && text.trim().is_empty() {
        return Some(("required", "is required".to_owned()));
    }
    if !field.choices.is_empty() && !field.choices.contains(&text) {
        return Some(("unknown_choice", format!("must be one of {}", field.choices.join(", "))));
    }
    // Bytes first: counting characters of a megabyte takes time.
    if text.len() > max && text.chars().count() > max {
        return Some(("too_long", format!("takes at most {max} characters")));
    }
    text.contains('\0').then(|| ("malformed", "must not hold the character U+0000".to_owned()))
}

fn wrong_body(field: &Field, text: &str) -> Wrong {
    if field.required && text.trim().is_empty() {
        return Some(("required", "is required".to_owned()));
    }
    if text.len() > field.max {
        return Some(("too_long", format!("takes at most {} bytes", field.max)));
    }
    text.contains('\0').then(|| ("malformed", "must not hold the character U+0000".to_owned()))
}

fn type_name(ty: Type) -> &'static str {
    match ty {
        Type::Text => "text",
        Type::Int => "whole number",
        Type::Bool => "true or false",
        Type::Id => "id",
        Type::Time => "time",
        Type::Bytes => "bytes",
    }
}

/// What only the store knows, inside the transaction that writes: that what clients refer to is in the tenant, that
/// nobody else there holds the names, that sets stay within their size. `key` is the record that is changed.
///
/// # Errors
/// `Invalid` (`unknown_reference`, `too_many`), `Conflict` (`taken`).
pub fn check(
    reader: &impl Read,
    kind: &'static Kind,
    tenant: Id,
    key: Option<Id>,
    changes: &Changes,
) -> Result<()> {
    let mut errors = Vec::new();
    for (field, value) in changes.registers.iter().chain(&changes.added) {
        if !refers_well(reader, tenant, field, value)? {
            let noun = field.refers.unwrap_or("record");
            errors.push(FieldError::new(
                field.name,
                "unknown_reference",
                format!("there is no such {noun}"),
            ));
        }
    }
    check_sizes(reader, kind, key, changes, &mut errors)?;
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    for (field, value) in &changes.registers {
        let (Some(space), Some(name)) = (field.claim, value.as_text()) else { continue };
        if reader.claimed(tenant, space, name)?.is_some_and(|holder| Some(holder) != key) {
            return Err(Error::conflict("taken", format!("the {} {name:?} is taken", field.name)));
        }
    }
    Ok(())
}

/// Read-only references are set by the domain, which has looked them up.
fn refers_well(reader: &impl Read, tenant: Id, field: &Field, value: &Value) -> Result<bool> {
    let (Some(name), Some(id), true) = (field.refers, value.as_id(), field.writable) else {
        return Ok(true);
    };
    let Some(kind) = named(name) else { return Ok(false) };
    Ok(reader.get(kind, id)?.is_some_and(|record| record.tenant == tenant))
}

fn check_sizes(
    reader: &impl Read,
    kind: &'static Kind,
    key: Option<Id>,
    changes: &Changes,
    errors: &mut Vec<FieldError>,
) -> Result<()> {
    if changes.added.is_empty() {
        return Ok(());
    }
    let present = key.map_or(Ok(None), |key| reader.get(kind, key))?;
    for field in kind.fields {
        let count =
            |list: &[(Field, Value)]| list.iter().filter(|(f, _)| f.code == field.code).count();
        let added = count(&changes.added);
        let there = present.as_ref().map_or(0, |record| record.set(field).count());
        if added > 0 && (there + added).saturating_sub(count(&changes.dropped)) > field.max {
            let message = format!("takes at most {} elements", field.max);
            errors.push(FieldError::new(field.name, "too_many", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tenant::{DOMAIN, NAME, REGISTRATION, SLUG, TENANT};
    use std::collections::HashSet;

    #[test]
    fn no_two_kinds_share_a_code_a_name_or_a_table_and_no_two_fields_a_code() {
        let mut seen = HashSet::new();
        for kind in ALL {
            assert!(seen.insert(kind.code.to_string()), "{}", kind.name);
            assert!(seen.insert(kind.name.to_owned()), "{}", kind.name);
            let is_new = kind.plural == kind.name || seen.insert(kind.plural.to_owned());
            assert!(is_new, "{}", kind.plural);
            let codes: HashSet<u16> = kind.fields.iter().map(|field| field.code).collect();
            let names: HashSet<&str> = kind.fields.iter().map(|field| field.name).collect();
            assert_eq!(
                (codes.len(), names.len()),
                (kind.fields.len(), kind.fields.len()),
                "{}",
                kind.name
            );
            assert!(
                kind.fields.iter().all(|field| field.code > 0 && field.code < 0x8000),
                "{}",
                kind.name
            );
            for column in kind.indexes.iter().copied().flatten().chain(kind.counted) {
                assert!(kind.has_column(column.trim_start_matches('+')), "{}.{column}", kind.name);
            }
        }
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let changes = Changes::new()
            .set(&NAME, "x".repeat(201))
            .set(&REGISTRATION, "maybe")
            .set(&DOMAIN, 7u64);
        let Err(Error::Invalid(errors)) = validate(&TENANT, &changes, true) else {
            panic!("taken")
        };
        let found: Vec<_> = errors.iter().map(|e| (e.field.as_str(), e.code)).collect();
        let wanted = [
            ("name", "too_long"),
            ("registration", "unknown_choice"),
            ("domain", "wrong_type"),
            ("slug", "required"),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_change_may_leave_out_what_is_required_but_not_clear_it() {
        assert!(validate(&TENANT, &Changes::new().set(&NAME, "North"), false).is_ok());
        assert!(validate(&TENANT, &Changes::new().set(&SLUG, Value::Null), false).is_err());
        assert!(validate(&TENANT, &Changes::new().set(&NAME, "  "), false).is_err());
        assert!(validate(&TENANT, &Changes::new().set(&DOMAIN, Value::Null), false).is_ok());
    }
}
