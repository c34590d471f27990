//! Long text that people edit together. The one place that imports automerge.
//!
//! A body is born as plain text and costs nothing more until its first edit. Then its document is made, byte for
//! byte the same on every node: one genesis change whose actor comes from the creation dot, at time 0.
//! Bytes from elsewhere are applied to a copy, under `catch_unwind`, and what is saved is what loads to the same.
//!
//! A saved document is one chunk of all history and then the changes since, which are packed into it as they add up.

mod memo;
mod told;

pub use told::{Told, told};

use crate::error::{Error, Result};
use crate::id::{Dot, Origin};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc};
use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub type Heads = Vec<[u8; 32]>;

/// Bodies of a megabyte are text; beyond it they are files.
pub const MAX_BYTES: usize = 1 << 20;
/// A history that is longer is added to by nobody here. What others add to it meanwhile is taken: they had not seen it.
pub const MAX_HISTORY_BYTES: usize = 4 << 20;
/// One change goes over a link as a whole. That of a text whose letters were put together one by one is the longest.
pub const MAX_CHANGE_BYTES: usize = 4 << 20;
/// A diff that takes longer gives the pieces it has: correct, if not the smallest.
const DIFF_TIME: Duration = Duration::from_millis(60);
/// Of a passage, a quarter must be left of what it was, or it is replaced as one.
const LEAST_KEPT: usize = 4;
/// Changes are packed when they are half as large as the history before them, and not before they are this large.
const MIN_LOOSE_BYTES: usize = 4 << 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The text it was born with.
    pub born: String,
    pub text: String,
    /// The saved document; none until the first edit.
    pub doc: Option<Vec<u8>>,
    pub heads: Heads,
}

impl Content {
    pub fn born(text: String) -> Self {
        Self { born: text.clone(), text, doc: None, heads: vec![] }
    }
}

const TEXT: &str = "text";

fn genesis(born: &str, creation: Dot) -> Result<AutoCommit> {
    let mut doc = AutoCommit::new().with_actor(ActorId::from(creation.to_bytes().as_slice()));
    let text = doc.put_object(ROOT, TEXT, ObjType::Text).map_err(failed)?;
    doc.splice_text(&text, 0, 0, born).map_err(failed)?;
    doc.commit_with(CommitOptions::default().with_time(0));
    Ok(doc)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Body(error.to_string())
}

fn open(content: &Content, creation: Dot) -> Result<AutoCommit> {
    match &content.doc {
        Some(bytes) => match memo::take(memo::name_of(&[bytes])) {
            Some(doc) => Ok(doc),
            None => AutoCommit::load(bytes).map_err(failed),
        },
        None => genesis(&content.born, creation),
    }
}

/// The bytes that a change is added to.
fn saved(content: &Content, doc: &mut AutoCommit) -> Vec<u8> {
    content.doc.clone().unwrap_or_else(|| doc.save())
}

/// The size of the first chunk of a saved document. Its head is four bytes of magic, four of checksum, one of type and
/// the length of what follows, seven bits a byte.
fn packed_len(saved: &[u8]) -> usize {
    let mut length: usize = 0;
    for (i, byte) in saved.iter().enumerate().skip(9).take(5) {
        length |= usize::from(byte & 0x7f) << (7 * (i - 9));
        if byte & 0x80 == 0 {
            return (i + 1 + length).min(saved.len());
        }
    }
    saved.len()
}

fn text_id(doc: &impl ReadDoc) -> Result<ObjId> {
    match doc.get(ROOT, TEXT).map_err(failed)? {
        Some((automerge::Value::Object(ObjType::Text), id)) => Ok(id),
        _ => Err(Error::Body("the document holds no text".into())),
    }
}

fn text_of(doc: &impl ReadDoc) -> Result<String> {
    let text = doc.text(text_id(doc)?).map_err(failed)?;
    if text.len() > 4 * MAX_BYTES {
        return Err(Error::TooLong { size: text.len(), limit: MAX_BYTES });
    }
    Ok(text)
}

