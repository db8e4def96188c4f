//! The gateway of a domain: it takes sealed messages from agencies, decides recipient by recipient
//! and category by category what may pass, holds what is accepted durably, and hands it over.

pub mod admin;
mod assembly;
pub mod authority;
pub mod cli;
pub mod config;
pub mod data;
pub mod delivery;
pub mod directory;
pub mod doctor;
pub mod enrolment;
pub mod exchange;
pub mod federation;
pub mod gateway;
pub mod health;
pub mod limits;
pub mod log;
pub mod policy;
mod replicas;
pub mod revoked;
pub mod run;
pub mod server;
pub mod store;
pub mod strict;
