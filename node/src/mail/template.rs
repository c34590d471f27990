//! What letters say: a default for each, which a tenant may replace by its own words. A tenant's template is checked
//! when it is written, so that a letter never fails for its words.

use super::{Letter, defaults, render};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, FieldError, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Event, Field, Id, Kind, Record};
use serde_json::json;

pub const NAME: Field =
    Field::text(1, "name").required().choices(Letter::NAMES).column().read_only();
pub const SUBJECT: Field = Field::text(2, "subject").required().max(200);
pub const TEXT: Field =
    Field::text(3, "text").required().max(20_000).doc("For those who read no HTML.");
pub const HTML: Field =
    Field::text(4, "html").required().max(50_000).doc("Values in it are escaped.");

pub static MAIL_TEMPLATE: Kind = Kind {
    fields: &[NAME, SUBJECT, TEXT, HTML],
    doc: "A tenant's own words for a letter.",
    ..Kind::new(13, "mail_template", "mail_templates", "identity")
};

/// A template as it stands: the tenant's own, or the default.
#[derive(Clone, Debug)]
pub struct Template {
    pub letter: Letter,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub is_default: bool,
}

/// A letter with all values in their places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    pub subject: String,
    pub text: String,
    pub html: String,
}

impl Template {
    fn default_of(letter: Letter) -> Self {
        let words = defaults::of(letter);
        Self {
            letter,
            subject: words.subject.to_owned(),
            text: words.text.to_owned(),
            html: words.html.to_owned(),
            is_default: true,
        }
    }

    fn of(letter: Letter, record: &Record) -> Self {
        Self {
            letter,
            subject: record.text(&SUBJECT).to_owned(),
            text: record.text(&TEXT).to_owned(),
            html: record.text(&HTML).to_owned(),
            is_default: false,
        }
    }

