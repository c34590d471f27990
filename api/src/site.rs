//! The site as the world addresses it: the root of its links, its name, where its posts are shown. Never takes an
//! address from a request that is not well formed: what is made of it stands in pages and feeds.

use crate::call::Call;
use crate::problem::Problem;
use atoll_node::content::post::{CANONICAL_URL, SLUG};
use atoll_node::identity::tenant::{COLOURS, DOMAIN, LOCALE, LOGO_URL, NAME, TENANT};
use atoll_node::{Node, percent};
use atoll_storage::read::Read;
use atoll_storage::{Id, Record};

#[derive(Clone)]
pub(crate) struct Site {
    /// Without a slash at its end.
    pub base: String,
    /// The tenant's.
    pub name: String,
    pub logo: Option<String>,
    /// As the tenant's settings hold them, the main one first.
    pub colours: String,
    /// A language tag, or empty.
    pub locale: String,
    /// When the tenant was made.
    pub since_ms: u64,
    post_path: String,
}

const MAX_HOST_BYTES: usize = 260;

/// Whether this host is the site's own and stands under https.
pub(crate) fn is_asked_by_https(node: &Node, tenant: Id, host: Option<&str>) -> bool {
    let base = Site::at(node, tenant, host).map(|site| site.base).unwrap_or_default();
    let authority = base.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    authority.is_some() && authority == host
}

impl Site {
    pub fn of(call: &Call) -> Result<Self, Problem> {
        Self::at(&call.node, call.tenant(), call.header("host"))
    }

    /// As a request for this host sees it.
    pub fn at(node: &Node, tenant: Id, host: Option<&str>) -> Result<Self, Problem> {
        let tenant = node.store.read(|reader| reader.get(&TENANT, tenant))?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let config = &node.config;
        let base = base_of(
            &config.public_url,
            tenant.opt_text(&DOMAIN),
            host.filter(|host| is_host(host)),
            &config.listen.to_string(),
        );
        Ok(Self {
            base,
            name: tenant.text(&NAME).to_owned(),
            logo: tenant.opt_text(&LOGO_URL).map(str::to_owned),
            colours: tenant.text(&COLOURS).to_owned(),
            locale: tenant.text(&LOCALE).to_owned(),
            since_ms: tenant.created_ms(),
            post_path: config.posts.path.clone(),
        })
    }

    /// Where a post is shown on this site, or what its author calls its first place.
    pub fn post_url(&self, post: &Record) -> String {
        if let Some(canonical) = post.opt_text(&CANONICAL_URL) {
            return canonical.to_owned();
        }
        self.own_url(post)
    }

    /// Where a post is shown on this site.
    pub fn own_url(&self, post: &Record) -> String {
        format!("{}{}", self.base, path_of(&self.post_path, post))
    }

    /// The path of that.
    pub fn page_path(&self, post: &Record) -> String {
        path_of(&self.post_path, post)
    }

    /// As [`Site::page_path`], of a post of which only this is known.
    pub fn page_path_to(&self, key: Id, slug: &str) -> String {
        path_to(&self.post_path, key, slug)
    }

    /// An address on this site as one that leads here from anywhere.
    pub fn absolute(&self, address: &str) -> String {
        if address.starts_with('/') && !address.starts_with("//") {
            format!("{}{address}", self.base)
        } else {
            address.to_owned()
        }
    }
}

/// A post's path, as the settings have it.
pub(crate) fn path_of(form: &str, post: &Record) -> String {
    path_to(form, post.key, post.text(&SLUG))
}

fn path_to(form: &str, key: Id, slug: &str) -> String {
    form.replace("{slug}", &percent::encode(slug)).replace("{id}", &key.to_string())
}

/// A tenant's own domain; else what the operator calls the public URL; else what the request called the host.
fn base_of(public_url: &str, domain: Option<&str>, host: Option<&str>, listen: &str) -> String {
    let scheme = if public_url.starts_with("https://") { "https" } else { "http" };
    if let Some(domain) = domain {
        let is_it = |host: &&str| host.split(':').next() == Some(domain);
        return format!("{scheme}://{}", host.filter(is_it).unwrap_or(domain));
    }
    if !public_url.is_empty() {
        return public_url.to_owned();
    }
    format!("http://{}", host.unwrap_or(listen))
}

fn is_host(text: &str) -> bool {
    let fits =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    !text.is_empty() && text.len() <= MAX_HOST_BYTES && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_links_is_what_people_call_the_site() {
        let listen = "127.0.0.1:8080";
        assert_eq!(base_of("", None, None, listen), "http://127.0.0.1:8080");
        assert_eq!(base_of("", None, Some("a.org:81"), listen), "http://a.org:81");
        assert_eq!(base_of("https://a.org", None, Some("b.org"), listen), "https://a.org");
        assert_eq!(base_of("https://a.org", Some("c.org"), None, listen), "https://c.org");
        assert_eq!(base_of("", Some("c.org"), Some("c.org:81"), listen), "http://c.org:81");
        assert_eq!(base_of("", Some("c.org"), Some("d.org"), listen), "http://c.org");
        assert!(is_host("a.org:80") && is_host("[::1]:80"));
        assert!(!is_host("a/b") && !is_host("a\"b") && !is_host(""));
    }
}
