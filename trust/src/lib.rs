//! What lets one party believe another: names, keys, certificates, TLS, the sealed envelope,
//! and the log of evidence.
//! Knows neither gRPC nor a database.

pub mod ca;
pub mod certificate;
pub mod digest;
pub mod envelope;
pub mod key_record;
pub mod keys;
pub mod log;
pub mod mac;
pub mod names;
pub mod statement;
pub mod tls;
pub mod vault;

mod kem;
mod random;
