//! Work to be done later, once at least, on this node: kept in the same file, retried with growing pauses, and
//! set aside when it keeps failing. A job is held under a numbered lease; whoever lost the lease can note nothing. Tenants
//! take turns, so that none waits for all that another has asked for.

use crate::error::Result;
use crate::id::Id;
use crate::read::Read;
use crate::tx::Tx;
use rusqlite::{OptionalExtension, params};

/// After so many fruitless attempts a job waits in the dead letter queue.
pub const MAX_ATTEMPTS: u32 = 8;
/// Jobs that ended and are kept to be looked at.
const KEPT: i64 = 1_000;

/// What a job can be in.
pub const STATES: &[&str] = &[WAITING, RUNNING, DONE, DEAD, CANCELLED];
pub const WAITING: &str = "waiting";
pub const RUNNING: &str = "running";
pub const DONE: &str = "done";
pub const DEAD: &str = "dead";
pub const CANCELLED: &str = "cancelled";

#[derive(Clone, Debug)]
pub struct Job {
    pub id: i64,
    /// None: the node's own work, which belongs to nobody.
    pub tenant: Option<Id>,
    /// Whose turn it takes: the tenant that it is done for, also where it is not shown to it.
    pub share: Option<Id>,
    /// Whoever asked for it.
    pub user: Option<Id>,
    pub queue: String,
    pub payload: serde_json::Value,
    pub run_at_ms: u64,
    /// Since it last got ahead.
    pub attempts: u32,
    /// Rises whenever somebody takes it.
    pub lease: u64,
    /// One of [`STATES`].
    pub state: String,
    pub error: Option<String>,
    pub done: u64,
    pub of: u64,
    /// What it is at.
    pub note: String,
    /// Where it goes on after a stop: what its handler committed last.
    pub position: serde_json::Value,
    pub result: serde_json::Value,
    pub created_ms: u64,
    pub started_ms: Option<u64>,
    pub ended_ms: Option<u64>,
}

/// How far a job is, noted in the transaction of the work itself.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub done: u64,
    pub of: u64,
    pub note: String,
    pub position: serde_json::Value,
}

const COLUMNS: &str = "id, queue, payload, run_at_ms, attempts, state, error, done, of, result, tenant, user, lease, \
                       created_ms, started_ms, ended_ms, note, position, share";

fn job_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Job> {
    let json = |at: usize| -> rusqlite::Result<serde_json::Value> {
        let text: Option<String> = row.get(at)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    };
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(|ms| ms.map(|ms| ms as u64));
    let id = |at: usize| row.get::<_, Option<[u8; 16]>>(at).map(|id| id.map(Id));
    Ok(Job {
        id: row.get(0)?,
        queue: row.get(1)?,
        payload: json(2)?,
        run_at_ms: row.get::<_, i64>(3)? as u64,
        attempts: row.get(4)?,
        state: row.get(5)?,
        error: row.get(6)?,
        done: row.get::<_, i64>(7)? as u64,
        of: row.get::<_, i64>(8)? as u64,
        result: json(9)?,
        tenant: id(10)?,
        user: id(11)?,
        lease: row.get::<_, i64>(12)? as u64,
        created_ms: row.get::<_, i64>(13)? as u64,
        started_ms: time(14)?,
        ended_ms: time(15)?,
        note: row.get::<_, Option<String>>(16)?.unwrap_or_default(),
        position: json(17)?,
        share: Id::from_slice(row.get_ref(18)?.as_blob()?),
    })
}

/// What can be taken at ?1, from other queues than ?2; of the queues ?3 only of those who have none of them running.
const DUE: &str = "state IN ('waiting', 'running') AND run_at_ms <= ?1 \
                   AND queue NOT IN (SELECT value FROM json_each(?2)) \
                   AND NOT (queue IN (SELECT value FROM json_each(?3)) AND EXISTS \
                   (SELECT 1 FROM job AS other WHERE other.state = 'running' AND other.run_at_ms > ?1 \
                   AND other.share = job.share AND other.queue IN (SELECT value FROM json_each(?3))))";

