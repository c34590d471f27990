//! Feeds of what is published, of all of it or of a tag, a category or an author; the sitemap; what robots may read.
//! They tell everybody the same, whoever is signed in.

mod entry;
mod kept;
mod write;
mod xml;

pub(crate) use kept::Kept;

use crate::call::Call;
use crate::moment::Moment;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Public;
use crate::route::{Answer, Route, get};
use crate::site::Site;
use atoll_node::content::feed::{self, Of};
use atoll_node::content::post::NOINDEX;
use atoll_storage::Record;
use axum::http::header::{CACHE_CONTROL, LAST_MODIFIED};
use kept::Made;
use write::{Form, Head};
use xml::Xml;

pub fn routes() -> Vec<Route> {
    let of_all = "The latest posts, with their whole texts.";
    let of_tag = "The latest posts that carry a tag, by its id or slug.";
    let of_category = "The latest posts of a category and of all under it, by its id or slug.";
    let of_author = "The latest posts of an author, by id or username.";
    vec![
        get("/feed.xml", Public, feed).doc(of_all),
        get("/atom.xml", Public, feed).doc(of_all),
        get("/feed.json", Public, feed).doc(of_all),
        get("/tags/{name}/feed.xml", Public, feed).doc(of_tag),
        get("/tags/{name}/atom.xml", Public, feed).doc(of_tag),
        get("/tags/{name}/feed.json", Public, feed).doc(of_tag),
        get("/categories/{name}/feed.xml", Public, feed).doc(of_category),
        get("/categories/{name}/atom.xml", Public, feed).doc(of_category),
        get("/categories/{name}/feed.json", Public, feed).doc(of_category),
        get("/authors/{name}/feed.xml", Public, feed).doc(of_author),
        get("/authors/{name}/atom.xml", Public, feed).doc(of_author),
        get("/authors/{name}/feed.json", Public, feed).doc(of_author),
        get("/sitemap.xml", Public, sitemap).doc(
            "All public posts that search engines may list; an index of sitemaps if they are many.",
        ),
        get("/sitemaps/{part}", Public, sitemap_part)
            .doc("One part of the sitemap: 1.xml is the first."),
        get("/robots.txt", Public, robots).doc("What robots may read, and where the sitemap is."),
    ]
}

/// Addresses of one sitemap, as the protocol has it.
const SITEMAP_ADDRESSES: u64 = 50_000;
const SITEMAP_SPACE: (&str, &str) = ("xmlns", "http://www.sitemaps.org/schemas/sitemap/0.9");
const XML: &str = "application/xml; charset=utf-8";

async fn feed(call: Call) -> Answer {
    let (commit, name) = asked(&call)?;
    if let Some(made) = call.app.feeds.get(&name, commit) {
        return sent(made);
    }
    let site = Site::of(&call)?;
    let mut parts = call.uri.path().split('/').skip(1);
    let of = match parts.next() {
        Some("tags") => Of::Tag(call.path("name")),
        Some("categories") => Of::Category(call.path("name")),
        Some("authors") => Of::Author(call.path("name")),
        _ => Of::All,
    };
    let form = Form::of(call.uri.path().rsplit('/').next().unwrap_or_default());
    let found = feed::latest(&call.node, call.tenant(), of)?;
    let entries = entry::all_of(&call.node, &site, &found).await?;
    let modified_ms = entries.iter().map(|entry| entry.modified_ms).max();
    let head = Head {
        title: match &found.heading {
            Some(heading) => format!("{}: {}", site.name, heading.label.name),
            None => site.name.clone(),
        },
        home: format!("{}/", site.base),
        url: format!("{}{}", site.base, call.uri.path()),
        modified_ms: modified_ms.unwrap_or(site.since_ms as i64),
        name: site.name,
    };
    let made = Made {
        content_type: form.content_type(),
        body: write::write(form, &head, &entries).into(),
        modified: Moment(head.modified_ms).http_date(),
    };
    call.app.feeds.put(name, commit, made.clone());
    sent(made)
}

