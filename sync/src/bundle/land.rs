//! Files of a bundle on their way to the disk: what was proved stands there, also of one that is not whole, and later
//! volumes, bundles and links go on with it.

use super::slice::{BlobSlice, Proved};
use atoll_storage::blob::{self, BlobId, Blobs, Partial};
use std::collections::BTreeMap;

/// So much is written before it is brought to the disk for good.
const KEEP_EVERY_BYTES: u64 = 32 << 20;
/// More are counted and not listed.
const MAX_LEFT: usize = 100;

/// A file that could have come and was not taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    pub blob: BlobId,
    pub size_bytes: u64,
    pub why: String,
}

/// Says of a file, by name and size, whether it is taken, and else why not. Told besides: bytes of files that were begun and
/// are not whole.
pub type Admit<'a> = &'a mut dyn FnMut(&BlobId, u64, u64) -> Result<(), String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Had,
    Coming,
    Came,
    Left,
}

/// Where files go.
pub struct Landing<'a> {
    blobs: &'a Blobs,
    admit: Admit<'a>,
    fates: BTreeMap<BlobId, Fate>,
    /// Parts of a file stand together.
    at: Option<(BlobId, Partial)>,
    unkept_bytes: u64,
    coming_bytes: u64,
    is_full: bool,
    came: Vec<BlobId>,
    left: Vec<LeftOut>,
}

/// What became of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Landed {
    pub new: u64,
    pub had: u64,
    pub unfinished: u64,
    pub left: u64,
    pub left_out: Vec<LeftOut>,
}

impl<'a> Landing<'a> {
    pub fn new(blobs: &'a Blobs, admit: Admit<'a>) -> Self {
        Self {
            blobs,
            admit,
            fates: BTreeMap::new(),
            at: None,
            unkept_bytes: 0,
            coming_bytes: 0,
            is_full: false,
            came: vec![],
            left: vec![],
        }
    }

    /// Files that are whole now and were not before.
    pub fn came(&self) -> &[BlobId] {
        &self.came
    }

    /// True if the disk refused something.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    pub(super) fn take(&mut self, slice: &BlobSlice, proved: &Proved<'_>) {
        let fate = self.fates.get(&slice.blob).copied().unwrap_or_else(|| self.begin(slice));
        let fate = match fate {
            Fate::Coming => match self.write(slice, proved) {
                Ok(false) => Fate::Coming,
                Ok(true) => {
                    self.coming_bytes = self.coming_bytes.saturating_sub(slice.size_bytes);
                    self.came.push(slice.blob);
                    Fate::Came
                }
                Err(error) => {
                    self.coming_bytes = self.coming_bytes.saturating_sub(slice.size_bytes);
                    self.is_full |= matches!(error, blob::Error::Full);
                    self.leave_out(slice, why(&error))
                }
            },
            other => other,
        };
        self.fates.insert(slice.blob, fate);
    }

    fn begin(&mut self, slice: &BlobSlice) -> Fate {
        if self.blobs.path(&slice.blob).is_some() {
            return Fate::Had;
        }
        if self.is_full {
            return self.leave_out(slice, FULL.to_owned());
        }
        match (self.admit)(&slice.blob, slice.size_bytes, self.coming_bytes) {
            Ok(()) => {
                self.coming_bytes += slice.size_bytes;
                Fate::Coming
            }
            Err(why) => self.leave_out(slice, why),
        }
    }

    fn leave_out(&mut self, slice: &BlobSlice, why: String) -> Fate {
        if self.left.len() < MAX_LEFT {
            let BlobSlice { blob, size_bytes, .. } = *slice;
            self.left.push(LeftOut { blob, size_bytes, why });
        }
        Fate::Left
    }

    /// True if the file is whole now.
    fn write(&mut self, slice: &BlobSlice, proved: &Proved<'_>) -> blob::Result<bool> {
        let BlobSlice { blob, size_bytes, .. } = slice;
        if slice.is_all() && self.blobs.partial_size(blob)?.is_none() {
            let mut writer = self.blobs.writer(*size_bytes)?;
            proved.groups.iter().try_for_each(|(_, bytes)| writer.write(bytes))?;
            writer.finish_as(blob)?;
            return Ok(true);
        }
        let partial = match &self.at {
            Some((at, partial)) if at == blob => partial.clone(),
            _ => {
                self.keep();
                let partial = self.blobs.partial(blob, *size_bytes)?;
                self.at.insert((*blob, partial)).1.clone()
            }
        };
        partial.write(&proved.groups, &proved.pairs)?;
        let (here, all) = partial.progress();
        if here == all {
            self.at = None;
            self.unkept_bytes = 0;
            partial.finish()?;
            return Ok(true);
        }
        self.unkept_bytes += slice.file_bytes();
        if self.unkept_bytes >= KEEP_EVERY_BYTES {
            self.unkept_bytes = 0;
            partial.keep()?;
        }
        Ok(false)
    }

    /// Brings to the disk what came of the file that was written last.
    fn keep(&mut self) {
        self.unkept_bytes = 0;
        let Some((blob, partial)) = self.at.take() else { return };
        if let Err(error) = partial.keep() {
            self.is_full |= matches!(error, blob::Error::Full);
            tracing::warn!(%blob, %error, "how much of a file came was not kept");
        }
    }

    pub(super) fn finish(&mut self) -> Landed {
        self.keep();
        let count = |fate| self.fates.values().filter(|one| **one == fate).count() as u64;
        Landed {
            new: self.came.len() as u64,
            had: count(Fate::Had),
            unfinished: count(Fate::Coming),
            left: count(Fate::Left),
            left_out: std::mem::take(&mut self.left),
        }
    }
}

pub const FULL: &str = "the disk is full";

fn why(error: &blob::Error) -> String {
    match error {
        blob::Error::Full => FULL.to_owned(),
        other => other.to_string(),
    }
}
