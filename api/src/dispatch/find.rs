//! Which route a request is for, and what is said of a path that is none. Looks at method and path alone.

use super::{App, Seen, admit::too_many};
use crate::limit::{Class, Who};
use crate::pages;
use crate::problem::Problem;
use crate::redirects;
use crate::reply::Reply;
use crate::route::{Answer, Route};
use atoll_node::identity::tenant;
use atoll_node::percent;
use axum::http::header::{CACHE_CONTROL, LOCATION, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use std::net::IpAddr;

const MAX_PATH_BYTES: usize = 2_048;

/// A path's methods, with the place of each route.
pub(super) struct Endpoint {
    methods: Vec<(Method, usize)>,
    allow: HeaderValue,
}

impl App {
    /// The path's parameters, with the route's place noted; `None` for OPTIONS.
    pub(super) fn find(
        &self,
        parts: &Parts,
        seen: &mut Seen,
    ) -> Result<Option<Vec<(&'static str, String)>>, Problem> {
        let path = parts.uri.path();
        if path.len() > MAX_PATH_BYTES {
            return Err(Problem::new(
                StatusCode::URI_TOO_LONG,
                "path_too_long",
                "the path is too long: at most 2,048 bytes",
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
            values.push((
                name,
                value.ok_or_else(|| Problem::malformed("the path holds broken UTF-8 or a NUL"))?,
            ));
        }
        Ok(Some(values))
    }

    /// Whether the path is none of ours, and so may be one that a post had elsewhere.
    pub(super) fn may_be_old(&self, parts: &Parts, seen: &Seen) -> bool {
        let path = parts.uri.path();
        seen.is_get && path.len() <= MAX_PATH_BYTES && self.table.at(path).is_err()
    }

    /// 301 to the post that an old path leads to.
    pub(super) fn follow(&self, parts: &Parts, peer: Option<IpAddr>, seen: &mut Seen) -> Answer {
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
}

/// Routes by path. A path that cannot stand beside the others is left out and logged; a test finds it first.
pub(super) fn table_of(routes: &[Route]) -> matchit::Router<Endpoint> {
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
