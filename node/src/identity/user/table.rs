//! Accounts as a table: taken over from another system with their password hashes, and given out for a spreadsheet, or to
//! be taken in again elsewhere. A bad row is a line of the report and stops nothing. A password that is given in the clear
//! is hashed at once and never told; a hash of another system is replaced by one of ours at the next sign-in.

mod exported;

pub use exported::export;

use super::{
    DISPLAY_NAME, EMAIL, MUST_CHANGE_PASSWORD, PASSWORD_HASH, ROLE, ROLE_IDS, STATUS, USER,
    USERNAME, check_email, check_username, hash, normal_email, refuse_above, username_from,
};
use crate::access::{Actor, Permission, PermissionSet, Role};
use crate::audit;
use crate::error::{Error, FieldError, Result};
use crate::identity::tenant::quota::{self, Quota};
use crate::identity::{announce, password, refused, role};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, Record};
use exported::{as_meant, there, unchanged};
use serde_json::json;
use std::collections::HashSet;

/// How much one import takes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub rows: usize,
    /// Rows whose password is given in the clear: hashing takes time.
    pub passwords: usize,
}

pub const OVER_HTTP: Bounds = Bounds { rows: 1_000, passwords: 100 };
pub const FROM_FILE: Bounds = Bounds { rows: 100_000, passwords: 100_000 };
/// Rows of one transaction.
const AT_ONCE: usize = 200;
const COLUMNS: [&str; 10] = [
    "email",
    "username",
    "display_name",
    "role",
    "password",
    "password_hash",
    "id",
    "roles",
    "status",
    "created_ms",
];
/// Whether an account may be used; one that was deleted is in no table.
const STATUSES: [&str; 2] = ["active", "disabled"];

/// One row as it was written.
#[derive(Clone, Default)]
pub struct Row {
    email: String,
    username: String,
    display_name: String,
    /// Names of roles.
    roles: Vec<String>,
    password: String,
    password_hash: String,
    /// Empty: active.
    status: String,
    made_ms: Option<u64>,
    /// Of a table that was exported: the account may be here, and its password may be nobody's to give.
    exported: Option<Exported>,
}

#[derive(Clone, Copy)]
struct Exported {
    id: Option<Id>,
}

/// What became of a row.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// Its line among the rows, from 1; the names of the columns do not count.
    pub row: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// What an import did, or would do.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    pub dry_run: bool,
    pub created: usize,
    /// Rows of an exported table whose accounts are here as they stand there.
    pub unchanged: usize,
    pub failed: usize,
    pub rows: Vec<Outcome>,
}

/// The rows of a CSV file, whose first line names the columns: `email`, and any of `username`, `display_name`,
/// `role` and `roles` (names with commas or semicolons between), `password`, `password_hash`, `status`, `created_ms`. With
/// the column `id` it is a table that [`export`] wrote.
///
/// # Errors
/// `Malformed` for what is no such table, or has an unknown column; `Invalid` (`too_many`) beyond the bounds.
pub fn read(csv: &[u8], bounds: Bounds) -> Result<Vec<Row>> {
    let unreadable = |error: csv::Error| Error::Malformed(format!("this is no CSV: {error}"));
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(csv);
    let columns: Vec<String> = reader
        .headers()
        .map_err(unreadable)?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').trim().to_lowercase())
        .collect();
    if let Some(odd) = columns.iter().find(|name| !COLUMNS.contains(&name.as_str())) {
        let known = COLUMNS.join(", ");
        return Err(Error::Malformed(format!("there is no column {odd:?}: there are {known}")));
    }
    if !columns.iter().any(|name| name == "email") {
        let message = "the first row must name the columns, one of them email";
        return Err(Error::Malformed(message.to_owned()));
    }
    let is_exported = columns.iter().any(|name| name == "id");
    let mut rows = Vec::new();
    for row in reader.records() {
        if rows.len() == bounds.rows {
            let message = format!("takes at most {} rows at once: split the file", bounds.rows);
            return Err(Error::field("rows", "too_many", message));
        }
        let row = row.map_err(unreadable)?;
        let cell = |name: &str| {
            let at = columns.iter().position(|column| column == name);
            let cell = at.and_then(|at| row.get(at)).unwrap_or_default();
            if is_exported { as_meant(cell) } else { cell }
        };
        let names = ["role", "roles"].into_iter().flat_map(|name| cell(name).split([',', ';']));
        let names = names.map(str::trim);
        rows.push(Row {
            email: normal_email(cell("email")),
            username: cell("username").trim().to_lowercase(),
            display_name: cell("display_name").trim().to_owned(),
            roles: names.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            password: cell("password").to_owned(),
            password_hash: cell("password_hash").trim().to_owned(),
            status: cell("status").trim().to_lowercase(),
            made_ms: cell("created_ms").trim().parse().ok(),
            exported: is_exported.then(|| Exported { id: Id::parse(cell("id").trim()) }),
        });
    }
    if rows.iter().filter(|row: &&Row| !row.password.is_empty()).count() > bounds.passwords {
        let most = bounds.passwords;
        let message = format!(
            "takes at most {most} passwords in the clear at once: give hashes, or split the file"
        );
        return Err(Error::field("password", "too_many", message));
    }
    Ok(rows)
}

