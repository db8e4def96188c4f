//! What one side of a TLS connection proves itself with.

use std::sync::Arc;

use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use zeroize::Zeroizing;

use super::SetupError;
use crate::{
    ca::TlsKey,
    certificate::{certificates_from_pem, certificates_to_pem},
};

/// A certificate, what leads from it to its root, and its private key.
#[derive(Debug, Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    leaf: CertificateDer<'static>,
    key: TlsKey,
}

impl Identity {
    /// The chain begins with the certificate of `key`.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: TlsKey) -> Result<Self, SetupError> {
        let leaf = chain.first().ok_or(SetupError::NoCertificate)?.clone();
        let certified = CertifiedKey::new(chain, key.to_rustls()?);
        certified.keys_match().map_err(|_| SetupError::KeyMismatch)?;
        Ok(Self { certified: Arc::new(certified), leaf, key })
    }

    /// Reads the PEM files that [`Self::chain_pem`] and [`Self::key_pem`] make.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, SetupError> {
        let chain = certificates_from_pem(chain)?;
        Self::new(chain, TlsKey::from_pem(key).map_err(|_| SetupError::Key)?)
    }

    /// The certificate of the key.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// The certificate and those after it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The private key.
    pub fn key(&self) -> &TlsKey {
        &self.key
    }

    /// The chain as PEM.
    pub fn chain_pem(&self) -> String {
        certificates_to_pem(self.chain())
    }

    /// The private key as PEM: a secret.
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}
