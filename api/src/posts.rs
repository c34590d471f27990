//! Posts over HTTP: reading, writing, the workflow, history, batches.

use crate::call::Call;
use crate::moment::Moment;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Author, Can, Public};
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show::{More, View};
use crate::site::Site;
use crate::{etag, seo, take};
use atoll_node::content::batch::{self, MAX_ROWS, Outcome};
use atoll_node::content::import::rows_of_csv;
use atoll_node::content::post::{self as posts, BODY, EXCERPT, Manner, Narrowed, POST};
use atoll_node::content::version::{self, Base, By, Version};
use atoll_node::content::workflow::{self, Step};
use atoll_node::content::{render, trash};
use atoll_node::identity::user;
use atoll_node::{Error, FieldError, Permission, Result as Domain, insight, peer};
use atoll_storage::query::Cursor;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Record, Type};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use Permission::{PostsAdminister, PostsPublish, PostsWrite};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/posts", Public, list).lists(&POST).query(LIST_QUERY).doc(LIST_DOC),
        get("/api/v1/posts/{id}", Public, get_one).gives(&POST).query(&["render"]).doc(GET_DOC),
        get("/api/v1/posts/slug/{slug}", Public, get_by_slug).gives(&POST).query(&["render"]).doc(GET_DOC),
        post("/api/v1/posts", Can(PostsWrite), create)
            .takes(&POST)
            .gives(&POST)
            .body_limit(POST_BYTES)
            .doc("Makes a draft. Its slug is made from the title if it is left out."),
        put("/api/v1/posts/{id}", Author(PostsAdminister), edit)
            .takes(&POST)
            .also(MANNER)
            .gives(&POST)
            .body_limit(POST_BYTES)
            .doc(EDIT_DOC),
        delete("/api/v1/posts/{id}", Author(PostsAdminister), trash).query(&["purge"]).doc(
            "Puts a post into the trash. With purge=true an administrator removes it for good, with its versions.",
        ),
        post("/api/v1/posts/batch", Can(PostsWrite), create_batch)
            .query(&["atomic"])
            .gives_fields(ROW)
            .pages()
            .body_limit(BATCH_BYTES)
            .doc("Makes drafts of a JSON array or of CSV, with a result for each row. With atomic=true all or none."),
        delete("/api/v1/posts/batch", Can(PostsWrite), trash_batch)
            .takes_fields(BATCH)
            .query(&["atomic"])
            .gives_fields(ROW)
            .pages()
            .doc("Puts posts into the trash, with a result for each. With atomic=true all or none."),
        post("/api/v1/posts/{id}/publish", Can(PostsPublish), publish)
            .takes_fields(PUBLISH)
            .gives(&POST)
            .doc("Now, or at publish_at."),
        post("/api/v1/posts/{id}/unpublish", Can(PostsPublish), unpublish)
            .gives(&POST)
            .doc("Back to the drafts, also from the schedule."),
        post("/api/v1/posts/{id}/archive", Can(PostsPublish), archive).gives(&POST).doc("Out of sight, but kept."),
        post("/api/v1/posts/{id}/restore", Can(PostsPublish), restore)
            .gives(&POST)
            .doc("Out of the trash to where it was, or out of the archive to the drafts."),
        get("/api/v1/posts/{id}/versions", Author(PostsWrite), versions)
            .gives_fields(VERSION)
            .pages()
            .query(&["limit", "cursor"])
            .doc("The history of a post, the latest first."),
        get("/api/v1/posts/{id}/arrival", Author(PostsWrite), arrival)
            .gives_fields(ARRIVAL)
            .pages()
            .doc("On which nodes the post has arrived as it is here: this one first, then its peers."),
        get("/api/v1/posts/{id}/versions/{version}", Author(PostsWrite), get_version)
            .gives_fields(STANDING)
            .query(&["diff", "by"])
            .doc(
                "The whole post as it stood. With diff=OTHER, what changed from that version to this one: the body as \
                 a unified diff, or with by=word in pieces.",
            ),
        post("/api/v1/posts/{id}/revert/{version}", Author(PostsAdminister), revert)
            .gives(&POST)
            .doc("Makes the post say again what it said in a version, as a new version. Its slug, authors and \
                 audience stay."),
    ]
}

