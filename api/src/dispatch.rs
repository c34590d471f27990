//! The one way of a request: route, tenant, actor, access, limit, body, handler, answer. Whatever holds for
//! every endpoint is here and in the files beside it and nowhere else; nothing here knows what an endpoint means.

mod admit;
mod answer;
mod body;
mod find;

use crate::call::Call;
use crate::feeds::Kept;
use crate::idempotency::{self, Running, Turn};
use crate::limit::{Limits, Standing};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::params::Params;
use crate::problem::Problem;
use crate::request_id::{RequestId, RequestIds};
use crate::route::{Answer, Route};
use crate::span;
use admit::{check_names, may_enter};
use atoll_node::{Actor, Node};
use axum::body::Body;
use axum::http::header::{ACCEPT, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use find::{Endpoint, table_of};
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Instant;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;

pub(crate) use admit::bearer;

/// All that requests share.
pub(crate) struct App {
    pub node: Arc<Node>,
    pub options: Options,
    pub routes: Vec<Route>,
    pub metrics: Arc<Metrics>,
    /// Turns true when the server stops.
    pub stopping: watch::Sender<bool>,
    pub streams: Arc<Semaphore>,
    pub uploads: Arc<Semaphore>,
    /// The OpenAPI document, made when it is first asked for.
    pub openapi: OnceLock<Bytes>,
    pub feeds: Kept,
    table: matchit::Router<Endpoint>,
    limits: Limits,
    ids: RequestIds,
    running: Running,
    /// One a request in work.
    places: Semaphore,
    started: Instant,
}

/// What the answer needs to know of its request.
struct Seen {
    request_id: RequestId,
    route: Option<usize>,
    is_head: bool,
    is_get: bool,
    if_none_match: Option<HeaderValue>,
    if_modified_since: Option<HeaderValue>,
    standing: Option<Standing>,
    is_signed_in: bool,
    allow: Option<HeaderValue>,
    uri: Uri,
    /// Of a browser that would rather have a page.
    reader: Option<Reader>,
}

/// What tells a browser's tenant.
struct Reader {
    tenant: Option<HeaderValue>,
    host: Option<HeaderValue>,
}

impl Reader {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get(ACCEPT)?.to_str().ok()?;
        let header = |name: &str| headers.get(name).cloned();
        let is_one = accepted.contains("text/html");
        is_one.then(|| Self { tenant: header("x-tenant"), host: header("host") })
    }
}

enum Outcome {
    Answer(Answer),
    /// OPTIONS: what may be done here.
    Allow,
}

impl App {
    pub fn new(node: Arc<Node>, options: Options, routes: Vec<Route>) -> Self {
        Self {
            metrics: Arc::new(Metrics::new(routes.len())),
            stopping: watch::Sender::new(false),
            streams: Arc::new(Semaphore::new(options.max_streams)),
            uploads: Arc::new(Semaphore::new(options.max_uploads)),
            openapi: OnceLock::new(),
            feeds: Kept::default(),
            table: table_of(&routes),
            limits: Limits::new(options.usual, options.strict),
            ids: RequestIds::new(node.clock.now_ms()),
            running: Running::default(),
            places: Semaphore::new(options.max_requests),
            started: Instant::now(),
            node,
            options,
            routes,
        }
    }

