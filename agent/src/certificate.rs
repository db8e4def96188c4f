//! This agent's own certificate: read, judged by its age, and replaced before it ends.

use std::path::Path;

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
    /// The key with which the heads of the domain's log are signed: the first that the gateway told. None in a folder of
    /// before there was a log, until the certificate is renewed.
    pub log_key: Option<VerifyingKey>,
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
        let gateway = public_key(&folder.gateway_key())?;
        Ok(Self {
            trust: DomainTrust { domain: config.agency.domain().clone(), roots, crls: Vec::new() },
            gateway,
            log_key: log_key(folder)?,
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

/// The key that was pinned for the domain's log.
fn log_key(folder: &Folder) -> Result<Option<VerifyingKey>, FolderError> {
    match public_key(&folder.log_key()) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

fn public_key(path: &Path) -> Result<VerifyingKey, FolderError> {
    hex::decode(folder::read_text(path)?.trim())
        .ok()
        .and_then(|bytes| VerifyingKey::try_from(bytes.as_slice()).ok())
        .ok_or_else(|| FolderError::damaged(path, "not an Ed25519 public key in hexadecimal"))
}

/// Stores what the gateway issued, if it is a certificate of this agent's key: roots and the gateway's
/// key first, the certificate last. Of the log's key the first stays.
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
    // A gateway of before there was a log has none.
    let told = Some(&bundle.log_key).filter(|key| !key.is_empty());
    let told = told.map(|key| VerifyingKey::try_from(key.as_ref())).transpose();
    let told = told.map_err(|_| CredentialsError::Answer("what is no key of its log"))?;
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
    match (log_key(folder)?, told) {
        (None, Some(told)) => {
            folder::write_private(&folder.log_key(), hex::encode(told.as_bytes()).as_bytes())?
        }
        // Heads that another key signs are an alarm; see `crate::log`.
        (Some(pinned), Some(told)) if pinned != told => tracing::error!(
            "the gateway names another key of its log than the one that this agent was enrolled with, which stays: ask the domain's administrator; enrol again if it is right"
        ),
        _ => {}
    }
    folder::write_private(&folder.certificate(), identity.chain_pem().as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log, testing};

    #[tokio::test]
    async fn a_renewal_that_names_another_key_of_the_log_does_not_replace_the_first() {
        let domain = testing::Domain::new();
        let (dir, agent) = domain.agent("shelter").await;
        let folder = Folder::new(dir.path());
        let config = Config::load(&folder).unwrap();
        let other = liaison_trust::keys::SigningKey::generate();
        domain.issue(&folder, &config, other.public());
        assert_eq!(log_key(&folder).unwrap(), Some(domain.log.public()));
        assert_eq!(agent.link.log_key(), Some(domain.log.public()));
        // A head by that key is of no log that this agent knows.
        let name = "be/log/1".parse().unwrap();
        let signer = liaison_trust::log::LogSigner::new(name, other);
        let head = signer.sign(1, liaison_trust::digest::sha256(b"")).unwrap().to_string();
        let by = "be/hospital".parse().unwrap();
        let heads = log::HeldHeads { log: head.into_bytes().into(), ..log::HeldHeads::default() };
        log::shown(&agent, &by, &heads).await.unwrap();
        let alarms = agent.store.alarms(9).await.unwrap();
        let kinds: Vec<_> = alarms.iter().map(|alarm| alarm.kind).collect();
        assert_eq!(kinds, [liaison_proto::case::v1::log_alarm::Code::WrongKey]);
    }
}
