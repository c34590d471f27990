//! Requests go over the network, by the client that sign-in providers are asked with.

use super::{Answer, Request, Wire};
use crate::bucket::trouble::{Obstacle, Result, Trouble};
use crate::runtime::Stop;
use reqwest::{Client, Method, Response, Url};
use std::error::Error as _;
use std::time::Duration;
use tokio::runtime::Handle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte from the store.
const SILENCE: Duration = Duration::from_secs(60);

pub struct Http {
    client: Client,
    base: Url,
    /// As it was given, for people.
    endpoint: String,
    handle: Handle,
    stop: Option<Stop>,
}

impl Http {
    pub fn new(endpoint: &str, stop: Option<Stop>, handle: Handle) -> Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("atoll/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Trouble::new(Obstacle::Other, format!("no HTTP client: {error}")))?;
        let base = Url::parse(endpoint).map_err(|_| super::no_address(endpoint))?;
        Ok(Self { client, base, endpoint: endpoint.to_owned(), handle, stop })
    }

    /// Waits for what comes, unless the node is stopped meanwhile.
    fn wait<T>(&self, work: impl Future<Output = Result<T, reqwest::Error>>) -> Result<T> {
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
                done = work => done.map_err(|error| self.not_reached(error)),
            }
        })
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
        let message = format!("the store at {} is not reached: {why}", self.endpoint);
        Trouble::new(Obstacle::Offline, message)
    }
}

impl Wire for Http {
    fn send(&self, request: Request) -> Result<Box<dyn Answer + '_>> {
        let method = Method::from_bytes(request.method.as_bytes());
        let method = method.map_err(|error| Trouble::new(Obstacle::Other, error.to_string()))?;
        let mut url = self.base.clone();
        url.set_path(&request.path);
        url.set_query((!request.query.is_empty()).then_some(&request.query));
        let mut sent = self.client.request(method, url);
        for (name, value) in request.headers.iter().filter(|(name, _)| *name != "host") {
            sent = sent.header(*name, value);
        }
        let response = self.wait(sent.body(request.body).send())?;
        Ok(Box::new(Answered { http: self, response }))
    }
}

struct Answered<'h> {
    http: &'h Http,
    response: Response,
}

impl Answer for Answered<'_> {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.http.wait(self.response.chunk())?.map(Vec::from))
    }
}
