//! Posts and what was said under them, as parts of a page. Nothing is read here; all of it was seen by whoever asks.

use super::html::Html;
use super::layout::{day, path_of};
use crate::moment::Moment;
use crate::site::Site;
use atoll_node::community::comment::{AUTHOR_ID, PARENT_ID, REMOVED, TEXT};
use atoll_node::content::feed::{Label, Labels};
use atoll_node::content::post::{
    CATEGORY_ID, COVER, FEATURED, Glance, MEMBERS, PINNED, PUBLISHED_AT, Rendered, TAG_IDS, TITLE,
    VISIBILITY, authors, is_live,
};
use atoll_node::search::Found;
use atoll_storage::{Id, Record, Value};
use std::collections::HashMap;

/// A post with all that a reader sees of it.
pub(super) fn post(html: &mut Html, site: &Site, post: &Record, text: &Rendered, labels: &Labels) {
    let id = post.key.to_string();
    html.open("article", &[("data-post", &id)]);
    html.open("header", &[("class", "head")]);
    if let Some(category) = post.id(&CATEGORY_ID).and_then(|key| labels.get(&key)) {
        html.open("p", &[("class", "kicker")]);
        linked(html, "categories", category).close("p");
    }
    html.element("h1", &[("class", "title"), ("dir", "auto")], post.text(&TITLE));
    if let Some(lead) = post.opt_text(&atoll_node::content::post::EXCERPT) {
        html.element("p", &[("class", "lead"), ("dir", "auto")], lead);
    }
    about(html, site, post, text.reading_minutes, labels);
    html.close("header");
    if let Some(cover) = post.opt_text(&COVER) {
        html.void("img", &[("class", "cover"), ("src", cover), ("alt", "")]);
    }
    html.open("div", &[("class", "text"), ("dir", "auto")]).sanitised(&text.html).close("div");
    let tags: Vec<&Label> =
        post.set(&TAG_IDS).filter_map(Value::as_id).filter_map(|key| labels.get(&key)).collect();
    if !tags.is_empty() {
        html.open("ul", &[("class", "tags"), ("aria-label", "Tags")]);
        for tag in tags {
            html.open("li", &[]);
            linked(html, "tags", tag).close("li");
        }
        html.close("ul");
    }
    html.close("article");
}

fn linked<'a>(html: &'a mut Html, place: &str, label: &Label) -> &'a mut Html {
    let href = path_of(place, &label.slug);
    html.element("a", &[("href", &href)], &label.name)
}

/// Who, when, how long.
fn about(html: &mut Html, site: &Site, post: &Record, minutes: usize, labels: &Labels) {
    html.open("p", &[("class", "about")]);
    mark(html, post);
    audience(html, post);
    let names: Vec<&Label> = authors(post).filter_map(|key| labels.get(&key)).collect();
    if !names.is_empty() {
        html.open("span", &[]);
        for (place, name) in names.iter().enumerate() {
            if place > 0 {
                html.text(", ");
            }
            linked(html, "authors", name);
        }
        html.close("span");
    }
    if let Some(at_ms) = post.int(&PUBLISHED_AT) {
        time(html, site, at_ms);
    }
    if minutes > 0 {
        html.element("span", &[], &format!("{minutes} min read"));
    }
    html.close("p");
}

fn time(html: &mut Html, site: &Site, at_ms: i64) {
    let exact = Moment(at_ms).to_string();
    html.element("time", &[("datetime", &exact)], &day(site, at_ms));
}

