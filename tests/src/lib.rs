//! What the tests of the whole product share.

pub mod fuzz;
pub mod harness;
pub mod object_store;
pub mod post_office;
pub mod release;
pub mod simulator;

pub use harness::{Answer, Client, TestNode};
pub use object_store::ObjectStore;
pub use post_office::PostOffice;
