//! What the tests that cross crates share: domains of real processes, callers of every kind, and
//! messages to send. Each test has a realm or a federation of its own and leaves nothing behind.

pub mod balancer;
pub mod ca;
pub mod call;
pub mod called;
pub mod dead_peer;
pub mod evidence;
pub mod federation;
pub mod forge;
pub mod hostile;
pub mod insider;
pub mod liar;
pub mod message;
pub mod mutate;
pub mod net;
pub mod net_domain;
pub mod operator;
pub mod outsider;
pub mod paper_log;
pub mod policies;
pub mod postgres;
pub mod python;
pub mod raw;
pub mod realm;
pub mod receipts;
pub mod restored;
pub mod scene;
pub mod seed;
pub mod traffic;
pub mod verifiers;
pub mod wire;

pub use federation::Federation;
pub use realm::{Realm, names};