    fn with(&self, values: &[(&'static str, String)]) -> Result<Written, String> {
        Ok(Written {
            subject: render::line(&self.subject, values)?,
            text: render::text(&self.text, values)?,
            html: render::html(&self.html, values)?,
        })
    }
}

pub(crate) fn key_of(tenant: Id, letter: Letter) -> Id {
    Id::natural(&[b"mail_template", &tenant.0, letter.name().as_bytes()])
}

fn read(reader: &impl Read, tenant: Id, letter: Letter) -> atoll_storage::Result<Template> {
    let record = reader.get(&MAIL_TEMPLATE, key_of(tenant, letter))?;
    Ok(record.map_or_else(|| Template::default_of(letter), |r| Template::of(letter, &r)))
}

/// The letter with its values. A tenant's template that lacks one, since it came from a node of another release, gives
/// way to the default.
pub(super) fn write(
    node: &Node,
    tenant: Id,
    letter: Letter,
    values: &[(&'static str, String)],
) -> Result<Written> {
    let own = node.store.read(|reader| read(reader, tenant, letter))?;
    own.with(values)
        .or_else(|_| Template::default_of(letter).with(values))
        .map_err(|why| Error::Internal(format!("the letter {} {why}", letter.name())))
}

/// All letters, each as it stands.
pub fn list(node: &Node, actor: &Actor) -> Result<Vec<Template>> {
    actor.require(Permission::UsersAdminister)?;
    let all = |letter: &Letter| node.store.read(|reader| read(reader, actor.tenant, *letter));
    Ok(Letter::ALL.iter().map(all).collect::<atoll_storage::Result<_>>()?)
}

pub fn get(node: &Node, actor: &Actor, letter: Letter) -> Result<Template> {
    actor.require(Permission::UsersAdminister)?;
    Ok(node.store.read(|reader| read(reader, actor.tenant, letter))?)
}

/// # Errors
/// `Invalid` for a field that is missing, too long, or names what the letter has no value for (`unknown_name`).
pub async fn put(node: &Node, actor: &Actor, letter: Letter, changes: Changes) -> Result<Template> {
    actor.require(Permission::UsersAdminister)?;
    kinds::validate(&MAIL_TEMPLATE, &changes, true)?;
    check_names(letter, &changes)?;
    let actor = *actor;
    let (tenant, user) = (actor.tenant, actor.user);
    let record = node
        .store
        .write(move |tx| {
            let key = key_of(tenant, letter);
            let before = tx.get(&MAIL_TEMPLATE, key)?;
            let record = match &before {
                Some(_) => tx.edit(&MAIL_TEMPLATE, key, changes)?,
                None => {
                    let changes = changes.set(&NAME, letter.name());
                    tx.create(&MAIL_TEMPLATE, tenant, key, changes)?
                }
            };
            let event_type = "cortex.mail_template.updated";
            let payload = json!({ "name": letter.name() });
            tx.emit(&Event { event_type, tenant, user, payload })?;
            audit::note(tx, &actor, "mail_template.updated", before.as_ref(), Some(&record))?;
            Ok::<_, Error>(record)
        })
        .await?;
    Ok(Template::of(letter, &record))
}

/// Back to the default.
///
/// # Errors
/// `NotFound` if the tenant has no words of its own.
pub async fn remove(node: &Node, actor: &Actor, letter: Letter) -> Result<()> {
    actor.require(Permission::UsersAdminister)?;
    let actor = *actor;
    let (tenant, user) = (actor.tenant, actor.user);
    node.store
        .write(move |tx| {
            let key = key_of(tenant, letter);
            let before = tx.get(&MAIL_TEMPLATE, key)?.ok_or(Error::NotFound("mail template"))?;
            tx.remove(&MAIL_TEMPLATE, key)?;
            audit::note(tx, &actor, "mail_template.deleted", Some(&before), None)?;
            let event_type = "cortex.mail_template.deleted";
            let payload = json!({ "name": letter.name() });
            tx.emit(&Event { event_type, tenant, user, payload })?;
            Ok(())
        })
        .await
}

/// The letter as it would be, with made-up values; `changes` stand over what is there. Sends nothing.
pub fn preview(node: &Node, actor: &Actor, letter: Letter, changes: &Changes) -> Result<Written> {
    let mut template = get(node, actor, letter)?;
    kinds::validate(&MAIL_TEMPLATE, changes, false)?;
    check_names(letter, changes)?;
    let parts = [
        (&SUBJECT, &mut template.subject),
        (&TEXT, &mut template.text),
        (&HTML, &mut template.html),
    ];
    for (field, part) in parts {
        if let Some(text) = changes.get(field).and_then(|value| value.as_text()) {
            text.clone_into(part);
        }
    }
    template
        .with(&SAMPLE.map(|(name, value)| (name, value.to_owned())))
        .map_err(|why| Error::Internal(format!("the letter {} {why}", letter.name())))
}

const SAMPLE: [(&str, &str); 5] = [
    ("site", "Example"),
    ("name", "Ada Lovelace"),
    ("link", "https://example.org/page?token=abc&more=1"),
    ("token", "abc"),
    ("hours", "24"),
];

fn check_names(letter: Letter, changes: &Changes) -> Result<()> {
    let mut errors = Vec::new();
    for field in [&SUBJECT, &TEXT, &HTML] {
        let Some(text) = changes.get(field).and_then(|value| value.as_text()) else { continue };
        if let Err(why) = render::check(text, letter.placeholders()) {
            errors.push(FieldError::new(field.name, "unknown_name", why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_names_only_what_its_letter_has() {
        for letter in Letter::ALL {
            let words = Template::default_of(*letter);
            for part in [&words.subject, &words.text, &words.html] {
                assert_eq!(render::check(part, letter.placeholders()), Ok(()), "{letter:?}");
            }
            let sample = SAMPLE.map(|(name, value)| (name, value.to_owned()));
            let written = words.with(&sample).unwrap();
            assert!(written.html.contains("Ada Lovelace") && written.text.contains("Example"));
        }
    }
}
