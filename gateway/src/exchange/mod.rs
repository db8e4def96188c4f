//! Between agencies' agents and this gateway.

mod assembly;
mod handover;
mod service;
mod session;
mod submission;

pub mod identity;
pub mod server;
pub mod sessions;

pub use service::{Exchange, preview, service};
pub use submission::submit;