/// A row whose fields were looked at, with the hash of its password.
struct Candidate {
    row: Row,
    /// None for an account that has no password yet.
    hash: Option<String>,
    must_change_password: bool,
}

/// Makes an account of every row that can be one; with `dry_run` only says what would become of them. A row of an exported
/// table whose account is here changes nothing: it is counted if it says the same, and refused if not.
///
/// # Errors
/// Only what stops all: a missing permission, a store that is full or busy. What was made before it stays.
pub async fn import(node: &Node, actor: &Actor, rows: Vec<Row>, dry_run: bool) -> Result<Report> {
    actor.require(Permission::UsersAdminister)?;
    let mut report = Report { dry_run, ..Report::default() };
    let mut candidates = Vec::new();
    let mut seen = HashSet::new();
    for (place, mut row) in rows.into_iter().enumerate() {
        if row.username.is_empty() {
            row.username = username_from(row.email.split('@').next().unwrap_or_default(), "user");
        }
        let mut errors = wrong_fields(&row);
        for (field, name) in [("email", &row.email), ("username", &row.username)] {
            if !seen.insert((field, name.clone())) && errors.is_empty() {
                errors.push(FieldError::new(field, "repeated", "stands in an earlier row"));
            }
        }
        if errors.is_empty() {
            candidates.push((place, row));
        } else {
            report.refuse(place, errors);
        }
    }
    let mut ready = Vec::with_capacity(candidates.len());
    for (place, row) in candidates {
        let must_change_password = !row.password.is_empty();
        let hash = match (row.password_hash.as_str(), must_change_password) {
            ("", true) if !dry_run => Some(hash(node, row.password.clone()).await?),
            ("", _) => None,
            (given, _) => Some(given.to_owned()),
        };
        ready.push((place, Candidate { row, hash, must_change_password }));
    }
    if dry_run {
        try_all(node, actor, &ready, &mut report)?;
    } else {
        while !ready.is_empty() {
            let some: Vec<_> = ready.drain(..ready.len().min(AT_ONCE)).collect();
            let actor = *actor;
            let made = node.store.write(move |tx| create_some(tx, &actor, some)).await?;
            made.into_iter().for_each(|(place, outcome)| report.add(place, outcome));
        }
    }
    report.rows.sort_by_key(|outcome| outcome.row);
    Ok(report)
}

impl Report {
    fn add(&mut self, place: usize, outcome: Result<Made>) {
        match outcome {
            Ok(Made { id, username, is_new }) => {
                let username = Some(username);
                self.created += usize::from(is_new);
                self.unchanged += usize::from(!is_new);
                self.rows.push(Outcome { row: place + 1, id, username, errors: vec![] });
            }
            Err(Error::Invalid(errors)) => self.refuse(place, errors),
            Err(error) => {
                self.refuse(place, vec![FieldError::new("", error.code(), error.to_string())]);
            }
        }
    }

    fn refuse(&mut self, place: usize, errors: Vec<FieldError>) {
        self.failed += 1;
        self.rows.push(Outcome { row: place + 1, id: None, username: None, errors });
    }
}

