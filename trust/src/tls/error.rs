//! What goes wrong with TLS: whose fault it is, what was wrong, what to do.

use std::{fmt, io, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, Error, OtherError, PeerIncompatible, PeerMisbehaved,
    server::VerifierBuilderError,
};

use crate::{
    certificate::ReadError,
    names::{Domain, SpiffeId},
};

/// Why an identity, an acceptor or a connector can't be made from what it was given.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// An identity without a certificate.
    #[error("there is no certificate for the private key")]
    NoCertificate,
    /// A certificate and a private key that don't belong together.
    #[error("the certificate and the private key don't belong together")]
    KeyMismatch,
    /// Not a private key of ours.
    #[error("not a PEM file of one ECDSA P-256 private key (PKCS #8)")]
    Key,
    /// An unreadable certificate.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Roots that are missing or unreadable, or an unreadable revocation list.
    #[error("the roots or revocation lists of {domain} are unusable: {reason}")]
    Trust {
        /// Whose.
        domain: Domain,
        /// What is wrong with them.
        reason: String,
    },
    /// A domain that was given twice.
    #[error("{0} has roots twice; give all roots of a domain at once")]
    Twice(Domain),
    /// rustls refused.
    #[error("TLS can't be set up: {0}")]
    Rustls(#[from] Error),
}

impl SetupError {
    pub(super) fn trust(domain: &Domain) -> impl Fn(VerifierBuilderError) -> Self {
        move |error| Self::Trust { domain: domain.clone(), reason: error.to_string() }
    }
}

/// Why a TLS connection didn't come about, or ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// We refused the other side's certificate.
    #[error("the other side's certificate {0}")]
    Theirs(Fault),
    /// The other side refused our certificate.
    #[error("the other side refused our certificate: it {0}")]
    Ours(Fault),
    /// The other side is somebody else than who was called.
    #[error("the other side is {}, not {expected}", presented.as_deref().unwrap_or("nobody that SPIFFE names"))]
    WrongName {
        /// Who was called.
        expected: SpiffeId,
        /// Who answered, as far as a certificate of the right authority says it.
        presented: Option<String>,
    },
    /// The chain of the server's certificate ends in a root that is not the domain's.
    #[error(
        "the connection is intercepted, or the gateway has another authority: its certificate is from {issuer:?}"
    )]
    Intercepted {
        /// The certificate's issuer as the certificate itself names it, unverified.
        issuer: String,
    },
    /// A name of a domain whose roots this connector doesn't hold.
    #[error("there are no roots for the domain of {0}")]
    NoRoots(SpiffeId),
    /// The other side doesn't speak TLS 1.3.
    #[error("the other side doesn't speak TLS 1.3")]
    Version,
    /// The other side took too long.
    #[error("the other side didn't answer in time")]
    NoAnswer,
    /// The other side closed the connection without a word.
    #[error("the other side closed the connection")]
    Closed,
    /// Anything else that goes against the protocol.
    #[error("the TLS handshake failed: {0}")]
    Protocol(Error),
    /// The network failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
}

/// What is wrong with a certificate. The other side's view of ours arrives as a TLS alert, which tells
/// less: [`Fault::Expired`] then stands for not yet valid as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its issuer is no authority of the domain it names.
    UnknownCa,
    /// Its life is over.
    Expired,
    /// Its life hasn't begun.
    NotYetValid,
    /// It is on its authority's revocation list.
    Revoked,
    /// It is made for other purposes.
    WrongUsage,
    /// Whether it is revoked can't be said: the revocation list is missing, wrong or out of date.
    Unjudged,
    /// It names somebody else. Of ours it is never said: there is one alert for this and for
    /// [`Fault::Bad`].
    Misnamed,
    /// It is malformed or badly signed; if it is ours, perhaps it names somebody else.
    Bad,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownCa => "was not issued by an authority that is trusted for its domain",
            Self::Expired => "has expired",
            Self::NotYetValid => "is not valid yet",
            Self::Revoked => "has been revoked",
            Self::WrongUsage => "is made for another use",
            Self::Unjudged => "can't be judged: the revocation list is missing or out of date",
            Self::Misnamed => "names somebody else",
            Self::Bad => "is malformed, badly signed or names somebody else",
        })
    }
}

