//! Accounts as a table: CSV in, with a report on every row, and CSV out, written as it is read.

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Answer;
use atoll_node::identity::user::table::{self, OVER_HTTP};
use atoll_storage::Field;
use atoll_storage::query::Cursor;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION};
use bytes::Bytes;

pub(super) const REPORT: &[Field] = &[
    Field::flag(1, "dry_run").required(),
    Field::int(2, "created").required().doc("Accounts that were made, or would be."),
    Field::int(4, "unchanged")
        .required()
        .doc("Rows of an exported table whose accounts are here as they stand there."),
    Field::int(3, "failed").required().doc("Rows that were refused; why, is under `rows`."),
];
pub(super) const BODY_BYTES: usize = 2 << 20;

pub(super) async fn import(call: Call) -> Answer {
    let dry_run = call.param_as::<bool>("dry_run")?.unwrap_or(false);
    let is_csv = call.header("content-type").is_none_or(|text| {
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("text/csv")
    });
    if !is_csv {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the table as CSV, with the header Content-Type: text/csv",
        ));
    }
    let rows = table::read(call.body(), OVER_HTTP)?;
    Reply::data(table::import(&call.node, &call.actor, rows, dry_run).await?)
}

pub(super) async fn export(call: Call) -> Answer {
    let included = call.param("include").unwrap_or_default();
    let with_hashes = match included {
        "" => false,
        "password_hashes" => true,
        _ => {
            let message = format!("{included:?} is not known: it takes password_hashes");
            return Err(Problem::parameter("include", "unknown_choice", message));
        }
    };
    // The first page before the answer begins: a refusal must still be one.
    let first = table::export(&call.node, &call.actor, with_hashes, None)?;
    let pages = futures_util::stream::unfold(Turn::Write(first, call), move |turn| async move {
        match turn {
            Turn::Write((text, next), call) => {
                let rest = next.map_or(Turn::End, |next| Turn::Read(next, call));
                Some((Ok(Bytes::from(text)), rest))
            }
            Turn::Read(after, call) => {
                match table::export(&call.node, &call.actor, with_hashes, Some(after)) {
                    Ok((text, next)) => {
                        let rest = next.map_or(Turn::End, |next| Turn::Read(next, call));
                        Some((Ok(Bytes::from(text)), rest))
                    }
                    Err(error) => {
                        tracing::error!(%error, "an export of accounts ended early");
                        Some((Err(std::io::Error::other("ended early")), Turn::End))
                    }
                }
            }
            Turn::End => None,
        }
    });
    let reply = Reply::stream("text/csv; charset=utf-8", pages);
    let reply = reply.header(CONTENT_DISPOSITION, "attachment; filename=\"users.csv\"");
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}

enum Turn {
    Write((String, Option<Cursor>), Call),
    Read(Cursor, Call),
    End,
}
