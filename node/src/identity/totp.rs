//! Codes that change every thirty seconds (RFC 6238, with HMAC-SHA-1 and six digits, as every app takes them).
//! Pure: the time comes in, and nothing is kept.

use crate::percent::encode;
use aws_lc_rs::{constant_time, hmac};

pub(super) const SECRET_BYTES: usize = 20;
pub(super) const STEP_S: u64 = 30;
/// Steps by which a clock may be off.
const DRIFT: u64 = 1;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The step whose code this is, if it is one of now.
pub(super) fn step_of(secret: &[u8], code: &str, now_s: u64) -> Option<u64> {
    let now = now_s / STEP_S;
    let fits = |step: &u64| {
        let wanted = format!("{:06}", code_at(secret, *step));
        constant_time::verify_slices_are_equal(wanted.as_bytes(), code.as_bytes()).is_ok()
    };
    (now.saturating_sub(DRIFT)..=now + DRIFT).find(fits)
}

fn code_at(secret: &[u8], step: u64) -> u32 {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    let at = bytes.last().map_or(0, |last| usize::from(last & 15));
    let word: Option<[u8; 4]> = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    let word = word.unwrap_or_default();
    (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000
}

/// Base 32 without padding, five bits a character.
pub(super) fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

/// What an app reads from a QR code.
pub(super) fn uri(issuer: &str, account: &str, secret: &[u8]) -> String {
    let (issuer, account) = (encode(issuer), encode(account));
    let secret = base32(secret);
    format!(
        "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits=6&period={STEP_S}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"12345678901234567890";

    #[test]
    fn codes_are_those_of_the_standard() {
        for (now_s, code) in [
            (59, 287_082),
            (1_111_111_109, 81_804),
            (1_111_111_111, 50_471),
            (1_234_567_890, 5_924),
            (2_000_000_000, 279_037),
            (20_000_000_000, 353_130),
        ] {
            assert_eq!(code_at(SECRET, now_s / STEP_S), code, "{now_s}");
        }
    }

    #[test]
    fn a_code_is_good_one_step_before_and_after_and_no_longer() {
        let code = "081804";
        let step = 1_111_111_109 / STEP_S;
        for now in [step - 1, step, step + 1] {
            assert_eq!(step_of(SECRET, code, now * STEP_S), Some(step));
        }
        for now in [step - 2, step + 2] {
            assert_eq!(step_of(SECRET, code, now * STEP_S), None);
        }
        for bad in ["", "81804", "081805", "0818040", "٠٨١٨٠٤"] {
            assert_eq!(step_of(SECRET, bad, step * STEP_S), None, "{bad}");
        }
    }

    #[test]
    fn base_32_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(base32(SECRET).len(), 32);
    }

    #[test]
    fn the_uri_is_escaped() {
        let uri = uri("North & co", "ada@example.org", b"foobar");
        assert!(uri.starts_with(
            "otpauth://totp/North%20%26%20co:ada%40example.org?secret=MZXW6YTBOI&issuer="
        ));
    }
}
