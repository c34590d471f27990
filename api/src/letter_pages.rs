//! The pages that links in letters lead to: plain forms, answered by a page that says what happened. They do what
//! `/api/v1/auth/verify-email` and `/api/v1/auth/reset-password` do. No script, nothing from elsewhere. A page that is only
//! looked at changes nothing: programs that scan mail open its links.

use crate::call::Call;
use crate::pages::escape;
use crate::params::Params;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Public;
use crate::route::{Answer, Route, get, post};
use atoll_node::Error;
use atoll_node::identity::{email, password, reset, tenant};
use atoll_storage::read::Read;
use atoll_storage::{Id, Record};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, RETRY_AFTER};
use std::fmt::Write;

pub fn routes() -> Vec<Route> {
    vec![
        get("/verify-email", Public, show_verify)
            .query(&["token", "tenant"])
            .strict()
            .page()
            .doc("The page of a letter's link that proves an e-mail address: one button."),
        post("/verify-email", Public, verify)
            .query(&["tenant"])
            .body_limit(MAX_FORM_BYTES)
            .strict()
            .page()
            .doc("What the page's form sends: the token, as a form. Answers with a page."),
        get("/reset-password", Public, show_reset)
            .query(&["token", "tenant"])
            .strict()
            .page()
            .doc("The page of a letter's link to a new password: one form."),
        post("/reset-password", Public, set_password)
            .query(&["tenant"])
            .body_limit(MAX_FORM_BYTES)
            .strict()
            .page()
            .doc("What the page's form sends: the token and the password twice, as a form. Answers with a page."),
    ]
}

pub(crate) const MAX_FORM_BYTES: usize = 8 << 10;
const STYLE: &str = include_str!("letter_pages.css");
const COLOUR: &str = "#1f4e79";

/// Of the tenant that the link names; else that of the request.
struct Place {
    tenant: Id,
    name: String,
    colour: String,
    /// The tenant as the link names it, for the form's way back.
    query: String,
}

impl Place {
    fn of(call: &Call) -> Result<Self, Problem> {
        let named = call.param("tenant");
        let key = match named {
            Some(name) => tenant::resolve(&call.node, Some(name), None)?,
            None => call.tenant(),
        };
        let found = call.node.store.read(|reader| reader.get(&tenant::TENANT, key))?;
        let found = found.ok_or_else(|| Problem::not_found("tenant"))?;
        let query = named.map_or_else(String::new, |name| {
            format!("?tenant={}", atoll_node::percent::encode(name))
        });
        let name = found.text(&tenant::NAME).to_owned();
        Ok(Self { tenant: key, name, colour: colour_of(&found), query })
    }
}

/// The tenant's main colour; its settings take nothing but `#rrggbb`, and other nodes may have other rules.
fn colour_of(tenant: &Record) -> String {
    let first = tenant.text(&tenant::COLOURS).split(' ').next().unwrap_or_default();
    let is_colour = first.len() == 7
        && first.starts_with('#')
        && first.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit());
    if is_colour { first.to_owned() } else { COLOUR.to_owned() }
}

async fn show_verify(call: Call) -> Answer {
    let place = Place::of(&call)?;
    let Some(token) = token_of(call.param("token")) else {
        return incomplete(&call, &place);
    };
    let form = Form { action: "/verify-email", token, fields: "", button: "Confirm this address" };
    page(&call, &place, StatusCode::OK, "Confirm your e-mail address", &form.write(&place))
}

async fn verify(call: Call) -> Answer {
    let (place, form) = (Place::of(&call)?, form_of(&call)?);
    let Some(token) = token_of(form.get("token")) else { return incomplete(&call, &place) };
    match email::verify(&call.node, place.tenant, token).await {
        Ok(_) => {
            let text = "Thank you: your e-mail address is confirmed. You can close this page.";
            page(&call, &place, StatusCode::OK, "Address confirmed", &done(text))
        }
        Err(Error::Invalid(_)) => lapsed(&call, &place, "ask for another one where you signed up"),
        Err(error) => refused(&call, &place, "Not confirmed", error.into()),
    }
}

async fn show_reset(call: Call) -> Answer {
    let place = Place::of(&call)?;
    let Some(token) = token_of(call.param("token")) else {
        return incomplete(&call, &place);
    };
    page(&call, &place, StatusCode::OK, CHOOSE, &passwords(&place, token, None))
}

async fn set_password(call: Call) -> Answer {
    let (place, form) = (Place::of(&call)?, form_of(&call)?);
    let Some(token) = token_of(form.get("token")) else { return incomplete(&call, &place) };
    let field = |name: &str| form.get(name).unwrap_or_default().to_owned();
    let again = |why: &str| {
        let text = passwords(&place, token, Some(why));
        page(&call, &place, StatusCode::UNPROCESSABLE_ENTITY, CHOOSE, &text)
    };
    let new = field("new_password");
    if new != field("repeated") {
        return again("The two passwords differ.");
    }
    match reset::reset(&call.node, place.tenant, token, new).await {
        Ok(()) => {
            let text = "Your new password counts from now on, and you were signed out everywhere.";
            let link = format!(
                "<p><a href=\"/sign-in{}\">Sign in with it</a></p>\n",
                escape(&place.query)
            );
            page(&call, &place, StatusCode::OK, "Password changed", &(done(text) + &link))
        }
        Err(Error::Invalid(fields)) => match fields.iter().find(|f| f.field == "new_password") {
            Some(wrong) => again(&format!("The password {}.", wrong.message)),
            None => lapsed(&call, &place, "ask for a new password once more"),
        },
        Err(error) => refused(&call, &place, "Not changed", error.into()),
    }
}

