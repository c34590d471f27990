//! The index's folder: opened, checked, and set aside when it cannot be trusted. Nothing in it is the only copy of
//! anything, so doubt is answered with a fresh index; but a disk that does not answer is an error, not damage.

use super::gate::{Gate, Gated};
use super::schema::{self, Fields};
use super::{Error, Opened, Result, guarded};
use std::fs;
use std::path::{Path, PathBuf};
use tantivy::directory::MmapDirectory;
use tantivy::schema::Schema;
use tantivy::{Directory, HasLen, Index, IndexReader, IndexSettings, ReloadPolicy};

/// How much of the index is read for its checksums at each start, smallest files first.
const CHECK_BYTES: u64 = 32 << 20;
/// Left behind when a query met damage: the next open reads every file.
const SUSPECT: &str = "suspect";
const META: &str = "meta.json";
const KEPT_ASIDE: u32 = 2;
const CACHED_BLOCKS: usize = 4;

pub struct Folder {
    pub index: Index,
    pub fields: Fields,
    pub reader: IndexReader,
    pub gate: Gate,
    pub cursor: u64,
}

pub fn open(dir: &Path, version: u32) -> Result<(Folder, Opened)> {
    fs::create_dir_all(dir)?;
    if !holds_index(dir)? {
        return Ok((create(dir)?, Opened::Fresh));
    }
    match guarded(|| check(dir, version)).and_then(|()| guarded(|| load(dir, version))) {
        Ok(folder) => {
            let cursor = folder.cursor;
            Ok((folder, Opened::Existing { cursor }))
        }
        Err(Error::Damaged(why)) => {
            let moved_to = set_aside(dir)?;
            tracing::warn!(why, moved_to = %moved_to.display(), "the search index is made anew");
            fs::create_dir_all(dir)?;
            Ok((create(dir)?, Opened::SetAside { why, moved_to }))
        }
        Err(error) => Err(error),
    }
}

/// Asks the next `open` to read every file before it trusts this folder.
pub fn mark_suspect(dir: &Path) {
    if let Err(error) = fs::write(dir.join(SUSPECT), "") {
        tracing::warn!(%error, "the search index could not be marked for a check");
    }
}

/// Reads every file of the index against its checksum.
pub fn verify(index: &Index) -> Result<()> {
    check_files(index, u64::MAX)
}

/// What the last commit says: the cursor of the feed, if the same schema wrote it.
pub fn payload(version: u32, cursor: u64) -> String {
    format!("{}.{version}:{cursor}", schema::FORMAT)
}

fn read_payload(text: &str, version: u32) -> Result<u64> {
    let prefix = format!("{}.{version}:", schema::FORMAT);
    let cursor = text.strip_prefix(&prefix).and_then(|cursor| cursor.parse().ok());
    cursor.ok_or_else(|| Error::Damaged(format!("it was written by another schema ({text})")))
}

/// Clears what a kill left behind, and says whether there is an index to open.
fn holds_index(dir: &Path) -> Result<bool> {
    let mut holds = false;
    let mut leftovers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') {
            holds = true;
        } else if name.starts_with(".tmp") || name == ".managed.json" {
            leftovers.push((entry.path(), name.starts_with(".tmp")));
        }
    }
    for (path, always) in leftovers {
        if always || !holds {
            fs::remove_file(path)?;
        }
    }
    Ok(holds)
}

fn check(dir: &Path, version: u32) -> Result<()> {
    if !dir.join(META).is_file() {
        return Err(Error::Damaged(format!("{META} is missing")));
    }
    let index = Index::open(mapped(dir)?)?;
    let metas = index.load_metas()?;
    if index.schema() != schema::build().0 {
        return Err(Error::Damaged("its fields are those of another release".into()));
    }
    match &metas.payload {
        Some(payload) => read_payload(payload, version).map(drop)?,
        None if metas.segments.is_empty() => {}
        None => return Err(Error::Damaged("its last commit names no cursor".into())),
    }
    let suspect = dir.join(SUSPECT);
    let suspected = suspect.is_file();
    check_files(&index, if suspected { u64::MAX } else { CHECK_BYTES })?;
    if suspected {
        fs::remove_file(suspect)?;
    }
    Ok(())
}

