//! The search index on a real disk: what is found and in which order, what survives a kill, and what damage costs.

use atoll_storage::Id;
use atoll_storage::search::{Change, Document, Error, Opened, SearchIndex, SearchQuery, Sort};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

const TENANT: Id = Id([1; 16]);
const OTHER: Id = Id([2; 16]);

fn id(n: u64) -> Id {
    Id::natural(&[&n.to_le_bytes()])
}

fn document(n: u64, title: &str, body: &str) -> Document {
    Document {
        id: id(n),
        kind: 1,
        tenant: TENANT,
        title: title.into(),
        body: body.into(),
        public: true,
        status: "published".into(),
        date_ms: n as i64,
        ..Document::default()
    }
}

fn put(n: u64, title: &str, body: &str) -> Change {
    Change::Put(document(n, title, body))
}

fn asking(text: &str) -> SearchQuery {
    SearchQuery { tenant: TENANT, text: text.into(), limit: 100, ..SearchQuery::default() }
}

fn ids(index: &SearchIndex, query: &SearchQuery) -> Vec<Id> {
    index.query(query).unwrap().hits.into_iter().map(|hit| hit.id).collect()
}

/// The numbers of the documents found, smallest first.
fn found(index: &SearchIndex, text: &str) -> Vec<u64> {
    let hits = ids(index, &asking(text));
    (0..1_000).filter(|n| hits.contains(&id(*n))).collect()
}

fn filled(changes: &[Change]) -> (tempfile::TempDir, SearchIndex) {
    let dir = tempfile::tempdir().unwrap();
    let (index, opened) = SearchIndex::open(&dir.path().join("search"), 1).unwrap();
    assert_eq!(opened, Opened::Fresh);
    index.apply(changes, 1).unwrap();
    (dir, index)
}

#[test]
fn all_words_must_be_there_and_phrases_as_they_stand() {
    let (_dir, index) = filled(&[
        put(1, "Reef fish", "the quick brown fox"),
        put(2, "Reef plants", "a brown and quick animal"),
        put(3, "Harbour", "e-mail us about the fish market"),
    ]);
    assert_eq!(found(&index, "quick brown"), [1, 2]);
    assert_eq!(found(&index, "REEF quick plants"), [2]);
    assert_eq!(found(&index, "\"quick brown\""), [1]);
    assert_eq!(found(&index, "reef -plants"), [1]);
    assert_eq!(found(&index, "reef -\"quick brown\""), [2]);
    assert_eq!(found(&index, "-reef"), [3]);
    assert_eq!(found(&index, "e-mail"), [3]);
    assert_eq!(found(&index, "\"email\" market"), [0_u64; 0]);
    assert_eq!(found(&index, ""), [1, 2, 3]);
    assert_eq!(found(&index, "?!"), [0_u64; 0]);
}

#[test]
fn the_last_word_may_be_unfinished_and_no_other() {
    let (_dir, index) =
        filled(&[put(1, "Photosynthesis explained", "x"), put(2, "Photo album", "x")]);
    assert_eq!(found(&index, "photosy"), [1]);
    assert_eq!(
        ids(&index, &asking("photos")),
        [id(1), id(2)],
        "the second only as a mistake in typing"
    );
    assert_eq!(found(&index, "phot"), [1, 2]);
    assert_eq!(found(&index, "explained photos"), [1]);
    assert_eq!(found(&index, "expl album"), [0_u64; 0]);
    assert_eq!(found(&index, "\"photos\""), [0_u64; 0]);
}

#[test]
fn a_title_counts_more_than_a_body_and_a_rank_among_equals() {
    let mut high = document(3, "Other", "about lagoons");
    high.rank = 1_000;
    let (_dir, index) = filled(&[
        put(1, "Other", "about lagoons"),
        put(2, "Lagoons", "about something"),
        Change::Put(high),
    ]);
    assert_eq!(ids(&index, &asking("lagoons")), [id(2), id(3), id(1)]);
}

#[test]
fn words_typed_wrong_come_after_exact_ones_and_pages_fit_together() {
    let mut changes: Vec<Change> = (0..5).map(|n| put(n, &format!("Science {n}"), "")).collect();
    changes.extend((5..30).map(|n| put(n, &format!("Sceince {n}"), "")));
    let (_dir, index) = filled(&changes);
    let all = ids(&index, &asking("science"));
    assert_eq!(all.len(), 30);
    assert!(all[..5].iter().all(|hit| (0..5).any(|n| id(n) == *hit)));
    let mut paged = Vec::new();
    for offset in (0..30).step_by(7) {
        let query = SearchQuery { limit: 7, offset, ..asking("science") };
        let page = index.query(&query).unwrap();
        assert_eq!(page.total, 30);
        paged.extend(page.hits.into_iter().map(|hit| hit.id));
    }
    assert_eq!(paged, all);
}

