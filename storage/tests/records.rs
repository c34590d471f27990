//! Records, names, bodies and views over a real database.

use atoll_storage::{
    Cause, Changes, Clock, Db, Event, Field, Id, Kind, NodeId, Query, Read, Replica, Type, Value,
};

const TITLE: Field = Field::text(1, "title").column();
const SLUG: Field = Field::text(2, "slug").claim("doc.slug");
const TAGS: Field = Field::set(3, "tags", Type::Text).column();
const BODY: Field = Field::body(4, "body");
const VIEWS: Field = Field::counter(1, "views").column();
const VISITORS: Field = Field::sketch(2, "visitors");
const PARENT: Field = Field::refers(1, "parent", "place").column();

static DOC: Kind = Kind {
    fields: &[TITLE, SLUG, TAGS, BODY],
    indexes: &[&["title"]],
    counted: &["title"],
    ..Kind::new(100, "doc", "docs", "content")
};
static STATS: Kind =
    Kind { fields: &[VIEWS, VISITORS], ..Kind::new(101, "stats", "stats", "insight") };
static PLACE: Kind =
    Kind { fields: &[PARENT], tree: Some(1), ..Kind::new(102, "place", "places", "content") };
static KINDS: &[&Kind] = &[&DOC, &STATS, &PLACE];

const TENANT: Id = Id([7; 16]);

fn node(n: u8) -> Db {
    let clock = Clock::from_fn(move || 1_700_000_000_000 + u64::from(n));
    Db::open_in_memory(KINDS, NodeId([n; 16]), clock).unwrap()
}

fn key(n: u8) -> Id {
    Id([n; 16])
}

fn exchange(a: &mut Db, b: &mut Db) {
    for _ in 0..2 {
        send(a, b);
        send(b, a);
    }
}

fn send(from: &mut Db, to: &mut Db) {
    let known = to.heads(None).unwrap().into_iter().map(|h| (h.stream, h.vector)).collect();
    for lane in [atoll_storage::Lane::Urgent, atoll_storage::Lane::Rest] {
        let start = from.start_of(lane, &known).unwrap();
        let batch = from.ops(lane, start, &known, 10_000, 1 << 24).unwrap();
        to.apply(batch.ops).unwrap();
    }
}

fn snapshot(from: &mut Db, to: &mut Db) {
    for head in from.heads(None).unwrap() {
        let index = from.snapshot_index(&head.stream).unwrap();
        let mut after = None;
        loop {
            let chunk = from.snapshot_chunk(&head.stream, after, None).unwrap();
            to.merge_chunk(&chunk).unwrap();
            after = chunk.upto;
            if after.is_none() {
                break;
            }
        }
        to.finish_snapshot(&head.stream, &index.vector).unwrap();
    }
}

fn create(db: &mut Db, n: u8, changes: Changes) {
    db.transact(|tx| tx.create(&DOC, TENANT, key(n), changes)).unwrap();
}

fn edit(db: &mut Db, n: u8, changes: Changes) {
    db.transact(|tx| tx.edit(&DOC, key(n), changes)).unwrap();
}

fn doc(db: &Db, n: u8) -> Option<atoll_storage::Record> {
    db.reader().get_full(&DOC, key(n)).unwrap()
}