/// Which job a worker takes next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn<'a> {
    /// Queues that it takes nothing from.
    pub but: &'a [&'a str],
    /// Queues of which a tenant has one job at a time, all of them together.
    pub one_each: &'a [&'a str],
    /// Whose job was taken last: the next is of whoever comes after him.
    pub after: Option<Id>,
}

impl Turn<'_> {
    fn queues(&self) -> [String; 2] {
        [self.but, self.one_each].map(|queues| serde_json::Value::from(queues).to_string())
    }
}

/// Nobody comes before all tenants.
fn share_of(share: Option<Id>) -> Vec<u8> {
    share.map_or_else(Vec::new, |id| id.0.to_vec())
}

impl Tx<'_> {
    /// Work of the node itself.
    pub fn enqueue(
        &mut self,
        queue: &str,
        payload: &serde_json::Value,
        run_at_ms: u64,
    ) -> Result<i64> {
        self.put_job(None, None, None, queue, payload, run_at_ms)
    }

    /// Work of the node itself that it does for a tenant, in the tenant's turn.
    pub fn enqueue_in_turn_of(
        &mut self,
        share: Id,
        queue: &str,
        payload: &serde_json::Value,
        run_at_ms: u64,
    ) -> Result<i64> {
        self.put_job(None, None, Some(share), queue, payload, run_at_ms)
    }

    /// Work that somebody of a tenant asked for.
    pub fn enqueue_for(
        &mut self,
        tenant: Option<Id>,
        user: Option<Id>,
        queue: &str,
        payload: &serde_json::Value,
        run_at_ms: u64,
    ) -> Result<i64> {
        self.put_job(tenant, user, tenant, queue, payload, run_at_ms)
    }

    fn put_job(
        &mut self,
        tenant: Option<Id>,
        user: Option<Id>,
        share: Option<Id>,
        queue: &str,
        payload: &serde_json::Value,
        run_at_ms: u64,
    ) -> Result<i64> {
        let sql = "INSERT INTO job (queue, payload, run_at_ms, tenant, user, created_ms, share) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.conn().prepare_cached(sql)?.execute(params![
            queue,
            payload.to_string(),
            run_at_ms as i64,
            tenant.map(|id| id.0),
            user.map(|id| id.0),
            self.now_ms() as i64,
            share_of(share)
        ])?;
        Ok(self.conn().last_insert_rowid())
    }

    /// Takes the next job that is due, for `lease_ms`. One whose lease ran out is taken again.
    pub fn take_job(&mut self, lease_ms: u64) -> Result<Option<Job>> {
        self.take_job_in(lease_ms, Turn::default())
    }

    /// As [`Tx::take_job`], the one whose turn it is.
    pub fn take_job_in(&mut self, lease_ms: u64, turn: Turn<'_>) -> Result<Option<Job>> {
        // Of those who come after the last one; else from the start again.
        for (than, last) in [(">", share_of(turn.after)), (">=", share_of(None))] {
            let sql = format!(
                "UPDATE job SET state = 'running', attempts = attempts + 1, lease = lease + 1, run_at_ms = ?1 + ?4, \
                 started_ms = coalesce(started_ms, ?1), ended_ms = NULL WHERE id = \
                 (SELECT id FROM job WHERE {DUE} AND share {than} ?5 ORDER BY share, run_at_ms LIMIT 1) \
                 RETURNING {COLUMNS}"
            );
            let [but, one_each] = turn.queues();
            let args = params![self.now_ms() as i64, but, one_each, lease_ms as i64, last];
            let taken = self.conn().prepare_cached(&sql)?.query_row(args, job_of).optional()?;
            if taken.is_some() {
                return Ok(taken);
            }
        }
        Ok(None)
    }

    /// Makes due at once what a process left running that is no more. For the start of a node only.
    pub fn reclaim_jobs(&mut self) -> Result<usize> {
        let sql = "UPDATE job SET run_at_ms = ?1 WHERE state = 'running' AND run_at_ms > ?1";
        Ok(self.conn().execute(sql, [self.now_ms() as i64])?)
    }

    /// Notes how far the job is and renews its lease. False if it is no longer the holder's: then the transaction
    /// must not be kept.
    pub fn advance_job(&mut self, job: &Job, to: &Progress, lease_ms: u64) -> Result<bool> {
        let sql = "UPDATE job SET done = ?3, of = ?4, note = ?5, position = ?6, run_at_ms = ?7, attempts = 1 \
                   WHERE id = ?1 AND lease = ?2 AND state = 'running'";
        let changed = self.conn().prepare_cached(sql)?.execute(params![
            job.id,
            job.lease as i64,
            to.done as i64,
            to.of as i64,
            to.note,
            to.position.to_string(),
            (self.now_ms() + lease_ms) as i64
        ])?;
        Ok(changed > 0)
    }

    /// False if the job is no longer the holder's, and so nothing was noted; as with the other ends.
    pub fn finish_job(&mut self, job: &Job, result: &serde_json::Value) -> Result<bool> {
        let sql = "UPDATE job SET state = 'done', error = NULL, result = ?3, ended_ms = ?4, position = NULL, \
                   done = max(done, of) \
                   WHERE id = ?1 AND lease = ?2 AND state = 'running'";
        let result = (!result.is_null()).then(|| result.to_string());
        let args = params![job.id, job.lease as i64, result, self.now_ms() as i64];
        let changed = self.conn().execute(sql, args)?;
        let sql = "DELETE FROM job WHERE state IN ('done', 'cancelled') AND id <= \
                   (SELECT id FROM job WHERE state IN ('done', 'cancelled') ORDER BY id DESC LIMIT 1 OFFSET ?1)";
        self.conn().execute(sql, [KEPT])?;
        Ok(changed > 0)
    }

    /// Puts a failed job back for later, or aside: at once if it is `hopeless`. `jitter` in 0..1 spreads the retries.
    pub fn fail_job(
        &mut self,
        job: &Job,
        error: &str,
        hopeless: bool,
        jitter: f64,
    ) -> Result<bool> {
        let now_ms = self.now_ms();
        // What got ahead since it was taken counts as new.
        let attempts = find(self, job.id)?.map_or(job.attempts, |now| now.attempts);
        let is_dead = hopeless || attempts >= MAX_ATTEMPTS;
        let pause_ms = 1_000.0 * f64::from(1u32 << attempts.min(12)) * (0.5 + jitter);
        let sql = "UPDATE job SET state = ?3, error = ?4, run_at_ms = ?5, ended_ms = ?6 \
                   WHERE id = ?1 AND lease = ?2 AND state = 'running'";
        let changed = self.conn().execute(
            sql,
            params![
                job.id,
                job.lease as i64,
                if is_dead { DEAD } else { WAITING },
                error,
                (now_ms + pause_ms as u64) as i64,
                is_dead.then_some(now_ms as i64)
            ],
        )?;
        Ok(changed > 0)
    }

    /// Gives a job back that is not at fault for being stopped: the node ends.
    pub fn release_job(&mut self, job: &Job) -> Result<bool> {
        let sql = "UPDATE job SET state = 'waiting', attempts = max(attempts - 1, 0), run_at_ms = ?3 \
                   WHERE id = ?1 AND lease = ?2 AND state = 'running'";
        let args = params![job.id, job.lease as i64, self.now_ms() as i64];
        Ok(self.conn().execute(sql, args)? > 0)
    }

    /// Ends a job that has not ended. Whoever works on it can commit nothing more of it.
    pub fn cancel_job(&mut self, id: i64) -> Result<bool> {
        let sql = "UPDATE job SET state = 'cancelled', ended_ms = ?2 \
                   WHERE id = ?1 AND state IN ('waiting', 'running', 'dead')";
        Ok(self.conn().execute(sql, params![id, self.now_ms() as i64])? > 0)
    }

    /// Takes a dead or cancelled job up again, where it stopped.
    pub fn replay_job(&mut self, id: i64) -> Result<bool> {
        let sql = "UPDATE job SET state = 'waiting', attempts = 0, run_at_ms = ?2, ended_ms = NULL, error = NULL \
                   WHERE id = ?1 AND state IN ('dead', 'cancelled')";
        Ok(self.conn().execute(sql, params![id, self.now_ms() as i64])? > 0)
    }

    /// Of a tenant that is no more, whatever they are in.
    pub fn drop_jobs_of(&mut self, tenant: Id) -> Result<usize> {
        Ok(self.conn().execute("DELETE FROM job WHERE tenant = ?1 OR share = ?1", [tenant.0])?)
    }

    pub fn drop_job(&mut self, id: i64) -> Result<bool> {
        let sql = "DELETE FROM job WHERE id = ?1 AND state IN ('done', 'dead', 'cancelled')";
        Ok(self.conn().execute(sql, [id])? > 0)
    }
}

