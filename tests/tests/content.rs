//! Posts, categories and tags: over a real socket, between two nodes, and from files.

#[path = "content/apart.rs"]
mod apart;
#[path = "content/audience.rs"]
mod audience;
#[path = "content/autosave.rs"]
mod autosave;
#[path = "content/category.rs"]
mod category;
#[path = "content/import.rs"]
mod import;
#[path = "content/post.rs"]
mod post;
#[path = "content/preview.rs"]
mod preview;
#[path = "content/trash.rs"]
mod trash;
#[path = "content/version.rs"]
mod version;
#[path = "content/workflow.rs"]
mod workflow;

use atoll_tests::Client;
use serde_json::{Value as Json, json};

/// A post made of this JSON.
async fn make(client: &Client, post: Json) -> Json {
    client.post("/api/v1/posts", &post).await.expect(201).data()
}

/// A draft with this title.
async fn draft(client: &Client, title: &str) -> Json {
    make(client, json!({ "title": title, "body": "Some text." })).await
}

/// The path of a record, and what follows it.
fn at(noun: &str, record: &Json, rest: &str) -> String {
    format!("/api/v1/{noun}/{}{rest}", text(record, "id"))
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("{name} in {json}"))
}

/// The titles, names or other texts of a list, in its order.
fn all(list: &Json, name: &str) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|row| text(row, name).to_owned()).collect()
}
