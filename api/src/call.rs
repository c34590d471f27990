//! One request as a handler sees it: the node, who asks, and typed access to path, query and body. Bodies are
//! whole and bounded when a handler runs; nothing here waits.

use crate::dispatch::App;
use crate::etag;
use crate::list::ListQuery;
use crate::params::Params;
use crate::problem::Problem;
use crate::request_id::RequestId;
use crate::show::View;
use crate::take;
use atoll_node::{Actor, Node};
use atoll_storage::read::Read;
use atoll_storage::{Id, Kind, Record, tx::Changes};
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, IF_MATCH, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

pub struct Call {
    pub node: Arc<Node>,
    pub actor: Actor,
    /// The address of whoever is at the other end; none if the server was not told it.
    pub peer: Option<IpAddr>,
    pub request_id: RequestId,
    pub(crate) app: Arc<App>,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Of a route that reads its body piece by piece.
    pub(crate) upload: Mutex<Option<Body>>,
    pub(crate) path: Vec<(&'static str, String)>,
    pub(crate) params: Params,
    /// Names of query parameters that the route declares.
    pub(crate) declared: &'static [&'static str],
}

impl Call {
    pub fn tenant(&self) -> Id {
        self.actor.tenant
    }

    pub fn now_ms(&self) -> u64 {
        self.node.clock.now_ms()
    }

    /// A part of the path, decoded; "" for a name that the route does not have.
    pub fn path(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text)
    }

    /// # Errors
    /// 404 if that part of the path is no id: nothing can be found under it.
    pub fn id(&self, name: &str) -> Result<Id, Problem> {
        Id::parse(self.path(name)).ok_or_else(|| Problem::not_found("record: this is not an id"))
    }

    /// The key named by a part of the path that is an id, or the name that a record of this kind goes by
    /// (its slug). Whether there is such a record, and whether this caller may see it, the domain says.
    pub fn key(&self, kind: &'static Kind, name: &str) -> Result<Id, Problem> {
        let text = self.path(name);
        if let Some(id) = Id::parse(text) {
            return Ok(id);
        }
        let space = kind.fields.iter().find_map(|field| field.claim);
        let missing = || Problem::not_found(kind.name);
        let space = space.ok_or_else(missing)?;
        let found = self.node.store.read(|reader| reader.claimed(self.tenant(), space, text))?;
        found.ok_or_else(missing)
    }

    /// A query parameter, decoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)
    }

    /// # Errors
    /// 400 that names the parameter if it does not read as a `T`.
    pub fn param_as<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let read = |text: &str| {
            let wrong =
                || Problem::parameter(name, "wrong_type", format!("{text:?} is not understood"));
            text.parse().map_err(|_| wrong())
        };
        self.param(name).map(read).transpose()
    }

    /// `limit`: 1 to 100, 20 if absent.
    pub fn limit(&self) -> Result<usize, Problem> {
        crate::list::limit_of(self.param("limit"))
    }

    /// Paging, sorting, filters and view of a list of this kind. `extra` names parameters that the handler
    /// reads itself; any other unknown one is a 400.
    pub fn query(&self, kind: &'static Kind, extra: &[&str]) -> Result<ListQuery, Problem> {
        ListQuery::read(kind, &self.params, &[extra, self.declared], &self.actor)
    }

    pub(crate) fn view(&self, kind: &'static Kind) -> Result<View, Problem> {
        View::read(kind, &self.params, true)
    }

    /// The JSON body as a `T`.
    ///
    /// # Errors
    /// 415 for another content type, 400 for what is no JSON, 422 that names the path of a wrong value.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.require_json()?;
        take::json(&self.body)
    }

    /// The JSON object of the body as changes of the kind's writable fields. A set's array adds its elements;
    /// to replace a set, use [`Call::changes_to`].
    ///
    /// # Errors
    /// As [`Call::json`]; 422 that names every field that is unknown, read-only or of a wrong type.
    pub fn changes(&self, kind: &'static Kind) -> Result<Changes, Problem> {
        self.require_json()?;
        take::changes(&self.body, kind, None)
    }

    /// As [`Call::changes`], for a record there is: a set's array is what the set shall hold afterwards.
    pub fn changes_to(&self, record: &Record) -> Result<Changes, Problem> {
        self.require_json()?;
        take::changes(&self.body, record.kind, Some(record))
    }

    /// The JSON object of the body, for a handler that reads some of it itself before [`Call::changes_of`].
    pub(crate) fn object(&self) -> Result<serde_json::Map<String, serde_json::Value>, Problem> {
        Ok(self.json::<take::Object>()?.0)
    }

    /// As [`Call::changes_to`], of what is left of the body's object.
    pub(crate) fn changes_of(
        object: &serde_json::Map<String, serde_json::Value>,
        record: &Record,
    ) -> Result<Changes, Problem> {
        take::changes_of(object, record.kind, Some(record))
    }

    /// The body's bytes, for those that are not JSON.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn user_agent(&self) -> &str {
        self.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// # Errors
    /// 412 if the request has an `If-Match` that this record's version does not meet.
    pub fn if_match(&self, record: &Record) -> Result<(), Problem> {
        let Some(wanted) = self.headers.get(IF_MATCH) else { return Ok(()) };
        let wanted = wanted.to_str().unwrap_or_default();
        if etag::meets(wanted, &record.version()) { Ok(()) } else { Err(Problem::stale()) }
    }

    /// `Link` of a page: the first one, and the next if there is one.
    pub(crate) fn links(&self, next: Option<&str>) -> String {
        let rest = self.params.without_cursor();
        let joint = if rest.is_empty() { "" } else { "&" };
        let path = self.uri.path();
        let mut links = format!("<{path}?{rest}>; rel=\"first\"");
        if rest.is_empty() {
            links = format!("<{path}>; rel=\"first\"");
        }
        if let Some(next) = next {
            links = format!("<{path}?{rest}{joint}cursor={next}>; rel=\"next\", {links}");
        }
        links
    }

    fn require_json(&self) -> Result<(), Problem> {
        let given = self.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        let is_json = |text: &str| {
            let essence = text.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/json")
                || essence.to_ascii_lowercase().ends_with("+json")
        };
        match given {
            None => Ok(()),
            Some(text) if is_json(text) => Ok(()),
            Some(_) => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "send the body as JSON, with the header Content-Type: application/json",
            )),
        }
    }
}