pub fn find(reader: &impl Read, id: i64) -> Result<Option<Job>> {
    let sql = format!("SELECT {COLUMNS} FROM job WHERE id = ?1");
    Ok(reader.conn().prepare_cached(&sql)?.query_row([id], job_of).optional()?)
}

/// Whether [`Tx::take_job_in`] would give one.
pub fn is_due(reader: &impl Read, now_ms: u64, turn: Turn<'_>) -> Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM job WHERE {DUE})");
    let [but, one_each] = turn.queues();
    let args = params![now_ms as i64, but, one_each];
    Ok(reader.conn().prepare_cached(&sql)?.query_row(args, |r| r.get(0))?)
}

/// Which jobs of a tenant are listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    pub queue: Option<&'a str>,
    pub state: Option<&'a str>,
    /// Only older ones.
    pub before: Option<i64>,
}

/// The jobs of a tenant, newest first, and how many there are on all pages.
pub fn list(
    reader: &impl Read,
    tenant: Id,
    wanted: Wanted<'_>,
    limit: usize,
) -> Result<(Vec<Job>, u64)> {
    let matching = "tenant = ?1 AND (?2 IS NULL OR queue = ?2) AND (?3 IS NULL OR state = ?3)";
    let sql = format!(
        "SELECT {COLUMNS} FROM job WHERE {matching} AND (?4 IS NULL OR id < ?4) ORDER BY id DESC LIMIT ?5"
    );
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let limit = limit.min(1_000) as i64;
    let args = params![tenant.0, wanted.queue, wanted.state, wanted.before, limit];
    let jobs = statement.query_map(args, job_of)?.collect::<rusqlite::Result<_>>()?;
    let sql = format!("SELECT count(*) FROM job WHERE {matching}");
    let args = params![tenant.0, wanted.queue, wanted.state];
    let total: i64 = reader.conn().prepare_cached(&sql)?.query_row(args, |r| r.get(0))?;
    Ok((jobs, total as u64))
}

