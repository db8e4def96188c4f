//! The agent: it runs next to an agency's case system, keeps the agency's keys, seals what is sent,
//! and opens what is received.
//!
//! The road of a message that is sent: [`case`] API, [`outbox`] (sealed once, stored before it is
//! offered), `session` to the gateway. Of one that is received: `session`, `inbox` (verified,
//! committed, acknowledged), the case API again.

pub mod agent;
mod backoff;
pub mod backup;
pub mod basis;
pub mod case;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod custody;
pub mod dial;
pub mod directory;
pub mod doctor;
pub mod enrol;
pub mod folder;
mod handling;
mod inbox;
pub mod limits;
pub mod link;
pub mod log;
pub mod outbox;
mod session;
pub mod split;
pub mod store;
#[cfg(test)]
mod testing;
mod thread;
