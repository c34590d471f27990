//! The backups that the node makes by itself, in one folder: which there are, which of them is proven, which may go.
//! The last proven one never goes.

use super::file::write_new;
use super::{Error, Manifest, Result};
use crate::access::{Actor, Permission};
use crate::job::{DEAD, RUNNING, WAITING};
use crate::runtime::Node;
use atoll_storage::job::of_queue;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// What each folder's name begins with.
pub(super) const PREFIX: &str = "backup-";
const PROOF: &str = "proof.json";
/// Folders that are looked at; more were not made by this node.
const MAX_FOLDERS: usize = 2_000;
const HOUR_MS: u64 = 3_600_000;

/// That a backup was restored, and what was found in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub node: String,
    pub epoch: u32,
    /// When the backup was made, and when it was proven.
    pub created_ms: u64,
    pub proven_ms: u64,
    /// Of the node when the backup was made, and of what was restored.
    pub digest: String,
    pub records: u64,
    pub ops: u64,
    pub files: usize,
    pub size_bytes: u64,
}

/// One backup in the folder.
#[derive(Clone, Debug)]
pub struct Kept {
    pub name: String,
    pub path: PathBuf,
    pub created_ms: u64,
    pub files: usize,
    pub size_bytes: u64,
    pub digest: String,
    /// None: it was not restored yet, or was found unsound.
    pub proof: Option<Proof>,
}

/// How it stands with the node's backups.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// 0 if none are scheduled.
    pub every_ms: u64,
    pub last_proven: Option<Proof>,
    /// When the last one failed, and why; none once another was proven.
    pub last_failure: Option<(u64, String)>,
    /// The last proven one is older than two intervals.
    pub is_late: bool,
}

impl Standing {
    /// In one word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            _ if self.is_late => "late",
            Self { last_failure: Some(_), .. } => "failed",
            Self { last_proven: Some(_), .. } => "ok",
            Self { every_ms: 0, .. } => "off",
            _ => "none_yet",
        }
    }

    /// What somebody should look at, in plain words.
    pub fn warning(&self, now_ms: u64) -> Option<String> {
        let hours = self.every_ms / HOUR_MS;
        let late = match &self.last_proven {
            _ if !self.is_late => None,
            Some(proof) => {
                let age = age(now_ms.saturating_sub(proof.created_ms));
                Some(format!("the last proven backup is {age} old, and one is due every {hours} h"))
            }
            None => Some(format!("no backup was proven yet, and one is due every {hours} h")),
        };
        let failed =
            self.last_failure.as_ref().map(|(_, why)| format!("the last backup failed: {why}"));
        match (late, failed) {
            (Some(late), Some(failed)) => Some(format!("{late}; {failed}")),
            (late, failed) => late.or(failed),
        }
    }
}

/// `3 days`, `5 h`, `12 min`.
pub fn age(ms: u64) -> String {
    match ms / HOUR_MS {
        0 => format!("{} min", ms / 60_000),
        hours @ 1..=47 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}

/// The last proven one that was found: whoever only asks how it stands looks into no folder.
#[derive(Debug, Default)]
pub struct Watch {
    found: Mutex<Option<Proof>>,
    /// Held while a backup is made: one at a time.
    under_way: Mutex<()>,
}

impl Watch {
    /// # Errors
    /// `Conflict` (`backup_under_way`) while another is made.
    pub(super) fn take(&self) -> Result<MutexGuard<'_, ()>> {
        match self.under_way.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(left)) => Ok(left.into_inner()),
            Err(TryLockError::WouldBlock) => Err(under_way().into()),
        }
    }
}

pub(super) fn under_way() -> crate::Error {
    crate::Error::conflict("backup_under_way", "a backup is being made: wait until it is done")
}

/// With the backups that were there at the last look.
pub fn standing(node: &Node) -> Result<Standing> {
    let last_proven = node.backups.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let every_ms = node.config.backup.every_hours * HOUR_MS;
    let now_ms = node.clock.now_ms();
    let last = node.store.read(|reader| of_queue(reader, super::work::QUEUE, 1))?.pop();
    let proven_ms = last_proven.as_ref().map(|proof| proof.proven_ms);
    let last_failure = last.as_ref().filter(|job| job.state == DEAD).and_then(|job| {
        let at_ms = job.ended_ms.unwrap_or(job.created_ms);
        (proven_ms < Some(at_ms)).then(|| (at_ms, job.error.clone().unwrap_or_default()))
    });
    // A node that was never backed up counts from its first attempt.
    let since_ms = last_proven.as_ref().map(|proof| proof.created_ms);
    let since_ms = since_ms.or_else(|| last.map(|job| job.created_ms)).unwrap_or(now_ms);
    let is_late = every_ms > 0 && since_ms + 2 * every_ms < now_ms;
    Ok(Standing { every_ms, last_proven, last_failure, is_late })
}

/// Looks through the folder.
pub fn look(node: &Node) -> Result<Standing> {
    let last_proven = all(node)?.into_iter().find_map(|kept| kept.proof);
    *node.backups.found.lock().unwrap_or_else(PoisonError::into_inner) = last_proven;
    standing(node)
}

