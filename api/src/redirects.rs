//! The addresses that posts had elsewhere, over HTTP. Following one is the dispatcher's: it asks here for paths that
//! are no route.

use crate::call::Call;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, delete, get, post};
use crate::site;
use atoll_node::Permission::PostsAdminister;
use atoll_node::content::redirect::{self, REDIRECT};
use atoll_node::{Node, Result as Domain};
use atoll_storage::Id;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/redirects", Can(PostsAdminister), list)
            .lists(&REDIRECT)
            .doc("Old paths and the posts that they lead to."),
        post("/api/v1/redirects", Can(PostsAdminister), create)
            .takes(&REDIRECT)
            .gives(&REDIRECT)
            .doc("Leads a path to a post. One that led elsewhere leads here from now on."),
        delete("/api/v1/redirects/{id}", Can(PostsAdminister), remove)
            .doc("The path leads nowhere any more."),
    ]
}

async fn list(call: Call) -> Answer {
    let query = call.query(&REDIRECT, &[])?.sorted_by("path", false);
    let page = redirect::list(&call.node, &call.actor, &query.to_query(call.tenant()))?;
    Reply::list(&call, page, &query)
}

async fn create(call: Call) -> Answer {
    let changes = call.changes(&REDIRECT)?;
    let redirect = redirect::create(&call.node, &call.actor, changes).await?;
    Reply::created(&call, &redirect, format!("/api/v1/redirects/{}", redirect.key))
}

async fn remove(call: Call) -> Answer {
    redirect::remove(&call.node, &call.actor, call.id("id")?).await?;
    Reply::none()
}

/// Where an old path leads now: the page of a post that the public sees.
pub(crate) fn followed(node: &Node, tenant: Id, path: &str) -> Domain<Option<String>> {
    let post = redirect::target(node, tenant, path)?;
    Ok(post.map(|post| site::path_of(&node.config.posts.path, &post)))
}
