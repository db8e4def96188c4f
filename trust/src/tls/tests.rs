//! Real handshakes: every certificate a side may present, and what the other makes of it.

use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, SanType};
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::{
    ca::{Authority, RevokedSerial, TlsKey, certificate_request},
    certificate::Certificate,
    names::SpiffeId,
};

mod clients;
mod protocol;
mod replacing;
mod servers;

/// A domain with its authority.
struct Realm {
    authority: Authority,
}

impl Realm {
    fn new(domain: &str) -> Self {
        Self { authority: Authority::create(&domain.parse().unwrap()).unwrap() }
    }

    fn gateway(&self) -> Identity {
        let [begin, end] = today();
        self.authority.issue_gateway(&["localhost".into(), "127.0.0.1".into()], begin, end).unwrap()
    }

    fn agency(&self, name: &str) -> Identity {
        self.agency_during(name, today())
    }

    fn agency_during(&self, name: &str, [begin, end]: [OffsetDateTime; 2]) -> Identity {
        let key = TlsKey::generate().unwrap();
        let request = certificate_request(&key).unwrap();
        let id = id(&format!("spiffe://{}/agency/{name}", self.authority.domain()));
        let leaf = self.authority.sign_request(&request, &id, begin, end).unwrap();
        Identity::new(vec![leaf], key).unwrap()
    }

    /// A leaf that the authority wouldn't make, with its key.
    fn forged(&self, uris: &[&str], usage: ExtendedKeyUsagePurpose) -> Identity {
        let authority_key = TlsKey::from_pem(&self.authority.key_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_der(self.authority.certificate_der(), authority_key).unwrap();
        let key = TlsKey::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        [params.not_before, params.not_after] = today();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
        params.extended_key_usages = vec![usage];
        let leaf = params.signed_by(&key, &issuer).unwrap().into();
        Identity::new(vec![leaf, self.authority.certificate_der().clone()], key).unwrap()
    }

    fn trust(&self) -> DomainTrust {
        DomainTrust {
            domain: self.authority.domain().clone(),
            roots: vec![self.authority.certificate_der().clone()],
            crls: Vec::new(),
        }
    }

    fn trust_revoking(&self, revoked: &[&Identity]) -> DomainTrust {
        self.trust_revoking_during(revoked, today())
    }

    fn trust_revoking_during(&self, revoked: &[&Identity], [begin, end]: [OffsetDateTime; 2]) -> DomainTrust {
        let revoked: Vec<_> = revoked
            .iter()
            .map(|identity| Certificate::read(identity.certificate()).unwrap().serial)
            .map(|serial| RevokedSerial { serial, at: begin })
            .collect();
        let crl = self.authority.revocation_list(&revoked, 7, begin, end).unwrap();
        DomainTrust { crls: vec![crl], ..self.trust() }
    }
}

fn today() -> [OffsetDateTime; 2] {
    days_from_now(-1, 1)
}

fn days_from_now(begin: i64, end: i64) -> [OffsetDateTime; 2] {
    let now = OffsetDateTime::now_utc();
    [now + Duration::days(begin), now + Duration::days(end)]
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

/// What each side says of a connection.
struct Meeting {
    server: Result<Peer, TlsError>,
    client: Result<(), TlsError>,
}

/// Both sides shake hands; the server speaks first, as HTTP/2 servers do.
async fn meet(acceptor: &Acceptor, connector: &Connector, expected: &str) -> Meeting {
    let (client, server) = duplex(64 << 10);
    let expected = id(expected);
    let client = async {
        let stream = connector.connect(client, &expected).await?;
        admitted(stream).await.map(|_| ())
    };
    let (server, client) = tokio::join!(greet(acceptor, server), client);
    Meeting { server, client }
}

async fn greet(acceptor: &Acceptor, io: DuplexStream) -> Result<Peer, TlsError> {
    let (mut stream, peer) = acceptor.accept(io).await?;
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    Ok(peer)
}