const CHOOSE: &str = "Choose a new password";

/// A form as browsers send it.
pub(crate) fn form_of(call: &Call) -> Result<Params, Problem> {
    let essence = call.header("content-type").unwrap_or_default().split(';').next();
    if essence
        .is_none_or(|text| !text.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
    {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "this page takes its own form: programs send JSON to /api/v1/auth",
        ));
    }
    let text = std::str::from_utf8(call.body());
    Params::read(Some(text.map_err(|_| Problem::malformed("the form is not UTF-8"))?))
}

/// What can be a token at all: what else a link holds does not come into a page.
fn token_of(given: Option<&str>) -> Option<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    given.map(str::trim).filter(|text| (1..=200).contains(&text.len()) && text.chars().all(fits))
}

struct Form<'a> {
    action: &'static str,
    token: &'a str,
    fields: &'a str,
    button: &'static str,
}

impl Form<'_> {
    fn write(&self, place: &Place) -> String {
        let Self { action, token, fields, button } = self;
        let query = escape(&place.query);
        format!(
            "<form method=\"post\" action=\"{action}{query}\">\n\
             <input type=\"hidden\" name=\"token\" value=\"{token}\">\n{fields}\
             <button>{button}</button>\n</form>\n"
        )
    }
}

fn passwords(place: &Place, token: &str, wrong: Option<&str>) -> String {
    let mut text = wrong.map_or_else(String::new, |why| {
        format!("<p class=\"wrong\" role=\"alert\">{}</p>\n", escape(why))
    });
    let least = password::MIN_CHARS;
    let mut fields = String::new();
    for (name, label) in [("new_password", "New password"), ("repeated", "The same again")] {
        let _ = writeln!(
            fields,
            "<label>{label}<input type=\"password\" name=\"{name}\" autocomplete=\"new-password\" \
             minlength=\"{least}\" required></label>"
        );
    }
    let _ = writeln!(text, "<p>At least {least} characters.</p>");
    let form =
        Form { action: "/reset-password", token, fields: &fields, button: "Set the password" };
    text + &form.write(place)
}

fn done(text: &str) -> String {
    format!("<p role=\"status\">{}</p>\n", escape(text))
}

fn incomplete(call: &Call, place: &Place) -> Answer {
    let text = "<p role=\"alert\">This link is not whole. Open it from the letter, or copy all of it into the address \
                line of your browser.</p>\n";
    page(call, place, StatusCode::BAD_REQUEST, "This link is not whole", text)
}

fn lapsed(call: &Call, place: &Place, what_to_do: &str) -> Answer {
    let text = format!(
        "<p role=\"alert\">This link was used before, has lapsed, or was replaced by a newer letter. If you still need \
         it, {what_to_do}.</p>\n"
    );
    page(call, place, StatusCode::UNPROCESSABLE_ENTITY, "This link is not good any more", &text)
}

fn refused(call: &Call, place: &Place, title: &str, problem: Problem) -> Answer {
    if problem.status().is_server_error() && problem.retry_after_s().is_none() {
        return Err(problem);
    }
    let text = format!("<p role=\"alert\">{}</p>\n", escape(&sentence(problem.message())));
    let reply = page(call, place, problem.status(), title, &text)?;
    Ok(match problem.retry_after_s() {
        Some(seconds) => reply.header(RETRY_AFTER, seconds.to_string()),
        None => reply,
    })
}

pub(crate) fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

fn page(call: &Call, place: &Place, status: StatusCode, title: &str, content: &str) -> Answer {
    let nonce = Id(call.node.random());
    let (name, title, colour) = (escape(&place.name), escape(title), &place.colour);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} - {name}</title>\n\
         <style nonce=\"{nonce}\">\n:root {{ --main: {colour}; }}\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <p class=\"site\">{name}</p>\n<h1>{title}</h1>\n{content}</main>\n</body>\n</html>\n"
    );
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    let reply = Reply::text("text/html; charset=utf-8", html)?.status(status);
    Ok(reply.header(CONTENT_SECURITY_POLICY, policy).header(CACHE_CONTROL, "no-store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_token_comes_into_a_page() {
        assert_eq!(token_of(Some(" Ab-_9 ")), Some("Ab-_9"));
        for bad in ["", "\"><script>", "a b", "a&b", &"a".repeat(201)] {
            assert_eq!(token_of(Some(bad)), None, "{bad}");
        }
    }

    #[test]
    fn the_style_loads_nothing_from_elsewhere() {
        for needle in ["http", "@import", "url("] {
            assert!(!STYLE.contains(needle), "{needle}");
        }
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(sentence("no such tenant"), "No such tenant.");
    }
}
