//! The table as it is exported, and its rows when they come back: which accounts they tell of.

use super::{Made, Row, STATUSES};
use crate::access::{Actor, Permission};
use crate::error::{Error, FieldError, Result};
use crate::identity::role;
use crate::identity::user::{
    DISPLAY_NAME, EMAIL, PASSWORD_HASH, ROLE, ROLE_IDS, STATUS, USER, USERNAME, erase,
};
use crate::runtime::Node;
use atoll_storage::query::{Cursor, Query};
use atoll_storage::read::Read;
use atoll_storage::{Field, Id, Record, Value};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// Accounts of one page of the export.
const PAGE: usize = 500;
const EXPORTED: [&str; 8] =
    ["id", "email", "username", "display_name", "role", "roles", "status", "created_ms"];

/// The account that a row of an exported table tells of, if it is here: by its id, or else by both its names.
pub(super) fn there(reader: &impl Read, actor: &Actor, row: &Row) -> Result<Option<Record>> {
    let Some(exported) = row.exported else { return Ok(None) };
    let holder = |field: &Field, name: &str| {
        reader.claimed(actor.tenant, field.claim.unwrap_or_default(), name)
    };
    let by_id = exported.id.map_or(Ok(None), |id| reader.get(&USER, id))?;
    if let Some(user) = by_id.filter(|user| user.tenant == actor.tenant) {
        return Ok(Some(user));
    }
    let by_email = holder(&EMAIL, &row.email)?;
    match by_email
        .filter(|key| holder(&USERNAME, &row.username).is_ok_and(|other| other == Some(*key)))
    {
        Some(key) => Ok(reader.get(&USER, key)?),
        None => Ok(None),
    }
}

/// # Errors
/// `Invalid` that names every column that says something else.
pub(super) fn unchanged(reader: &impl Read, user: &Record, row: &Row) -> Result<Made> {
    let (rank, made) = role::named(reader, user.tenant, &row.roles)?;
    let own: HashSet<Id> = user.set(&ROLE_IDS).filter_map(Value::as_id).collect();
    let wanted: HashSet<Id> = made.iter().map(|role| role.key).collect();
    let status = if row.status.is_empty() { STATUSES[0] } else { &row.status };
    let same = [
        ("email", user.text(&EMAIL) == row.email),
        ("username", user.text(&USERNAME) == row.username),
        ("display_name", user.text(&DISPLAY_NAME) == row.display_name),
        ("role", user.text(&ROLE) == rank.name()),
        ("roles", own == wanted),
        ("status", user.text(&STATUS) == status),
    ];
    let message = "is another here: an import changes no account that is there";
    let differing = same.into_iter().filter(|(_, same)| !same);
    let errors: Vec<FieldError> =
        differing.map(|(name, _)| FieldError::new(name, "differs", message)).collect();
    if errors.is_empty() {
        let username = row.username.clone();
        return Ok(Made { id: Some(user.key), username, is_new: false });
    }
    Err(Error::Invalid(errors))
}

/// A page of the tenant's accounts as lines of CSV, the first with the names of the columns; and where the next one
/// begins. Formulas are made harmless to spreadsheets. `with_hashes`: with the hashes of passwords, by which people sign in
/// where the table is imported.
pub fn export(
    node: &Node,
    actor: &Actor,
    with_hashes: bool,
    after: Option<Cursor>,
) -> Result<(String, Option<Cursor>)> {
    actor.require(Permission::UsersAdminister)?;
    let is_first = after.is_none();
    let query = Query::of(&USER, actor.tenant).limit(PAGE).after(after).without_total();
    let (page, names) = node.store.read(|reader| {
        let page = reader.list(&query)?;
        let mut names = HashMap::new();
        for id in page.records.iter().flat_map(|user| user.set(&ROLE_IDS)).filter_map(Value::as_id)
        {
            if let Entry::Vacant(name) = names.entry(id) {
                let role = reader.get(&role::ROLE, id)?;
                let role = role.filter(|role| role.tenant == actor.tenant);
                name.insert(role.map(|role| role.text(&role::NAME).to_owned()));
            }
        }
        Ok((page, names))
    })?;
    let mut csv = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| Error::Internal(format!("writing CSV: {error}"));
    let last = with_hashes.then_some("password_hash");
    if is_first {
        csv.write_record(EXPORTED.into_iter().chain(last)).map_err(failed)?;
    }
    for user in page.records.iter().filter(|user| !erase::is_erased(user)) {
        let made = user.set(&ROLE_IDS).filter_map(Value::as_id);
        let made: Vec<&str> = made.filter_map(|id| names.get(&id)?.as_deref()).collect();
        let cells = [
            user.key.to_string(),
            harmless(user.text(&EMAIL)),
            harmless(user.text(&USERNAME)),
            harmless(user.text(&DISPLAY_NAME)),
            user.text(&ROLE).to_owned(),
            harmless(&made.join("; ")),
            user.text(&STATUS).to_owned(),
            user.created_ms().to_string(),
        ];
        let hash = with_hashes.then(|| user.text(&PASSWORD_HASH).to_owned());
        csv.write_record(cells.into_iter().chain(hash)).map_err(failed)?;
    }
    let bytes = csv.into_inner().map_err(|error| Error::Internal(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| Error::Internal(error.to_string()))?;
    Ok((text, page.next))
}

/// What a spreadsheet would take for a formula gets an apostrophe before it.
fn harmless(cell: &str) -> String {
    if cell.starts_with(begins_formula) { format!("'{cell}") } else { cell.to_owned() }
}

/// A cell as it was before it was made harmless.
pub(super) fn as_meant(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| rest.starts_with(begins_formula)).unwrap_or(cell)
}

fn begins_formula(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_is_made_harmless() {
        for bad in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"] {
            assert!(harmless(bad).starts_with('\''), "{bad}");
            assert_eq!(as_meant(&harmless(bad)), bad);
        }
        assert_eq!(as_meant("'tis"), "'tis");
        assert_eq!(harmless("Ada =)"), "Ada =)");
    }
}
