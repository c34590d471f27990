//! What it costs to read a file that somebody made to cost much. Counted in bytes, as a file gives them to whoever buffers it.

use super::*;
use std::cell::Cell;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

const MARKER: [u8; 8] = *b"\x93ATOLL\r\n";
const FILE_BYTES: usize = 256 << 10;

struct Counted {
    file: Cursor<Vec<u8>>,
    read_bytes: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(into)?;
        self.read_bytes.set(self.read_bytes.get() + bytes as u64);
        Ok(bytes)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// As one stands before a part of so many bytes.
fn header(kind: u8, length: u32) -> Vec<u8> {
    let mut bytes = MARKER.to_vec();
    bytes.extend([kind, 0, 0, 0, 7, 0, 0, 0]);
    bytes.extend(length.to_le_bytes());
    let check = blake3::hash(&bytes);
    bytes.extend(&check.as_bytes()[..8]);
    bytes
}

/// What reading a volume costs, from its head to its end; to look at it costs no more.
fn cost(bytes: Vec<u8>) -> Outcome<(u64, Result<Report, Error>)> {
    let read_bytes = Rc::new(Cell::new(0));
    let open = || {
        let counted = Counted { file: Cursor::new(bytes.clone()), read_bytes: read_bytes.clone() };
        Volume::open(BufReader::with_capacity(1 << 16, counted))
    };
    let report = open().and_then(|volume| bundle::import(None, None, vec![volume], |_, _| {}));
    let to_read = read_bytes.take();
    let looked_at = open().and_then(|volume| bundle::info(&mut [volume]));
    assert!(looked_at.is_ok() == report.is_ok() && read_bytes.get() <= to_read + (1 << 16));
    Ok((to_read, report))
}

#[test]
fn a_file_is_read_about_once_whatever_looks_like_parts_in_it() -> Outcome {
    let mut core = node()?;
    core.fill(0..1_900)?;
    let (_, volumes) = core.export(&vec![], &[])?;
    let length = u32::from_le_bytes(volumes[0][16..20].try_into()?) as usize + 28 + 64;
    let head = &volumes[0][..length];
    let (read, report) = cost(volumes[0].clone())?;
    assert!(report?.is_sound());
    assert!(read <= 2 * volumes[0].len() as u64 + FILE_BYTES as u64, "{read} bytes of a sound one");
    let empty = [header(1, 0), vec![0; 64]].concat();
    for repeated in [MARKER.to_vec(), header(1, 16 << 20), header(0, 9 << 20), empty] {
        let filled = repeated.repeat(FILE_BYTES / repeated.len());
        let (read, report) = cost([head, &filled].concat())?;
        let report = report?;
        assert!(report.parts == 0 && !report.damaged.is_empty(), "{report:?}");
        assert!(read <= 4 * FILE_BYTES as u64, "{read} bytes of {FILE_BYTES}");
        // The head behind it is found, too.
        let (read, report) = cost([&filled, head].concat())?;
        assert!(report.is_ok() && read <= 4 * FILE_BYTES as u64, "{read} bytes of {FILE_BYTES}");
    }
    Ok(())
}
