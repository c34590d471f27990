//! `/api/v1/events`: the tenant's events as they happen, as server-sent events. Those who administer see all,
//! others what they caused themselves. The number of streams is bounded, and none outlives its session.

use crate::call::Call;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::User;
use crate::route::{Answer, Route, get};
use atoll_node::{Actor, Node, Permission};
use atoll_storage::outbox::{StoredEvent, events_after, last_position};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use bytes::Bytes;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/events", User, stream).query(&["after", "type"]).doc(
            "Events as they happen, as server-sent events. Resumes after the header Last-Event-ID or `after`; \
             `type` keeps those whose type begins so. Who may not administer sees his own.",
        ),
    ]
}

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Many commits at once make one read.
const BREATH: Duration = Duration::from_millis(25);
const BATCH: usize = 100;

async fn stream(call: Call) -> Answer {
    let place = call.app.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable(
            "too_many_streams",
            "this node has as many event streams as it takes",
            10,
        )
    })?;
    let resumed = call.header("last-event-id").or(call.param("after"));
    let pos = match resumed {
        Some(text) => text
            .parse()
            .map_err(|_| Problem::parameter("after", "wrong_type", "must be the id of an event"))?,
        None => call.node.store.read(|reader| last_position(reader))?,
    };
    let token = call.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let feed = Feed {
        open: Open::new(call.app.metrics.clone(), place),
        commits: call.node.store.subscribe(),
        stopping: call.app.stopping.subscribe(),
        sees_all: call.actor.can(Permission::JobsAdminister),
        actor: call.actor,
        token: token.and_then(crate::dispatch::bearer).unwrap_or_default().to_owned(),
        wanted: call.param("type").unwrap_or_default().to_owned(),
        node: call.node.clone(),
        pos,
        read_at: Instant::now(),
        greeted: false,
    };
    let chunks = futures_util::stream::unfold(feed, Feed::next);
    let reply = Reply::stream("text/event-stream", chunks);
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}

/// One open stream, counted as long as it is.
struct Open {
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: Arc<Metrics>, place: OwnedSemaphorePermit) -> Self {
        metrics.streams.fetch_add(1, Relaxed);
        Self { metrics, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.streams.fetch_sub(1, Relaxed);
    }
}

struct Feed {
    #[allow(dead_code, reason = "held for what its end does")]
    open: Open,
    node: Arc<Node>,
    actor: Actor,
    sees_all: bool,
    token: String,
    wanted: String,
    commits: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    pos: u64,
    read_at: Instant,
    greeted: bool,
}

type Chunk = Result<Bytes, Infallible>;

impl Feed {
    /// The next chunk; none when the node stops or the session ended.
    async fn next(mut self) -> Option<(Chunk, Self)> {
        if !self.greeted {
            self.greeted = true;
            return Some((Ok(Bytes::from_static(b"retry: 3000\n\n")), self));
        }
        loop {
            self.commits.borrow_and_update();
            self.read_at = Instant::now();
            let (tenant, pos) = (self.actor.tenant, self.pos);
            let events =
                self.node.store.read(|reader| events_after(reader, Some(tenant), pos, BATCH));
            let events =
                events.inspect_err(|error| tracing::warn!(%error, "an event stream ends")).ok()?;
            if let Some(last) = events.last() {
                self.look_again()?;
                self.pos = last.pos;
                let text = self.write(&events);
                if !text.is_empty() {
                    return Some((Ok(text.into()), self));
                }
                continue;
            }
            if !self.wait().await? {
                return Some((Ok(Bytes::from_static(b": still here\n\n")), self));
            }
        }
    }

    /// Whether something was committed; not if the time for a sign of life came. None: the end.
    async fn wait(&mut self) -> Option<bool> {
        let changed = tokio::select! {
            changed = self.commits.changed() => changed.ok().map(|()| true)?,
            _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            () = tokio::time::sleep(KEEP_ALIVE) => false,
        };
        if changed {
            tokio::time::sleep_until(self.read_at + BREATH).await;
        } else {
            self.look_again()?;
        }
        Some(changed)
    }

    /// What this caller may see now; none if he may not look any more.
    fn look_again(&mut self) -> Option<()> {
        let tenant = self.actor.tenant;
        let actor =
            atoll_node::identity::session::authenticate(&self.node, tenant, &self.token).ok()?;
        self.sees_all = actor.can(Permission::JobsAdminister);
        Some(())
    }

    fn write(&self, events: &[StoredEvent]) -> String {
        let mut text = String::new();
        let is_mine = |event: &&StoredEvent| self.sees_all || event.user_id == self.actor.user;
        let is_wanted = |event: &&StoredEvent| event.event_type.starts_with(&self.wanted);
        for event in events.iter().filter(is_mine).filter(is_wanted) {
            text.push_str(&as_text(event));
        }
        text
    }
}

/// JSON has no line breaks, so that one line of data is enough.
fn as_text(event: &StoredEvent) -> String {
    let mut text = String::new();
    let json = serde_json::to_string(event).unwrap_or_default();
    let _ = write!(text, "id: {}\nevent: {}\ndata: {json}\n\n", event.pos, event.event_type);
    text
}
