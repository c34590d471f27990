//! The site as people read it: a page for each public post, the latest posts, those of a category, a tag, an author, and
//! previews. One small renderer and no engine of themes: who wants another look builds it on the API, and names its
//! addresses in `posts.path`. A page shows what its reader sees over the API: a stranger, or whoever signed in on it.

mod brand;
mod html;
mod layout;
mod show;
mod sign_in;

use crate::call::Call;
use crate::letter_pages::sentence;
use crate::problem::Problem;
use crate::redirects;
use crate::reply::Reply;
use crate::route::Access::Public;
use crate::route::{Answer, Route, get};
use crate::seo;
use crate::site::Site;
use atoll_node::community::comment;
use atoll_node::content::feed::{self, Heading, Label, Listing, Of};
use atoll_node::content::post::{self as posts, POST, SLUG, authors, is_live};
use atoll_node::content::preview;
use atoll_node::search::{self, MAX_OFFSET, MAX_TEXT, Wanted};
use atoll_node::{Error, Node, percent};
use atoll_storage::query::Cursor;
use atoll_storage::{Id, Record};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION};
use axum::http::{HeaderName, StatusCode};
use html::Html;
pub(crate) use html::escaped as escape;
use layout::{Head, Who, page, path_of};
use serde_json::{Map, Value as Json, json};
pub(crate) use sign_in::{BACK_FROM_PROVIDER, session_of, ticket_of};

pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        get("/", Public, front)
            .page()
            .query(&["cursor"])
            .doc("The site's first page: its latest posts."),
        get("/posts/{slug}", Public, post)
            .page()
            .doc("A post as people read it; an old slug leads to the present one."),
        get("/categories/{name}", Public, listed)
            .page()
            .query(&["cursor"])
            .doc("The posts of a category and of all under it, as people read them."),
        get("/tags/{name}", Public, listed)
            .page()
            .query(&["cursor"])
            .doc("The posts that carry a tag, as people read them."),
        get("/authors/{name}", Public, listed)
            .page()
            .query(&["cursor"])
            .doc("The posts of an author, as people read them."),
        get("/search", Public, searched)
            .page()
            .query(&["q", "offset"])
            .doc("Posts that hold what was typed, as people read them."),
        get("/preview/{token}", Public, previewed)
            .page()
            .doc("The post that a preview link leads to, as people will read it."),
        get("/page.css", Public, style).page().doc("How pages look, in the tenant's colours."),
        get("/view.js", Public, script).page().doc("Tells the site that a post was looked at."),
    ];
    routes.extend(sign_in::routes());
    routes
}

/// Posts of one page.
const ON_PAGE: usize = 15;
/// Comments that stand under a post.
const COMMENTS: usize = 100;
const HTML: &str = "text/html; charset=utf-8";
/// Pictures may come from elsewhere, as authors put them into posts; nothing else does.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self' https: http:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const FRESH: &str = "public, max-age=60";
/// What somebody sees who is signed in.
const PRIVATE: &str = "private, no-cache";
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

fn sent(call: &Call, html: String) -> Answer {
    let reply = Reply::text(HTML, html)?.header(CONTENT_SECURITY_POLICY, POLICY);
    // What somebody sees who is signed in is his own, and stays as the dispatcher has it.
    Ok(if call.actor.user.is_none() { reply.header(CACHE_CONTROL, FRESH) } else { reply })
}

/// What is not found may have been an address of a post; else a page says so.
fn or_missing(call: &Call, outcome: Result<Reply, Problem>) -> Answer {
    match outcome {
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => {
            let old = redirects::followed(&call.node, call.tenant(), call.uri.path())?;
            match old.filter(|place| place != call.uri.path()) {
                Some(place) => moved(&place),
                None => not_here(call),
            }
        }
        outcome => outcome,
    }
}

fn moved(place: &str) -> Answer {
    let reply = Reply::text("text/plain; charset=utf-8", place.to_owned())?;
    let reply = reply.header(CACHE_CONTROL, "public, max-age=3600");
    Ok(reply.status(StatusCode::MOVED_PERMANENTLY).header(LOCATION, place))
}

