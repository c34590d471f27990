//! A request as it stands in the log. Never shows a part of a path that may be a secret.

use crate::request_id::RequestId;
use std::borrow::Cow;
use tracing::Span;

/// An id has 36; tokens are longer.
const MAX_LOGGED_BYTES: usize = 36;

pub(crate) fn of(id: &RequestId, is_get: bool, path: &str) -> Span {
    let path = logged(path);
    if is_get {
        tracing::debug_span!("request", id = %id, path = %path)
    } else {
        tracing::info_span!("request", id = %id, path = %path)
    }
}

/// The path; a part of it that is long enough to be a token is cut.
fn logged(path: &str) -> Cow<'_, str> {
    if path.split('/').all(|part| part.len() <= MAX_LOGGED_BYTES) {
        return Cow::Borrowed(path);
    }
    let shown = |part: &str| match part.char_indices().nth(4) {
        Some((end, _)) if part.len() > MAX_LOGGED_BYTES => format!("{}…", &part[..end]),
        _ => part.to_owned(),
    };
    Cow::Owned(path.split('/').map(shown).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_cut_in_the_log() {
        let id = "/api/v1/posts/0190b8e0-0000-7000-8000-000000000000/versions";
        assert_eq!(logged(id), id);
        let token = format!("/api/v1/preview/{}", "é".repeat(43));
        assert_eq!(logged(&token), "/api/v1/preview/éééé…");
    }
}
