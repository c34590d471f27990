//! Seals of a node that was removed.

use super::{NEW, SEAL, assert_equal, find, make, network, remove, send};
use atoll_storage::seal::{self, Verdict};
use atoll_storage::{Db, Error, Query, Read};

/// Seals all that a node wrote.
fn seal_all(db: &mut Db) {
    let due = seal::due(&db.reader(), db.origin().node, u64::MAX >> 1, 100).unwrap();
    let made: Result<(), Error> = db.transact(|tx| {
        due.iter().try_for_each(|segment| tx.seal(segment, [3; 32], segment.message().as_slice()))
    });
    made.unwrap();
}

fn verdicts(db: &mut Db) -> Vec<Verdict> {
    let found = seal::examine(&db.reader(), 1_000, |_, _, _, _| true).unwrap();
    let noted: Result<u64, Error> = db.transact(|tx| tx.note_examined(&found));
    noted.unwrap();
    found.examined.into_iter().map(|one| one.verdict).collect()
}

#[test]
fn seals_that_came_late_go_and_those_from_before_still_prove() {
    let (mut a, mut b, mut p, _) = network();
    seal_all(&mut p);
    send(&mut p, &mut a);
    send(&mut a, &mut b);
    let seals = |db: &Db| {
        let query = Query::everywhere(&SEAL).limit(100);
        db.reader().list(&query).unwrap().records.len()
    };
    let in_time = seals(&a);
    assert!(in_time > 0 && verdicts(&mut a).iter().all(|one| *one == Verdict::Proven));
    let before = seal::standing(&a.reader()).unwrap();
    remove(&mut a, p.origin().node);
    make(&mut p, NEW, "Spam", "spam", "buy");
    seal_all(&mut p);
    assert!(seals(&p) > in_time);
    send(&mut p, &mut b);
    send(&mut b, &mut a);
    send(&mut a, &mut b);
    find(&mut b);
    for db in [&mut a, &mut b] {
        assert_eq!(seals(db), in_time);
        assert!(!verdicts(db).iter().any(|one| matches!(one, Verdict::Broken(_))));
    }
    assert_eq!(seal::standing(&a.reader()).unwrap().proven_ops, before.proven_ops);
    assert_equal(&mut [&mut a, &mut b]);
}
