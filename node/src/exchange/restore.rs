//! An archive of a tenant back into a node: records keep their ids, names, dates and authors. Where somebody here has
//! a name already, what the archive says of its own holder is said of him. Nobody gets a right above that of whoever
//! imports, and nothing that was changed here since is taken back.

mod figures;
mod guard;

use super::line::{self, Part};
use super::{FILES, HEAD, Unpacking};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::blob::erased;
use crate::community::like::{self, Target};
use crate::content::import::entry::Item;
use crate::content::import::intake::Intake;
use crate::content::import::report::{Done, Fate};
use crate::content::post::{self, BODY, POST};
use crate::content::redirect;
use crate::content::version::{self, HEADS, POST_VERSION};
use crate::error::{Error, Result};
use crate::identity::api_key::API_KEY;
use crate::identity::oidc::{self, OIDC_PROVIDER};
use crate::identity::{avatar, role, tenant, user};
use crate::insight::POST_STATS;
use crate::kinds;
use crate::mail::{Letter, template};
use crate::runtime::Node;
use atoll_storage::blob::{self, BlobId};
use atoll_storage::read::Read as _;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Event, Field, Id, Merge, Record, Value};
use guard::{check, curbed, humbled, lent, refuse_foreign, refuse_taken, room};
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A body as JSON that escapes much of it, and what stands beside it.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// How the files of pictures begin.
const JPEG: [u8; 3] = [0xff, 0xd8, 0xff];

/// What is known of an archive while it is read.
#[derive(Default)]
struct Known {
    /// Who stands here for records of the archive, if not they themselves.
    stand_ins: HashMap<Id, Id>,
    /// Posts that a dry run would have made: what hangs on them is not refused.
    made: HashSet<Id>,
}

type Shared = Arc<Mutex<Known>>;

/// One line of an archive.
#[derive(Clone)]
pub(crate) struct Restored {
    pub source: String,
    pub size_bytes: usize,
    part: &'static Part,
    line: Json,
    known: Shared,
    dry_run: bool,
}

impl std::fmt::Debug for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)
    }
}

/// Takes every line of every part.
pub(crate) fn read(node: &Node, intake: &mut Intake<'_>, file: &Path) -> Result<()> {
    let (known, mut is_ours) = (Shared::default(), false);
    let may_have_files = intake.actor()?.can(Permission::UsersAdminister) && !intake.is_dry_run();
    let ended = Unpacking::open(file)?.each(&mut |path, content, count, of| {
        intake.at(count.get(), of);
        if let Some(name) = path.strip_prefix(FILES) {
            let kept = if may_have_files { keep(node, name, content)? } else { Ok(()) };
            return kept.map_or_else(|why| intake.add(Item::bad(path, why)), Ok);
        }
        let noun = path.strip_suffix(".jsonl").and_then(|name| name.split('-').next());
        let part = noun.and_then(line::part);
        is_ours |= part.is_some() || path == HEAD;
        part.map_or(Ok(()), |part| read_part(node, intake, part, path, content, &known))
    })?;
    if !is_ours {
        let message = "the archive is none that `atoll export` or an export over HTTP wrote";
        return Err(Error::Malformed(message.to_owned()));
    }
    ended.map_or(Ok(()), |message| intake.add(Item::bad("the archive", message)))
}

/// A picture of a user, under the hash of its bytes. Why it cannot be kept, if it cannot.
fn keep(node: &Node, name: &str, content: &mut dyn Read) -> Result<Result<(), String>> {
    let mut bytes = Vec::new();
    if let Err(error) = content.take(avatar::MAX_BYTES as u64 + 1).read_to_end(&mut bytes) {
        return Ok(Err(error.to_string()));
    }
    let is_picture = bytes.starts_with(&JPEG) && bytes.len() <= avatar::MAX_BYTES;
    if !is_picture || BlobId::parse(name) != Some(BlobId::of(&bytes)) {
        return Ok(Err("is no picture, or not the one that it is named by".to_owned()));
    }
    erased::forget_blocking(node, BlobId::of(&bytes))?;
    match node.blobs.put(&bytes) {
        Ok(_) => Ok(Ok(())),
        Err(blob::Error::Full) => Err(Error::Store(atoll_storage::Error::Full)),
        Err(error) => Err(Error::Internal(error.to_string())),
    }
}

