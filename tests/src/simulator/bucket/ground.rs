//! What lies in the bucket, with what can befall it: what came and what went shows late, what was asked for is done late, and
//! objects are cut, changed, gone, doubled, or back again.

use crate::rng::Rng;
use atoll_node::bucket::{Folder, Place as _, Trouble};
use atoll_storage::NodeId;
use atoll_sync::bucket::{Listed, ObjectName};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

type Result<T> = std::result::Result<T, Trouble>;

/// Of those that were removed, that one can come back.
const MAX_GRAVES: usize = 40;

pub struct Ground {
    dir: TempDir,
    pub folder: Folder,
    /// Of a store: how many objects a page of its list holds, and whether it does what others do in another way.
    pub page_objects: usize,
    pub is_odd: bool,
    past: Mutex<Past>,
}

/// What others see of it late.
pub struct Past {
    rng: Rng,
    pub now_ms: u64,
    /// Percent of what is written and removed.
    lags: u64,
    hidden: BTreeMap<String, Late>,
    /// Removed, and listed still.
    shown: BTreeMap<String, (u64, Late)>,
    graves: Vec<(String, Vec<u8>)>,
    /// Cut for a while, as by something that brings the rest later.
    halves: Vec<(String, Vec<u8>, u64)>,
    /// What a store does with requests, and in percent how often it fails.
    pub dice: Rng,
    pub faults: u64,
    /// Asked of a store by somebody who did not wait for it: what is written, or none to remove it, and when it is done.
    late: Vec<(String, Option<Vec<u8>>, u64)>,
    pub steps: u64,
    pub break_at: Option<u64>,
}

#[derive(Clone, Copy)]
struct Late {
    until_ms: u64,
    /// Who wrote it knows.
    maker: Option<NodeId>,
}

