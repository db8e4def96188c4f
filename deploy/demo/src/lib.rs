//! Starts gateways and agents as real processes, the way an administrator and an agency's IT would:
//! by their commands and files alone. The demonstration is built on it, and so are the tests, which
//! kill, stop and restart what it starts.

pub mod agent;
pub mod gateway;
pub mod http;
pub mod policies;
pub mod port;
pub mod process;
pub mod wait;

pub use agent::Agent;
pub use gateway::{Gateway, Invitation, Member};
pub use process::Programs;
