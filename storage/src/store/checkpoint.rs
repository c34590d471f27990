//! The thread that moves the write-ahead log into the file, so that writers never do. The log is written over and not
//! cut: a file that grows costs the disk more.

use super::{Shared, lock};
use crate::error::Result;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// The log is moved into the file at least this often while it grows, and while much is written so often.
const PAUSE: Duration = Duration::from_secs(1);
const SHORT_PAUSE: Duration = Duration::from_millis(250);
/// Pages of the log that are much.
const MANY: i64 = 2_000;
/// From so many pages on the log is begun anew: 64 MiB.
const LONG: i64 = 16_000;
/// So few pages are moved while writers wait, if that can be.
const FEW: i64 = 200;
const MOST_PASSES: usize = 6;
/// What a checkpoint waits for readers, at most: writers wait with it.
const WAIT: Duration = Duration::from_millis(10);
/// Left free of a disk on which the file grows: what writers need to go on, and a node to start.
const SPARE_BYTES: u64 = 2 << 20;

pub(super) fn run(path: &Path, stopped: &Receiver<()>, shared: &Shared) {
    let Ok(conn) = Connection::open(path) else { return };
    let _ = conn.busy_timeout(WAIT);
    let (mut seen, mut pause) = (0, PAUSE);
    loop {
        let stop = !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
        let version: i64 = conn.query_row("PRAGMA data_version", [], |r| r.get(0)).unwrap_or(0);
        if version != seen || stop {
            seen = version;
            if !has_room(&conn, path) {
                // What is in the log stays there, and is read from there.
                seen = -1;
                if stop {
                    let _ = close_sparingly(&conn, path);
                    return;
                }
                continue;
            }
            let (pages, _) = once(&conn, "PASSIVE");
            pause = if pages > MANY { SHORT_PAUSE } else { PAUSE };
            if stop {
                once(&conn, "TRUNCATE");
            } else if pages > LONG {
                begin_anew(&conn, shared);
            }
        }
        if stop {
            return;
        }
    }
}

/// A connection that is the last to close moves the log into the file. Not so this one, as long as the disk has no room for
/// that: what it took would be missing at the next start.
pub(crate) fn close_sparingly(conn: &Connection, path: &Path) -> Result<()> {
    leave_log(conn, !has_room(conn, path))
}

/// Whether a connection that closes leaves the log to others.
pub(super) fn leave_log(conn: &Connection, leaves: bool) -> Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leaves)?;
    Ok(())
}

/// Whether the disk has room for what the file will be longer. A file that takes the last of a disk leaves none to those who
/// write to the log, and it would be longer than before with nothing gained: the log is not cut.
fn has_room(conn: &Connection, path: &Path) -> bool {
    let figure = |name: &str| {
        let read: rusqlite::Result<i64> =
            conn.query_row(&format!("PRAGMA {name}"), [], |r| r.get(0));
        read.ok().and_then(|read| u64::try_from(read).ok()).unwrap_or_default()
    };
    let (pages, page_bytes) = (figure("page_count"), figure("page_size"));
    let is_bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    let grows_by = pages.saturating_mul(page_bytes).saturating_sub(is_bytes);
    let folder = path.parent().unwrap_or(path);
    grows_by == 0
        || fs4::available_space(folder).map_or(true, |free| free >= grows_by + SPARE_BYTES)
}

/// Writers wait for the last pass. Each one before it leaves what was written meanwhile, so less and less.
fn begin_anew(conn: &Connection, shared: &Shared) {
    for _ in 0..MOST_PASSES {
        let (pages, moved) = once(conn, "PASSIVE");
        if pages - moved < FEW {
            break;
        }
    }
    let _seat = lock(&shared.db);
    once(conn, "RESTART");
}

/// The pages that the log held, and those that were moved.
fn once(conn: &Connection, mode: &str) -> (i64, i64) {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    conn.query_row(&sql, [], |row| Ok((row.get(1)?, row.get(2)?))).unwrap_or_default()
}
