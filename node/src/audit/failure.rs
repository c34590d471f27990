//! Failed sign-ins, counted in memory and noted in the audit log some minutes later, one entry an account: a storm
//! of guesses makes few entries. Never keeps the name that was typed, which may be a password. Bounded; what a crash
//! takes with it is lost.

use super::note_in;
use crate::access::{Actor, Net};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::Id;
use serde_json::{Map, json};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How long failures of one account are gathered.
pub const WINDOW_MS: u64 = 10 * 60 * 1_000;
const ACCOUNTS_KEPT: usize = 10_000;
const NETS_KEPT: usize = 5;
/// Entries of one transaction.
const AT_ONCE: usize = 200;

/// By tenant and account; no account where the name belongs to none.
type Who = (Id, Option<Id>);

#[derive(Clone, Default)]
struct Gathered {
    count: u64,
    first_ms: u64,
    nets: Vec<Net>,
}

#[derive(Default)]
pub struct Failures(Mutex<HashMap<Who, Gathered>>);

impl Failures {
    pub fn count(&self, tenant: Id, user: Option<Id>, net: Option<Net>, now_ms: u64) {
        let mut all = self.lock();
        let is_full = all.len() >= ACCOUNTS_KEPT && !all.contains_key(&(tenant, user));
        if is_full && !all.contains_key(&(tenant, None)) && all.len() >= 2 * ACCOUNTS_KEPT {
            return;
        }
        let gathered = all.entry((tenant, user.filter(|_| !is_full))).or_default();
        if gathered.count == 0 {
            gathered.first_ms = now_ms;
        }
        gathered.count += 1;
        if let Some(net) = net
            && gathered.nets.len() < NETS_KEPT
            && !gathered.nets.contains(&net)
        {
            gathered.nets.push(net);
        }
    }

    /// Takes out what was gathered for as long as this.
    fn take(&self, window_ms: u64, now_ms: u64) -> Vec<(Who, Gathered)> {
        let mut all = self.lock();
        let is_due = |gathered: &Gathered| now_ms.abs_diff(gathered.first_ms) >= window_ms;
        let due: Vec<Who> =
            all.iter().filter(|(_, gathered)| is_due(gathered)).map(|(who, _)| *who).collect();
        due.into_iter().filter_map(|who| Some((who, all.remove(&who)?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Who, Gathered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what was gathered for `window_ms` or longer into the audit log; how many entries that made.
pub async fn flush(node: &Node, window_ms: u64) -> Result<usize> {
    let due = node.identity.failures.take(window_ms, node.clock.now_ms());
    let made = due.len();
    for some in due.chunks(AT_ONCE) {
        let some = some.to_vec();
        node.store
            .write::<_, Error>(move |tx| {
                for ((tenant, user), gathered) in some {
                    let nets: Vec<String> = gathered.nets.iter().map(Net::to_string).collect();
                    let mut told = Map::new();
                    told.insert("count".to_owned(), json!(gathered.count));
                    told.insert("since_ms".to_owned(), json!(gathered.first_ms));
                    told.insert("nets".to_owned(), json!(nets));
                    let actor =
                        Actor { net: gathered.nets.last().copied(), ..Actor::stranger(tenant) };
                    let target = user.map(|user| ("user", user));
                    note_in(tx, tenant, &actor, "login.failed", target, told)?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_gathered_by_account_and_bounded() {
        let failures = Failures::default();
        let net = |n: u8| Some(Net::V4([10, 0, n]));
        for n in 0..9 {
            failures.count(Id::NIL, Some(Id([1; 16])), net(n), 1_000);
        }
        failures.count(Id::NIL, None, None, 5_000);
        assert!(failures.take(10_000, 6_000).is_empty());
        let taken = failures.take(5_000, 6_000);
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].1.count, taken[0].1.nets.len()), (9, NETS_KEPT));
        assert_eq!(failures.take(0, 6_000).len(), 1);
        for n in 0..3 * ACCOUNTS_KEPT as u64 {
            failures.count(Id::NIL, Some(Id::natural(&[&n.to_le_bytes()])), None, 1);
        }
        assert!(failures.lock().len() <= ACCOUNTS_KEPT + 1);
    }
}