/// What can be said of a row without the store.
fn wrong_fields(row: &Row) -> Vec<FieldError> {
    let secret = match (row.password.is_empty(), row.password_hash.is_empty()) {
        (false, true) => password::check("password", &row.password, &[&row.email, &row.username]),
        (true, false) => password::check_hash("password_hash", &row.password_hash),
        (true, true) if row.exported.is_some() => Ok(()),
        (true, true) => {
            Err(FieldError::new("password", "required", "is required, or else password_hash"))
        }
        (false, false) => {
            Err(FieldError::new("password", "one_of_two", "must not stand beside password_hash"))
        }
    };
    let checks = [check_email(&row.email), check_username(&row.username), secret];
    let mut errors: Vec<FieldError> = checks.into_iter().filter_map(Result::err).collect();
    if row.display_name.chars().count() > DISPLAY_NAME.max {
        let message = format!("takes at most {} characters", DISPLAY_NAME.max);
        errors.push(FieldError::new("display_name", "too_long", message));
    }
    if !row.status.is_empty() && !STATUSES.contains(&row.status.as_str()) {
        let message = format!("must be one of {}", STATUSES.join(", "));
        errors.push(FieldError::new("status", "unknown_choice", message));
    }
    errors
}

/// The account of a row.
struct Made {
    /// None in a dry run.
    id: Option<Id>,
    username: String,
    is_new: bool,
}

type Placed = (usize, Result<Made>);

/// A row is refused before it has written anything, so that the others can be kept; a failure of the store is no
/// row's fault and ends the import.
fn create_some(tx: &mut Tx, actor: &Actor, rows: Vec<(usize, Candidate)>) -> Result<Vec<Placed>> {
    let mut made = Vec::with_capacity(rows.len());
    for (place, candidate) in rows {
        match create(tx, actor, candidate) {
            Err(error @ (Error::Store(_) | Error::Internal(_))) => return Err(error),
            outcome => made.push((place, outcome)),
        }
    }
    Ok(made)
}

fn create(tx: &mut Tx, actor: &Actor, candidate: Candidate) -> Result<Made> {
    let Candidate { row, hash, must_change_password } = candidate;
    if let Some(user) = there(tx, actor, &row)? {
        return unchanged(tx, &user, &row);
    }
    let (rank, made) = fitting(tx, actor, &row, 1)?;
    let mut changes = names_of(&row)
        .set(&DISPLAY_NAME, Some(row.display_name).filter(|name| !name.is_empty()))
        .set(&ROLE, rank.name())
        .set(&STATUS, if row.status.is_empty() { STATUSES[0] } else { &row.status })
        .set(&PASSWORD_HASH, hash)
        .set(&MUST_CHANGE_PASSWORD, must_change_password);
    for role in made {
        changes = changes.add(&ROLE_IDS, role.key);
    }
    let key = tx.new_id();
    let user = match row.made_ms {
        Some(ms) => tx.create_at(&USER, actor.tenant, key, changes, (ms, ms))?,
        None => tx.create(&USER, actor.tenant, key, changes)?,
    };
    let payload = json!({ "user_id": key, "username": row.username, "role": rank.name() });
    announce(tx, "cortex.user.registered", actor.tenant, actor.user, payload)?;
    audit::note(tx, actor, "user.imported", None, Some(&user))?;
    Ok(Made { id: Some(key), username: row.username, is_new: true })
}

fn names_of(row: &Row) -> Changes {
    Changes::new().set(&EMAIL, row.email.as_str()).set(&USERNAME, row.username.as_str())
}

/// What only the store knows: the roles, whether the actor may give them, the names, the room that is left for
/// `more` accounts.
fn fitting(reader: &impl Read, actor: &Actor, row: &Row, more: u64) -> Result<(Role, Vec<Record>)> {
    let (rank, made) = role::named(reader, actor.tenant, &row.roles)?;
    refuse_above(actor, rank)?;
    let given = made.iter().map(role::given_by).fold(PermissionSet::EMPTY, PermissionSet::union);
    actor.require_all(given)?;
    quota::require_room(reader, actor.tenant, Quota::Users, more)?;
    kinds::check(reader, &USER, actor.tenant, None, &names_of(row))?;
    Ok((rank, made))
}

