//! `/api/v1/events`: the tenant's events as they happen, as server-sent events. Those who administer see all,
//! others what they caused themselves. The number of streams is bounded, and none outlives its session.

use crate::call::Call;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::User;
use crate::route::{Answer, Route, get};
use atoll_node::{Actor, Node, Permission};
use atoll_storage::outbox::{StoredEvent, events_after, first_position, last_position};
use atoll_storage::read::Reader;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use bytes::Bytes;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/events", User, stream).query(&["after", "type"]).doc(
            "Events as they happen, as server-sent events. Resumes after the header Last-Event-ID or `after`; \
             `after=0` begins with the oldest that is kept. An event `gap` says that some may be missing, because \
             they are kept no longer or the id is of another node: read again what you show. \
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
    let life = Life::of(&call.node);
    let asked = match (call.header("last-event-id"), call.param("after")) {
        // Of a browser, which would not ask a second time if it were refused.
        (Some(text), _) => Some(life.place_in(text).unwrap_or(Place::Elsewhere)),
        (None, Some(text)) => Some(life.place_in(text).ok_or_else(|| {
            Problem::parameter("after", "wrong_type", "must be the id of an event, or 0")
        })?),
        (None, None) => None,
    };
    let last = call.node.store.read(|reader| last_position(reader))?;
    let (pos, gap) = match asked {
        None => (last, None),
        Some(Place::Here(pos)) if pos <= last => (pos, None),
        Some(_) => (last, Some(Gap::Elsewhere)),
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
        life,
        pos,
        gap,
        read_at: Instant::now(),
        greeted: false,
    };
    let chunks = futures_util::stream::unfold(feed, Feed::next);
    let reply = Reply::stream("text/event-stream", chunks);
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}

/// What positions of one outbox are told apart by: they mean nothing on another node, nor in another life of this one.
struct Life(String);

/// What an id that a client saw last stands for.
enum Place {
    Here(u64),
    Elsewhere,
}

#[derive(Clone, Copy)]
enum Gap {
    Elsewhere,
    Trimmed,
}

impl Life {
    fn of(node: &Node) -> Self {
        let hash = blake3::hash(node.store.origin().to_string().as_bytes());
        Self(hash.to_hex().chars().take(8).collect())
    }

    /// None for what is no id of an event. A number alone is a position here.
    fn place_in(&self, id: &str) -> Option<Place> {
        let (life, pos) = id.split_once('-').unwrap_or((&self.0, id));
        let pos = pos.parse().ok()?;
        Some(if life == self.0 { Place::Here(pos) } else { Place::Elsewhere })
    }
}

impl Gap {
    fn as_text(self, life: &Life, pos: u64) -> String {
        let (reason, message) = match self {
            Self::Elsewhere => ("unknown_id", "the id is not of this node: events may be missing"),
            Self::Trimmed => ("trimmed", "events before this one are kept no longer"),
        };
        let data = serde_json::json!({ "reason": reason, "message": message });
        format!("id: {}-{pos}\nevent: gap\ndata: {data}\n\n", life.0)
    }
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
    life: Life,
    pos: u64,
    /// To be told first.
    gap: Option<Gap>,
    read_at: Instant,
    greeted: bool,
}

type Chunk = Result<Bytes, Infallible>;

impl Feed {
    /// The next chunk; none when the node stops or the session ended.
    async fn next(mut self) -> Option<(Chunk, Self)> {
        if !self.greeted {
            self.greeted = true;
            let gap =
                self.gap.take().map_or_else(String::new, |gap| gap.as_text(&self.life, self.pos));
            return Some((Ok(format!("retry: 3000\n{}\n{gap}", self.place()).into()), self));
        }
        loop {
            self.commits.borrow_and_update();
            self.read_at = Instant::now();
            let read = self.node.store.read(|reader| self.read(reader));
            let (first, events) =
                read.inspect_err(|error| tracing::warn!(%error, "an event stream ends")).ok()?;
            let missed = self.pos > 0 && first > self.pos + 1;
            if let Some(last) = events.last() {
                self.look_again()?;
                self.pos = last.pos;
                let gap = if missed {
                    Gap::Trimmed.as_text(&self.life, first - 1)
                } else {
                    String::new()
                };
                let text = gap + &self.write(&events);
                if !text.is_empty() {
                    return Some((Ok(text.into()), self));
                }
                continue;
            }
            if !self.wait().await? {
                // With the id, so that a client that comes back asks for nothing that it had no interest in.
                return Some((Ok(format!(": still here\n{}\n", self.place()).into()), self));
            }
        }
    }

    fn place(&self) -> String {
        format!("id: {}-{}\n", self.life.0, self.pos)
    }

    /// The oldest position that is kept, and the events that come next.
    fn read(&self, reader: &Reader<'_>) -> atoll_storage::Result<(u64, Vec<StoredEvent>)> {
        let events = events_after(reader, Some(self.actor.tenant), self.pos, BATCH)?;
        Ok((if events.is_empty() { 0 } else { first_position(reader)? }, events))
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
            text.push_str(&self.as_text(event));
        }
        text
    }

    /// JSON has no line breaks, so that one line of data is enough.
    fn as_text(&self, event: &StoredEvent) -> String {
        let json = serde_json::to_string(event).unwrap_or_default();
        let (life, pos) = (&self.life.0, event.pos);
        format!("id: {life}-{pos}\nevent: {}\ndata: {json}\n\n", event.event_type)
    }
}
