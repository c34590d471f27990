pub mod bundle;
pub mod frame;
pub mod key;
pub mod message;
pub mod quic;
pub mod runner;
pub mod session;
pub mod ticket;
