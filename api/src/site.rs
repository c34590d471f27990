//! The site as the world addresses it: the root of its links, its name, where its posts are shown. Never takes an
//! address from a request that is not well formed: what is made of it stands in pages and feeds.

use crate::call::Call;
use crate::params;
use crate::problem::Problem;
use atoll_node::content::post::{CANONICAL_URL, SLUG};
use atoll_node::identity::tenant::{DOMAIN, NAME, TENANT};
use atoll_storage::Record;
use atoll_storage::read::Read;

pub(crate) struct Site {
    /// Without a slash at its end.
    pub base: String,
    /// The tenant's.
    pub name: String,
    /// When the tenant was made.
    pub since_ms: u64,
    post_path: String,
}

const MAX_HOST_BYTES: usize = 260;

impl Site {
    pub fn of(call: &Call) -> Result<Self, Problem> {
        let tenant = call.node.store.read(|reader| reader.get(&TENANT, call.tenant()))?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let config = &call.node.config;
        let base = base_of(
            &config.public_url,
            tenant.opt_text(&DOMAIN),
            call.header("host").filter(|host| is_host(host)),
            &config.listen.to_string(),
        );
        let (name, post_path) = (tenant.text(&NAME).to_owned(), config.posts.path.clone());
        Ok(Self { base, name, since_ms: tenant.created_ms(), post_path })
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
        let path = self.post_path.replace("{slug}", &params::encode(post.text(&SLUG)));
        format!("{}{}", self.base, path.replace("{id}", &post.key.to_string()))
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
