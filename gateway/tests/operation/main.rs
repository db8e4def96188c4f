//! The gateway's program as administrators use it: real processes, real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod commands;
mod doctor;
mod gateway;
mod life;
mod members;
mod policies;
mod rollover;
