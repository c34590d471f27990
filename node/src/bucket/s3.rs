//! A bucket of an S3-compatible store: four requests (list, get, put, delete), signed here and sent by the client that
//! sign-in providers are asked with. The bucket stands in the path, which every such store takes.

mod answer;
mod sign;

use super::folder::too_many;
use super::location::Access;
use super::place::Place;
use super::trouble::{Obstacle, Result, Trouble};
use crate::runtime::Stop;
use answer::Refusal;
use atoll_storage::{Clock, NodeId};
use atoll_sync::bucket::{Listed, MAX_OBJECTS};
use reqwest::{Client, Method, Response, Url};
use sign::{Keys, Unsigned};
use std::error::Error as _;
use std::io::Write;
use std::time::Duration;
use tokio::runtime::Handle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte from the store.
const SILENCE: Duration = Duration::from_secs(60);
/// Of a page, or of an error.
const MAX_TEXT_BYTES: usize = 8 << 20;
const MAX_PAGES: usize = MAX_OBJECTS;

pub struct S3 {
    client: Client,
    handle: Handle,
    clock: Clock,
    stop: Option<Stop>,
    access: Access,
    bucket: String,
    prefix: String,
}

/// What is asked of the store.
#[derive(Default)]
struct Ask<'a> {
    method: Method,
    /// Below the bucket.
    key: &'a str,
    query: &'a [(&'a str, &'a str)],
    range: Option<String>,
    body: Vec<u8>,
}

impl S3 {
    pub fn new(
        access: Access,
        bucket: &str,
        prefix: &str,
        clock: Clock,
        stop: Option<Stop>,
        handle: Handle,
    ) -> Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("atoll/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Trouble::new(Obstacle::Other, format!("no HTTP client: {error}")))?;
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Self { client, handle, clock, stop, access, bucket, prefix })
    }

    /// Waits for an answer, unless the node is stopped meanwhile.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut stop = self.stop.clone();
        let stopped = async {
            match &mut stop {
                Some(stop) => stop.stopped().await,
                None => std::future::pending().await,
            }
        };
        self.handle.block_on(async {
            tokio::select! {
                () = stopped => Err(Trouble::stopped()),
                done = work => done,
            }
        })
    }

    async fn send(&self, ask: Ask<'_>) -> Result<Response> {
        let Access { endpoint, region, key_id, secret_key, session_token } = &self.access;
        let broken =
            || Trouble::new(Obstacle::Other, format!("{endpoint} is no address of a store"));
        let base = Url::parse(endpoint).map_err(|_| broken())?;
        let host = base.host_str().ok_or_else(broken)?;
        let host = base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = format!(
            "{}/{}",
            base.path().trim_end_matches('/'),
            sign::path_of(&[self.bucket.as_str(), ask.key].join("/"))
        );
        let path = if ask.key.is_empty() { path.trim_end_matches('/') } else { path.as_str() };
        let time = sign::time_of(self.clock.now_ms());
        let hash = sign::hash_of(&ask.body);
        let mut headers = vec![("host", host.as_str())];
        headers.extend(ask.range.as_deref().map(|range| ("range", range)));
        headers.push(("x-amz-content-sha256", &hash));
        headers.push(("x-amz-date", &time));
        if !session_token.is_empty() {
            headers.push(("x-amz-security-token", session_token));
        }
        let unsigned = Unsigned {
            method: ask.method.as_str(),
            path,
            query: ask.query,
            headers: &headers,
            body_hash: &hash,
        };
        let keys = Keys { id: key_id, secret: secret_key, region };
        let authorization = sign::authorization(&unsigned, &keys, &time);
        let mut url = base.clone();
        url.set_path(path);
        let query = sign::query_of(ask.query);
        url.set_query((!query.is_empty()).then_some(&query));
        let mut request = self.client.request(ask.method, url);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, *value);
        }
        let request = request.header("authorization", authorization).body(ask.body);
        request.send().await.map_err(|error| self.not_reached(error))
    }

    fn not_reached(&self, error: reqwest::Error) -> Trouble {
        let error = error.without_url();
        let mut deepest = error.source();
        while let Some(source) = deepest.and_then(|error| error.source()) {
            deepest = Some(source);
        }
        let why = match deepest {
            _ if error.is_timeout() => "no answer in time".to_owned(),
            Some(deepest) => deepest.to_string(),
            None => error.to_string(),
        };
        let message = format!("the store at {} is not reached: {why}", self.access.endpoint);
        Trouble::new(Obstacle::Offline, message)
    }

    async fn text(&self, mut response: Response) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(more) = response.chunk().await.map_err(|error| self.not_reached(error))? {
            if bytes.len() + more.len() > MAX_TEXT_BYTES {
                return Err(Trouble::new(Obstacle::Other, "the store's answer is too long"));
            }
            bytes.extend_from_slice(&more);
        }
        Ok(bytes)
    }

    async fn refusal(&self, response: Response) -> Result<Refusal> {
        let status = response.status().as_u16();
        Ok(Refusal::of(status, &self.text(response).await?))
    }

    fn told(&self, refusal: &Refusal) -> Trouble {
        refusal.trouble(&self.bucket, &self.access.endpoint, self.clock.now_ms())
    }

    async fn page(&self, token: Option<&str>) -> Result<answer::Page> {
        let mut query = vec![("list-type", "2"), ("prefix", self.prefix.as_str())];
        query.extend(token.map(|token| ("continuation-token", token)));
        let response = self.send(Ask { query: &query, ..Ask::default() }).await?;
        if !response.status().is_success() {
            return Err(self.told(&self.refusal(response).await?));
        }
        let text = self.text(response).await?;
        answer::page(&text).ok_or_else(|| {
            let message = format!("{} does not answer as an S3 store does", self.access.endpoint);
            Trouble::new(Obstacle::Other, message)
        })
    }

    async fn done(&self, response: Response) -> Result<()> {
        if response.status().is_success() {
            return Ok(());
        }
        Err(self.told(&self.refusal(response).await?))
    }
}

