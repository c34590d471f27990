//! An archive of a tenant back into a node: records keep their ids, names, dates and authors. Where somebody here has
//! a name already, what the archive says of its own holder is said of him. Nobody gets a right above that of whoever
//! imports, and nothing that was changed here since is taken back.

use super::Unpacking;
use super::line::{self, Part};
use crate::access::{Actor, Permission, Role};
use crate::content::import::entry::Item;
use crate::content::import::intake::Intake;
use crate::content::import::report::{Done, Fate};
use crate::content::post::{self, BODY, POST};
use crate::content::version::{self, HEADS, POST_VERSION};
use crate::error::{Error, Result};
use crate::identity::{role, tenant, user};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::read::Read as _;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Event, Field, Id, Merge, Record, Value};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A body as JSON that escapes much of it, and what stands beside it.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Who stands here for records of the archive, if not they themselves.
type StandIns = Arc<Mutex<HashMap<Id, Id>>>;

/// One line of an archive.
#[derive(Clone)]
pub(crate) struct Restored {
    pub source: String,
    pub size_bytes: usize,
    part: &'static Part,
    line: Json,
    stand_ins: StandIns,
}

impl std::fmt::Debug for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)
    }
}

/// Takes every line of every part.
pub(crate) fn read(node: &Node, intake: &mut Intake<'_>, file: &Path) -> Result<()> {
    let stand_ins = StandIns::default();
    let mut archive = Unpacking::open(file)?;
    let ended = archive.each(|path, content, done, of| {
        intake.at(done, of);
        let noun = path.strip_suffix(".jsonl").and_then(|name| name.split('-').next());
        match noun.and_then(line::part) {
            Some(part) => read_part(node, intake, part, path, content, &stand_ins),
            None => Ok(()),
        }
    })?;
    ended.map_or(Ok(()), |message| intake.add(Item::bad("the archive", message)))
}

fn read_part(
    node: &Node,
    intake: &mut Intake<'_>,
    part: &'static Part,
    path: &str,
    content: &mut dyn Read,
    stand_ins: &StandIns,
) -> Result<()> {
    let mut reader = BufReader::new(content);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let source = format!("{path} line {number}");
        match reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes) {
            Ok(0) => break,
            Ok(_) if bytes.len() as u64 == MAX_LINE_BYTES && !bytes.ends_with(b"\n") => {
                intake.add(Item::bad(source, "is longer than a record can be"))?;
                if reader.skip_until(b'\n').is_err() {
                    break;
                }
            }
            Ok(_) => {
                let Ok(line) = serde_json::from_slice::<Json>(&bytes) else {
                    intake.add(Item::bad(source, "is no JSON"))?;
                    continue;
                };
                let (size_bytes, stand_ins) = (bytes.len(), stand_ins.clone());
                let restored = Restored { source, size_bytes, part, line, stand_ins };
                if intake.is_done() {
                    remember(node, &intake.actor(), &restored)?;
                }
                intake.add(Item::Record(Box::new(restored)))?;
            }
            Err(error) => {
                intake.add(Item::bad(source, error))?;
                break;
            }
        }
    }
    Ok(())
}

/// Of a line that an earlier life of this import has done: who stands for it.
fn remember(node: &Node, actor: &Actor, restored: &Restored) -> Result<()> {
    let Some(key) = id_of(&restored.line) else { return Ok(()) };
    let part = restored.part;
    let Ok(changes) = line::changes_of(part, part.told, &restored.line) else { return Ok(()) };
    let holder = node.store.read(|reader| Ok(holder_of(reader, actor, part, key, &changes)))??;
    if let Some(holder) = holder {
        restored.is_stood_for(key, holder);
    }
    Ok(())
}

impl Restored {
    fn is_stood_for(&self, key: Id, holder: Id) {
        self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner).insert(key, holder);
    }

    /// What refers to records of the archive refers to those who stand for them.
    fn translated(&self, mut changes: Changes) -> Changes {
        let known = self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner);
        for (field, value) in changes.registers.iter_mut().chain(&mut changes.added) {
            if let (Some(_), Some(id)) = (field.refers, value.as_id())
                && let Some(other) = known.get(&id)
            {
                *value = Value::Id(*other);
            }
        }
        changes
    }
}

fn id_of(line: &Json) -> Option<Id> {
    line["id"].as_str().and_then(Id::parse)
}

