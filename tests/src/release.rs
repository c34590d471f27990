//! A data folder as one release left it, packed with what that release told of it. It is made once a release and kept:
//! every later one must open it, tell the same, and meet others with it.

mod scene;

pub use scene::{join, stop, until_equal};

use crate::harness::{Client, TestNode};
use atoll_storage::{Clock, Id, Read};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::io::{Read as _, Write as _};
use std::path::Path;
use tempfile::TempDir;

/// What it all must fit into: the fixtures of all releases stay.
pub const MAX_BYTES: usize = 400_000;

const DATA: &str = "data";
const TOLD: &str = "told.json";
const LEVEL: i32 = 19;

/// What the release said of the folder.
#[derive(Serialize, Deserialize, Debug)]
pub struct Told {
    pub release: String,
    /// When it was said, in Unix milliseconds.
    pub made_ms: u64,
    pub tenant: Id,
    pub admin: Id,
    /// The digest over everything, after the last word of the node.
    pub root: String,
    /// How many records each stream has, by its name.
    pub streams: Vec<(String, u64)>,
    pub answers: Vec<Answered>,
}

/// An answer of the API to the administrator.
#[derive(Serialize, Deserialize, Debug)]
pub struct Answered {
    pub tenant: String,
    pub path: String,
    pub data: Json,
    /// Another node tells the same, once the two are equal.
    pub is_shared: bool,
}

/// The time as it goes on from `from_ms`.
pub fn clock_from(from_ms: u64) -> Clock {
    let begun_ms = Clock::system().now_ms();
    Clock::from_fn(move || from_ms + Clock::system().now_ms().saturating_sub(begun_ms))
}

/// Makes the folder with this release, and packs it.
///
/// # Panics
/// If the release does not do what it should, or the packed folder is larger than [`MAX_BYTES`].
pub async fn make(to: &Path) {
    let (folder, told) = scene::play().await;
    let mut tar = tar::Builder::new(vec![]);
    tar.append_dir_all(DATA, folder.path()).unwrap();
    let text = serde_json::to_vec(&told).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, TOLD, &text[..]).unwrap();
    let mut encoder = zstd::Encoder::new(vec![], LEVEL).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(&tar.into_inner().unwrap()).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() <= MAX_BYTES, "{} bytes are too many to keep", packed.len());
    std::fs::write(to, packed).unwrap();
}

/// A copy of the folder that nobody has opened yet.
///
/// # Panics
/// If the file is none of [`make`].
pub fn unpack(file: &Path) -> (TempDir, Told) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    zstd::Decoder::new(std::fs::File::open(file).unwrap())
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    let mut told = None;
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        if path == Path::new(TOLD) {
            told = Some(serde_json::from_reader(&mut entry).unwrap());
        } else if let Ok(inside) = path.strip_prefix(DATA)
            && !inside.as_os_str().is_empty()
        {
            entry.unpack(folder.path().join(inside)).unwrap();
        }
    }
    (folder, told.expect("what the release told"))
}

/// What is said of it now. Of a search what was found: the order of hits and their figures depend on the index.
pub async fn ask(node: &TestNode, admin: &Client, tenant: &str, path: &str) -> Json {
    let client = Client { address: node.address, ..admin.in_tenant(tenant) };
    let data = client.get(path).await.expect(200).data();
    if !path.starts_with("/api/v1/search") {
        return data;
    }
    let hits = data.as_array().into_iter().flatten();
    let mut ids: Vec<&str> = hits.filter_map(|hit| hit["id"].as_str()).collect();
    ids.sort_unstable();
    ids.into()
}

/// Where `new` does not say what `old` said: the place, and both. What is new in an answer is no difference.
pub fn difference(old: &Json, new: &Json) -> Option<String> {
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => old.iter().find_map(|(name, value)| {
            let found = difference(value, new.get(name).unwrap_or(&Json::Null))?;
            Some(format!("{name}.{found}"))
        }),
        (Json::Array(old), Json::Array(new)) if old.len() == new.len() => {
            let mut pairs = old.iter().zip(new).enumerate();
            pairs.find_map(|(n, (old, new))| Some(format!("{n}.{}", difference(old, new)?)))
        }
        _ if old == new => None,
        _ => Some(format!(" {old}, and now {new}")),
    }
}

pub fn streams(node: &TestNode) -> Vec<(String, u64)> {
    let heads = node.node.store.read(|reader| reader.streams()).unwrap();
    heads.iter().map(|head| (head.stream.to_string(), head.records)).collect()
}

pub fn root(node: &TestNode) -> String {
    format!("{:?}", node.node.store.read(|reader| reader.root()).unwrap().0)
}

/// What `atoll verify` would find.
pub fn problems(node: &TestNode) -> Vec<String> {
    let mut problems = node.node.store.verify().unwrap().problems;
    for blob in node.node.blobs.iter() {
        let (id, _) = blob.unwrap();
        if node.node.blobs.verify(&id).unwrap() == atoll_storage::blob::Verified::Damaged {
            problems.push(format!("blob {id} is damaged"));
        }
    }
    problems.extend(node.node.search.verify().err().map(|error| error.to_string()));
    problems
}