fn assert_equal(a: &mut Db, b: &mut Db) {
    assert_eq!(
        a.heads(None).unwrap().iter().map(|h| h.leaf()).collect::<Vec<_>>(),
        b.heads(None).unwrap().iter().map(|h| h.leaf()).collect::<Vec<_>>()
    );
    for db in [a, b] {
        assert_eq!(db.verify().unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn two_nodes_that_wrote_apart_are_equal_when_they_meet() {
    let (mut a, mut b) = (node(1), node(2));
    create(
        &mut a,
        1,
        Changes::new()
            .set(&TITLE, "one")
            .set(&SLUG, "intro")
            .add(&TAGS, "x")
            .body(&BODY, "The quick fox"),
    );
    exchange(&mut a, &mut b);
    edit(
        &mut a,
        1,
        Changes::new().set(&TITLE, "from a").add(&TAGS, "a").body(&BODY, "The quick brown fox"),
    );
    edit(
        &mut b,
        1,
        Changes::new().set(&TITLE, "from b").drop(&TAGS, "x").body(&BODY, "The quick fox jumps"),
    );
    create(&mut b, 2, Changes::new().set(&TITLE, "two").set(&SLUG, "Intro ").body(&BODY, ""));
    exchange(&mut a, &mut b);
    assert_equal(&mut a, &mut b);
    let merged = doc(&a, 1).unwrap();
    assert_eq!(merged.body(&BODY), "The quick brown fox jumps");
    assert_eq!(merged.set(&TAGS).collect::<Vec<_>>(), [&Value::from("a")]);
    let causes: Vec<_> =
        a.reader().conflicts(None, 10, None).unwrap().iter().map(|c| c.cause).collect();
    assert!(causes.contains(&Cause::Concurrent) && causes.contains(&Cause::Claim), "{causes:?}");
    let loser = doc(&b, 2).unwrap();
    assert_eq!(loser.text(&SLUG), format!("Intro~{}", key(2).suffix()));
    let found = b.reader().claimed(TENANT, "doc.slug", loser.text(&SLUG)).unwrap();
    assert_eq!(found, Some(key(2)));
    assert_eq!(b.reader().claimed(TENANT, "doc.slug", "INTRO").unwrap(), Some(key(1)));
    edit(&mut a, 1, Changes::new().set(&TITLE, "settled").set(&SLUG, "other"));
    exchange(&mut a, &mut b);
    assert_eq!(doc(&b, 2).unwrap().text(&SLUG), "Intro ");
    assert_eq!(b.reader().conflicts(None, 10, None).unwrap().len(), 0);
    assert_equal(&mut a, &mut b);
}

#[test]
fn a_deletion_stands_and_the_edit_it_did_not_see_is_in_the_inbox_of_both() {
    let (mut a, mut b) = (node(1), node(2));
    create(&mut a, 1, Changes::new().set(&TITLE, "one").body(&BODY, "x"));
    exchange(&mut a, &mut b);
    a.transact(|tx| tx.remove(&DOC, key(1))).unwrap();
    edit(&mut b, 1, Changes::new().set(&TITLE, "kept?"));
    exchange(&mut a, &mut b);
    assert_equal(&mut a, &mut b);
    for db in [&a, &b] {
        assert!(doc(db, 1).is_none());
        let inbox = db.reader().conflicts(Some(TENANT), 10, None).unwrap();
        assert_eq!(inbox.len(), 1);
        assert_eq!(
            (inbox[0].cause, &inbox[0].values[0].value),
            (Cause::LostWrite, &Value::from("kept?"))
        );
    }
}

#[test]
fn a_node_behind_a_trimmed_log_is_reconciled_and_nothing_comes_back() {
    let (mut a, mut b) = (node(1), node(2));
    for n in 1..=5 {
        create(
            &mut a,
            n,
            Changes::new()
                .set(&TITLE, format!("t{n}"))
                .set(&SLUG, format!("s{n}"))
                .body(&BODY, "text"),
        );
    }
    exchange(&mut a, &mut b);
    a.transact(|tx| tx.remove(&DOC, key(1))).unwrap();
    edit(&mut a, 2, Changes::new().body(&BODY, "text of a"));
    edit(&mut b, 2, Changes::new().body(&BODY, "b's text"));
    edit(&mut b, 3, Changes::new().set(&TITLE, "b"));
    create(&mut b, 9, Changes::new().set(&TITLE, "new at b").set(&SLUG, "s3").body(&BODY, "n"));
    for head in a.heads(None).unwrap() {
        a.trim(&head.stream, &head.vector).unwrap();
    }
    snapshot(&mut a, &mut b);
    exchange(&mut a, &mut b);
    assert_equal(&mut a, &mut b);
    assert!(doc(&b, 1).is_none() && doc(&a, 9).is_some());
    assert_eq!(doc(&a, 2).unwrap().body(&BODY), doc(&b, 2).unwrap().body(&BODY));
    let mut c = node(3);
    snapshot(&mut b, &mut c);
    assert_equal(&mut b, &mut c);
}

#[test]
fn counters_add_up_and_sketches_do_not_count_twice() {
    let (mut a, mut b) = (node(1), node(2));
    for db in [&mut a, &mut b] {
        for visitor in 0..50u8 {
            let member = [visitor];
            db.transact(|tx| {
                tx.count(&STATS, TENANT, key(1), &[(&VIEWS, 2)], &[(&VISITORS, &member)])
            })
            .unwrap();
        }
    }
    exchange(&mut a, &mut b);
    assert_equal(&mut a, &mut b);
    let stats = a.reader().get(&STATS, key(1)).unwrap().unwrap();
    assert_eq!(stats.total(&VIEWS), 200);
    assert!(stats.estimate(&VISITORS).abs_diff(50) <= 2);
}

#[test]
fn a_circle_made_on_two_nodes_is_cut_at_the_same_place() {
    let (mut a, mut b) = (node(1), node(2));
    for n in 1..=3 {
        a.transact(|tx| tx.create(&PLACE, TENANT, key(n), Changes::new())).unwrap();
    }
    exchange(&mut a, &mut b);
    let mv = |db: &mut Db, n: u8, to: u8| {
        db.transact(|tx| tx.edit(&PLACE, key(n), Changes::new().set(&PARENT, key(to)))).unwrap()
    };
    mv(&mut a, 1, 2);
    mv(&mut a, 2, 3);
    mv(&mut b, 3, 1);
    exchange(&mut a, &mut b);
    assert_equal(&mut a, &mut b);
    let parents = |db: &Db| {
        (1..=3)
            .map(|n| db.reader().get(&PLACE, key(n)).unwrap().unwrap().tree_parent())
            .collect::<Vec<_>>()
    };
    assert_eq!(parents(&a), parents(&b));
    assert_eq!(parents(&a).iter().filter(|p| p.is_none()).count(), 1);
    assert_eq!(a.reader().conflicts(None, 9, None).unwrap()[0].cause, Cause::Cycle);
    let cut = (1..=3).find(|n| parents(&a)[usize::from(*n) - 1].is_none()).unwrap();
    a.transact(|tx| tx.edit(&PLACE, key(cut), Changes::new().set(&PARENT, Value::Null))).unwrap();
    exchange(&mut a, &mut b);
    assert_equal(&mut a, &mut b);
    assert!(b.reader().conflicts(None, 9, None).unwrap().is_empty());
}

#[test]
fn a_circle_that_is_broken_in_two_places_at_once_is_no_circle_any_more() {
    let mut a = node(1);
    for n in 1..=4 {
        a.transact(|tx| tx.create(&PLACE, TENANT, key(n), Changes::new())).unwrap();
    }
    for n in 1..=4 {
        let parent = Changes::new().set(&PARENT, key(n % 4 + 1));
        a.transact(|tx| tx.edit(&PLACE, key(n), parent)).unwrap();
    }
    let parent = |db: &Db, n: u8| db.reader().get(&PLACE, key(n)).unwrap().unwrap().tree_parent();
    assert_eq!(parent(&a, 4), None, "the latest move is the one that is cut");
    a.transact(|tx| {
        (1..=2).try_for_each(|n| {
            tx.edit(&PLACE, key(n), Changes::new().set(&PARENT, Value::Null)).map(drop)
        })
    })
    .unwrap();
    assert_eq!([3, 4].map(|n| parent(&a, n)), [Some(key(4)), Some(key(1))]);
    assert!(a.reader().conflicts(None, 9, None).unwrap().is_empty());
    assert_eq!(a.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_failed_request_leaves_nothing_and_its_group_goes_on() {
    let mut a = node(1);
    let failed = a.transact(|tx| {
        tx.create(&DOC, TENANT, key(1), Changes::new().set(&TITLE, "x"))?;
        tx.emit(&Event {
            event_type: "a.b.c",
            tenant: TENANT,
            user: None,
            payload: serde_json::json!({}),
        })?;
        Err::<(), _>(atoll_storage::Error::Missing("point"))
    });
    assert!(failed.is_err());
    assert!(doc(&a, 1).is_none());
    create(&mut a, 2, Changes::new().set(&TITLE, "y"));
    let head = &a.heads(None).unwrap()[0];
    assert_eq!(head.vector.0.values().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(a.verify().unwrap().problems, Vec::<String>::new());
    let panicked: Result<(), atoll_storage::Error> = a.transact(|_| panic!("a bug"));
    assert!(panicked.is_err());
    assert_eq!(a.reader().count(&Query::of(&DOC, TENANT)).unwrap(), 1);
}

#[test]
fn lists_page_through_everything_once_with_exact_totals() {
    let mut a = node(1);
    for n in 0..30u8 {
        let title = if n % 3 == 0 { Value::Null } else { Value::from(format!("t{:02}", n / 2)) };
        create(
            &mut a,
            n,
            Changes::new().set(&TITLE, title).add(&TAGS, if n % 2 == 0 { "even" } else { "odd" }),
        );
    }
    for descending in [false, true] {
        let mut seen = vec![];
        let mut after = None;
        loop {
            let page = a
                .reader()
                .list(&Query::of(&DOC, TENANT).sort("title", descending).limit(7).after(after))
                .unwrap();
            assert_eq!(page.total, 30);
            seen.extend(page.records.iter().map(|r| r.key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        seen.sort();
        assert_eq!(seen, (0..30).map(key).collect::<Vec<_>>());
    }
    let even = a.reader().list(&Query::of(&DOC, TENANT).contains(&TAGS, "even").limit(3)).unwrap();
    assert_eq!((even.total, even.records.len()), (15, 3));
    a.rebuild(|_, _| {}).unwrap();
    assert_eq!(a.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_record_that_one_disk_lost_comes_back_from_the_other_and_nothing_is_taken_for_deleted() {
    let (mut a, mut b) = (node(1), node(2));
    create(&mut a, 1, Changes::new().set(&TITLE, "one").body(&BODY, "text"));
    create(&mut a, 2, Changes::new().set(&TITLE, "two").body(&BODY, "text"));
    exchange(&mut a, &mut b);
    let head = b.heads(None).unwrap().remove(0);
    let mut lossy = b.snapshot_chunk(&head.stream, None, None).unwrap();
    lossy.records.remove(0);
    a.merge_chunk(&lossy).unwrap();
    snapshot(&mut a, &mut b);
    assert!(doc(&a, 1).is_some() && doc(&b, 1).is_some());
    assert_equal(&mut a, &mut b);
}

/// Two lives of a node wrote one name under one dot at different times. A repair takes the later time, and the name goes
/// to whoever was between the two.
#[test]
fn a_name_follows_its_time_when_a_repair_changes_that_alone() {
    let life = |ms: u64| {
        let clock = Clock::from_fn(move || 1_700_000_000_000 + ms);
        let mut db = Db::open_in_memory(KINDS, NodeId([1; 16]), clock).unwrap();
        create(&mut db, 1, Changes::new().set(&SLUG, "intro"));
        db
    };
    let (mut early, mut late, mut between) = (life(0), life(9), node(5));
    create(&mut between, 5, Changes::new().set(&SLUG, "intro"));
    send(&mut between, &mut early);
    send(&mut between, &mut late);
    let holder = |db: &Db| db.reader().claimed(TENANT, "doc.slug", "intro").unwrap();
    assert_eq!((holder(&early), holder(&late)), (Some(key(1)), Some(key(5))));
    snapshot(&mut late, &mut early);
    assert_equal(&mut early, &mut late);
    assert_eq!(holder(&early), Some(key(5)));
}

/// The same dot under two times in one record: kept bytes have one time a dot, and names must go by that one.
#[test]
fn what_a_repair_keeps_has_one_time_a_dot() {
    let life = |ms: u64, changes: Changes| {
        let clock = Clock::from_fn(move || 1_700_000_000_000 + ms);
        let mut db = Db::open_in_memory(KINDS, NodeId([1; 16]), clock).unwrap();
        create(&mut db, 1, changes);
        db
    };
    let mut early = life(0, Changes::new().add(&TAGS, "x"));
    let mut late = life(9, Changes::new().set(&SLUG, "intro"));
    let mut between = node(5);
    create(&mut between, 5, Changes::new().set(&SLUG, "intro"));
    send(&mut between, &mut early);
    send(&mut between, &mut late);
    snapshot(&mut late, &mut early);
    snapshot(&mut early, &mut late);
    assert_equal(&mut early, &mut late);
    for db in [&mut early, &mut late] {
        assert_eq!(db.reader().claimed(TENANT, "doc.slug", "intro").unwrap(), Some(key(5)));
        db.rebuild(|_, _| {}).unwrap();
        assert_eq!(db.reader().claimed(TENANT, "doc.slug", "intro").unwrap(), Some(key(5)));
    }
}

#[test]
fn an_edit_of_the_body_alone_is_the_latest_change_on_every_node() {
    let (mut a, mut b, mut c) = (node(1), node(2), node(3));
    create(&mut a, 1, Changes::new().set(&TITLE, "one").body(&BODY, "text"));
    let made = doc(&a, 1).unwrap().state.latest_hlc();
    edit(&mut a, 1, Changes::new().body(&BODY, "another text"));
    let edited = doc(&a, 1).unwrap().state.latest_hlc();
    assert!(edited > made);
    exchange(&mut a, &mut b);
    edit(&mut b, 1, Changes::new().body(&BODY, "another text yet"));
    exchange(&mut a, &mut b);
    snapshot(&mut a, &mut c);
    assert_equal(&mut a, &mut b);
    assert_equal(&mut a, &mut c);
    let latest = doc(&b, 1).unwrap().state.latest_hlc();
    assert!(latest > edited);
    for db in [&a, &c] {
        assert_eq!(doc(db, 1).unwrap().state.latest_hlc(), latest);
    }
}

#[test]
fn an_edit_that_began_from_an_older_body_adds_to_the_present_one() {
    let mut a = node(1);
    create(&mut a, 1, Changes::new().set(&TITLE, "one").body(&BODY, "The quick fox jumps"));
    edit(&mut a, 1, Changes::new().body(&BODY, "The quick brown fox jumps"));
    let stale = Changes::new().body(&BODY, "The quick fox jumps high").based_on(&BODY, vec![]);
    for _ in 0..2 {
        edit(&mut a, 1, stale.clone());
        assert_eq!(doc(&a, 1).unwrap().body(&BODY), "The quick brown fox jumps high");
    }
    assert_eq!(a.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn records_are_counted_by_column_and_by_set_in_one_query() {
    let mut a = node(1);
    for (n, title, tag) in [(1, "x", "red"), (2, "x", "blue"), (3, "y", "red")] {
        create(&mut a, n, Changes::new().set(&TITLE, title).add(&TAGS, tag));
    }
    let values = |names: &[&str]| names.iter().map(|name| Value::from(*name)).collect::<Vec<_>>();
    let reader = a.reader();
    let all = Query::of(&DOC, TENANT);
    let titles = values(&["x", "y", "z"]);
    let by_title = reader.count_by(&all, &TITLE, &titles).unwrap();
    assert_eq!((by_title.get(&titles[0]), by_title.get(&titles[2])), (Some(&2), None));
    assert_eq!(reader.totals(&DOC, TENANT, "title", &titles).unwrap(), by_title);
    let tags = values(&["red", "blue"]);
    let only = all.clone().filter("title", "x");
    let by_tag = reader.count_by(&only, &TAGS, &tags).unwrap();
    assert_eq!((by_tag.get(&tags[0]), by_tag.get(&tags[1])), (Some(&1), Some(&1)));
    assert!(reader.count_by(&all, &TAGS, &[]).unwrap().is_empty());
    let named = reader.list(&all.names("title", &TAGS, "red")).unwrap();
    assert_eq!((named.records.len(), named.total), (2, 2));
}

#[test]
fn what_was_made_elsewhere_before_keeps_its_times_and_the_clock_does_not_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("atoll.db");
    let open = |now_ms: u64| {
        Db::open(&path, KINDS, NodeId([1; 16]), Clock::from_fn(move || now_ms)).unwrap()
    };
    let mut db = open(9_000);
    create(&mut db, 1, Changes::new().set(&TITLE, "now"));
    let now = doc(&db, 1).unwrap().state.latest_hlc();
    let old = Changes::new().set(&TITLE, "old").body(&BODY, "one");
    db.transact(|tx| tx.create_at(&DOC, TENANT, key(2), old, (1_000, 2_000))).unwrap();
    let text = Changes::new().body(&BODY, "one and two");
    let edited = db.transact(|tx| tx.edit_at(&DOC, key(2), text, 2_000)).unwrap();
    assert_eq!((edited.created_ms(), edited.updated_ms()), (1_000, 2_000));
    assert_eq!(doc(&db, 2).unwrap().body(&BODY), "one and two");
    drop(db);
    let mut db = open(3_000);
    create(&mut db, 3, Changes::new().set(&TITLE, "later"));
    assert!(doc(&db, 3).unwrap().state.latest_hlc() > now);
    let mut other = node(2);
    exchange(&mut db, &mut other);
    assert_equal(&mut db, &mut other);
}

#[test]
fn two_elements_of_a_set_that_met_a_deletion_are_both_in_the_inbox() {
    let (mut a, mut b) = (node(1), node(2));
    create(&mut a, 1, Changes::new().set(&TITLE, "t"));
    exchange(&mut a, &mut b);
    b.transact(|tx| tx.remove(&DOC, key(1))).unwrap();
    for word in ["gull", "tide"] {
        edit(&mut a, 1, Changes::new().add(&TAGS, word));
        send(&mut a, &mut b);
    }
    edit(&mut a, 1, Changes::new().set(&TITLE, "one"));
    edit(&mut a, 1, Changes::new().set(&TITLE, "two"));
    send(&mut a, &mut b);
    let inbox = b.reader().conflicts(Some(TENANT), 10, None).unwrap();
    let mut fields: Vec<&str> = inbox.iter().map(|row| row.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["tags", "tags", "title"], "{inbox:?}");
}