#[test]
fn long_words_may_be_wrong_twice_short_ones_and_numbers_never() {
    let (_dir, index) = filled(&[put(1, "University of the islands 2024", ""), put(2, "Cat", "")]);
    assert_eq!(found(&index, "univresitty islands"), [1]);
    assert_eq!(found(&index, "islnads university"), [1]);
    assert_eq!(found(&index, "2025"), [0_u64; 0]);
    assert_eq!(found(&index, "kat"), [0_u64; 0]);
    assert_eq!(found(&index, "\"univresity\""), [0_u64; 0]);
    assert_eq!(found(&index, "univresity -islands"), [0_u64; 0]);
}

#[test]
fn text_of_any_script_is_found() {
    let (_dir, index) = filled(&[
        put(1, "Überraschung", "Straße nach Łódź, café"),
        put(2, "東京大学", "日本語の本"),
        put(3, "Привет мир", "ЁЛКА"),
        put(4, "ภาษาไทย", "สวัสดี"),
        put(5, "한국어 학교에서", ""),
    ]);
    for (text, n) in [
        ("uberrasch", 1),
        ("STRASSE cafe\u{301}", 1),
        ("東京", 2),
        ("大学", 2),
        ("本語", 2),
        ("приве", 3),
        ("елка", 3),
        ("ไทย", 4),
        ("학교", 5),
    ] {
        assert_eq!(found(&index, text), [n], "{text}");
    }
    assert_eq!(found(&index, "京東"), [0_u64; 0]);
}

#[test]
fn filters_narrow_and_facets_count_all_hits() {
    let changes: Vec<Change> = (0..40)
        .map(|n| {
            let mut document = document(n, "Course", "learning");
            document.kind = (n % 4) as u16;
            document.tenant = if n < 36 { TENANT } else { OTHER };
            document.public = n % 2 == 0;
            document.status = if n < 10 { "draft" } else { "published" }.into();
            document.parent = (n < 5).then(|| id(999));
            let level = if n % 3 == 0 { "beginner" } else { "advanced" };
            document.facets =
                vec![("level".into(), level.into()), ("tag".into(), format!("t{}", n % 6))];
            Change::Put(document)
        })
        .collect();
    let (_dir, index) = filled(&changes);
    let total = |query: &SearchQuery| index.query(query).unwrap().total;
    let base = asking("course");
    assert_eq!(total(&base), 36);
    assert_eq!(total(&SearchQuery { tenant: OTHER, ..base.clone() }), 4);
    assert_eq!(total(&SearchQuery { tenant: Id([9; 16]), ..base.clone() }), 0);
    assert_eq!(total(&SearchQuery { kinds: vec![0, 3], ..base.clone() }), 18);
    assert_eq!(total(&SearchQuery { public_only: true, ..base.clone() }), 18);
    assert_eq!(total(&SearchQuery { status: Some("draft".into()), ..base.clone() }), 10);
    assert_eq!(total(&SearchQuery { parent: Some(id(999)), ..base.clone() }), 5);
    assert_eq!(total(&SearchQuery { from_ms: Some(10), to_ms: Some(20), ..base.clone() }), 10);
    assert_eq!(
        total(&SearchQuery { from_ms: Some(i64::MIN), to_ms: Some(i64::MAX), ..base.clone() }),
        36
    );
    let facet = |pairs: &[(&str, &str)]| SearchQuery {
        facets: pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        ..base.clone()
    };
    assert_eq!(total(&facet(&[("level", "beginner")])), 12);
    assert_eq!(total(&facet(&[("tag", "t0"), ("tag", "t1")])), 12);
    assert_eq!(total(&facet(&[("tag", "t0"), ("level", "advanced")])), 0);
    assert_eq!(total(&facet(&[("level", "t0")])), 0);

    let counting = SearchQuery {
        count_facets: vec!["level".into(), "none".into()],
        limit: 0,
        kinds: vec![0],
        ..base
    };
    let hits = index.query(&counting).unwrap();
    assert_eq!((hits.total, hits.hits.len()), (9, 0));
    let level = vec![("advanced".to_owned(), 6), ("beginner".to_owned(), 3)];
    assert_eq!(hits.facets, [("level".to_owned(), level), ("none".to_owned(), vec![])]);
}

