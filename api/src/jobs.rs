//! The jobs of a tenant: what waits, runs, was done or failed, and what to do about it. Shows no job's payload.

use crate::call::Call;
use crate::moment::Moment;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, delete, get, post};
use atoll_node::Permission::JobsAdminister;
use atoll_node::job::{self, Job, STATES};
use atoll_storage::Field;
use atoll_storage::job::Wanted;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/jobs", Can(JobsAdminister), list)
            .gives_fields(JOB)
            .pages()
            .query(&["limit", "cursor", "state", "queue"])
            .doc("The tenant's jobs, newest first. With state=dead, those that failed for good."),
        get("/api/v1/jobs/{id}", Can(JobsAdminister), get_one)
            .gives_fields(JOB)
            .doc("How far a job is. Events of the type runtime.job tell it as it happens."),
        post("/api/v1/jobs/{id}/cancel", Can(JobsAdminister), cancel)
            .gives_fields(JOB)
            .doc("Ends a job; what it has done stays."),
        post("/api/v1/jobs/{id}/retry", Can(JobsAdminister), retry)
            .gives_fields(JOB)
            .doc("Takes a dead or cancelled job up again, where it stopped."),
        delete("/api/v1/jobs/{id}", Can(JobsAdminister), remove)
            .doc("Forgets a job that has ended, a dead letter among them."),
    ]
}

pub(crate) const JOB: &[Field] = &[
    Field::text(1, "id"),
    Field::text(2, "queue").doc("What kind of work it is."),
    Field::text(3, "state").choices(STATES),
    Field::int(4, "attempts").doc("Since it last got ahead."),
    Field::int(5, "done"),
    Field::int(6, "of").doc("0 until it is known."),
    Field::int(7, "percent").doc("Null until it is known how much there is to do."),
    Field::text(8, "note").doc("What it is at."),
    Field::text(9, "error").doc("Why it failed last."),
    Field::refers(10, "user_id", "user").doc("Who asked for it."),
    Field::time(11, "created_at"),
    Field::time(12, "started_at"),
    Field::time(13, "ended_at"),
    Field::time(14, "run_at").doc("When it is tried next, while it waits."),
];

/// As [`JOB`] says, and with what it gave under `result`.
pub(crate) fn shown(job: &Job) -> Json {
    let time = |ms: Option<u64>| ms.map(|ms| Moment::of(ms).to_string());
    let waits = job.state == job::WAITING;
    json!({
        "id": job.id.to_string(),
        "queue": job.queue,
        "state": job.state,
        "attempts": job.attempts,
        "done": job.done,
        "of": job.of,
        "percent": job::percent(job),
        "note": Some(&job.note).filter(|note| !note.is_empty()),
        "error": job.error,
        "result": job.result,
        "user_id": job.user,
        "created_at": time(Some(job.created_ms)),
        "started_at": time(job.started_ms),
        "ended_at": time(job.ended_ms),
        "run_at": time(Some(job.run_at_ms).filter(|_| waits)),
    })
}

/// 202: it is worked on, and `path` tells how far it is.
pub(crate) fn accepted(job: &Job, value: Json, path: &str) -> Answer {
    let reply = Reply::data(value)?.status(StatusCode::ACCEPTED);
    Ok(reply.header(LOCATION, format!("{path}/{}", job.id)))
}

/// # Errors
/// 404 if that part of the path is no number: no job has such an id.
pub(crate) fn id(call: &Call, noun: &'static str) -> Result<i64, Problem> {
    call.path("id").parse().map_err(|_| Problem::not_found(noun))
}

/// A page of jobs, each as `show` gives it.
pub(crate) fn page(call: &Call, wanted: Wanted<'_>, show: impl Fn(&Job) -> Json) -> Answer {
    let limit = call.limit()?;
    let wrong =
        || Problem::parameter("cursor", "wrong_cursor", "give the `next` of a page as it stands");
    let before = call.param("cursor").map(|text| text.parse().map_err(|_| wrong())).transpose()?;
    let wanted = Wanted { before, ..wanted };
    let (jobs, total) = job::list(&call.node, &call.actor, wanted, limit + 1)?;
    let rows: Vec<Json> = jobs.iter().take(limit).map(show).collect();
    let last = jobs.get(limit.saturating_sub(1)).filter(|_| jobs.len() > limit);
    let next = last.map(|job| job.id.to_string());
    Reply::rows(call, &rows, next.as_deref(), total)
}

async fn list(call: Call) -> Answer {
    let state = call.param("state");
    if state.is_some_and(|state| !STATES.contains(&state)) {
        let message = format!("must be one of {}", STATES.join(", "));
        return Err(Problem::parameter("state", "unknown_choice", message));
    }
    page(&call, Wanted { queue: call.param("queue"), state, before: None }, shown)
}

async fn get_one(call: Call) -> Answer {
    Reply::data(shown(&job::get(&call.node, &call.actor, id(&call, "job")?)?))
}

async fn cancel(call: Call) -> Answer {
    Reply::data(shown(&job::cancel(&call.node, &call.actor, id(&call, "job")?).await?))
}

async fn retry(call: Call) -> Answer {
    Reply::data(shown(&job::retry(&call.node, &call.actor, id(&call, "job")?).await?))
}

async fn remove(call: Call) -> Answer {
    job::remove(&call.node, &call.actor, id(&call, "job")?).await?;
    Reply::none()
}
