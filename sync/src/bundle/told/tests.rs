use super::*;
use crate::bundle::{
    Brings, Damage, FORMAT, Head, MAX_REFUSED, Part, Report, Volume, VolumeWriter,
};
use crate::bundle::{Want, import};
use crate::key::NodeKey;
use atoll_storage::{Digest, Id, NodeId};
use std::collections::BTreeMap;
use std::io::Cursor;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// With a name that takes so much.
fn stream(n: u8, scope_bytes: usize) -> StreamId {
    StreamId::new(Id([n; 16]), &"s".repeat(scope_bytes))
}

fn vector(seq: u64) -> Vector {
    Vector([(Origin { node: NodeId([1; 16]), epoch: 0 }, seq)].into())
}

fn volume(parts: &[Part]) -> Result<Volume<Cursor<Vec<u8>>>, Box<dyn std::error::Error>> {
    let key = NodeKey::generate()?;
    let head = Head {
        format: FORMAT,
        bundle: [1; 16],
        volume: 1,
        creator: key.public(),
        name: "core".to_owned(),
        made_ms: 1,
        reply_key: [0; 32],
        sealed: vec![],
    };
    let mut writer = VolumeWriter::begin(vec![], &key, &head)?;
    for (number, part) in parts.iter().enumerate() {
        writer.put(number as u32, &codec::encode(part), false)?;
    }
    let (bytes, _) = writer.finish()?;
    Ok(Volume::open(Cursor::new(bytes))?)
}

fn read(parts: &[Part]) -> Result<Report, Box<dyn std::error::Error>> {
    Ok(import(None, None, vec![volume(parts)?], |_, _| {})?)
}

fn left(report: &Report) -> Vec<(Option<u32>, &str)> {
    report.damaged.iter().map(|Damage { part, why, .. }| (*part, why.as_str())).collect()
}

const MOST: usize = MAX_TOLD_BYTES * 2 / 3;

#[test]
fn what_goes_beyond_what_a_node_takes_in_is_left_and_the_rest_counts() -> Outcome {
    let want = |n: u8, bytes| Part::Want(vec![(stream(n, bytes), vector(n.into()))]);
    let cover = |n: u8, bytes| {
        let (from, to) = (Vector::default(), vector(n.into()));
        Part::Covers(vec![Cover { stream: stream(n, bytes), from, to }])
    };
    let state = StreamState { digest: Digest([1; 4]), is_ahead: false };
    let state = |n: u8, bytes| Part::States(vec![(stream(n, bytes), state)]);
    let makes: [&dyn Fn(u8, usize) -> Part; 3] = [&want, &cover, &state];
    let mut parts = vec![];
    for make in makes {
        parts.extend([make(1, MOST), make(2, MOST), make(3, 10)]);
    }
    let report = read(&[parts, vec![Part::End { parts: 10, volumes: 1 }]].concat())?;
    let tenants = |streams: Vec<&StreamId>| -> Vec<u8> {
        streams.into_iter().map(|stream| stream.tenant.0[0]).collect()
    };
    assert_eq!(tenants(report.want.iter().flatten().map(|(stream, _)| stream).collect()), [1, 3]);
    assert_eq!(tenants(report.covers.iter().map(|cover| &cover.stream).collect()), [1, 3]);
    assert_eq!(tenants(report.states.iter().flat_map(BTreeMap::keys).collect()), [1, 3]);
    assert_eq!(left(&report), [(Some(1), TOO_MUCH), (Some(4), TOO_MUCH), (Some(7), TOO_MUCH)]);
    assert_eq!((report.parts, report.missing.len(), report.is_sound()), (7, 3, false));
    Ok(())
}

#[test]
fn all_that_a_bundle_may_tell_can_be_kept_and_read_back() -> Outcome {
    let of_streams = |many: usize| -> Want {
        let of =
            |n: usize| (StreamId::new(Id::natural(&[&n.to_le_bytes()]), ""), Vector::default());
        (0..many).map(of).collect()
    };
    let of_origins = |many: usize| -> Want {
        let of = |n: usize| {
            (Origin { node: NodeId(Id::natural(&[&n.to_le_bytes()]).0), epoch: 9 }, 1 << 50)
        };
        vec![(stream(1, 0), Vector((0..many).map(of).collect()))]
    };
    let many = MAX_TOLD_BYTES / size_of::<(StreamId, Vector)>();
    for want in [of_streams(many), of_origins(MAX_TOLD_BYTES / size_of::<(Origin, u64)>() - 2)] {
        let pieces = want.chunks(many / 2).map(|piece| Part::Want(piece.to_vec()));
        let report = read(&pieces.collect::<Vec<_>>())?;
        assert_eq!(left(&report), []);
        let has: BTreeMap<StreamId, Vector> = report.want.unwrap_or_default().into_iter().collect();
        assert!(codec::decode::<BTreeMap<StreamId, Vector>>(&codec::encode(&has))? == has);
    }
    let over = Part::Want(of_streams(many / 2));
    assert_eq!(left(&read(&[over.clone(), over.clone(), over])?), [(Some(2), TOO_MUCH)]);
    Ok(())
}

#[test]
fn a_bundle_that_tells_too_much_of_what_it_brings_tells_nothing() -> Outcome {
    let covers = |n: u8| {
        Part::Covers(vec![Cover {
            stream: stream(n, MOST),
            from: Vector::default(),
            to: vector(1),
        }])
    };
    let end = Part::End { parts: 2, volumes: 1 };
    let brings = volume(&[covers(1), end.clone()])?.brings()?;
    assert!(matches!(brings, Some(Brings { covers, .. }) if covers.len() == 1));
    assert!(volume(&[covers(1), covers(2), end])?.brings()?.is_none());
    Ok(())
}

#[test]
fn names_of_refused_bundles_are_short_and_not_too_many() -> Outcome {
    let long = Part::Refused(vec!["n".repeat(1 << 20), "short".to_owned()]);
    assert!(read(&[long])?.refused == ["short"]);
    let many = Part::Refused(vec!["short".to_owned(); MAX_REFUSED - 1]);
    assert_eq!(read(&[many.clone(), many])?.refused.len(), MAX_REFUSED);
    Ok(())
}
