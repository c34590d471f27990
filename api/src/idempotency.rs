//! `Idempotency-Key` on POST: the first answer is kept and given again. Never kept: failures of the node,
//! refusals that may pass, and answers of routes that guard a secret. A key is noted before its request runs: if
//! the node ends in between, a repeat is told that nobody knows, and does not do it a second time.

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::{Content, Reply};
use crate::route::Answer;
use atoll_node::Node;
use atoll_storage::idempotency::{self, Stored};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

const HEADER: &str = "idempotency-key";
const MAX_KEY_CHARS: usize = 255;
/// Larger answers are not kept. No POST gives one.
const MAX_KEPT_BYTES: usize = 1 << 20;
const KEPT: [HeaderName; 3] = [CONTENT_TYPE, LOCATION, ETAG];
/// Stands for the answer of a request that has begun.
const BEGUN: u16 = 0;
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The requests under a key that run now.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<HashSet<[u8; 32]>>>);

/// The right to run under a key; given back when dropped.
pub(crate) struct Ticket {
    running: Running,
    name: [u8; 32],
    scope: Vec<u8>,
    key: String,
    request_hash: [u8; 32],
}

pub(crate) enum Turn {
    /// No key.
    Plain,
    First(Ticket),
    Repeat(Reply),
}

/// # Errors
/// 400 for a bad key, 409 while the first request runs, 422 if the first had another body.
pub(crate) fn begin(call: &Call, running: &Running) -> Result<Turn, Problem> {
    let Some(value) = call.headers.get(HEADER) else { return Ok(Turn::Plain) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY_CHARS);
    let key = key.ok_or_else(|| {
        Problem::malformed("Idempotency-Key must be 1 to 255 visible ASCII characters")
    })?;
    let scope = scope_of(call);
    let name = hash(&[&scope, key.as_bytes()]);
    let request_hash = hash(&[call.uri.query().unwrap_or_default().as_bytes(), &call.body]);
    let is_new = running.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    if !is_new {
        let message = "a request with this Idempotency-Key is still running: try again shortly";
        return Err(
            Problem::new(StatusCode::CONFLICT, "idempotency_running", message).retry_after(1)
        );
    }
    let ticket =
        Ticket { running: running.clone(), name, scope, key: key.to_owned(), request_hash };
    match load(&call.node, &ticket.scope, &ticket.key)? {
        None => Ok(Turn::First(ticket)),
        Some(stored) if stored.request_hash == ticket.request_hash && stored.status == BEGUN => {
            let message = "the first request under this Idempotency-Key was cut off, and it may have been done or not: look, and if it was not, repeat it under a new key";
            Err(Problem::new(StatusCode::CONFLICT, "idempotency_unknown", message))
        }
        Some(stored) if stored.request_hash == ticket.request_hash => {
            Ok(Turn::Repeat(thaw(stored)))
        }
        Some(_) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "this Idempotency-Key was used with another body: use a new one",
        )),
    }
}