    pub async fn answer(
        self: Arc<Self>,
        request: Request<Body>,
        peer: Option<IpAddr>,
    ) -> Response<Body> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let mut seen = Seen {
            request_id: self.ids.of(&parts.headers),
            route: None,
            is_head: parts.method == Method::HEAD,
            is_get: matches!(parts.method, Method::GET | Method::HEAD),
            if_none_match: parts.headers.get(IF_NONE_MATCH).cloned(),
            if_modified_since: parts.headers.get(IF_MODIFIED_SINCE).cloned(),
            standing: None,
            is_signed_in: false,
            allow: None,
            uri: parts.uri.clone(),
            reader: Reader::of(&parts.headers),
        };
        let peer = self.peer_of(&parts.headers, peer);
        let span = span::of(&seen.request_id, seen.is_get, parts.uri.path());
        let outcome = self.run(parts, body, peer, &mut seen).instrument(span).await;
        let response = match outcome {
            Outcome::Allow => self.empty(StatusCode::NO_CONTENT, &seen),
            Outcome::Answer(Ok(reply)) => self.reply(reply, &seen),
            Outcome::Answer(Err(problem)) => self.problem(&problem, &seen),
        };
        let took = started.elapsed();
        self.metrics.note(seen.route, response.status().as_u16(), took);
        tracing::debug!(id = %seen.request_id, status = response.status().as_u16(), took_us = took.as_micros() as u64, "answered");
        response
    }

    async fn run(
        self: &Arc<Self>,
        parts: Parts,
        body: Body,
        peer: Option<IpAddr>,
        seen: &mut Seen,
    ) -> Outcome {
        let path = match self.find(&parts, seen) {
            Ok(Some(path)) => path,
            Ok(None) => return Outcome::Allow,
            Err(_) if self.may_be_old(&parts, seen) => {
                return Outcome::Answer(self.follow(&parts, peer, seen));
            }
            Err(problem) => return Outcome::Answer(Err(problem)),
        };
        let Some(place) = seen.route else { return Outcome::Allow };
        Outcome::Answer(self.enter(place, path, parts, body, peer, seen).await)
    }

    async fn enter(
        self: &Arc<Self>,
        place: usize,
        path: Vec<(&'static str, String)>,
        parts: Parts,
        body: Body,
        peer: Option<IpAddr>,
        seen: &mut Seen,
    ) -> Answer {
        let route = &self.routes[place];
        let Ok(_place) = self.places.try_acquire() else {
            let message = "this node has more requests in work than it takes: try again shortly";
            return Err(Problem::unavailable("overloaded", message, 1));
        };
        let actor = if route.is_bare {
            Actor::stranger(atoll_storage::Id::NIL)
        } else {
            let actor = self.actor_of(route, &parts.headers, peer)?.at(peer);
            seen.is_signed_in = actor.user.is_some();
            seen.standing = self.limited(route, &actor, peer, seen)?;
            actor
        };
        may_enter(route, &actor)?;
        let params = Params::read(parts.uri.query())?;
        check_names(route, &params)?;
        let (body, upload) = match body {
            body if route.is_upload => (Bytes::new(), Some(body)),
            _ if seen.is_get => (Bytes::new(), None),
            body => (self.read(body, route, &parts.headers).await?, None),
        };
        let call = Call {
            node: self.node.clone(),
            actor,
            peer,
            request_id: seen.request_id.clone(),
            app: self.clone(),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
            upload: Mutex::new(upload),
            path,
            params,
            declared: route.query,
        };
        let may_repeat = !route.is_strict && !route.is_bare && !route.is_upload;
        if call.method == Method::POST && may_repeat {
            match idempotency::begin(&call, &self.running)? {
                Turn::Plain => {}
                Turn::Repeat(reply) => return Ok(reply),
                Turn::First(ticket) => return self.clone().once(place, call, ticket).await,
            }
        }
        self.handle(place, call).await
    }

    /// In a task of its own, so that the answer is kept even if the client hangs up before it.
    async fn once(
        self: Arc<Self>,
        place: usize,
        call: Call,
        ticket: idempotency::Ticket,
    ) -> Answer {
        let work = async move {
            ticket.note(&self.node).await?;
            let answer = self.handle(place, call).await;
            let end = ticket.end(&answer);
            ticket.settle(&self.node, end).await;
            answer
        };
        let task = tokio::spawn(work.in_current_span());
        task.await.unwrap_or_else(|error| Err(Problem::internal(error.to_string())))
    }

    /// Runs the handler within the timeout; a panic ends this request and no other.
    async fn handle(&self, place: usize, call: Call) -> Answer {
        let Ok(future) = catch_unwind(AssertUnwindSafe(|| (self.routes[place].handler)(call)))
        else {
            return Err(Problem::internal("the handler panicked"));
        };
        let mut future = pin!(future);
        let guarded =
            poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(poll) => poll,
                Err(_) => Poll::Ready(Err(Problem::internal("the handler panicked"))),
            });
        if self.routes[place].is_upload {
            return guarded.await;
        }
        tokio::time::timeout(self.options.timeout, guarded).await.unwrap_or_else(|_| {
            let message = "this took too long; what it was to write may still be written: look before you repeat it";
            Err(Problem::unavailable("timeout", message, 5))
        })
    }
}
