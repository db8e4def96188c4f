//! The sealed envelope: one signed manifest, one sealed section a category, one entry a recipient.
//! A gateway reads the manifest, the facts and the entries, and can drop sections without breaking
//! the signature; it can read none. ENVELOPE.md gives every byte.
//!
//! The road of a message is [`seal`] (its sender), [`verify`] and [`copy`] (a gateway), between two domains
//! [`verify_forward`] (the recipient's gateway), [`receive`] and [`open`] (a recipient).

mod copy;
mod derive;
mod error;
mod forward;
mod head;
mod padding;
mod receive;
mod rules;
mod seal;
#[cfg(test)]
mod tests;
mod tree;
mod verify;

pub use copy::copy;
pub use error::EnvelopeError;
pub use forward::{VerifiedForward, verify_forward};
pub use receive::{Received, ReceivedSection, open, receive};
pub use seal::{Draft, Recipient, SealError, seal};
pub use verify::{Verified, VerifiedRecipient, VerifiedSection, verify, verify_known};
