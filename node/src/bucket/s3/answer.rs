//! What an S3-compatible store answers: pages of a listing, and errors.

use crate::bucket::trouble::{Obstacle, Trouble};
use crate::moment::Moment;
use atoll_sync::bucket::Listed;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// With their whole names.
    pub objects: Vec<Listed>,
    /// Where the next page begins; none at the end.
    pub next: Option<String>,
}

/// Each element that holds text, with its parent's name.
fn each_text(xml: &[u8], mut tell: impl FnMut(&str, &str, &str)) -> Result<(), quick_xml::Error> {
    let mut reader = Reader::from_reader(xml);
    let (mut names, mut text, mut buffer): (Vec<String>, String, Vec<u8>) = Default::default();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer)? {
            Event::Start(start) => {
                names.push(String::from_utf8_lossy(start.local_name().as_ref()).into_owned());
                text.clear();
            }
            Event::Text(more) => text.push_str(&String::from_utf8_lossy(&more)),
            Event::CData(more) => text.push_str(&String::from_utf8_lossy(&more)),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(c)) => text.push(c),
                _ => {
                    let known = resolve_predefined_entity(&String::from_utf8_lossy(&name));
                    text.push_str(known.unwrap_or_default());
                }
            },
            Event::End(_) => {
                let name = names.pop().unwrap_or_default();
                tell(names.last().map_or("", String::as_str), &name, &text);
                text.clear();
            }
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

/// None if it is no listing.
pub fn page(xml: &[u8]) -> Option<Page> {
    let mut page = Page::default();
    let (mut name, mut size_bytes) = (None, 0);
    let (mut goes_on, mut is_listing) = (false, false);
    each_text(xml, |parent, element, text| match (parent, element) {
        ("Contents", "Key") => name = Some(text.to_owned()),
        ("Contents", "Size") => size_bytes = text.trim().parse().unwrap_or_default(),
        ("ListBucketResult", "Contents") => {
            if let Some(name) = name.take() {
                page.objects.push(Listed { name, size_bytes });
            }
        }
        ("ListBucketResult", "IsTruncated") => goes_on = text.trim() == "true",
        ("ListBucketResult", "NextContinuationToken") => page.next = Some(text.to_owned()),
        ("", "ListBucketResult") => is_listing = true,
        _ => {}
    })
    .ok()?;
    if !goes_on {
        page.next = None;
    }
    is_listing.then_some(page)
}

/// An answer that is no success.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: String,
    message: String,
    region: String,
    server_time: String,
}

impl Refusal {
    pub fn of(status: u16, body: &[u8]) -> Self {
        let mut refusal = Self { status, ..Self::default() };
        // What is no XML comes from a proxy; its status tells enough.
        let _ = each_text(body, |parent, element, text| {
            let text = text.trim();
            match (parent, element) {
                ("Error", "Code") => text.clone_into(&mut refusal.code),
                ("Error", "Message") => text.clone_into(&mut refusal.message),
                ("Error", "Region") => text.clone_into(&mut refusal.region),
                ("Error", "ServerTime") => text.clone_into(&mut refusal.server_time),
                _ => {}
            }
        });
        refusal.message.truncate(refusal.message.floor_char_boundary(300));
        refusal
    }

    fn obstacle(&self) -> Obstacle {
        match self.code.as_str() {
            "NoSuchBucket" => Obstacle::NoBucket,
            "RequestTimeTooSkewed" | "RequestExpired" => Obstacle::Clock,
            "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" => {
                Obstacle::Region
            }
            "QuotaExceeded" | "XMinioStorageFull" | "InsufficientCapacity" => Obstacle::FullThere,
            "SlowDown" | "InternalError" | "ServiceUnavailable" | "RequestTimeout" => {
                Obstacle::Busy
            }
            _ => match self.status {
                301 | 307 | 308 => Obstacle::Region,
                401 | 403 => Obstacle::Denied,
                404 => Obstacle::NoBucket,
                507 => Obstacle::FullThere,
                429 | 500.. => Obstacle::Busy,
                _ => Obstacle::Other,
            },
        }
    }

