//! Pages in an archive: tar, plain or under gzip or zstd, or zip. Reads the archive once, from its start to its end, and
//! unpacks nothing to the disk. What is no page is counted and told.

use super::entry::Item;
use super::folder::{Passed, text_of};
use super::intake::Intake;
use super::layout;
use crate::error::Result;
use crate::exchange::Unpacking;
use std::path::Path;

/// `name`: what its files are told apart by from those of another archive; none if it is empty.
pub(super) fn read_markdown(intake: &mut Intake<'_>, file: &Path, name: &str) -> Result<()> {
    let mut passed = Passed::default();
    let ended = Unpacking::open(file)?.each(&mut |path, content, count, of| {
        intake.at(count.get(), of);
        if Passed::is_hidden(path) {
            return passed.hidden(path).map_or(Ok(()), |item| intake.add(item));
        }
        if !layout::is_page(Path::new(path)) {
            passed.other(path);
            return Ok(());
        }
        let mut item = match text_of(content) {
            Ok(text) => layout::item_of(path, path, &text),
            Err(message) => Item::bad(path, message),
        };
        if let Item::Post(entry) = &mut item
            && !name.is_empty()
        {
            entry.origin = format!("{name}:{path}");
        }
        intake.add(item)
    })?;
    if let Some(item) = passed.others() {
        intake.add(item)?;
    }
    match ended {
        Some(message) => intake.add(Item::bad("the archive", message)),
        None => Ok(()),
    }
}