impl Late {
    fn is_for(&self, me: NodeId) -> bool {
        self.maker != Some(me)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Ground {
    pub fn new(dir: TempDir, seed: u64, faults: u64) -> std::result::Result<Self, String> {
        let folder = Folder::at(dir.path());
        folder.begin().map_err(|trouble| trouble.message)?;
        let past = Past {
            rng: Rng::new(seed.rotate_left(23)),
            now_ms: 0,
            lags: 0,
            hidden: BTreeMap::new(),
            shown: BTreeMap::new(),
            graves: vec![],
            halves: vec![],
            dice: Rng::new(seed.rotate_left(31)),
            faults,
            late: vec![],
            steps: 0,
            break_at: None,
        };
        let mut dice = Rng::new(seed.rotate_left(53));
        let (page_objects, is_odd) = (dice.pick(&[2, 5, 1_000]), dice.percent(30));
        Ok(Self { dir, folder, page_objects, is_odd, past: Mutex::new(past) })
    }

    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of all visits so far.
    pub fn steps(&self) -> u64 {
        self.past().steps
    }

    /// The visit that takes this step, counted over all, is broken off there: an odd one before what is asked for, an even
    /// one after it.
    pub fn break_at(&self, step: u64) {
        self.past().break_at = Some(step);
    }

    /// What time it is, and how much of what is done from here on shows late.
    pub fn at(&self, now_ms: u64, lags: u64) {
        let (halves, late) = {
            let mut past = self.past();
            (past.now_ms, past.lags) = (now_ms, lags);
            past.hidden.retain(|_, late| late.until_ms > now_ms);
            past.shown.retain(|_, (_, late)| late.until_ms > now_ms);
            let (whole, halves) =
                std::mem::take(&mut past.halves).into_iter().partition(|half| half.2 <= now_ms);
            past.halves = halves;
            let whole: Vec<(String, Vec<u8>, u64)> = whole;
            let (due, late) =
                std::mem::take(&mut past.late).into_iter().partition(|late| late.2 <= now_ms);
            past.late = late;
            let due: Vec<(String, Option<Vec<u8>>, u64)> = due;
            (whole, due)
        };
        for (name, bytes, _) in halves {
            let path = self.file(&name);
            if path.exists() {
                let _ = fs::write(path, bytes);
            }
        }
        for (name, bytes, _) in late {
            // The folder is there: nothing was refused so far.
            let _ = match bytes {
                Some(bytes) => self.folder.put(&name, bytes),
                None => self.folder.remove(&name),
            };
        }
    }

    /// From here on everything is done and shows at once.
    pub fn calm(&self) {
        self.at(u64::MAX, 0);
        self.past().faults = 0;
    }

    /// Whoever asked for it has given up waiting.
    pub fn do_late(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut past = self.past();
        let until_ms = past.now_ms + past.dice.between(100, 6_000);
        past.late.push((name.to_owned(), bytes, until_ms));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a list shows to one who asks.
    pub fn list(&self, me: NodeId) -> Result<Vec<Listed>> {
        let mut listed = self.folder.list()?;
        let past = self.past();
        listed.retain(|one| past.hidden.get(&one.name).is_none_or(|late| !late.is_for(me)));
        for (name, (size_bytes, _)) in past.shown.iter().filter(|(_, (_, late))| late.is_for(me)) {
            if !listed.iter().any(|one| one.name == *name) {
                listed.push(Listed { name: name.clone(), size_bytes: *size_bytes });
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Whether it does not show yet to one who asks for it by its name.
    pub fn is_hidden(&self, name: &str, me: NodeId) -> bool {
        self.past().hidden.get(name).is_some_and(|late| late.is_for(me))
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.folder.put(name, bytes)?;
        if let Some(late) = self.late(name) {
            self.past().hidden.insert(name.to_owned(), late);
        }
        Ok(())
    }

    /// True if it was there.
    pub fn remove(&self, name: &str) -> Result<bool> {
        let bytes = fs::read(self.file(name)).ok();
        self.folder.remove(name)?;
        let Some(bytes) = bytes else { return Ok(false) };
        let late = self.late(name);
        let mut past = self.past();
        if let Some(late) = late {
            past.shown.insert(name.to_owned(), (bytes.len() as u64, late));
        }
        if past.graves.len() < MAX_GRAVES {
            past.graves.push((name.to_owned(), bytes));
        }
        Ok(true)
    }

    /// For how long others do not see what is done now.
    fn late(&self, name: &str) -> Option<Late> {
        let mut past = self.past();
        let lags = past.lags;
        if !past.rng.percent(lags) {
            return None;
        }
        let until_ms = past.now_ms + past.rng.between(200, 5_000);
        let is_known = past.rng.percent(60);
        let maker = ObjectName::parse(name).map(|name| name.node()).filter(|_| is_known);
        Some(Late { until_ms, maker })
    }

    pub fn objects(&self) -> std::result::Result<Vec<Listed>, String> {
        let mut objects = self.folder.list().map_err(|trouble| trouble.message)?;
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Something befalls an object, or all. What it was.
    pub fn strike(&self, rng: &mut Rng) -> std::result::Result<String, String> {
        let objects = self.objects()?;
        if rng.percent(4) {
            objects
                .iter()
                .try_for_each(|one| fs::remove_file(self.file(&one.name)).map_err(text))?;
            return Ok("is emptied".into());
        }
        let back = rng.number();
        if rng.percent(12) {
            let graves = self.past().graves.clone();
            let Some((name, bytes)) = graves.get(back as usize % graves.len().max(1)) else {
                return Ok("stays".into());
            };
            fs::write(self.file(name), bytes).map_err(text)?;
            return Ok(format!("has {name} back"));
        }
        if objects.is_empty() {
            return Ok("stays".into());
        }
        let name = &objects[rng.below(objects.len())].name;
        let path = self.file(name);
        let mut bytes = fs::read(&path).map_err(text)?;
        let whole = bytes.clone();
        let what = match rng.below(6) {
            0 | 1 => {
                bytes.truncate(rng.below(bytes.len()));
                if rng.percent(40) {
                    let mut past = self.past();
                    let until_ms = past.now_ms + rng.between(300, 4_000);
                    past.halves.push((name.clone(), whole, until_ms));
                }
                "is cut"
            }
            2 | 3 if !bytes.is_empty() => {
                for _ in 0..rng.between(1, 3) {
                    let at = rng.below(bytes.len());
                    bytes[at] ^= 1 << rng.below(8);
                }
                "is damaged"
            }
            4 => {
                fs::remove_file(&path).map_err(text)?;
                return Ok(format!("has lost {name}"));
            }
            _ => return self.double(rng, &objects, name, &bytes),
        };
        fs::write(path, bytes).map_err(text)?;
        Ok(format!("has {name}, which {what}"))
    }

    /// The same bytes under another name: one that is none, of another number, or of another node.
    fn double(
        &self,
        rng: &mut Rng,
        objects: &[Listed],
        name: &str,
        bytes: &[u8],
    ) -> std::result::Result<String, String> {
        let (folder, file) = name.split_once('/').unwrap_or(("", name));
        let number = file.find('-').map_or(0, |at| if at < 12 { at + 1 } else { 0 });
        let double = match rng.below(3) {
            1 if file.len() > number + 12 => {
                let (head, rest) = (&file[..number], &file[number + 12..]);
                let then = u64::from_str_radix(&file[number..number + 12], 16).unwrap_or_default();
                format!("{folder}/{head}{:012x}{rest}", then.wrapping_add(rng.between(1, 99)))
            }
            2 => {
                let other = &objects[rng.below(objects.len())].name;
                format!("{}/{file}", other.split_once('/').map_or(folder, |(folder, _)| folder))
            }
            _ => format!("{name} (1)"),
        };
        if !self.file(&double).exists() {
            fs::write(self.file(&double), bytes).map_err(text)?;
        }
        Ok(format!("has {name} as {double} too"))
    }
}