fn try_all(
    node: &Node,
    actor: &Actor,
    rows: &[(usize, Candidate)],
    report: &mut Report,
) -> Result<()> {
    let outcomes = node.store.read(|reader| {
        let mut good = 0;
        let mut outcomes: Vec<Placed> = Vec::with_capacity(rows.len());
        for (place, candidate) in rows {
            let outcome = match tried(reader, actor, &candidate.row, good + 1) {
                Err(Error::Store(error)) => return Err(error),
                outcome => outcome,
            };
            good += u64::from(outcome.as_ref().is_ok_and(|made| made.is_new));
            outcomes.push((*place, outcome));
        }
        Ok(outcomes)
    })?;
    outcomes.into_iter().for_each(|(place, outcome)| report.add(place, outcome));
    Ok(())
}

fn tried(reader: &impl Read, actor: &Actor, row: &Row, more: u64) -> Result<Made> {
    if let Some(user) = there(reader, actor, row)? {
        return unchanged(reader, &user, row);
    }
    fitting(reader, actor, row, more)?;
    Ok(Made { id: None, username: row.username.clone(), is_new: true })
}

/// A hash of another system's making becomes one of ours, now that its password is known. Nodes that do so apart
/// write the same, for the salt is made of what both have.
pub(super) async fn upgrade(node: &Node, user: Record, password: String) -> Result<Record> {
    let old = user.text(&PASSWORD_HASH).to_owned();
    if !password::is_foreign(&old) {
        return Ok(user);
    }
    let mut hasher =
        blake3::Hasher::new_derive_key("atoll 2026 salt of a hash that was taken over");
    hasher.update(&user.key.0).update(old.as_bytes());
    let mut salt = [0; 16];
    hasher.finalize_xof().fill(&mut salt);
    let new = node.hash(move || password::hash(&password, salt)).await??;
    node.store
        .write(move |tx| {
            let present = tx.get(&USER, user.key)?.ok_or(Error::NotFound("user"))?;
            if present.text(&PASSWORD_HASH) == new {
                return Ok(present);
            }
            if present.text(&PASSWORD_HASH) != old {
                return Err(refused("wrong_credentials", "wrong name or password"));
            }
            Ok(tx.edit(&USER, user.key, Changes::new().set(&PASSWORD_HASH, new))?)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_the_names_of_its_columns() {
        let csv = "\u{feff}Username, email ,role\nAda,ADA@example.org,\"editor; Course lead\"\n,bob@example.org\n";
        let rows = read(csv.as_bytes(), FROM_FILE).unwrap_or_default();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].email.as_str(), rows[0].username.as_str()), ("ada@example.org", "ada"));
        assert_eq!(rows[0].roles, ["editor", "Course lead"]);
        assert!(rows[1].roles.is_empty());
        let one = Bounds { rows: 1, passwords: 0 };
        let code = |csv: &str| read(csv.as_bytes(), one).err().map(|error| error.code());
        assert_eq!(code("email,colour\na@b.c,red\n"), Some("malformed"));
        assert_eq!(code("username\nada\n"), Some("malformed"));
        assert_eq!(code("email\na@b.c\nd@e.f\n"), Some("invalid"));
        assert_eq!(
            read(b"email\n\xff@b.c\n", one).err().map(|error| error.code()),
            Some("malformed")
        );
    }

    #[test]
    fn a_row_has_a_password_or_a_hash_and_neither_both_nor_none() {
        let row = |password: &str, hash: &str| Row {
            email: "ada@example.org".into(),
            username: "ada".into(),
            password: password.into(),
            password_hash: hash.into(),
            ..Row::default()
        };
        let code = |row: Row| wrong_fields(&row).first().map(|error| error.code);
        assert_eq!(code(row("the analytical engine", "")), None);
        assert_eq!(
            code(row("", "$2b$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS")),
            None
        );
        assert_eq!(code(row("", "")), Some("required"));
        assert_eq!(code(row("the analytical engine", "x")), Some("one_of_two"));
        assert_eq!(code(row("", "md5:abc")), Some("unknown_hash"));
        assert_eq!(code(row("short", "")), Some("too_short"));
    }
}
