//! From what a handler gave to what is sent: the headers that every answer carries, ETags, problems.

use super::{App, Seen};
use crate::etag;
use crate::pages;
use crate::problem::Problem;
use crate::reply::{Content, PROBLEM, Reply};
use crate::request_id;
use atoll_node::identity::tenant;
use atoll_node::percent;
use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    LAST_MODIFIED, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

impl App {
    /// An answer without a body, with what every answer carries.
    pub(super) fn empty(&self, status: StatusCode, seen: &Seen) -> Response<Body> {
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
            let is_page = seen.route.is_some_and(|place| self.routes[place].is_page);
            let by =
                if is_page { "authorization, cookie, x-tenant" } else { "authorization, x-tenant" };
            headers.insert(VARY, HeaderValue::from_static(by));
        }
        response
    }

    pub(super) fn is_varied(&self, seen: &Seen) -> bool {
        seen.route.is_some_and(|place| !self.routes[place].is_bare)
    }

    pub(super) fn reply(&self, reply: Reply, seen: &Seen) -> Response<Body> {
        let mut response = self.empty(reply.status, seen);
        let headers = response.headers_mut();
        for (name, value) in reply.headers {
            if name == SET_COOKIE {
                headers.append(name, value);
            } else {
                headers.insert(name, value);
            }
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

    pub(super) fn problem(&self, problem: &Problem, seen: &Seen) -> Response<Body> {
        if let Some(cause) = problem.cause() {
            tracing::error!(id = %seen.request_id, cause, "a request failed");
        }
        if let Some(page) = self.page_of(problem, seen) {
            return self.reply(page, seen);
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

impl App {
    /// A refusal in words, for a browser that asked for a page.
    fn page_of(&self, problem: &Problem, seen: &Seen) -> Option<Reply> {
        let asked = seen.reader.as_ref()?;
        if !self.routes[seen.route?].is_page || problem.status() == StatusCode::UNAUTHORIZED {
            return None;
        }
        let text = |value: &Option<HeaderValue>| {
            value.as_ref().and_then(|v| v.to_str().ok()).map(str::to_owned)
        };
        let (named, host) = (text(&asked.tenant), text(&asked.host));
        let tenant = tenant::resolve(&self.node, named.as_deref(), host.as_deref()).ok()?;
        let page = pages::refused(&self.node, tenant, host.as_deref(), problem).ok()?;
        Some(match problem.retry_after_s() {
            Some(seconds) => page.header(RETRY_AFTER, seconds.to_string()),
            None => page,
        })
    }
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