/// The page that says that there is none, to a reader who may sign in.
fn not_here(call: &Call) -> Answer {
    let who = Who::of(call)?;
    let of_members = match &who {
        Who::Stranger(path) => Some(Who::sign_in_to(path)),
        _ => None,
    };
    let site = Site::of(call)?;
    let html = nothing(&call.node, call.tenant(), &site, who, |html| {
        if let Some(href) = &of_members {
            html.open("p", &[]).text("It may be for members: ");
            html.element("a", &[("href", href), ("rel", "nofollow")], "sign in").close("p");
        }
    })?;
    let kept = if call.actor.user.is_none() { "no-cache" } else { PRIVATE };
    told(StatusCode::NOT_FOUND, html, kept)
}

/// As [`not_here`], where nobody knows who reads.
pub(crate) fn missing(node: &Node, tenant: Id, host: Option<&str>) -> Answer {
    let site = Site::at(node, tenant, host)?;
    let html = nothing(node, tenant, &site, Who::Unsaid, |_| {})?;
    told(StatusCode::NOT_FOUND, html, "no-cache")
}

fn nothing(
    node: &Node,
    tenant: Id,
    site: &Site,
    who: Who,
    more: impl FnOnce(&mut Html),
) -> Result<String, Problem> {
    let why = "The address may be wrong, or what was here is gone.";
    let title = "There is nothing here";
    let head = Head { title: "Not found".to_owned(), robots: noindex(), who, ..Head::default() };
    Ok(page(site, &feed::top(node, tenant)?, &head, |html| {
        html.element("h1", &[("class", "title")], title);
        html.element("p", &[("class", "lead")], why);
        more(html);
        html.open("p", &[]).element("a", &[("href", "/")], "To the latest posts").close("p");
    }))
}

/// A refusal of a page, in words.
pub(crate) fn refused(node: &Node, tenant: Id, host: Option<&str>, problem: &Problem) -> Answer {
    let site = Site::at(node, tenant, host)?;
    let title = match problem.status() {
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        StatusCode::SERVICE_UNAVAILABLE => "Not now",
        status if status.is_server_error() => "Something went wrong",
        _ => "This did not work",
    };
    let head = Head { title: title.to_owned(), robots: noindex(), ..Head::default() };
    let html = page(&site, &feed::top(node, tenant)?, &head, |html| {
        html.element("h1", &[("class", "title")], title);
        let lead = [("class", "lead"), ("role", "alert")];
        html.element("p", &lead, &sentence(problem.message()));
        html.open("p", &[]).element("a", &[("href", "/")], "To the latest posts").close("p");
    });
    told(problem.status(), html, "no-store")
}

fn noindex() -> Option<String> {
    Some("noindex".to_owned())
}

fn told(status: StatusCode, html: String, kept: &'static str) -> Answer {
    let reply = Reply::text(HTML, html)?.header(CONTENT_SECURITY_POLICY, POLICY);
    Ok(reply.status(status).header(CACHE_CONTROL, kept))
}

async fn post(call: Call) -> Answer {
    let outcome = shown(&call).await;
    or_missing(&call, outcome)
}

async fn shown(call: &Call) -> Answer {
    let name = call.path("slug");
    let post = posts::named(&call.node, &call.actor, name)?;
    let site = Site::of(call)?;
    if Id::parse(name).is_some() {
        return moved(&path_of("posts", post.text(&SLUG)));
    }
    let (said, total) = comment::open_on(&call.node, call.tenant(), post.key, COMMENTS)?;
    let writers = said.iter().filter_map(|comment| comment.id(&comment::AUTHOR_ID));
    let names = feed::users(&call.node, call.tenant(), writers.collect())?;
    let html = whole(call, &site, &post, None, |html| {
        show::comments(html, &site, &said, total, &names);
    });
    sent(call, html.await?)
}

