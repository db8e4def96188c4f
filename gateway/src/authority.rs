//! The domain's authority at work: agencies' certificates, the gateway's own, which it renews long
//! before it ends, the revocation lists that every handshake is checked against, and the change of the CA.

mod cas;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use liaison_proto::admin::v1::authority_step::Code as Step;
use liaison_trust::{
    ca::{Authority as Ca, CaError, RevokedSerial},
    certificate::{Certificate, ReadError},
    digest::Digest,
    names::{AgencyAddress, SpiffeId},
    tls::{Acceptor, DomainTrust, Identity, SetupError},
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::sync::{Mutex, watch};

pub use cas::{Cas, CasError, Other, Stage};

use crate::{
    config::Config,
    data::DataError,
    limits,
    revoked::{Revocations, RevokedFile},
    store::{IssuedBy, IssuedCertificate, RevokedCertificate, Store, StoreError},
};

/// The authority of a running gateway.
pub struct Authority {
    cas: ArcSwap<Cas>,
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
    /// What this gateway was asked to write into that file, or has read there.
    ended: std::sync::Mutex<Revocations>,
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
    #[error(transparent)]
    Cas(#[from] CasError),
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
    /// Who issued it, and what its owner is told with it.
    pub by: IssuedBy,
}

impl Authority {
    /// Starts the authority: what the file of revocations holds is merged into the database, a
    /// certificate for the gateway issued, and the acceptor set up.
    ///
    /// # Errors
    /// The CA, the database or the file of revocations is not usable.
    pub async fn start(
        cas: Cas,
        config: &Config,
        file: RevokedFile,
        revocations: &Revocations,
        store: &Store,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        if *cas.issuing().domain() != config.domain {
            let (ca, config) = (cas.issuing().domain().to_string(), config.domain.to_string());
            return Err(AuthorityError::Domain { ca, config });
        }
        store.merge_revocations(revocations).await?;
        store.adopt_certificates(&cas::fingerprint(cas.issuing())).await?;
        let names = config.certificate_names();
        let life = Duration::from_secs(config.limits.certificate_seconds.into());
        let own = OwnCertificate::issue(cas.issuing(), &names, life, now)?;
        let trust = trust(&cas, store, now).await?;
        let acceptor = Arc::new(Acceptor::new(own.identity.clone(), vec![trust])?);
        Ok(Self {
            cas: ArcSwap::from_pointee(cas),
            acceptor,
            names,
            life,
            own: RwLock::new(own),
            stale: AtomicBool::new(false),
            revoked: Mutex::new(file),
            ended: std::sync::Mutex::new(revocations.clone()),
            revised: watch::Sender::new(()),
        })
    }

    /// What accepts the domain's TLS connections.
    pub fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    /// The domain's roots: of the CA that issues, and while it is being changed of the other one.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.cas.load().all().map(|ca| ca.certificate_der().clone()).collect()
    }

    /// The gateway's own certificate, as it is now.
    pub fn identity(&self) -> Identity {
        self.own.read().unwrap_or_else(PoisonError::into_inner).identity.clone()
    }

    /// Changes whenever [`Self::roots`] or [`Self::identity`] does.
    pub fn revised(&self) -> watch::Receiver<()> {
        self.revised.subscribe()
    }

    /// What tokens name the domain's root by: that of the CA that issues, which the gateway shows.
    pub fn fingerprint(&self) -> Digest {
        cas::fingerprint(self.cas.load().issuing())
    }

    /// The other root's fingerprint while the CA is being changed.
    pub fn other_fingerprint(&self) -> Option<Digest> {
        self.cas.load().other().map(|other| cas::fingerprint(other.ca()))
    }

    /// The fingerprints of all roots, that of the CA that issues first, one behind the other.
    pub fn fingerprints(&self) -> Vec<u8> {
        self.cas.load().fingerprints()
    }

    /// The step of a change of the CA that comes next.
    pub fn next_step(&self) -> Step {
        match self.cas.load().other() {
            None => Step::Prepare,
            Some(Other::Next(_)) => Step::Switch,
            Some(Other::Former(_)) => Step::Retire,
        }
    }

    /// The members that the next step would shut out, until they enrol anew. While the next CA is only
    /// prepared: those that got no certificate since, and so don't know it. While the former one is still
    /// believed: those whose certificate is of it. Members whose certificate ended count as long as it lets
    /// them come back.
    ///
    /// # Errors
    /// The database failed.
    pub async fn behind(
        &self,
        store: &Store,
        now: OffsetDateTime,
    ) -> Result<Vec<AgencyAddress>, AuthorityError> {
        let cas = self.cas.load_full();
        let Some(other) = cas.other() else { return Ok(Vec::new()) };
        let root = cas::fingerprint(other.ca());
        let knows = |by: &IssuedBy| match other {
            Other::Next(_) => by.other == Some(root),
            Other::Former(_) => by.ca != root,
        };
        let newest = store.newest_certificates(now - limits::RENEWAL_GRACE).await?;
        Ok(newest.into_iter().filter(|(_, by)| !knows(by)).map(|(agency, _)| agency).collect())
    }

    /// Takes a step of a change of the CA: on disk first, then in what runs. One at a time, and only
    /// [`Self::next_step`].
    ///
    /// # Errors
    /// The files could not be changed, and what runs is as before; or handshakes still follow what was
    /// before, until [`Self::publish`] succeeds. Taking the step again, or a restart, goes on from there.
    pub async fn take(&self, step: Step, store: &Store, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let cas = self.cas.load_full();
        let changed = match step {
            Step::Unspecified => return Ok(()),
            Step::Prepare => cas.prepare()?,
            Step::Switch => cas.switch()?,
            Step::Retire => cas.retire()?,
        };
        self.cas.store(Arc::new(changed));
        self.stale.store(true, Ordering::Release);
        if step == Step::Switch {
            self.issue_own(now, |_| true)?;
        }
        self.revised.send_replace(());
        self.publish(store, now).await
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
        let cas = self.cas.load();
        let by = IssuedBy {
            ca: cas::fingerprint(cas.issuing()),
            other: cas.other().map(|other| cas::fingerprint(other.ca())),
        };
        let leaf = cas.issuing().sign_request(
            &request.into(),
            &SpiffeId::Agency(agency.clone()),
            now - liaison_proto::limits::CLOCK_AHEAD,
            now + self.life,
        )?;
        let read = Certificate::read(&leaf)?;
        let record =
            IssuedCertificate { serial: read.serial, agency: agency.clone(), not_after: read.not_after };
        Ok(Issued { leaf: leaf.to_vec(), record, by })
    }

    /// A certificate with the root that it leads to.
    pub fn chain(&self, leaf: Vec<u8>) -> Vec<Bytes> {
        let cas = self.cas.load();
        let issuer = cas.recognise(&leaf).map_or(cas.issuing(), |(issuer, _)| issuer);
        let root = Bytes::copy_from_slice(issuer.certificate_der());
        vec![leaf.into(), root]
    }

    /// Reads a certificate that a CA issued which is believed, whether or not it is still valid.
    ///
    /// # Errors
    /// Somebody else issued it, or it is no certificate.
    pub fn recognise(&self, certificate: &[u8]) -> Result<Certificate, CaError> {
        self.cas.load().recognise(certificate).map(|(_, read)| read)
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
            peerings: Vec::new(),
        };
        self.write_down(revocations).await
    }

    /// Writes down what ended, durably and outside the database.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn write_down(&self, revocations: Revocations) -> Result<(), AuthorityError> {
        // Whether or not it can be written: nobody comes back by what another gateway, or a database of before, says.
        self.note(revocations.clone());
        self.append(&revocations).await
    }

    /// Adds to the file of revocations; what this gateway goes by is as before.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn append(&self, revocations: &Revocations) -> Result<(), AuthorityError> {
        Ok(self.revoked.lock().await.append(revocations)?)
    }

    /// Goes by what ended from now on, before it is written down.
    pub fn note(&self, revocations: Revocations) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(revocations);
    }

    /// What is written down.
    pub async fn written(&self) -> Revocations {
        self.revoked.lock().await.written().clone()
    }

    /// What ended, as far as this gateway was asked to write it down.
    pub fn ended(&self) -> Revocations {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let cas = self.cas.load_full();
        let trust = trust(&cas, store, now).await?;
        Ok(self.acceptor.replace(self.identity(), vec![trust])?)
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
        if self.issue_own(now, |own| now >= own.renew)? {
            self.stale.store(true, Ordering::Release);
            self.revised.send_replace(());
        }
        Ok(())
    }

    /// Replaces the gateway's own certificate if that is due.
    fn issue_own(
        &self,
        now: OffsetDateTime,
        is_due: impl FnOnce(&OwnCertificate) -> bool,
    ) -> Result<bool, AuthorityError> {
        // Held from before the CA is looked up, so that one of the former CA never replaces one of the next.
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        let due = is_due(&own);
        if due {
            *own = OwnCertificate::issue(self.cas.load().issuing(), &self.names, self.life, now)?;
        }
        Ok(due)
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

/// What the acceptor believes: every CA, each with a list of its own. Serial numbers are random, so that
/// each list may name all that are revoked.
async fn trust(cas: &Cas, store: &Store, now: OffsetDateTime) -> Result<DomainTrust, AuthorityError> {
    let revoked: Vec<_> = store
        .revocations(now)
        .await?
        .into_iter()
        .map(|revoked| RevokedSerial { serial: revoked.certificate.serial, at: revoked.at })
        .collect();
    // The moment serves as the list's number: it grows, and survives a restore.
    let number = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let list = |ca: &Ca| ca.revocation_list(&revoked, number, now, now + limits::REVOCATION_LIST_LIFE);
    Ok(DomainTrust {
        domain: cas.issuing().domain().clone(),
        roots: cas.all().map(|ca| ca.certificate_der().clone()).collect(),
        crls: cas.all().map(list).collect::<Result<_, _>>()?,
    })
}
