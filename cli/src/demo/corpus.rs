//! The pages that the demo imports: a folder of the user's, as often as he likes, or the few that ship with this
//! program.

use crate::failure::{Failure, Outcome};
use std::fs;
use std::path::{Path, PathBuf};

macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../corpus/", $name)))),*]
    };
}

const OWN: &[(&str, &str)] = pages![
    "bread-for-forty.md",
    "building-a-weather-shelter.md",
    "checking-a-figure.md",
    "chess-in-the-break.md",
    "choir-without-a-piano.md",
    "clock-in-the-tower.md",
    "compost-in-three-boxes.md",
    "counting-swifts.md",
    "first-aid-box.md",
    "frost-warning-by-telephone.md",
    "interviewing-an-elder.md",
    "jam-without-guessing.md",
    "keys-to-the-hall.md",
    "lending-instruments.md",
    "lettering-a-sign.md",
    "lost-property.md",
    "market-stall-plan.md",
    "meeting-minutes.md",
    "mending-a-torn-page.md",
    "microphone-manners.md",
    "morning-conference.md",
    "moth-sheet.md",
    "night-watch-at-the-kiln.md",
    "photographs-of-children.md",
    "printing-a-correction.md",
    "protecting-a-source.md",
    "radio-week-plan.md",
    "reading-a-rain-gauge.md",
    "repair-evening.md",
    "river-level-board.md",
    "running-a-small-library.md",
    "saving-tomato-seed.md",
    "school-kitchen-garden-menu.md",
    "shared-tools.md",
    "summer-reading-hour.md",
    "the-seed-swap.md",
    "timetable-by-hand.md",
    "truing-a-wheel.md",
    "walking-bus.md",
    "washing-up-for-a-hundred.md",
    "watering-rota.md",
    "when-the-transmitter-fails.md",
];

const MAX_DEPTH: usize = 32;

pub struct Pages {
    pub folder: PathBuf,
    pub count: usize,
}

/// Whether there is anything to import.
pub fn check(given: Option<&Path>) -> Outcome {
    given.map_or(Ok(()), |folder| pages_in(folder).map(|_| ()))
}

fn pages_in(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    find(folder, 0, &mut files)?;
    if files.is_empty() {
        let place = folder.display();
        return Err(Failure::not_found(format!("there is no Markdown file in {place}")));
    }
    Ok(files)
}

/// A folder that holds the pages, each `copies` times.
pub fn prepare(given: Option<&Path>, copies: u32, scratch: &Path) -> Outcome<Pages> {
    let source = match given {
        Some(folder) => folder.to_owned(),
        None => unpack(scratch)?,
    };
    let files = pages_in(&source)?;
    if copies <= 1 {
        return Ok(Pages { folder: source, count: files.len() });
    }
    let folder = scratch.join("copies");
    for copy in 1..=copies {
        for file in &files {
            let inside = file.strip_prefix(&source).unwrap_or(file);
            write_copy(file, &folder.join(format!("copy-{copy:04}")).join(inside))?;
        }
    }
    Ok(Pages { folder, count: files.len() * copies as usize })
}

fn unpack(scratch: &Path) -> Outcome<PathBuf> {
    let folder = scratch.join("corpus");
    fs::create_dir_all(&folder).map_err(|error| Failure::io("make", &folder, &error))?;
    for (name, text) in OWN {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| Failure::io("write", &path, &error))?;
    }
    Ok(folder)
}

fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Outcome {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(|error| Failure::io("read", folder, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Failure::io("read", folder, &error))?;
        let kind = entry.file_type().map_err(|error| Failure::io("read", folder, &error))?;
        let path = entry.path();
        if kind.is_dir() {
            find(&path, depth + 1, files)?;
        } else if kind.is_file() && is_page(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_page(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ext| ext.eq_ignore_ascii_case("md") || ext.eq_ignore_ascii_case("markdown"))
}

fn write_copy(from: &Path, to: &Path) -> Outcome {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| Failure::io("make", parent, &error))?;
    }
    let text = fs::read(from).map_err(|error| Failure::io("read", from, &error))?;
    fs::write(to, without_slug(&text)).map_err(|error| Failure::io("write", to, &error))
}

/// A name that is written in a page can be held by one copy only; without it each gets one made of its path.
fn without_slug(text: &[u8]) -> Vec<u8> {
    let mut fences = 0;
    let lines = text.split_inclusive(|byte| *byte == b'\n').enumerate();
    let kept = lines.filter(|(number, line)| {
        let is_fence = line.starts_with(b"---");
        fences += usize::from(is_fence && (*number == 0 || fences > 0));
        fences != 1 || !line.starts_with(b"slug:")
    });
    kept.flat_map(|(_, line)| line.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_the_folder_is_part_of_the_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let mut files = Vec::new();
        find(&folder, 0, &mut files).unwrap();
        let mut names: Vec<_> = files
            .iter()
            .filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        assert_eq!(names, OWN.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn a_copy_loses_its_slug_and_nothing_else() {
        let page = b"---\ntitle: A\nslug: a\n---\nslug: stays\n";
        assert_eq!(without_slug(page), b"---\ntitle: A\n---\nslug: stays\n");
        assert_eq!(without_slug(b"slug: a\n---\nslug: b\n---\n"), b"slug: a\n---\nslug: b\n---\n");
    }

    #[test]
    fn copies_multiply_the_pages() {
        let scratch = tempfile::tempdir().unwrap();
        let pages = prepare(None, 3, scratch.path()).unwrap();
        let mut files = Vec::new();
        find(&pages.folder, 0, &mut files).unwrap();
        assert_eq!((pages.count, files.len()), (3 * OWN.len(), 3 * OWN.len()));
    }
}
