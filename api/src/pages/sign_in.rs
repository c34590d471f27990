//! Signing in and out on the site's own pages: plain forms and a cookie, for what is not for everybody. Whoever sends a form
//! shows that he got it from here: what stands in it stands in a cookie of his too, which no other site can set. What went
//! wrong is told on the page, in words.

use super::html::Html;
use super::layout::{Head, Who, page};
use super::{HTML, POLICY};
use crate::call::Call;
use crate::cookie;
use crate::letter_pages::{MAX_FORM_BYTES, form_of, sentence};
use crate::params::Params;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Public;
use crate::route::{Answer, Route, get, post};
use crate::site::Site;
use atoll_node::content::feed;
use atoll_node::identity::oidc::{self, Back, TICKET_LIFETIME_S};
use atoll_node::identity::session::site::{self, Entered};
use atoll_node::identity::{logout, reset, tenant};
use atoll_node::{Error, percent};
use atoll_storage::Id;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
};
use axum::http::{HeaderMap, StatusCode};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/sign-in", Public, ask)
            .query(&["return_to", "tenant"])
            .page()
            .doc("The page on which people sign in to read what is not for everybody: one form."),
        post("/sign-in", Public, enter)
            .body_limit(MAX_FORM_BYTES)
            .strict()
            .page()
            .doc("What the page's form sends. Leads on to `return_to`, with a cookie that is good for the site's pages."),
        get("/sign-in/code", Public, ask_code)
            .query(&["return_to"])
            .page()
            .doc("Asks for the code of an account's second factor."),
        post("/sign-in/code", Public, confirm)
            .body_limit(MAX_FORM_BYTES)
            .strict()
            .page()
            .doc("What that page's form sends: the code of the app, or a recovery code."),
        get("/sign-in/provider", Public, come_back)
            .query(&["return_to", "error"])
            .strict()
            .page()
            .doc("Where a browser comes back to that was at the tenant's OpenID provider."),
        post("/sign-out", Public, leave)
            .body_limit(MAX_FORM_BYTES)
            .page()
            .doc("Ends the browser's session on every node."),
        get("/forgot-password", Public, ask_address)
            .page()
            .doc("The page on which people ask for a letter to choose a new password by."),
        post("/forgot-password", Public, send_letter)
            .body_limit(MAX_FORM_BYTES)
            .strict()
            .page()
            .doc("What that page's form sends. The answer does not tell whether there is such an account."),
    ]
}

/// Names the session of a browser that reads.
const SESSION: &str = "atoll_session";
/// That the password was good, until the code is given.
const TICKET: &str = "atoll_ticket";
/// What stands in the forms of this browser.
const FORM: &str = "atoll_form";
const FORM_LIFETIME_S: u64 = 24 * 3_600;
const NO_STORE: &str = "no-store";
/// How the path begins that a provider's browser is led back to.
pub(crate) const BACK_FROM_PROVIDER: &str = "/sign-in/provider?";

/// The cookie that holds a ticket until the code is given.
pub(crate) fn ticket_of(call: &Call, ticket: &str) -> String {
    cookie::set(call, TICKET, ticket, "/sign-in", TICKET_LIFETIME_S)
}

/// What the browser's cookie says of a session.
pub(crate) fn session_of(headers: &HeaderMap) -> Option<&str> {
    cookie::get(headers, SESSION)
}

/// A path of this site to go on to; its first page if there is none.
fn onward(text: Option<&str>) -> Back {
    let given = text.and_then(|text| Back::to(text).ok());
    given.filter(|back| !back.path().starts_with("/sign-")).unwrap_or_else(Back::home)
}

/// One form of these pages.
struct Form<'a> {
    title: &'static str,
    action: &'static str,
    to: &'a Back,
    button: &'static str,
    /// Why the last try did not do.
    wrong: Option<String>,
    fields: &'a dyn Fn(&mut Html),
    after: &'a dyn Fn(&mut Html),
}

impl Form<'_> {
    fn reply(&self, call: &Call, status: StatusCode) -> Answer {
        let known = cookie::get(&call.headers, FORM).and_then(Id::parse);
        let secret = known.unwrap_or_else(|| Id(call.node.random())).to_string();
        let reply = shown(call, self.title, status, |html| {
            if let Some(wrong) = &self.wrong {
                html.element("p", &[("class", "notice"), ("role", "alert")], wrong);
            }
            html.open("form", &[("class", "card"), ("method", "post"), ("action", self.action)]);
            for (name, value) in [("form", secret.as_str()), ("return_to", self.to.path())] {
                html.void("input", &[("type", "hidden"), ("name", name), ("value", value)]);
            }
            (self.fields)(html);
            html.element("button", &[], self.button).close("form");
            (self.after)(html);
        })?;
        Ok(reply.header(SET_COOKIE, cookie::set(call, FORM, &secret, "/", FORM_LIFETIME_S)))
    }
}

