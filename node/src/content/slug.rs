//! Slugs: the names that stand in addresses. Made from a title, or checked if somebody wrote one.
//! Never asks more of the store than it must: a free name costs one look-up.

use crate::error::{Error, Result};
use atoll_storage::read::Read;
use atoll_storage::{Changes, Field, Id, Value};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{decompose_canonical, is_combining_mark};

/// Characters of a slug that was made from a title.
const MADE_MAX: usize = 80;
/// How many numbers are tried before the record's own suffix is taken.
const NUMBERS_TRIED: u32 = 9;

/// The slug of a title: letters and digits of any script in lower case, hyphens between; Latin letters lose their
/// accents. Empty if the title has none of them.
pub fn slug_of(title: &str) -> String {
    let mut slug = String::with_capacity(title.len().min(MADE_MAX * 4));
    let (mut length, mut gap) = (0, false);
    for c in title.nfkc().flat_map(char::to_lowercase).nfc() {
        let c = plain(c);
        if !c.is_alphanumeric() && !is_combining_mark(c) {
            gap = length > 0;
            continue;
        }
        if length + usize::from(gap) >= MADE_MAX {
            break;
        }
        if gap {
            slug.push('-');
            length += 1;
        }
        gap = false;
        slug.push(c);
        length += 1;
    }
    // What reads as an id leads to a record by its id.
    if Id::parse(&slug).is_some() { format!("n-{slug}") } else { slug }
}

/// `é` as `e`; the letters of other scripts stay as they are.
fn plain(c: char) -> char {
    if c.is_ascii() {
        return c;
    }
    let mut first = None;
    decompose_canonical(c, |part| {
        first.get_or_insert(part);
    });
    first.filter(char::is_ascii_alphabetic).unwrap_or(c)
}

/// A slug that somebody wrote, in lower case.
///
/// # Errors
/// `Invalid` if it holds anything but letters, digits and hyphens: a `~` tells losers of a name from its holder,
/// and what reads as an id leads to a record by its id.
pub fn checked(field: &Field, text: &str) -> Result<String> {
    let slug: String = text.trim().nfkc().flat_map(char::to_lowercase).collect();
    let fits =
        |c: char| c.is_alphanumeric() || is_combining_mark(c) || matches!(c, '-' | '_' | '.');
    let edge = |c: char| matches!(c, '-' | '.');
    let good = slug.chars().all(fits) && !slug.starts_with(edge) && !slug.ends_with(edge);
    if slug.is_empty() || !good || Id::parse(&slug).is_some() {
        let message = "takes letters, digits, hyphens, underscores and dots, and cannot be an id";
        return Err(Error::field(field.name, "malformed_slug", message));
    }
    if slug.chars().count() > field.max {
        return Err(Error::field(
            field.name,
            "too_long",
            format!("takes at most {} characters", field.max),
        ));
    }
    Ok(slug)
}

/// What is to become of a slug, settled before the write begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Written by somebody: taken is taken.
    Exactly(String),
    /// Made from a title: a number tells it from another one.
    Like(String),
}

impl Wanted {
    /// Of a new record: what the caller wrote, or else a slug of its title.
    pub fn of(changes: &Changes, field: &Field, title: &str) -> Result<Self> {
        match changes.get(field).and_then(Value::as_text).filter(|text| !text.trim().is_empty()) {
            Some(text) => checked(field, text).map(Self::Exactly),
            None => Ok(Self::Like(slug_of(title))),
        }
    }

    /// A name that is free in the tenant, or this record's own already.
    ///
    /// # Errors
    /// `Conflict` (`slug_taken`) if the very name was asked for and another record has it.
    pub fn settle(self, reader: &impl Read, field: &Field, tenant: Id, key: Id) -> Result<String> {
        let space = field.claim.unwrap_or_default();
        let is_free = |name: &str| {
            reader.claimed(tenant, space, name).map(|holder| holder.is_none_or(|k| k == key))
        };
        let base = match self {
            Self::Exactly(name) if is_free(&name)? => return Ok(name),
            Self::Exactly(name) => {
                let message =
                    format!("the slug {name} is taken: choose another one, or leave it out");
                return Err(Error::conflict("slug_taken", message));
            }
            Self::Like(base) if base.is_empty() => "untitled".to_owned(),
            Self::Like(base) => base,
        };
        if is_free(&base)? {
            return Ok(base);
        }
        for number in 2..=NUMBERS_TRIED {
            let name = format!("{base}-{number}");
            if is_free(&name)? {
                return Ok(name);
            }
        }
        Ok(format!("{base}-{}", key.suffix()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLUG: Field = Field::text(1, "slug").max(20).claim("test.slug");

    #[test]
    fn a_title_becomes_a_slug_in_its_own_script() {
        assert_eq!(slug_of("  Crème brûlée, à la Ünï! "), "creme-brulee-a-la-uni");
        assert_eq!(slug_of("Привет, мир"), "привет-мир");
        assert_eq!(slug_of("বাংলা ভাষা"), "বাংলা-ভাষা");
        assert_eq!(slug_of("C++ / C#"), "c-c");
        assert_eq!(slug_of("?!"), "");
        assert_eq!(
            slug_of("0190b8e0-0000-7000-8000-000000000000"),
            "n-0190b8e0-0000-7000-8000-000000000000"
        );
        assert!(slug_of(&"ab ".repeat(500)).chars().count() <= MADE_MAX);
    }

    #[test]
    fn a_written_slug_is_folded_or_refused() {
        assert_eq!(checked(&SLUG, " Intro-2 ").ok().as_deref(), Some("intro-2"));
        for bad in [
            "",
            "a b",
            "a/b",
            "a~k7f3ab",
            "-a",
            "a-",
            "0190b8e0000070008000000000000000",
            &"a".repeat(21),
        ] {
            assert!(checked(&SLUG, bad).is_err(), "{bad}");
        }
    }
}
