//! TLS 1.3 between agents and gateways, with rustls on aws-lc-rs: who may connect, checked by SPIFFE id
//! under the roots of the domain that the id names, and by that domain's revocation lists.
//!
//! - The hybrid post-quantum key exchange X25519MLKEM768 is preferred, classical ones are accepted.
//! - No session is ever resumed, on either side: rustls checks a client's certificate only on a full
//!   handshake, so a revoked agent could come back with a ticket.
//! - Certificates, roots and revocation lists are replaced while running; the next handshake uses them.

use std::sync::{Arc, LazyLock};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer},
};

pub use self::{
    acceptor::{Acceptor, Peer},
    connector::{Connector, admitted},
    cut::Cut,
    error::{Fault, SetupError, TlsError},
    identity::Identity,
    socket::{ProxyError, connect, connect_through_proxy, tune},
};
use crate::names::Domain;

mod acceptor;
mod connector;
mod cut;
mod error;
mod identity;
mod socket;
#[cfg(test)]
mod tests;

/// Whom to believe about the names of one domain. Another domain's roots vouch for none of them.
#[derive(Debug, Clone)]
pub struct DomainTrust {
    /// The domain.
    pub domain: Domain,
    /// The certificates of its authority: one, or two while its key changes.
    pub roots: Vec<CertificateDer<'static>>,
    /// Its revocation lists. With none, nothing counts as revoked. With any, there must be a valid one
    /// of every root whose certificates are to be believed.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
}

/// HTTP/2, the one protocol spoken inside.
const ALPN: &[u8] = b"h2";

/// The one provider of cryptography, whatever the process's default is.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
