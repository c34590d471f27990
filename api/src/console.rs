//! `/console`: one page for those who run a node, on how it stands with the others, what met in conflict, and how that was
//! settled. It signs in and asks over the API like any other client, holds no data itself, and loads nothing from
//! elsewhere.

use crate::call::Call;
use crate::docs_page::POLICY;
use crate::reply::Reply;
use crate::route::{Access::Public, Answer, Route, get};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};

pub fn routes() -> Vec<Route> {
    vec![get("/console", Public, page).bare().doc(
        "The node's console: its network, the inbox of conflicts and what was settled, to see and to act on.",
    )]
}

const PAGE: &str = include_str!("console.html");

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

    /// What other nodes and members wrote is put in as text, and tokens are kept nowhere.
    #[test]
    fn the_page_makes_no_markup_of_data_and_stores_nothing() {
        for needle in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "sessionStorage",
            "document.cookie",
        ] {
            assert!(!super::PAGE.contains(needle), "{needle}");
        }
    }
}
