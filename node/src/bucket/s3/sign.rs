//! The signature of a request to an S3-compatible store: AWS Signature Version 4, in the header. Over the method, the path,
//! the query, all headers given, and the hash of the body.

use crate::moment::Moment;
use crate::percent;
use aws_lc_rs::{digest, hmac};
use std::fmt::Write as _;

const SERVICE: &str = "s3";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

pub struct Unsigned<'a> {
    pub method: &'a str,
    /// Escaped.
    pub path: &'a str,
    /// Not escaped.
    pub query: &'a [(&'a str, &'a str)],
    /// In lower case, in the order of their names; the host and the time among them.
    pub headers: &'a [(&'a str, &'a str)],
    pub body_hash: &'a str,
}

pub struct Keys<'a> {
    pub id: &'a str,
    pub secret: &'a str,
    pub region: &'a str,
}

/// `20130524T000000Z`.
pub fn time_of(now_ms: u64) -> String {
    let text = Moment::of(now_ms).to_string();
    let seconds = text.split('.').next().unwrap_or_default();
    let digits: String = seconds.chars().filter(|c| !"-:".contains(*c)).collect();
    format!("{digits}Z")
}

pub fn hash_of(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// In the order in which they are signed, escaped.
pub fn query_of(query: &[(&str, &str)]) -> String {
    let escape = |(name, value): &(&str, &str)| {
        format!("{}={}", percent::encode(name), percent::encode(value))
    };
    let mut pairs: Vec<String> = query.iter().map(escape).collect();
    pairs.sort();
    pairs.join("&")
}

/// A path of an object, with its slashes.
pub fn path_of(parts: &str) -> String {
    parts.split('/').map(percent::encode).collect::<Vec<_>>().join("/")
}

/// The header `authorization`. `time` is that of `time_of`.
pub fn authorization(request: &Unsigned<'_>, keys: &Keys<'_>, time: &str) -> String {
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut canonical =
        format!("{}\n{}\n{}\n", request.method, request.path, query_of(request.query));
    for (name, value) in request.headers {
        let _ = writeln!(canonical, "{name}:{}", value.trim());
    }
    let _ = write!(canonical, "\n{names}\n{}", request.body_hash);
    let day = &time[..8.min(time.len())];
    let scope = format!("{day}/{}/{SERVICE}/aws4_request", keys.region);
    let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hash_of(canonical.as_bytes()));
    let mut key = format!("AWS4{}", keys.secret).into_bytes();
    for part in [day, keys.region, SERVICE, "aws4_request", &text] {
        let with = hmac::Key::new(hmac::HMAC_SHA256, &key);
        key = hmac::sign(&with, part.as_bytes()).as_ref().to_vec();
    }
    let signature = hex(&key);
    format!(
        "{ALGORITHM} Credential={}/{scope},SignedHeaders={names},Signature={signature}",
        keys.id
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys<'_> = Keys {
        id: "AKIAIOSFODNN7EXAMPLE",
        secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        region: "us-east-1",
    };
    const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
    const TIME: &str = "20130524T000000Z";

    fn signature(
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body_hash: &str,
    ) -> String {
        let request = Unsigned { method, path, query, headers, body_hash };
        let header = authorization(&request, &KEYS, TIME);
        header.rsplit('=').next().unwrap().to_owned()
    }

    /// The examples of "Authenticating Requests: Using the Authorization Header" in the Amazon S3 API reference.
    #[test]
    fn signatures_are_those_of_the_reference() {
        assert_eq!(time_of(1_369_353_600_000), TIME);
        let empty = hash_of(b"");
        let hash = ("x-amz-content-sha256", empty.as_str());
        let time = ("x-amz-date", TIME);
        assert_eq!(
            signature("GET", "/test.txt", &[], &[HOST, ("range", "bytes=0-9"), hash, time], &empty),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let body = hash_of(b"Welcome to Amazon S3.");
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            HOST,
            ("x-amz-content-sha256", body.as_str()),
            time,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        assert_eq!(
            signature("PUT", &path_of("/test$file.text"), &[], &headers, &body),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signature(
                "GET",
                "/",
                &[("prefix", "J"), ("max-keys", "2")],
                &[HOST, hash, time],
                &empty
            ),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }
}
