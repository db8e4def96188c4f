//! The domain's authority at work: agencies' certificates, the gateway's own, which it renews long
//! before it ends, and the revocation list that every handshake is checked against.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use liaison_trust::{
    ca::{Authority as Ca, CaError, RevokedSerial},
    certificate::{Certificate, ReadError},
    digest::{Digest, sha256},
    names::{AgencyAddress, SpiffeId},
    tls::{Acceptor, DomainTrust, Identity, SetupError},
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::OffsetDateTime;
use tokio::sync::{Mutex, watch};

use crate::{
    config::Config,
    data::DataError,
    limits,
    revoked::{Revocations, RevokedFile},
    store::{IssuedCertificate, RevokedCertificate, Store, StoreError},
};

/// The authority of a running gateway.
pub struct Authority {
    ca: Ca,
    acceptor: Arc<Acceptor>,
    /// Host names in the gateway's certificate.
    names: Vec<String>,
    /// How long every certificate is valid.
    life: Duration,
    own: RwLock<OwnCertificate>,
    /// Whether the acceptor doesn't know yet what it should.
    stale: AtomicBool,
    /// Held while the acceptor's view is replaced, so that an older list never follows a newer one.
    revoked: Mutex<RevokedFile>,
    revised: watch::Sender<()>,
}

#[derive(Clone)]
struct OwnCertificate {
    identity: Identity,
    renew: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// Why the authority did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("the CA made a certificate that can't be read back")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Tls(#[from] SetupError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(
        "the CA certificate is for the domain {ca}, gateway.toml for {config}; use the folder of one domain"
    )]
    Domain { ca: String, config: String },
}

/// A new certificate of an agency.
pub struct Issued {
    /// The certificate, DER.
    pub leaf: Vec<u8>,
    pub record: IssuedCertificate,
}

impl Authority {
    /// Starts the authority: what the file of revocations holds is merged into the database, a
    /// certificate for the gateway issued, and the acceptor set up.
    ///
    /// # Errors
    /// The CA, the database or the file of revocations is not usable.
    pub async fn start(
        ca: Ca,
        config: &Config,
        file: RevokedFile,
        revocations: &Revocations,
        store: &Store,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        if *ca.domain() != config.domain {
            let (ca, config) = (ca.domain().to_string(), config.domain.to_string());
            return Err(AuthorityError::Domain { ca, config });
        }
        store.merge_revocations(revocations).await?;
        let names = config.certificate_names();
        let life = Duration::from_secs(config.limits.certificate_seconds.into());
        let own = OwnCertificate::issue(&ca, &names, life, now)?;
        let list = revocation_list(&ca, store, now).await?;
        let acceptor = Arc::new(Acceptor::new(own.identity.clone(), trust(&ca, list))?);
        Ok(Self {
            ca,
            acceptor,
            names,
            life,
            own: RwLock::new(own),
            stale: AtomicBool::new(false),
            revoked: Mutex::new(file),
            revised: watch::Sender::default(),
        })
    }

    /// What accepts the domain's TLS connections.
    pub fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    /// The domain's root, DER.
    pub fn root(&self) -> &[u8] {
        self.ca.certificate_der()
    }