fn read_part(
    node: &Node,
    intake: &mut Intake<'_>,
    part: &'static Part,
    path: &str,
    content: &mut dyn Read,
    known: &Shared,
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
                if let Some(why) = refused_here(node, part, &line) {
                    intake.add(Item::bad(source, why))?;
                    continue;
                }
                let (size_bytes, known) = (bytes.len(), known.clone());
                let dry_run = intake.is_dry_run();
                let restored = Restored { source, size_bytes, part, line, known, dry_run };
                if intake.is_done() {
                    remember(node, &intake.actor()?, &restored)?;
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

/// What only the node itself can say: which providers it may ask.
fn refused_here(node: &Node, part: &Part, line: &Json) -> Option<&'static str> {
    let issuer = line["fields"][oidc::ISSUER.name].as_str().unwrap_or_default();
    let is_refused = part.kind.code == OIDC_PROVIDER.code && !oidc::may_be_asked(node, issuer);
    is_refused.then_some("the provider is none that this node may ask: see oidc.internal_hosts")
}

/// Of a line that an earlier life of this import has done: who stands for it.
fn remember(node: &Node, actor: &Actor, restored: &Restored) -> Result<()> {
    let Some(key) = id_of(&restored.line) else { return Ok(()) };
    let part = restored.part;
    let told = part.secrets(true);
    let Ok(changes) = line::changes_of(part, &told, &restored.line) else { return Ok(()) };
    let holder = node.store.read(|reader| Ok(holder_of(reader, actor, part, key, &changes)))??;
    if let Some(holder) = holder {
        restored.is_stood_for(key, holder);
    }
    restored.is_made(key);
    Ok(())
}

impl Restored {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stood_for(&self, key: Id, holder: Id) {
        self.known().stand_ins.insert(key, holder);
    }

    /// A dry run forgets what it made; this does not.
    fn is_made(&self, key: Id) {
        if self.dry_run && self.part.kind.code == POST.code {
            self.known().made.insert(key);
        }
    }

    fn would_be_there(&self, key: Id) -> bool {
        self.dry_run && self.known().made.contains(&key)
    }

    /// What refers to records of the archive refers to those who stand for them.
    fn translated(&self, mut changes: Changes) -> Changes {
        let known = self.known();
        for (_, value) in changes.registers.iter_mut().chain(&mut changes.added) {
            if let Some(id) = value.as_id()
                && let Some(other) = known.stand_ins.get(&id)
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
    Ok(Done::plain(fate, key))
}

/// Keys that are made of what a record says and of its tenant: in another tenant it is found by another one.
fn key_here(actor: &Actor, part: &Part, changes: &Changes, key: Id) -> Result<Id> {
    let id = |field: &Field| changes.get(field).and_then(Value::as_id).unwrap_or_default();
    let text = |field: &Field| changes.get(field).and_then(Value::as_text).unwrap_or_default();
    let odd = || Error::Malformed("does not say what it is of".to_owned());
    match part.kind.code {
        code if code == redirect::REDIRECT.code => {
            let path = redirect::normal(text(&redirect::PATH)).ok_or_else(odd)?;
            Ok(redirect::key_of(actor.tenant, &path))
        }
        code if code == like::LIKE.code => {
            let target = Target::named(text(&like::TARGET_KIND), id(&like::TARGET_ID));
            Ok(like::key_of(actor.tenant, target.ok_or_else(odd)?, id(&like::USER_ID)))
        }
        code if code == OIDC_PROVIDER.code => Ok(oidc::key_of(actor.tenant)),
        code if code == template::MAIL_TEMPLATE.code => {
            let letter = Letter::parse(text(&template::NAME)).ok_or_else(odd)?;
            Ok(template::key_of(actor.tenant, letter))
        }
        code if code == POST_VERSION.code
            && changes.get(&version::FIRST) == Some(&Value::Bool(true)) =>
        {
            Ok(version::first_key(actor.tenant, id(&version::POST_ID)))
        }
        _ => Ok(key),
    }
}

fn id_taken() -> Error {
    Error::conflict("id_taken", "its id belongs to something else here")
}

pub(crate) fn put(tx: &mut Tx<'_>, actor: &Actor, restored: &Restored) -> Result<Done> {
    let (part, line) = (restored.part, &restored.line);
    let missing = || Error::Malformed("has no id".to_owned());
    if part.kind.code == POST_STATS.code {
        return figures::put(tx, actor, restored, id_of(line).ok_or_else(missing)?);
    }
    let changes = line::changes_of(part, &part.secrets(true), line).map_err(Error::Malformed)?;
    let changes = restored.translated(changes);
    if part.kind.code == tenant::TENANT.code {
        return settings(tx, actor, &changes);
    }
    let own = id_of(line).ok_or_else(missing)?;
    let key = key_here(actor, part, &changes, own)?;
    refuse_foreign(tx, actor, part, &changes)?;
    check(part, &changes)?;
    restored.is_made(key);
    if part.kind.code == POST_VERSION.code {
        return past(tx, actor, key, restored, changes);
    }
    if let Some(holder) = holder_of(tx, actor, part, key, &changes)? {
        restored.is_stood_for(key, holder);
        return done(Fate::Unchanged, holder);
    }
    let changes = match part.kind.code {
        code if code == user::USER.code => humbled(tx, actor, key, changes)?,
        code if code == role::ROLE.code => curbed(actor, changes)?,
        code if code == API_KEY.code => lent(tx, actor, restored, changes)?,
        // What was set here stands; its secret is for its own issuer.
        code if code == OIDC_PROVIDER.code && tx.get(&OIDC_PROVIDER, key)?.is_some() => {
            return done(Fate::Unchanged, key);
        }
        code if code == template::MAIL_TEMPLATE.code || code == OIDC_PROVIDER.code => {
            actor.require(Permission::UsersAdminister)?;
            changes
        }
        _ => changes,
    };
    kinds::validate(part.kind, &changes, true)?;
    let times_ms = times_of(line);
    let fate = match tx.get_full(part.kind, key)? {
        Some(there) if there.tenant != actor.tenant => return Err(id_taken()),
        Some(there) if there.updated_ms() >= times_ms.1 => return done(Fate::Unchanged, key),
        Some(there) => {
            refuse_taken(tx, actor, key, &changes)?;
            room(tx, actor, part, Some(&there), &changes)?;
            tx.edit(part.kind, key, becoming(&there, changes))?;
            Fate::Updated
        }
        None => {
            refuse_taken(tx, actor, key, &changes)?;
            room(tx, actor, part, None, &changes)?;
            let made = tx.create_at(part.kind, actor.tenant, key, changes, times_ms)?;
            if [API_KEY.code, OIDC_PROVIDER.code].contains(&part.kind.code) {
                let action = format!("{}.restored", part.kind.name);
                audit::note(tx, actor, &action, None, Some(&made))?;
            }
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
fn past(
    tx: &mut Tx<'_>,
    actor: &Actor,
    key: Id,
    restored: &Restored,
    changes: Changes,
) -> Result<Done> {
    let line = &restored.line;
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
    if present.is_none() && restored.would_be_there(post) {
        return done(Fate::Created, key);
    }
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
