//! The gateway's side of TLS.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use liaison_proto::limits;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage, ServerConnection, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
    version::TLS13,
};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{ALPN, DomainTrust, Identity, SetupError, TlsError, error::unjudged, provider};
use crate::{
    certificate::Certificate,
    names::{Domain, SpiffeId},
};

/// Accepts TLS connections. What it believes is replaced while it runs.
pub struct Acceptor {
    config: ArcSwap<ServerConfig>,
}

/// Who connected, as far as their certificate proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Somebody without a certificate, as agents are before they enrol.
    Anonymous,
    /// Somebody with a valid certificate of their domain.
    Known {
        /// Who.
        id: SpiffeId,
        /// The certificate's serial number, to revoke it by.
        serial: Vec<u8>,
        /// The last second of the certificate's life.
        not_after: OffsetDateTime,
        /// The certificate.
        certificate: CertificateDer<'static>,
    },
    /// Somebody with a valid certificate of one of the domains that names no party of it.
    Misnamed,
}

impl Acceptor {
    /// An acceptor that proves itself as `identity` and believes certificates of these domains.
    pub fn new(identity: Identity, trusts: Vec<DomainTrust>) -> Result<Self, SetupError> {
        Ok(Self { config: ArcSwap::new(config(&identity, trusts)?) })
    }

    /// Replaces all that [`Self::new`] was given, for the handshakes that begin from now on. If it
    /// fails, nothing changes.
    pub fn replace(&self, identity: Identity, trusts: Vec<DomainTrust>) -> Result<(), SetupError> {
        self.config.store(config(&identity, trusts)?);
        Ok(())
    }

    /// Shakes hands, for [`limits::TLS_HANDSHAKE`] at most. Run it in a task of its own: a slow
    /// handshake is to delay nobody else.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, Peer), TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.accept_within(limits::TLS_HANDSHAKE, io).await
    }

    pub(super) async fn accept_within<IO>(
        &self,
        limit: Duration,
        io: IO,
    ) -> Result<(TlsStream<IO>, Peer), TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let deadline = Instant::now() + limit;
        let acceptor = TlsAcceptor::from(self.config.load_full());
        match timeout_at(deadline, acceptor.accept(io).into_fallible()).await {
            Err(_elapsed) => Err(TlsError::NoAnswer),
            Ok(Err((error, io))) => {
                let _ = timeout_at(deadline, linger(io)).await;
                Err(TlsError::from_io(&error))
            }
            Ok(Ok(stream)) => {
                let peer = Peer::of(stream.get_ref().1);
                Ok((stream, peer))
            }
        }
    }
}

impl Peer {
    fn of(connection: &ServerConnection) -> Self {
        let Some(certificate) = connection.peer_certificates().and_then(|chain| chain.first()) else {
            return Self::Anonymous;
        };
        let read = Certificate::read(certificate).ok();
        match read.and_then(|read| Some((read.id()?, read))) {
            Some((id, read)) => Self::Known {
                id,
                serial: read.serial,
                not_after: read.not_after,
                certificate: certificate.clone().into_owned(),
            },
            None => Self::Misnamed,
        }
    }
}

/// Reads what a refused client still sends until it has read the alert. Closing a socket with unread
/// bytes would reset the connection, and the client would never learn why.
async fn linger<IO>(mut io: IO) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    const MOST_BYTES: usize = 64 << 10;
    io.shutdown().await?;
    let mut discarded = [0; 4 << 10];
    let mut total = 0;
    loop {
        let read = io.read(&mut discarded).await?;
        total += read;
        if read == 0 || total > MOST_BYTES {
            return Ok(());
        }
    }
}

fn config(identity: &Identity, trusts: Vec<DomainTrust>) -> Result<Arc<ServerConfig>, SetupError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(ByDomain::new(trusts)?))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Checks a client's certificate under the roots of the domain that the certificate names, and under
/// no other's.
#[derive(Debug)]
struct ByDomain {
    domains: BTreeMap<Domain, Arc<dyn ClientCertVerifier>>,
}

impl ByDomain {
    fn new(trusts: Vec<DomainTrust>) -> Result<Self, SetupError> {
        let mut domains = BTreeMap::new();
        for DomainTrust { domain, roots, crls } in trusts {
            let verifier = WebPkiClientVerifier::builder_with_provider(store(&domain, roots)?, provider())
                .with_crls(crls)
                .enforce_revocation_expiration()
                .build()
                .map_err(SetupError::trust(&domain))?;
            match domains.entry(domain) {
                Entry::Vacant(entry) => entry.insert(verifier),
                Entry::Occupied(entry) => return Err(SetupError::Twice(entry.key().clone())),
            };
        }
        Ok(Self { domains })
    }
}

/// Roots in the form that rustls checks with.
pub(super) fn store(
    domain: &Domain,
    roots: Vec<CertificateDer<'static>>,
) -> Result<Arc<RootCertStore>, SetupError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root)
            .map_err(|error| SetupError::Trust { domain: domain.clone(), reason: error.to_string() })?;
    }
    Ok(Arc::new(store))
}

impl ClientCertVerifier for ByDomain {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a client is to send the certificate it has, and hear what is wrong with it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let read =
            Certificate::read(leaf).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        if let Some(id) = read.id() {
            let verifier = self.domains.get(id.domain()).ok_or(unknown)?;
            return verifier.verify_client_cert(leaf, intermediates, now).map_err(unjudged);
        }
        // It names nobody: valid under any domain's roots, it ends up as `Peer::Misnamed`.
        let mut refusal = unknown.clone();
        for verifier in self.domains.values() {
            match verifier.verify_client_cert(leaf, intermediates, now) {
                Ok(verified) => return Ok(verified),
                Err(error) if error != unknown => refusal = unjudged(error),
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
