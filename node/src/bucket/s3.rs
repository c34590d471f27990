//! A bucket of an S3-compatible store: four requests (list, get, put, delete), signed here. The bucket stands in the path, which
//! every such store takes. What carries the requests is apart: the network, or the store that the simulator makes up.

mod answer;
mod http;
mod sign;

pub use http::Http;

use super::folder::too_many;
use super::location::Access;
use super::place::Place;
use super::trouble::{Obstacle, Result, Trouble};
use answer::Refusal;
use atoll_storage::{Clock, NodeId};
use atoll_sync::bucket::{Listed, MAX_OBJECTS};
use reqwest::Url;
use sign::{Keys, Unsigned};
use std::io::Write;

/// Of a page, or of an error.
const MAX_TEXT_BYTES: usize = 8 << 20;
const MAX_PAGES: usize = MAX_OBJECTS;

/// A signed request. Waits, so it is for a thread that may.
pub trait Wire {
    /// Comes back with the beginning of the answer.
    fn send(&self, request: Request) -> Result<Box<dyn Answer + '_>>;
}

pub trait Answer {
    fn status(&self) -> u16;
    /// What comes next of the body; none at its end.
    ///
    /// # Errors
    /// If the rest does not come.
    fn next(&mut self) -> Result<Option<Vec<u8>>>;
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    /// Escaped, from the root of the host on.
    pub path: String,
    /// Escaped; empty for none.
    pub query: String,
    /// In lower case, the host among them.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

pub struct S3<W> {
    wire: W,
    clock: Clock,
    access: Access,
    host: String,
    /// Before that of the bucket.
    path: String,
    bucket: String,
    prefix: String,
}

/// What is asked of the store.
#[derive(Default)]
struct Ask<'a> {
    method: &'static str,
    /// Below the bucket.
    key: &'a str,
    query: &'a [(&'a str, &'a str)],
    range: Option<String>,
    body: Vec<u8>,
}

fn no_address(endpoint: &str) -> Trouble {
    Trouble::new(Obstacle::Other, format!("{endpoint} is no address of a store"))
}

