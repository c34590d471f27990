//! Mail to users: letters are ordered in the transaction of what they tell, and sent by a job. An order names a letter
//! and a user and holds no secret: what a link needs is made when the letter is sent, and never logged.

mod defaults;
mod render;
mod smtp;
pub mod template;

pub use smtp::is_mailbox;

use crate::config;
use crate::error::{Error, Result};
use crate::identity::letter;
use crate::runtime::Node;
use atoll_storage::job::{self, Job};
use atoll_storage::{Id, Tx};
use smtp::Sender;
use std::sync::Arc;

pub const QUEUE: &str = "mail.send";
/// With more jobs than this waiting, no letter is ordered.
const MOST_WAITING: u64 = 10_000;
/// Of one tenant, so that there is room for the letters of others.
const MOST_WAITING_OF_A_TENANT: u64 = 2_000;

/// What a letter is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Letter {
    /// Proves the address that an account was made with.
    Verification,
    /// Proves the address that shall take the place of the present one.
    NewEmail,
    Reset,
    Welcome,
    PasswordChanged,
    /// To the address that was replaced.
    EmailChanged,
}

impl Letter {
    pub const ALL: &'static [Self] = &[
        Self::Verification,
        Self::NewEmail,
        Self::Reset,
        Self::Welcome,
        Self::PasswordChanged,
        Self::EmailChanged,
    ];
    /// For a field's closed list of values.
    pub const NAMES: &'static [&'static str] =
        &["verification", "new_email", "reset", "welcome", "password_changed", "email_changed"];

    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|letter| letter.name() == name)
    }

    /// What its template may name in double braces.
    pub const fn placeholders(self) -> &'static [&'static str] {
        match self {
            Self::Verification | Self::NewEmail | Self::Reset => {
                &["site", "name", "link", "token", "hours"]
            }
            Self::Welcome => &["site", "name", "link"],
            Self::PasswordChanged | Self::EmailChanged => &["site", "name"],
        }
    }
}

/// A letter to be sent: the payload of its job.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Order {
    pub tenant_id: Id,
    pub letter: Letter,
    /// None if whoever ordered it may not know whether there is such a user.
    pub user_id: Option<Id>,
    /// If it is not the user's own present one.
    pub address: Option<String>,
}

impl Order {
    pub fn to(letter: Letter, tenant_id: Id, user_id: Id) -> Self {
        Self { tenant_id, letter, user_id: Some(user_id), address: None }
    }

    /// Puts the letter into the queue, in the transaction of what it tells.
    ///
    /// # Errors
    /// `Store(Busy)` if too much waits already.
    pub fn enqueue(&self, tx: &mut Tx) -> Result<()> {
        let own = job::depth_in_turn_of(tx, self.tenant_id)?;
        if own >= MOST_WAITING_OF_A_TENANT || job::depth(tx)? >= MOST_WAITING {
            return Err(Error::Store(atoll_storage::Error::Busy));
        }
        let payload = serde_json::to_value(self).map_err(|e| Error::Internal(e.to_string()))?;
        let now_ms = tx.now_ms();
        tx.enqueue_in_turn_of(self.tenant_id, QUEUE, &payload, now_ms)?;
        Ok(())
    }
}

/// The way out; none if no server is set.
pub struct Mailer(Option<Sender>);

impl Mailer {
    pub fn open(settings: &config::Mail) -> Result<Self> {
        let server = settings.server.0.as_str();
        let sender = (!server.is_empty()).then(|| Sender::open(server, &settings.from));
        Ok(Self(sender.transpose()?))
    }
}

/// The work of the queue. A letter that fails is sent anew with a new link, and the old link is void.
pub(crate) async fn send(node: Arc<Node>, job: Job) -> Result<()> {
    let order: Order = serde_json::from_value(job.payload)
        .map_err(|error| Error::Internal(format!("not an order of a letter: {error}")))?;
    let name = order.letter.name();
    let Some(recipient) = letter::recipient(&node, &order)? else { return Ok(()) };
    let user = recipient.user.key;
    let Some(sender) = &node.mail.0 else {
        tracing::info!(letter = name, %user, "mail is off, so a letter was not sent: set mail.server");
        return Ok(());
    };
    let values = letter::values(&node, &order, &recipient).await?;
    let written = template::write(&node, order.tenant_id, order.letter, &values)?;
    sender.send(&recipient.address, written, node.new_id(), node.clock.now_ms()).await?;
    tracing::info!(letter = name, %user, "a letter was sent");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_read_back_from_their_names_and_an_order_holds_no_secret() {
        for letter in Letter::ALL {
            assert_eq!(Letter::parse(letter.name()), Some(*letter));
            let json = serde_json::to_value(letter).unwrap();
            assert_eq!(json, letter.name());
        }
        let order = Order::to(Letter::Reset, Id([1; 16]), Id([2; 16]));
        let json = serde_json::to_value(order).unwrap();
        let mut names: Vec<&String> = json.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["address", "letter", "tenant_id", "user_id"]);
    }
}
