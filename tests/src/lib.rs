//! What the tests of the whole product share.

pub mod harness;
pub mod post_office;
pub mod simulator;

pub use harness::{Answer, Client, TestNode};
pub use post_office::PostOffice;