fn heads_of(doc: &mut AutoCommit) -> Heads {
    let mut heads: Heads = doc.get_heads().iter().map(|hash| hash.0).collect();
    heads.sort_unstable();
    heads
}

/// The change that turns the present text into `wanted`, for the log; none if it says so already.
pub fn edit(
    content: &Content,
    creation: Dot,
    author: Origin,
    time_ms: u64,
    wanted: &str,
) -> Result<Option<Vec<u8>>> {
    if wanted.len() > MAX_BYTES {
        return Err(Error::TooLong { size: wanted.len(), limit: MAX_BYTES });
    }
    if content.text == wanted {
        return Ok(None);
    }
    guarded(|| {
        let mut doc = open(content, creation)?;
        let before = saved(content, &mut doc);
        doc.set_actor(ActorId::from(author.to_bytes().as_slice()));
        let time_s = (time_ms / 1000) as i64;
        let change = change(&mut doc, &splices(&content.text, wanted), time_s)?;
        let bytes = change.raw_bytes().to_vec();
        memo::put(memo::name_of(&[&before, &bytes]), before.len() + bytes.len(), doc);
        Ok(Some(bytes))
    })
}

/// To be asked before an edit that somebody makes here.
///
/// # Errors
/// `LongHistory` for a text that is not to be edited here any more.
pub fn must_be_short(content: &Content) -> Result<()> {
    let (size, limit) = (content.doc.as_ref().map_or(0, Vec::len), MAX_HISTORY_BYTES);
    if size > limit { Err(Error::LongHistory { size, limit }) } else { Ok(()) }
}

fn change(doc: &mut AutoCommit, splices: &[Splice], time_s: i64) -> Result<Change> {
    let text = text_id(doc)?;
    for splice in splices {
        doc.splice_text(&text, splice.at, splice.delete, &splice.insert).map_err(failed)?;
    }
    doc.commit_with(CommitOptions::default().with_time(time_s));
    doc.get_last_local_change().ok_or_else(|| Error::Body("nothing changed".into()))
}

/// As [`edit`], by somebody who began from the text as it stood at `base` and not from the present one: what he changed
/// is added to what was changed since. None if he changed nothing, or if this very change is there already.
///
/// # Errors
/// As [`must_be_short`], also where the present text is what he wants.
pub fn edit_from(
    content: &Content,
    creation: Dot,
    author: Origin,
    base: &[[u8; 32]],
    wanted: &str,
) -> Result<Option<Vec<u8>>> {
    if wanted.len() > MAX_BYTES {
        return Err(Error::TooLong { size: wanted.len(), limit: MAX_BYTES });
    }
    let began = text_at(content, base)?;
    if began == wanted {
        return Ok(None);
    }
    must_be_short(content)?;
    guarded(|| {
        let mut doc = open(content, creation)?;
        let before = saved(content, &mut doc);
        let base_heads: Vec<ChangeHash> = base.iter().map(|hash| ChangeHash(*hash)).collect();
        let splices = splices(&began, wanted);
        let actor = branch_actor(author, base, &splices);
        let is_present = match &content.doc {
            Some(_) => is_at(&mut doc, &base_heads),
            None => base.is_empty(),
        };
        if !is_present {
            let mut past = if base.is_empty() {
                genesis(&content.born, creation)?
            } else {
                doc.fork_at(&base_heads).map_err(failed)?
            };
            past.set_actor(actor);
            let change = change(&mut past, &splices, 0)?;
            let is_there = doc.get_change_by_hash(&change.hash()).is_some();
            memo::put(memo::name_of(&[&before]), before.len(), doc);
            return Ok((!is_there).then(|| change.raw_bytes().to_vec()));
        }
        doc.set_actor(actor);
        let bytes = change(&mut doc, &splices, 0)?.raw_bytes().to_vec();
        memo::put(memo::name_of(&[&before, &bytes]), before.len() + bytes.len(), doc);
        Ok(Some(bytes))
    })
}

/// Whether a document stands at these heads, with nothing after them.
fn is_at(doc: &mut AutoCommit, heads: &[ChangeHash]) -> bool {
    let mut present = doc.get_heads();
    let mut heads = heads.to_vec();
    present.sort_unstable();
    heads.sort_unstable();
    present == heads
}