/// Whether the schedule wants one now.
pub(super) fn is_due(node: &Node) -> Result<bool> {
    let every_ms = node.config.backup.every_hours * HOUR_MS;
    if every_ms == 0 {
        return Ok(false);
    }
    let job = node.store.read(|reader| of_queue(reader, super::work::QUEUE, 1))?.pop();
    if job.as_ref().is_some_and(|job| job.state == WAITING || job.state == RUNNING) {
        return Ok(false);
    }
    let kept_ms = all(node)?.first().map(|kept| kept.created_ms);
    let last_ms = job.map(|job| job.created_ms).max(kept_ms);
    Ok(last_ms.is_none_or(|ms| ms + every_ms <= node.clock.now_ms()))
}

/// This node's backups, newest first.
pub fn list(node: &Node, actor: &Actor) -> crate::Result<Vec<Kept>> {
    actor.require(Permission::SyncAdminister)?;
    all(node).map_err(Error::hopeless)
}

/// Where they are.
pub fn folder(node: &Node) -> PathBuf {
    let set = &node.config.backup.folder;
    if set.as_os_str().is_empty() { node.folder().path().join("backups") } else { set.clone() }
}

pub(super) fn all(node: &Node) -> Result<Vec<Kept>> {
    let folder = folder(node);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", &folder, error)),
    };
    let me = node.id().to_string();
    let mut found: Vec<Kept> =
        entries.flatten().take(MAX_FOLDERS).filter_map(|entry| kept(&entry.path(), &me)).collect();
    found.sort_by(|a, b| (b.created_ms, &b.name).cmp(&(a.created_ms, &a.name)));
    Ok(found)
}

/// None of what is no whole backup of this node.
fn kept(path: &Path, me: &str) -> Option<Kept> {
    let name = path.file_name()?.to_str().filter(|name| name.starts_with(PREFIX))?.to_owned();
    let path = path.to_owned();
    if let Some(proof) = read_proof(&path) {
        let Proof { created_ms, files, size_bytes, .. } = proof;
        let (digest, is_own) = (proof.digest.clone(), proof.node == me);
        let kept = Kept { name, path, created_ms, files, size_bytes, digest, proof: Some(proof) };
        return is_own.then_some(kept);
    }
    let manifest = Manifest::read(&path).ok().filter(|manifest| manifest.node == me)?;
    Some(Kept {
        name,
        path,
        created_ms: manifest.created_ms,
        files: manifest.files.len(),
        size_bytes: manifest.size_bytes(),
        digest: manifest.digest,
        proof: None,
    })
}

fn read_proof(folder: &Path) -> Option<Proof> {
    serde_json::from_slice(&fs::read(folder.join(PROOF)).ok()?).ok()
}

pub(super) fn write_proof(folder: &Path, proof: &Proof) -> Result<()> {
    let text = serde_json::to_vec_pretty(proof)
        .map_err(|error| crate::Error::Internal(error.to_string()))?;
    let path = folder.join(PROOF);
    write_new(&path, &mut &text[..]).map_err(|error| Error::io("write", &path, error))
}

/// Removes all but the newest `keep` proven ones, and of those that are not proven all but one that is newer than they.
/// How many went.
pub(super) fn prune(node: &Node) -> Result<usize> {
    let mut removed = 0;
    for kept in superfluous(&all(node)?, node.config.backup.keep) {
        let path = &kept.path;
        fs::remove_dir_all(path).map_err(|error| Error::io("remove", path, error))?;
        removed += 1;
    }
    Ok(removed)
}

/// Of a list that begins with the newest.
fn superfluous(all: &[Kept], keep: usize) -> Vec<&Kept> {
    let (mut proven, mut unproven) = (0, 0);
    let mut gone = Vec::new();
    for kept in all {
        let is_kept = if kept.proof.is_some() {
            proven += 1;
            proven <= keep.max(1)
        } else {
            unproven += 1;
            proven == 0 && unproven == 1
        };
        if !is_kept {
            gone.push(kept);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(created_ms: u64, is_proven: bool) -> Kept {
        let proof = Proof {
            node: String::new(),
            epoch: 1,
            created_ms,
            proven_ms: created_ms,
            digest: String::new(),
            records: 0,
            ops: 0,
            files: 0,
            size_bytes: 0,
        };
        Kept {
            name: format!("{PREFIX}{created_ms}"),
            path: PathBuf::new(),
            created_ms,
            files: 0,
            size_bytes: 0,
            digest: String::new(),
            proof: is_proven.then_some(proof),
        }
    }

    fn gone(proven: &[bool], keep: usize) -> Vec<usize> {
        let all: Vec<Kept> =
            proven.iter().enumerate().map(|(n, proven)| kept(99 - n as u64, *proven)).collect();
        superfluous(&all, keep).iter().map(|kept| 99 - kept.created_ms as usize).collect()
    }

    #[test]
    fn the_last_proven_one_stays_whatever_came_after_it() {
        assert_eq!(gone(&[true, true, true], 2), [2]);
        assert_eq!(gone(&[true, true], 0), [1]);
        assert_eq!(gone(&[false, false, false, true, true], 1), [1, 2, 4]);
        assert_eq!(gone(&[true, false, true], 3), [1]);
        assert!(gone(&[], 1).is_empty());
    }

    #[test]
    fn an_old_proof_is_told_with_its_age() {
        let proof = kept(0, true).proof;
        let late = Standing {
            every_ms: HOUR_MS,
            last_proven: proof,
            is_late: true,
            ..Standing::default()
        };
        let told = late.warning(72 * HOUR_MS).unwrap();
        assert!(told.contains("3 days old") && told.contains("every 1 h"), "{told}");
        assert_eq!(late.word(), "late");
        assert_eq!(Standing::default().warning(1), None);
    }
}
