//! The one way of a request: route, tenant, actor, access, limit, body, handler, answer. Whatever holds for
//! every endpoint is here and nowhere else; nothing here knows what an endpoint means.

use crate::call::Call;
use crate::etag;
use crate::feeds::Kept;
use crate::idempotency::{self, Running, Turn};
use crate::limit::{Class, Limits, Standing, Who};
use crate::list::{self, RECORD_PARAMS};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pages;
use crate::params::Params;
use crate::problem::Problem;
use crate::redirects;
use crate::reply::{Content, Reply};
use crate::request_id::{self, RequestId, RequestIds};
use crate::route::{Access, Answer, Route, Shape};
use crate::span;
use atoll_node::identity::{session, tenant};
use atoll_node::{Actor, Node, percent};
use axum::body::Body;
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Instant;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const MAX_PATH_BYTES: usize = 2_048;

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

/// A path's methods, with the place of each route.
struct Endpoint {
    methods: Vec<(Method, usize)>,
    allow: HeaderValue,
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

    /// The path's parameters, with the route's place noted; `None` for OPTIONS.
    fn find(
        &self,
        parts: &Parts,
        seen: &mut Seen,
    ) -> Result<Option<Vec<(&'static str, String)>>, Problem> {
        let path = parts.uri.path();
        if path.len() > MAX_PATH_BYTES {
            return Err(Problem::new(
                StatusCode::URI_TOO_LONG,
                "path_too_long",
                "at most 2,048 bytes",
            ));
        }
        let nothing = || {
            Problem::new(StatusCode::NOT_FOUND, "no_such_route", "there is nothing under this path")
        };
        let matched = self.table.at(path).map_err(|_| nothing())?;
        let endpoint = matched.value;
        if parts.method == Method::OPTIONS {
            seen.allow = Some(endpoint.allow.clone());
            return Ok(None);
        }
        let method = if seen.is_head { &Method::GET } else { &parts.method };
        let Some((_, place)) = endpoint.methods.iter().find(|(known, _)| known == method) else {
            seen.allow = Some(endpoint.allow.clone());
            let message =
                format!("this path takes {}", endpoint.allow.to_str().unwrap_or_default());
            return Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                message,
            ));
        };
        seen.route = Some(*place);
        let names = self.routes[*place].path_names();
        let mut values = Vec::with_capacity(matched.params.len());
        for (name, (_, raw)) in names.zip(matched.params.iter()) {
            let value = percent::decode(raw, false).filter(|value| !value.contains('\0'));
            values.push((name, value.ok_or_else(|| Problem::malformed("the path is not UTF-8"))?));
        }
        Ok(Some(values))
    }

    /// Whether the path is none of ours, and so may be one that a post had elsewhere.
    fn may_be_old(&self, parts: &Parts, seen: &Seen) -> bool {
        let path = parts.uri.path();
        seen.is_get && path.len() <= MAX_PATH_BYTES && self.table.at(path).is_err()
    }

    /// 301 to the post that an old path leads to.
    fn follow(&self, parts: &Parts, peer: Option<IpAddr>, seen: &mut Seen) -> Answer {
        let nothing = Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_route",
            "there is nothing under this path",
        );
        let text = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let Ok(tenant) = tenant::resolve(&self.node, text("x-tenant"), text("host")) else {
            return Err(nothing);
        };
        let taken = self.limits.take(Class::Usual, Who::peer(peer), self.started.elapsed());
        seen.standing = taken.map_err(|(_, wait_s)| too_many(wait_s))?;
        let Some(place) = redirects::followed(&self.node, tenant, parts.uri.path())? else {
            let is_reader = text("accept").is_some_and(|accepted| accepted.contains("text/html"));
            let is_page = is_reader && !parts.uri.path().starts_with("/api/");
            let page = is_page.then(|| pages::missing(&self.node, tenant, text("host")));
            return page.unwrap_or(Err(nothing)).map(|page| page.header(VARY, "accept, x-tenant"));
        };
        let reply = Reply::text("text/plain; charset=utf-8", place.clone())?;
        // Not for ever, as it would be without: the post may go, or the path lead elsewhere.
        let reply = reply.header(CACHE_CONTROL, "public, max-age=3600").header(VARY, "x-tenant");
        Ok(reply.status(StatusCode::MOVED_PERMANENTLY).header(LOCATION, place))
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
            let answer = self.handle(place, call).await;
            let stored = answer.as_ref().ok().and_then(|reply| ticket.frozen(reply));
            match stored {
                Some(stored) => ticket.keep(&self.node, stored).await,
                None => drop(ticket),
            }
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

    fn peer_of(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<IpAddr> {
        let Some(place) = self.options.proxies.checked_sub(1) else { return peer };
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let mut hops =
            lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
        hops.nth(place).and_then(|hop| hop.trim().parse().ok()).or(peer)
    }

    fn actor_of(
        &self,
        route: &Route,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Actor, Problem> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let named = headers.get("x-tenant").map(|value| value.to_str().unwrap_or("?"));
        let tenant = tenant::resolve(&self.node, named, text(&HOST))?;
        let Some(given) = headers.get(AUTHORIZATION) else { return Ok(Actor::stranger(tenant)) };
        let token = given.to_str().ok().and_then(bearer);
        let peer = Who::peer(peer);
        let actor = match token {
            Some(token) => session::authenticate(&self.node, tenant, token).map_err(Problem::from),
            None => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unknown_scheme",
                "send the access token as `Authorization: Bearer <token>`",
            )),
        };
        match actor {
            // Signing in anew must work with an old token at hand.
            Err(problem)
                if route.is_strict && route.access == Access::Public && problem.status() == 401 =>
            {
                Ok(Actor::stranger(tenant))
            }
            Err(problem) if problem.status() == 401 => {
                // Whoever guesses is slowed down; others behind the same address go on with good tokens.
                let taken = self.limits.take(Class::Forged, peer, self.started.elapsed());
                Err(taken.map_or_else(|(_, wait_s)| too_many(wait_s), |_| problem))
            }
            actor => actor,
        }
    }

    fn limited(
        &self,
        route: &Route,
        actor: &Actor,
        peer: Option<IpAddr>,
        seen: &mut Seen,
    ) -> Result<Option<Standing>, Problem> {
        let (class, who) = match actor.user {
            _ if route.is_strict => (Class::Strict, Who::peer(peer)),
            Some(user) => (Class::Usual, Who::User(user)),
            None => (Class::Usual, Who::peer(peer)),
        };
        self.limits.take(class, who, self.started.elapsed()).map_err(|(standing, wait_s)| {
            seen.standing = Some(standing);
            too_many(wait_s)
        })
    }

    async fn read(&self, body: Body, route: &Route, headers: &HeaderMap) -> Result<Bytes, Problem> {
        let limit = route.body_limit_bytes.unwrap_or(self.options.max_body_bytes);
        let too_large = || {
            let message = format!("the body is too large: at most {limit} bytes here");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        };
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > limit as u64) {
            return Err(too_large());
        }
        let collect = async {
            let mut stream = body.into_data_stream();
            let mut first = Bytes::new();
            let mut rest = BytesMut::new();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|_| Problem::malformed("the body ended early"))?;
                if first.len() + rest.len() + chunk.len() > limit {
                    return Err(too_large());
                }
                if first.is_empty() {
                    first = chunk;
                } else {
                    rest.extend_from_slice(&chunk);
                }
            }
            if rest.is_empty() {
                return Ok(first);
            }
            let mut whole = BytesMut::with_capacity(first.len() + rest.len());
            whole.extend_from_slice(&first);
            whole.extend_from_slice(&rest);
            Ok(whole.freeze())
        };
        tokio::time::timeout(self.options.timeout, collect).await.unwrap_or_else(|_| {
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_too_slow",
                "the body did not come in time",
            ))
        })
    }

    /// An answer without a body, with what every answer carries.
    fn empty(&self, status: StatusCode, seen: &Seen) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.reserve(16);
        headers.insert(request_id::HEADER, seen.request_id.value());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
        if let Some(standing) = seen.standing {
            headers.insert(RATE_LIMIT, HeaderValue::from(standing.limit));
            headers.insert(RATE_REMAINING, HeaderValue::from(standing.remaining));
            headers.insert(RATE_RESET, HeaderValue::from(standing.reset_s));
        }
        if let Some(allow) = &seen.allow {
            headers.insert(ALLOW, allow.clone());
        }
        if self.is_varied(seen) {
            headers.insert(VARY, HeaderValue::from_static("authorization, x-tenant"));
        }
        response
    }

    fn is_varied(&self, seen: &Seen) -> bool {
        seen.route.is_some_and(|place| !self.routes[place].is_bare)
    }

    fn reply(&self, reply: Reply, seen: &Seen) -> Response<Body> {
        let mut response = self.empty(reply.status, seen);
        let headers = response.headers_mut();
        for (name, value) in reply.headers {
            headers.insert(name, value);
        }
        let is_strict = seen.route.is_some_and(|place| self.routes[place].is_strict);
        if self.is_varied(seen) && !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, cache_control(is_strict, seen));
        }
        let body = match reply.content {
            Content::Stream(body) => {
                headers.insert(CONTENT_TYPE, reply.content_type);
                *response.body_mut() = if seen.is_head { Body::empty() } else { body };
                return response;
            }
            Content::Whole(body) => body,
        };
        let is_tagged = reply.version.is_some() || (seen.is_get && reply.status == StatusCode::OK);
        if is_tagged && !is_strict && self.is_varied(seen) {
            let tag = etag::of(reply.version.as_ref(), &body);
            let known = seen.if_none_match.as_ref().and_then(|value| value.to_str().ok());
            let is_known = seen.is_get
                && match known {
                    Some(known) => etag::is_known(known, &tag),
                    None => seen.if_none_match.is_none() && is_unmodified(headers, seen),
                };
            if let Ok(tag) = HeaderValue::from_str(&tag) {
                headers.insert(ETAG, tag);
            }
            if is_known {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return response;
            }
        }
        if reply.status == StatusCode::NO_CONTENT {
            return response;
        }
        headers.insert(CONTENT_TYPE, reply.content_type);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if !seen.is_head {
            *response.body_mut() = Body::from(body);
        }
        response
    }

    fn problem(&self, problem: &Problem, seen: &Seen) -> Response<Body> {
        if let Some(cause) = problem.cause() {
            tracing::error!(id = %seen.request_id, cause, "a request failed");
        }
        let mut response = self.empty(problem.status(), seen);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = problem.retry_after_s() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if problem.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let (Some(name), Some(place)) = (problem.moved_to(), seen.route)
            && let Ok(place) =
                HeaderValue::from_str(&renamed(&seen.uri, self.routes[place].path, name))
        {
            headers.insert(LOCATION, place);
        }
        let body = problem.to_json(seen.request_id.as_str());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if !seen.is_head {
            *response.body_mut() = Body::from(body);
        }
        response
    }
}