const ARRIVAL: &[Field] = &[
    Field::text(1, "node").required(),
    Field::text(2, "name").required(),
    Field::flag(3, "arrived")
        .doc("Null if nothing was heard of the node since this one was started."),
    Field::time(4, "contact_at"),
];
const LIST_QUERY: &[&str] =
    &["category", "sub_category", "tag", "author", "from", "to", "q", "trashed"];
const LIST_DOC: &str = "Readers see what is published for them, the pinned first, then the latest; an author all of \
    his own with author=, editors all. \
    category, sub_category and tag take an id or a slug, author an id or a username; from and to bound the time of \
    publication; q looks through the 500 best matches. An excerpt that nobody wrote is the first words of the body. \
    expand=counts adds view_count, like_count and comment_count.";
const GET_DOC: &str = "By id or slug; a slug that it had once leads to the present one. \
    With render=true also as sanitised HTML, with an excerpt, the minutes it takes to read, and under seo what search \
    engines and social networks are told. expand=counts adds view_count, like_count and comment_count.";
const EDIT_DOC: &str = "Changes a post and keeps a version; what is left out stays. Bodies that were edited in two \
    places merge. With base, only what differs from that version is a change: a client that read the post before others \
    changed it adds to what they did and undoes nothing.";
/// A body of a megabyte, as JSON that escapes much of it.
const POST_BYTES: usize = 4 << 20;
const BATCH_BYTES: usize = 16 << 20;

const MANNER: &[Field] = &[
    Field::text(1, "note").max(200).doc("Stands in the list of versions."),
    Field::text(2, "base")
        .max(100)
        .doc("What this was made from: the number of a version, or an ETag of the post."),
];
const PUBLISH: &[Field] = &[Field::time(1, "publish_at").doc("Now, if it is absent or past.")];
const BATCH: &[Field] = &[Field::set(1, "ids", Type::Id).required().max(MAX_ROWS)];
const ROW: &[Field] = &[
    Field::int(1, "row").doc("Its place, from 0."),
    Field::int(2, "status").doc("As if it had been a request of its own."),
    Field::text(3, "id"),
    Field::text(4, "slug"),
    Field::text(5, "code").doc("Why it was refused."),
    Field::text(6, "message"),
];
const VERSION: &[Field] = &[
    Field::int(1, "number"),
    Field::text(2, "id"),
    Field::time(3, "created_at"),
    Field::refers(4, "author_id", "user"),
    Field::text(5, "title"),
    Field::text(6, "note"),
    Field::flag(7, "merged").doc("Texts that were written apart meet in it."),
];
const STANDING: &[Field] = &[
    Field::int(1, "number"),
    Field::text(2, "id"),
    Field::time(3, "created_at"),
    Field::refers(4, "author_id", "user"),
    Field::text(5, "title"),
    Field::text(6, "note"),
    Field::flag(7, "merged"),
    Field::text(8, "body").max(1 << 20),
];

/// The version that a request insists on, after a first look whether it can be met.
///
/// # Errors
/// 412 if the record is another one than `If-Match` names.
pub(crate) fn expected(call: &Call, record: &Record) -> Result<Option<[u8; 16]>, Problem> {
    call.if_match(record)?;
    Ok(call.header("if-match").map(|_| record.version()))
}

async fn list(call: Call) -> Answer {
    let query = call.query(&POST, &[])?;
    let by = narrowed(&call)?;
    let sees_all = call.actor.can(PostsWrite);
    let order = match sees_all {
        true if by.trashed => "due_at",
        true => "created_at",
        false => "front",
    };
    let query = query.sorted_by(order, true);
    let page = posts::list(&call.node, &call.actor, query.to_query(call.tenant()), &by)?;
    let more = beside(&call, &page.records, &query.view).await?;
    Reply::list_with(&call, page, &query, &more)
}

