//! Rate limits: a token bucket for each actor or address. The number of buckets is bounded; takes the time
//! as a parameter and never waits.

use atoll_storage::Id;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const SHARDS: usize = 16;
const BUCKETS_A_SHARD: usize = 4_096;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    Usual,
    /// Sign-in and the like.
    Strict,
    /// Tokens that were refused.
    Forged,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Who {
    User(Id),
    /// An address; of IPv6 its first 64 bits, since a caller has all the rest.
    Peer([u8; 8]),
    Unknown,
}

impl Who {
    pub fn peer(address: Option<IpAddr>) -> Self {
        let mut bytes = [0; 8];
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(v4)) => {
                bytes[..4].copy_from_slice(&v4.octets());
                bytes[4] = 1;
            }
            Some(IpAddr::V6(v6)) => bytes.copy_from_slice(&v6.octets()[..8]),
            None => return Self::Unknown,
        }
        Self::Peer(bytes)
    }
}

/// What the headers tell of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub limit: u32,
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset_s: u32,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

type Shard = HashMap<(Class, Who), Bucket>;

/// What one caller may do: for long, and at once. A burst of 0 is no limit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate {
    pub per_second: f64,
    pub burst: u32,
}

impl Rate {
    pub const NONE: Self = Self { per_second: 0.0, burst: 0 };
}

pub struct Limits {
    usual: Rate,
    strict: Rate,
    shards: [Mutex<Shard>; SHARDS],
}

impl Limits {
    pub fn new(usual: Rate, strict: Rate) -> Self {
        Self { usual, strict, shards: std::array::from_fn(|_| Mutex::default()) }
    }

    fn rate(&self, class: Class) -> Rate {
        if class == Class::Usual { self.usual } else { self.strict }
    }

    /// Takes a token. None if this class has no limit.
    ///
    /// # Errors
    /// The standing and the seconds to wait if there is no token.
    pub fn take(
        &self,
        class: Class,
        who: Who,
        now: Duration,
    ) -> Result<Option<Standing>, (Standing, u64)> {
        let Rate { per_second: rate, burst: limit } = self.rate(class);
        if limit == 0 || rate <= 0.0 {
            return Ok(None);
        }
        let full = f64::from(limit);
        let mut shard = self.shard(who);
        if shard.len() >= BUCKETS_A_SHARD && !shard.contains_key(&(class, who)) {
            make_room(&mut shard, now, Duration::from_secs_f64(full / rate));
        }
        let new = Bucket { tokens: full, at: now };
        let mut bucket = shard.get(&(class, who)).copied().unwrap_or(new);
        let passed = now.saturating_sub(bucket.at).as_secs_f64();
        bucket = Bucket {
            tokens: passed.mul_add(rate, bucket.tokens).min(full),
            at: now.max(bucket.at),
        };
        let has_token = bucket.tokens >= 1.0;
        if has_token {
            bucket.tokens -= 1.0;
        }
        shard.insert((class, who), bucket);
        drop(shard);
        let reset_s = ((full - bucket.tokens) / rate).ceil() as u32;
        let standing = Standing { limit, remaining: bucket.tokens as u32, reset_s };
        if has_token {
            return Ok(Some(standing));
        }
        let wait_s = ((1.0 - bucket.tokens) / rate).ceil() as u64;
        Err((standing, wait_s.max(1)))
    }

    fn shard(&self, who: Who) -> MutexGuard<'_, Shard> {
        let byte = match who {
            Who::User(id) => id.0[15],
            Who::Peer(bytes) => bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_mul(31) ^ byte),
            Who::Unknown => 0,
        };
        let shard = &self.shards[usize::from(byte) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the buckets that nobody used for so long that they are full again. If all are in use, drops some.
fn make_room(shard: &mut Shard, now: Duration, window: Duration) {
    shard.retain(|_, bucket| now.saturating_sub(bucket.at) < window);
    if shard.len() >= BUCKETS_A_SHARD {
        let mut fate = 0_u32;
        shard.retain(|_, _| {
            fate += 1;
            !fate.is_multiple_of(4)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_empties_refills_and_says_how_long_to_wait() {
        let limits = Limits::new(
            Rate { per_second: 1.0, burst: 60 },
            Rate { per_second: 1.0 / 30.0, burst: 2 },
        );
        let who = Who::peer(Some(IpAddr::from([10, 0, 0, 1])));
        let first = limits.take(Class::Strict, who, S).unwrap_or_default();
        assert_eq!(first, Some(Standing { limit: 2, remaining: 1, reset_s: 30 }));
        assert!(limits.take(Class::Strict, who, S).is_ok());
        let (standing, wait_s) = limits.take(Class::Strict, who, S).unwrap_err();
        assert_eq!((standing.remaining, standing.reset_s, wait_s), (0, 60, 30));
        assert!(limits.take(Class::Strict, who, S * 31).is_ok(), "a token is back after 30 s");
        assert!(limits.take(Class::Usual, who, S).is_ok(), "each class has its own bucket");
        assert!(limits.take(Class::Strict, Who::Unknown, S).is_ok(), "and so has each caller");
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = Limits::new(Rate::NONE, Rate::NONE);
        assert_eq!(limits.take(Class::Usual, Who::Unknown, S), Ok(None));
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let limits = Limits::new(Rate { per_second: 1.0, burst: 10 }, Rate::NONE);
        for i in 0..200_000_u32 {
            let peer = Who::peer(Some(IpAddr::from(i.to_be_bytes())));
            assert!(limits.take(Class::Usual, peer, S).is_ok());
        }
        let count =
            |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        assert!(limits.shards.iter().all(|shard| count(shard) <= BUCKETS_A_SHARD));
    }
}
