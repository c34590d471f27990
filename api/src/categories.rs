//! Categories over HTTP, and sub-categories, which are categories with a parent.

use crate::call::Call;
use crate::list::ListQuery;
use crate::posts::expected;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show::{self, More};
use atoll_node::content::category::{self, Branch, CATEGORY, MAX_ORDERED, PARENT_ID};
use atoll_node::{Error, Permission};
use atoll_storage::query::Page;
use atoll_storage::{Field, Id, Record, Type};
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::HashMap;

use Permission::{CategoriesAdminister, CategoriesApprove, CategoriesWrite};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/categories", Public, list)
            .lists(&CATEGORY)
            .query(&["tree"])
            .doc(
                "The public sees the approved ones. Each with post_count: the public posts right under it. \
                 With tree=true all at once, those below a category in children.",
            ),
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
        post("/api/v1/categories/reorder", Can(CategoriesWrite), reorder)
            .takes_fields(REORDER)
            .gives_fields(ORDERED)
            .pages()
            .doc("Puts categories of one parent into the order of the ids."),
        post("/api/v1/categories/{id}/approve", Can(CategoriesApprove), approve)
            .gives(&CATEGORY)
            .doc("From now on the public sees it."),
        post("/api/v1/categories/{id}/reject", Can(CategoriesApprove), reject)
            .takes_fields(REJECT)
            .gives(&CATEGORY)
            .doc("The public does not see it; who proposed it reads why, and has it wait again by an edit."),
        post("/api/v1/categories/{id}/merge", Can(CategoriesAdminister), merge)
            .takes_fields(MERGE)
            .gives(&CATEGORY)
            .doc("Moves its posts and sub-categories into another one, and deletes it."),
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

const REORDER: &[Field] =
    &[Field::set(1, "ids", Type::Id).required().max(MAX_ORDERED).doc("All of one parent.")];
const ORDERED: &[Field] = &[
    Field::text(1, "id"),
    category::NAME,
    category::SLUG,
    category::PARENT_ID,
    category::POSITION,
    category::STATUS,
];
const REJECT: &[Field] = &[Field::text(1, "reason").required()];
const MERGE: &[Field] = &[Field::text(1, "into").required().doc("An id or a slug.")];

async fn list(call: Call) -> Answer {
    if call.param_as("tree")?.unwrap_or(false) {
        let tree = category::tree(&call.node, &call.actor)?;
        let counts = category::post_counts(&call.node, call.tenant(), &keys_of(&tree))?;
        let shown = tree.iter().map(|branch| shown(&call, branch, &counts));
        return Reply::data(shown.collect::<Result<Vec<_>, _>>()?);
    }
    let query = call.query(&CATEGORY, &[])?.sorted_by("position", false);
    let page = category::list(&call.node, &call.actor, query.to_query(call.tenant()))?;
    listed(&call, page, &query)
}

fn listed(call: &Call, page: Page, query: &ListQuery) -> Answer {
    let more = counted(call, &page.records, query.view.wants_added("post_count"))?;
    Reply::list_with(call, page, query, &more)
}

/// The count of each category, if it is wanted.
fn counted(call: &Call, categories: &[Record], wanted: bool) -> Result<Vec<More>, Problem> {
    if !wanted {
        return Ok(vec![]);
    }
    let keys: Vec<Id> = categories.iter().map(|category| category.key).collect();
    let counts = category::post_counts(&call.node, call.tenant(), &keys)?;
    let one = |key: &Id| {
        let posts = counts.get(key).copied().unwrap_or(0);
        More::from_iter([("post_count".to_owned(), Json::from(posts))])
    };
    Ok(keys.iter().map(one).collect())
}

fn with_count(call: &Call, category: &Record) -> Answer {
    let wanted = call.view(&CATEGORY)?.wants_added("post_count");
    let more = counted(call, std::slice::from_ref(category), wanted)?;
    Reply::record_with(call, category, more.first())
}

fn keys_of(tree: &[Branch]) -> Vec<Id> {
    let below = |branch: &Branch| {
        let mut keys = keys_of(&branch.children);
        keys.push(branch.category.key);
        keys
    };
    tree.iter().flat_map(below).collect()
}

fn shown(call: &Call, branch: &Branch, counts: &HashMap<Id, u64>) -> Result<Json, Problem> {
    let mut value = show::value(call, &branch.category)?;
    value["post_count"] = Json::from(counts.get(&branch.category.key).copied().unwrap_or(0));
    let children = branch.children.iter().map(|child| shown(call, child, counts));
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
    listed(&call, page, &query)
}

async fn get_one(call: Call) -> Answer {
    with_count(&call, &category::get(&call.node, &call.actor, call.path("id"))?)
}

async fn get_below(call: Call) -> Answer {
    with_count(&call, &found_below(&call)?)
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejection {
    reason: String,
}

async fn reject(call: Call) -> Answer {
    let (key, form) = (call.key(&CATEGORY, "id")?, call.json::<Rejection>()?);
    Reply::record(&call, &category::reject(&call.node, &call.actor, key, form.reason).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    ids: Vec<Id>,
}

async fn reorder(call: Call) -> Answer {
    let form: Order = call.json()?;
    let ordered = category::reorder(&call.node, &call.actor, form.ids).await?;
    let rows = ordered.iter().map(|category| show::value(&call, category));
    let rows = rows.collect::<Result<Vec<Json>, _>>()?;
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Merge {
    pub into: String,
}

async fn merge(call: Call) -> Answer {
    let seen = category::get(&call.node, &call.actor, call.path("id"))?;
    let expected = expected(&call, &seen)?;
    let form: Merge = call.json()?;
    let unknown = |_| Error::field("into", "unknown_reference", "there is no such category");
    let into = category::get(&call.node, &call.actor, &form.into).map_err(unknown)?.key;
    let merged = category::merge(&call.node, &call.actor, seen.key, into, expected).await?;
    with_count(&call, &merged)
}
