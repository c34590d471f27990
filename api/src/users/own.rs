//! One's own data: all of it as one document, written as it is read, and the end of one's account.

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Answer;
use crate::show;
use atoll_node::identity::password;
use atoll_node::identity::user::erase;
use atoll_node::identity::user::own::{self, Part};
use atoll_storage::query::Cursor;
use atoll_storage::{Field, Record};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION};
use bytes::Bytes;
use serde::Deserialize;

pub(super) const ERASE: &[Field] =
    &[Field::text(1, "password").required().max(password::MAX_BYTES)];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Erase {
    password: String,
}

pub(super) async fn erase(call: Call) -> Answer {
    let form: Erase = call.json()?;
    erase::erase_me(&call.node, &call.actor, form.password).await?;
    Reply::none()
}

pub(super) async fn export(call: Call) -> Answer {
    let me = own::account(&call.node, &call.actor)?;
    let writing = Writing { call, me, at: 0, after: None, is_open: false, has_any: false };
    let chunks = futures_util::stream::unfold(Some(writing), |writing| async move {
        let mut writing = writing?;
        match writing.chunk() {
            Ok(Some(text)) => Some((Ok(Bytes::from(text)), Some(writing))),
            Ok(None) => None,
            Err(problem) => {
                tracing::error!(%problem, "an export of one's own data ended early");
                Some((Err(std::io::Error::other("ended early")), None))
            }
        }
    });
    let reply = Reply::stream("application/json", chunks);
    let reply = reply.header(CONTENT_DISPOSITION, "attachment; filename=\"my-data.json\"");
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}

/// `{"account": {…}, "posts": […], …}`, some records at a time.
struct Writing {
    call: Call,
    me: Record,
    /// The place of the part that is written; past the last, the end is.
    at: usize,
    after: Option<Cursor>,
    /// Whether the part was begun, and whether it has something in it by now.
    is_open: bool,
    has_any: bool,
}

impl Writing {
    fn chunk(&mut self) -> Result<Option<String>, Problem> {
        let mut text = String::new();
        let Some(part) = Part::ALL.get(self.at).copied() else {
            let is_end = self.at == Part::ALL.len();
            self.at += 1;
            return Ok(is_end.then(|| "}".to_owned()));
        };
        if !self.is_open {
            if self.at == 0 {
                text.push_str("{\"account\":");
                text.push_str(&show::value(&self.call, &self.me)?.to_string());
            }
            text.push_str(&format!(",\"{}\":[", part.title()));
            self.is_open = true;
        }
        let page = own::page(&self.call.node, &self.me, part, self.after.take())?;
        for record in &page.records {
            if self.has_any {
                text.push(',');
            }
            self.has_any = true;
            text.push_str(&show::value(&self.call, record)?.to_string());
        }
        self.after = page.next;
        if self.after.is_none() {
            text.push(']');
            self.at += 1;
            (self.is_open, self.has_any) = (false, false);
        }
        Ok(Some(text))
    }
}
