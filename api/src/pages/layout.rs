//! What all our pages share: the head with what search engines and feed readers look for, the site's name and headings,
//! the foot. No page runs a script that is not ours, or loads anything but pictures from elsewhere.

use super::brand;
use super::html::Html;
use crate::call::Call;
use crate::moment::Moment;
use crate::problem::Problem;
use crate::site::Site;
use atoll_node::content::feed::Label;
use atoll_node::identity::user;
use atoll_node::percent::encode;
use serde_json::{Map, Value};

/// What a page tells of itself.
#[derive(Default)]
pub(super) struct Head {
    /// Without the name of the site; empty on its first page.
    pub title: String,
    pub description: String,
    pub canonical: String,
    pub robots: Option<String>,
    pub open_graph: Map<String, Value>,
    pub json_ld: Option<Value>,
    /// The path of its own feeds, and what they are called.
    pub feeds: Option<(String, String)>,
    /// The path under which a heading of the site stands for this page.
    pub here: String,
    /// Counts a view of this post.
    pub counted: Option<String>,
    pub older: Option<String>,
    /// What was searched for.
    pub asked: String,
    pub who: Who,
}

/// Who reads, as the head of a page shows it.
#[derive(Default)]
pub(super) enum Who {
    /// Nothing is said of it.
    #[default]
    Unsaid,
    /// May sign in, and is led on to this path then.
    Stranger(String),
    /// By name.
    Member(String),
}

impl Who {
    pub fn of(call: &Call) -> Result<Self, Problem> {
        if call.actor.user.is_none() {
            let path = call.uri.path_and_query().map_or("/", |whole| whole.as_str());
            return Ok(Self::Stranger(path.to_owned()));
        }
        let me = user::me(&call.node, &call.actor)?;
        let name = me.opt_text(&user::DISPLAY_NAME).unwrap_or(me.text(&user::USERNAME));
        Ok(Self::Member(name.to_owned()))
    }

    /// Where to sign in, to be led on to `path`.
    pub fn sign_in_to(path: &str) -> String {
        if path == "/" {
            "/sign-in".to_owned()
        } else {
            format!("/sign-in?return_to={}", encode(path))
        }
    }
}

const FEEDS: [(&str, &str); 3] = [
    ("feed.xml", "application/rss+xml"),
    ("atom.xml", "application/atom+xml"),
    ("feed.json", "application/feed+json"),
];

pub(super) fn page(
    site: &Site,
    headings: &[Label],
    head: &Head,
    body: impl FnOnce(&mut Html),
) -> String {
    let mut html = Html::new();
    let language = if site.locale.is_empty() { "en" } else { &site.locale };
    html.open("html", &[("lang", language)]).open("head", &[]);
    write_head(&mut html, site, head);
    html.close("head").open("body", &[]);
    html.element("a", &[("class", "skip"), ("href", "#main")], "Skip to the text");
    banner(&mut html, site, headings, head);
    html.open("main", &[("id", "main")]);
    body(&mut html);
    html.close("main");
    foot(&mut html, site);
    html.close("body").close("html");
    html.into_string()
}