#[test]
fn the_newest_come_first_where_asked_for() {
    let mut changes: Vec<Change> = (0..20).map(|n| put(n, "News", "")).collect();
    changes.push(put(99, "Newt", ""));
    let (_dir, index) = filled(&changes);
    let query = SearchQuery { sort: Sort::Newest, limit: 3, offset: 1, ..asking("news") };
    assert_eq!(ids(&index, &query), [id(18), id(17), id(16)]);
    assert_eq!(index.query(&query).unwrap().total, 20);
    let all = SearchQuery { limit: 2, ..asking("") };
    assert_eq!(ids(&index, &all), [id(99), id(19)]);
}

#[test]
fn a_page_is_bounded_however_much_is_asked_for() {
    let changes: Vec<Change> = (0..150).map(|n| put(n, "Page", "")).collect();
    let (_dir, index) = filled(&changes);
    let query = SearchQuery { limit: usize::MAX, ..asking("page") };
    assert_eq!(index.query(&query).unwrap().hits.len(), 100);
    let query = SearchQuery { limit: usize::MAX, offset: usize::MAX, ..asking("page") };
    let hits = index.query(&query).unwrap();
    assert_eq!((hits.total, hits.hits.len()), (150, 0));
}

#[test]
fn no_text_gives_an_error() {
    let mut documents = vec![put(0, "a \"b\" c* d~2 [e TO f]", "日本 (x AND y) OR z:1^9")];
    for n in 1..60 {
        let body: String = (0..n % 9)
            .map(|i| ["a ", "日", "ab ", "and ", "é "][(n * 7 + i * 3) as usize % 5])
            .collect();
        documents.push(put(n, if n % 3 == 0 { "ab a" } else { "日本 and" }, &body));
    }
    let (_dir, index) = filled(&documents);
    index
        .apply(&[Change::Remove(id(7)), put(60, "a a a", "ab ab"), put(61, "日日日", "")], 2)
        .unwrap();
    let pieces = [
        "\"", "-", "a", "日", " ", "*", "~", "(", ")", "\\", ":", "\u{0}", "é", "\u{301}", "🦀",
        "AND", "“", "ab",
    ];
    let mut state = 7_u64;
    for _ in 0..3_000 {
        let mut text = String::new();
        for _ in 0..state % 13 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        state = state.wrapping_add(0x9E37_79B9);
        index.query(&asking(&text)).unwrap();
        index.suggest(TENANT, &text, 5).unwrap();
        index.snippet(&asking(&text), &text);
    }
    for text in [
        "word ".repeat(5_000),
        "w".repeat(100_000),
        "\"a ".repeat(400),
        "-".repeat(9_000),
        "語".repeat(900),
    ] {
        index.query(&asking(&text)).unwrap();
        index.suggest(TENANT, &text, 5).unwrap();
    }
}

#[test]
fn titles_are_suggested_to_anyone_from_what_is_public() {
    let mut secret = document(7, "Coral secrets", "");
    secret.public = false;
    let mut foreign = document(8, "Coral abroad", "");
    foreign.tenant = OTHER;
    let mut popular = document(9, "All about coral", "");
    popular.rank = 1_000_000;
    let (_dir, index) = filled(&[
        put(1, "Coral reefs", ""),
        put(2, "Coral reefs", ""),
        put(3, "Corals of the north", ""),
        put(4, "Fish", "coral"),
        Change::Put(secret),
        Change::Put(foreign),
        Change::Put(popular),
    ]);
    let suggest = |prefix| index.suggest(TENANT, prefix, 10).unwrap();
    assert_eq!(suggest("cor").len(), 3);
    assert_eq!(suggest("cor").last().unwrap(), "All about coral");
    assert_eq!(suggest("coral re"), ["Coral reefs"]);
    assert_eq!(suggest("north cor"), ["Corals of the north"]);
    assert_eq!(suggest("c").len(), 3);
    assert!(suggest("").is_empty() && suggest("zzz").is_empty());
    assert_eq!(index.suggest(TENANT, "cor", 1).unwrap().len(), 1);
}

#[test]
fn a_document_put_again_is_replaced_and_a_removed_one_is_gone() {
    let (_dir, index) = filled(&[put(1, "First", ""), put(2, "Second", "")]);
    index
        .apply(
            &[put(1, "Third", ""), Change::Remove(id(2)), put(3, "x", ""), put(3, "Fourth", "")],
            2,
        )
        .unwrap();
    assert_eq!(index.count(), 2);
    assert_eq!(found(&index, "first"), [0_u64; 0]);
    assert_eq!(found(&index, "third"), [1]);
    assert_eq!(found(&index, "second"), [0_u64; 0]);
    assert_eq!(found(&index, "fourth"), [3]);
    index.apply(&[Change::Remove(id(50)), put(3, "x", ""), Change::Remove(id(3))], 3).unwrap();
    assert_eq!(index.count(), 1);
    index.clear().unwrap();
    assert_eq!((index.count(), index.cursor()), (0, 0));
    index.apply(&[put(1, "Again", "")], 9).unwrap();
    assert_eq!((found(&index, "again"), index.cursor()), (vec![1], 9));
}

