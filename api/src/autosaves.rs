//! What somebody writes on a post and has not saved yet, over HTTP. Each sees his own only.

use crate::call::Call;
use crate::posts::expected;
use crate::reply::Reply;
use crate::route::Access::Author;
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show::More;
use atoll_node::Permission::PostsAdminister;
use atoll_node::content::autosave::{self, POST_AUTOSAVE};
use atoll_node::content::post::{self as posts, POST};
use serde_json::Value as Json;

/// A body of a megabyte, as JSON that escapes much of it.
const DRAFT_BYTES: usize = 4 << 20;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/posts/{id}/autosave", Author(PostsAdminister), get_own)
            .gives(&POST_AUTOSAVE)
            .doc("One's own draft; behind tells that the post was changed since it was begun."),
        put("/api/v1/posts/{id}/autosave", Author(PostsAdminister), save)
            .takes(&POST_AUTOSAVE)
            .gives(&POST_AUTOSAVE)
            .body_limit(DRAFT_BYTES)
            .doc("Keeps a draft of one's own beside the post, without a version; what is left out stays."),
        delete("/api/v1/posts/{id}/autosave", Author(PostsAdminister), discard)
            .doc("Forgets one's own draft."),
        post("/api/v1/posts/{id}/autosave/apply", Author(PostsAdminister), apply)
            .gives(&POST)
            .doc("Makes a version of the draft and forgets it; what others changed meanwhile stays."),
    ]
}

async fn get_own(call: Call) -> Answer {
    let key = call.key(&POST, "id")?;
    let (draft, is_behind) = autosave::get(&call.node, &call.actor, key)?;
    let more = More::from_iter([("behind".to_owned(), Json::from(is_behind))]);
    Reply::record_with(&call, &draft, Some(&more))
}

async fn save(call: Call) -> Answer {
    let key = call.key(&POST, "id")?;
    let changes = call.changes(&POST_AUTOSAVE)?;
    Reply::record(&call, &autosave::save(&call.node, &call.actor, key, changes).await?)
}

async fn discard(call: Call) -> Answer {
    autosave::discard(&call.node, &call.actor, call.key(&POST, "id")?).await?;
    Reply::none()
}

async fn apply(call: Call) -> Answer {
    let seen = posts::get_for_writing(&call.node, &call.actor, call.key(&POST, "id")?)?;
    let expected = expected(&call, &seen)?;
    Reply::record(&call, &autosave::apply(&call.node, &call.actor, seen.key, expected).await?)
}
