//! Between agencies' agents and this gateway.

pub mod identity;
pub mod server;
pub mod sessions;