#[test]
fn the_cursor_outlives_restarts_merges_and_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4_u64 {
        let (index, opened) = SearchIndex::open(dir.path(), 3).unwrap();
        assert_eq!(opened.cursor(), round * 12);
        for n in 1..=12 {
            let cursor = round * 12 + n;
            index.apply(&[put(cursor, "Merged", "")], cursor).unwrap();
        }
        index.release_writer().unwrap();
        index.release_writer().unwrap();
        assert_eq!(index.query(&asking("merged")).unwrap().total, round * 12 + 12);
    }
    let (index, opened) = SearchIndex::open(dir.path(), 3).unwrap();
    assert_eq!(opened, Opened::Existing { cursor: 48 });
    index.apply(&[], 50).unwrap();
    drop(index);
    let (index, opened) = SearchIndex::open(dir.path(), 3).unwrap();
    assert_eq!((opened.cursor(), index.count()), (50, 48));
    let segments = fs::read_dir(dir.path())
        .unwrap()
        .filter(|e| has_extension(&e.as_ref().unwrap().path(), "idx"));
    assert!(segments.count() < 20, "segments are merged");
}

#[test]
fn another_schema_version_begins_anew() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("search");
    for version in 1..=4 {
        let (index, opened) = SearchIndex::open(&dir, version).unwrap();
        assert_eq!((opened.cursor(), index.count()), (0, 0));
        assert_eq!(matches!(opened, Opened::SetAside { .. }), version > 1);
        index.apply(&[put(1, "x", "")], 5).unwrap();
    }
    let mut left: Vec<_> =
        fs::read_dir(parent.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["search", "search.damaged-2", "search.damaged-3"]);
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = SearchIndex::open(dir.path(), 1).unwrap();
    first.apply(&[put(1, "x", "")], 1).unwrap();
    let (second, _) = SearchIndex::open(dir.path(), 1).unwrap();
    assert!(matches!(second.apply(&[put(2, "x", "")], 2), Err(Error::Locked(_))));
    first.release_writer().unwrap();
    second.apply(&[put(2, "x", "")], 2).unwrap();
}

#[test]
fn readers_never_wait_and_never_see_half_a_batch() {
    let (_dir, index) = filled(&[put(0, "Even", "")]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let total = index.query(&asking("even")).unwrap().total;
                    assert!(total % 2 == 1 && total >= last, "{total} after {last}");
                    last = total;
                    index.suggest(TENANT, "ev", 5).unwrap();
                }
            });
        }
        for n in 1..=40_u64 {
            index.apply(&[put(2 * n, "Even", ""), put(2 * n + 1, "Even", "")], n).unwrap();
            if n % 15 == 0 {
                index.release_writer().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(index.count(), 81);
}

/// Run by the test below in a process of its own, and killed there.
#[test]
fn feeds_until_it_is_killed() {
    let Ok(dir) = std::env::var("SEARCH_FEED_DIR") else { return };
    let (index, opened) = SearchIndex::open(Path::new(&dir), 1).unwrap();
    for cursor in opened.cursor() + 1.. {
        let batch: Vec<Change> =
            (0..20).map(|n| put(cursor * 20 + n, "Fed", &"word ".repeat(50))).collect();
        index.apply(&batch, cursor).unwrap();
        println!("\nat {cursor}");
    }
}

#[test]
fn what_was_applied_before_a_kill_is_there_after_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("search");
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["feeds_until_it_is_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env("SEARCH_FEED_DIR", &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let at = |line: String| line.strip_prefix("at ").map(|n| n.parse::<u64>().unwrap());
        let acknowledged = lines.map_while(Result::ok).filter_map(at).nth(5 * round).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let (index, opened) = SearchIndex::open(&dir, 1).unwrap();
        assert!(matches!(opened, Opened::Existing { .. }), "{opened:?}");
        assert!(opened.cursor() >= acknowledged);
        assert_eq!(index.count(), opened.cursor() * 20);
        assert_eq!(index.query(&asking("fed")).unwrap().total, opened.cursor() * 20);
        index.verify().unwrap();
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

fn index_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| !path.file_name().unwrap().to_string_lossy().ends_with(".lock"));
    files.sort();
    files
}

