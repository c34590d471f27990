//! Who gets a letter, and what stands in it. A link's token is made here, when the letter is sent, and its hash kept;
//! an account that is gone, disabled or needs the letter no more gets none.

use super::{email, reset, tenant, user};
use crate::error::{Error, Result};
use crate::mail::{Letter, Order};
use crate::runtime::Node;
use atoll_storage::Record;
use atoll_storage::read::Read;

pub(crate) struct Recipient {
    pub user: Record,
    pub address: String,
}

pub(crate) fn recipient(node: &Node, order: &Order) -> Result<Option<Recipient>> {
    let found = node.store.read(|reader| match (order.user_id, &order.address) {
        (Some(id), _) => reader.get(&user::USER, id),
        (None, Some(address)) => user::by_login(reader, order.tenant_id, address),
        (None, None) => Ok(None),
    })?;
    let found = found.filter(|user| user.tenant == order.tenant_id && user::is_active(user));
    Ok(found.and_then(|user| {
        let address = address_of(order, &user)?.to_owned();
        Some(Recipient { user, address })
    }))
}

fn address_of<'a>(order: &'a Order, user: &'a Record) -> Option<&'a str> {
    let own = || Some(user.wanted(&user::EMAIL)).filter(|address| !address.is_empty());
    match order.letter {
        Letter::Verification if email::is_verified(user) => None,
        Letter::NewEmail => user.opt_text(&user::NEW_EMAIL),
        Letter::EmailChanged => order.address.as_deref(),
        _ => own(),
    }
}

/// The values for the letter's template.
pub(crate) async fn values(
    node: &Node,
    order: &Order,
    recipient: &Recipient,
) -> Result<Vec<(&'static str, String)>> {
    let tenant = node.store.read(|reader| reader.get(&tenant::TENANT, order.tenant_id))?;
    let tenant = tenant.ok_or(Error::NotFound("tenant"))?;
    let user = &recipient.user;
    let mut values =
        vec![("site", tenant.text(&tenant::NAME).to_owned()), ("name", name_of(user).to_owned())];
    let (page, token, lifetime_ms) = match order.letter {
        Letter::Verification | Letter::NewEmail => {
            let token = email::issue(node, user, &recipient.address).await?;
            ("/verify-email", token, email::LIFETIME_MS)
        }
        Letter::Reset => {
            let token = reset::issue(node, user, &recipient.address).await?;
            ("/reset-password", token, reset::LIFETIME_MS)
        }
        Letter::Welcome => {
            values.push(("link", link(node, &tenant, "/sign-in", &[])?));
            return Ok(values);
        }
        Letter::PasswordChanged | Letter::EmailChanged => return Ok(values),
    };
    values.push(("link", link(node, &tenant, page, &[("token", token.as_str())])?));
    values.push(("token", token));
    values.push(("hours", (lifetime_ms / 3_600_000).to_string()));
    Ok(values)
}

/// Somebody who signs up with a foreign address chooses no words of the letter that goes there, so a display name
/// counts only once the address is proved.
fn name_of(user: &Record) -> &str {
    let display = user.opt_text(&user::DISPLAY_NAME).filter(|_| email::is_verified(user));
    display.unwrap_or_else(|| user.text(&user::USERNAME))
}

/// A page of the tenant's site: at its own domain if it has one, else at the node's address, where the tenant is named
/// unless it is the default one.
fn link(node: &Node, tenant: &Record, page: &str, query: &[(&str, &str)]) -> Result<String> {
    let base = site(node, tenant);
    let mut query = query.to_vec();
    if domain_of(tenant).is_none()
        && !node.store.read(|reader| Ok(tenant::is_default(reader, tenant.key)))??
    {
        query.push(("tenant", tenant.text(&tenant::SLUG)));
    }
    // Tokens and slugs need no escaping in a query.
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let joint = if query.is_empty() { "" } else { "?" };
    Ok(format!("{base}{page}{joint}{}", query.join("&")))
}

/// Where browsers find the tenant, without a slash at its end.
pub(super) fn site(node: &Node, tenant: &Record) -> String {
    let base = match node.config.public_url.as_str() {
        "" => format!("http://{}", node.config.listen),
        url => url.to_owned(),
    };
    domain_of(tenant).map_or_else(|| base.clone(), |domain| at_domain(&base, domain))
}

/// None while another tenant holds it.
fn domain_of(tenant: &Record) -> Option<&str> {
    tenant.opt_text(&tenant::DOMAIN).filter(|domain| *domain == tenant.wanted(&tenant::DOMAIN))
}

/// The same scheme and port with another host.
fn at_domain(base: &str, domain: &str) -> String {
    let (scheme, rest) = base.split_once("://").unwrap_or(("http", base));
    let authority = rest.split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    match port.filter(|port| port.parse::<u16>().is_ok()) {
        Some(port) => format!("{scheme}://{domain}:{port}"),
        None => format!("{scheme}://{domain}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_takes_the_place_of_the_host() {
        assert_eq!(at_domain("https://atoll.org", "north.org"), "https://north.org");
        assert_eq!(at_domain("http://[::1]:8080", "north.org"), "http://north.org:8080");
        assert_eq!(at_domain("http://[::1]", "north.org"), "http://north.org");
        assert_eq!(at_domain("https://atoll.org/base", "north.org"), "https://north.org");
    }
}
