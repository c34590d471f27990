//! The bucket as an S3-compatible store: what the product's client asks for is answered with a status and bytes, page by page
//! and piece by piece, and as badly as stores and networks do. Others come in between any two requests, so also between two pages
//! of a list.

use super::reached::Reached;
use crate::rng::Rng;
use atoll_node::bucket::{Access, Answer, Obstacle, Place as _, Request, Trouble, Wire};
use atoll_node::percent;
use atoll_sync::bucket::Listed;
use std::collections::VecDeque;
use std::fmt::Write as _;

type Result<T> = std::result::Result<T, Trouble>;

pub const BUCKET: &str = "reef";
pub const PREFIX: &str = "tide pool/";

pub fn access() -> Access {
    Access {
        endpoint: "https://store.example:9000/s3".into(),
        region: "reef-1".into(),
        key_id: "AKIDTIDE".into(),
        secret_key: "SECRET-of-the-tide-pool".into(),
        session_token: String::new(),
    }
}

/// What becomes of a request that does not go well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing is done, and nothing is answered.
    Unsent,
    /// It is done, and the answer is lost.
    Unheard,
    /// Whoever asked waits in vain; it is done some time later.
    Late,
    /// Nothing is done, and the store says that it is busy.
    Busy,
    /// It is done, and the store says that something went wrong.
    Ill,
    /// The answer ends in the middle.
    Cut,
}

const FAULTS: [Fault; 6] =
    [Fault::Unsent, Fault::Unheard, Fault::Late, Fault::Busy, Fault::Ill, Fault::Cut];

/// As the client has it: what came, and whether the rest will.
struct Coming {
    status: u16,
    pieces: VecDeque<Vec<u8>>,
    is_cut: bool,
}

impl Coming {
    fn of(status: u16, body: Vec<u8>, dice: &mut Rng) -> Self {
        let mut pieces = VecDeque::new();
        let mut rest = &body[..];
        while !rest.is_empty() {
            let most = rest.len().min(1 << 18);
            let at = if dice.percent(70) { most } else { 1 + dice.below(most) };
            pieces.push_back(rest[..at].to_vec());
            rest = &rest[at..];
        }
        Self { status, pieces, is_cut: false }
    }

    fn cut(mut self, dice: &mut Rng) -> Self {
        self.is_cut = true;
        if let Some(mut last) = self.pieces.pop_back() {
            last.truncate(dice.below(last.len()));
            self.pieces.push_back(last);
            self.pieces.truncate(1 + dice.below(self.pieces.len()));
        }
        self
    }
}

impl Answer for Coming {
    fn status(&self) -> u16 {
        self.status
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match self.pieces.pop_front() {
            None if self.is_cut => Err(lost("the connection was closed in an answer")),
            piece => Ok(piece),
        }
    }
}

fn lost(why: &str) -> Trouble {
    Trouble::new(Obstacle::Offline, format!("the store is not reached: {why}"))
}

fn error(status: u16, code: &str) -> (u16, Vec<u8>) {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>It is so.</Message></Error>"
    );
    (status, body.into_bytes())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What is asked for: a page of the list, or an object by its name below the prefix.
enum Asked {
    Page(Option<String>),
    Object(String),
    Nothing,
}

fn asked(request: &Request) -> Asked {
    let path = percent::decode(&request.path, false).unwrap_or_default();
    let Some(key) = path.strip_prefix(&format!("/s3/{BUCKET}")) else { return Asked::Nothing };
    if let Some(name) = key.strip_prefix('/').and_then(|key| key.strip_prefix(PREFIX)) {
        return Asked::Object(name.to_owned());
    }
    let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    let of = |wanted: &str| {
        let mut pairs = pairs.clone().filter(|(name, _)| *name == wanted);
        pairs.next().and_then(|(_, value)| percent::decode(value, false))
    };
    let is_list =
        of("list-type").as_deref() == Some("2") && of("prefix").as_deref() == Some(PREFIX);
    if key.is_empty() && is_list { Asked::Page(of("continuation-token")) } else { Asked::Nothing }
}

/// A signature and the hash of the body are there; whether they are right, other tests see.
fn is_signed(request: &Request) -> bool {
    let has = |wanted: &str| {
        request.headers.iter().any(|(name, value)| *name == wanted && !value.is_empty())
    };
    ["host", "authorization", "x-amz-date", "x-amz-content-sha256"].into_iter().all(has)
}

/// `bytes=0-` and the last one.
fn most_of(request: &Request) -> Option<usize> {
    let (_, range) = request.headers.iter().find(|(name, _)| *name == "range")?;
    range.strip_prefix("bytes=0-")?.parse::<usize>().ok()?.checked_add(1)
}

