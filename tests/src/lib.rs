//! What the tests of the whole product share.

pub mod fuzz;
#[cfg(feature = "nodes")]
pub mod harness;
pub mod kinds;
#[cfg(feature = "nodes")]
pub mod object_store;
#[cfg(feature = "nodes")]
pub mod post_office;
#[cfg(feature = "nodes")]
pub mod release;
pub mod rng;
#[cfg(feature = "nodes")]
pub mod simulator;

#[cfg(feature = "nodes")]
pub use harness::{Answer, Client, TestNode};
#[cfg(feature = "nodes")]
pub use object_store::ObjectStore;
#[cfg(feature = "nodes")]
pub use post_office::PostOffice;
