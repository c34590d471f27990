//! Work to be done later, once at least, on this node: kept in the same file, retried with growing pauses, and
//! set aside when it keeps failing.

use crate::error::Result;
use crate::read::Read;
use crate::tx::Tx;
use rusqlite::{OptionalExtension, params};

/// After so many attempts a job waits in the dead letter queue.
pub const MAX_ATTEMPTS: u32 = 8;

#[derive(Clone, Debug, serde::Serialize)]
pub struct Job {
    pub id: i64,
    pub queue: String,
    pub payload: serde_json::Value,
    pub run_at_ms: u64,
    pub attempts: u32,
    /// waiting, running, done or dead
    pub state: String,
    pub error: Option<String>,
    pub done: u64,
    pub of: u64,
}

const COLUMNS: &str = "id, queue, payload, run_at_ms, attempts, state, error, done, of";

fn job_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Job> {
    let payload: String = row.get(2)?;
    Ok(Job {
        id: row.get(0)?,
        queue: row.get(1)?,
        payload: serde_json::from_str(&payload).unwrap_or_default(),
        run_at_ms: row.get::<_, i64>(3)? as u64,
        attempts: row.get(4)?,
        state: row.get(5)?,
        error: row.get(6)?,
        done: row.get::<_, i64>(7)? as u64,
        of: row.get::<_, i64>(8)? as u64,
    })
}

impl Tx<'_> {
    pub fn enqueue(
        &mut self,
        queue: &str,
        payload: &serde_json::Value,
        run_at_ms: u64,
    ) -> Result<i64> {
        let sql = "INSERT INTO job (queue, payload, run_at_ms) VALUES (?1, ?2, ?3)";
        self.conn().prepare_cached(sql)?.execute(params![
            queue,
            payload.to_string(),
            run_at_ms as i64
        ])?;
        Ok(self.conn().last_insert_rowid())
    }

    /// Takes the next job that is due. A job left running by a crash is taken again after `lease_ms`.
    pub fn take_job(&mut self, lease_ms: u64) -> Result<Option<Job>> {
        let sql = format!(
            "UPDATE job SET state = 'running', attempts = attempts + 1, run_at_ms = ?1 + ?2 WHERE id = \
             (SELECT id FROM job WHERE state IN ('waiting', 'running') AND run_at_ms <= ?1 ORDER BY run_at_ms LIMIT 1) \
             RETURNING {COLUMNS}"
        );
        let args = params![self.now_ms() as i64, lease_ms as i64];
        Ok(self.conn().prepare_cached(&sql)?.query_row(args, job_of).optional()?)
    }

    pub fn finish_job(&mut self, id: i64) -> Result<()> {
        self.conn().execute("UPDATE job SET state = 'done', error = NULL WHERE id = ?1", [id])?;
        let sql = "DELETE FROM job WHERE state = 'done' AND id < (SELECT max(id) FROM job) - 1000";
        self.conn().execute(sql, [])?;
        Ok(())
    }

    /// Puts a failed job back for later, or aside. `jitter` in 0..1 spreads the retries.
    pub fn fail_job(&mut self, job: &Job, error: &str, jitter: f64) -> Result<()> {
        let state = if job.attempts >= MAX_ATTEMPTS { "dead" } else { "waiting" };
        let pause_ms = 1_000.0 * f64::from(1u32 << job.attempts.min(12)) * (0.5 + jitter);
        let run_at_ms = self.now_ms() + pause_ms as u64;
        let sql = "UPDATE job SET state = ?2, error = ?3, run_at_ms = ?4 WHERE id = ?1";
        self.conn().execute(sql, params![job.id, state, error, run_at_ms as i64])?;
        Ok(())
    }

    pub fn note_progress(&mut self, id: i64, done: u64, of: u64) -> Result<()> {
        let sql = "UPDATE job SET done = ?2, of = ?3 WHERE id = ?1";
        self.conn().execute(sql, params![id, done as i64, of as i64])?;
        Ok(())
    }

    /// Takes a dead job up again.
    pub fn replay_job(&mut self, id: i64) -> Result<bool> {
        let sql = "UPDATE job SET state = 'waiting', attempts = 0, run_at_ms = ?2 WHERE id = ?1 AND state = 'dead'";
        Ok(self.conn().execute(sql, params![id, self.now_ms() as i64])? > 0)
    }

    pub fn drop_job(&mut self, id: i64) -> Result<bool> {
        Ok(self.conn().execute("DELETE FROM job WHERE id = ?1 AND state = 'dead'", [id])? > 0)
    }
}

pub fn find(reader: &impl Read, id: i64) -> Result<Option<Job>> {
    let sql = format!("SELECT {COLUMNS} FROM job WHERE id = ?1");
    Ok(reader.conn().prepare_cached(&sql)?.query_row([id], job_of).optional()?)
}

/// Jobs in a state, newest first.
pub fn list(reader: &impl Read, state: &str, limit: usize) -> Result<Vec<Job>> {
    let sql = format!("SELECT {COLUMNS} FROM job WHERE state = ?1 ORDER BY id DESC LIMIT ?2");
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let rows = statement.query_map(params![state, limit.min(1_000) as i64], job_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many jobs wait.
pub fn depth(reader: &impl Read) -> Result<u64> {
    let sql = "SELECT count(*) FROM job WHERE state IN ('waiting', 'running')";
    let n: i64 = reader.conn().prepare_cached(sql)?.query_row([], |r| r.get(0))?;
    Ok(n as u64)
}
