//! Users: their accounts, profiles, roles and passwords. Never lets anybody raise a role above his own, nor a
//! tenant lose its last administrator.

pub mod administer;
pub mod erase;
pub mod impersonate;
pub mod own;
mod password;
pub mod table;

use super::names::{check_chosen, check_email, check_username, normal_email};
use super::tenant::quota::{self, Quota};
use super::{announce, avatar, role, tenant};
use crate::access::{Actor, Permission, Role};
use crate::audit;
use crate::error::{Error, FieldError, Result};
use crate::kinds;
use crate::mail::{Letter, Order};
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Derived, Field, Id, Kind, Record, Type, Value};
use serde_json::json;

pub use super::names::username_from;
pub(super) use password::{attempt, check_new, has_signed_out, hash, prove, reprove, signed_out};
pub use password::{change_password, confirm_in_person, reset_password, sign_out_elsewhere};

pub const EMAIL: Field = Field::text(1, "email")
    .required()
    .max(254)
    .claim("user.email")
    .private()
    .read_only()
    .doc("Unique in the tenant; good for signing in.");
pub const USERNAME: Field = Field::text(2, "username")
    .required()
    .max(32)
    .claim("user.username")
    .doc("Unique in the tenant: lower-case letters, digits, dot, hyphen and underscore.");
pub const DISPLAY_NAME: Field =
    Field::text(3, "display_name").max(100).doc("The name that others see.");
pub const BIO: Field = Field::text(4, "bio").max(2_000);
pub const ROLE: Field = Field::text(5, "role").required().choices(Role::NAMES).column().read_only();
pub const STATUS: Field = Field::text(6, "status")
    .required()
    .choices(&["active", "disabled", "deleted"])
    .column()
    .read_only()
    .private();
pub const PASSWORD_HASH: Field = Field::text(7, "password_hash").max(300).secret();
pub const MUST_CHANGE_PASSWORD: Field = Field::flag(8, "must_change_password")
    .read_only()
    .private()
    .doc("The password was given by somebody else: ask for a new one.");
/// Sessions begun before it have ended, but for `KEPT_SESSION`: that holds on nodes where they are not known yet.
pub const SIGNED_OUT_BEFORE: Field = Field::time(9, "signed_out_before").secret().silent();
pub const KEPT_SESSION: Field = Field::refers(10, "kept_session", "session").secret().silent();
pub const EMAIL_VERIFIED_AT: Field = Field::time(20, "email_verified_at")
    .read_only()
    .private()
    .silent()
    .doc("When the owner proved that letters to the e-mail address reach him.");
/// When it ends, and the hash of the token that proves an address.
pub const VERIFY_TOKEN: Field = Field::bytes(21, "verify_token").max(40).secret().silent();
/// The same of the token that stands for a forgotten password.
pub const RESET_TOKEN: Field = Field::bytes(22, "reset_token").max(40).secret().silent();
/// The secret of the second factor, and the step of the code that confirmed it. Null: there is no second factor.
pub const TOTP_SECRET: Field = Field::bytes(23, "totp_secret").max(28).secret();
/// One that no code has confirmed yet.
pub const TOTP_PENDING: Field = Field::bytes(24, "totp_pending").max(20).secret().silent();
/// Hashes of those that were not used yet.
pub const RECOVERY_CODES: Field = Field::set(25, "recovery_codes", Type::Bytes).secret();
pub const NEW_EMAIL: Field = Field::text(26, "new_email")
    .max(254)
    .read_only()
    .private()
    .doc("Takes the place of `email` once its owner has proved it.");
pub const AVATAR: Field = Field::text(27, "avatar").max(500).blob().doc(
    "A URL; or the hash of an image that was uploaded, which the user's `avatar` path serves.",
);
/// The hash of issuer and subject at an OpenID provider.
pub const OIDC_SUBJECT: Field = Field::text(28, "oidc_subject").max(64).claim("user.oidc").secret();
pub const ROLE_IDS: Field = role::referring(Field::set(30, "role_ids", Type::Id))
    .max(20)
    .column()
    .read_only()
    .private()
    .doc("Roles that the tenant made: they add to what `role` allows.");
