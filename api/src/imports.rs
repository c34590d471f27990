//! Imports over HTTP: a file is received, a job works on it, and its report tells what became of each item.

use crate::call::Call;
use crate::jobs::{self, JOB};
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get, post};
use crate::{download, upload};
use atoll_node::Permission::JobsAdminister;
use atoll_node::content::import::{self, Format, Order, QUEUE};
use atoll_node::job::{self, Job};
use atoll_storage::job::Wanted;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/imports", Can(JobsAdminister), create)
            .query(&["format", "dry_run", "name", "site"])
            .gives_fields(JOB)
            .uploads()
            .doc(CREATE_DOC),
        get("/api/v1/imports", Can(JobsAdminister), list)
            .gives_fields(JOB)
            .pages()
            .query(&["limit", "cursor"])
            .doc("The tenant's imports, newest first."),
        get("/api/v1/imports/{id}", Can(JobsAdminister), get_one)
            .gives_fields(JOB)
            .doc("How far an import is, and under `report` what it did, with the first failures."),
        get("/api/v1/imports/{id}/report", Can(JobsAdminister), report).doc(
            "What became of each item, as JSON Lines; kept as long as exports are. Takes Range.",
        ),
    ]
}

const PATH: &str = "/api/v1/imports";
const CREATE_DOC: &str = "Imports the file that is the body: format=csv, jsonl, wordpress or ghost, plain or under gzip \
    or zstd, the latter two also in a zip; format=markdown as a zip, or as tar, plain or under gzip or zstd; \
    format=atoll. With dry_run=true everything is tried and undone. What was imported before is changed, not doubled; \
    name tells two sources apart that call their items alike. site is where the old site stands: pictures and files \
    that posts name without a host are led there.";

async fn create(call: Call) -> Answer {
    let format = call.param("format").and_then(Format::parse).ok_or_else(|| {
        let message = format!("must be one of {}", Format::NAMES.join(", "));
        Problem::parameter("format", "unknown_choice", message)
    })?;
    let dry_run = call.param_as("dry_run")?.unwrap_or(false);
    let order = Order::new(format, call.param("name").unwrap_or_default(), dry_run)?;
    let order = order.of_site(call.param("site").unwrap_or_default())?;
    let received = upload::receive(&call).await?;
    let job = import::start(&call.node, &call.actor, order, received).await?;
    jobs::accepted(&job, shown(&job), PATH)
}

/// The job with what it imports, and its report in the place of its result.
fn shown(job: &Job) -> Json {
    let mut value = jobs::shown(job);
    if let Some(object) = value.as_object_mut() {
        object.remove("result");
    }
    if let Some(order) = import::order_of(job) {
        value["format"] = json!(order.format);
        value["name"] = json!(order.name);
        value["dry_run"] = json!(order.dry_run);
        value["site"] = json!(order.site);
    }
    value["report"] = json!(import::report_of(job));
    value
}

fn find(call: &Call) -> Result<Job, Problem> {
    let id = jobs::id(call, "import")?;
    Ok(job::get_of(&call.node, &call.actor, QUEUE, id, "import")?)
}

async fn list(call: Call) -> Answer {
    jobs::page(&call, Wanted { queue: Some(QUEUE), ..Wanted::default() }, shown)
}

async fn get_one(call: Call) -> Answer {
    Reply::data(shown(&find(&call)?))
}

async fn report(call: Call) -> Answer {
    let job = find(&call)?;
    let file = import::report_file(&call.node, &job)?;
    let name = format!("import-{}.jsonl", job.id);
    let tag = format!("{}-{}-{}", job.id, job.lease, job.done);
    download::file(&call, &file, download::LINES, &name, &tag).await
}
