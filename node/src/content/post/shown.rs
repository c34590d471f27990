//! What readers are shown of posts beside the fields: HTML, excerpts, reading time, names of authors. All of it is made
//! from the posts, and cached under the names of their texts, so that it is never older than they are.

use super::{BODY, EXCERPT, FORMAT, POST, authors};
use crate::content::render;
use crate::error::Result;
use crate::identity::user::{DISPLAY_NAME, USER, USERNAME};
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::{Id, Record, Value};
use std::collections::HashMap;

pub struct Rendered {
    pub html: String,
    /// What was written, or the first words of the body.
    pub excerpt: String,
    pub reading_minutes: usize,
}

/// `post` came with its body.
pub async fn rendered(node: &Node, post: &Record) -> Result<Rendered> {
    let (format, body) = (post.text(&FORMAT), post.body(&BODY));
    let Glance { excerpt, reading_minutes } = glance_of(post);
    let html = render::html(node, format, body.to_owned()).await?;
    Ok(Rendered { html, excerpt, reading_minutes })
}

/// What a list tells of a post.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Glance {
    /// What was written, or the first words of the body.
    pub excerpt: String,
    pub reading_minutes: usize,
}

/// The part of the cache that holds glances.
const SPACE: &str = "glance";

/// Raised whenever the same text is seen otherwise.
const GLANCE: u8 = 1;

fn glance_of(post: &Record) -> Glance {
    let body = post.body(&BODY);
    let excerpt = match post.opt_text(&EXCERPT) {
        Some(written) => written.to_owned(),
        None => render::excerpt(post.text(&FORMAT), body),
    };
    Glance { excerpt, reading_minutes: render::reading_minutes(body) }
}

fn glance_key(post: &Record) -> Vec<u8> {
    let mut key = vec![GLANCE];
    key.extend(post.body_name(&BODY).unwrap_or_default());
    key.extend_from_slice(post.text(&FORMAT).as_bytes());
    key
}

/// A glance of each post, in their order. Only texts that were not looked at before are read.
pub async fn glances(node: &Node, posts: &[Record]) -> Result<Vec<Glance>> {
    let now_ms = node.clock.now_ms();
    let kept = |post: &Record| -> Option<Glance> {
        serde_json::from_slice(&node.cache.get(SPACE, &glance_key(post), now_ms)?).ok()
    };
    let mut glances: Vec<Option<Glance>> = posts.iter().map(kept).collect();
    let missing: Vec<Id> = posts
        .iter()
        .zip(&glances)
        .filter(|(_, glance)| glance.is_none())
        .map(|(post, _)| post.key)
        .collect();
    let mut made = if missing.is_empty() { HashMap::new() } else { look(node, missing).await? };
    for (post, glance) in posts.iter().zip(&mut glances) {
        if glance.is_none()
            && let Some((key, fresh)) = made.remove(&post.key)
        {
            node.cache.put(
                SPACE,
                &key,
                &serde_json::to_vec(&fresh).unwrap_or_default(),
                None,
                now_ms,
            );
            *glance = Some(fresh);
        }
    }
    let written = |(post, glance): (&Record, Option<Glance>)| {
        let glance = glance.unwrap_or_default();
        let excerpt = post.opt_text(&EXCERPT).map_or(glance.excerpt, str::to_owned);
        Glance { excerpt, ..glance }
    };
    Ok(posts.iter().zip(glances).map(written).collect())
}

type Looked = HashMap<Id, (Vec<u8>, Glance)>;

/// Reads the texts one by one: a page of them may be long.
async fn look(node: &Node, keys: Vec<Id>) -> Result<Looked> {
    let store = node.store.clone();
    let work = move || {
        store.read(|reader| {
            let mut looked = Looked::with_capacity(keys.len());
            for key in keys {
                if let Some(post) = reader.get_full(&POST, key)? {
                    let excerpt = render::excerpt(post.text(&FORMAT), post.body(&BODY));
                    let reading_minutes = render::reading_minutes(post.body(&BODY));
                    looked.insert(key, (glance_key(&post), Glance { excerpt, reading_minutes }));
                }
            }
            Ok(looked)
        })
    };
    Ok(node.run_on_pool(work).await??)
}

/// The names of all authors of these posts that are still here, by their ids, in one query.
pub fn author_names(node: &Node, posts: &[Record]) -> Result<HashMap<Id, String>> {
    let Some(tenant) = posts.first().map(|post| post.tenant) else { return Ok(HashMap::new()) };
    let mut ids: Vec<Id> = posts.iter().flat_map(|post| authors(post)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(1_000);
    let ids = ids.into_iter().map(Value::Id).collect();
    let query = Query::of(&USER, tenant).any_of("key", ids).limit(1_000).without_total();
    let users = node.store.read(|reader| reader.list(&query))?.records;
    let name = |user: &Record| {
        let shown = user.opt_text(&DISPLAY_NAME).unwrap_or(user.text(&USERNAME));
        (user.key, shown.to_owned())
    };
    Ok(users.iter().map(name).collect())
}
