//! Files that a body names beside its text: pictures, sound, documents. An import brings texts alone, so an address on
//! the old site is led there if the import says where that is, and is told of if not. Never fetches anything.

use super::entry::beginning;
use std::collections::BTreeSet;

/// The longest address, in bytes.
const ADDRESS_MAX: usize = 2_000;
/// Names that a note tells one by one.
const TOLD: usize = 5;
/// What stands before an address, in Markdown and in HTML.
const OPENINGS: [&str; 5] = ["](", "src=\"", "src='", "href=\"", "href='"];
const ENDINGS: &[&str] = &[
    "apng", "avif", "bmp", "csv", "doc", "docx", "epub", "flac", "gif", "gz", "ico", "jpeg", "jpg",
    "m4a", "m4v", "mov", "mp3", "mp4", "odt", "ogg", "ogv", "opus", "pdf", "png", "ppt", "pptx",
    "svg", "tif", "tiff", "wav", "webm", "webp", "xls", "xlsx", "zip",
];

/// The body with addresses on `site` (`https://old.example.org`, or empty if it is not known), and those that lead
/// nowhere from here. `base`: the address of the post there, from its first slash on.
pub(super) fn settle(body: &str, site: &str, base: &str) -> (Option<String>, BTreeSet<String>) {
    let (mut lost, mut settled, mut copied) = (BTreeSet::new(), String::new(), 0);
    let mut at = 0;
    while let Some((start, end)) = next(body, at) {
        at = end;
        let address = &body[start..end];
        if !is_here(address) {
            continue;
        }
        match led(site, base, address) {
            None => {
                lost.insert(address.to_owned());
            }
            Some(there) => {
                settled.push_str(&body[copied..start]);
                settled.push_str(&there);
                copied = end;
            }
        }
    }
    if copied == 0 {
        return (None, lost);
    }
    settled.push_str(&body[copied..]);
    (Some(settled), lost)
}

/// The address on the old site, if that is known.
pub(super) fn led(site: &str, base: &str, address: &str) -> Option<String> {
    (!site.is_empty()).then(|| format!("{site}{}", path_at(base, address)))
}

/// A sentence for the report.
pub(super) fn note(lost: &BTreeSet<String>) -> Option<String> {
    let more = lost.len().saturating_sub(TOLD);
    let mut names = lost.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        names.push_str(&format!(" and {more} more"));
    }
    let advice = "files are not brought over: name the old site, or put them at these addresses";
    (!lost.is_empty()).then(|| format!("names files that are not here: {names}; {advice}"))
}

/// The next address from `at` on. Looks at each byte once.
fn next(body: &str, at: usize) -> Option<(usize, usize)> {
    let mut from = at;
    let (mut start, end) = loop {
        let found = from + body[from..].find(['(', '"', '\''])?;
        from = found + 1;
        if OPENINGS.iter().any(|opening| body[at..from].ends_with(opening)) {
            break (from, body.as_bytes()[found]);
        }
    };
    if end == b'(' && body[start..].starts_with('<') {
        start += 1;
    }
    let is_end = |c: char| match end {
        b'(' => c.is_whitespace() || matches!(c, ')' | '>'),
        quote => c == char::from(quote),
    };
    let address = beginning(&body[start..], ADDRESS_MAX);
    let length = address.find(is_end).unwrap_or(address.len());
    Some((start, start + length))
}

/// Whether it is a file that was on the old site and has no host of its own.
pub(super) fn is_here(address: &str) -> bool {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let is_elsewhere = path.starts_with("//") || path.contains(':') || path.contains(['{', '\n']);
    let ending = path.rsplit('/').next().and_then(|name| name.rsplit_once('.'));
    let is_file = ending.is_some_and(|(name, ending)| {
        !name.is_empty() && ENDINGS.contains(&ending.to_ascii_lowercase().as_str())
    });
    is_file && !is_elsewhere
}

/// From its first slash on.
fn path_at(base: &str, address: &str) -> String {
    if address.starts_with('/') {
        return address.to_owned();
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    if !base.ends_with('/') {
        parts.pop();
    }
    for part in address.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_old_site_are_found_in_markdown_and_html() {
        let body = "![a](a.png) [b](</b.pdf> \"t\") <img src='../c.JPG?x=1'> ![d](https://x.org/d.png) \
                    [e](/about/) <a href=\"//cdn/f.png\">f</a> ![g]({{ site.url }}/g.png) ![é](é";
        let (settled, lost) = settle(body, "", "/blog/trip/");
        assert_eq!(settled, None);
        assert_eq!(
            lost.iter().map(String::as_str).collect::<Vec<_>>(),
            ["../c.JPG?x=1", "/b.pdf", "a.png"]
        );
        assert!(note(&lost).is_some_and(|note| note.contains("/b.pdf")));
        let (settled, lost) = settle(body, "https://old.org", "/blog/trip/");
        let settled = settled.unwrap_or_default();
        for wanted in [
            "](https://old.org/blog/trip/a.png)",
            "<https://old.org/b.pdf>",
            "'https://old.org/blog/c.JPG?x=1'",
            "](https://x.org/d.png)",
            "![é](é",
        ] {
            assert!(settled.contains(wanted), "{wanted} in {settled}");
        }
        assert!(lost.is_empty() && note(&lost).is_none());
    }

    #[test]
    fn a_page_that_is_no_folder_has_its_files_beside_it() {
        assert_eq!(path_at("/2024/01/x.html", "a.png"), "/2024/01/a.png");
        assert_eq!(path_at("", "./a.png"), "/a.png");
        assert_eq!(path_at("/x/", "../../../a.png"), "/a.png");
    }
}
