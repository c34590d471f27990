//! What bundles say of themselves: who made them and for whom, what they bring and from where to where, what their makers
//! have and ask for. Takes nothing in and reads no further than the lists, so that it is quick; without the key, it tells what is in clear.

use super::refused;
use super::take::{Group, Unread, grouped, is_peer, name_of, unlock_if_ours};
use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::peer::grant::slug;
use crate::runtime::Node;
use atoll_storage::{Id, NodeId, Origin, StreamId, Vector, peer};
use atoll_sync::bundle::{self, BundleKey, Cover, Head, Info, Lists, VolumeInfo};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Of one bundle; more are counted.
const MAX_STREAMS: usize = 1_000;
/// Of one stream, in words.
const MAX_SPANS: usize = 5;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Told {
    pub bundles: Vec<Described>,
    pub unread: Vec<Unread>,
}

/// A bundle, or as much of one as the files given are.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    pub bundle: String,
    pub made_by: String,
    pub maker: String,
    pub made_ms: u64,
    /// Whether the maker is a peer of this node; none where there is no node to know.
    pub is_known: Option<bool>,
    /// Who can read it; none: everybody.
    pub locked_for: Vec<String>,
    pub files: Vec<Piece>,
    pub bytes: u64,
    /// Of these files, and of the whole bundle if its end is among them and can be read here.
    pub parts: u64,
    pub of_parts: Option<u32>,
    pub of_volumes: Option<u32>,
    /// Numbers of volumes, from and to, that are not among the files. Later ones are known of only by the end.
    pub missing_volumes: Vec<(u32, u32)>,
    /// Whether what it brings and what its maker has could be read here.
    pub is_readable: bool,
    /// None if it does not say, as bundles of older releases.
    pub brings: Option<Ops>,
    pub has: Option<Ops>,
    /// What of the network its maker carries: `everything`, or its rules.
    pub carries: Option<String>,
    /// Files that its maker asks for.
    pub asks_for_files: Option<u64>,
}

/// One volume.
#[derive(Clone, Debug, Serialize)]
pub struct Piece {
    pub file: String,
    #[serde(flatten)]
    pub info: VolumeInfo,
}

#[derive(Clone, Debug, Serialize)]
pub struct Ops {
    pub ops: u64,
    pub streams: u64,
    /// The first thousand of them.
    pub list: Vec<Stream>,
}

/// Of each origin, the ops behind `from` up to `to`.
#[derive(Clone, Debug, Serialize)]
pub struct Stream {
    pub tenant: Id,
    pub scope: String,
    pub ops: u64,
    pub from: BTreeMap<String, u64>,
    pub to: BTreeMap<String, u64>,
    pub words: String,
}

/// What the files say of themselves. For a thread that may wait.
///
/// # Errors
/// A field `files` if none of them is a volume.
pub fn info(node: &Node, actor: &Actor, files: &[PathBuf]) -> Result<Told> {
    actor.require(Permission::SyncAdminister)?;
    describe(Some(node), files)
}

/// The same where there is no node: peers and tenants have no names, and nothing is unlocked.
///
/// # Errors
/// As of [`info`].
pub fn info_alone(files: &[PathBuf]) -> Result<Told> {
    describe(None, files)
}

fn describe(node: Option<&Node>, files: &[PathBuf]) -> Result<Told> {
    let (groups, unread) = grouped(files)?;
    let mut told = Told { bundles: vec![], unread };
    for group in groups {
        let files = group.files.clone();
        match described(node, group) {
            Ok(one) => told.bundles.push(one),
            Err(Error::Store(atoll_storage::Error::Io(error))) => {
                let unread = |file| Unread { file, why: format!("reading it failed ({error})") };
                told.unread.extend(files.into_iter().map(unread));
            }
            Err(error) => return Err(error),
        }
    }
    match &told.unread[..] {
        _ if !told.bundles.is_empty() => Ok(told),
        [] => Err(Error::field("files", "no_bundle", "there is no volume among them")),
        [one, ..] => Err(Error::field("files", "no_bundle", one.why.clone())),
    }
}