fn shown(
    call: &Call,
    title: &str,
    status: StatusCode,
    body: impl FnOnce(&mut Html),
) -> Result<Reply, Problem> {
    let site = Site::of(call)?;
    let robots = Some("noindex".to_owned());
    let head = Head { title: title.to_owned(), robots, who: Who::Unsaid, ..Head::default() };
    let html = page(&site, &feed::top(&call.node, call.tenant())?, &head, |html| {
        html.element("h1", &[("class", "title")], title);
        body(html);
    });
    let reply = Reply::text(HTML, html)?.status(status).header(CONTENT_SECURITY_POLICY, POLICY);
    Ok(reply.header(CACHE_CONTROL, NO_STORE).header(REFERRER_POLICY, "same-origin"))
}

fn field(html: &mut Html, label: &str, attributes: &[(&'static str, &str)]) {
    html.open("label", &[]).text(label);
    let mut all = attributes.to_vec();
    all.push(("required", ""));
    html.void("input", &all).close("label");
}

fn nothing(_: &mut Html) {}

fn seen_other(to: &str, cookies: &[String]) -> Answer {
    let reply = Reply::text(HTML, String::new())?.status(StatusCode::SEE_OTHER);
    let reply = reply.header(LOCATION, to).header(CACHE_CONTROL, NO_STORE);
    Ok(cookies.iter().fold(reply, |reply, cookie| reply.header(SET_COOKIE, cookie)))
}

/// The form as it was sent, and whether this browser got it from here.
fn sent(call: &Call) -> Result<(Params, bool), Problem> {
    let form = form_of(call)?;
    let own = cookie::get(&call.headers, FORM).filter(|own| Id::parse(own).is_some());
    let is_own = own.is_some() && own == form.get("form") && !is_from_elsewhere(call);
    Ok((form, is_own))
}

fn is_from_elsewhere(call: &Call) -> bool {
    call.header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

const LAPSED: &str =
    "This form had lapsed, or your browser keeps no cookies for this site. Send it once more.";

const DISABLED: &str = "This account is disabled. Ask those who run this site.";

const REMOVED: &str = "This server was removed from its network, and nobody can sign in on it. Use another one, or ask those who run this site.";

/// What to say of a refusal, and with which status. What is nobody's fault here is an error as elsewhere.
fn told(error: Error) -> Result<(StatusCode, String, Option<u64>), Problem> {
    let said = match error.code() {
        "wrong_credentials" => Some("The name or the password is wrong."),
        "account_disabled" => Some(DISABLED),
        "node_removed" => Some(REMOVED),
        "totp_required" => {
            Some("Type the code that your app shows, or one of your recovery codes.")
        }
        "totp_invalid" => Some("This code is wrong, or was used before. Wait for the next one."),
        _ => None,
    };
    let problem = Problem::from(error);
    let status = match problem.status() {
        StatusCode::UNAUTHORIZED => StatusCode::UNPROCESSABLE_ENTITY,
        status if status.is_server_error() && problem.retry_after_s().is_none() => {
            return Err(problem);
        }
        status => status,
    };
    let said = match (said, problem.retry_after_s()) {
        (Some(said), _) => said.to_owned(),
        (None, Some(1)) => "Too many tries. Wait a second, then try again.".to_owned(),
        (None, Some(wait_s)) if status == StatusCode::TOO_MANY_REQUESTS => {
            format!("Too many tries. Wait {wait_s} seconds, then try again.")
        }
        _ => sentence(problem.message()),
    };
    Ok((status, said, problem.retry_after_s()))
}

fn waiting(reply: Reply, wait_s: Option<u64>) -> Reply {
    match wait_s {
        Some(seconds) => reply.header(RETRY_AFTER, seconds.to_string()),
        None => reply,
    }
}

fn password_form(
    call: &Call,
    to: &Back,
    login: &str,
    status: StatusCode,
    wrong: Option<String>,
) -> Answer {
    let fields = |html: &mut Html| {
        let login = [
            ("name", "login"),
            ("value", login),
            ("autocomplete", "username"),
            ("autocapitalize", "none"),
            ("spellcheck", "false"),
            ("maxlength", "254"),
        ];
        field(html, "E-mail address or username", &login);
        let password =
            [("type", "password"), ("name", "password"), ("autocomplete", "current-password")];
        field(html, "Password", &password);
    };
    let provider = oidc::host_of(&call.node, call.tenant())?;
    let after = |html: &mut Html| {
        if let Some(host) = &provider {
            let back = format!("{BACK_FROM_PROVIDER}return_to={}", percent::encode(to.path()));
            let href = format!("/api/v1/auth/oidc/start?return_to={}", percent::encode(&back));
            html.open("p", &[]);
            html.element("a", &[("href", &href)], &format!("Sign in by {host}")).close("p");
        }
        html.open("p", &[]);
        html.element("a", &[("href", "/forgot-password")], "Forgotten your password?").close("p");
    };
    let form = Form {
        title: "Sign in",
        action: "/sign-in",
        to,
        button: "Sign in",
        wrong,
        fields: &fields,
        after: &after,
    };
    form.reply(call, status)
}

async fn ask(call: Call) -> Answer {
    let to = onward(call.param("return_to"));
    if let Some(name) = call.param("tenant") {
        let named = tenant::resolve(&call.node, Some(name), None)?;
        if named != call.tenant() {
            return no_site(&call, named);
        }
    }
    if call.actor.user.is_some() {
        return seen_other(to.path(), &[]);
    }
    password_form(&call, &to, "", StatusCode::OK, None)
}

/// Of a tenant whose pages do not stand at this address.
fn no_site(call: &Call, named: Id) -> Answer {
    let name = tenant::current(&call.node, named)?;
    let text = format!(
        "{} has no pages at this address, so there is nothing to sign in to here. Use the site or the app that those \
         who run it have told you of.",
        name.text(&tenant::NAME)
    );
    shown(call, "Sign in", StatusCode::OK, |html| {
        html.element("p", &[("class", "lead")], &text);
    })
}

async fn enter(call: Call) -> Answer {
    let (form, is_own) = sent(&call)?;
    let (to, login) = (onward(form.get("return_to")), form.get("login").unwrap_or_default());
    if !is_own {
        return password_form(&call, &to, login, StatusCode::FORBIDDEN, Some(LAPSED.to_owned()));
    }
    let password = form.get("password").unwrap_or_default().to_owned();
    match site::sign_in(&call.node, &call.actor, login, password, call.user_agent()).await {
        Ok(Entered::In(session)) => admitted(&call, &to, &session),
        Ok(Entered::NeedsCode(ticket)) => {
            let ticket = ticket_of(&call, &ticket);
            seen_other(&code_page(&to), &[ticket])
        }
        Err(error) => {
            let (status, said, wait_s) = told(error)?;
            Ok(waiting(password_form(&call, &to, login, status, Some(said))?, wait_s))
        }
    }
}

fn code_page(to: &Back) -> String {
    format!("/sign-in/code?return_to={}", percent::encode(to.path()))
}

fn admitted(call: &Call, to: &Back, session: &str) -> Answer {
    let session = cookie::set(call, SESSION, session, "/", site::LIFETIME_S);
    seen_other(to.path(), &[session, cookie::set(call, TICKET, "", "/sign-in", 0)])
}

fn code_form(call: &Call, to: &Back, status: StatusCode, wrong: Option<String>) -> Answer {
    let fields = |html: &mut Html| {
        let code = [
            ("name", "code"),
            ("autocomplete", "one-time-code"),
            ("autocapitalize", "none"),
            ("spellcheck", "false"),
            ("maxlength", "64"),
        ];
        field(html, "Code of your app, or a recovery code", &code);
    };
    let after = |html: &mut Html| {
        let again = format!("/sign-in?return_to={}", percent::encode(to.path()));
        html.open("p", &[]).element("a", &[("href", &again)], "Begin anew").close("p");
    };
    let form = Form {
        title: "One more step",
        action: "/sign-in/code",
        to,
        button: "Go on",
        wrong,
        fields: &fields,
        after: &after,
    };
    form.reply(call, status)
}

async fn ask_code(call: Call) -> Answer {
    let to = onward(call.param("return_to"));
    if cookie::get(&call.headers, TICKET).is_none() {
        return seen_other(&format!("/sign-in?return_to={}", percent::encode(to.path())), &[]);
    }
    code_form(&call, &to, StatusCode::OK, None)
}

async fn confirm(call: Call) -> Answer {
    let (form, is_own) = sent(&call)?;
    let to = onward(form.get("return_to"));
    if !is_own {
        return code_form(&call, &to, StatusCode::FORBIDDEN, Some(LAPSED.to_owned()));
    }
    let ticket = cookie::get(&call.headers, TICKET).unwrap_or_default();
    let code = form.get("code").map(str::to_owned);
    match site::confirm(&call.node, &call.actor, ticket, code, call.user_agent()).await {
        Ok(session) => admitted(&call, &to, &session),
        Err(error) if matches!(error.code(), "ticket_invalid" | "ticket_used") => {
            let said = "That took too long, so begin anew.".to_owned();
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let reply = password_form(&call, &to, "", status, Some(said))?;
            Ok(reply.header(SET_COOKIE, cookie::set(&call, TICKET, "", "/sign-in", 0)))
        }
        Err(error) => {
            let (status, said, wait_s) = told(error)?;
            Ok(waiting(code_form(&call, &to, status, Some(said))?, wait_s))
        }
    }
}

/// The ticket that the browser brings was given to it, and is good once.
async fn come_back(call: Call) -> Answer {
    let to = onward(call.param("return_to"));
    let again = |status, said: String| {
        let reply = password_form(&call, &to, "", status, Some(said))?;
        Ok(reply.header(SET_COOKIE, cookie::set(&call, TICKET, "", "/sign-in", 0)))
    };
    let failed = "Signing in this way did not work. Try once more, or sign in with a password.";
    if let Some(code) = call.param("error") {
        let said = match code {
            "account_disabled" => DISABLED,
            "node_removed" => REMOVED,
            _ => failed,
        };
        return again(StatusCode::UNPROCESSABLE_ENTITY, said.to_owned());
    }
    let ticket = cookie::get(&call.headers, TICKET).unwrap_or_default();
    match site::confirm(&call.node, &call.actor, ticket, None, call.user_agent()).await {
        Ok(session) => admitted(&call, &to, &session),
        Err(error) if error.code() == "totp_required" => seen_other(&code_page(&to), &[]),
        Err(error) if matches!(error.code(), "ticket_invalid" | "ticket_used") => {
            again(StatusCode::UNPROCESSABLE_ENTITY, failed.to_owned())
        }
        Err(error) => {
            let (status, said, wait_s) = told(error)?;
            Ok(waiting(again(status, said)?, wait_s))
        }
    }
}

/// The cookie comes with no request of another site, so that what it stands for is this browser's own wish.
async fn leave(call: Call) -> Answer {
    if is_from_elsewhere(&call) {
        return seen_other("/", &[]);
    }
    if call.actor.session.is_some() {
        logout(&call.node, &call.actor).await?;
    }
    seen_other("/", &[cookie::set(&call, SESSION, "", "/", 0)])
}

fn address_form(call: &Call, status: StatusCode, wrong: Option<String>) -> Answer {
    let fields = |html: &mut Html| {
        let address =
            [("type", "email"), ("name", "email"), ("autocomplete", "email"), ("maxlength", "254")];
        field(html, "E-mail address of your account", &address);
    };
    let form = Form {
        title: "A new password",
        action: "/forgot-password",
        to: &Back::home(),
        button: "Send me a letter",
        wrong,
        fields: &fields,
        after: &nothing,
    };
    form.reply(call, status)
}

async fn ask_address(call: Call) -> Answer {
    address_form(&call, StatusCode::OK, None)
}

async fn send_letter(call: Call) -> Answer {
    let (form, is_own) = sent(&call)?;
    if !is_own {
        return address_form(&call, StatusCode::FORBIDDEN, Some(LAPSED.to_owned()));
    }
    match reset::ask(&call.node, call.tenant(), form.get("email").unwrap_or_default()).await {
        Ok(()) => shown(&call, "Look into your mail", StatusCode::OK, |html| {
            let text = "If there is an account with this address, a letter with a link is on its way. The link is good \
                        for an hour.";
            html.element("p", &[("class", "lead"), ("role", "status")], text);
            html.open("p", &[])
                .element("a", &[("href", "/sign-in")], "Back to signing in")
                .close("p");
        }),
        Err(Error::Invalid(_)) => {
            let said = "This is no e-mail address.".to_owned();
            address_form(&call, StatusCode::UNPROCESSABLE_ENTITY, Some(said))
        }
        Err(error) => {
            let (status, said, wait_s) = told(error)?;
            Ok(waiting(address_form(&call, status, Some(said))?, wait_s))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_led_on_within_the_site_and_not_back_to_the_form() {
        let to = |text| onward(Some(text)).path().to_owned();
        assert_eq!(to("/posts/of-bees?x=1"), "/posts/of-bees?x=1");
        for bad in
            ["//evil.org", "https://evil.org", "javascript:1", "/sign-in", "/sign-out", "", "/a#b"]
        {
            assert_eq!(to(bad), "/", "{bad}");
        }
    }
}
