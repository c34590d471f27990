//! What a handler answers with. Its constructors end a handler: each gives a `Result`, so that the last line
//! of a handler is `Reply::record(&call, &record)`. Knows nothing of sockets; the dispatcher adds what
//! every answer carries.

use crate::call::Call;
use crate::list::ListQuery;
use crate::problem::Problem;
use crate::route::Answer;
use crate::show::{self, More};
use atoll_storage::Record;
use atoll_storage::query::Page;
use axum::body::Body;
use axum::http::header::{LINK, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;

pub(crate) enum Content {
    Whole(Bytes),
    /// Answered as it comes, without an ETag.
    Stream(Body),
}

pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: HeaderValue,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) content: Content,
    /// Of the record shown: the part of the ETag that `If-Match` compares.
    pub(crate) version: Option<[u8; 16]>,
}

pub(crate) const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Reply {
    pub(crate) fn whole(
        status: StatusCode,
        content_type: HeaderValue,
        body: impl Into<Bytes>,
    ) -> Self {
        let content = Content::Whole(body.into());
        Self { status, content_type, headers: Vec::new(), content, version: None }
    }

    /// One record with its bodies, under `data`; `fields` and `expand` as the request says.
    pub fn record(call: &Call, record: &Record) -> Answer {
        Self::record_with(call, record, None)
    }

    /// As `record`, with what the handler adds.
    pub(crate) fn record_with(call: &Call, record: &Record, more: Option<&More>) -> Answer {
        let view = call.view(record.kind)?;
        let body = show::one(call, record, &view, more)?;
        let mut reply = Self::whole(StatusCode::OK, JSON, body);
        reply.version = Some(record.version());
        Ok(reply)
    }

    /// 201 with the record and where it is.
    pub fn created(call: &Call, record: &Record, location: impl AsRef<str>) -> Answer {
        let mut reply = Self::record(call, record)?;
        reply.status = StatusCode::CREATED;
        Ok(reply.header(LOCATION, location.as_ref()))
    }

    /// A page of records with `Link` headers; bodies only if `fields` names them.
    pub fn list(call: &Call, page: Page, query: &ListQuery) -> Answer {
        Self::list_with(call, page, query, &[])
    }

    /// As `list`, with what the handler adds to each record, in their order.
    pub(crate) fn list_with(call: &Call, page: Page, query: &ListQuery, more: &[More]) -> Answer {
        let body = show::many(call, &page, query, more)?;
        let reply = Self::whole(StatusCode::OK, JSON, body);
        let next = query.next(&page);
        Ok(reply.header(LINK, call.links(next.as_deref())))
    }

    /// A page of what is not a record: search hits, rows of figures.
    pub fn rows<T: Serialize>(call: &Call, rows: &[T], next: Option<&str>, total: u64) -> Answer {
        let page = Rows { data: rows, page: Turn { next, total } };
        Ok(Self::json(&page)?.header(LINK, call.links(next)))
    }

    /// The value under `data`.
    pub fn data(value: impl Serialize) -> Answer {
        #[derive(Serialize)]
        struct Data<T> {
            data: T,
        }
        Self::json(Data { data: value })
    }

    /// The value as it stands, without `data` around it.
    pub fn json(value: impl Serialize) -> Answer {
        let body = serde_json::to_vec(&value).map_err(|e| Problem::internal(e.to_string()))?;
        Ok(Self::whole(StatusCode::OK, JSON, body))
    }

    /// 204.
    pub fn none() -> Answer {
        Ok(Self::whole(StatusCode::NO_CONTENT, JSON, Bytes::new()))
    }

    /// 202: the job works on it.
    pub fn accepted(job: impl std::fmt::Display) -> Answer {
        let reply = Self::data(serde_json::json!({ "job_id": job.to_string() }))?;
        Ok(reply.status(StatusCode::ACCEPTED))
    }

    /// Text of another type: a feed, a sitemap, a page.
    pub fn text(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
        Ok(Self::whole(StatusCode::OK, HeaderValue::from_static(content_type), body))
    }

    /// Pieces that are made as they are taken. A compressing layer asks once more after the last.
    pub(crate) fn stream<E: Into<axum::BoxError> + 'static>(
        content_type: &'static str,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Self {
        Self {
            content: Content::Stream(Body::from_stream(pieces.fuse())),
            ..Self::whole(StatusCode::OK, HeaderValue::from_static(content_type), Bytes::new())
        }
    }

    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Of this record, though it shows more: `If-Match` compares its version.
    #[must_use]
    pub(crate) fn versioned(mut self, record: &Record) -> Self {
        self.version = Some(record.version());
        self
    }

    /// A value that cannot stand in a header is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }
}

#[derive(Serialize)]
pub(crate) struct Turn<'a> {
    pub next: Option<&'a str>,
    pub total: u64,
}

#[derive(Serialize)]
struct Rows<'a, T> {
    data: &'a [T],
    page: Turn<'a>,
}