/// What stands beside the fields of posts in a list.
async fn beside(call: &Call, posts: &[Record], view: &View) -> Result<Vec<More>, Problem> {
    let mut more = counted(call, posts, view)?;
    let (minutes, excerpt) =
        (view.wants_added("reading_minutes"), view.wants_field(&POST, EXCERPT.name));
    if minutes || excerpt {
        for (more, glance) in more.iter_mut().zip(posts::glances(&call.node, posts).await?) {
            if minutes {
                more.insert("reading_minutes".to_owned(), json!(glance.reading_minutes));
            }
            if excerpt {
                more.insert(EXCERPT.name.to_owned(), json!(glance.excerpt));
            }
        }
    }
    Ok(more)
}

/// The counts of each post, if they are asked for.
fn counted(call: &Call, posts: &[Record], view: &View) -> Result<Vec<More>, Problem> {
    if !view.expands("counts") {
        return Ok(vec![More::new(); posts.len()]);
    }
    let keys: Vec<Id> = posts.iter().map(|post| post.key).collect();
    let counts = insight::counts(&call.node, call.tenant(), &keys)?;
    let map = |counts: insight::Counts| match json!(counts) {
        Json::Object(map) => map,
        _ => More::new(),
    };
    Ok(counts.into_iter().map(map).collect())
}

/// A query parameter that is a time, in Unix milliseconds.
pub(crate) fn time_of(call: &Call, name: &str) -> Result<Option<i64>, Problem> {
    let wrong = || Problem::parameter(name, "wrong_type", "must be a time as in RFC 3339");
    call.param(name).map(|text| Moment::parse(text).map(|at| at.0).ok_or_else(wrong)).transpose()
}

fn narrowed(call: &Call) -> Result<Narrowed, Problem> {
    let author = call.param("author").map(|name| match Id::parse(name) {
        Some(id) => Ok(id),
        None if name == "me" => call.actor.require_user(),
        // Nobody of that name has written anything.
        None => Ok(user::by_name(&call.node, &call.actor, name).map_or(Id::NIL, |user| user.key)),
    });
    Ok(Narrowed {
        category: call.param("sub_category").or(call.param("category")).map(str::to_owned),
        tag: call.param("tag").map(str::to_owned),
        author: author.transpose()?,
        from_ms: time_of(call, "from")?,
        to_ms: time_of(call, "to")?,
        text: call.param("q").filter(|text| !text.trim().is_empty()).map(str::to_owned),
        trashed: call.param_as("trashed")?.unwrap_or(false),
    })
}

async fn get_one(call: Call) -> Answer {
    let post = posts::named(&call.node, &call.actor, call.path("id"))?;
    shown(&call, &post).await
}

async fn get_by_slug(call: Call) -> Answer {
    let post = posts::named(&call.node, &call.actor, call.path("slug"))?;
    shown(&call, &post).await
}

async fn shown(call: &Call, post: &Record) -> Answer {
    let view = call.view(&POST)?;
    let mut more = counted(call, std::slice::from_ref(post), &view)?.pop().unwrap_or_default();
    if call.param_as("render")?.unwrap_or(false) {
        more.extend(rendered(call, post).await?);
    } else if view.wants_added("reading_minutes") {
        let minutes = render::reading_minutes(post.body(&BODY));
        more.insert("reading_minutes".to_owned(), json!(minutes));
    }
    Reply::record_with(call, post, Some(&more))
}

/// What a reader is shown of a post beside its fields.
pub(crate) async fn rendered(call: &Call, post: &Record) -> Result<More, Problem> {
    let rendered = posts::rendered(&call.node, post).await?;
    let names = posts::author_names(&call.node, std::slice::from_ref(post))?;
    let authors: Vec<String> =
        posts::authors(post).filter_map(|id| names.get(&id).cloned()).collect();
    let seo = seo::of(&Site::of(call)?, post, &rendered.excerpt, &authors);
    let mut more = More::new();
    more.insert("body_html".to_owned(), json!(rendered.html));
    more.insert("excerpt".to_owned(), json!(rendered.excerpt));
    more.insert("reading_minutes".to_owned(), json!(rendered.reading_minutes));
    more.insert("seo".to_owned(), seo);
    Ok(more)
}

async fn create(call: Call) -> Answer {
    let changes = call.changes(&POST)?;
    let post = posts::create(&call.node, &call.actor, changes).await?;
    Reply::created(&call, &post, format!("/api/v1/posts/{}", post.key))
}