impl TlsError {
    /// Reads what a later read or write on a TLS stream failed with. In TLS 1.3 a server's refusal of
    /// the client's certificate arrives only there, after the client's handshake.
    pub fn from_io(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match (inner, error.kind()) {
            (Some(error), _) => Self::from_rustls(error),
            (None, io::ErrorKind::TimedOut) => Self::NoAnswer,
            (
                None,
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe,
            ) => Self::Closed,
            (None, kind) => Self::Io(kind),
        }
    }

    /// What to do about it, for a person.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Ours(Fault::Expired | Fault::NotYetValid) => {
                "check this machine's clock, then renew the certificate or enrol again"
            }
            Self::Ours(Fault::Revoked) => {
                "ask the gateway's administrator why, and for a new token to enrol with"
            }
            Self::Ours(Fault::Unjudged) => "ask the gateway's administrator to look at its revocation list",
            Self::Ours(_) => "enrol again with a token of the gateway that is called",
            Self::Theirs(Fault::Expired | Fault::NotYetValid) => {
                "check the clocks of both machines, then renew that certificate"
            }
            Self::Theirs(Fault::Unjudged) => "fetch or issue a new revocation list of that domain",
            Self::Theirs(_) => "don't trust that connection; tell whoever runs the other side",
            Self::WrongName { .. } => "check the address that is called, and who answers there",
            Self::Intercepted { .. } => {
                "ask the network's administrator to exempt the gateway from TLS inspection; if there is none, tell the gateway's administrator"
            }
            Self::NoRoots(_) => "enrol at, or peer with, that domain first",
            Self::Version => "upgrade the other side to TLS 1.3, and check that its address is a gateway's",
            Self::NoAnswer | Self::Closed | Self::Io(_) => {
                "check the address, the proxy and the firewall, and that the gateway runs; then try again"
            }
            Self::Protocol(_) => {
                "check that the address is a gateway's and that nothing on the way changes the traffic"
            }
        }
    }

    fn from_rustls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::Theirs(theirs(error)),
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            )
            | Error::PeerMisbehaved(PeerMisbehaved::AttemptedDowngradeToTls12WhenTls13IsSupported) => {
                Self::Version
            }
            Error::AlertReceived(alert) => match ours(*alert) {
                Some(fault) => Self::Ours(fault),
                None => Self::Protocol(error.clone()),
            },
            error => Self::Protocol(error.clone()),
        }
    }
}

/// Tells the other side with an alert of its own, `certificate_unknown`, that its certificate can't be
/// judged. rustls would send `unknown_ca`, and an agency would enrol again in vain.
pub(super) fn unjudged(error: Error) -> Error {
    match error {
        Error::InvalidCertRevocationList(_)
        | Error::InvalidCertificate(
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. },
        ) => CertificateError::Other(OtherError(Arc::new(Unjudged))).into(),
        error => error,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the revocation list is missing or out of date")]
struct Unjudged;

/// Our judgement of the other side's certificate.
fn theirs(error: &CertificateError) -> Fault {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => Fault::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => Fault::NotYetValid,
        E::Revoked => Fault::Revoked,
        E::UnknownIssuer => Fault::UnknownCa,
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => Fault::WrongUsage,
        E::NotValidForName | E::NotValidForNameContext { .. } => Fault::Misnamed,
        E::Other(OtherError(inner)) if inner.is::<Unjudged>() => Fault::Unjudged,
        _ => Fault::Bad,
    }
}

/// The other side's judgement of our certificate (RFC 8446, 6.2).
fn ours(alert: AlertDescription) -> Option<Fault> {
    Some(match alert {
        AlertDescription::CertificateExpired => Fault::Expired,
        AlertDescription::CertificateRevoked => Fault::Revoked,
        AlertDescription::UnknownCA => Fault::UnknownCa,
        AlertDescription::UnsupportedCertificate => Fault::WrongUsage,
        AlertDescription::CertificateUnknown => Fault::Unjudged,
        AlertDescription::BadCertificate => Fault::Bad,
        _ => return None,
    })
}