/// A list of posts, each with the address of its page.
pub(super) fn posts(
    html: &mut Html,
    site: &Site,
    posts: &[Record],
    glances: &[Glance],
    labels: &Labels,
) {
    if posts.is_empty() {
        html.element("p", &[("class", "none")], "Nothing has been published here yet.");
        return;
    }
    html.open("ul", &[("class", "posts")]);
    for (post, glance) in posts.iter().zip(glances) {
        html.open("li", &[]).open("article", &[]).open("div", &[("class", "words")]);
        html.open("h2", &[("dir", "auto")]);
        html.element("a", &[("href", &site.page_path(post))], post.text(&TITLE)).close("h2");
        if !glance.excerpt.is_empty() {
            html.element("p", &[("class", "excerpt"), ("dir", "auto")], &glance.excerpt);
        }
        about(html, site, post, glance.reading_minutes, labels);
        html.close("div");
        if let Some(cover) = post.opt_text(&COVER) {
            let thumb = [("class", "thumb"), ("src", cover), ("alt", ""), ("loading", "lazy")];
            html.void("img", &thumb);
        }
        html.close("article").close("li");
    }
    html.close("ul");
}

fn mark(html: &mut Html, post: &Record) {
    let name = match (post.flag(&PINNED), post.flag(&FEATURED)) {
        (true, _) => "Pinned",
        (_, true) => "Featured",
        _ => return,
    };
    html.element("span", &[("class", "mark")], name);
}

/// Whoever sees what others do not is told so.
fn audience(html: &mut Html, post: &Record) {
    if !is_live(post) {
        let name = if post.text(&VISIBILITY) == MEMBERS { "For members" } else { "Not public" };
        html.element("span", &[], name);
    }
}

/// What a search found.
pub(super) fn found(html: &mut Html, site: &Site, found: &Found) {
    let count = match found.total {
        0 => "Nothing was found.".to_owned(),
        1 => "One post was found.".to_owned(),
        total => format!("{total} posts were found."),
    };
    html.element("p", &[("class", "about"), ("role", "status")], &count);
    html.open("ul", &[("class", "posts")]);
    for found in &found.matches {
        let href = site.page_path_to(found.id, &found.slug);
        html.open("li", &[]).open("h2", &[("dir", "auto")]);
        html.element("a", &[("href", &href)], &found.title).close("h2");
        // The index's own HTML: all but its marks is escaped there.
        html.open("p", &[("class", "excerpt"), ("dir", "auto")]).sanitised(&found.snippet);
        html.close("p").close("li");
    }
    html.close("ul");
}

/// What was said: answers stand under what they answer. `total` may be more than is shown.
pub(super) fn comments(
    html: &mut Html,
    site: &Site,
    comments: &[Record],
    total: u64,
    names: &Labels,
) {
    if comments.is_empty() {
        return;
    }
    let title = if total == 1 { "1 comment".to_owned() } else { format!("{total} comments") };
    html.open("section", &[("class", "said")]).element("h2", &[], &title);
    let known: HashMap<Id, &Record> = comments.iter().map(|c| (c.key, c)).collect();
    let mut below: HashMap<Option<Id>, Vec<&Record>> = HashMap::new();
    for comment in comments {
        let parent = comment.id(&PARENT_ID).filter(|parent| known.contains_key(parent));
        below.entry(parent).or_default().push(comment);
    }
    thread(html, site, None, &mut below, names);
    if total > comments.len() as u64 {
        let rest = total - comments.len() as u64;
        html.element("p", &[("class", "none")], &format!("… and {rest} more."));
    }
    html.close("section");
}

/// Each is taken out where it is shown, so that a circle ends.
fn thread(
    html: &mut Html,
    site: &Site,
    parent: Option<Id>,
    below: &mut HashMap<Option<Id>, Vec<&Record>>,
    names: &Labels,
) {
    let Some(comments) = below.remove(&parent) else { return };
    html.open("ol", &[]);
    for comment in comments {
        html.open("li", &[]).open("p", &[("class", "about")]);
        let name = comment.id(&AUTHOR_ID).and_then(|key| names.get(&key));
        html.element("strong", &[], name.map_or("Somebody", |label| &label.name));
        time(html, site, comment.created_ms() as i64);
        html.close("p");
        if comment.flag(&REMOVED) {
            html.element("p", &[("class", "none")], "This comment was removed.");
        } else {
            html.element("p", &[("dir", "auto")], comment.text(&TEXT));
        }
        thread(html, site, Some(comment.key), below, names);
        html.close("li");
    }
    html.close("ol");
}