/// Every file must be there with a sound footer; the smallest, up to `budget` bytes in all, are read through.
fn check_files(index: &Index, budget: u64) -> Result<()> {
    let directory = index.directory();
    let metas = index.load_metas()?;
    let managed = directory.list_managed_files();
    if managed.is_empty() && !metas.segments.is_empty() {
        return Err(Error::Damaged("the list of its files is missing".into()));
    }
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for file in metas.list_segment_files().into_iter().filter(|file| managed.contains(file)) {
        let size = directory.open_read(&file)?.len() as u64;
        files.push((size, file));
    }
    files.sort();
    let mut read = 0;
    for (size, file) in files {
        read += size;
        if read > budget {
            break;
        }
        if !directory.validate_checksum(&file)? {
            return Err(Error::Damaged(format!("{} does not match its checksum", file.display())));
        }
    }
    Ok(())
}

/// A second, separate opening: what the check has mapped into memory is let go of before.
fn load(dir: &Path, version: u32) -> Result<Folder> {
    let gate = Gate::default();
    let index = Index::open(Gated::new(mapped(dir)?, gate.clone()))?;
    let (_, fields) = schema::build();
    let cursor = match index.load_metas()?.payload {
        Some(payload) => read_payload(&payload, version)?,
        None => 0,
    };
    let folder = readable(index, fields, cursor, gate)?;
    probe(&folder)?;
    Ok(folder)
}

fn create(dir: &Path) -> Result<Folder> {
    let (schema, fields): (Schema, Fields) = schema::build();
    let gate = Gate::default();
    let gated = Gated::new(mapped(dir)?, gate.clone());
    let index = Index::create(gated, schema, IndexSettings::default())?;
    readable(index, fields, 0, gate)
}

fn mapped(dir: &Path) -> Result<MmapDirectory> {
    MmapDirectory::open(dir).map_err(|error| tantivy::TantivyError::from(error).into())
}

fn readable(index: Index, fields: Fields, cursor: u64, gate: Gate) -> Result<Folder> {
    schema::register_analyzer(&index, gate.clone());
    let reader = index
        .reader_builder()
        .reload_policy(ReloadPolicy::Manual)
        .doc_store_cache_num_blocks(CACHED_BLOCKS)
        .try_into()?;
    Ok(Folder { index, fields, reader, gate, cursor })
}

/// Opens what every query needs, so that damage shows now and not at the first person's search.
fn probe(folder: &Folder) -> Result<()> {
    for segment in folder.reader.searcher().segment_readers() {
        let Fields { id, kind, tenant, title, keywords, body, facet, .. } = folder.fields;
        for field in [id, kind, tenant, title, keywords, body, facet] {
            segment.inverted_index(field)?;
        }
        for column in [schema::ID_HIGH, schema::ID_LOW, schema::KIND, schema::RANK] {
            segment.fast_fields().u64(column)?;
        }
        segment.fast_fields().i64(schema::DATE)?;
        segment.fast_fields().str(schema::FACET)?;
    }
    Ok(())
}

/// Renames the folder to the next free `NAME.damaged-N` and removes all but the last of those.
fn set_aside(dir: &Path) -> Result<PathBuf> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = dir.parent().unwrap_or(Path::new("."));
    let prefix = format!("{name}.damaged-");
    let mut taken: Vec<u32> = Vec::new();
    for entry in fs::read_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?
    {
        let name = entry?.file_name();
        taken.extend(
            name.to_string_lossy().strip_prefix(&prefix).and_then(|n| n.parse::<u32>().ok()),
        );
    }
    let number = taken.iter().max().map_or(1, |n| n + 1);
    let path_of = |n: u32| dir.with_file_name(format!("{prefix}{n}"));
    fs::rename(dir, path_of(number))?;
    for old in taken.into_iter().filter(|n| n + KEPT_ASIDE <= number) {
        if let Err(error) = fs::remove_dir_all(path_of(old)) {
            tracing::warn!(%error, number = old, "an old damaged search index could not be removed");
        }
    }
    Ok(path_of(number))
}