fn some_documents() -> Vec<Change> {
    (0..300)
        .map(|n| {
            let mut document = document(n, &format!("Title {n}"), &format!("body {} text", n * 7));
            document.facets = vec![("tag".into(), format!("t{}", n % 9))];
            Change::Put(document)
        })
        .collect()
}

fn spoil(path: &Path, how: usize) {
    let mut bytes = fs::read(path).unwrap();
    let len = bytes.len();
    match how {
        0 => bytes.truncate(len / 2),
        1 => bytes.clear(),
        2 => bytes[len / 2] ^= 1,
        3 => bytes[0] ^= 0x80,
        _ => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_to_any_file_begins_anew_or_does_no_harm() {
    let parent = tempfile::tempdir().unwrap();
    let (sound, dir) = (parent.path().join("sound"), parent.path().join("search"));
    let (index, _) = SearchIndex::open(&sound, 1).unwrap();
    index.apply(&some_documents(), 7).unwrap();
    index.apply(&[Change::Remove(id(3))], 8).unwrap();
    drop(index);
    let names: Vec<_> =
        index_files(&sound).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    let files = names.len();
    assert!(files >= 8, "{names:?}");
    let mut set_aside = 0;
    for (name, how) in names.iter().flat_map(|name| (0..5).map(move |how| (name, how))) {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        for name in &names {
            fs::copy(sound.join(name), dir.join(name)).unwrap();
        }
        spoil(&dir.join(name), how);
        let (index, opened) = SearchIndex::open(&dir, 1).unwrap();
        match opened {
            Opened::Existing { cursor } => {
                assert_eq!((cursor, index.count()), (8, 299), "{name:?} spoilt {how}");
            }
            Opened::SetAside { moved_to, .. } => {
                assert!(moved_to.is_dir());
                assert_eq!((index.cursor(), index.count()), (0, 0));
                set_aside += 1;
            }
            Opened::Fresh => panic!("the old index is gone"),
        }
        if how % 2 == 0 {
            index.apply(&some_documents(), 9).unwrap();
            assert_eq!(index.query(&asking("title")).unwrap().total, 300);
            index.verify().unwrap();
        }
    }
    assert!(set_aside >= files * 4, "{set_aside} of {}", files * 5);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2 + 2, "two are kept aside");
}

#[test]
fn damage_met_while_open_is_an_error_and_the_next_open_begins_anew() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("search");
    let (index, _) = SearchIndex::open(&dir, 1).unwrap();
    index.apply(&some_documents(), 7).unwrap();
    index.release_writer().unwrap();
    for path in index_files(&dir) {
        if !has_extension(&path, "json") && !path.ends_with(".managed.json") {
            use std::io::Write;
            // In place, as a failing disk would: the index has these files mapped.
            let len = fs::metadata(&path).unwrap().len() as usize;
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .write_all(&vec![0xAA; len])
                .unwrap();
        }
    }
    for text in ["title", "\"body text\"", "titel", "b"] {
        let facets = SearchQuery { count_facets: vec!["tag".into()], ..asking(text) };
        for query in [asking(text), facets] {
            assert!(matches!(
                index.query(&query),
                Ok(_) | Err(Error::Damaged(_) | Error::Engine(_))
            ));
        }
    }
    assert!(matches!(index.verify(), Err(Error::Damaged(_))));
    drop(index);
    let (index, opened) = SearchIndex::open(&dir, 1).unwrap();
    assert!(matches!(opened, Opened::SetAside { .. }), "{opened:?}");
    index.apply(&some_documents(), 7).unwrap();
    assert_eq!(index.count(), 300);
}

#[test]
fn a_creation_that_was_broken_off_is_begun_again() {
    let parent = tempfile::tempdir().unwrap();
    for (name, content) in
        [(".managed.json", "[\"meta.js"), (".tmpAb12", ""), (".tantivy-writer.lock", "")]
    {
        let dir = parent.path().join(&name[1..]);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(name), content).unwrap();
        let (index, opened) = SearchIndex::open(&dir, 1).unwrap();
        assert_eq!(opened, Opened::Fresh, "{name}");
        index.apply(&[put(1, "x", "")], 1).unwrap();
    }
}

#[test]
fn a_snippet_marks_what_was_asked_and_escapes_the_rest() {
    let (_dir, index) = filled(&[]);
    let html = index.snippet(&asking("lagoon wat"), "<i>The lagoon's water</i> is warm");
    assert_eq!(html, "&lt;i&gt;The <mark>lagoon</mark>&#39;s <mark>water</mark>&lt;/i&gt; is warm");
}