fn write_head(html: &mut Html, site: &Site, head: &Head) {
    html.void("meta", &[("charset", "utf-8")]);
    html.void("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
    let title = match head.title.as_str() {
        "" => site.name.clone(),
        title => format!("{title} · {}", site.name),
    };
    html.element("title", &[], &title);
    let named = [
        ("description", Some(head.description.as_str())),
        ("robots", head.robots.as_deref()),
        ("generator", Some("Atoll")),
    ];
    for (name, content) in named {
        if let Some(content) = content.filter(|content| !content.is_empty()) {
            html.void("meta", &[("name", name), ("content", content)]);
        }
    }
    html.void("meta", &[("name", "color-scheme"), ("content", "light dark")]);
    if !head.canonical.is_empty() {
        html.void("link", &[("rel", "canonical"), ("href", &head.canonical)]);
    }
    if let Some(older) = &head.older {
        html.void("link", &[("rel", "next"), ("href", older)]);
    }
    for (property, value) in &head.open_graph {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for content in values.iter().filter_map(Value::as_str) {
            html.void("meta", &[("property", property), ("content", content)]);
        }
    }
    let card =
        if head.open_graph.contains_key("og:image") { "summary_large_image" } else { "summary" };
    html.void("meta", &[("name", "twitter:card"), ("content", card)]);
    let own = head.feeds.iter().map(|(path, title)| (path.as_str(), title.as_str()));
    for (path, title) in own.chain([("", site.name.as_str())]) {
        for (file, kind) in FEEDS {
            let href = format!("{path}/{file}");
            let link = [("rel", "alternate"), ("type", kind), ("title", title), ("href", &href)];
            html.void("link", &link);
        }
    }
    let style = format!("/page.css?v={}", brand::style_name(&site.colours));
    html.void("link", &[("rel", "stylesheet"), ("href", &style)]);
    if let Some(json_ld) = &head.json_ld {
        html.json_ld(json_ld);
    }
    if head.counted.is_some() {
        html.open("script", &[("src", "/view.js"), ("defer", "")]).close("script");
    }
}

fn banner(html: &mut Html, site: &Site, headings: &[Label], head: &Head) {
    html.open("header", &[("class", "site")]);
    html.open("a", &[("class", "name"), ("href", "/")]);
    if let Some(logo) = &site.logo {
        html.void("img", &[("src", logo), ("alt", "")]);
    }
    html.open("span", &[("dir", "auto")]).text(&site.name).close("span").close("a");
    if !headings.is_empty() {
        html.open("nav", &[("aria-label", "Categories")]);
        for heading in headings {
            let href = path_of("categories", &heading.slug);
            let mut attributes = vec![("href", href.as_str())];
            if href == head.here {
                attributes.push(("aria-current", "page"));
            }
            html.element("a", &attributes, &heading.name);
        }
        html.close("nav");
    }
    html.open("form", &[("action", "/search"), ("role", "search")]);
    let field = [
        ("type", "search"),
        ("name", "q"),
        ("aria-label", "Search"),
        ("placeholder", "Search"),
        ("value", &head.asked),
    ];
    html.void("input", &field).close("form");
    reader(html, &head.who);
    html.close("header");
}

fn reader(html: &mut Html, who: &Who) {
    match who {
        Who::Unsaid => {}
        Who::Stranger(path) => {
            let href = Who::sign_in_to(path);
            html.element("a", &[("class", "who"), ("href", &href), ("rel", "nofollow")], "Sign in");
        }
        Who::Member(name) => {
            let form = [("class", "who"), ("action", "/sign-out"), ("method", "post")];
            html.open("form", &form).element("span", &[("dir", "auto")], name);
            html.element("button", &[], "Sign out").close("form");
        }
    }
}

fn foot(html: &mut Html, site: &Site) {
    html.open("footer", &[("class", "foot")]);
    html.element("span", &[("dir", "auto")], &site.name);
    html.open("span", &[]);
    for (file, name) in [("/feed.xml", "RSS"), ("/atom.xml", "Atom"), ("/feed.json", "JSON Feed")] {
        html.element("a", &[("href", file)], name);
    }
    html.close("span").close("footer");
}

/// `/tags/rust`.
pub(super) fn path_of(place: &str, slug: &str) -> String {
    format!("/{place}/{}", encode(slug))
}

/// A day as people read it: in words where the site speaks English, in figures elsewhere.
pub(super) fn day(site: &Site, at_ms: i64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let text = Moment(at_ms).to_string();
    let date = text.split('T').next().unwrap_or_default();
    if !site.locale.is_empty() && site.locale.split('-').next() != Some("en") {
        return date.to_owned();
    }
    let mut parts = date.split('-');
    let (Some(year), Some(month), Some(day)) = (parts.next(), parts.next(), parts.next()) else {
        return date.to_owned();
    };
    let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    month.map_or_else(|| date.to_owned(), |m| format!("{} {m} {year}", day.trim_start_matches('0')))
}
