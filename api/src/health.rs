//! Whether the process lives, and whether it can serve. No data here, no tenant, no limit.

use crate::call::Call;
use crate::reply::Reply;
use crate::route::{Access::Public, Answer, Route, get};
use axum::http::StatusCode;
use serde_json::json;

pub fn routes() -> Vec<Route> {
    vec![
        get("/livez", Public, livez).bare().doc("200 as long as the process answers."),
        get("/readyz", Public, readyz)
            .bare()
            .doc("200 if the node can serve: its database answers. Else 503."),
        get("/health", Public, health).bare().doc("Whether the node can serve, with its version."),
        get("/ping", Public, ping).bare().doc("pong."),
    ]
}

async fn livez(_: Call) -> Answer {
    Reply::text("text/plain; charset=utf-8", "ok\n")
}

async fn ping(_: Call) -> Answer {
    Reply::text("text/plain; charset=utf-8", "pong\n")
}

async fn readyz(call: Call) -> Answer {
    match reads(&call) {
        Ok(()) => Reply::text("text/plain; charset=utf-8", "ready\n"),
        Err(error) => {
            tracing::error!(%error, "the database does not answer");
            Ok(Reply::text("text/plain; charset=utf-8", "the database does not answer\n")?
                .status(StatusCode::SERVICE_UNAVAILABLE))
        }
    }
}

async fn health(call: Call) -> Answer {
    let ready = reads(&call).is_ok();
    let body = json!({
        "status": if ready { "ok" } else { "unavailable" },
        "version": env!("CARGO_PKG_VERSION"),
        "checks": { "database": if ready { "ok" } else { "failed" } },
    });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(Reply::json(body)?.status(status))
}

fn reads(call: &Call) -> Result<(), atoll_storage::Error> {
    use atoll_storage::read::Read;
    call.node.store.read(|reader| reader.conflict(atoll_storage::Id::NIL).map(|_| ()))
}
