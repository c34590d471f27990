//! What search engines and social networks are told of a post: title, description, canonical address, Open Graph,
//! JSON-LD. Made of the post and the site; nothing is stored.

use crate::moment::Moment;
use crate::site::Site;
use atoll_node::content::post::{
    COVER, META_DESCRIPTION, META_TITLE, NOINDEX, PUBLISHED_AT, TITLE, is_live,
};
use atoll_storage::Record;
use serde_json::{Map, Value, json};

/// `authors`: their names.
pub(crate) fn of(site: &Site, post: &Record, excerpt: &str, authors: &[String]) -> Value {
    let title = post.opt_text(&META_TITLE).unwrap_or(post.text(&TITLE));
    let description = post.opt_text(&META_DESCRIPTION).unwrap_or(excerpt);
    let canonical = site.post_url(post);
    let image = post.opt_text(&COVER).map(|cover| site.absolute(cover));
    let published = post.int(&PUBLISHED_AT).map(|at_ms| Moment(at_ms).to_string());
    let modified = Moment::of(post.updated_ms()).to_string();
    let is_indexed = is_live(post) && !post.flag(&NOINDEX);
    json!({
        "title": title,
        "description": description,
        "canonical": canonical,
        "robots": if is_indexed { "index, follow" } else { "noindex, nofollow" },
        "open_graph": filled(json!({
            "og:type": "article",
            "og:site_name": site.name,
            "og:title": title,
            "og:description": description,
            "og:url": canonical,
            "og:image": image,
            "article:published_time": published,
            "article:modified_time": modified,
            "article:author": authors,
        })),
        "json_ld": filled(json!({
            "@context": "https://schema.org",
            "@type": "BlogPosting",
            "headline": title,
            "description": description,
            "mainEntityOfPage": { "@type": "WebPage", "@id": canonical },
            "image": image,
            "datePublished": published,
            "dateModified": modified,
            "author": authors.iter().map(|n| json!({ "@type": "Person", "name": n })).collect::<Value>(),
            "publisher": { "@type": "Organization", "name": site.name },
        })),
    })
}

/// Without what is not known.
fn filled(object: Value) -> Map<String, Value> {
    let is_known = |value: &Value| match value {
        Value::Null => false,
        Value::Array(all) => !all.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    let Value::Object(fields) = object else { return Map::new() };
    fields.into_iter().filter(|(_, value)| is_known(value)).collect()
}
