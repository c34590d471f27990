//! Whether the process lives, and whether it can serve. No data here, no tenant, no limit.

use crate::call::Call;
use crate::moment::Moment;
use crate::reply::Reply;
use crate::route::{Access::Public, Answer, Route, get};
use atoll_node::backup::kept;
use atoll_node::identity::tenant;
use axum::http::StatusCode;
use serde_json::json;

pub fn routes() -> Vec<Route> {
    vec![
        get("/livez", Public, livez).bare().doc("200 as long as the process answers."),
        get("/readyz", Public, readyz)
            .bare()
            .doc("200 if the node can serve: its database answers and it has a tenant. Else 503."),
        get("/health", Public, health).bare().doc("Whether the node can serve, with its version, its last proven backup and what to look at."),
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
    let why = match standing(&call) {
        Standing::Ready => return Reply::text("text/plain; charset=utf-8", "ready\n"),
        Standing::Starting => {
            "there is no tenant yet: the node is being set up, or joins a network\n"
        }
        Standing::Failed => "the database does not answer\n",
    };
    Ok(Reply::text("text/plain; charset=utf-8", why)?.status(StatusCode::SERVICE_UNAVAILABLE))
}

async fn health(call: Call) -> Answer {
    let standing = standing(&call);
    let (backup, now_ms) =
        (kept::standing(&call.node).unwrap_or_default(), call.node.clock.now_ms());
    let proven_ms = backup.last_proven.as_ref().map(|proof| proof.created_ms);
    let is_disk_full = call.node.exchange.is_disk_full();
    let disk_warning = is_disk_full.then(|| {
        "the disk is full: what is written may be refused, and no files come: free some space"
            .to_owned()
    });
    let body = json!({
        "status": match standing {
            Standing::Ready => "ok",
            Standing::Starting => "starting",
            Standing::Failed => "unavailable",
        },
        "version": env!("CARGO_PKG_VERSION"),
        "checks": {
            "database": if standing == Standing::Failed { "failed" } else { "ok" },
            "backup": backup.word(),
            "disk": if is_disk_full { "full" } else { "ok" },
        },
        "backup": {
            "every_hours": backup.every_ms / 3_600_000,
            "proven_at": proven_ms.map(Moment::of),
            "age_s": proven_ms.map(|ms| now_ms.saturating_sub(ms) / 1_000),
        },
        "warnings": backup.warning(now_ms).into_iter().chain(disk_warning).collect::<Vec<_>>(),
    });
    let status = match standing {
        Standing::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(Reply::json(body)?.status(status))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Ready,
    /// Nobody can sign in before the first tenant is there.
    Starting,
    Failed,
}

fn standing(call: &Call) -> Standing {
    match tenant::exists(&call.node) {
        Ok(true) => Standing::Ready,
        Ok(false) => Standing::Starting,
        Err(error) => {
            tracing::error!(%error, "the database does not answer");
            Standing::Failed
        }
    }
}
