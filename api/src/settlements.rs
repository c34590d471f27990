//! What was done about conflicts, and its undoing.

use crate::call::Call;
use crate::moment::Moment;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get, post};
use crate::show;
use atoll_node::Permission;
use atoll_node::conflict::settlement::{
    self, BY, CAUSE, CONFLICT, Deed, FIELD, KEY, KIND, SETTLEMENT, UNDONE_AT, UNDONE_BY,
};
use atoll_node::kinds;
use atoll_storage::query::{Cursor, Query};
use atoll_storage::{Field, Record, Shown, Type, Value};
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/sync/settlements", Can(Permission::ConflictsRead), list)
            .gives_fields(ROW)
            .pages()
            .query(&["limit", "cursor"])
            .doc("What was done about conflicts, the newest first."),
        post("/api/v1/sync/settlements/{id}/undo", Can(Permission::ConflictsResolve), undo)
            .gives_fields(ROW)
            .doc("Puts back what stood there before, and the conflict is in the inbox again. 409 `changed_since` if somebody wrote there after it was settled."),
    ]
}

const ROW: &[Field] = &[
    Field::text(1, "id").required(),
    CONFLICT,
    KIND,
    KEY,
    FIELD,
    CAUSE,
    Field::text(20, "before").doc("What stood there; of a name, the id of the record that had it; of what was deleted after all, when it had been deleted first."),
    Field::text(21, "after").doc("What was written; of a name, the id of the record that got it; of what was deleted after all, when that was. Null if it was left as it was."),
    BY,
    Field::time(22, "at").required(),
    UNDONE_AT,
    UNDONE_BY,
    Field::flag(23, "can_undo").required(),
];

async fn list(call: Call) -> Answer {
    let cursor = |text: &str| {
        let message = "give the `next` of a page as it stands";
        Cursor::parse(text).ok_or_else(|| Problem::parameter("cursor", "wrong_cursor", message))
    };
    let after = call.param("cursor").map(cursor).transpose()?;
    let query = Query::of(&SETTLEMENT, call.tenant()).limit(call.limit()?).after(after);
    let page = settlement::list(&call.node, &call.actor, query)?;
    let rows: Vec<Json> = page.records.iter().map(|settled| row(&call, settled)).collect();
    let next = page.next.as_ref().map(Cursor::to_text);
    Reply::rows(&call, &rows, next.as_deref(), page.total)
}

async fn undo(call: Call) -> Answer {
    let settled = settlement::undo(&call.node, &call.actor, call.id("id")?).await?;
    Reply::data(row(&call, &settled))
}

fn row(call: &Call, settled: &Record) -> Json {
    let kind = kinds::named(settled.text(&KIND));
    let field = kind.and_then(|kind| kind.field(settled.text(&FIELD)));
    let is_seen = match (kind, field.map(|field| field.shown)) {
        (_, Some(Shown::Always)) => true,
        (Some(kind), Some(Shown::Privately)) => show::administers(&call.actor, kind),
        _ => false,
    };
    let shown = |value: &Value| match (value, field.map(|field| field.ty)) {
        _ if !is_seen => Json::Null,
        (Value::Int(ms), Some(Type::Time)) => json!(Moment(*ms)),
        (value, _) => json!(value),
    };
    let (before, after) = match settlement::deed(settled) {
        Deed::Wrote { before, after, .. } => (shown(&before), shown(&after)),
        Deed::Gave { before, after } => (json!(before), json!(after)),
        Deed::Deleted { before, at_ms } => (json!(Moment(before.at_ms)), json!(Moment(at_ms))),
        Deed::Left { .. } | Deed::Untold => (Json::Null, Json::Null),
    };
    json!({
        "id": settled.key,
        "conflict": settled.text(&CONFLICT),
        "kind": settled.text(&KIND),
        "key": settled.id(&KEY),
        "field": settled.opt_text(&FIELD),
        "cause": settled.text(&CAUSE),
        "before": before,
        "after": after,
        "by": settled.id(&BY),
        "at": Moment::of(settled.created_ms()),
        "undone_at": settled.int(&UNDONE_AT).map(Moment),
        "undone_by": settled.id(&UNDONE_BY),
        "can_undo": settlement::can_undo(settled),
    })
}
