//! Comments: threads under posts, and their moderation.

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Author, Can, Public, User};
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show;
use atoll_node::Permission;
use atoll_node::community::comment::{self, COMMENT, Thread};
use atoll_node::community::like::{self, Target};
use atoll_node::content::post::POST;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/comments", User, list)
            .lists(&COMMENT)
            .query(&["mine"])
            .doc("Comments of the tenant. Moderators see every status; `mine=true` lists one's own."),
        get("/api/v1/posts/{id}/comments", Public, of_post)
            .lists(&COMMENT)
            .query(&["threaded"])
            .doc(
                "Comments of a post, oldest first; `parent_id` tells which one each answers. With threaded=true a \
                 page of those that answer none, each with its answers under replies: at most 1,000 a page.",
            ),
        post("/api/v1/comments", Can(Permission::CommentsWrite), create)
            .takes(&COMMENT)
            .gives(&COMMENT)
            .doc("Says something. Waits for a moderator until one of this author's comments was approved."),
        get("/api/v1/comments/{id}", Public, find).gives(&COMMENT).doc("One comment."),
        put("/api/v1/comments/{id}", Author(Permission::CommentsWrite), edit)
            .takes(&COMMENT)
            .gives(&COMMENT)
            .doc("Changes the text; only its author may."),
        delete("/api/v1/comments/{id}", Author(Permission::CommentsModerate), remove)
            .doc("Takes the text away; replies keep their place."),
        post("/api/v1/comments/{id}/approve", Can(Permission::CommentsModerate), approve)
            .gives(&COMMENT)
            .doc("Shows the comment to everybody."),
        post("/api/v1/comments/{id}/reject", Can(Permission::CommentsModerate), reject)
            .gives(&COMMENT)
            .doc("Hides the comment from everybody but its author and moderators."),
        post("/api/v1/comments/{id}/like", User, like_comment).doc("Likes the comment, or takes the like back."),
        post("/api/v1/posts/{id}/like", User, like_post).doc("Likes the post, or takes the like back."),
    ]
}

async fn list(call: Call) -> Answer {
    let query = call.query(&COMMENT, &["mine"])?.sorted_by("created_at", true);
    let mine = call.param_as::<bool>("mine")?.unwrap_or(false);
    let page = comment::list(&call.node, &call.actor, query.to_query(call.tenant()), mine)?;
    Reply::list(&call, page, &query)
}

async fn of_post(call: Call) -> Answer {
    let query = call.query(&COMMENT, &[])?;
    let post = call.key(&POST, "id")?;
    if call.param_as("threaded")?.unwrap_or(false) {
        let query = query.sorted_by("created_at", false).to_query(call.tenant());
        let (threads, next, total) = comment::threads(&call.node, &call.actor, post, query)?;
        let rows = threads.iter().map(|thread| shown(&call, thread));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        return Reply::rows(&call, &rows, next.map(|next| next.to_text()).as_deref(), total);
    }
    let page = comment::of_post(&call.node, &call.actor, post, query.to_query(call.tenant()))?;
    Reply::list(&call, page, &query)
}

fn shown(call: &Call, thread: &Thread) -> Result<Json, Problem> {
    let mut value = show::value(call, &thread.comment)?;
    let replies = thread.replies.iter().map(|reply| shown(call, reply));
    value["replies"] = Json::Array(replies.collect::<Result<_, _>>()?);
    Ok(value)
}

async fn create(call: Call) -> Answer {
    let changes = call.changes(&COMMENT)?;
    let made = comment::create(&call.node, &call.actor, changes).await?;
    Reply::created(&call, &made, format!("/api/v1/comments/{}", made.key))
}

async fn find(call: Call) -> Answer {
    let found = comment::get(&call.node, &call.actor, call.id("id")?)?;
    Reply::record(&call, &found)
}

async fn edit(call: Call) -> Answer {
    let key = call.id("id")?;
    let there = comment::get(&call.node, &call.actor, key)?;
    call.if_match(&there)?;
    let expected = call.header("if-match").map(|_| there.version());
    let after =
        comment::edit(&call.node, &call.actor, key, call.changes_to(&there)?, expected).await?;
    Reply::record(&call, &after)
}

async fn remove(call: Call) -> Answer {
    let key = call.id("id")?;
    let there = comment::get(&call.node, &call.actor, key)?;
    call.if_match(&there)?;
    let expected = call.header("if-match").map(|_| there.version());
    comment::remove(&call.node, &call.actor, key, expected).await?;
    Reply::none()
}

async fn approve(call: Call) -> Answer {
    let after = comment::moderate(&call.node, &call.actor, call.id("id")?, true).await?;
    Reply::record(&call, &after)
}

async fn reject(call: Call) -> Answer {
    let after = comment::moderate(&call.node, &call.actor, call.id("id")?, false).await?;
    Reply::record(&call, &after)
}

async fn like_comment(call: Call) -> Answer {
    let target = Target::Comment(call.id("id")?);
    toggle(call, target).await
}

async fn like_post(call: Call) -> Answer {
    let target = Target::Post(call.key(&POST, "id")?);
    toggle(call, target).await
}

async fn toggle(call: Call, target: Target) -> Answer {
    let now = like::toggle(&call.node, &call.actor, target).await?;
    Reply::data(json!({ "liked": now.liked, "likes": now.likes }))
}