impl<W: Wire> S3<W> {
    pub fn new(access: Access, bucket: &str, prefix: &str, clock: Clock, wire: W) -> Result<Self> {
        let base = Url::parse(&access.endpoint).map_err(|_| no_address(&access.endpoint))?;
        let host = base.host_str().ok_or_else(|| no_address(&access.endpoint))?;
        let host = base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = base.path().trim_end_matches('/').to_owned();
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Self { wire, clock, access, host, path, bucket, prefix })
    }

    fn send(&self, ask: Ask<'_>) -> Result<Box<dyn Answer + '_>> {
        let Access { region, key_id, secret_key, session_token, .. } = &self.access;
        let below = sign::path_of(&[self.bucket.as_str(), ask.key].join("/"));
        let path = format!("{}/{below}", self.path);
        let path = if ask.key.is_empty() { path.trim_end_matches('/') } else { path.as_str() };
        let time = sign::time_of(self.clock.now_ms());
        let hash = sign::hash_of(&ask.body);
        let mut headers = vec![("host", self.host.as_str())];
        headers.extend(ask.range.as_deref().map(|range| ("range", range)));
        headers.push(("x-amz-content-sha256", &hash));
        headers.push(("x-amz-date", &time));
        if !session_token.is_empty() {
            headers.push(("x-amz-security-token", session_token));
        }
        let unsigned = Unsigned {
            method: ask.method,
            path,
            query: ask.query,
            headers: &headers,
            body_hash: &hash,
        };
        let keys = Keys { id: key_id, secret: secret_key, region };
        let authorization = sign::authorization(&unsigned, &keys, &time);
        let headers = headers.into_iter().map(|(name, value)| (name, value.to_owned()));
        self.wire.send(Request {
            method: ask.method,
            path: path.to_owned(),
            query: sign::query_of(ask.query),
            headers: headers.chain([("authorization", authorization)]).collect(),
            body: ask.body,
        })
    }

    fn told(&self, refusal: &Refusal) -> Trouble {
        refusal.trouble(&self.bucket, &self.access.endpoint, self.clock.now_ms())
    }

    fn page(&self, token: Option<&str>) -> Result<answer::Page> {
        let mut query = vec![("list-type", "2"), ("prefix", self.prefix.as_str())];
        query.extend(token.map(|token| ("continuation-token", token)));
        let mut answer = self.send(Ask { method: "GET", query: &query, ..Ask::default() })?;
        if !is_success(answer.status()) {
            return Err(self.told(&refusal(&mut *answer)?));
        }
        answer::page(&text(&mut *answer)?).ok_or_else(|| {
            let message = format!("{} does not answer as an S3 store does", self.access.endpoint);
            Trouble::new(Obstacle::Other, message)
        })
    }

    fn done(&self, mut answer: Box<dyn Answer + '_>) -> Result<()> {
        if is_success(answer.status()) {
            return Ok(());
        }
        Err(self.told(&refusal(&mut *answer)?))
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

fn refusal(answer: &mut dyn Answer) -> Result<Refusal> {
    Ok(Refusal::of(answer.status(), &text(answer)?))
}

fn text(answer: &mut dyn Answer) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(more) = answer.next()? {
        if bytes.len() + more.len() > MAX_TEXT_BYTES {
            return Err(Trouble::new(Obstacle::Other, "the store's answer is too long"));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

impl<W: Wire> Place for S3<W> {
    /// Asks for the beginning of the list: enough to know that it can be read.
    fn begin(&self) -> Result<()> {
        self.page(None).map(|_| ())
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let (mut all, mut token) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let page = self.page(token.as_deref())?;
            let below = page.objects.into_iter().filter_map(|one| {
                let name = one.name.strip_prefix(&self.prefix)?.to_owned();
                // Folders, as some programs make them.
                let is_folder = name.is_empty() || name.ends_with('/');
                (!is_folder).then_some(Listed { name, ..one })
            });
            all.extend(below);
            if all.len() > MAX_OBJECTS {
                return Err(too_many());
            }
            token = page.next;
            if token.is_none() {
                return Ok(all);
            }
        }
        Err(too_many())
    }

    fn get(&self, name: &str, most: u64, to: &mut dyn Write) -> Result<bool> {
        let key = format!("{}{name}", self.prefix);
        let range = Some(format!("bytes=0-{}", most.saturating_sub(1)));
        let ask = Ask { method: "GET", key: &key, range, ..Ask::default() };
        let mut answer = self.send(ask)?;
        if answer.status() == 416 {
            // It is empty: no range is in it.
            return Ok(true);
        }
        if !is_success(answer.status()) {
            let refusal = refusal(&mut *answer)?;
            let is_gone = refusal.status == 404 && refusal.code != "NoSuchBucket";
            return if is_gone { Ok(false) } else { Err(self.told(&refusal)) };
        }
        let mut left = most;
        while let Some(more) = answer.next()? {
            // A store may know no ranges.
            let more = &more[..more.len().min(left as usize)];
            to.write_all(more).map_err(|error| Trouble::here(&error))?;
            left -= more.len() as u64;
            if left == 0 {
                break;
            }
        }
        Ok(true)
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let key = format!("{}{name}", self.prefix);
        let ask = Ask { method: "PUT", key: &key, body: bytes, ..Ask::default() };
        self.done(self.send(ask)?)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let key = format!("{}{name}", self.prefix);
        let answer = self.send(Ask { method: "DELETE", key: &key, ..Ask::default() })?;
        if answer.status() == 404 {
            return Ok(());
        }
        self.done(answer)
    }

    /// What did not come to its end is no object there.
    fn clear(&self, _: NodeId) -> Result<()> {
        Ok(())
    }
}
