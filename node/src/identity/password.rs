//! Passwords: what is accepted, how it is hashed, how it is checked. Never logs one, never compares one in a time
//! that tells something. Hashing takes tens of milliseconds: callers run it on the node's pool.

mod foreign;

use self::foreign::Foreign;
use crate::error::{Error, FieldError, Result};
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

pub const MIN_CHARS: usize = 10;
pub const MAX_BYTES: usize = 200;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A hash that came from elsewhere may not cost more than this.
const MOST_MEMORY_KIB: u32 = 64 * 1024;
const MOST_PASSES: u32 = 10;
const MOST_LANES: u32 = 4;

/// Of a password that nobody has: checked when there is no such user, so that both take equally long.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$7q3V1Jb2a8m4o0gq0m5sZr0fC0nVxv8wT5Yl4r6Qm1E";

/// Long enough, and among the first that anybody tries.
const COMMON: &[&str] = &[
    "0123456789",
    "0987654321",
    "1234567890",
    "12345678910",
    "1234567891",
    "123123123123",
    "123456789a",
    "1q2w3e4r5t",
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "9876543210",
    "abc1234567",
    "abcd123456",
    "abcdefghij",
    "admin12345",
    "administrator",
    "adminadmin",
    "asdfghjkl1",
    "asdfghjkl;",
    "changeme123",
    "football123",
    "iloveyou123",
    "letmein123",
    "passw0rd123",
    "password12",
    "password123",
    "password1234",
    "password12345",
    "passwordpassword",
    "princess123",
    "q1w2e3r4t5",
    "qwerty12345",
    "qwerty123456",
    "qwertyqwerty",
    "qwertyuiop",
    "qwertyuiop123",
    "secret1234",
    "sunshine123",
    "welcome123",
    "welcome1234",
    "zxcvbnm123",
];

/// What a new password must be. `names` are those that it must not equal: e-mail, username.
pub fn check(field: &str, password: &str, names: &[&str]) -> Result<(), FieldError> {
    let refuse = |code, message: String| Err(FieldError::new(field, code, message));
    if password.chars().count() < MIN_CHARS {
        return refuse("too_short", format!("takes at least {MIN_CHARS} characters"));
    }
    if password.len() > MAX_BYTES {
        return refuse("too_long", format!("takes at most {MAX_BYTES} bytes"));
    }
    let folded = password.to_lowercase();
    if names.iter().any(|name| name.to_lowercase() == folded) {
        return refuse("too_weak", "must differ from e-mail address and username".to_owned());
    }
    if COMMON.contains(&folded.as_str()) {
        return refuse("too_weak", "is among the first that anybody tries".to_owned());
    }
    let mut chars = password.chars();
    let first = chars.next();
    if chars.all(|c| Some(c) == first) {
        return refuse("too_weak", "must not be one character repeated".to_owned());
    }
    Ok(())
}

/// Argon2id with 19 MiB and two passes, in PHC format.
pub fn hash(password: &str, salt: [u8; 16]) -> Result<String> {
    let failed =
        |e: argon2::password_hash::Error| Error::Internal(format!("hashing a password: {e}"));
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|e| Error::Internal(format!("hashing a password: {e}")))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(argon2.hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

/// Whether the password is that of the hash. Without a hash it works as long, and says no.
pub fn verify(password: &str, hash: Option<&str>) -> bool {
    if let Some(foreign) = hash.and_then(Foreign::parse) {
        return foreign.is_of(password);
    }
    let known = hash.and_then(|hash| affordable(hash).then_some(hash));
    let Ok(parsed) = PasswordHash::new(known.unwrap_or(NOBODYS)) else { return false };
    let right = Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
    right && known.is_some()
}

/// Of another system's making: it is replaced by one of ours as soon as its password is known.
pub fn is_foreign(hash: &str) -> bool {
    Foreign::parse(hash).is_some()
}

/// A hash that can be taken over: one of ours, bcrypt, or PBKDF2 as Django, passlib or werkzeug writes it; none that would
/// cost too much.
pub fn check_hash(field: &str, hash: &str) -> Result<(), FieldError> {
    if affordable(hash) || is_foreign(hash) {
        return Ok(());
    }
    let message = format!(
        "must be argon2id, bcrypt up to a cost of {}, or PBKDF2 of Django, passlib or werkzeug (SHA-1, SHA-256, SHA-512) \
         up to {} iterations",
        foreign::MOST_COST,
        foreign::MOST_ITERATIONS
    );
    Err(FieldError::new(field, "unknown_hash", message))
}

fn affordable(hash: &str) -> bool {
    if !hash.starts_with("$argon2") {
        return false;
    }
    let params = PasswordHash::new(hash).and_then(|hash| Params::try_from(&hash));
    params.is_ok_and(|params| {
        params.m_cost() <= MOST_MEMORY_KIB
            && params.t_cost() <= MOST_PASSES
            && params.p_cost() <= MOST_LANES
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_own_hash_only() -> Result<()> {
        let hash = hash("correct horse battery", [7; 16])?;
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify("correct horse battery", Some(&hash)));
        assert!(!verify("correct horse batterie", Some(&hash)));
        assert!(!verify("correct horse battery", None));
        assert!(!verify("", Some("not a hash")));
        Ok(())
    }

    #[test]
    fn the_hash_of_nobody_is_well_formed_and_as_dear_as_others() {
        let parsed = PasswordHash::new(NOBODYS).unwrap();
        let params = Params::try_from(&parsed).unwrap();
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (MEMORY_KIB, PASSES, LANES)
        );
        assert_eq!(parsed.hash.map(|output| output.len()), Some(32));
    }

    #[test]
    fn a_hash_that_would_eat_the_machine_is_not_computed() {
        let greedy = "$argon2id$v=19$m=4194304,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$7q3V1Jb2a8m4o0gq0m5sZr0fC0nVxv8wT5Yl4r6Qm1E";
        assert!(!affordable(greedy));
        assert!(!verify("whatever it is", Some(greedy)));
    }

    #[test]
    fn weak_passwords_are_refused_with_a_reason() {
        let code = |password: &str| {
            check("password", password, &["ada@example.org", "adalovelace"]).map_err(|e| e.code)
        };
        assert_eq!(code("short"), Err("too_short"));
        assert_eq!(code(&"long".repeat(60)), Err("too_long"));
        assert_eq!(code("AdaLovelace"), Err("too_weak"));
        assert_eq!(code("aaaaaaaaaaaa"), Err("too_weak"));
        assert_eq!(code("Password123"), Err("too_weak"));
        assert!(COMMON.iter().all(|common| common.chars().count() >= MIN_CHARS));
        assert_eq!(code("пароль-из-слов"), Ok(()));
    }
}
