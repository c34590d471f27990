//! Categories over HTTP, and sub-categories, which are categories with a parent.

use crate::call::Call;
use crate::posts::expected;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show;
use atoll_node::content::category::{self, Branch, CATEGORY, PARENT_ID};
use atoll_node::{Error, Permission};
use atoll_storage::{Id, Record};
use serde_json::Value as Json;

use Permission::{CategoriesAdminister, CategoriesApprove, CategoriesWrite};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/categories", Public, list)
            .lists(&CATEGORY)
            .query(&["tree"])
            .doc("The public sees the approved ones. With tree=true all at once, those below a category in children."),
        post("/api/v1/categories", Can(CategoriesWrite), create)
            .takes(&CATEGORY)
            .gives(&CATEGORY)
            .doc("It is pending until it is approved."),
        get("/api/v1/categories/{id}", Public, get_one).gives(&CATEGORY).doc("By id or slug."),
        put("/api/v1/categories/{id}", Can(CategoriesWrite), edit)
            .takes(&CATEGORY)
            .gives(&CATEGORY)
            .doc("By id or slug; what is left out stays."),
        delete("/api/v1/categories/{id}", Can(CategoriesAdminister), remove)
            .query(&["reassign_to"])
            .doc("Refused while posts or sub-categories use it, unless reassign_to names where they go."),
        post("/api/v1/categories/{id}/approve", Can(CategoriesApprove), approve)
            .gives(&CATEGORY)
            .doc("From now on the public sees it."),
        get("/api/v1/sub-categories", Public, list_below)
            .lists(&CATEGORY)
            .query(&["category"])
            .doc("Categories that have a parent; with category=, an id or a slug, those right below it."),
        post("/api/v1/sub-categories", Can(CategoriesWrite), create_below)
            .takes(&CATEGORY)
            .gives(&CATEGORY)
            .doc("As a category, but parent_id is required."),
        get("/api/v1/sub-categories/{id}", Public, get_below).gives(&CATEGORY).doc("By id or slug."),
        put("/api/v1/sub-categories/{id}", Can(CategoriesWrite), edit_below)
            .takes(&CATEGORY)
            .gives(&CATEGORY)
            .doc("By id or slug; what is left out stays."),
        delete("/api/v1/sub-categories/{id}", Can(CategoriesAdminister), remove_below)
            .query(&["reassign_to"])
            .doc("As for a category."),
    ]
}

async fn list(call: Call) -> Answer {
    if call.param_as("tree")?.unwrap_or(false) {
        let tree = category::tree(&call.node, &call.actor)?;
        return Reply::data(
            tree.iter().map(|branch| shown(&call, branch)).collect::<Result<Vec<_>, _>>()?,
        );
    }
    let query = call.query(&CATEGORY, &[])?.sorted_by("position", false);
    let page = category::list(&call.node, &call.actor, query.to_query(call.tenant()))?;
    Reply::list(&call, page, &query)
}

fn shown(call: &Call, branch: &Branch) -> Result<Json, Problem> {
    let mut value = show::value(call, &branch.category)?;
    let children = branch.children.iter().map(|child| shown(call, child));
    value["children"] = Json::Array(children.collect::<Result<_, _>>()?);
    Ok(value)
}

async fn list_below(call: Call) -> Answer {
    let query = call.query(&CATEGORY, &[])?.sorted_by("position", false);
    let below = query.to_query(call.tenant());
    let below = match call.param("category") {
        Some(name) => below.filter("parent_id", category::get(&call.node, &call.actor, name)?.key),
        None => below.is_not_null("parent_id"),
    };
    let page = category::list(&call.node, &call.actor, below)?;
    Reply::list(&call, page, &query)
}

async fn get_one(call: Call) -> Answer {
    Reply::record(&call, &category::get(&call.node, &call.actor, call.path("id"))?)
}

async fn get_below(call: Call) -> Answer {
    Reply::record(&call, &found_below(&call)?)
}

/// The category of the path, if it has a parent.
fn found_below(call: &Call) -> Result<Record, Problem> {
    let category = category::get(&call.node, &call.actor, call.path("id"))?;
    if category.id(&PARENT_ID).is_some() {
        Ok(category)
    } else {
        Err(Problem::not_found("sub-category"))
    }
}

async fn create(call: Call) -> Answer {
    let changes = call.changes(&CATEGORY)?;
    let category = category::create(&call.node, &call.actor, changes).await?;
    Reply::created(&call, &category, format!("/api/v1/categories/{}", category.key))
}

async fn create_below(call: Call) -> Answer {
    let changes = call.changes(&CATEGORY)?;
    if changes.get(&PARENT_ID).is_none_or(atoll_storage::Value::is_null) {
        return Err(Error::field(PARENT_ID.name, "required", "is required").into());
    }
    let category = category::create(&call.node, &call.actor, changes).await?;
    Reply::created(&call, &category, format!("/api/v1/sub-categories/{}", category.key))
}

async fn edit(call: Call) -> Answer {
    let seen = category::get(&call.node, &call.actor, call.path("id"))?;
    edited(&call, &seen).await
}

async fn edit_below(call: Call) -> Answer {
    let seen = found_below(&call)?;
    edited(&call, &seen).await
}

async fn edited(call: &Call, seen: &Record) -> Answer {
    let expected = expected(call, seen)?;
    let changes = call.changes_to(seen)?;
    let category = category::edit(&call.node, &call.actor, seen.key, changes, expected).await?;
    Reply::record(call, &category)
}

async fn remove(call: Call) -> Answer {
    let seen = category::get(&call.node, &call.actor, call.path("id"))?;
    removed(&call, &seen).await
}

async fn remove_below(call: Call) -> Answer {
    let seen = found_below(&call)?;
    removed(&call, &seen).await
}

async fn removed(call: &Call, seen: &Record) -> Answer {
    let expected = expected(call, seen)?;
    let target = call.param("reassign_to").map(|name| target(call, name)).transpose()?;
    category::remove(&call.node, &call.actor, seen.key, target, expected).await?;
    Reply::none()
}

fn target(call: &Call, name: &str) -> Result<Id, Problem> {
    let found = category::get(&call.node, &call.actor, name);
    let unknown =
        |_| Problem::parameter("reassign_to", "unknown_reference", "there is no such category");
    found.map(|category| category.key).map_err(unknown)
}

async fn approve(call: Call) -> Answer {
    let key = call.key(&CATEGORY, "id")?;
    Reply::record(&call, &category::approve(&call.node, &call.actor, key).await?)
}
