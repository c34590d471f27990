//! Buckets as commands ask for them and as answers tell of them.

use crate::failure::{Failure, Outcome};
use atoll_api::moment::Moment;
use atoll_node::bucket::{self, Access, NewBucket, Obstacle, Standing};
use atoll_node::{Actor, Node};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// Not to be printed: it holds keys.
#[derive(Clone, Serialize, Deserialize)]
pub struct Asked {
    pub url: String,
    pub name: String,
    pub access: Access,
    pub is_open: bool,
}

fn whole() -> Actor {
    Actor::system(atoll_storage::Id::NIL)
}

pub async fn add(node: &Arc<Node>, asked: Asked) -> Outcome<Json> {
    let Asked { url, name, access, is_open } = asked;
    let added = bucket::add(node, &whole(), NewBucket { url, name, access, is_open }).await?;
    Ok(json!({ "bucket": added.name, "open": is_open, "not_reached": added.not_reached }))
}

pub fn list(node: &Node) -> Outcome<Vec<Standing>> {
    Ok(bucket::list(node, &whole())?)
}

/// With the columns of a node among peers, and more.
pub fn json(standing: &Standing) -> Json {
    let mut row = json!({
        "bucket": true,
        "name": standing.name,
        "address": standing.url,
        "endpoint": standing.endpoint,
        "open": standing.is_open,
        "state": standing.state(),
        "contact_at": standing.contact_ms.map(|ms| Moment::of(ms).to_string()),
        "obstacle": standing.obstacle.map(Obstacle::name),
        "reason": standing.reason,
        "advice": standing.obstacle.map(Obstacle::advice),
        "next_s": standing.next_s,
        "taken": standing.taken,
        "left": standing.left,
    });
    if let Some(found) = &standing.found {
        let member = |seen: &bucket::Seen| {
            json!({
                "node": seen.node.to_string(),
                "name": seen.name,
                "lacks_ops": seen.lacks_ops,
                "differs_in": seen.differs_in,
                "carries": (!seen.carries.is_everything()).then(|| seen.carries.to_string()),
                "lacks_files": seen.lacks_files,
                "absent": seen.is_absent,
            })
        };
        let refused =
            |(object, reason): &(String, String)| json!({ "object": object, "reason": reason });
        row["members"] = found.members.iter().map(member).collect();
        row["objects"] = found.objects.into();
        row["own_objects"] = found.own_objects.into();
        row["size_bytes"] = found.size_bytes.into();
        row["waiting"] = found.waiting.into();
        row["refused"] = found.refused.iter().map(refused).collect();
        row["foreign"] = json!(found.foreign);
        row["files_asked"] = found.files_asked.into();
        row["files_taken"] = found.files_taken.into();
        let left_out =
            |(file, reason): &(String, String)| json!({ "file": file, "reason": reason });
        row["files_left_out"] = found.files_left_out.iter().map(left_out).collect();
        row["parcels"] = found.parcels.into();
    }
    row
}

/// Those whose last visit failed, with the reason.
pub fn late(node: &Node) -> Outcome<Vec<String>> {
    let late = list(node)?.into_iter().filter(|one| one.obstacle.is_some());
    Ok(late.map(|one| format!("{}: {}", one.name, one.reason)).collect())
}

pub async fn remove(node: &Node, named: &str) -> Outcome<Option<Json>> {
    match bucket::remove(node, &whole(), named).await {
        Ok(name) => Ok(Some(json!({ "removed": name, "name": name, "bucket": true }))),
        Err(atoll_node::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(Failure::from(error)),
    }
}