/// The page of one post. `notice` stands above it; `after` writes what stands under it.
async fn whole(
    call: &Call,
    site: &Site,
    post: &Record,
    notice: Option<&str>,
    after: impl FnOnce(&mut Html),
) -> Result<String, Problem> {
    let text = posts::rendered(&call.node, post).await?;
    let labels = feed::labels(&call.node, post.tenant, std::slice::from_ref(post))?;
    let names: Vec<String> =
        authors(post).filter_map(|id| labels.get(&id)).map(|label| label.name.clone()).collect();
    let told = seo::of(site, post, &text.excerpt, &names);
    let said = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let head = Head {
        title: said("title"),
        description: said("description"),
        canonical: said("canonical"),
        robots: Some(said("robots")),
        open_graph: told["open_graph"].as_object().cloned().unwrap_or_default(),
        json_ld: is_live(post).then(|| told["json_ld"].clone()),
        counted: is_live(post).then(|| post.key.to_string()),
        who: Who::of(call)?,
        ..Head::default()
    };
    Ok(page(site, &feed::top(&call.node, post.tenant)?, &head, |html| {
        if let Some(notice) = notice {
            html.element("p", &[("class", "notice"), ("role", "status")], notice);
        }
        show::post(html, site, post, &text, &labels);
        after(html);
    }))
}

async fn previewed(call: Call) -> Answer {
    let Ok(post) = preview::open(&call.node, call.tenant(), call.path("token")) else {
        return not_here(&call);
    };
    let site = Site::of(&call)?;
    let notice = "This is a preview. The post may change before it is published.";
    let html = whole(&call, &site, &post, Some(notice), |_| {}).await?;
    let reply = Reply::text(HTML, html)?.header(CONTENT_SECURITY_POLICY, POLICY);
    Ok(reply.header(CACHE_CONTROL, "no-store").header(ROBOTS, "noindex, nofollow"))
}

async fn front(call: Call) -> Answer {
    let outcome = list_of(&call, Of::All, "").await;
    or_missing(&call, outcome)
}

async fn listed(call: Call) -> Answer {
    let name = call.path("name");
    let (of, place) = match call.uri.path().split('/').nth(1) {
        Some("tags") => (Of::Tag(name), "tags"),
        Some("categories") => (Of::Category(name), "categories"),
        _ => (Of::Author(name), "authors"),
    };
    let outcome = list_of(&call, of, place).await;
    or_missing(&call, outcome)
}

async fn list_of(call: &Call, of: Of<'_>, place: &str) -> Answer {
    let site = Site::of(call)?;
    let after = call.param("cursor").map(|text| Cursor::parse(text).ok_or(Error::NotFound("page")));
    let after = after.transpose()?;
    let is_first = after.is_none();
    let found = feed::listing(&call.node, &call.actor, of, after, ON_PAGE)?;
    let path = match &found.heading {
        Some(heading) => path_of(place, &heading.label.slug),
        None => String::new(),
    };
    if found.heading.is_some() && is_first && Id::parse(call.path("name")).is_some() {
        return moved(&path);
    }
    let glances = posts::glances(&call.node, &found.posts).await?;
    let headings = feed::top(&call.node, call.tenant())?;
    let who = Who::of(call)?;
    let head = Head { who, ..head_of(&site, &found, &path, is_first) };
    let html = page(&site, &headings, &head, |html| {
        title(html, found.heading.as_ref(), place, is_first, &site);
        show::posts(html, &site, &found.posts, &glances, &found.labels);
        turn(html, &path, head.older.as_deref(), is_first);
    });
    sent(call, html)
}

fn head_of(site: &Site, found: &Listing, path: &str, is_first: bool) -> Head {
    let heading = found.heading.as_ref();
    let title = heading.map(|heading| heading.label.name.clone()).unwrap_or_default();
    let description = heading.map(|heading| heading.description.clone()).unwrap_or_default();
    let canonical = format!("{}{}", site.base, if path.is_empty() { "/" } else { path });
    let name = if title.is_empty() { &site.name } else { &title };
    let told = json!({
        "og:type": "website", "og:site_name": site.name, "og:title": name, "og:url": canonical,
    });
    let kind = if path.is_empty() { "WebSite" } else { "CollectionPage" };
    let json_ld = json!({
        "@context": "https://schema.org", "@type": kind, "name": name, "url": canonical,
    });
    let next = found.next.as_ref().map(|cursor| format!("{path}?cursor={}", cursor.to_text()));
    Head {
        feeds: heading.map(|heading| (path.to_owned(), heading.label.name.clone())),
        here: path.to_owned(),
        open_graph: match told {
            Json::Object(told) => told,
            _ => Map::new(),
        },
        json_ld: is_first.then_some(json_ld),
        // Later pages move with each new post.
        robots: (!is_first).then(|| "noindex, follow".to_owned()),
        canonical: if is_first { canonical } else { String::new() },
        older: next.map(|next| if path.is_empty() { format!("/{next}") } else { next }),
        title,
        description,
        ..Head::default()
    }
}