/// Once it is set nobody signs in any more, whatever was written apart from it.
pub const DELETED_AT: Field = Field::time(31, "deleted_at").read_only().private();

pub static USER: Kind = Kind {
    fields: &[
        EMAIL,
        USERNAME,
        DISPLAY_NAME,
        BIO,
        ROLE,
        STATUS,
        PASSWORD_HASH,
        MUST_CHANGE_PASSWORD,
        SIGNED_OUT_BEFORE,
        KEPT_SESSION,
        EMAIL_VERIFIED_AT,
        VERIFY_TOKEN,
        RESET_TOKEN,
        TOTP_SECRET,
        TOTP_PENDING,
        RECOVERY_CODES,
        NEW_EMAIL,
        AVATAR,
        OIDC_SUBJECT,
        ROLE_IDS,
        DELETED_AT,
    ],
    derived: &[
        Derived { name: "name_folded", ty: Type::Text, value: administer::folded_name },
        Derived { name: "unclean", ty: Type::Bool, value: |user| Value::Bool(erase::is_due(user)) },
    ],
    indexes: &[&["role"], &["status"], &["username"], &["email"], &["name_folded"], &["unclean"]],
    counted: &["role", "status"],
    doc: "Somebody with an account in a tenant.",
    ..Kind::new(10, "user", "users", "identity")
};

/// What it takes to make an account.
#[derive(Clone)]
pub struct NewUser {
    pub email: String,
    pub username: String,
    pub display_name: String,
    pub password: String,
    pub role: Role,
    /// The password was made up by somebody else than its owner.
    pub must_change_password: bool,
}

/// An account whose fields were checked and whose password was hashed: what is left is one transaction.
pub(super) struct Draft {
    email: String,
    username: String,
    display_name: String,
    password_hash: String,
    role: Role,
    must_change_password: bool,
}

impl NewUser {
    /// Checks all fields at once, then hashes the password on the pool.
    pub(super) async fn prepare(self, node: &Node) -> Result<Draft> {
        let email = normal_email(&self.email);
        let username = self.username.trim().to_lowercase();
        let checks = [
            check_email(&email),
            check_username(&username),
            super::password::check("password", &self.password, &[&email, &username]),
        ];
        let mut errors: Vec<FieldError> = checks.into_iter().filter_map(Result::err).collect();
        if self.display_name.chars().count() > DISPLAY_NAME.max {
            let message = format!("takes at most {} characters", DISPLAY_NAME.max);
            errors.push(FieldError::new("display_name", "too_long", message));
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        Ok(Draft {
            email,
            username,
            display_name: self.display_name.trim().to_owned(),
            password_hash: hash(node, self.password).await?,
            role: self.role,
            must_change_password: self.must_change_password,
        })
    }
}

impl Draft {
    /// `actor` makes it: in `tenant`, which need not be his.
    pub(super) fn create(self, tx: &mut Tx, tenant: Id, actor: &Actor) -> Result<Record> {
        quota::require(tx, tenant, Quota::Users)?;
        let (username, role) = (self.username.clone(), self.role);
        let changes = Changes::new()
            .set(&EMAIL, self.email)
            .set(&USERNAME, self.username)
            .set(&DISPLAY_NAME, self.display_name)
            .set(&ROLE, self.role.name())
            .set(&STATUS, "active")
            .set(&PASSWORD_HASH, self.password_hash)
            .set(&MUST_CHANGE_PASSWORD, self.must_change_password);
        kinds::check(tx, &USER, tenant, None, &changes)?;
        let key = tx.new_id();
        let user = tx.create(&USER, tenant, key, changes)?;
        let payload = json!({ "user_id": key, "username": username, "role": role.name() });
        announce(tx, "cortex.user.registered", tenant, actor.user.or(Some(key)), payload)?;
        // A stranger made it for himself.
        let by = if actor.role.is_none() { Some(key) } else { actor.user };
        let actor = Actor { tenant, user: by, ..*actor };
        audit::note(tx, &actor, "user.registered", None, Some(&user))?;
        Ok(user)
    }

