//! What the load and comparison programs share: a closed loop of clients, the figures it gives, the text that is
//! written, a lean HTTP/1.1 client, a bad path between two sockets, and whole nodes. Nothing but `nodes` may reach into a
//! node: a load run sees only what a user sees.

pub mod drive;
pub mod histogram;
pub mod http;
pub mod nodes;
pub mod relay;
pub mod shape;
pub mod text;
