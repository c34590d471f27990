//! What an operator may turn about the HTTP face. Plain values; whoever starts the server reads them from
//! its configuration.

use crate::limit::Rate;
use atoll_node::config::Config;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    /// For each signed-in user, and for each address of those who are not; a burst of 0 is no limit.
    pub usual: Rate,
    /// For sign-in and the like, and for refused tokens, an address; a burst of 0 is no limit.
    pub strict: Rate,
    /// For reading a body, and again for the handler.
    pub timeout: Duration,
    /// Where a route names no limit of its own.
    pub max_body_bytes: usize,
    /// Requests in work at once; beyond them the answer is 503.
    pub max_requests: usize,
    /// Open event streams at most.
    pub max_streams: usize,
    /// Files that are received at once; beyond them the answer is 503.
    pub max_uploads: usize,
    /// Open connections at most; more wait until one closes.
    pub max_connections: usize,
    /// Open connections of one address at most, if no proxy stands in front; 0 is no limit.
    pub max_connections_a_peer: usize,
    /// Origins whose pages may call the API; `*` is any. Credentials never travel by cookie.
    pub cors_origins: Vec<String>,
    /// How many proxies stand in front, whose `X-Forwarded-For` is believed.
    pub proxies: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}

impl Options {
    pub fn of(config: &Config) -> Self {
        let limits = &config.limits;
        let burst = if limits.rate == 0 { 0 } else { limits.burst };
        Self {
            usual: Rate { per_second: f64::from(limits.rate), burst },
            strict: Rate {
                per_second: f64::from(limits.sign_ins_per_minute) / 60.0,
                burst: limits.sign_ins_per_minute,
            },
            timeout: Duration::from_secs(limits.request_timeout_s),
            max_body_bytes: limits.body_bytes,
            max_requests: limits.requests,
            max_streams: 1_000,
            max_uploads: 8,
            max_connections: 8_192,
            max_connections_a_peer: if limits.proxies == 0 { 1_024 } else { 0 },
            cors_origins: config.cors_origins.iter().map(str::to_owned).collect(),
            proxies: limits.proxies,
        }
    }
}