/// An actor for one change beside the present history. It is made of what it changes, so that a request that is sent
/// twice is one change, and two changes never have one actor.
fn branch_actor(author: Origin, base: &[[u8; 32]], splices: &[Splice]) -> ActorId {
    let mut hasher = blake3::Hasher::new();
    for head in base {
        hasher.update(head);
    }
    for splice in splices {
        hasher.update(&(splice.at as u64).to_le_bytes());
        hasher.update(&(splice.delete as u64).to_le_bytes());
        hasher.update(&(splice.insert.len() as u64).to_le_bytes());
        hasher.update(splice.insert.as_bytes());
    }
    let mut bytes = author.to_bytes().to_vec();
    bytes.extend_from_slice(&hasher.finalize().as_bytes()[..16]);
    ActorId::from(bytes.as_slice())
}

/// Applies changes that were made anywhere. What comes of it is saved as what they were applied to and then the
/// changes, which is what loading does again; or, if it is packed, after it has been loaded again.
pub fn apply(content: &Content, creation: Dot, changes: &[&[u8]]) -> Result<Content> {
    guarded(|| {
        let (mut doc, bytes) = applied(content, creation, changes)?;
        let loose = bytes.len() - packed_len(&bytes);
        if loose > (packed_len(&bytes) / 2).max(MIN_LOOSE_BYTES) {
            return reloaded(doc, content.born.clone());
        }
        let text = text_of(&doc)?;
        let heads = heads_of(&mut doc);
        memo::put(memo::name_of(&[&bytes]), bytes.len(), doc);
        Ok(Content { born: content.born.clone(), text, doc: Some(bytes), heads })
    })
}

/// The document with these changes, and the bytes that it loads from.
fn applied(content: &Content, creation: Dot, changes: &[&[u8]]) -> Result<(AutoCommit, Vec<u8>)> {
    let parsed = changes.iter().map(|bytes| Change::from_bytes(bytes.to_vec()).map_err(failed));
    let parsed = parsed.collect::<Result<Vec<_>>>()?;
    let mut fresh = None;
    let mut bytes = match &content.doc {
        Some(saved) => saved.clone(),
        None => fresh.insert(genesis(&content.born, creation)?).save(),
    };
    let raw: Vec<&[u8]> = parsed.iter().map(Change::raw_bytes).collect();
    let all = [&[bytes.as_slice()], raw.as_slice()].concat();
    if let Some(doc) = memo::take(memo::name_of(&all)) {
        return Ok((doc, all.concat()));
    }
    let mut doc = match fresh {
        Some(doc) => doc,
        None => open(content, creation)?,
    };
    for change in &parsed {
        if doc.get_change_by_hash(&change.hash()).is_some() {
            continue;
        }
        // As loading does it.
        doc.load_incremental(change.raw_bytes()).map_err(failed)?;
        if doc.get_change_by_hash(&change.hash()).is_none() {
            return Err(Error::Body("the change builds on one that is not here".into()));
        }
        bytes.extend_from_slice(change.raw_bytes());
    }
    Ok((doc, bytes))
}

/// The content with its heads, as its document has them.
pub fn apply_if_edited(content: &Content, creation: Dot) -> Result<Content> {
    if content.doc.is_some() { apply(content, creation, &[]) } else { Ok(content.clone()) }
}

/// One document of both, for states that met without their ops.
pub fn merge(mine: &Content, theirs: &Content, creation: Dot) -> Result<Content> {
    match (&mine.doc, &theirs.doc) {
        (_, None) => Ok(mine.clone()),
        (None, Some(_)) => guarded(|| reloaded(open(theirs, creation)?, mine.born.clone())),
        (Some(_), Some(_)) => match guarded(|| meet(mine, theirs, creation)) {
            Err(Error::Body(_)) => guarded(|| greater(mine, theirs, creation)),
            met => met,
        },
    }
}

