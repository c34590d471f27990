//! A little domain of the simulator's own that has one of everything: names, sets, bodies, natural keys, counters,
//! a tree, an urgent stream, files; and the same domain as an older release knew it.

use atoll_storage::revoked::{REVOKED_CUTS, REVOKED_NODE};
use atoll_storage::{Field, Kind, Type};

pub const TITLE: Field = Field::text(1, "title").column();
pub const SLUG: Field = Field::text(2, "slug").claim("note.slug");
pub const TAGS: Field = Field::set(3, "tags", Type::Text).column();
pub const BODY: Field = Field::body(4, "body");
/// Newer than the old release.
pub const RANK: Field = Field::int(5, "rank").column();

pub const WEIGHT: Field = Field::int(1, "weight").column();
pub const VIEWS: Field = Field::counter(1, "views").column();
pub const VISITORS: Field = Field::sketch(2, "visitors");
pub const PARENT: Field = Field::refers(1, "parent", "place").column();
pub const LABEL: Field = Field::text(2, "label").column();
pub const LOGIN: Field = Field::text(1, "login").claim("member.login");
pub const PORTRAIT: Field = Field::text(2, "portrait").blob();
pub const MARK: Field = Field::text(1, "mark");
pub const TEXT: Field = Field::body(2, "text");
pub const PICTURE: Field = Field::text(3, "picture").blob();

const NOTES: Kind = Kind {
    indexes: &[&["title"]],
    counted: &["title"],
    ..Kind::new(200, "note", "notes", "content")
};

static OLD_NOTE: Kind = Kind { fields: &[TITLE, SLUG, TAGS, BODY], ..NOTES };
pub static NOTE: Kind = Kind { fields: &[TITLE, SLUG, TAGS, BODY, RANK], schema: 2, ..NOTES };
pub static LIKE: Kind = Kind {
    fields: &[WEIGHT],
    counted: &["weight"],
    ..Kind::new(201, "like", "likes", "community")
};
pub static STATS: Kind =
    Kind { fields: &[VIEWS, VISITORS], ..Kind::new(202, "stats", "stats", "insight") };
pub static PLACE: Kind = Kind {
    fields: &[PARENT, LABEL],
    tree: Some(1),
    ..Kind::new(203, "place", "places", "content")
};
pub static MEMBER: Kind =
    Kind { fields: &[LOGIN, PORTRAIT], ..Kind::new(204, "member", "members", "identity") };
/// Newer than the old release.
pub static BADGE: Kind =
    Kind { fields: &[MARK, TEXT, PICTURE], ..Kind::new(205, "badge", "badges", "content") };

/// That a node was removed from the network. Newer than the old release.
pub static REVOCATION: Kind = Kind {
    fields: &[REVOKED_NODE, REVOKED_CUTS],
    revokes: true,
    ..Kind::new(206, "revocation", "revocations", "network")
};

pub static NEW: &[&Kind] = &[&NOTE, &LIKE, &STATS, &PLACE, &MEMBER, &BADGE, &REVOCATION];
pub static OLD: &[&Kind] = &[&OLD_NOTE, &LIKE, &STATS, &PLACE, &MEMBER];