    /// In front of a person. Never names a key.
    pub fn trouble(&self, bucket: &str, endpoint: &str, now_ms: u64) -> Trouble {
        let obstacle = self.obstacle();
        let said = match (self.code.as_str(), self.message.as_str()) {
            ("", _) => format!("status {}", self.status),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let message = match (obstacle, self.code.as_str()) {
            (Obstacle::NoBucket, _) => {
                format!("there is no bucket {bucket} at {endpoint} ({said})")
            }
            (Obstacle::Denied, "InvalidAccessKeyId") => {
                format!("{endpoint} does not know the access key ({said})")
            }
            (Obstacle::Denied, "SignatureDoesNotMatch") => {
                format!("the secret key is not that of the access key ({said})")
            }
            (Obstacle::Denied, _) => {
                format!("{endpoint} denies access to the bucket {bucket} ({said})")
            }
            (Obstacle::Clock, _) => match Moment::parse(&self.server_time) {
                Some(there) => {
                    let off_s = now_ms.abs_diff(there.0.unsigned_abs()) / 1_000;
                    let way = if now_ms as i64 > there.0 { "ahead of" } else { "behind" };
                    format!("this machine's clock is {off_s} s {way} the store's")
                }
                None => format!("this machine's clock is not the store's ({said})"),
            },
            (Obstacle::Region, _) if !self.region.is_empty() => {
                format!("the bucket {bucket} is in the region {}", self.region)
            }
            (Obstacle::Region, _) => format!("the bucket {bucket} is in another region ({said})"),
            (Obstacle::FullThere, _) => format!("the store is full ({said})"),
            (Obstacle::Busy, _) => format!("the store is busy or ill ({said})"),
            _ => format!("the store at {endpoint} refused it ({said})"),
        };
        Trouble::new(obstacle, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_with_odd_names_and_its_end() {
        let xml = br#"<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <Name>reef</Name><Prefix>a/</Prefix><IsTruncated>true</IsTruncated>
            <Contents><Key>a/x &amp; y&#233;.txt</Key><Size>12</Size><Owner><ID>1</ID></Owner></Contents>
            <Contents><Size>7</Size><Key>a/b</Key></Contents>
            <NextContinuationToken>t+/=</NextContinuationToken></ListBucketResult>"#;
        let read = page(xml).unwrap();
        let one = |name: &str, size_bytes| Listed { name: name.to_owned(), size_bytes };
        assert_eq!(read.objects, [one("a/x & y\u{e9}.txt", 12), one("a/b", 7)]);
        assert_eq!(read.next.as_deref(), Some("t+/="));
        assert_eq!(page(b"<html><body>Please sign in</body></html>"), None);
        assert_eq!(page(b"<ListBucketResult><Contents>"), None);
    }

    #[test]
    fn errors_are_told_in_words() {
        let told = |status, body: &str| {
            Refusal::of(status, body.as_bytes()).trouble("reef", "http://store", 1_700_000_600_000)
        };
        let error = |code: &str, more: &str| {
            format!("<Error><Code>{code}</Code><Message>No.</Message>{more}</Error>")
        };
        let none = told(404, &error("NoSuchBucket", ""));
        assert_eq!(none.obstacle, Obstacle::NoBucket);
        assert_eq!(none.message, "there is no bucket reef at http://store (NoSuchBucket: No.)");
        assert_eq!(told(403, &error("AccessDenied", "")).obstacle, Obstacle::Denied);
        assert_eq!(told(403, "").obstacle, Obstacle::Denied);
        let time = "<ServerTime>2023-11-14T22:13:20Z</ServerTime>";
        let skew = told(403, &error("RequestTimeTooSkewed", time));
        assert_eq!(skew.obstacle, Obstacle::Clock);
        assert_eq!(skew.message, "this machine's clock is 600 s ahead of the store's");
        let elsewhere =
            told(400, &error("AuthorizationHeaderMalformed", "<Region>eu-north-1</Region>"));
        assert_eq!(elsewhere.message, "the bucket reef is in the region eu-north-1");
        assert_eq!(told(503, &error("SlowDown", "")).obstacle, Obstacle::Busy);
        assert_eq!(told(502, "<html>").obstacle, Obstacle::Busy);
        assert_eq!(told(507, "").obstacle, Obstacle::FullThere);
        assert_eq!(told(418, "").obstacle, Obstacle::Other);
    }
}
