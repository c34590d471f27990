//! Password hashes that other systems made: bcrypt, and PBKDF2 as Django and passlib write it. They are checked and never
//! made. One that would cost more than a second is not taken, whoever brings it.

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::borrow::Cow;
use std::num::NonZeroU32;

/// Each step doubles the work; 12 takes about a quarter of a second.
pub(super) const MOST_COST: u32 = 12;
const LEAST_COST: u32 = 4;
/// About half a second.
pub(super) const MOST_ITERATIONS: u32 = 2_000_000;
const MOST_SALT_BYTES: usize = 128;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Foreign<'a> {
    /// `$2b$12$` with 22 characters of salt and 31 of hash.
    Bcrypt(&'a str),
    /// `pbkdf2_sha256$iterations$salt$hash`, or `$pbkdf2-sha256$iterations$salt$hash` with the salt encoded too.
    Pbkdf2 { iterations: NonZeroU32, salt: Cow<'a, [u8]>, hash: [u8; 32] },
}

impl<'a> Foreign<'a> {
    /// None for what is no such hash, or costs too much.
    pub fn parse(text: &'a str) -> Option<Self> {
        match text.strip_prefix("$pbkdf2-sha256$") {
            Some(rest) => passlib_of(rest),
            None if text.starts_with('$') => bcrypt_of(text),
            None => django_of(text.strip_prefix("pbkdf2_sha256$")?),
        }
    }

    pub fn is_of(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Pbkdf2 { iterations, salt, hash } => {
                let secret = password.as_bytes();
                pbkdf2::verify(PBKDF2_HMAC_SHA256, *iterations, salt, secret, hash).is_ok()
            }
        }
    }
}

fn bcrypt_of(text: &str) -> Option<Foreign<'_>> {
    let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let (cost, rest) = rest.split_once('$')?;
    let is_cost = cost.len() == 2
        && cost.parse().is_ok_and(|cost: u32| (LEAST_COST..=MOST_COST).contains(&cost));
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/');
    (is_cost && rest.len() == 53 && rest.chars().all(fits)).then_some(Foreign::Bcrypt(text))
}

fn django_of(rest: &str) -> Option<Foreign<'_>> {
    let [iterations, salt, hash] = parts(rest)?;
    pbkdf2_of(iterations, salt.as_bytes().into(), &STANDARD.decode(hash).ok()?)
}

/// Its base 64 has a dot for the plus, and no padding.
fn passlib_of(rest: &str) -> Option<Foreign<'_>> {
    let [iterations, salt, hash] = parts(rest)?;
    let decode = |text: &str| STANDARD_NO_PAD.decode(text.replace('.', "+")).ok();
    pbkdf2_of(iterations, decode(salt)?.into(), &decode(hash)?)
}

fn parts(rest: &str) -> Option<[&str; 3]> {
    let parts: Vec<&str> = rest.splitn(4, '$').collect();
    parts.try_into().ok()
}

fn pbkdf2_of<'a>(iterations: &str, salt: Cow<'a, [u8]>, hash: &[u8]) -> Option<Foreign<'a>> {
    let iterations: NonZeroU32 = iterations.parse().ok()?;
    let hash: [u8; 32] = hash.try_into().ok()?;
    let fits = iterations.get() <= MOST_ITERATIONS && (1..=MOST_SALT_BYTES).contains(&salt.len());
    fits.then_some(Foreign::Pbkdf2 { iterations, salt, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "correct horse battery";
    const OF_BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS";
    const OF_DJANGO: &str =
        "pbkdf2_sha256$1000$seasalt$DrdiWD40lyBuydnjvZiDrdQMx1S1mOA9O0QYex0R6ww=";

    const OF_PASSLIB: &str =
        "$pbkdf2-sha256$1000$c2Vhc2FsdCE$9YzBG2AACIEebMww8lgFkUL/ZO9iAqI7I7uSqGigwp0";

    #[test]
    fn hashes_of_other_systems_fit_their_passwords_only() {
        let of_php = OF_BCRYPT.replace("$2b$", "$2y$");
        let of_old = OF_BCRYPT.replace("$2b$", "$2a$");
        for text in [OF_BCRYPT, OF_DJANGO, OF_PASSLIB, &of_php, &of_old] {
            let foreign = Foreign::parse(text);
            assert!(foreign.clone().is_some_and(|foreign| foreign.is_of(PASSWORD)), "{text}");
            assert!(!foreign.is_some_and(|foreign| foreign.is_of("wrong horse battery")), "{text}");
        }
    }

    #[test]
    fn a_hash_that_would_eat_the_machine_or_is_none_is_not_taken() {
        let dear = [
            OF_BCRYPT.replace("$04$", "$13$"),
            OF_BCRYPT.replace("$04$", "$31$"),
            OF_DJANGO.replace("$1000$", "$2000001$"),
            OF_DJANGO.replace("$1000$", "$4294967295$"),
            OF_DJANGO.replace("seasalt", &"s".repeat(129)),
        ];
        let broken = [
            String::new(),
            "$2b$04$".to_owned(),
            OF_BCRYPT.replace("$04$", "$4$"),
            OF_BCRYPT.replace("$2b$", "$2x$"),
            OF_BCRYPT.replace('Q', "é"),
            OF_DJANGO.replace("$1000$", "$0$"),
            OF_DJANGO.replace("$1000$", "$-1$"),
            OF_DJANGO.replace("sha256", "md5"),
            format!("{OF_DJANGO}$x"),
            "pbkdf2_sha256$1000$salt$AAAA".to_owned(),
            OF_PASSLIB.replace("$1000$", "$2000001$"),
            OF_PASSLIB.replace("sha256", "sha1"),
            format!("{OF_PASSLIB}$x"),
        ];
        for text in dear.iter().chain(&broken) {
            assert_eq!(Foreign::parse(text), None, "{text}");
        }
    }
}