/// Another record of this kind that has a name of this one's. Posts never stand for each other.
fn holder_of(
    reader: &impl atoll_storage::Read,
    actor: &Actor,
    part: &Part,
    key: Id,
    changes: &Changes,
) -> Result<Option<Id>> {
    if part.kind.code == POST.code || part.kind.code == tenant::TENANT.code {
        return Ok(None);
    }
    for (field, value) in &changes.registers {
        let (Some(space), Some(name)) = (field.claim, value.as_text()) else { continue };
        let holder = reader.claimed(actor.tenant, space, name)?;
        if holder.is_some_and(|holder| holder != key) {
            return Ok(holder);
        }
    }
    Ok(None)
}

fn done(fate: Fate, key: Id) -> Result<Done> {
    Ok(Done { fate, key, comments: 0, redirects: 0 })
}

fn id_taken() -> Error {
    Error::conflict("id_taken", "its id belongs to something else here")
}

pub(crate) fn put(tx: &mut Tx<'_>, actor: &Actor, restored: &Restored) -> Result<Done> {
    let (part, line) = (restored.part, &restored.line);
    let is_user = part.kind.code == user::USER.code;
    let told: &[&Field] = if is_user { &[&user::PASSWORD_HASH] } else { part.told };
    let changes = line::changes_of(part, told, line).map_err(Error::Malformed)?;
    let changes = restored.translated(changes);
    if part.kind.code == tenant::TENANT.code {
        return settings(tx, actor, &changes);
    }
    let missing = || Error::Malformed("has no id".to_owned());
    let key = id_of(line).ok_or_else(missing)?;
    if part.kind.code == POST_VERSION.code {
        return past(tx, actor, key, line, changes);
    }
    if let Some(holder) = holder_of(tx, actor, part, key, &changes)? {
        restored.is_stood_for(key, holder);
        return done(Fate::Unchanged, holder);
    }
    let changes = match part.kind.code {
        code if code == user::USER.code => humbled(tx, actor, key, changes)?,
        code if code == role::ROLE.code => curbed(actor, changes)?,
        _ => changes,
    };
    kinds::validate(part.kind, &changes, true)?;
    let times_ms = times_of(line);
    let fate = match tx.get_full(part.kind, key)? {
        Some(there) if there.tenant != actor.tenant => return Err(id_taken()),
        Some(there) if there.updated_ms() >= times_ms.1 => return done(Fate::Unchanged, key),
        Some(there) => {
            refuse_taken(tx, actor, key, &changes)?;
            tx.edit(part.kind, key, becoming(&there, changes))?;
            Fate::Updated
        }
        None => {
            refuse_taken(tx, actor, key, &changes)?;
            tx.create_at(part.kind, actor.tenant, key, changes, times_ms)?;
            Fate::Created
        }
    };
    tell(tx, actor, part, key)?;
    done(fate, key)
}

/// When it was made, and when it was changed last.
fn times_of(line: &Json) -> (u64, u64) {
    let made_ms = line["created_ms"].as_u64().unwrap_or_default();
    (made_ms, line["updated_ms"].as_u64().unwrap_or(made_ms).max(made_ms))
}

fn refuse_taken(tx: &Tx<'_>, actor: &Actor, key: Id, changes: &Changes) -> Result<()> {
    for (field, value) in &changes.registers {
        let (Some(space), Some(name)) = (field.claim, value.as_text()) else { continue };
        if tx.claimed(actor.tenant, space, name)?.is_some_and(|holder| holder != key) {
            let message = format!("the {} {name} is taken here", field.name);
            return Err(Error::conflict("taken", message));
        }
    }
    Ok(())
}

/// What makes a record say what the archive says: sets lose what it does not name.
fn becoming(there: &Record, mut changes: Changes) -> Changes {
    let wanted = changes.added.clone();
    for set in there.kind.fields.iter().filter(|field| field.merge == Merge::Set) {
        let is_wanted = |value: &Value| {
            wanted.iter().any(|(field, wanted)| field.code == set.code && wanted == value)
        };
        for gone in there.set(set).filter(|value| !is_wanted(value)) {
            changes = changes.drop(set, gone.clone());
        }
    }
    changes
}

