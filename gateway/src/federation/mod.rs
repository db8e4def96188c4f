//! Between this domain's gateway and those of other domains. Each gateway calls its peers and pushes what
//! it has for them over a link: messages of its agencies, notices about what they received, its directory.
//!
//! Of a message that leaves: the queue's lanes, `link` (made by `dial`), `give`, `forward` (looked at once more,
//! offered), `settle` (answered), `waiting` where it can't go, `lost` where the peer lost it. Of one that arrives:
//! [`service`], `incoming`, `accept` (verified, decided by this domain's layers, committed), the recipient's queue. Of a
//! notice: `give`, then the other's `relay`. Of the directory: `told`, `tell`, then the other's `listed`. Of a domain
//! itself: `own`, [`bundle`], [`peers`], [`live`]. Of its logs: `cosign`; of a peer's: `watch`, `succession`; both over
//! `call`.

mod accept;
mod again;
pub mod bundle;
mod call;
mod cosign;
mod dial;
mod forward;
mod give;
mod incoming;
mod link;
mod listed;
pub mod live;
mod lost;
mod offer;
mod own;
pub mod peers;
mod preview;
mod refusals;
mod relay;
mod service;
mod settle;
mod succession;
mod tell;
#[cfg(test)]
mod testing;
mod told;
mod waiting;
mod watch;

pub use forward::gate;
pub use link::run;
pub use listed::from_store;
pub use own::{begin_own, renew_own};
pub use preview::preview;
pub use service::{admit, caller, service};
pub use waiting::tell_all as tell_waiting;