impl Place for S3 {
    /// Asks for the beginning of the list: enough to know that it can be read.
    fn begin(&self) -> Result<()> {
        self.wait(self.page(None)).map(|_| ())
    }

    fn list(&self) -> Result<Vec<Listed>> {
        self.wait(async {
            let (mut all, mut token) = (Vec::new(), None);
            for _ in 0..MAX_PAGES {
                let page = self.page(token.as_deref()).await?;
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
        })
    }

    fn get(&self, name: &str, most: u64, to: &mut dyn Write) -> Result<bool> {
        let key = format!("{}{name}", self.prefix);
        self.wait(async {
            let range = Some(format!("bytes=0-{}", most.saturating_sub(1)));
            let mut response = self.send(Ask { key: &key, range, ..Ask::default() }).await?;
            if response.status().as_u16() == 416 {
                // It is empty: no range is in it.
                return Ok(true);
            }
            if !response.status().is_success() {
                let refusal = self.refusal(response).await?;
                let is_gone = refusal.status == 404 && refusal.code != "NoSuchBucket";
                return if is_gone { Ok(false) } else { Err(self.told(&refusal)) };
            }
            let mut left = most;
            while let Some(more) =
                response.chunk().await.map_err(|error| self.not_reached(error))?
            {
                // A store may know no ranges.
                let more = &more[..more.len().min(left as usize)];
                to.write_all(more).map_err(|error| Trouble::here(&error))?;
                left -= more.len() as u64;
                if left == 0 {
                    break;
                }
            }
            Ok(true)
        })
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let key = format!("{}{name}", self.prefix);
        self.wait(async {
            let ask = Ask { method: Method::PUT, key: &key, body: bytes, ..Ask::default() };
            self.done(self.send(ask).await?).await
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        let key = format!("{}{name}", self.prefix);
        self.wait(async {
            let ask = Ask { method: Method::DELETE, key: &key, ..Ask::default() };
            let response = self.send(ask).await?;
            if response.status().as_u16() == 404 {
                return Ok(());
            }
            self.done(response).await
        })
    }

    /// What did not come to its end is no object there.
    fn clear(&self, _: NodeId) -> Result<()> {
        Ok(())
    }
}