/// The commit that an answer is good for, and the name under which it is kept: of the tenant, the path, and the root
/// of the links in it.
fn asked(call: &Call) -> Result<(u64, String), Problem> {
    // Before anything is read: what is newer than its number is made again too early, and never too late.
    let commit = *call.node.store.subscribe().borrow();
    let base = Site::of(call)?.base;
    Ok((commit, format!("{} {} {base}", call.tenant(), call.uri.path())))
}

fn sent(made: Made) -> Answer {
    let reply = Reply::text(made.content_type, made.body)?;
    let reply = reply.header(CACHE_CONTROL, "public, max-age=300");
    Ok(if made.modified.is_empty() { reply } else { reply.header(LAST_MODIFIED, made.modified) })
}

async fn sitemap(call: Call) -> Answer {
    let parts = feed::live_count(&call.node, call.tenant())?.div_ceil(SITEMAP_ADDRESSES);
    if parts <= 1 {
        return addresses(&call, 0).await;
    }
    let base = Site::of(&call)?.base;
    sent(Made { content_type: XML, body: index(&base, parts).into(), modified: String::new() })
}

async fn sitemap_part(call: Call) -> Answer {
    let parts = feed::live_count(&call.node, call.tenant())?.div_ceil(SITEMAP_ADDRESSES);
    let number =
        call.path("part").strip_suffix(".xml").and_then(|number| number.parse::<u64>().ok());
    match number {
        Some(number @ 1..) if number <= parts.max(1) => addresses(&call, number - 1).await,
        _ => Err(Problem::not_found("part of the sitemap")),
    }
}

fn index(base: &str, parts: u64) -> String {
    let mut xml = Xml::new();
    xml.open("sitemapindex", &[SITEMAP_SPACE]);
    for part in 1..=parts {
        let address = format!("{base}/sitemaps/{part}.xml");
        xml.open("sitemap", &[]).text("loc", &address).close("sitemap");
    }
    xml.close("sitemapindex");
    xml.into_string()
}

/// One sitemap. It may hold many posts, so it is made on the pool.
async fn addresses(call: &Call, part: u64) -> Answer {
    let (commit, name) = asked(call)?;
    if let Some(made) = call.app.feeds.get(&name, commit) {
        return sent(made);
    }
    let (node, tenant, site) = (call.node.clone(), call.tenant(), Site::of(call)?);
    let work = move || {
        let mut xml = Xml::new();
        xml.open("urlset", &[SITEMAP_SPACE]);
        let mut modified_ms = site.since_ms;
        feed::each_live(&node, tenant, part, SITEMAP_ADDRESSES, |post| {
            if !post.flag(&NOINDEX) {
                modified_ms = modified_ms.max(post.updated_ms());
                address(&mut xml, &site, post);
            }
        })?;
        xml.close("urlset");
        let body = xml.into_string().into();
        let modified = Moment::of(modified_ms).http_date();
        Ok::<_, atoll_node::Error>(Made { content_type: XML, body, modified })
    };
    let made = call.node.run_on_pool(work).await??;
    call.app.feeds.put(name, commit, made.clone());
    sent(made)
}

fn address(xml: &mut Xml, site: &Site, post: &Record) {
    xml.open("url", &[])
        .text("loc", &site.own_url(post))
        .text("lastmod", &Moment::of(post.updated_ms()).to_string())
        .close("url");
}

async fn robots(call: Call) -> Answer {
    let base = Site::of(&call)?.base;
    let text = format!(
        "User-agent: *\nDisallow: /api/\nDisallow: /preview/\n\nSitemap: {base}/sitemap.xml\n"
    );
    let reply = Reply::text("text/plain; charset=utf-8", text)?;
    Ok(reply.header(CACHE_CONTROL, "public, max-age=300"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_each_part() {
        let index = index("http://a.org", 2);
        assert_eq!(index.matches("<loc>").count(), 2);
        assert!(index.contains("<loc>http://a.org/sitemaps/2.xml</loc>"), "{index}");
    }
}