/// Nobody comes back with a role above that of whoever imports him, nor with one that gives what the importer lacks;
/// and nobody is changed by an importer who might not administer him.
fn humbled(tx: &Tx<'_>, actor: &Actor, key: Id, mut changes: Changes) -> Result<Changes> {
    actor.require(Permission::UsersAdminister)?;
    if let Some(there) = tx.get(&user::USER, key)?.filter(|there| there.tenant == actor.tenant) {
        user::require_below(tx, actor, &there)?;
    }
    let mut given = Vec::with_capacity(changes.added.len());
    for (field, value) in changes.added {
        if field.code == user::ROLE_IDS.code {
            let role = value.as_id().map_or(Ok(None), |id| tx.get(&role::ROLE, id))?;
            let role = role.filter(|role| role.tenant == actor.tenant);
            if role.is_none_or(|role| actor.require_all(role::given_by(&role)).is_err()) {
                continue;
            }
        }
        given.push((field, value));
    }
    changes.added = given;
    let role = changes.get(&user::ROLE).and_then(Value::as_text).and_then(Role::parse);
    if role.is_none_or(|role| actor.role.is_none_or(|own| role > own)) {
        changes.put(&user::ROLE, Role::Viewer.name());
    }
    Ok(changes)
}

/// A role comes back with what whoever imports it could give.
fn curbed(actor: &Actor, mut changes: Changes) -> Result<Changes> {
    actor.require(Permission::UsersAdminister)?;
    changes.added.retain(|(field, value)| {
        let permission = value.as_text().and_then(Permission::parse);
        field.code != role::PERMISSIONS.code || permission.is_some_and(|given| actor.can(given))
    });
    Ok(changes)
}

/// The tenant here takes the settings over, not the names by which requests find it.
fn settings(tx: &mut Tx<'_>, actor: &Actor, changes: &Changes) -> Result<Done> {
    let key = actor.tenant;
    if !actor.can(Permission::SettingsAdminister) {
        return done(Fate::Unchanged, key);
    }
    let mut taken = Changes::new();
    for field in tenant::OWN {
        if let Some(value) = changes.get(field) {
            taken.put(field, value.clone());
        }
    }
    kinds::validate(&tenant::TENANT, &taken, false)?;
    let taken = tenant::checked(taken)?;
    let before = tx.get(&tenant::TENANT, key)?.ok_or(Error::NotFound("tenant"))?;
    let after = tx.edit(&tenant::TENANT, key, taken)?;
    let is_same = after.version() == before.version();
    done(if is_same { Fate::Unchanged } else { Fate::Updated }, key)
}

/// How a post stood once: its text is written over the present one, the version names the heads that this gave, and
/// the present text is brought back.
fn past(tx: &mut Tx<'_>, actor: &Actor, key: Id, line: &Json, changes: Changes) -> Result<Done> {
    if let Some(known) = tx.get(&POST_VERSION, key)? {
        return if known.tenant == actor.tenant {
            done(Fate::Unchanged, key)
        } else {
            Err(id_taken())
        };
    }
    let body = line["body"].as_str().unwrap_or_default();
    if body.len() > BODY.max {
        return Err(Error::Malformed("its body is too long".to_owned()));
    }
    kinds::validate(&POST_VERSION, &changes, true)?;
    let post = changes.get(&version::POST_ID).and_then(Value::as_id).unwrap_or_default();
    let present = tx.get_full(&POST, post)?.filter(|post| post.tenant == actor.tenant);
    let present = present.ok_or(Error::NotFound("post"))?;
    // None of this counts as a change of the post.
    let at_ms = present.updated_ms();
    let then = tx.edit_at(&POST, post, Changes::new().body(&BODY, body), at_ms)?;
    let heads = Value::Bytes(then.heads(&BODY).as_flattened().to_vec());
    tx.create_at(&POST_VERSION, actor.tenant, key, changes.set(&HEADS, heads), times_of(line))?;
    let now = tx.edit_at(&POST, post, Changes::new().body(&BODY, present.body(&BODY)), at_ms)?;
    if post::is_trashed(&present) {
        // It is in the trash while its text is the one that was put there.
        let heads = Value::Bytes(now.heads(&BODY).as_flattened().to_vec());
        tx.edit_at(&POST, post, Changes::new().set(&post::TRASHED_HEADS, heads), at_ms)?;
    }
    done(Fate::Created, key)
}

fn tell(tx: &mut Tx<'_>, actor: &Actor, part: &Part, key: Id) -> Result<()> {
    let event_type = format!("exchange.{}.restored", part.kind.name);
    let payload = json!({ "id": key, "kind": part.kind.name });
    tx.emit(&Event { event_type: &event_type, tenant: actor.tenant, user: actor.user, payload })?;
    Ok(())
}
