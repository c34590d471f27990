//! The thread that moves the write-ahead log into the file, so that writers never do. The log is written over and not
//! cut: a file that grows costs the disk more.

use super::{Shared, lock};
use rusqlite::Connection;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// The log is moved into the file at least this often while it grows, and while much is written so often.
const PAUSE: Duration = Duration::from_secs(1);
const SHORT_PAUSE: Duration = Duration::from_millis(250);
/// Pages of the log that are much.
const MANY: i64 = 2_000;
/// From so many pages on the log is begun anew.
const LONG: i64 = 8_000;
/// What a checkpoint waits for readers, at most: writers wait with it.
const WAIT: Duration = Duration::from_millis(10);

pub(super) fn run(path: &Path, stopped: &Receiver<()>, shared: &Shared) {
    let Ok(conn) = Connection::open(path) else { return };
    let _ = conn.busy_timeout(WAIT);
    let (mut seen, mut pause) = (0, PAUSE);
    loop {
        let stop = !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
        let version: i64 = conn.query_row("PRAGMA data_version", [], |r| r.get(0)).unwrap_or(0);
        if version != seen || stop {
            seen = version;
            let pages = once(&conn, "PASSIVE");
            pause = if pages > MANY { SHORT_PAUSE } else { PAUSE };
            if stop {
                once(&conn, "TRUNCATE");
            } else if pages > LONG {
                // The second pass leaves next to nothing for the third, which writers wait for.
                once(&conn, "PASSIVE");
                let _seat = lock(&shared.db);
                once(&conn, "RESTART");
            }
        }
        if stop {
            return;
        }
    }
}

/// The pages that the log held.
fn once(conn: &Connection, mode: &str) -> i64 {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    conn.query_row(&sql, [], |row| row.get(1)).unwrap_or(0)
}