/// A key belongs to its user (or, of a stranger, to the address), tenant and path.
fn scope_of(call: &Call) -> Vec<u8> {
    let mut scope = call.actor.tenant.0.to_vec();
    match (call.actor.user, call.peer) {
        (Some(user), _) => scope.extend_from_slice(&user.0),
        (None, Some(peer)) => scope.extend_from_slice(peer.to_string().as_bytes()),
        (None, None) => {}
    }
    scope.extend_from_slice(call.uri.path().as_bytes());
    scope
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// How a request under a key ended.
pub(crate) enum End {
    /// A repeat gets this answer.
    Kept(Stored),
    /// Nothing was done: a repeat is as the first.
    Unused,
    /// Nobody knows: the key stays noted.
    Unknown,
}

impl Ticket {
    /// The answer as it is kept, if a repeat shall get it.
    fn frozen(&self, reply: &Reply) -> Option<Stored> {
        let Content::Whole(body) = &reply.content else { return None };
        let request_hash = self.request_hash;
        let is_kept = is_final(reply.status) && body.len() <= MAX_KEPT_BYTES;
        is_kept.then(|| Stored {
            request_hash,
            status: reply.status.as_u16(),
            body: freeze(reply, body),
        })
    }

    /// Notes that the request runs from now on.
    pub(crate) async fn note(&self, node: &Node) -> Result<(), Problem> {
        let request_hash = self.request_hash;
        let begun = Stored { request_hash, status: BEGUN, body: Vec::new() };
        Ok(save(node, &self.scope, &self.key, begun).await?)
    }

    /// What becomes of the key after this answer.
    pub(crate) fn end(&self, answer: &Answer) -> End {
        match answer {
            // It may still do its work.
            Err(problem) if problem.code() == "timeout" => End::Unknown,
            Err(_) => End::Unused,
            Ok(reply) => self.frozen(reply).map_or(End::Unused, End::Kept),
        }
    }

    pub(crate) async fn settle(self, node: &Node, end: End) {
        let done = match end {
            End::Kept(stored) => save(node, &self.scope, &self.key, stored).await,
            End::Unused => forget(node, &self.scope, &self.key).await,
            End::Unknown => return,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "an answer was not kept: a repeat under its Idempotency-Key is told that nobody knows");
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn is_final(status: StatusCode) -> bool {
    let may_pass = matches!(status.as_u16(), 401 | 403 | 404 | 408 | 409 | 412 | 429);
    !status.is_server_error() && !may_pass
}

/// The kept headers, one a line, an empty line, the body.
fn freeze(reply: &Reply, body: &Bytes) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 200);
    let content_type = [(CONTENT_TYPE, reply.content_type.clone())];
    for (name, value) in content_type.iter().chain(&reply.headers) {
        if KEPT.contains(name) {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes
}

fn thaw(stored: Stored) -> Reply {
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
    let bytes = Bytes::from(stored.body);
    let mut reply = Reply::whole(status, crate::reply::JSON, Bytes::new());
    let mut at = 0;
    while let Some(len) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[at..at + len];
        at += len + 1;
        if line.is_empty() {
            break;
        }
        let Some(blank) = line.iter().position(|byte| *byte == b' ') else { continue };
        let name = HeaderName::from_bytes(&line[..blank]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[blank + 1..])) {
            if name == CONTENT_TYPE {
                reply.content_type = value;
            } else {
                reply.headers.push((name, value));
            }
        }
    }
    reply.content = Content::Whole(bytes.slice(at..));
    reply.header(REPLAYED, "true")
}

fn load(node: &Node, scope: &[u8], key: &str) -> Result<Option<Stored>, Problem> {
    Ok(node.store.read(|reader| idempotency::find(reader, scope, key))?)
}

async fn save(
    node: &Node,
    scope: &[u8],
    key: &str,
    stored: Stored,
) -> Result<(), atoll_storage::Error> {
    let (scope, key) = (scope.to_vec(), key.to_owned());
    node.store.write(move |tx| idempotency::put(tx, &scope, &key, &stored)).await
}

async fn forget(node: &Node, scope: &[u8], key: &str) -> Result<(), atoll_storage::Error> {
    let (scope, key) = (scope.to_vec(), key.to_owned());
    node.store.write(move |tx| idempotency::remove(tx, &scope, &key)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_answer_reads_back_with_its_headers() {
        let reply = Reply::whole(StatusCode::CREATED, crate::reply::JSON, "{\"a\":\n1}");
        let reply = reply.header(LOCATION, "/api/v1/posts/x").header(REPLAYED, "left out");
        let Content::Whole(body) = &reply.content else { return };
        let body = freeze(&reply, body);
        let again = thaw(Stored { request_hash: [0; 32], status: 201, body });
        assert_eq!((again.status, &again.content_type), (StatusCode::CREATED, &reply.content_type));
        assert_eq!(again.headers[0].1, "/api/v1/posts/x");
        assert_eq!(again.headers[1].1, "true");
        assert!(matches!(&again.content, Content::Whole(body) if body == "{\"a\":\n1}"));
    }

    #[test]
    fn only_final_answers_are_kept() {
        let kept = [200, 201, 422]
            .map(|status| is_final(StatusCode::from_u16(status).unwrap_or_default()));
        let lost = [401, 409, 429, 500, 503]
            .map(|status| is_final(StatusCode::from_u16(status).unwrap_or_default()));
        assert_eq!((kept, lost), ([true; 3], [false; 5]));
    }
}
