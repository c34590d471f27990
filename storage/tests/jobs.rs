//! Jobs and their leases, and records that are older than their node, over a real database.

use atoll_storage::job::{self, Job, Progress, Turn, Wanted};
use atoll_storage::{Changes, Clock, Db, Field, Id, Kind, NodeId, Read, Result, Tx};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TITLE: Field = Field::text(1, "title").column();
const BODY: Field = Field::body(2, "body");
static DOC: Kind = Kind { fields: &[TITLE, BODY], ..Kind::new(100, "doc", "docs", "content") };
static KINDS: &[&Kind] = &[&DOC];

const START_MS: u64 = 1_700_000_000_000;
const LEASE_MS: u64 = 1_000;
const TENANT: Id = Id([7; 16]);

/// A database with a clock that the test turns.
fn node() -> (Db, Arc<AtomicU64>) {
    let passed_ms = Arc::new(AtomicU64::new(0));
    let passed = passed_ms.clone();
    let clock = Clock::from_fn(move || START_MS + passed.load(Ordering::SeqCst));
    (Db::open_in_memory(KINDS, NodeId([1; 16]), clock).unwrap(), passed_ms)
}

fn enqueue(db: &mut Db, tenant: Option<Id>) -> i64 {
    db.transact(|tx| tx.enqueue_for(tenant, None, "work", &json!({ "a": 1 }), START_MS)).unwrap()
}

fn take(db: &mut Db) -> Option<Job> {
    db.transact(|tx| tx.take_job(LEASE_MS)).unwrap()
}

fn advance(db: &mut Db, job: &Job, done: u64) -> bool {
    let to = Progress { done, of: 10, note: "at it".into(), position: json!(done) };
    db.transact(|tx| tx.advance_job(job, &to, LEASE_MS)).unwrap()
}

fn find(db: &mut Db, id: i64) -> Job {
    db.transact(|tx| job::find(tx, id)).unwrap().unwrap()
}

#[test]
fn who_lost_the_lease_of_a_job_can_note_nothing() {
    let (mut db, passed_ms) = node();
    let id = enqueue(&mut db, Some(TENANT));
    let first = take(&mut db).unwrap();
    assert!(take(&mut db).is_none());
    passed_ms.store(LEASE_MS / 2, Ordering::SeqCst);
    assert!(advance(&mut db, &first, 3));
    passed_ms.store(LEASE_MS + 1, Ordering::SeqCst);
    assert!(take(&mut db).is_none(), "it got ahead, and so it keeps its lease");
    passed_ms.store(2 * LEASE_MS, Ordering::SeqCst);
    let second = take(&mut db).unwrap();
    assert_eq!((second.done, &second.position, second.attempts), (3, &json!(3), 2));
    assert!(!advance(&mut db, &first, 9));
    assert!(!db.transact(|tx| tx.finish_job(&first, &json!(null))).unwrap());
    assert!(!db.transact(|tx| tx.fail_job(&first, "no", true, 0.5)).unwrap());
    assert!(!db.transact(|tx| tx.release_job(&first)).unwrap());
    assert!(advance(&mut db, &second, 4));
    assert!(db.transact(|tx| tx.finish_job(&second, &json!({ "made": 4 }))).unwrap());
    let ended = find(&mut db, id);
    assert_eq!((ended.state.as_str(), &ended.result), (job::DONE, &json!({ "made": 4 })));
    assert!(ended.ended_ms.is_some() && take(&mut db).is_none());
}

#[test]
fn a_job_that_fails_waits_longer_each_time_and_then_is_dead_until_it_is_taken_up_again() {
    let (mut db, passed_ms) = node();
    let id = enqueue(&mut db, Some(TENANT));
    for attempt in 1..=job::MAX_ATTEMPTS {
        let job = take(&mut db).unwrap_or_else(|| panic!("attempt {attempt}"));
        assert_eq!(job.attempts, attempt);
        assert!(db.transact(|tx| tx.fail_job(&job, "no", false, 0.5)).unwrap());
        assert!(take(&mut db).is_none(), "it pauses");
        passed_ms.fetch_add(1_000 << (attempt + 1), Ordering::SeqCst);
    }
    let dead = find(&mut db, id);
    assert_eq!((dead.state.as_str(), dead.error.as_deref()), (job::DEAD, Some("no")));
    assert!(take(&mut db).is_none());
    assert!(db.transact(|tx| tx.replay_job(id)).unwrap());
    let job = take(&mut db).unwrap();
    assert_eq!(job.attempts, 1);
    assert!(db.transact(|tx| tx.cancel_job(id)).unwrap());
    assert!(!advance(&mut db, &job, 1));
    assert!(!db.transact(|tx| tx.cancel_job(id)).unwrap());
    assert!(db.transact(|tx| tx.drop_job(id)).unwrap());
}

#[test]
fn a_job_that_a_process_left_running_is_due_at_the_next_start_and_a_given_back_one_at_once() {
    let (mut db, _) = node();
    enqueue(&mut db, None);
    let left = take(&mut db).unwrap();
    assert_eq!(db.transact(|tx| tx.reclaim_jobs()).unwrap(), 1);
    let again = take(&mut db).unwrap();
    assert_eq!((again.id, again.attempts), (left.id, 2));
    assert!(db.transact(|tx| tx.release_job(&again)).unwrap());
    assert_eq!(take(&mut db).unwrap().attempts, 2);
}

