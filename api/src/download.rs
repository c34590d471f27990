//! A file as an answer, whole or in part: `Range` with one range of bytes, as RFC 9110 has it. Reads it piece by piece;
//! never more of it is in memory than one piece.

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Answer;
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, ETAG,
};
use bytes::Bytes;
use std::io::SeekFrom;
use std::path::Path;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// It is compressed already.
pub(crate) const ARCHIVE: &str = "application/zstd";
pub(crate) const BUNDLE: &str = "application/vnd.atoll.bundle";
pub(crate) const LINES: &str = "application/jsonl";
const PIECE_BYTES: u64 = 128 << 10;

/// `name`: what a browser saves it as. `tag`: changes whenever the file does.
pub(crate) async fn file(
    call: &Call,
    path: &Path,
    content_type: &'static str,
    name: &str,
    tag: &str,
) -> Answer {
    let gone = |_| Problem::not_found("file");
    let mut file = File::open(path).await.map_err(gone)?;
    let size = file.metadata().await.map_err(gone)?.len();
    let tag = format!("\"{tag}\"");
    // A range of what it was once is no range of what it is now.
    let is_same = call.header("if-range").is_none_or(|known| known == tag);
    let wanted = call.header("range").filter(|_| is_same);
    let (start, end) = match wanted.map_or(Wanted::All, |range| wanted_of(range, size)) {
        Wanted::All => (0, size),
        Wanted::Part(start, end) => (start, end),
        Wanted::Nothing => return Err(unsatisfiable(size)),
    };
    file.seek(SeekFrom::Start(start)).await.map_err(gone)?;
    let pieces = futures_util::stream::unfold((file, end - start), next_piece);
    let mut reply = Reply::stream(content_type, pieces);
    if matches!(wanted.map(|range| wanted_of(range, size)), Some(Wanted::Part(..))) {
        let last = end.saturating_sub(1);
        reply = reply
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, format!("bytes {start}-{last}/{size}"));
    }
    Ok(reply
        .header(CONTENT_LENGTH, (end - start).to_string())
        .header(ACCEPT_RANGES, "bytes")
        .header(CACHE_CONTROL, "private, no-store")
        .header(CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""))
        .header(ETAG, tag))
}

fn unsatisfiable(size: u64) -> Problem {
    let message = format!("there is no such range: the file has {size} bytes");
    Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", message)
}

async fn next_piece(
    (mut file, left): (File, u64),
) -> Option<(std::io::Result<Bytes>, (File, u64))> {
    if left == 0 {
        return None;
    }
    let mut piece = vec![0; left.min(PIECE_BYTES) as usize];
    match file.read(&mut piece).await {
        Ok(0) => Some((Err(std::io::ErrorKind::UnexpectedEof.into()), (file, 0))),
        Ok(read) => {
            piece.truncate(read);
            Some((Ok(piece.into()), (file, left - read as u64)))
        }
        Err(error) => Some((Err(error), (file, 0))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    All,
    /// From the first to before the second.
    Part(u64, u64),
    Nothing,
}

/// What cannot be read, and more than one range, is answered with all.
fn wanted_of(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Wanted::All;
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => Wanted::All,
        (Ok(first), _) if first >= size => Wanted::Nothing,
        (Ok(first), Ok(last)) => Wanted::Part(first, size.min(last.saturating_add(1))),
        (Ok(first), Err(_)) if last.trim().is_empty() => Wanted::Part(first, size),
        (Err(_), Ok(0)) if first.trim().is_empty() => Wanted::Nothing,
        (Err(_), Ok(tail)) if first.trim().is_empty() => {
            Wanted::Part(size.saturating_sub(tail), size)
        }
        _ => Wanted::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood() {
        assert_eq!(wanted_of("bytes=0-3", 10), Wanted::Part(0, 4));
        assert_eq!(wanted_of("bytes=4-", 10), Wanted::Part(4, 10));
        assert_eq!(wanted_of("bytes=-3", 10), Wanted::Part(7, 10));
        assert_eq!(wanted_of("bytes=-30", 10), Wanted::Part(0, 10));
        assert_eq!(wanted_of("bytes=8-99", 10), Wanted::Part(8, 10));
        for nothing in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(wanted_of(nothing, 10), Wanted::Nothing, "{nothing}");
        }
        for odd in ["", "bytes", "bytes=3-1", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b"] {
            assert_eq!(wanted_of(odd, 10), Wanted::All, "{odd}");
        }
    }
}
