//! The name of one request, in its answer, its log lines and its problems.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::atomic::{AtomicU64, Ordering};

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const MAX_CHARS: usize = 64;

#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) fn value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes ids: a part that differs from start to start, and a count.
pub struct RequestIds {
    start: [u8; 8],
    count: AtomicU64,
}

impl RequestIds {
    pub fn new(seed: u64) -> Self {
        let mut start = [0; 8];
        hex(seed, &mut start);
        Self { start, count: AtomicU64::new(1) }
    }

    /// The id that came with the request if it is short and plain, else a new one.
    pub fn of(&self, headers: &HeaderMap) -> RequestId {
        match headers.get(HEADER) {
            Some(given) if is_sane(given.as_bytes()) => RequestId(given.clone()),
            _ => self.next(),
        }
    }

    fn next(&self) -> RequestId {
        let mut text = [b'-'; 17];
        text[..8].copy_from_slice(&self.start);
        hex(self.count.fetch_add(1, Ordering::Relaxed), &mut text[9..]);
        RequestId(HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-")))
    }
}

fn is_sane(bytes: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !bytes.is_empty() && bytes.len() <= MAX_CHARS && bytes.iter().all(plain)
}

fn hex(mut number: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_id_is_taken_over_and_any_other_is_replaced() {
        let ids = RequestIds::new(0xabcd);
        let of = |text: &str| {
            let value = HeaderValue::from_str(text).map(|value| (HEADER, value));
            ids.of(&value.into_iter().collect()).to_string()
        };
        assert_eq!(of("trace-7.a_B"), "trace-7.a_B");
        assert_eq!(of("two words"), "0000abcd-00000001");
        assert_eq!(of(&"x".repeat(65)), "0000abcd-00000002");
        assert_ne!(ids.of(&HeaderMap::new()).as_str(), ids.of(&HeaderMap::new()).as_str());
    }
}
