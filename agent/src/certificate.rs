//! This agent's own certificate: read, judged by its age, and replaced before it ends.

use bytes::Bytes;
use liaison_proto::exchange::v1::DomainBundle;
use liaison_trust::{
    ca::{CaError, TlsKey, certificate_request},
    certificate::{Certificate, ReadError, certificates_from_pem, certificates_to_pem},
    keys::VerifyingKey,
    names::SpiffeId,
    tls::{DomainTrust, Identity, SetupError},
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    config::Config,
    folder::{self, Folder, FolderError},
};

/// What this agent proves itself with, and whom it believes.
pub struct Credentials {
    pub identity: Identity,
    pub trust: DomainTrust,
    /// The key with which the gateway signs.
    pub gateway: VerifyingKey,
    /// Since when this agent has the certificate, as far as it knows: authorities date certificates back.
    pub since: OffsetDateTime,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error(transparent)]
    File(#[from] FolderError),
    #[error(transparent)]
    Tls(#[from] SetupError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Request(#[from] CaError),
    #[error("the gateway answered with {0}; tell its administrator")]
    Answer(&'static str),
}

impl Credentials {
    /// Reads them from the data folder.
    pub fn load(folder: &Folder, config: &Config) -> Result<Self, CredentialsError> {
        let chain = folder::read_text(&folder.certificate())?;
        let key = Zeroizing::new(folder::read_text(&folder.tls_key())?);
        let identity = Identity::from_pem(&chain, &key)?;
        let certificate = Certificate::read(identity.certificate())?;
        let roots = certificates_from_pem(&folder::read_text(&folder.roots())?)?;
        let path = folder.gateway_key();
        let gateway = hex::decode(folder::read_text(&path)?.trim())
            .ok()
            .and_then(|bytes| VerifyingKey::try_from(bytes.as_slice()).ok())
            .ok_or_else(|| FolderError::damaged(&path, "not an Ed25519 public key in hexadecimal"))?;
        Ok(Self {
            trust: DomainTrust { domain: config.agency.domain().clone(), roots, crls: Vec::new() },
            gateway,
            since: certificate.not_before,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            identity,
        })
    }

    /// A request for the next certificate, of the same key: so a crash between two files can't part them,
    /// and it works after expiry as well.
    pub fn request(&self) -> Result<Vec<u8>, CredentialsError> {
        Ok(certificate_request(self.identity.key())?.to_vec())
    }

    /// Whether the certificate's life is over.
    pub fn expired(&self, now: OffsetDateTime) -> bool {
        self.not_after <= now
    }

    /// When to renew: at two thirds of the certificate's life, less a random part of a twelfth.
    pub fn renew_at(&self) -> OffsetDateTime {
        let life = self.not_after - self.since;
        self.since + life * (2.0 / 3.0) - life * (1.0 / 12.0) * rand::random_range(0.0..1.0)
    }
}

/// Stores what the gateway issued, if it is a certificate of this agent's key: roots and the gateway's
/// key first, the certificate last.
pub fn store_issued(
    folder: &Folder,
    config: &Config,
    key: &TlsKey,
    chain: &[Bytes],
    bundle: Option<&DomainBundle>,
) -> Result<(), CredentialsError> {
    let bundle = bundle.ok_or(CredentialsError::Answer("no bundle of its domain"))?;
    if bundle.domain != config.agency.domain().as_str() {
        return Err(CredentialsError::Answer("the bundle of another domain"));
    }
    let gateway = VerifyingKey::try_from(bundle.gateway_signing_key.as_ref())
        .map_err(|_| CredentialsError::Answer("no signing key"))?;
    let der = |certificates: &[Bytes]| -> Vec<_> {
        certificates.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
    };
    let roots = der(&bundle.roots);
    if roots.is_empty() {
        return Err(CredentialsError::Answer("no roots"));
    }
    let identity = Identity::new(der(chain), key.clone())?;
    let certificate = Certificate::read(identity.certificate())?;
    if certificate.id() != Some(SpiffeId::Agency(config.agency.clone())) {
        return Err(CredentialsError::Answer("a certificate of another name"));
    }
    folder::write_private(&folder.roots(), certificates_to_pem(&roots).as_bytes())?;
    folder::write_private(&folder.gateway_key(), hex::encode(gateway.as_bytes()).as_bytes())?;
    folder::write_private(&folder.certificate(), identity.chain_pem().as_bytes())?;
    Ok(())
}
