//! Long text that people edit together. The one place that imports automerge.
//!
//! A body is born as plain text and costs nothing more until its first edit. Then its document is made, byte for
//! byte the same on every node: one genesis change whose actor comes from the creation dot, at time 0.
//! Bytes from elsewhere are applied to a copy, under `catch_unwind`, and the result must load before it counts.

use crate::error::{Error, Result};
use crate::id::{Dot, Origin};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{
    ActorId, AutoCommit, Automerge, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc,
};
use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub type Heads = Vec<[u8; 32]>;

/// Bodies of a megabyte are text; beyond it they are files.
pub const MAX_BYTES: usize = 1 << 20;
/// A diff that takes longer gives the pieces it has: correct, if not the smallest.
const DIFF_TIME: Duration = Duration::from_millis(60);

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
        Some(bytes) => AutoCommit::load(bytes).map_err(failed),
        None => genesis(&content.born, creation),
    }
}

fn text_id(doc: &impl ReadDoc) -> Result<ObjId> {
    match doc.get(ROOT, TEXT).map_err(failed)? {
        Some((automerge::Value::Object(ObjType::Text), id)) => Ok(id),
        _ => Err(Error::Body("the document holds no text".into())),
    }
}

fn content_of(mut doc: AutoCommit, born: String) -> Result<Content> {
    let text = doc.text(text_id(&doc)?).map_err(failed)?;
    if text.len() > 4 * MAX_BYTES {
        return Err(Error::TooLong { size: text.len(), limit: MAX_BYTES });
    }
    let mut heads: Heads = doc.get_heads().iter().map(|hash| hash.0).collect();
    heads.sort_unstable();
    Ok(Content { born, text, doc: Some(doc.save()), heads })
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
        doc.set_actor(ActorId::from(author.to_bytes().as_slice()));
        let text = text_id(&doc)?;
        for splice in splices(&content.text, wanted) {
            doc.splice_text(&text, splice.at, splice.delete, &splice.insert).map_err(failed)?;
        }
        doc.commit_with(CommitOptions::default().with_time((time_ms / 1000) as i64));
        let change =
            doc.get_last_local_change().ok_or_else(|| Error::Body("nothing changed".into()))?;
        Ok(Some(change.raw_bytes().to_vec()))
    })
}

/// As [`edit`], by somebody who began from the text as it stood at `base` and not from the present one: what he changed
/// is added to what was changed since. None if he changed nothing, or if this very change is there already.
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
    guarded(|| {
        let mut doc = open(content, creation)?;
        let mut past = if base.is_empty() {
            genesis(&content.born, creation)?
        } else {
            let base: Vec<ChangeHash> = base.iter().map(|hash| ChangeHash(*hash)).collect();
            doc.fork_at(&base).map_err(failed)?
        };
        let splices = splices(&began, wanted);
        past.set_actor(branch_actor(author, base, &splices));
        let text = text_id(&past)?;
        for splice in &splices {
            past.splice_text(&text, splice.at, splice.delete, &splice.insert).map_err(failed)?;
        }
        past.commit_with(CommitOptions::default().with_time(0));
        let change =
            past.get_last_local_change().ok_or_else(|| Error::Body("nothing changed".into()))?;
        let is_there = doc.get_change_by_hash(&change.hash()).is_some();
        Ok((!is_there).then(|| change.raw_bytes().to_vec()))
    })
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

/// Applies changes that were made anywhere. The content is replaced only if the result loads again.
pub fn apply(content: &Content, creation: Dot, changes: &[&[u8]]) -> Result<Content> {
    guarded(|| {
        let mut doc = open(content, creation)?;
        let parsed = changes.iter().map(|bytes| Change::from_bytes(bytes.to_vec()).map_err(failed));
        let parsed = parsed.collect::<Result<Vec<_>>>()?;
        let count = parsed.len();
        doc.apply_changes(parsed).map_err(failed)?;
        if count > 0 && !doc.get_missing_deps(&[]).is_empty() {
            return Err(Error::Body("the change builds on one that is not here".into()));
        }
        reloaded(doc, content.born.clone())
    })
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

fn reloaded(doc: AutoCommit, born: String) -> Result<Content> {
    let content = content_of(doc, born)?;
    let bytes = content.doc.as_deref().unwrap_or_default();
    let again = Automerge::load(bytes).map_err(failed)?;
    if again.text(text_id(&again)?).map_err(failed)? != content.text {
        return Err(Error::Body("the saved document does not give its text back".into()));
    }
    Ok(content)
}

/// The text as it stood at the given heads.
pub fn text_at(content: &Content, heads: &[[u8; 32]]) -> Result<String> {
    let Some(bytes) = content.doc.as_deref().filter(|_| !heads.is_empty()) else {
        return Ok(content.born.clone());
    };
    guarded(|| {
        let doc = Automerge::load(bytes).map_err(failed)?;
        let heads: Vec<ChangeHash> = heads.iter().map(|hash| ChangeHash(*hash)).collect();
        if heads.iter().any(|hash| doc.get_change_by_hash(hash).is_none()) {
            return Err(Error::Missing("version of the body"));
        }
        doc.text_at(text_id(&doc)?, &heads).map_err(failed)
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
    for op in capture_diff_slices_deadline(Algorithm::Myers, &old_words, &new_words, Some(deadline))
    {
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
                apply(&content, CREATION(), &[]).unwrap();
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
    fn a_change_whose_past_is_missing_is_refused() {
        let born = Content::born("x".into());
        let first = apply(&born, CREATION(), &[&edited(&born, 1, "xy")]).unwrap();
        let second = edited(&first, 1, "xyz");
        assert!(matches!(apply(&born, CREATION(), &[&second]), Err(Error::Body(_))));
    }
}
