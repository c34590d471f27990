//! What a tenant's letters say: the defaults, and its own words in their place.

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, delete, get, post, put};
use atoll_node::Permission::UsersAdminister;
use atoll_node::mail::Letter;
use atoll_node::mail::template::{self, MAIL_TEMPLATE, Template};
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Type};
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/mail/templates", Can(UsersAdminister), list)
            .gives_fields(TEMPLATE)
            .pages()
            .doc("All letters that are sent to users."),
        get("/api/v1/mail/templates/{name}", Can(UsersAdminister), find)
            .gives_fields(TEMPLATE)
            .doc("What one letter says."),
        put("/api/v1/mail/templates/{name}", Can(UsersAdminister), replace)
            .takes(&MAIL_TEMPLATE)
            .gives_fields(TEMPLATE)
            .doc("The tenant's own words: subject, text and HTML. Placeholders stand in double braces."),
        delete("/api/v1/mail/templates/{name}", Can(UsersAdminister), remove)
            .doc("Back to the default."),
        post("/api/v1/mail/templates/{name}/preview", Can(UsersAdminister), preview)
            .takes(&MAIL_TEMPLATE)
            .gives_fields(WRITTEN)
            .doc("The letter with made-up values; what the body holds stands over what is kept. Sends nothing."),
    ]
}

const TEMPLATE: &[Field] = &[
    template::NAME,
    template::SUBJECT,
    template::TEXT,
    template::HTML,
    Field::flag(5, "is_default").required(),
    Field::set(6, "placeholders", Type::Text).doc("What it may name."),
];
const WRITTEN: &[Field] = &[template::SUBJECT, template::TEXT, template::HTML];

fn letter(call: &Call) -> Result<Letter, Problem> {
    Letter::parse(call.path("name")).ok_or_else(|| Problem::not_found("mail template"))
}

fn shown(template: &Template) -> Json {
    json!({
        "name": template.letter.name(),
        "subject": template.subject,
        "text": template.text,
        "html": template.html,
        "is_default": template.is_default,
        "placeholders": template.letter.placeholders(),
    })
}

/// There is a letter for each occasion and no more: one page.
async fn list(call: Call) -> Answer {
    let all = template::list(&call.node, &call.actor)?;
    let rows: Vec<Json> = all.iter().map(shown).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

async fn find(call: Call) -> Answer {
    Reply::data(shown(&template::get(&call.node, &call.actor, letter(&call)?)?))
}

async fn replace(call: Call) -> Answer {
    let (letter, changes) = (letter(&call)?, call.changes(&MAIL_TEMPLATE)?);
    Reply::data(shown(&template::put(&call.node, &call.actor, letter, changes).await?))
}

async fn remove(call: Call) -> Answer {
    template::remove(&call.node, &call.actor, letter(&call)?).await?;
    Reply::none()
}

async fn preview(call: Call) -> Answer {
    let letter = letter(&call)?;
    let is_empty = call.body().is_empty();
    let changes = if is_empty { Changes::new() } else { call.changes(&MAIL_TEMPLATE)? };
    let written = template::preview(&call.node, &call.actor, letter, &changes)?;
    Reply::data(json!({
        "subject": written.subject,
        "text": written.text,
        "html": written.html,
    }))
}