fn meet(mine: &Content, theirs: &Content, creation: Dot) -> Result<Content> {
    let mut doc = open(mine, creation)?;
    let mut other = open(theirs, creation)?;
    doc.merge(&mut other).map_err(failed)?;
    reloaded(doc, mine.born.clone())
}

/// Two lives of one node have given one number to different edits: no history holds both, and all nodes must keep the
/// same one.
fn greater(mine: &Content, theirs: &Content, creation: Dot) -> Result<Content> {
    let theirs = reloaded(open(theirs, creation)?, mine.born.clone())?;
    let mine = reloaded(open(mine, creation)?, mine.born.clone())?;
    Ok(if theirs.heads > mine.heads { theirs } else { mine })
}

/// Packed into one chunk, which must give the text back.
fn reloaded(mut doc: AutoCommit, born: String) -> Result<Content> {
    let text = text_of(&doc)?;
    let heads = heads_of(&mut doc);
    let bytes = doc.save();
    let again = AutoCommit::load(&bytes).map_err(failed)?;
    if again.text(text_id(&again)?).map_err(failed)? != text {
        return Err(Error::Body("the saved document does not give its text back".into()));
    }
    memo::put(memo::name_of(&[&bytes]), bytes.len(), again);
    Ok(Content { born, text, doc: Some(bytes), heads })
}

/// The text as it stood at the given heads.
pub fn text_at(content: &Content, heads: &[[u8; 32]]) -> Result<String> {
    let Some(bytes) = content.doc.as_deref().filter(|_| !heads.is_empty()) else {
        return Ok(content.born.clone());
    };
    guarded(|| {
        let name = memo::name_of(&[bytes]);
        let doc = match memo::take(name) {
            Some(doc) => doc,
            None => AutoCommit::load(bytes).map_err(failed)?,
        };
        let heads: Vec<ChangeHash> = heads.iter().map(|hash| ChangeHash(*hash)).collect();
        if heads.iter().any(|hash| doc.get_change_by_hash(hash).is_none()) {
            return Err(Error::Missing("version of the body"));
        }
        let text = doc.text_at(text_id(&doc)?, &heads).map_err(failed)?;
        memo::put(name, bytes.len(), doc);
        Ok(text)
    })
}

fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Body("automerge gave up on it".into())))
}

struct Splice {
    at: usize,
    delete: isize,
    insert: String,
}

/// What turns `old` into `new`: by line, and by word within the lines that differ. Positions count characters
/// of the text as already changed, as `splice_text` wants them.
fn splices(old: &str, new: &str) -> Vec<Splice> {
    let deadline = Instant::now() + DIFF_TIME;
    let (old_lines, new_lines) = (lines(old), lines(new));
    let mut out = Vec::new();
    let mut at = 0;
    for op in capture_diff_slices_deadline(Algorithm::Myers, &old_lines, &new_lines, Some(deadline))
    {
        let (tag, was, is) = op.as_tag_tuple();
        let (was, is) = (old_lines[was].concat(), new_lines[is].concat());
        if tag == DiffTag::Equal {
            at += width(&was);
        } else {
            by_word(&was, &is, deadline, &mut at, &mut out);
        }
    }
    out
}

fn by_word(old: &str, new: &str, deadline: Instant, at: &mut usize, out: &mut Vec<Splice>) {
    let (old_words, new_words) = (words(old), words(new));
    let ops =
        capture_diff_slices_deadline(Algorithm::Myers, &old_words, &new_words, Some(deadline));
    let equal = ops.iter().filter(|op| op.tag() == DiffTag::Equal);
    let kept: usize = equal.map(|op| old_words[op.old_range()].concat().len()).sum();
    if kept * LEAST_KEPT < old.len().min(new.len()) {
        out.push(Splice { at: *at, delete: width(old) as isize, insert: new.to_owned() });
        *at += width(new);
        return;
    }
    for op in ops {
        let (tag, was, is) = op.as_tag_tuple();
        let (was, is) = (old_words[was].concat(), new_words[is].concat());
        if tag != DiffTag::Equal {
            out.push(Splice { at: *at, delete: width(&was) as isize, insert: is.clone() });
        }
        *at += width(&is);
    }
}

