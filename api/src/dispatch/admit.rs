//! Who asks, and whether he may come in: tenant, actor, rate limit, access, names of parameters. All of it
//! before the body is read.

use super::{App, Seen};
use crate::limit::{Class, Standing, Who};
use crate::list::{self, RECORD_PARAMS};
use crate::pages::session_of;
use crate::params::Params;
use crate::problem::Problem;
use crate::route::{Access, Route, Shape};
use atoll_node::Actor;
use atoll_node::identity::session::{self, site};
use atoll_node::identity::tenant;
use atoll_storage::Id;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use std::net::IpAddr;

impl App {
    pub(super) fn peer_of(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<IpAddr> {
        let Some(place) = self.options.proxies.checked_sub(1) else { return peer };
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let mut hops =
            lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
        hops.nth(place).and_then(|hop| hop.trim().parse().ok()).or(peer)
    }

    pub(super) fn actor_of(
        &self,
        route: &Route,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Actor, Problem> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let named = headers.get("x-tenant").map(|value| value.to_str().unwrap_or("?"));
        let tenant = tenant::resolve(&self.node, named, text(&HOST))?;
        let Some(given) = headers.get(AUTHORIZATION) else {
            return self.reader_of(route, headers, tenant);
        };
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

    /// Pages, and they alone, know their readers by a cookie. Where a secret is tried, nobody is known yet.
    fn reader_of(&self, route: &Route, headers: &HeaderMap, tenant: Id) -> Result<Actor, Problem> {
        let session = session_of(headers).filter(|_| route.is_page && !route.is_strict);
        let reader = session.map_or(Ok(None), |text| site::reader(&self.node, tenant, text))?;
        Ok(reader.unwrap_or_else(|| Actor::stranger(tenant)))
    }

    pub(super) fn limited(
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
}

/// An API key reads what its owner reads, and changes only what a permission stands for.
pub(super) fn may_enter(route: &Route, actor: &Actor) -> Result<(), Problem> {
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
pub(super) fn check_names(route: &Route, params: &Params) -> Result<(), Problem> {
    let of_shape: &[&str] = match route.gives {
        Some(Shape::Of(_)) if route.is_list => return Ok(()),
        Some(Shape::Of(_)) => RECORD_PARAMS,
        _ => &[],
    };
    let is_known =
        |name: &str| route.is_page || of_shape.contains(&name) || route.query.contains(&name);
    params.iter().find(|(name, _)| !is_known(name)).map_or(Ok(()), |(name, _)| {
        Err(list::unknown(name, of_shape.iter().chain(route.query).copied()))
    })
}

pub(crate) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

pub(super) fn too_many(wait_s: u64) -> Problem {
    atoll_node::Error::TooMany { retry_after_s: wait_s }.into()
}