    /// Every root that the domain's certificates lead to now, the issuing one first.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.ca.certificate_der().clone()]
    }

    /// Changes whenever the roots or the gateway's own certificate do.
    pub fn revised(&self) -> watch::Receiver<()> {
        self.revised.subscribe()
    }

    /// What the gateway proves itself with.
    pub fn identity(&self) -> Identity {
        self.own.read().unwrap_or_else(PoisonError::into_inner).identity.clone()
    }

    /// What tokens name the domain's root by.
    pub fn fingerprint(&self) -> Digest {
        sha256(self.root())
    }

    /// When the gateway's own certificate ends.
    pub fn own_not_after(&self) -> OffsetDateTime {
        self.own.read().unwrap_or_else(PoisonError::into_inner).not_after
    }

    /// Whether the gateway's own certificate is valid and will be for long enough that somebody can
    /// still act: false well before it ends.
    pub fn is_ready(&self, now: OffsetDateTime) -> bool {
        now + self.life / 8 < self.own_not_after()
    }

    /// Issues a certificate for an agency to the key of a request that proves its possession.
    ///
    /// # Errors
    /// [`CaError`] where the request is at fault.
    pub fn issue(
        &self,
        request: &[u8],
        agency: &AgencyAddress,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let leaf = self.ca.sign_request(
            &request.into(),
            &SpiffeId::Agency(agency.clone()),
            now - liaison_proto::limits::CLOCK_AHEAD,
            now + self.life,
        )?;
        let read = Certificate::read(&leaf)?;
        let record =
            IssuedCertificate { serial: read.serial, agency: agency.clone(), not_after: read.not_after };
        Ok(Issued { leaf: leaf.to_vec(), record })
    }

    /// A certificate with the root that it leads to.
    pub fn chain(&self, leaf: Vec<u8>) -> Vec<Bytes> {
        vec![leaf.into(), Bytes::copy_from_slice(self.root())]
    }

    /// Reads a certificate that this authority issued, whether or not it is still valid.
    ///
    /// # Errors
    /// Somebody else issued it, or it is no certificate.
    pub fn recognise(&self, certificate: &[u8]) -> Result<Certificate, CaError> {
        self.ca.recognise(certificate)
    }

    /// Writes down, durably and outside the database, that certificates and, with `agency`, a
    /// membership ended. The database and [`Self::publish`] are the caller's.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn remember(
        &self,
        agency: Option<&AgencyAddress>,
        certificates: Vec<IssuedCertificate>,
        at: OffsetDateTime,
    ) -> Result<(), AuthorityError> {
        let revocations = Revocations {
            agencies: agency.map(|agency| (agency.clone(), at)).into_iter().collect(),
            certificates: certificates
                .into_iter()
                .map(|certificate| RevokedCertificate { certificate, at })
                .collect(),
        };
        Ok(self.revoked.lock().await.append(&revocations)?)
    }

    /// Makes a new revocation list of what the database holds, and lets every handshake from now on
    /// be checked against it.
    ///
    /// # Errors
    /// The database or the CA failed; the former list stays, and [`Self::is_stale`] says so.
    pub async fn publish(&self, store: &Store, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let _one_at_a_time = self.revoked.lock().await;
        // Before anything is read, so that a certificate renewed meanwhile is noticed.
        self.stale.store(false, Ordering::Release);
        let published = self.replace(store, now).await;
        if published.is_err() {
            self.stale.store(true, Ordering::Release);
        }
        published
    }

    async fn replace(&self, store: &Store, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let list = revocation_list(&self.ca, store, now).await?;
        let identity = self.own.read().unwrap_or_else(PoisonError::into_inner).identity.clone();
        Ok(self.acceptor.replace(identity, trust(&self.ca, list))?)
    }

    /// Whether [`Self::publish`] is due: the last time it failed, or there is a new certificate to use.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Renews the gateway's own certificate if that is due. [`Self::publish`] puts it to use.
    ///
    /// # Errors
    /// The CA failed.
    pub fn renew_own(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        if now >= self.own.read().unwrap_or_else(PoisonError::into_inner).renew {
            let new = OwnCertificate::issue(&self.ca, &self.names, self.life, now)?;
            *self.own.write().unwrap_or_else(PoisonError::into_inner) = new;
            self.revised.send_replace(());
            self.stale.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// How often [`Self::renew_own`] is to be called: several times before a renewal is late.
    pub fn renewal_check(&self) -> Duration {
        (self.life / 16).clamp(Duration::from_millis(200), limits::AUTHORITY_CHECK)
    }
}

impl OwnCertificate {
    fn issue(ca: &Ca, names: &[String], life: Duration, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let not_after = now + life;
        // Agents' clocks may be behind.
        let identity = ca.issue_gateway(names, now - liaison_proto::limits::CLOCK_AHEAD, not_after)?;
        Ok(Self { identity, renew: now + life / 2, not_after })
    }
}

async fn revocation_list(
    ca: &Ca,
    store: &Store,
    now: OffsetDateTime,
) -> Result<CertificateRevocationListDer<'static>, AuthorityError> {
    let revoked: Vec<_> = store
        .revocations(now)
        .await?
        .into_iter()
        .map(|revoked| RevokedSerial { serial: revoked.certificate.serial, at: revoked.at })
        .collect();
    // The moment serves as the list's number: it grows, and survives a restore.
    let number = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Ok(ca.revocation_list(&revoked, number, now, now + limits::REVOCATION_LIST_LIFE)?)
}

fn trust(ca: &Ca, list: CertificateRevocationListDer<'static>) -> Vec<DomainTrust> {
    vec![DomainTrust {
        domain: ca.domain().clone(),
        roots: vec![ca.certificate_der().clone()],
        crls: vec![list],
    }]
}
