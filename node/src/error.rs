//! What can go wrong in the domain: one error type, each case with a stable code. Knows nothing of HTTP;
//! never carries a secret or a foreign tenant's data in its text.

/// One field that was refused. `field` is the path in the caller's input: `title`, `tags.3`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct FieldError {
    pub field: String,
    pub code: &'static str,
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, message: message.into() }
    }
}

/// The one error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Well formed, but fields break rules; all of them are named, not only the first.
    #[error("{}", describe(.0))]
    Invalid(Vec<FieldError>),
    #[error("{0}")]
    Malformed(String),
    /// Nobody is signed in, or not any more: a code and what to do.
    #[error("{1}")]
    Unauthenticated(&'static str, String),
    #[error("{0}")]
    Denied(String),
    /// There is none, or none that the caller may know of.
    #[error("no such {0}")]
    NotFound(&'static str),
    #[error("{message}")]
    Conflict { code: &'static str, message: String },
    #[error("it was changed since you read it: read it again and repeat the change")]
    Stale,
    #[error("too many requests: try again in {retry_after_s} s")]
    TooMany { retry_after_s: u64 },
    /// Not now: a code, what is in the way, and when to ask again.
    #[error("{message}")]
    Unavailable { code: &'static str, message: String, retry_after_s: u64 },
    /// The name led here once; the record's name now.
    #[error("it is now called {0}")]
    Moved(String),
    #[error(transparent)]
    Store(#[from] atoll_storage::Error),
    /// Something that only an operator can mend; the text is for the log, not for clients.
    #[error("{0}")]
    Internal(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// One field's refusal.
    pub fn field(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, code, message)])
    }

    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict { code, message: message.into() }
    }

    /// Stable and in snake case: clients branch on it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Malformed(_) => "malformed",
            Self::Unauthenticated(code, _)
            | Self::Conflict { code, .. }
            | Self::Unavailable { code, .. } => code,
            Self::Denied(_) => "denied",
            Self::NotFound(_) => "not_found",
            Self::Stale => "stale",
            Self::TooMany { .. } => "too_many_requests",
            Self::Moved(_) => "moved",
            Self::Store(error) => store_code(error),
            Self::Internal(_) => "internal",
        }
    }

    pub fn field_errors(&self) -> &[FieldError] {
        if let Self::Invalid(fields) = self { fields } else { &[] }
    }
}

fn store_code(error: &atoll_storage::Error) -> &'static str {
    use atoll_storage::Error as E;
    match error {
        E::Full => "disk_full",
        E::ReadOnly => "read_only",
        E::Busy => "busy",
        E::Closed => "shutting_down",
        E::NotCarried { .. } => "not_carried",
        E::Malformed(_) => "malformed",
        E::Missing(_) => "not_found",
        E::TooLong { .. } => "too_long",
        E::LongHistory { .. } => "long_history",
        _ => "internal",
    }
}

fn describe(fields: &[FieldError]) -> String {
    // What is refused as a whole has no name.
    let told = |error: &FieldError| match error.field.as_str() {
        "" => format!("the body {}", error.message),
        field => format!("{field}: {}", error.message),
    };
    match fields {
        [] => "the input breaks a rule".to_owned(),
        [one] => told(one),
        [first, rest @ ..] => format!("{} (and {} more)", told(first), rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_first_field_and_counts_the_others() {
        let title = FieldError::new("title", "required", "is required");
        let slug = FieldError::new("slug", "taken", "is taken");
        assert_eq!(Error::Invalid(vec![title.clone()]).to_string(), "title: is required");
        let both = Error::Invalid(vec![title, slug]);
        assert_eq!(both.to_string(), "title: is required (and 1 more)");
        assert_eq!(both.code(), "invalid");
    }
}
