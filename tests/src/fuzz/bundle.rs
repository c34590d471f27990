//! Bundles: as a stick gives them back, and as a peer makes them that means harm.

use super::events::items;
use super::store::assert_works;
use super::{peer_key, seeds, victim};
use atoll_storage::blob::tree::GROUP_BYTES;
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::{Db, Replica, Vector};
use atoll_sync::bucket::{
    Asker, BundleName, Has, Left, Member, Parcel, foreseen, merge, obsolete, obsolete_parcels,
    parcels, publications, repairs, wanted, wanted_parcels,
};
use atoll_sync::bundle::{
    self, Brings, Contents, Cover, FORMAT, Head, Landing, Report, Volume, VolumeWriter,
};
use std::collections::BTreeSet;
use std::io::Cursor;

/// Of each file that is asked for, and what all parcels may take.
const FILE_BYTES: u64 = 9 << 20;
const ROOM_BYTES: u64 = 20 << 20;

pub const PART: u8 = 0;
/// Under the number of the part before it.
pub const AGAIN: u8 = 1;

pub fn volume(data: &[u8]) {
    let open = || Volume::open(Cursor::new(data.to_vec()));
    let Ok(mut volume) = open() else { return };
    let _ = volume.brings();
    let mut db = victim::store();
    let _ = bundle::import(Some(&mut db), None, vec![volume], |_, _| {});
    assert_works(db);
    // And only looked at.
    if let Ok(volume) = open() {
        let _ = bundle::import(None, None, vec![volume], |_, _| {});
    }
    if let Ok(volume) = open() {
        let _ = bundle::info(&mut [volume]);
    }
}

/// Parts of one volume, signed by its maker, as a bundle and as an object of a bucket.
pub fn signed(data: &[u8]) {
    let head = Head {
        format: FORMAT,
        bundle: [1; 16],
        volume: 1,
        creator: peer_key().public(),
        name: "harm".to_owned(),
        made_ms: 1,
        reply_key: [0; 32],
        sealed: vec![],
    };
    let mut writer = VolumeWriter::begin(vec![], peer_key(), &head).expect("a volume in memory");
    let mut number = 0;
    for (kind, part) in items(data) {
        number += u32::from(kind != AGAIN) * u32::from(kind / 2 + 1);
        writer.put(number.saturating_sub(1), part, false).expect("a volume in memory");
    }
    let (bytes, _) = writer.finish().expect("a volume in memory");
    let open = || Volume::open(Cursor::new(&bytes)).expect("it has a head");
    let brings = open().brings().expect("a volume in memory").unwrap_or_default();
    let contents = open().contents().expect("a volume in memory");
    bundle::info(&mut [open()]).expect("a volume in memory");
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(folder.path()).expect("blobs");
    let mut admit = |_: &_, size: u64, _| if size < 1 << 20 { Ok(()) } else { Err("no".into()) };
    let mut landing = Landing::new(&blobs, &mut admit);
    let mut db = victim::store();
    let taken = bundle::import(Some(&mut db), Some(&mut landing), vec![open()], |_, _| {});
    if let Ok(report) = taken {
        follow(&mut db, report, brings, contents);
    }
    assert_works(db);
}

/// What a node makes of what a bundle tells, where there is a bucket: of what its maker has and asks for, and of what it brings.
fn follow(db: &mut Db, report: Report, brings: Brings, contents: Option<Contents>) {
    let heads = db.heads(None).expect("heads");
    let states = heads.iter().map(|head| (head.stream.clone(), head.digest)).collect();
    let mine: Has = heads.into_iter().map(|head| (head.stream, head.vector)).collect();
    let (me, maker) = (victim::node(1), victim::node(5));
    let has: Has = report.want.unwrap_or_default().into_iter().collect();
    let carries = report.carries.unwrap_or_default();
    let itself =
        Member { node: Some(me), has: mine.clone(), states: Some(states), ..Member::default() };
    let said = report.states.unwrap_or_default().into_iter();
    let said = said.map(|(stream, state)| (stream, state.digest)).collect();
    let other = Member {
        node: Some(maker),
        has: has.clone(),
        states: Some(said),
        carries: carries.clone(),
        ..Member::default()
    };
    let name = |node, number| BundleName { node, number, random: 1 };
    let left_by = |node, number| Left {
        name: name(node, number),
        readers: None,
        covers: vec![],
        repair: None,
        size_bytes: 1,
    };
    let own = mine.iter().map(|(stream, to)| {
        let (stream, from, to) = (stream.clone(), Vector::default(), to.clone());
        Cover { stream, from, to }
    });
    let own: Vec<Cover> = own.collect();
    // So many that they are put together.
    let mut left: Vec<Left> =
        (0..17).map(|n| Left { covers: own.clone(), ..left_by(me, n) }).collect();
    let Brings { covers, repair } = brings;
    for node in [me, maker] {
        let (covers, repair) = (covers.clone(), repair.clone());
        left.push(Left { covers, repair, ..left_by(node, 20) });
    }
    let _ = wanted(&itself, left.iter());
    for members in [vec![], vec![itself.clone(), other]] {
        let _ = publications(&mine, &members, &left);
        let _ = repairs(&itself, &members, &left, 1);
        let _ = obsolete(&itself, &members, &left);
        let _ = merge(&itself, &members, &left);
    }
    let asker = Asker {
        node: maker,
        has,
        carries,
        lacks: report.lacks,
        refused: BTreeSet::new(),
        strangers: BTreeSet::new(),
    };
    let contents = contents.unwrap_or_default();
    let there = [Parcel { name: name(me, 1), readers: None, contents, size_bytes: 1 }];
    let _ = wanted_parcels(&asker, there.iter());
    let askers = [asker];
    let _ = obsolete_parcels(me, &askers, &there);
    let named = [(BlobId([1; 32]), vec![seeds::content()])].into();
    let _ = foreseen(&askers, &mine, &named, 1 << 20);
    let leaves = parcels(&askers, &there, |_| Some(FILE_BYTES), ROOM_BYTES);
    let groups: u64 = leaves.iter().flatten().map(|share| share.run.count).sum();
    assert!(groups * GROUP_BYTES as u64 <= ROOM_BYTES, "{groups} groups");
}
