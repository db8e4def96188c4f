//! Between agencies' agents and this gateway.

mod handover;
mod heads;
mod keys;
mod receipts;
mod service;
mod session;
mod signers;
mod submission;

pub mod identity;
pub mod sessions;

pub use service::{Exchange, admit, preview, service};
pub use submission::submit;
