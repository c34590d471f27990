//! Markdown files in an archive: plain tar, or tar under zstd. Reads the archive once, from its start to its end, and
//! unpacks nothing to the disk. What is no regular Markdown file is passed over.

use super::entry::Item;
use super::folder::text_of;
use super::intake::Intake;
use super::layout;
use crate::error::Result;
use crate::exchange::Unpacking;
use std::path::Path;

/// `name`: what its files are told apart by from those of another archive; none if it is empty.
pub(super) fn read_markdown(intake: &mut Intake<'_>, file: &Path, name: &str) -> Result<()> {
    let mut archive = Unpacking::open(file)?;
    let ended = archive.each(|path, content, done, of| {
        intake.at(done, of);
        let is_hidden = path.split('/').any(|part| part.starts_with('.'));
        if is_hidden || !layout::is_markdown(Path::new(path)) {
            return Ok(());
        }
        intake.add(match text_of(content) {
            Ok(text) => {
                let mut entry = layout::entry_of(path, &text);
                path.clone_into(&mut entry.source);
                if !name.is_empty() {
                    entry.origin = format!("{name}:{path}");
                }
                Item::Post(Box::new(entry))
            }
            Err(message) => Item::bad(path, message),
        })
    })?;
    match ended {
        Some(message) => intake.add(Item::bad("the archive", message)),
        None => Ok(()),
    }
}
