//! The one place that speaks SMTP, by lettre. Sends a letter or says why not; repeating is the queue's work.
//! Never sends a password over a link that others can read, and never puts one into an error.

use super::template::Written;
use crate::error::{Error, Result};
use atoll_storage::Id;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

/// For each step of a conversation with the server.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Sender {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Sender {
    pub(super) fn open(server: &str, from: &str) -> Result<Self> {
        let wrong = |name: &str| {
            Error::Internal(format!("the setting {name} is not understood: see docs/CONFIG.md"))
        };
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&with_tls(server))
            .map_err(|_| wrong("mail.server"))?;
        let transport = builder.timeout(Some(TIMEOUT)).build();
        Ok(Self { transport, from: from.parse::<Mailbox>().map_err(|_| wrong("mail.from"))? })
    }

    pub(super) async fn send(&self, to: &str, written: Written, id: Id, now_ms: u64) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Internal(format!("a letter could not be sent: {error}"))
        };
        let to: Address = to.parse::<Address>().map_err(|error| failed(&error))?;
        let by_itself = HeaderName::new_from_ascii_str("Auto-Submitted");
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .date(UNIX_EPOCH + Duration::from_millis(now_ms))
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .raw_header(HeaderValue::new(by_itself, "auto-generated".to_owned()))
            .subject(written.subject)
            .multipart(MultiPart::alternative_plain_html(written.text, written.html))
            .map_err(|error| failed(&error))?;
        self.transport.send(message).await.map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// An address with or without a name before it.
pub fn is_mailbox(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.parse::<Mailbox>().is_ok()
}

/// `smtp://` without a word on encryption: needed with a password, else taken where it is offered. On this machine,
/// where nobody listens, there is none.
fn with_tls(server: &str) -> String {
    let Some(rest) = server.strip_prefix("smtp://") else { return server.to_owned() };
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if is_this_machine(host) || query.split('&').any(|pair| pair.starts_with("tls=")) {
        return server.to_owned();
    }
    let mode = if login.is_empty() { "opportunistic" } else { "required" };
    let joint = if query.is_empty() { "?" } else { "&" };
    format!("{}{joint}tls={mode}", server.trim_end_matches('?'))
}

fn is_this_machine(host: &str) -> bool {
    let host = host.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_over_an_encrypted_link_only() {
        assert_eq!(with_tls("smtp://a:b@mail.org:587"), "smtp://a:b@mail.org:587?tls=required");
        assert_eq!(with_tls("smtp://mail.org:25"), "smtp://mail.org:25?tls=opportunistic");
        assert!(with_tls("smtp://a:b@localhost.org").ends_with("?tls=required"));
        assert!(with_tls("smtp://a:b@127.0.0.1.org:25").ends_with("?tls=required"));
        for same in [
            "smtps://a:b@mail.org",
            "smtp://localhost:25",
            "smtp://127.0.0.1:2525",
            "smtp://a:b@[::1]:25",
            "smtp://m.org?tls=required",
        ] {
            assert_eq!(with_tls(same), same);
        }
    }

    #[test]
    fn every_form_of_server_opens() {
        let from = "Atoll <atoll@example.org>";
        for server in [
            "smtp://127.0.0.1:2525",
            "smtp://mail.example.org:25",
            "smtp://ada:se%40cret@mail.example.org:587",
            "smtps://ada:secret@mail.example.org",
        ] {
            assert!(Sender::open(server, from).is_ok(), "{server}");
        }
        let refused = Sender::open("smtp://a:secret@mail.org?tls=never", from).err().unwrap();
        assert!(!refused.to_string().contains("secret"));
        assert!(is_mailbox(from) && is_mailbox("atoll@localhost"));
        for bad in ["", "atoll", "a@b\r\nBcc: eve@x"] {
            assert!(!is_mailbox(bad), "{bad}");
        }
    }
}
