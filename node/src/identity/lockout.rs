//! How often a name may be tried with a password, or a letter asked for: five tries, then a pause that doubles. In
//! memory and local to this node; never says whether the name exists.

use super::recent::Recent;
use crate::error::{Error, Result};
use atoll_storage::Id;
use std::sync::{Mutex, MutexGuard, PoisonError};

const FREE_TRIES: u32 = 5;
const FORGET_AFTER_MS: u64 = 15 * 60 * 1_000;
const LONGEST_DOUBLING: u32 = 8; // 256 s
const NAMES_KEPT: usize = 10_000;

#[derive(Clone, Copy, Default)]
struct Tries {
    count: u32,
    last_ms: u64,
    until_ms: u64,
}

pub(super) struct Attempts(Mutex<Recent<[u8; 32], Tries>>);

/// One try that was let through.
pub(super) struct Attempt([u8; 32]);

impl Default for Attempts {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(NAMES_KEPT)))
    }
}

impl Attempts {
    /// Counts a try before the password is checked, so that many at once count too.
    pub fn begin(&self, tenant: Id, name: &str, now_ms: u64) -> Result<Attempt> {
        let key = key_of(tenant, name);
        let mut all = self.lock();
        let mut tries = all.get(&key).unwrap_or_default();
        if now_ms.abs_diff(tries.last_ms) > FORGET_AFTER_MS {
            tries = Tries::default();
        }
        if now_ms < tries.until_ms {
            let retry_after_s = (tries.until_ms - now_ms).div_ceil(1_000);
            return Err(Error::TooMany { retry_after_s });
        }
        tries.count += 1;
        tries.last_ms = now_ms;
        if let Some(over) = tries.count.checked_sub(FREE_TRIES) {
            tries.until_ms = now_ms + (1_000 << over.min(LONGEST_DOUBLING));
        }
        all.put(key, tries);
        Ok(Attempt(key))
    }

    /// The password was right: the name starts anew.
    pub fn succeed(&self, attempt: &Attempt) {
        self.lock().remove(&attempt.0);
    }

    fn lock(&self) -> MutexGuard<'_, Recent<[u8; 32], Tries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(tenant: Id, name: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tenant.0).update(name.trim().to_lowercase().as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_tries_the_pause_doubles_and_is_forgotten_in_the_end() {
        let attempts = Attempts::default();
        let mut now = 1_000_000;
        let begin = |now| attempts.begin(Id::NIL, "Ada", now);
        for _ in 0..5 {
            assert!(begin(now).is_ok());
        }
        for pause_s in [1, 2, 4, 8] {
            let refused = begin(now);
            assert!(
                matches!(refused, Err(Error::TooMany { retry_after_s }) if retry_after_s == pause_s)
            );
            now += pause_s * 1_000;
            assert!(begin(now).is_ok());
        }
        assert!(begin(now).is_err());
        assert!(attempts.begin(Id::NIL, "bob", now).is_ok());
        assert!(begin(now + FORGET_AFTER_MS + 1).is_ok());
    }

    #[test]
    fn a_success_starts_anew() -> Result<()> {
        let attempts = Attempts::default();
        for _ in 0..20 {
            let attempt = attempts.begin(Id::NIL, "ada", 5)?;
            attempts.succeed(&attempt);
        }
        Ok(())
    }
}