/// automerge counts Unicode scalar values here.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (i, c) in text.char_indices() {
        let is_word = c.is_alphanumeric();
        if last.is_some_and(|last| last != is_word || !is_word) {
            words.push(&text[start..i]);
            start = i;
        }
        last = Some(is_word);
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn origin(n: u8) -> Origin {
        Origin { node: NodeId([n; 16]), epoch: 1 }
    }

    const CREATION: fn() -> Dot = || Dot { origin: origin(9), seq: 1 };

    fn edited(content: &Content, n: u8, wanted: &str) -> Vec<u8> {
        edit(content, CREATION(), origin(n), 5_000, wanted).unwrap().unwrap()
    }

    #[test]
    fn two_first_edits_made_apart_meet_in_one_history() {
        let born = Content::born("The quick fox\njumps over\nthe dog".into());
        let a = edited(&born, 1, "The quick brown fox\njumps over\nthe dog");
        let b = edited(&born, 2, "The quick fox\njumps over\nthe lazy dög 🐕");
        let one = apply(&apply(&born, CREATION(), &[&a]).unwrap(), CREATION(), &[&b]).unwrap();
        let two = apply(&apply(&born, CREATION(), &[&b]).unwrap(), CREATION(), &[&a]).unwrap();
        assert_eq!(one.text, "The quick brown fox\njumps over\nthe lazy dög 🐕");
        assert_eq!((&one.text, &one.heads), (&two.text, &two.heads));
        assert_eq!(text_at(&one, &[]).unwrap(), born.text);
        let merged = merge(&apply(&born, CREATION(), &[&a]).unwrap(), &two, CREATION()).unwrap();
        assert_eq!(merged.heads, one.heads);
    }

    #[test]
    fn of_two_histories_that_give_one_number_twice_both_sides_keep_the_same() {
        let born = Content::born("The quick fox".into());
        let first = apply(&born, CREATION(), &[&edited(&born, 1, "The brown fox")]).unwrap();
        let other = apply(&born, CREATION(), &[&edited(&born, 1, "The lazy fox")]).unwrap();
        let one = merge(&first, &other, CREATION()).unwrap();
        let two = merge(&other, &first, CREATION()).unwrap();
        assert_eq!((&one.text, &one.heads), (&two.text, &two.heads));
        assert!([&first.text, &other.text].contains(&&one.text));
    }

    #[test]
    fn an_edit_of_an_older_text_adds_to_the_present_one_and_counts_once() {
        let born = Content::born("The quick fox\njumps over\nthe dog".into());
        let first = apply(
            &born,
            CREATION(),
            &[&edited(&born, 1, "The quick brown fox\njumps over\nthe dog")],
        );
        let first = first.unwrap();
        let from = |content: &Content, base: &[[u8; 32]], wanted: &str| {
            edit_from(content, CREATION(), origin(1), base, wanted).unwrap()
        };
        let stale = "The quick fox\njumps over\nthe lazy dog";
        let change = from(&first, &[], stale).unwrap();
        let second = apply(&first, CREATION(), &[&change]).unwrap();
        assert_eq!(second.text, "The quick brown fox\njumps over\nthe lazy dog");
        assert_eq!(from(&second, &[], stale), None, "the same request again");
        assert_eq!(from(&second, &[], &born.text), None, "nothing was changed");
        let change = from(&second, &first.heads, "The quick brown fox\nleaps over\nthe dog");
        let third = apply(&second, CREATION(), &[&change.unwrap()]).unwrap();
        assert_eq!(third.text, "The quick brown fox\nleaps over\nthe lazy dog");
        let change = edited(&third, 1, "Short.");
        assert_eq!(apply(&third, CREATION(), &[&change]).unwrap().text, "Short.");
        assert!(edit_from(&third, CREATION(), origin(1), &[[7; 32]], "x").is_err());
    }

    #[test]
    fn every_flipped_byte_of_a_change_is_refused_or_leaves_a_body_that_loads() {
        let born = Content::born("some text to be changed".into());
        let change = edited(&born, 1, "some other text to be changed, and more");
        for at in 0..change.len() {
            let mut bytes = change.clone();
            bytes[at] ^= 0x41;
            if let Ok(content) = apply(&born, CREATION(), &[&bytes]) {
                let mut loaded = AutoCommit::load(content.doc.as_deref().unwrap()).unwrap();
                assert_eq!(heads_of(&mut loaded), content.heads);
            }
        }
    }

    #[test]
    fn a_rewritten_text_is_bounded_in_time_and_exact() {
        let old: String = (0..4_000).map(|i| format!("w{i} ")).collect();
        let new: String = (0..4_000).map(|i| format!("v{} ", i * 7)).collect();
        let born = Content::born(old);
        let change = edited(&born, 1, &new);
        assert_eq!(apply(&born, CREATION(), &[&change]).unwrap().text, new);
    }

    #[test]
    fn a_saved_document_is_packed_as_changes_add_up_and_loads_to_the_same() {
        let mut content = Content::born("begin".into());
        let mut packed = 0;
        for i in 0..120 {
            let wanted = format!("{} and edit {i}, with some more words to say", content.text);
            let change = edited(&content, 1, &wanted);
            content = apply(&content, CREATION(), &[&change]).unwrap();
            let bytes = content.doc.as_deref().unwrap();
            packed += usize::from(packed_len(bytes) == bytes.len());
            let mut loaded = AutoCommit::load(bytes).unwrap();
            assert_eq!(
                (text_of(&loaded).unwrap(), heads_of(&mut loaded)),
                (wanted, content.heads.clone())
            );
            let again = apply(&content, CREATION(), &[&change]).unwrap();
            assert_eq!(again, content, "a change counts once");
        }
        assert!((1..60).contains(&packed), "packed {packed} times");
    }

    #[test]
    fn a_passage_of_which_little_is_left_is_replaced_as_one() {
        let splices =
            splices("one line\nred green blue\nlast", "one line\nwholly other words\nlast");
        assert_eq!(splices.len(), 1);
        assert_eq!(super::splices("red green blue", "red black blue").len(), 1);
        assert_eq!(super::splices("a red green blue b", "a red black blue c").len(), 2);
    }

    #[test]
    fn a_long_history_is_edited_no_more() {
        let content = |bytes| Content { doc: Some(vec![0; bytes]), ..Content::default() };
        assert!(must_be_short(&Content::default()).is_ok());
        assert!(must_be_short(&content(MAX_HISTORY_BYTES)).is_ok());
        let refused = must_be_short(&content(MAX_HISTORY_BYTES + 1));
        assert!(refused.is_err_and(|error| error.to_string().contains("make a new record")));
    }

    /// Whoever began from an older text can say the present one: that takes away once more what is gone, and the text stays
    /// as it is while its history grows.
    #[test]
    fn a_long_history_is_not_added_to_from_an_older_text_either() {
        let born = Content::born(String::new());
        let change = edited(&born, 1, "one two three");
        let first = apply(&born, CREATION(), &[&change]).unwrap();
        let gone = apply(&first, CREATION(), &[&edited(&first, 1, "")]).unwrap();
        let again = |content: &Content, base: &Content| {
            edit_from(content, CREATION(), origin(2), &base.heads, &content.text)
        };
        assert!(again(&gone, &first).unwrap().is_some_and(|more| !more.is_empty()));
        // A change that is there already counts once, and takes its room.
        let mut doc = gone.doc.clone().unwrap();
        doc.extend(change.repeat(MAX_HISTORY_BYTES / change.len() + 1));
        let long = Content { doc: Some(doc), ..gone };
        assert_eq!(again(&long, &long).unwrap(), None, "who changes nothing is let be");
        assert!(matches!(again(&long, &first), Err(Error::LongHistory { .. })));
    }

    #[test]
    fn a_change_whose_past_is_missing_is_refused() {
        let born = Content::born("x".into());
        let first = apply(&born, CREATION(), &[&edited(&born, 1, "xy")]).unwrap();
        let second = edited(&first, 1, "xyz");
        assert!(matches!(apply(&born, CREATION(), &[&second]), Err(Error::Body(_))));
    }
}
