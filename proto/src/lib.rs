//! The contracts of Liaison: the generated types and services of every `.proto` package, and the
//! plain functions that read what the schema says. Knows no I/O.

mod generated {
    #![allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub)]
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
    pub use liaison::*;
    include!(concat!(env!("OUT_DIR"), "/content_debug.rs"));
}

pub use chunks::chunks;
pub use generated::{admin, case, exchange, federation, log, message};

pub mod category;
mod chunks;
pub mod codec;
pub mod json;
pub mod limits;
pub mod referral;
pub mod refusal;
pub mod strict;
pub mod times;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// The encoded `google.protobuf.FileDescriptorSet` of all packages, custom options included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// All packages, for reading messages by their schema.
#[allow(clippy::expect_used, reason = "the set is a constant that the build made and a test reads")]
pub static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the compiled descriptor set decodes"));
