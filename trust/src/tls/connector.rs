//! The side of TLS that calls: an agent, or a gateway that calls its peer.

use std::{
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use liaison_proto::limits;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
    version::TLS13,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    ALPN, DomainTrust, Fault, Identity, SetupError, TlsError, acceptor::store, error::unjudged, provider,
};
use crate::{
    certificate::Certificate,
    digest::{Digest, sha256},
    names::{Domain, SpiffeId},
};

/// Makes TLS connections to one domain. What it believes is replaced while it runs.
pub struct Connector {
    side: ArcSwap<Side>,
}

/// What a connector believes, and what it proves itself with.
struct Side {
    anchor: Anchor,
    identity: Option<Identity>,
}

#[derive(Debug, Clone)]
enum Anchor {
    /// The roots and revocation lists of a domain.
    Domain(Domain, Arc<WebPkiServerVerifier>),
    /// The SHA-256 of a root, which the server sends.
    Pinned(Digest),
}

impl Connector {
    /// A connector that believes certificates of a domain, and proves itself as `identity` if the
    /// server asks.
    pub fn new(trust: DomainTrust, identity: Option<Identity>) -> Result<Self, SetupError> {
        Ok(Self { side: ArcSwap::from_pointee(Side::new(trust, identity)?) })
    }

    /// A connector for enrolment, which knows of the domain's root only the SHA-256 of its DER. The
    /// server must send that root.
    pub fn pinned(fingerprint: Digest) -> Self {
        Self { side: ArcSwap::from_pointee(Side { anchor: Anchor::Pinned(fingerprint), identity: None }) }
    }

    /// Replaces all that [`Self::new`] was given, for the handshakes that begin from now on. If it
    /// fails, nothing changes.
    pub fn replace(&self, trust: DomainTrust, identity: Option<Identity>) -> Result<(), SetupError> {
        self.side.store(Arc::new(Side::new(trust, identity)?));
        Ok(())
    }

    /// Shakes hands with `expected`, for [`limits::TLS_HANDSHAKE`] at most. Host names are not checked,
    /// the SPIFFE id is. Whether the server admits us it says only after this: see [`admitted`].
    pub async fn connect<IO>(&self, io: IO, expected: &SpiffeId) -> Result<TlsStream<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let side = self.side.load_full();
        if let Anchor::Domain(domain, _) = &side.anchor
            && domain != expected.domain()
        {
            return Err(TlsError::NoRoots(expected.clone()));
        }
        let verifier = Arc::new(Expect {
            anchor: side.anchor.clone(),
            expected: expected.clone(),
            seen: OnceLock::new(),
        });
        let config = config(Arc::clone(&verifier), side.identity.as_ref()).map_err(TlsError::Protocol)?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(no_host(), io);
        match timeout(limits::TLS_HANDSHAKE, handshake).await {
            Err(_elapsed) => Err(TlsError::NoAnswer),
            Ok(Err(error)) => Err(verifier.explain(TlsError::from_io(&error))),
            Ok(Ok(stream)) => Ok(stream),
        }
    }
}

/// Waits for the first byte of a server that speaks first, as HTTP/2 servers do, for
/// [`limits::TLS_HANDSHAKE`] at most; the byte stays to be read. In TLS 1.3 a client's handshake is over
/// before the server has looked at its certificate: only now is it known to be accepted, or why not.
pub async fn admitted<IO>(mut stream: TlsStream<IO>) -> Result<TlsStream<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(limits::TLS_HANDSHAKE, stream.fill_buf()).await {
        Err(_elapsed) => Err(TlsError::NoAnswer),
        Ok(Err(error)) => Err(TlsError::from_io(&error)),
        Ok(Ok([])) => Err(TlsError::Closed),
        Ok(Ok(_)) => Ok(stream),
    }
}

impl Side {
    fn new(
        DomainTrust { domain, roots, crls }: DomainTrust,
        identity: Option<Identity>,
    ) -> Result<Self, SetupError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(store(&domain, roots)?, provider())
            .with_crls(crls)
            .enforce_revocation_expiration()
            .build()
            .map_err(SetupError::trust(&domain))?;
        Ok(Self { anchor: Anchor::Domain(domain, verifier), identity })
    }
}

fn config(verifier: Arc<Expect>, identity: Option<&Identity>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// rustls wants a host to check the certificate for; ours is checked for a SPIFFE id instead. Being an
/// address, it is not sent either.
fn no_host() -> ServerName<'static> {
    Ipv4Addr::UNSPECIFIED.into()
}

/// Checks the server of one connection.
#[derive(Debug)]
struct Expect {
    anchor: Anchor,
    expected: SpiffeId,
    /// The certificate that the server presented, for the explanation.
    seen: OnceLock<Certificate>,
}

impl Expect {
    /// The chain, its lives, uses and revocations, not the name.
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let verifier = match &self.anchor {
            Anchor::Domain(_, verifier) => Arc::clone(verifier),
            Anchor::Pinned(fingerprint) => {
                let root = intermediates.last().filter(|root| sha256(root) == *fingerprint);
                let root = root.ok_or(CertificateError::UnknownIssuer)?.clone().into_owned();
                let roots =
                    store(self.expected.domain(), vec![root]).map_err(|_| CertificateError::BadEncoding)?;
                WebPkiServerVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|_| CertificateError::BadEncoding)?
            }
        };
        match verifier.verify_server_cert(leaf, intermediates, &no_host(), &[], now) {
            // rustls checks the host last, and `no_host` is nobody's: the chain itself is valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            checked => checked.map(|_| ()).map_err(unjudged),
        }
    }

    fn explain(&self, error: TlsError) -> TlsError {
        let Some(seen) = self.seen.get() else { return error };
        match error {
            TlsError::Theirs(Fault::UnknownCa) => {
                TlsError::Intercepted { issuer: seen.issuer.chars().take(LONGEST_ISSUER_CHARS).collect() }
            }
            TlsError::Theirs(Fault::Misnamed) => {
                TlsError::WrongName { expected: self.expected.clone(), presented: seen.uri.clone() }
            }
            error => error,
        }
    }
}

/// Of an issuer that somebody unknown made up, this much is shown.
const LONGEST_ISSUER_CHARS: usize = 128;

impl ServerCertVerifier for Expect {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let read = Certificate::read(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let read = self.seen.get_or_init(|| read);
        self.verify_chain(leaf, intermediates, now)?;
        if read.id().as_ref() != Some(&self.expected) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
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