async fn edit(call: Call) -> Answer {
    let seen = posts::get_for_writing(&call.node, &call.actor, call.key(&POST, "id")?)?;
    let expected = expected(&call, &seen)?;
    let mut object = call.object()?;
    let manner = manner(&mut object, expected);
    let changes = Call::changes_of(&object, &seen);
    let (manner, changes) = match (manner, changes) {
        (Ok(manner), changes) => (manner, changes?),
        (Err(wrong), changes) => {
            let more = changes.err().map(|problem| problem.errors().to_vec()).unwrap_or_default();
            return Err(Problem::invalid(wrong.into_iter().chain(more).collect()));
        }
    };
    let post = posts::edit_in(&call.node, &call.actor, seen.key, changes, manner).await?;
    Reply::record(&call, &post)
}

/// Takes what is no field of the post out of a change.
fn manner(object: &mut More, expected: Option<[u8; 16]>) -> Result<Manner, Vec<FieldError>> {
    let mut wrong = Vec::new();
    let note = match object.remove("note") {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(note)) => note,
        Some(_) => {
            wrong.push(FieldError::new("note", "wrong_type", "must be text"));
            String::new()
        }
    };
    let base = match object.remove("base") {
        None | Some(Json::Null) => None,
        Some(base) => {
            let read = base_of(&base);
            if read.is_none() {
                let message = "must be the number of a version or an ETag of the post";
                wrong.push(FieldError::new("base", "wrong_type", message));
            }
            read
        }
    };
    if wrong.is_empty() { Ok(Manner { expected, base, note }) } else { Err(wrong) }
}

fn base_of(json: &Json) -> Option<Base> {
    match json {
        Json::Number(number) => number.as_u64().map(Base::Number),
        Json::String(text) => match text.parse() {
            Ok(number) => Some(Base::Number(number)),
            Err(_) => etag::version_of(text).map(Base::Tag),
        },
        _ => None,
    }
}

