//! Cookies: what a browser brings back of what it was given. Scripts see none of ours, and requests that other sites send
//! bring none along.

use crate::call::Call;
use crate::site;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;

/// A cookie to be set; over at once if `lifetime_s` is 0. `value` is plain: letters, digits and `-._~/`.
pub(crate) fn set(call: &Call, name: &str, value: &str, path: &str, lifetime_s: u64) -> String {
    let secure = if is_encrypted(call) { "; Secure" } else { "" };
    format!("{name}={value}; Path={path}; Max-Age={lifetime_s}; HttpOnly; SameSite=Lax{secure}")
}

pub(crate) fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Whether the browser's request was encrypted, as far as this node can know: a proxy that is believed says so, or the
/// browser asked for the host that stands under https in the settings.
fn is_encrypted(call: &Call) -> bool {
    let told = call.header("x-forwarded-proto").filter(|_| call.app.options.proxies > 0);
    match told {
        Some(told) => told.split(',').next().is_some_and(|scheme| scheme.trim() == "https"),
        None => site::is_asked_by_https(&call.node, call.tenant(), call.header("host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xa=1; a=2 ;b=x=y"));
        headers.append(COOKIE, HeaderValue::from_static("c=3"));
        let get = |name| get(&headers, name);
        assert_eq!(
            (get("a"), get("b"), get("c"), get("x")),
            (Some("2"), Some("x=y"), Some("3"), None)
        );
    }
}