impl Wire for &Reached<'_> {
    fn send(&self, request: Request) -> Result<Box<dyn Answer + '_>> {
        self.step(|| {
            // Those of one store are alike from the first request to the last.
            let (mut dice, fault) = {
                let mut past = self.ground.past();
                let faults = past.faults;
                let fault = past.dice.percent(faults).then(|| past.dice.pick(&FAULTS));
                (Rng::new(past.dice.number()), fault)
            };
            self.failed.set(self.failed.get() + u64::from(fault.is_some()));
            match fault {
                Some(Fault::Unsent) => return Err(lost("no connection")),
                Some(Fault::Late) => return Err(self.give_up(&request)),
                Some(Fault::Busy) => {
                    let (status, body) = error(503, "SlowDown");
                    return Ok(Box::new(Coming::of(status, body, &mut dice)) as Box<dyn Answer>);
                }
                _ => {}
            }
            let (status, body) = self.answer(&request)?;
            let (status, body) = if fault == Some(Fault::Ill) {
                error(500, "InternalError")
            } else {
                (status, body)
            };
            let coming = Coming::of(status, body, &mut dice);
            match fault {
                Some(Fault::Unheard) => Err(lost("the connection was closed")),
                // Of an answer without a body, its beginning is all.
                Some(Fault::Cut) if coming.pieces.is_empty() => {
                    Err(lost("the connection was closed"))
                }
                Some(Fault::Cut) => Ok(Box::new(coming.cut(&mut dice)) as Box<dyn Answer>),
                _ => Ok(Box::new(coming) as Box<dyn Answer>),
            }
        })
    }
}

impl Reached<'_> {
    fn give_up(&self, request: &Request) -> Trouble {
        if let Asked::Object(name) = asked(request) {
            match request.method {
                "PUT" => self.ground.do_late(&name, Some(request.body.clone())),
                "DELETE" => self.ground.do_late(&name, None),
                _ => {}
            }
        }
        lost("no answer in time")
    }

    fn answer(&self, request: &Request) -> Result<(u16, Vec<u8>)> {
        if !is_signed(request) {
            return Ok(error(403, "AccessDenied"));
        }
        Ok(match (request.method, asked(request)) {
            ("GET", Asked::Page(token)) => (200, self.page(token.as_deref())?),
            ("GET", Asked::Object(name)) => self.object(&name, most_of(request))?,
            ("PUT", Asked::Object(name)) => {
                self.ground.put(&name, request.body.clone())?;
                (200, vec![])
            }
            ("DELETE", Asked::Object(name)) => {
                let was_there = self.ground.remove(&name)?;
                // Most say that it is gone, some that it never was.
                if !was_there && self.ground.is_odd {
                    error(404, "NoSuchKey")
                } else {
                    (204, vec![])
                }
            }
            _ => error(404, "NoSuchBucket"),
        })
    }

    fn object(&self, name: &str, most: Option<usize>) -> Result<(u16, Vec<u8>)> {
        let mut bytes = Vec::new();
        let is_hidden = self.ground.is_hidden(name, self.me);
        if is_hidden || !self.ground.folder.get(name, u64::MAX, &mut bytes)? {
            return Ok(error(404, "NoSuchKey"));
        }
        match most {
            Some(_) if bytes.is_empty() => Ok(error(416, "InvalidRange")),
            // Some know no ranges.
            Some(most) if !self.ground.is_odd => {
                bytes.truncate(most);
                Ok((206, bytes))
            }
            _ => Ok((200, bytes)),
        }
    }

    /// The objects behind the one that the token names.
    fn page(&self, token: Option<&str>) -> Result<Vec<u8>> {
        let mut all = self.ground.list(self.me)?;
        // The folder that a program made, which is none of ours.
        all.insert(0, Listed { name: String::new(), size_bytes: 0 });
        let from = token.map_or(0, |last| all.partition_point(|one| one.name.as_str() <= last));
        let page = &all[from..all.len().min(from + self.ground.page_objects)];
        let is_end = from + page.len() == all.len();
        let mut xml = format!(
            "<?xml version=\"1.0\"?><ListBucketResult><Name>{BUCKET}</Name><IsTruncated>{}</IsTruncated>",
            !is_end
        );
        for Listed { name, size_bytes } in page {
            let key = escaped(&format!("{PREFIX}{name}"));
            let _ = write!(xml, "<Contents><Key>{key}</Key><Size>{size_bytes}</Size></Contents>");
        }
        if let Some(last) = page.last().filter(|_| !is_end) {
            let token = escaped(&last.name);
            let _ = write!(xml, "<NextContinuationToken>{token}</NextContinuationToken>");
        }
        xml.push_str("</ListBucketResult>");
        Ok(xml.into_bytes())
    }
}
