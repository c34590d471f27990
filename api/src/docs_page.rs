//! `/api/docs`: one page that reads `/api/openapi.json`, lets one search it and try a GET. Loads nothing from
//! elsewhere.

use crate::call::Call;
use crate::reply::Reply;
use crate::route::{Access::Public, Answer, Route, get};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};

pub fn routes() -> Vec<Route> {
    vec![get("/api/docs", Public, page).bare().doc("This documentation, to read, search and try.")]
}

const PAGE: &str = include_str!("docs_page.html");
/// The page holds no word that came from outside, and only its own script runs.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                                 connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                                 frame-ancestors 'none'";

async fn page(_: Call) -> Answer {
    let reply = Reply::text("text/html; charset=utf-8", PAGE)?;
    Ok(reply.header(CONTENT_SECURITY_POLICY, POLICY).header(CACHE_CONTROL, "no-cache"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for needle in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!super::PAGE.contains(needle), "{needle}");
        }
    }
}
