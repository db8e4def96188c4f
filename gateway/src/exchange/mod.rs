//! Between agencies' agents and this gateway.

mod handover;
mod keys;
mod receipts;
mod service;
mod session;
mod submission;

pub mod identity;
pub mod sessions;

pub use service::{Exchange, admit, preview, service};
pub use submission::submit;