async fn trash(call: Call) -> Answer {
    let seen = posts::get_for_writing(&call.node, &call.actor, call.key(&POST, "id")?)?;
    let expected = expected(&call, &seen)?;
    if call.param_as("purge")?.unwrap_or(false) {
        trash::purge(&call.node, &call.actor, seen.key, expected).await?;
    } else {
        workflow::trash(&call.node, &call.actor, seen.key, expected).await?;
    }
    Reply::none()
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Publish {
    publish_at: Option<String>,
}

async fn publish(call: Call) -> Answer {
    let form: Publish = if call.body().is_empty() { Publish::default() } else { call.json()? };
    let wrong = || Error::field("publish_at", "wrong_type", "must be a time as in RFC 3339");
    let at = form.publish_at.map(|text| Moment::parse(&text).ok_or_else(wrong)).transpose()?;
    step(&call, Step::Publish(at.map(|at| at.0))).await
}

async fn unpublish(call: Call) -> Answer {
    step(&call, Step::Unpublish).await
}

async fn archive(call: Call) -> Answer {
    step(&call, Step::Archive).await
}

async fn restore(call: Call) -> Answer {
    step(&call, Step::Restore).await
}

async fn step(call: &Call, step: Step) -> Answer {
    let seen = posts::get(&call.node, &call.actor, call.key(&POST, "id")?)?;
    let expected = expected(call, &seen)?;
    let post = workflow::take(&call.node, &call.actor, seen.key, step, expected).await?;
    Reply::record(call, &post)
}

async fn arrival(call: Call) -> Answer {
    let post = posts::get(&call.node, &call.actor, call.id("id")?)?;
    let here = json!({
        "node": call.node.id().to_string(),
        "name": call.node.config.name,
        "arrived": true,
        "contact_at": Moment::of(call.node.clock.now_ms()),
    });
    let row = |arrival: peer::Arrival| {
        json!({
            "node": arrival.node.to_string(),
            "name": arrival.name,
            "arrived": arrival.has_arrived,
            "contact_at": arrival.contact_ms.map(Moment::of),
        })
    };
    let peers = peer::arrival(&call.node, &post)?.into_iter().map(row);
    let rows: Vec<Json> = std::iter::once(here).chain(peers).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

async fn versions(call: Call) -> Answer {
    let key = call.key(&POST, "id")?;
    let wrong =
        || Problem::parameter("cursor", "wrong_cursor", "give the `next` of a page as it stands");
    let after =
        call.param("cursor").map(|text| Cursor::parse(text).ok_or_else(wrong)).transpose()?;
    let page = version::list(&call.node, &call.actor, key, call.limit()?, after)?;
    let rows: Vec<Json> =
        page.versions.iter().map(|version| dated(json!(version), version)).collect();
    let next = page.next.map(|cursor| cursor.to_text());
    Reply::rows(&call, &rows, next.as_deref(), page.total)
}

/// The version as JSON, with the time of its making as text.
fn dated(mut json: Json, version: &Version) -> Json {
    json["created_at"] = json!(Moment::of(version.made_ms));
    json
}

fn number(call: &Call) -> Result<u64, Problem> {
    call.path("version")
        .parse()
        .map_err(|_| Problem::not_found("version: versions are numbered from 1"))
}

async fn get_version(call: Call) -> Answer {
    let (key, number) = (call.key(&POST, "id")?, number(&call)?);
    let by = match call.param("by") {
        None | Some("line") => By::Line,
        Some("word") => By::Word,
        Some(_) => {
            return Err(Problem::parameter("by", "unknown_choice", "must be one of line, word"));
        }
    };
    if let Some(other) = call.param_as("diff")? {
        let span = (other, number);
        return Reply::data(version::difference(&call.node, &call.actor, key, span, by).await?);
    }
    let standing = version::get(&call.node, &call.actor, key, number)?;
    Reply::data(dated(json!(standing), &standing.version))
}

async fn revert(call: Call) -> Answer {
    let number = number(&call)?;
    let seen = posts::get_for_writing(&call.node, &call.actor, call.key(&POST, "id")?)?;
    let expected = expected(&call, &seen)?;
    let post = version::revert(&call.node, &call.actor, seen.key, number, expected).await?;
    Reply::record(&call, &post)
}

async fn create_batch(call: Call) -> Answer {
    let is_csv =
        call.header("content-type").is_some_and(|ty| ty.trim_start().starts_with("text/csv"));
    let rows = if is_csv { rows_of_csv(call.body(), MAX_ROWS)? } else { rows_of_json(&call)? };
    let atomic = call.param_as("atomic")?.unwrap_or(false);
    let outcomes = batch::create(&call.node, &call.actor, rows, atomic).await?;
    told(outcomes, 201)
}

fn rows_of_json(call: &Call) -> Result<Vec<Domain<Changes>>, Problem> {
    let rows: Vec<Json> = call.json()?;
    let read = |row: Json| {
        let bytes = serde_json::to_vec(&row).unwrap_or_default();
        take::changes(&bytes, &POST, None).map_err(|problem| match problem.errors() {
            [] => Error::Malformed(problem.message().to_owned()),
            errors => Error::Invalid(errors.to_vec()),
        })
    };
    Ok(rows.into_iter().take(MAX_ROWS + 1).map(read).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    ids: Vec<Id>,
}

async fn trash_batch(call: Call) -> Answer {
    let form: Batch = call.json()?;
    let atomic = call.param_as("atomic")?.unwrap_or(false);
    let outcomes = batch::trash(&call.node, &call.actor, form.ids, atomic).await?;
    told(outcomes, 204)
}

/// A row for each outcome, in their order.
fn told(outcomes: Vec<Outcome>, done: u16) -> Answer {
    let (all, failed) =
        (outcomes.len(), outcomes.iter().filter(|outcome| outcome.is_err()).count());
    let row = |(place, outcome): (usize, Outcome)| match outcome {
        Ok((id, slug)) if slug.is_empty() => json!({ "row": place, "status": done, "id": id }),
        Ok((id, slug)) => json!({ "row": place, "status": done, "id": id, "slug": slug }),
        Err(error) => {
            let problem = Problem::from(error);
            json!({
                "row": place,
                "status": problem.status().as_u16(),
                "code": problem.code(),
                "message": problem.message(),
                "errors": problem.errors(),
            })
        }
    };
    let rows: Vec<Json> = outcomes.into_iter().enumerate().map(row).collect();
    Reply::json(json!({ "data": rows, "done": all - failed, "failed": failed }))
}
