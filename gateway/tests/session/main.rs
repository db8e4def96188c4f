//! The road through a gateway, over mTLS on the loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../engine/mod.rs"]
mod engine;
mod erasure;
mod hostile;
mod refusals;
mod road;
mod support;
mod witness;
