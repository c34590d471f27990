//! What the names and settings of a tenant must look like beyond what their declaration says. Reads nothing.

use super::{COLOURS, DOMAIN, LOCALE, LOGO_URL, SLUG, TIME_ZONE, quota};
use crate::error::{Error, FieldError, Result};
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Value};

const MOST_COLOURS: usize = 5;

/// A field, whether a text fits it, and what does.
type Rule = (&'static Field, fn(&str) -> bool, &'static str);

/// The changes, if every setting in them is well formed.
pub(super) fn checked(changes: Changes) -> Result<Changes> {
    let rules: [Rule; 4] = [
        (&LOCALE, is_locale, "must be a language tag such as en or pt-BR"),
        (&TIME_ZONE, is_time_zone, "must be a name as in the IANA database, such as Europe/Berlin"),
        (&LOGO_URL, is_address, "must be an address that begins with https:// or /"),
        (&COLOURS, are_colours, "takes up to five colours as #rrggbb with blanks between"),
    ];
    let mut errors = quota::check(&changes);
    for (field, fits, message) in rules {
        let text = changes.get(field).and_then(Value::as_text).filter(|text| !text.is_empty());
        if text.is_some_and(|text| !fits(text)) {
            errors.push(FieldError::new(field.name, "malformed", message));
        }
    }
    if errors.is_empty() { Ok(changes) } else { Err(Error::Invalid(errors)) }
}

fn is_locale(text: &str) -> bool {
    let mut parts = text.split('-');
    let is_language =
        |part: &str| (2..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphabetic());
    parts.next().is_some_and(is_language)
        && parts.all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        })
}

fn is_time_zone(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-');
    text.split('/').count() <= 3
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.split('/').all(|part| !part.is_empty() && part.bytes().all(fits))
}

fn is_address(text: &str) -> bool {
    let on_site = text.starts_with('/') && !text.starts_with("//");
    let on_web = text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
    (on_site || on_web) && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn are_colours(text: &str) -> bool {
    let is_colour = |word: &str| {
        word.strip_prefix('#')
            .is_some_and(|hex| hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    text.split(' ').count() <= MOST_COLOURS && text.split(' ').all(is_colour)
}

/// Slug and domain in lower case, and well formed.
pub(super) fn normal(mut changes: Changes) -> Result<Changes> {
    let mut errors = Vec::new();
    for (field, fits) in [(&SLUG, is_slug as fn(&str) -> bool), (&DOMAIN, is_domain)] {
        let Some(text) = changes.get(field).and_then(Value::as_text) else { continue };
        let text = text.trim().to_lowercase();
        if text.is_empty() && !field.required {
            changes = changes.set(field, Value::Null);
            continue;
        }
        if !fits(&text) {
            let message =
                "takes lower-case letters, digits and hyphens; a domain also dots between them";
            errors.push(FieldError::new(field.name, "malformed", message));
        }
        changes = changes.set(field, text);
    }
    if errors.is_empty() { Ok(changes) } else { Err(Error::Invalid(errors)) }
}

fn is_slug(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    // An id is no slug: X-Tenant takes either.
    !text.is_empty()
        && text.len() <= SLUG.max
        && text.chars().all(fits)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && Id::parse(text).is_none()
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= DOMAIN.max && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_from_what_is_none() {
        assert!(["en", "pt-BR", "zh-Hant-TW"].into_iter().all(is_locale));
        assert!(!["", "e", "en_GB", "en-", "1en"].into_iter().any(is_locale));
        assert!(
            ["UTC", "Europe/Berlin", "America/Argentina/Salta", "Etc/GMT+3"]
                .into_iter()
                .all(is_time_zone)
        );
        assert!(
            !["", "europe/berlin", "Europe/", "Europe/../etc", "A/B/C/D"]
                .into_iter()
                .any(is_time_zone)
        );
        assert!(["/logo.svg", "https://example.org/a.png"].into_iter().all(is_address));
        assert!(
            !["//evil.example", "javascript:alert(1)", "https://", "http://a", "/a b"]
                .into_iter()
                .any(is_address)
        );
        assert!(["#0a0B0c", "#000000 #ffffff"].into_iter().all(are_colours));
        assert!(!["red", "#fff", "#000000  #ffffff", "#00000g"].into_iter().any(are_colours));
        assert!(!are_colours(&["#000000"; 6].join(" ")));
    }

    #[test]
    fn slugs_and_domains_are_told_from_what_is_none() {
        assert!(is_slug("north-campus") && is_slug("a1"));
        for bad in
            ["", "-a", "a-", "A", "a b", "a.b", "a~k7f3ab", "0190b8e0-0000-7000-8000-000000000000"]
        {
            assert!(!is_slug(bad), "{bad}");
        }
        assert!(is_domain("example.org") && is_domain("localhost"));
        for bad in ["", "a..b", "-a.b", "a_b.c", "a.b:80", "http://a.b", &"a".repeat(64)] {
            assert!(!is_domain(bad), "{bad}");
        }
    }
}
