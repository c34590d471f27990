//! Entity tags: `"<record version>.<hash of the body>"`, or the hash alone where no record is shown. The hash
//! tells whether an answer changed, the version whether the record did: that is what `If-Match` guards.

use atoll_storage::Id;

/// Of the body's bytes, and of the record's version if the answer shows one record.
pub fn of(version: Option<&[u8; 16]>, body: &[u8]) -> String {
    let hash = blake3::hash(body);
    let mut tag = String::with_capacity(52);
    tag.push('"');
    if let Some(version) = version {
        hex(&mut tag, version);
        tag.push('.');
    }
    hex(&mut tag, &hash.as_bytes()[..8]);
    tag.push('"');
    tag
}

/// Whether `If-Match` names the record's version, or any.
pub fn meets(if_match: &str, version: &[u8; 16]) -> bool {
    let mut wanted = String::with_capacity(32);
    hex(&mut wanted, version);
    let of_tag = |tag: &str| tag.split('.').next() == Some(wanted.as_str());
    tags(if_match).any(|tag| tag == "*" || of_tag(tag))
}

/// The record's version that a tag names, if it is the tag of a record.
pub fn version_of(tag: &str) -> Option<[u8; 16]> {
    let version = tags(tag).next()?.split('.').next()?;
    Id::parse(version).filter(|_| version.len() == 32).map(|id| id.0)
}

/// Whether `If-None-Match` names this tag: then the client has the answer already.
pub fn is_known(if_none_match: &str, tag: &str) -> bool {
    let tag = tag.trim_matches('"');
    tags(if_none_match).any(|known| known == "*" || known == tag)
}

/// The tags of a list without quotes and weakness: an answer that a proxy compressed comes back weak.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
}

fn hex(text: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_the_version_and_the_body() {
        let tag = of(Some(&[0xab; 16]), b"body");
        assert!(tag.starts_with(&format!("\"{}.", "ab".repeat(16))), "{tag}");
        assert_ne!(tag, of(Some(&[0xab; 16]), b"another"));
        assert!(is_known(&tag, &tag) && is_known("*", &tag));
        assert!(is_known(&format!("\"x\", W/{tag}"), &tag));
        assert!(!is_known("\"x\"", &tag));
    }

    #[test]
    fn a_precondition_is_met_by_the_version_whatever_was_shown_of_the_record() {
        let other_view = of(Some(&[7; 16]), b"only some fields");
        assert!(meets(&other_view, &[7; 16]) && meets("*", &[7; 16]));
        assert!(!meets(&other_view, &[8; 16]) && !meets("", &[7; 16]));
        assert_eq!(version_of(&other_view), Some([7; 16]));
        assert_eq!((version_of(&of(None, b"a list")), version_of("")), (None, None));
    }
}
