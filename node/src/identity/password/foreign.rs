//! Password hashes that other systems made: bcrypt, and PBKDF2 with SHA-1, SHA-256 or SHA-512 as Django, passlib and
//! werkzeug write it. They are checked and never made. One that would cost more than a second is not taken, whoever brings
//! it.

use aws_lc_rs::pbkdf2::{
    self, Algorithm, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512,
};
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Digest {
    Sha1,
    Sha256,
    Sha512,
}

impl Digest {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Sha1 => PBKDF2_HMAC_SHA1,
            Self::Sha256 => PBKDF2_HMAC_SHA256,
            Self::Sha512 => PBKDF2_HMAC_SHA512,
        }
    }

    const fn size_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Foreign<'a> {
    /// `$2b$12$` with 22 characters of salt and 31 of hash.
    Bcrypt(&'a str),
    Pbkdf2 {
        digest: Digest,
        iterations: NonZeroU32,
        salt: Cow<'a, [u8]>,
        hash: Vec<u8>,
    },
}

impl<'a> Foreign<'a> {
    /// None for what is no such hash, or costs too much.
    pub fn parse(text: &'a str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("$pbkdf2") {
            return passlib_of(rest);
        }
        if let Some(rest) = text.strip_prefix("pbkdf2_") {
            return django_of(rest);
        }
        if let Some(rest) = text.strip_prefix("pbkdf2:") {
            return werkzeug_of(rest);
        }
        bcrypt_of(text)
    }

    pub fn is_of(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Pbkdf2 { digest, iterations, salt, hash } => {
                let secret = password.as_bytes();
                pbkdf2::verify(digest.algorithm(), *iterations, salt, secret, hash).is_ok()
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

/// `pbkdf2_sha256$iterations$salt$hash`
fn django_of(rest: &str) -> Option<Foreign<'_>> {
    let [digest, iterations, salt, hash] = parts(rest)?;
    pbkdf2_of(digest, iterations, salt.as_bytes().into(), STANDARD.decode(hash).ok()?)
}

/// `$pbkdf2-sha256$iterations$salt$hash`, and `$pbkdf2$…` for SHA-1. The salt is encoded too; its base 64 has a dot for the
/// plus, and no padding.
fn passlib_of(rest: &str) -> Option<Foreign<'_>> {
    let [digest, iterations, salt, hash] = parts(rest)?;
    let digest = if digest.is_empty() { "sha1" } else { digest.strip_prefix('-')? };
    let decode = |text: &str| STANDARD_NO_PAD.decode(text.replace('.', "+")).ok();
    pbkdf2_of(digest, iterations, decode(salt)?.into(), decode(hash)?)
}

/// `pbkdf2:sha256:iterations$salt$hash`, the hash in hexadecimal digits.
fn werkzeug_of(rest: &str) -> Option<Foreign<'_>> {
    let [method, salt, hash] = parts(rest)?;
    let (digest, iterations) = method.split_once(':')?;
    let (pairs, []) = hash.as_bytes().as_chunks::<2>() else { return None };
    let byte = |pair: &[u8; 2]| {
        let is_hex = pair.iter().all(u8::is_ascii_hexdigit);
        u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|_| is_hex)?, 16).ok()
    };
    let hash = pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?;
    pbkdf2_of(digest, iterations, salt.as_bytes().into(), hash)
}

fn parts<const N: usize>(rest: &str) -> Option<[&str; N]> {
    let parts: Vec<&str> = rest.splitn(N + 1, '$').collect();
    parts.try_into().ok()
}

fn pbkdf2_of<'a>(
    digest: &str,
    iterations: &str,
    salt: Cow<'a, [u8]>,
    hash: Vec<u8>,
) -> Option<Foreign<'a>> {
    let (digest, iterations) = (Digest::parse(digest)?, iterations.parse::<NonZeroU32>().ok()?);
    let fits = iterations.get() <= MOST_ITERATIONS
        && (1..=MOST_SALT_BYTES).contains(&salt.len())
        && hash.len() == digest.size_bytes();
    fits.then_some(Foreign::Pbkdf2 { digest, iterations, salt, hash })
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
    const OF_WERKZEUG: &str = "pbkdf2:sha256:1000$seasalt!$f58cc11b600008811e6ccc30f258059142ff64ef6202a23b23bb92a868a0c29d";

    /// The same password and salt under the other digests.
    const OF_OTHER_DIGESTS: [&str; 6] = [
        "pbkdf2_sha1$1000$seasalt!$f14UxuA14APmMxAVkRmalKg5S3M=",
        "$pbkdf2$1000$c2Vhc2FsdCE$f14UxuA14APmMxAVkRmalKg5S3M",
        "pbkdf2:sha1:1000$seasalt!$7f5e14c6e035e003e633101591199a94a8394b73",
        "pbkdf2_sha512$1000$seasalt!$0oiwbHUEFh60M8sIRUmzh9ecqXvjsRmsTHDIzf8/uFVJi5t579EnYkSiDM8v810VmJwfiw/UtK06Qutx+Mfjtw==",
        "$pbkdf2-sha512$1000$c2Vhc2FsdCE$0oiwbHUEFh60M8sIRUmzh9ecqXvjsRmsTHDIzf8/uFVJi5t579EnYkSiDM8v810VmJwfiw/UtK06Qutx.Mfjtw",
        "pbkdf2:sha512:1000$seasalt!$d288b06c7504161eb433cb084549b387d79ca97be3b119ac4c70c8cdff3fb855498b9b79efd1276244a20ccf2ff35d15989c1f8b0fd4b4ad3a42eb71f8c7e3b7",
    ];

    #[test]
    fn hashes_of_other_systems_fit_their_passwords_only() {
        let of_php = OF_BCRYPT.replace("$2b$", "$2y$");
        let of_old = OF_BCRYPT.replace("$2b$", "$2a$");
        let usual = [OF_BCRYPT, OF_DJANGO, OF_PASSLIB, OF_WERKZEUG, &of_php, &of_old];
        for text in usual.into_iter().chain(OF_OTHER_DIGESTS) {
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
            OF_PASSLIB.replace("-sha256", "sha256"),
            format!("{OF_PASSLIB}$x"),
            OF_WERKZEUG.replace(":1000", ""),
            OF_WERKZEUG.replace(":1000", ":2000001"),
            OF_WERKZEUG.replace("sha256", "md5"),
            OF_WERKZEUG.replace("c29d", "c2+d"),
            OF_WERKZEUG.replace("c29d", "c29"),
            OF_WERKZEUG.replace("sha256", "sha512"),
        ];
        for text in dear.iter().chain(&broken) {
            assert_eq!(Foreign::parse(text), None, "{text}");
        }
    }
}