fn title(html: &mut Html, heading: Option<&Heading>, place: &str, is_first: bool, site: &Site) {
    let Some(Heading { label: Label { name, .. }, description }) = heading else {
        // The first page's name stands above it already.
        let class = if is_first { "skip" } else { "title" };
        html.element("h1", &[("class", class)], if is_first { &site.name } else { "Older posts" });
        return;
    };
    let kicker = match place {
        "tags" => "Tag",
        "categories" => "Category",
        _ => "Author",
    };
    html.open("header", &[("class", "head")]).element("p", &[("class", "kicker")], kicker);
    html.element("h1", &[("class", "title"), ("dir", "auto")], name);
    if !description.is_empty() {
        html.element("p", &[("class", "lead"), ("dir", "auto")], description);
    }
    html.close("header");
}

fn turn(html: &mut Html, path: &str, older: Option<&str>, is_first: bool) {
    if older.is_none() && is_first {
        return;
    }
    html.open("nav", &[("class", "turn"), ("aria-label", "Pages")]);
    let first = if path.is_empty() { "/" } else { path };
    html.open("span", &[]);
    if !is_first {
        html.element("a", &[("href", first)], "← Latest");
    }
    html.close("span");
    if let Some(older) = older {
        html.element("a", &[("href", older), ("rel", "next")], "Older →");
    }
    html.close("nav");
}

async fn searched(call: Call) -> Answer {
    let site = Site::of(&call)?;
    let text: String = call.param("q").unwrap_or_default().trim().chars().take(MAX_TEXT).collect();
    let offset = call.param("offset").and_then(|text| text.parse().ok()).unwrap_or(0);
    let wanted = Wanted {
        text: text.clone(),
        kinds: vec![POST.name.to_owned()],
        limit: ON_PAGE,
        offset: usize::min(offset, MAX_OFFSET),
        ..Wanted::default()
    };
    let found = match text.as_str() {
        "" => None,
        _ => Some(search::find(&call.node, &call.actor, &wanted)?),
    };
    let end = wanted.offset + ON_PAGE;
    let has_more = found.as_ref().is_some_and(|found| found.total > end as u64);
    let head = Head {
        title: if text.is_empty() { "Search".to_owned() } else { format!("Search: {text}") },
        robots: Some("noindex, follow".to_owned()),
        asked: text.clone(),
        who: Who::of(&call)?,
        ..Head::default()
    };
    let html = page(&site, &feed::top(&call.node, call.tenant())?, &head, |html| {
        html.element("h1", &[("class", "title")], "Search");
        if let Some(found) = &found {
            show::found(html, &site, found);
        }
        if has_more && end <= MAX_OFFSET {
            let more = format!("/search?q={}&offset={end}", percent::encode(&text));
            html.open("nav", &[("class", "turn"), ("aria-label", "Pages")]);
            html.open("span", &[]).close("span");
            html.element("a", &[("href", &more), ("rel", "next")], "More →").close("nav");
        }
    });
    sent(&call, html)
}

/// Its address changes with its text, so it may be kept.
async fn style(call: Call) -> Answer {
    let colours = Site::of(&call)?.colours;
    let is_named = call.param("v").is_some_and(|name| name == brand::style_name(&colours));
    let reply = Reply::text("text/css; charset=utf-8", brand::style(&colours))?;
    Ok(reply.header(CACHE_CONTROL, if is_named { FOR_EVER } else { FRESH }))
}

async fn script(_: Call) -> Answer {
    let reply = Reply::text("text/javascript; charset=utf-8", include_str!("pages/view.js"))?;
    Ok(reply.header(CACHE_CONTROL, "public, max-age=86400"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_script_loads_nothing_from_elsewhere() {
        let script = include_str!("pages/view.js");
        assert!(!script.contains("http") && script.contains("/api/v1/analytics/track"));
    }
}
