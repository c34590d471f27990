//! The HTTP face of a node: routes, conventions, documents. An endpoint is one line in its area's list of
//! routes and a handler that unpacks, makes one call into the domain, and answers. No rule of the domain is
//! decided here.

mod analytics;
mod api_keys;
mod audit;
mod auth;
mod autosaves;
mod backups;
mod buckets;
mod bundles;
pub mod call;
mod categories;
mod comments;
mod console;
mod cookie;
mod dispatch;
mod docs_page;
mod download;
mod etag;
mod events;
mod exports;
mod feeds;
mod grants;
mod guests;
mod health;
mod idempotency;
mod imports;
mod jobs;
mod letter_pages;
pub mod limit;
pub mod list;
mod mail;
mod metrics;

mod oidc;
pub mod openapi;
pub mod options;
mod pages;
mod params;
mod peers;
mod posts;
mod previews;
pub mod problem;
mod redirects;
pub mod reply;
mod request_id;
mod roles;
pub mod route;
mod seals;
mod search;
mod seo;
pub mod serve;
mod sessions;
mod settlements;
pub mod show;
mod site;
mod span;
mod stall;
mod sync;
mod tags;
mod take;
mod tenants;
mod totp;
mod upload;
mod users;

pub use atoll_node::moment;
pub use call::Call;
pub use list::ListQuery;
pub use options::Options;
pub use problem::Problem;
pub use reply::Reply;
pub use route::{Access, Answer, Route, delete, get, patch, post, put};
pub use serve::{Face, serve};

use atoll_node::Node;
use std::sync::Arc;

/// For servers and tests that bring their own listener; [`serve`] is the node's own.
pub fn app(node: Arc<Node>) -> axum::Router {
    app_with(node.clone(), Options::of(&node.config))
}

pub fn app_with(node: Arc<Node>, options: Options) -> axum::Router {
    axum::Router::new().fallback_service(Face::new(node, options))
}

/// Every endpoint there is.
pub fn all_routes() -> Vec<Route> {
    [
        health::routes(),
        metrics::routes(),
        openapi::routes(),
        docs_page::routes(),
        console::routes(),
        events::routes(),
        sync::routes(),
        seals::routes(),
        settlements::routes(),
        peers::routes(),
        grants::routes(),
        backups::routes(),
        auth::routes(),
        sessions::routes(),
        totp::routes(),
        oidc::routes(),
        letter_pages::routes(),
        api_keys::routes(),
        users::routes(),
        mail::routes(),
        roles::routes(),
        audit::routes(),
        tenants::routes(),
        categories::routes(),
        tags::routes(),
        posts::routes(),
        autosaves::routes(),
        previews::routes(),
        feeds::routes(),
        pages::routes(),
        comments::routes(),
        search::routes(),
        analytics::routes(),
        redirects::routes(),
        imports::routes(),
        exports::routes(),
        bundles::routes(),
        buckets::routes(),
        jobs::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_routes_meet() {
        let mut table = matchit::Router::new();
        let mut seen = std::collections::BTreeSet::new();
        for route in all_routes() {
            assert!(seen.insert((route.path, route.method.to_string())), "{} twice", route.path);
            if seen.iter().filter(|(path, _)| *path == route.path).count() == 1 {
                assert_eq!(table.insert(route.path, ()), Ok(()), "{}", route.path);
            }
        }
    }

    #[test]
    fn every_route_is_documented() {
        for route in all_routes() {
            assert!(route.doc.len() > 3, "{} {} has no doc", route.method, route.path);
        }
    }
}
