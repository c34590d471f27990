//! Refusals and failures as RFC 9457 problems: the one table from an error of the domain to a status and a
//! code. What only an operator may know goes to the log and never into an answer.

use atoll_node::{Error, FieldError};
use axum::http::StatusCode;
use std::borrow::Cow;

/// Every refusal or failure over HTTP. Small to carry: its parts are behind one pointer.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
    /// The name that the record of this path has now.
    moved_to: Option<String>,
    /// For the log of a 5xx.
    cause: Option<String>,
}

impl Problem {
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Parts {
            status,
            code: code.into(),
            message: message.into(),
            errors: Vec::new(),
            retry_after_s: None,
            moved_to: None,
            cause: None,
        }))
    }

    /// 400: the request cannot be read.
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// 400 that names a query parameter.
    pub fn parameter(name: &str, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut problem =
            Self::new(StatusCode::BAD_REQUEST, code, format!("parameter {name}: {message}"));
        problem.0.errors.push(FieldError::new(name, code, message));
        problem
    }

    /// 422 that names each refused field.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Error::Invalid(errors).into()
    }

    pub fn not_found(noun: &'static str) -> Self {
        Error::NotFound(noun).into()
    }

    pub fn stale() -> Self {
        Error::Stale.into()
    }

    /// 503 that asks to come back.
    pub fn unavailable(code: &'static str, message: &'static str, retry_after_s: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(retry_after_s)
    }

    /// 500; the cause is logged and not shown.
    pub fn internal(cause: impl Into<String>) -> Self {
        let mut problem = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong on this node; its log names the cause under this request's id",
        );
        problem.0.cause = Some(cause.into());
        problem
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    pub fn code(&self) -> &str {
        &self.0.code
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.0.retry_after_s
    }

    pub(crate) fn moved_to(&self) -> Option<&str> {
        self.0.moved_to.as_deref()
    }

    pub(crate) fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The body of the answer.
    pub(crate) fn to_json(&self, request_id: &str) -> Vec<u8> {
        #[derive(serde::Serialize)]
        struct Body<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            title: &'static str,
            status: u16,
            code: &'a str,
            message: &'a str,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            request_id: &'a str,
        }
        let parts = &*self.0;
        let body = Body {
            kind: "about:blank",
            title: parts.status.canonical_reason().unwrap_or("Problem"),
            status: parts.status.as_u16(),
            code: &parts.code,
            message: &parts.message,
            detail: &parts.message,
            errors: &parts.errors,
            request_id,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.0.status.as_u16(), self.0.code, self.0.message)
    }
}

/// The table. `None` is an internal failure: its text is for the log.
fn status_of(error: &Error) -> Option<StatusCode> {
    use atoll_storage::Error as Store;
    Some(match error {
        Error::Malformed(_) | Error::Store(Store::Malformed(_)) => StatusCode::BAD_REQUEST,
        Error::Unauthenticated(..) => StatusCode::UNAUTHORIZED,
        Error::Denied(_) => StatusCode::FORBIDDEN,
        Error::NotFound(_) | Error::Store(Store::Missing(_)) => StatusCode::NOT_FOUND,
        Error::Conflict { .. } => StatusCode::CONFLICT,
        Error::Stale => StatusCode::PRECONDITION_FAILED,
        Error::Invalid(_) | Error::Store(Store::TooLong { .. } | Store::LongHistory { .. }) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Error::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::Moved(_) => StatusCode::MOVED_PERMANENTLY,
        Error::Store(Store::Full | Store::ReadOnly) => StatusCode::INSUFFICIENT_STORAGE,
        Error::Store(Store::Busy | Store::Closed) | Error::Unavailable { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::Store(Store::NotCarried { .. }) => StatusCode::MISDIRECTED_REQUEST,
        Error::Store(_) | Error::Internal(_) => return None,
    })
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let Some(status) = status_of(&error) else { return Self::internal(error.to_string()) };
        let mut problem = Self::new(status, error.code(), error.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            problem.0.retry_after_s = Some(1);
        }
        match error {
            Error::Invalid(errors) => problem.0.errors = errors,
            Error::TooMany { retry_after_s } | Error::Unavailable { retry_after_s, .. } => {
                problem.0.retry_after_s = Some(retry_after_s);
            }
            Error::Moved(name) => problem.0.moved_to = Some(name),
            _ => {}
        }
        problem
    }
}

impl From<atoll_storage::Error> for Problem {
    fn from(error: atoll_storage::Error) -> Self {
        Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &Problem) -> serde_json::Value {
        serde_json::from_slice(&problem.to_json("r-1")).unwrap_or_default()
    }

    #[test]
    fn a_refused_field_is_named_with_its_code_and_the_request() {
        let problem = Problem::from(Error::field("title", "required", "is required"));
        let body = json(&problem);
        assert_eq!((body["status"].as_u64(), body["code"].as_str()), (Some(422), Some("invalid")));
        assert_eq!(body["errors"][0]["field"], "title");
        assert_eq!(body["errors"][0]["code"], "required");
        assert_eq!(body["request_id"], "r-1");
        assert_eq!(body["message"], "title: is required");
    }

    #[test]
    fn the_cause_of_a_failure_is_for_the_log_only() {
        let problem = Problem::from(Error::Internal("the key file /x is gone".into()));
        assert_eq!(problem.status(), 500);
        assert_eq!(problem.cause(), Some("the key file /x is gone"));
        assert!(!json(&problem).to_string().contains("/x"));
    }

    #[test]
    fn each_error_of_the_domain_has_its_status() {
        let status = |error: Error| Problem::from(error).status().as_u16();
        assert_eq!(status(Error::Malformed(String::new())), 400);
        assert_eq!(status(Error::Unauthenticated("expired", String::new())), 401);
        assert_eq!(status(Error::Denied(String::new())), 403);
        assert_eq!(status(Error::NotFound("post")), 404);
        assert_eq!(status(Error::conflict("taken", "")), 409);
        assert_eq!(status(Error::Stale), 412);
        assert_eq!(status(atoll_storage::Error::Busy.into()), 503);
        assert_eq!(status(atoll_storage::Error::Full.into()), 507);
        let (stream, advice) = (String::new(), String::new());
        assert_eq!(status(atoll_storage::Error::NotCarried { stream, advice }.into()), 421);
        assert_eq!(status(atoll_storage::Error::Damaged("x".into()).into()), 500);
        let many = Problem::from(Error::TooMany { retry_after_s: 7 });
        assert_eq!((many.status().as_u16(), many.retry_after_s()), (429, Some(7)));
    }
}
