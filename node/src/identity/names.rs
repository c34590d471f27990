//! What e-mail addresses and usernames may look like. Pure; whether one is taken, the store says.

use super::user::{EMAIL, USERNAME};
use crate::error::FieldError;

pub(super) fn normal_email(email: &str) -> String {
    email.trim().to_lowercase()
}

pub(super) fn check_email(email: &str) -> Result<(), FieldError> {
    let refuse = |code, message| Err(FieldError::new("email", code, message));
    if email.is_empty() {
        return refuse("required", "is required");
    }
    let Some((local, domain)) = email.split_once('@') else {
        return refuse("not_an_email", "is not an e-mail address");
    };
    let odd = |c: char| {
        c.is_control() || c.is_whitespace() || matches!(c, '@' | '<' | '>' | '(' | ')' | ',' | ';')
    };
    let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.') || !c.is_ascii();
    let good = !local.is_empty()
        && local.len() <= 64
        && !domain.is_empty()
        && !email.chars().any(|c| c != '@' && odd(c))
        && domain.chars().all(host)
        && domain.split('.').all(|label| !label.is_empty());
    match good {
        false => refuse("not_an_email", "is not an e-mail address"),
        true if email.len() > EMAIL.max => refuse("too_long", "takes at most 254 bytes"),
        true => Ok(()),
    }
}

pub(super) fn check_username(name: &str) -> Result<(), FieldError> {
    let refuse = |code, message: &str| Err(FieldError::new("username", code, message));
    let fits =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    match name.len() {
        0 => refuse("required", "is required"),
        1 | 2 => refuse("too_short", "takes at least 3 characters"),
        _ if OF_PATHS.contains(&name) => refuse("reserved", "is a word that paths need"),
        3..=32
            if name.chars().all(fits) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) =>
        {
            Ok(())
        }
        3..=32 => refuse(
            "malformed",
            "takes letters a to z, digits, dots, hyphens and underscores, and starts with a letter or digit",
        ),
        _ => refuse("too_long", "takes at most 32 characters"),
    }
}

/// Words of paths below `/users/`, where a user is found by his name too.
const OF_PATHS: &[&str] = &["export", "import", "me", "profile"];
/// What those who run a place are called.
const OF_STAFF: &[&str] = &[
    "abuse",
    "admin",
    "administrator",
    "moderator",
    "postmaster",
    "root",
    "security",
    "staff",
    "superadmin",
    "support",
    "system",
    "webmaster",
];

/// Not for people who choose a name by themselves.
pub(super) fn is_reserved(name: &str) -> bool {
    OF_PATHS.contains(&name) || OF_STAFF.contains(&name)
}

/// As [`check_username`], for somebody who chooses his own.
pub(super) fn check_chosen(name: &str) -> Result<(), FieldError> {
    check_username(name)?;
    if OF_STAFF.contains(&name) {
        return Err(FieldError::new("username", "reserved", "is for those who run this place"));
    }
    Ok(())
}

/// A username made from the first part of an e-mail address; `other` if that makes none.
pub fn username_from(local: &str, other: &str) -> String {
    let folded = local.to_lowercase();
    let fits =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let name: String = folded.chars().filter(|c| fits(*c)).take(USERNAME.max).collect();
    let name = name.trim_start_matches(['.', '-', '_']);
    if name.len() < 3 { other.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        for good in ["ada@example.org", "ada+tag@localhost", "ада@пример.рф"] {
            assert_eq!(check_email(good), Ok(()), "{good}");
        }
        let long = format!("a@{}", "b".repeat(300));
        for bad in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "a b@c.d",
            "a@b@c",
            "a@b..c",
            "a@b.c~k7f3ab",
            "a\n@b.c",
            &long,
        ] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn usernames_can_be_neither_addresses_nor_the_names_of_losers() {
        for good in ["ada", "ada.lovelace", "x-1_2"] {
            assert_eq!(check_username(good), Ok(()), "{good}");
        }
        for bad in ["", "ad", "ada@x", "ada~k7f3ab", ".ada", "Ada", "ада", &"a".repeat(33)] {
            assert!(check_username(bad).is_err(), "{bad}");
        }
        assert_eq!(username_from("Ada.Lovelace+x", "user"), "ada.lovelacex");
        assert_eq!(username_from("я", "user"), "user");
        let code = |name: &str| check_chosen(name).err().map(|error| error.code);
        assert_eq!(code("profile"), Some("reserved"));
        assert_eq!((code("admin"), check_username("admin")), (Some("reserved"), Ok(())));
        assert_eq!(code("ada"), None);
    }
}
