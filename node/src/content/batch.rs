//! Many posts in one request. Each row has its own result; with `atomic`, one that fails undoes them all. A batch is
//! one transaction, so its size is bounded.

use super::post::{Draft, SLUG};
use super::workflow::trash_in;
use crate::access::{Actor, Permission};
use crate::error::{Error, FieldError, Result};
use crate::runtime::Node;
use atoll_storage::Id;
use atoll_storage::tx::{Changes, Tx};

/// The most rows that one batch takes.
pub const MAX_ROWS: usize = 500;

/// What became of a row: the post's id and slug, or why not.
pub type Outcome = Result<(Id, String)>;

/// Makes a draft of each row. A row that could not even be read comes as the error that it is.
///
/// # Errors
/// With `atomic`, the first failure, its fields named with the row's place; nothing was made then.
pub async fn create(
    node: &Node,
    actor: &Actor,
    rows: Vec<Result<Changes>>,
    atomic: bool,
) -> Result<Vec<Outcome>> {
    actor.require(Permission::PostsWrite)?;
    check_size(rows.len())?;
    let mut drafts = Vec::with_capacity(rows.len());
    for (place, row) in rows.into_iter().enumerate() {
        let draft = row.and_then(Draft::new);
        drafts.push(if atomic { Ok(draft.map_err(|error| at(place, error))?) } else { draft });
    }
    let actor = *actor;
    let create = move |tx: &mut Tx<'_>, draft: Result<Draft>| {
        let post = draft?.create(tx, &actor, None)?;
        Ok((post.key, post.text(&SLUG).to_owned()))
    };
    node.store.write(move |tx| each(tx, drafts, atomic, create)).await
}

/// Puts each of the posts into the trash.
pub async fn trash(
    node: &Node,
    actor: &Actor,
    keys: Vec<Id>,
    atomic: bool,
) -> Result<Vec<Outcome>> {
    actor.require(Permission::PostsWrite)?;
    check_size(keys.len())?;
    let actor = *actor;
    let trash = move |tx: &mut Tx<'_>, key: Id| {
        trash_in(tx, &actor, key, None)?;
        Ok((key, String::new()))
    };
    node.store.write(move |tx| each(tx, keys, atomic, trash)).await
}

fn check_size(rows: usize) -> Result<()> {
    if rows == 0 || rows > MAX_ROWS {
        return Err(Error::Malformed(format!("a batch takes 1 to {MAX_ROWS} rows, not {rows}")));
    }
    Ok(())
}

/// A row is refused before it has written anything, so that the others can be kept; a failure of the store is no
/// row's fault and ends the batch.
fn each<R>(
    tx: &mut Tx<'_>,
    rows: Vec<R>,
    atomic: bool,
    mut work: impl FnMut(&mut Tx<'_>, R) -> Outcome,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(rows.len());
    for (place, row) in rows.into_iter().enumerate() {
        match work(tx, row) {
            Err(error @ (Error::Store(_) | Error::Internal(_))) => return Err(error),
            Err(error) if atomic => return Err(at(place, error)),
            outcome => outcomes.push(outcome),
        }
    }
    Ok(outcomes)
}

/// The error with the row's place in its fields or its text.
fn at(place: usize, error: Error) -> Error {
    let row =
        |field: &str| if field.is_empty() { place.to_string() } else { format!("{place}.{field}") };
    match error {
        Error::Invalid(fields) => Error::Invalid(
            fields.into_iter().map(|f| FieldError { field: row(&f.field), ..f }).collect(),
        ),
        Error::Conflict { code, message } => {
            Error::Conflict { code, message: format!("row {place}: {message}") }
        }
        Error::Malformed(message) => Error::Malformed(format!("row {place}: {message}")),
        Error::Denied(message) => Error::Denied(format!("row {place}: {message}")),
        other => other,
    }
}