    /// With a letter that asks the owner to prove the address.
    fn create_and_verify(self, tx: &mut Tx, tenant: Id, actor: &Actor) -> Result<Record> {
        let user = self.create(tx, tenant, actor)?;
        Order::to(Letter::Verification, tenant, user.key).enqueue(tx)?;
        Ok(user)
    }
}

/// Whoever signs up by himself becomes a viewer.
pub async fn register(node: &Node, actor: &Actor, new: NewUser) -> Result<Record> {
    let tenant = actor.tenant;
    if !tenant::is_open(node, tenant)? {
        return Err(Error::Denied("this tenant makes accounts by invitation only".to_owned()));
    }
    let new = NewUser { role: Role::Viewer, must_change_password: false, ..new };
    check_chosen(&new.username.trim().to_lowercase())
        .or_else(|error| if error.code == "reserved" { Err(error) } else { Ok(()) })
        .map_err(|error| Error::Invalid(vec![error]))?;
    let draft = new.prepare(node).await?;
    let actor = *actor;
    node.store.write(move |tx| draft.create_and_verify(tx, tenant, &actor)).await
}

/// An account for somebody else.
pub async fn create(node: &Node, actor: &Actor, new: NewUser) -> Result<Record> {
    actor.require(Permission::UsersAdminister)?;
    refuse_above(actor, new.role)?;
    let draft = new.prepare(node).await?;
    let actor = *actor;
    node.store.write(move |tx| draft.create_and_verify(tx, actor.tenant, &actor)).await
}

/// A user of the actor's tenant; anybody may, the private fields are for the owner and for those who administer.
pub fn get(node: &Node, actor: &Actor, id: Id) -> Result<Record> {
    let user = node.store.read(|reader| reader.get(&USER, id))?;
    let own = actor.user == Some(id);
    user.filter(|user| own || user.tenant == actor.tenant).ok_or(Error::NotFound("user"))
}

/// The signed-in user's own record, also when he acts in another tenant.
pub fn me(node: &Node, actor: &Actor) -> Result<Record> {
    get(node, actor, actor.require_user()?)
}

/// `query` is over [`USER`] in the actor's tenant.
pub fn list(node: &Node, actor: &Actor, query: &Query) -> Result<Page> {
    actor.require(Permission::UsersAdminister)?;
    Ok(node.store.read(|reader| reader.list(query))?)
}

/// By id or username; by e-mail address for those who administer.
pub fn by_name(node: &Node, actor: &Actor, name: &str) -> Result<Record> {
    if let Some(id) = Id::parse(name) {
        return get(node, actor, id);
    }
    if name.contains('@') && !actor.can(Permission::UsersAdminister) {
        return Err(Error::NotFound("user"));
    }
    let found = node.store.read(|reader| by_login(reader, actor.tenant, name))?;
    found.ok_or(Error::NotFound("user"))
}

/// Changes what a user may change of himself: username, display name, bio, the URL of an avatar.
pub async fn edit_profile(node: &Node, actor: &Actor, changes: Changes) -> Result<Record> {
    actor.require_session()?;
    let me = me(node, actor)?;
    if let Some(url) = changes.get(&AVATAR).and_then(Value::as_text)
        && url != me.text(&AVATAR)
    {
        avatar::check_url(url)?;
    }
    let changes = match changes.get(&USERNAME).and_then(Value::as_text) {
        Some(name) => {
            let name = name.trim().to_lowercase();
            let is_kept = name == me.wanted(&USERNAME);
            let checked = if is_kept { Ok(()) } else { check_chosen(&name) };
            checked.map_err(|e| Error::Invalid(vec![e]))?;
            changes.set(&USERNAME, name)
        }
        None => changes,
    };
    kinds::validate(&USER, &changes, false)?;
    edit(node, actor, me, changes, "cortex.user.updated", None).await
}

/// # Errors
/// `Denied` for a role above the actor's own or a user above him; `Conflict` (`last_admin`) for the last one.
pub async fn set_role(node: &Node, actor: &Actor, id: Id, role: Role) -> Result<Record> {
    let user = administered(node, actor, id)?;
    refuse_above(actor, role)?;
    let changes = Changes::new().set(&ROLE, role.name());
    edit(node, actor, user, changes, "cortex.user.role_changed", Some(role)).await
}

/// A disabled account can't sign in, and its sessions end everywhere.
pub async fn set_active(node: &Node, actor: &Actor, id: Id, active: bool) -> Result<Record> {
    let user = administered(node, actor, id)?;
    let now = node.clock.now_ms();
    if erase::is_erased(&user) {
        return Err(erase::is_gone());
    }
    if active {
        let changes = Changes::new().set(&STATUS, "active");
        return edit(node, actor, user, changes, "cortex.user.enabled", None).await;
    }
    let changes = signed_out(Changes::new().set(&STATUS, "disabled"), now, None);
    edit(node, actor, user, changes, "cortex.user.disabled", Some(Role::Viewer)).await
}

/// One change of an account with its event; its caller has asked whether the actor may.
pub(super) async fn put(
    node: &Node,
    actor: &Actor,
    user: Record,
    changes: Changes,
    event_type: &'static str,
) -> Result<Record> {
    edit(node, actor, user, changes, event_type, None).await
}

/// One change of an account with its event. `becomes` is the role that the user will count as from now on, for
/// the rule that a tenant keeps an administrator.
async fn edit(
    node: &Node,
    actor: &Actor,
    user: Record,
    changes: Changes,
    event_type: &'static str,
    becomes: Option<Role>,
) -> Result<Record> {
    let actor = *actor;
    node.store.write(move |tx| edit_in(tx, &actor, user.key, changes, event_type, becomes)).await
}

fn edit_in(
    tx: &mut Tx,
    actor: &Actor,
    id: Id,
    changes: Changes,
    event_type: &'static str,
    becomes: Option<Role>,
) -> Result<Record> {
    let before = tx.get(&USER, id)?.ok_or(Error::NotFound("user"))?;
    if erase::is_erased(&before) {
        return Err(erase::is_gone());
    }
    if actor.user != Some(id) {
        // Once more: he may have risen since the actor was let through.
        require_below(tx, actor, &before)?;
    }
    kinds::check(tx, &USER, before.tenant, Some(id), &changes)?;
    if let Some(role) = becomes {
        keep_an_admin(tx, id, role)?;
    }
    let user = tx.edit(&USER, id, changes)?;
    let payload =
        json!({ "user_id": id, "username": user.text(&USERNAME), "role": user.text(&ROLE) });
    announce(tx, event_type, user.tenant, actor.user, payload)?;
    let action = event_type.trim_start_matches("cortex.");
    let actor = Actor { tenant: user.tenant, ..*actor };
    audit::note(tx, &actor, action, Some(&before), Some(&user))?;
    Ok(user)
}

fn keep_an_admin(tx: &Tx, id: Id, becomes: Role) -> Result<()> {
    let user = tx.get(&USER, id)?.ok_or(Error::NotFound("user"))?;
    let (now, tenant) = (role(&user), user.tenant);
    let lost = |rank: Role| is_active(&user) && now >= rank && becomes < rank;
    let other = |role: Role| -> Result<bool> {
        let query = Query::of(&USER, tenant)
            .filter("role", role.name())
            .filter("status", "active")
            .limit(2);
        Ok(tx.list(&query)?.records.iter().any(|other| other.key != id))
    };
    if lost(Role::Admin) && !other(Role::Admin)? && !other(Role::Superadmin)? {
        let message = "this is the last administrator of the tenant: make another one first";
        return Err(Error::conflict("last_admin", message));
    }
    if lost(Role::Superadmin) && !other(Role::Superadmin)? && tenant::is_default(tx, tenant)? {
        let message = "this is the last superadmin of the network: make another one first";
        return Err(Error::conflict("last_admin", message));
    }
    Ok(())
}

/// That the user is neither above the actor nor has permissions that the actor lacks.
pub(crate) fn require_below(reader: &impl Read, actor: &Actor, user: &Record) -> Result<()> {
    refuse_above(actor, role(user))?;
    actor.require_all(role::permissions_of(reader, user)?)
}

/// A user whom the actor may change: of his tenant, and neither above him nor with permissions that he lacks.
pub(super) fn administered(node: &Node, actor: &Actor, id: Id) -> Result<Record> {
    actor.require(Permission::UsersAdminister)?;
    let found = node.store.read(|reader| {
        let Some(user) = reader.get(&USER, id)? else { return Ok(None) };
        let permissions = role::permissions_of(reader, &user)?;
        Ok(Some((user, permissions)))
    })?;
    let found = found.filter(|(user, _)| user.tenant == actor.tenant);
    let (user, permissions) = found.ok_or(Error::NotFound("user"))?;
    refuse_above(actor, self::role(&user))?;
    actor.require_all(permissions)?;
    Ok(user)
}

/// `expected`: the version that the caller has seen, if it insists.
fn require_version(reader: &impl Read, id: Id, expected: Option<[u8; 16]>) -> Result<()> {
    let user = reader.get(&USER, id)?;
    match expected {
        Some(version) if user.is_none_or(|user| user.version() != version) => Err(Error::Stale),
        _ => Ok(()),
    }
}

fn refuse_above(actor: &Actor, role: Role) -> Result<()> {
    if actor.role.is_none_or(|own| role > own) {
        return Err(Error::Denied(format!("the role {role} is above your own")));
    }
    actor.require_all(role.permission_set())
}

/// Who signs in with this name: an e-mail address has an @, a username never has one. A user whose name another
/// one holds signs in with the name that he got instead (`ada~k7f3ab`).
pub(super) fn by_login(
    reader: &impl Read,
    tenant: Id,
    name: &str,
) -> atoll_storage::Result<Option<Record>> {
    let space = if name.contains('@') { &EMAIL } else { &USERNAME };
    let holder = match space.claim {
        Some(space) => reader.claimed(tenant, space, name)?,
        None => None,
    };
    holder.map_or(Ok(None), |key| reader.get(&USER, key))
}

pub fn role(user: &Record) -> Role {
    Role::parse(user.text(&ROLE)).unwrap_or(Role::Viewer)
}

/// What the role amounts to. Those who run the network are of the default tenant: whoever may write the accounts of another
/// one makes none of them.
pub(super) fn rank(reader: &impl Read, user: &Record) -> atoll_storage::Result<Role> {
    let role = role(user);
    let is_foreign = role == Role::Superadmin && !tenant::is_default(reader, user.tenant)?;
    Ok(if is_foreign { Role::Admin } else { role })
}

pub fn is_active(user: &Record) -> bool {
    user.text(&STATUS) == "active" && !erase::is_erased(user)
}

/// The user as he may act now in this tenant: for work that he asked for earlier.
///
/// # Errors
/// `Denied` if his account is gone or disabled, or he may not act in this tenant.
pub fn acting(node: &Node, id: Id, tenant: Id) -> Result<Actor> {
    let found = node.store.read(|reader| {
        let Some(user) = reader.get(&USER, id)?.filter(is_active) else { return Ok(None) };
        let permissions = role::permissions_of(reader, &user)?;
        let rank = rank(reader, &user)?;
        Ok(Some((user, permissions, rank)))
    })?;
    let gone = || Error::Denied("the account of who asked for it is gone".into());
    let (user, permissions, role) = found.ok_or_else(gone)?;
    if user.tenant != tenant && role != Role::Superadmin {
        return Err(Error::Denied("who asked for it may not act in this tenant".into()));
    }
    Ok(Actor { permissions, ..Actor::of(tenant, id, role) })
}