/// All jobs of a queue, of every tenant, newest first: for the node's own upkeep.
pub fn of_queue(reader: &impl Read, queue: &str, limit: usize) -> Result<Vec<Job>> {
    let sql = format!("SELECT {COLUMNS} FROM job WHERE queue = ?1 ORDER BY id DESC LIMIT ?2");
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let rows = statement.query_map(params![queue, limit as i64], job_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many jobs wait or run.
pub fn depth(reader: &impl Read) -> Result<u64> {
    let sql = "SELECT count(*) FROM job WHERE state IN ('waiting', 'running')";
    let n: i64 = reader.conn().prepare_cached(sql)?.query_row([], |r| r.get(0))?;
    Ok(n as u64)
}

/// How many jobs wait or run that are done for a tenant, those among them that are not shown to it.
pub fn depth_in_turn_of(reader: &impl Read, share: Id) -> Result<u64> {
    let sql = "SELECT count(*) FROM job WHERE share = ?1 AND state IN ('waiting', 'running')";
    let n: i64 = reader.conn().prepare_cached(sql)?.query_row([share.0], |r| r.get(0))?;
    Ok(n as u64)
}

/// How many jobs of a tenant wait or run.
pub fn depth_of(reader: &impl Read, tenant: Id) -> Result<u64> {
    let sql = "SELECT count(*) FROM job WHERE tenant = ?1 AND state IN ('waiting', 'running')";
    let n: i64 = reader.conn().prepare_cached(sql)?.query_row([tenant.0], |r| r.get(0))?;
    Ok(n as u64)
}
