//! Where a bucket is, and what opens it.

use crate::error::{Error, Result};
use crate::percent;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `s3://` and `file://` addresses name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Folder(PathBuf),
    S3 {
        bucket: String,
        /// Empty, or with a slash at its end.
        prefix: String,
    },
}

/// Of an S3-compatible store.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `https://host[:port]`; empty: that of AWS in the region.
    pub endpoint: String,
    pub region: String,
    pub key_id: String,
    pub secret_key: String,
    /// Of keys that hold for a while.
    pub session_token: String,
}

/// Without the secrets.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, region, key_id, .. } = self;
        write!(f, "Access({endpoint:?}, {region:?}, {key_id:?}, ***)")
    }
}

const USUAL_REGION: &str = "us-east-1";

impl Location {
    pub fn is_location(text: &str) -> bool {
        ["s3://", "file://"].iter().any(|scheme| text.trim().starts_with(scheme))
    }

    /// Where it leads: the same for all ways of writing one place, a folder through its links, a prefix in its store.
    pub fn place(&self, access: &Access) -> String {
        match self {
            Self::Folder(path) => {
                let plain = || path.components().collect();
                let path = path.canonicalize().unwrap_or_else(|_| plain());
                format!("file://{}", path.display())
            }
            Self::S3 { bucket, prefix } => {
                let endpoint = reqwest::Url::parse(&access.endpoint);
                let endpoint =
                    endpoint.map_or_else(|_| access.endpoint.clone(), |url| url.to_string());
                format!("{endpoint} {bucket}/{prefix}")
            }
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |message: &str| Error::field("url", "malformed", message);
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("file://") {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            let path = percent::decode(path, false).filter(|path| path.starts_with('/'));
            let path = path.ok_or_else(|| {
                wrong("a folder is written as file:///path, from the root of its disk on")
            })?;
            return Ok(Self::Folder(PathBuf::from(path)));
        }
        let rest = text
            .strip_prefix("s3://")
            .ok_or_else(|| wrong("a bucket is written as s3://bucket/prefix or file:///path"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || !bucket.chars().all(fits) {
            return Err(wrong("the name of a bucket has letters, digits, dots and hyphens"));
        }
        let prefix = prefix.trim_matches('/');
        let is_odd = |part: &str| part.is_empty() || part == "." || part == "..";
        if !prefix.is_empty() && prefix.split('/').any(is_odd) {
            return Err(wrong("a part of the prefix is empty, or dots"));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
    }
}

impl Access {
    /// Fills in what is left to the usual, and refuses what cannot be.
    pub fn checked(mut self) -> Result<Self> {
        let missing = |field: &str, what: &str| {
            let message = format!(
                "{what} is missing: give --access-key-id and --secret-key-stdin, or AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY"
            );
            Error::field(field, "required", message)
        };
        if self.key_id.is_empty() {
            return Err(missing("access_key_id", "the id of the access key"));
        }
        if self.secret_key.is_empty() {
            return Err(missing("secret_key", "the secret key"));
        }
        if self.region.is_empty() {
            USUAL_REGION.clone_into(&mut self.region);
        }
        if self.endpoint.is_empty() {
            self.endpoint = format!("https://s3.{}.amazonaws.com", self.region);
        }
        self.endpoint = self.endpoint.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&self.endpoint).ok();
        let is_fit = url.is_some_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
        });
        if !is_fit {
            let message = "an endpoint is written as https://host or http://host:port";
            return Err(Error::field("endpoint", "malformed", message));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_odd_ones_refused() {
        let s3 = |bucket: &str, prefix: &str| Location::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        let read = |text: &str| Location::parse(text).unwrap();
        assert_eq!(read("s3://reef"), s3("reef", ""));
        assert_eq!(read("s3://reef/"), s3("reef", ""));
        assert_eq!(read("s3://reef.example/a/b/"), s3("reef.example", "a/b/"));
        assert_eq!(read("file:///mnt/my%20nas"), Location::Folder("/mnt/my nas".into()));
        assert_eq!(read("file://localhost/mnt"), Location::Folder("/mnt".into()));
        for odd in
            ["s3://", "s3:///a", "s3://a b", "s3://a/../b", "s3://a/b//c", "file://mnt", "reef"]
        {
            assert!(Location::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn secrets_are_not_shown_and_an_endpoint_is_one() {
        let access = Access {
            key_id: "AKIA".to_owned(),
            secret_key: "se%cret".to_owned(),
            session_token: "to%ken".to_owned(),
            ..Access::default()
        };
        let checked = access.clone().checked().unwrap();
        assert_eq!(checked.endpoint, "https://s3.us-east-1.amazonaws.com");
        let shown = format!("{checked:?}");
        assert!(!shown.contains("se%cret") && !shown.contains("to%ken"), "{shown}");
        for endpoint in ["minio:9000", "ftp://minio", "https://", "https://me:pw@minio"] {
            let access = Access { endpoint: endpoint.to_owned(), ..access.clone() };
            assert!(access.checked().is_err(), "{endpoint}");
        }
        assert!(Access { secret_key: String::new(), ..access }.checked().is_err());
    }
}
