//! What people say to each other about what is published: comments and likes. The one place that knows the rules
//! of moderation. Never shows what waits for approval to anybody but its author and moderators.

pub mod comment;
pub mod like;

/// The scope of the streams that hold all of this.
pub const SCOPE: &str = "community";
