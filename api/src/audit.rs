//! The audit log over HTTP: who did what, for those who may know.

use crate::call::Call;
use crate::moment::Moment;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get};
use crate::show;
use atoll_node::audit::{self, AUDIT_ENTRY, Narrowed};
use atoll_node::identity::user;
use atoll_node::{Error, Permission};
use atoll_storage::query::{Cursor, Query};
use atoll_storage::{Field, Id, Record};
use serde_json::Value as Json;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/audit", Can(Permission::AuditRead), list)
            .gives_fields(ENTRY)
            .pages()
            .query(&["actor", "action", "target", "from", "to", "limit", "cursor"])
            .doc(
                "Who did what, the newest first. actor takes an id or a username, target an id; from and to bound the time.",
            ),
    ]
}

const ENTRY: &[Field] = &[
    Field::text(1, "id").required(),
    audit::ACTOR_ID,
    audit::IMPERSONATOR_ID,
    audit::ACTION,
    audit::TARGET_KIND,
    audit::TARGET_ID,
    audit::NET,
    Field::time(8, "created_at").required(),
];

async fn list(call: Call) -> Answer {
    let time = |name: &str| {
        let wrong = || Problem::parameter(name, "wrong_type", "must be a time as in RFC 3339");
        let read = |text: &str| Moment::parse(text).map(|at| at.0).ok_or_else(wrong);
        call.param(name).map(read).transpose()
    };
    let id = |text: &str| {
        let wrong = || Problem::parameter("target", "wrong_type", "must be an id");
        Id::parse(text).ok_or_else(wrong)
    };
    let cursor = |text: &str| {
        let message = "give the `next` of a page as it stands";
        Cursor::parse(text).ok_or_else(|| Problem::parameter("cursor", "wrong_cursor", message))
    };
    let by = Narrowed {
        actor: call.param("actor").map(|name| actor(&call, name)).transpose()?,
        action: call.param("action").map(str::to_owned),
        target: call.param("target").map(id).transpose()?,
        from_ms: time("from")?,
        to_ms: time("to")?,
    };
    let after = call.param("cursor").map(cursor).transpose()?;
    let query = Query::of(&AUDIT_ENTRY, call.tenant()).limit(call.limit()?).after(after);
    let page = audit::list(&call.node, &call.actor, query, &by)?;
    let rows = page.records.iter().map(|entry| row(&call, entry));
    let rows = rows.collect::<Result<Vec<Json>, Problem>>()?;
    let next = page.next.as_ref().map(Cursor::to_text);
    Reply::rows(&call, &rows, next.as_deref(), page.total)
}

/// Nobody of the tenant is called so: then nobody did anything.
fn actor(call: &Call, name: &str) -> Result<Id, Problem> {
    if let Some(id) = Id::parse(name) {
        return Ok(id);
    }
    match user::by_name(&call.node, &call.actor, name) {
        Ok(user) => Ok(user.key),
        Err(Error::NotFound(_)) => Ok(Id::NIL),
        Err(error) => Err(error.into()),
    }
}

/// With its changes as the object that they are.
fn row(call: &Call, entry: &Record) -> Result<Json, Problem> {
    let mut shown = show::value(call, entry)?;
    let changes = serde_json::from_str(entry.text(&audit::CHANGES)).unwrap_or_default();
    shown["changes"] = changes;
    Ok(shown)
}
