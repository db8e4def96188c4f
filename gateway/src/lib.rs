//! The gateway of a domain: it takes sealed messages from agencies, decides recipient by recipient
//! and category by category what may pass, holds what is accepted durably, and hands it over.

pub mod directory;
pub mod exchange;
pub mod gateway;
pub mod limits;
pub mod policy;
pub mod store;