/// Routes by path. A path that cannot stand beside the others is left out and logged; a test finds it first.
fn table_of(routes: &[Route]) -> matchit::Router<Endpoint> {
    let mut paths: Vec<(&'static str, Vec<(Method, usize)>)> = Vec::new();
    for (place, route) in routes.iter().enumerate() {
        match paths.iter_mut().find(|(path, _)| *path == route.path) {
            Some((_, methods)) => methods.push((route.method.clone(), place)),
            None => paths.push((route.path, vec![(route.method.clone(), place)])),
        }
    }
    let mut table = matchit::Router::new();
    for (path, methods) in paths {
        let allow = HeaderValue::from_str(&allow_of(&methods))
            .unwrap_or(HeaderValue::from_static("OPTIONS"));
        if let Err(error) = table.insert(path, Endpoint { methods, allow }) {
            tracing::error!(path, %error, "a route cannot be served");
        }
    }
    table
}

fn allow_of(methods: &[(Method, usize)]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.push("OPTIONS");
    names.join(", ")
}

/// An API key reads what its owner reads, and changes only what a permission stands for.
fn may_enter(route: &Route, actor: &Actor) -> Result<(), Problem> {
    match route.access {
        Access::Public => {}
        Access::User if route.method != Method::GET => {
            actor.require_user()?;
            if actor.api_key.is_some() {
                actor.require_session()?;
            }
        }
        Access::User => {
            actor.require_user()?;
        }
        Access::Author(permission) => {
            let user = actor.require_user()?;
            if actor.api_key.is_some() {
                actor.require_owner_or(Some(user), permission)?;
            }
        }
        Access::Can(permission) => {
            actor.require_user()?;
            actor.require(permission)?;
        }
    }
    Ok(())
}

/// Refuses parameters that the route does not name. Lists check their own, with the filters of their kind.
fn check_names(route: &Route, params: &Params) -> Result<(), Problem> {
    let of_shape: &[&str] = match route.gives {
        Some(Shape::Of(_)) if route.is_list => return Ok(()),
        Some(Shape::Of(_)) => RECORD_PARAMS,
        _ => &[],
    };
    let is_known =
        |name: &str| route.is_page || of_shape.contains(&name) || route.query.contains(&name);
    params
        .iter()
        .find(|(name, _)| !is_known(name))
        .map_or(Ok(()), |(name, _)| Err(list::unknown(name)))
}

pub(crate) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn too_many(wait_s: u64) -> Problem {
    atoll_node::Error::TooMany { retry_after_s: wait_s }.into()
}

/// The request's path and query with another name in the place of the route's first parameter.
fn renamed(uri: &Uri, route: &'static str, name: &str) -> String {
    let place = route.split('/').position(|part| part.starts_with('{'));
    let name = percent::encode(name);
    let parts = uri.path().split('/').enumerate();
    let parts = parts.map(|(i, part)| if Some(i) == place { name.as_str() } else { part });
    let path = parts.collect::<Vec<_>>().join("/");
    uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}

/// Whether the client names the very time of the last change, as it was told it.
fn is_unmodified(headers: &HeaderMap, seen: &Seen) -> bool {
    let since = seen.if_modified_since.as_ref();
    since.is_some() && since == headers.get(LAST_MODIFIED)
}

fn cache_control(is_strict: bool, seen: &Seen) -> HeaderValue {
    HeaderValue::from_static(match (is_strict, seen.is_get, seen.is_signed_in) {
        (true, _, _) | (_, false, _) => "no-store",
        (_, _, true) => "private, no-cache",
        (_, _, false) => "no-cache",
    })
}
