//! What lets one party believe another: names, keys, certificates, TLS, and the sealed envelope.
//! Knows neither gRPC nor a database.

pub mod digest;
pub mod names;