#[test]
fn jobs_are_listed_by_tenant_queue_and_state() {
    let (mut db, _) = node();
    let ids: Vec<i64> = (0..3).map(|_| enqueue(&mut db, Some(TENANT))).collect();
    enqueue(&mut db, Some(Id([8; 16])));
    enqueue(&mut db, None);
    take(&mut db).unwrap();
    let list = |db: &mut Db, wanted: Wanted<'static>, limit| {
        let listed: Result<(Vec<Job>, u64)> =
            db.transact(|tx| job::list(tx, TENANT, wanted, limit));
        let (jobs, total) = listed.unwrap();
        (jobs.into_iter().map(|job| job.id).collect::<Vec<_>>(), total)
    };
    assert_eq!(list(&mut db, Wanted::default(), 2), (vec![ids[2], ids[1]], 3));
    let rest = Wanted { before: Some(ids[1]), ..Wanted::default() };
    assert_eq!(list(&mut db, rest, 2), (vec![ids[0]], 3));
    let waiting = Wanted { state: Some(job::WAITING), queue: Some("work"), before: None };
    assert_eq!(list(&mut db, waiting, 9), (vec![ids[2], ids[1]], 2));
    assert_eq!(db.transact(|tx| job::depth_of(tx, TENANT)).unwrap(), 3);
}

#[test]
fn what_was_made_elsewhere_keeps_its_times_and_gives_way_to_every_change_here() {
    let (mut db, _) = node();
    let key = Id([3; 16]);
    let changes = Changes::new().set(&TITLE, "Old").body(&BODY, "text");
    let made = db.transact(|tx| tx.create_at(&DOC, TENANT, key, changes, (1_000, 5_000))).unwrap();
    assert_eq!((made.created_ms(), made.updated_ms(), made.text(&TITLE)), (1_000, 5_000, "Old"));
    let edited = db.transact(|tx| tx.edit(&DOC, key, Changes::new().set(&TITLE, "New"))).unwrap();
    assert_eq!((edited.created_ms(), edited.text(&TITLE)), (1_000, "New"));
    assert!(edited.updated_ms() >= START_MS);
    let ahead = Changes::new().set(&TITLE, "Ahead");
    let ahead = db
        .transact(|tx| tx.create_at(&DOC, TENANT, Id([4; 16]), ahead, (u64::MAX, u64::MAX)))
        .unwrap();
    assert_eq!(ahead.created_ms(), START_MS);
    let full = db.transact(|tx| tx.get_full(&DOC, key)).unwrap().unwrap();
    assert_eq!(full.body(&BODY), "text");
}

#[test]
fn a_worker_leaves_alone_what_is_not_its_work() {
    let (mut db, _) = node();
    let id = enqueue(&mut db, None);
    let mut take_but = |queues: &[&str]| {
        let turn = Turn { but: queues, ..Turn::default() };
        let is_due = db.transact(|tx| job::is_due(tx, START_MS, turn)).unwrap();
        let job = db.transact(|tx| tx.take_job_in(LEASE_MS, turn)).unwrap();
        assert_eq!(job.is_some(), is_due, "{queues:?}");
        job
    };
    assert!(take_but(&["other", "work"]).is_none());
    assert_eq!(take_but(&["other"]).map(|job| job.id), Some(id));
}

#[test]
fn tenants_take_turns_however_many_jobs_one_of_them_has() {
    let (mut db, _) = node();
    let (north, south) = (Id([1; 16]), Id([2; 16]));
    for _ in 0..1_000 {
        enqueue(&mut db, Some(north));
    }
    let of_node = enqueue(&mut db, None);
    let of_south = enqueue(&mut db, Some(south));
    let letter = json!({ "to": "somebody of the south" });
    let in_turn = |tx: &mut Tx<'_>| tx.enqueue_in_turn_of(south, "mail", &letter, START_MS);
    let unseen = db.transact(in_turn).unwrap();
    let (mut taken, mut after) = (Vec::new(), None);
    for _ in 0..6 {
        let turn = Turn { after, ..Turn::default() };
        let job = db.transact(|tx| tx.take_job_in(LEASE_MS, turn)).unwrap().unwrap();
        assert!(db.transact(|tx| tx.finish_job(&job, &json!(null))).unwrap());
        after = job.share;
        taken.push(job);
    }
    let shares: Vec<_> = taken.iter().map(|job| job.share).collect();
    assert_eq!(shares, [Some(north), Some(south), None, Some(north), Some(south), Some(north)]);
    assert_eq!((taken[1].id, taken[2].id, taken[4].id), (of_south, of_node, unseen));
    assert_eq!(taken[4].tenant, None, "it is shown to nobody");
    assert_eq!(db.transact(|tx| job::depth_in_turn_of(tx, north)).unwrap(), 997);
}

#[test]
fn of_long_work_a_tenant_has_one_at_a_time() {
    let (mut db, passed_ms) = node();
    let (north, south) = (Id([1; 16]), Id([2; 16]));
    enqueue(&mut db, Some(north));
    enqueue(&mut db, Some(north));
    let turn = Turn { one_each: &["other", "work"], ..Turn::default() };
    let take = |db: &mut Db, now_ms| {
        let is_due = db.transact(|tx| job::is_due(tx, now_ms, turn)).unwrap();
        let job = db.transact(|tx| tx.take_job_in(LEASE_MS, turn)).unwrap();
        assert_eq!(job.is_some(), is_due);
        job
    };
    let first = take(&mut db, START_MS).unwrap();
    assert!(take(&mut db, START_MS).is_none(), "the second waits for the first");
    enqueue(&mut db, Some(south));
    assert_eq!(take(&mut db, START_MS).and_then(|job| job.share), Some(south));
    assert!(db.transact(|tx| tx.finish_job(&first, &json!(null))).unwrap());
    assert_eq!(take(&mut db, START_MS).and_then(|job| job.share), Some(north));
    passed_ms.store(LEASE_MS + 1, Ordering::SeqCst);
    assert!(
        take(&mut db, START_MS + LEASE_MS + 1).is_some(),
        "whose lease ran out stands in nobody's way"
    );
}
