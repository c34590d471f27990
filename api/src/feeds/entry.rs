//! One entry of a feed, made of a post: with absolute links, and with the whole text while there is room for it.

use super::xml::{escape, has_place};
use crate::problem::Problem;
use crate::site::Site;
use atoll_node::Node;
use atoll_node::content::feed::Feed;
use atoll_node::content::post::{self, CATEGORY_ID, COVER, PUBLISHED_AT, TAG_IDS, TITLE, authors};
use atoll_storage::{Id, Record, Value};

/// What the texts of one feed may take together; entries beyond it come with their excerpts alone.
const MAX_TEXT_BYTES: usize = 2 << 20;

pub(super) struct Entry {
    pub id: Id,
    pub url: String,
    pub title: String,
    pub excerpt: String,
    pub html: Option<String>,
    pub image: Option<String>,
    pub published_ms: i64,
    pub modified_ms: i64,
    pub authors: Vec<String>,
    pub labels: Vec<String>,
}

pub(super) async fn all_of(node: &Node, site: &Site, feed: &Feed) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::with_capacity(feed.posts.len());
    let mut room = MAX_TEXT_BYTES;
    for post in &feed.posts {
        let rendered = post::rendered(node, post).await?;
        let mut html = absolute(&rendered.html, &site.base);
        // The same in every form of the feed.
        html.retain(has_place);
        let fits = html.len() <= room;
        room = if fits { room - html.len() } else { 0 };
        let excerpt = rendered.excerpt;
        entries.push(Entry { html: fits.then_some(html), ..entry(site, feed, post, excerpt) });
    }
    Ok(entries)
}

fn entry(site: &Site, feed: &Feed, post: &Record, excerpt: String) -> Entry {
    let name = |id: Id| feed.labels.get(&id).map(|label| label.name.clone());
    let places = post.id(&CATEGORY_ID).into_iter();
    let labels = places.chain(post.set(&TAG_IDS).filter_map(Value::as_id));
    let published_ms = post.int(&PUBLISHED_AT).unwrap_or_default();
    Entry {
        id: post.key,
        url: site.post_url(post),
        title: post.text(&TITLE).to_owned(),
        excerpt,
        html: None,
        image: post.opt_text(&COVER).map(|cover| site.absolute(cover)),
        published_ms,
        modified_ms: published_ms.max(post.updated_ms() as i64),
        authors: authors(post).filter_map(name).collect(),
        labels: labels.filter_map(name).collect(),
    }
}

/// HTML of the sanitiser, with the addresses on this site made such that they lead here from anywhere.
fn absolute(html: &str, base: &str) -> String {
    let base = escape(base);
    let mut out = String::with_capacity(html.len() + html.len() / 16);
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (text, from_tag) = rest.split_at(at);
        let (tag, after) = from_tag.split_at(end_of_tag(from_tag));
        out.push_str(text);
        lengthen(tag, &base, &mut out);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Behind the `>` that stands in no attribute.
fn end_of_tag(text: &str) -> usize {
    let mut is_quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'>' if !is_quoted => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn lengthen(tag: &str, base: &str, out: &mut String) {
    const BEGINNINGS: [&str; 2] = [" href=\"/", " src=\"/"];
    let slash = |text: &str| {
        let ends = BEGINNINGS.iter().filter_map(|b| text.find(b).map(|at| at + b.len() - 1));
        ends.min()
    };
    let mut rest = tag;
    while let Some(at) = slash(rest) {
        let (before, path) = rest.split_at(at);
        out.push_str(before);
        if !path.starts_with("//") {
            out.push_str(base);
        }
        out.push('/');
        rest = &path[1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_on_the_site_are_made_absolute_and_nothing_else_changes() {
        let html = "<p>href=\"/x\" <a href=\"/a?b=&gt;\" title=\"> src=\">1 &lt; 2</a>\
                    <img src=\"/i.png\"><a href=\"//other.org/\">o</a><a href=\"#n\">n</a></p>";
        let wanted = "<p>href=\"/x\" <a href=\"http://a.org/a?b=&gt;\" title=\"> src=\">1 &lt; 2</a>\
                      <img src=\"http://a.org/i.png\"><a href=\"//other.org/\">o</a><a href=\"#n\">n</a></p>";
        assert_eq!(absolute(html, "http://a.org"), wanted);
        assert_eq!(absolute("no tag < at all", "http://a.org"), "no tag < at all");
    }
}