fn described(node: Option<&Node>, group: Group) -> Result<Described> {
    let Group { head, mut volumes, files } = group;
    if let Some(node) = node {
        let mine = BundleKey::of(node.key()).map_err(refused)?;
        unlock_if_ours(&mut volumes, &mine).map_err(refused)?;
    }
    let mut pieces: Vec<_> = volumes.into_iter().zip(files).collect();
    pieces.sort_by_key(|(volume, _)| volume.head().volume);
    let (mut volumes, files): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
    let info = bundle::info(&mut volumes).map_err(refused)?;
    let names = Names { node, head: &head };
    let missing_volumes = info.missing_volumes();
    let Info { volumes, of_volumes, of_parts, lists } = info;
    let is_readable = lists.is_some();
    let Lists { want, carries, lacks, covers } = lists.unwrap_or_default();
    let has_told = want.is_some();
    let nothing = Vector::default();
    let has = want.map(|want| names.ops(want.iter().map(|(at, to)| (at, &nothing, to))));
    let brings = covers.map(|covers| {
        names.ops(covers.iter().map(|Cover { stream, from, to }| (stream, from, to)))
    });
    let readers = head.readers().unwrap_or_default();
    Ok(Described {
        bundle: name_of(head.bundle),
        made_by: head.name.clone(),
        maker: head.creator.to_string(),
        made_ms: head.made_ms,
        is_known: node.map(|node| is_peer(node, &head)).transpose()?,
        locked_for: readers.iter().map(|one| names.node(*one)).collect(),
        bytes: volumes.iter().map(|volume| volume.bytes).sum(),
        parts: volumes.iter().map(|volume| volume.parts).sum(),
        files: files.into_iter().zip(volumes).map(|(file, info)| Piece { file, info }).collect(),
        of_parts,
        of_volumes,
        missing_volumes,
        is_readable,
        brings,
        has,
        carries: has_told.then(|| {
            if carries.is_everything() { "everything".to_owned() } else { carries.to_string() }
        }),
        asks_for_files: has_told.then_some(lacks),
    })
}

/// What things are called here, or in the bundle.
struct Names<'a> {
    node: Option<&'a Node>,
    head: &'a Head,
}

impl Names<'_> {
    fn node(&self, id: NodeId) -> String {
        if let Some(node) = self.node {
            if node.id() == id {
                return node.config.name.clone();
            }
            if let Ok(Some(peer)) = node.store.read(|reader| peer::find(reader, id)) {
                return peer.name;
            }
        }
        if self.head.creator.node_id() == id { self.head.name.clone() } else { id.to_string() }
    }

    fn origin(&self, origin: Origin) -> String {
        let name = self.node(origin.node);
        if origin.epoch > 1 { format!("{name} (epoch {})", origin.epoch) } else { name }
    }

    fn stream(&self, stream: &StreamId) -> String {
        let tenant = match self.node {
            _ if stream.tenant == Id::NIL => "the network".to_owned(),
            Some(node) => slug(node, stream.tenant),
            None => stream.tenant.to_string(),
        };
        let scope: String = stream.scope.chars().filter(|c| !c.is_control()).collect();
        format!("{scope} of {tenant}")
    }

    fn ops<'v>(&self, all: impl Iterator<Item = (&'v StreamId, &'v Vector, &'v Vector)>) -> Ops {
        let mut told = Ops { ops: 0, streams: 0, list: vec![] };
        for (stream, from, to) in all {
            let ops = to.lead_over(from);
            told.ops = told.ops.saturating_add(ops);
            told.streams += 1;
            if told.list.len() < MAX_STREAMS {
                told.list.push(Stream {
                    tenant: stream.tenant,
                    scope: stream.scope.clone(),
                    ops,
                    from: as_map(from),
                    to: as_map(to),
                    words: self.words(stream, from, to),
                });
            }
        }
        told
    }

    /// `content of lagoon: 152 ops, core 101 to 252, school 1 to 40`.
    fn words(&self, stream: &StreamId, from: &Vector, to: &Vector) -> String {
        let is_ahead = |(origin, seq): &(&Origin, &u64)| **seq > from.get(**origin);
        let ahead = to.0.iter().filter(is_ahead);
        let spans = ahead.clone().take(MAX_SPANS).map(|(origin, seq)| {
            format!(", {} {} to {seq}", self.origin(*origin), from.get(*origin) + 1)
        });
        let spans: String = spans.collect();
        let more = match ahead.count().saturating_sub(MAX_SPANS) {
            0 => String::new(),
            more => format!(", and of {more} more"),
        };
        let ops = to.lead_over(from);
        let noun = if ops == 1 { "op" } else { "ops" };
        format!("{}: {ops} {noun}{spans}{more}", self.stream(stream))
    }
}

fn as_map(vector: &Vector) -> BTreeMap<String, u64> {
    vector.0.iter().map(|(origin, seq)| (origin.to_string(), *seq)).collect()
}
