//! Exports over HTTP: a job writes an archive of the tenant, which can be fetched for some time.

use crate::call::Call;
use crate::download;
use crate::jobs::{self, JOB};
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get, post};
use atoll_node::Permission::JobsAdminister;
use atoll_node::exchange::export::{self, Order, QUEUE};
use atoll_node::job::{self, Job};
use atoll_storage::job::Wanted;

pub fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/exports", Can(JobsAdminister), create)
            .query(&["include"])
            .gives_fields(JOB)
            .doc(CREATE_DOC),
        get("/api/v1/exports", Can(JobsAdminister), list)
            .gives_fields(JOB)
            .pages()
            .query(&["limit", "cursor"])
            .doc("The tenant's exports, newest first."),
        get("/api/v1/exports/{id}", Can(JobsAdminister), get_one)
            .gives_fields(JOB)
            .doc("How far an export is."),
        get("/api/v1/exports/{id}/file", Can(JobsAdminister), file)
            .doc("The archive, once it is done: tar under zstd. Takes Range."),
    ]
}

const PATH: &str = "/api/v1/exports";
const CREATE_DOC: &str = "Writes the tenant into an archive: settings, users, categories, tags, posts with their \
    versions, comments, likes and redirects, as JSON Lines. Hashes of passwords only with include=password_hashes. \
    It imports again with format=atoll.";

async fn create(call: Call) -> Answer {
    let mut order = Order::default();
    for name in call.param("include").unwrap_or_default().split(',').filter(|name| !name.is_empty())
    {
        if name.trim() != "password_hashes" {
            let message = format!("{name:?} is not known: it takes password_hashes");
            return Err(Problem::parameter("include", "unknown_choice", message));
        }
        order.password_hashes = true;
    }
    let job = export::start(&call.node, &call.actor, order).await?;
    jobs::accepted(&job, jobs::shown(&job), PATH)
}

fn find(call: &Call) -> Result<Job, Problem> {
    let id = jobs::id(call, "export")?;
    Ok(job::get_of(&call.node, &call.actor, QUEUE, id, "export")?)
}

async fn list(call: Call) -> Answer {
    jobs::page(&call, Wanted { queue: Some(QUEUE), ..Wanted::default() }, jobs::shown)
}

async fn get_one(call: Call) -> Answer {
    Reply::data(jobs::shown(&find(&call)?))
}

async fn file(call: Call) -> Answer {
    let job = find(&call)?;
    let path = export::file(&call.node, &job)?;
    let name = format!("atoll-export-{}.tar.zst", job.id);
    let tag = format!("{}-{}", job.id, job.lease);
    download::file(&call, &path, download::ARCHIVE, &name, &tag).await
}
