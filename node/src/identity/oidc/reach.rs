//! Which addresses a node asks for a provider. Those who choose a tenant's provider need not be those who run the node,
//! so what stands inside the operator's network is out of their reach: by its name, by its address, and by a public name
//! that leads to such an address. The operator names the exceptions.

use crate::runtime::Node;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// Host names and addresses in lower case: these may be internal, and without encryption.
    internal: Arc<[String]>,
}

impl Reach {
    pub fn of(node: &Node) -> Self {
        Self { internal: node.config.oidc.internal_hosts.clone().into() }
    }

    fn names(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        self.internal.iter().any(|named| named.eq_ignore_ascii_case(host))
    }

    /// # Errors
    /// Why the URL is not asked.
    pub fn check(&self, url: &str) -> Result<Url, &'static str> {
        let parsed = Url::parse(url).map_err(|_| "it is no URL")?;
        let host = parsed.host_str().ok_or("it names no host")?.to_owned();
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("it has a login in it");
        }
        if self.names(&host) && matches!(parsed.scheme(), "http" | "https") {
            return Ok(parsed);
        }
        if parsed.scheme() != "https" {
            return Err("it is not encrypted");
        }
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !is_public(address) => Err("its address is internal"),
            _ => Ok(parsed),
        }
    }
}

/// Names are looked up as usual, and what is internal is left out.
impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, is_named) = (name.as_str().to_owned(), self.names(name.as_str()));
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let fit: Vec<SocketAddr> =
                found.filter(|address| is_named || is_public(address.ip())).collect();
            if fit.is_empty() {
                return Err(format!("{host} has no public address").into());
            }
            Ok(Box::new(fit.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the open internet. What is not known to be one is none.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || matches!(
            (a, b, c),
            (0 | 224.., _, _) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _)
        );
    !is_special
}

/// Of those that are given out, less what carries an IPv4 address in it.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_given_out = (0x2000..0x4000).contains(&a);
    is_given_out && !matches!((a, b), (0x2002, _) | (0x2001, 0 | 0x0db8)) && a != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_out_of_reach() {
        let reach = Reach::default();
        for good in
            ["https://id.example.org/realm", "https://8.8.8.8", "https://[2606:4700::1]:8443/x"]
        {
            assert!(reach.check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "https://",
            "ftp://id.example.org",
            "http://id.example.org",
            "https://ada:x@id.example.org",
            "https://127.0.0.1",
            "https://2130706433",
            "https://0x7f.1",
            "https://10.1.2.3:9000/x",
            "https://172.16.0.1",
            "https://192.168.1.1",
            "https://169.254.169.254/latest",
            "https://100.64.0.1",
            "https://0.0.0.0",
            "https://255.255.255.255",
            "https://[::1]",
            "https://[::ffff:10.0.0.1]",
            "https://[fd00::1]",
            "https://[fe80::1]",
            "https://[64:ff9b::a00:1]",
            "https://[2002:a00:1::]",
        ] {
            assert!(reach.check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_operator_names_may_be_inside_and_nothing_beside_it() {
        let reach = Reach { internal: vec!["127.0.0.1".to_owned(), "id.lan".to_owned()].into() };
        for good in ["http://127.0.0.1:9000", "https://127.0.0.1", "http://ID.lan/realm"] {
            assert!(reach.check(good).is_ok(), "{good}");
        }
        for bad in ["http://127.0.0.2:9000", "http://x.id.lan", "file://127.0.0.1/etc/passwd"] {
            assert!(reach.check(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_followed() {
        let ask = |reach: Reach| async move {
            let name: Name = "localhost".parse().map_err(|_| ())?;
            reach.resolve(name).await.map(drop).map_err(|_| ())
        };
        assert_eq!(ask(Reach::default()).await, Err(()));
        let named = Reach { internal: vec!["localhost".to_owned()].into() };
        assert_eq!(ask(named).await, Ok(()));
    }
}
