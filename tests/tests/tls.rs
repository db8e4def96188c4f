//! The exchange as a TLS client sees it that is none of ours: rustls as it comes, host names checked,
//! sessions resumed where the server allows it.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use liaison_demo::Gateway;
use liaison_tests::{
    Realm,
    insider::{self, Insider},
    names::POLICE,
    policies,
};
use liaison_trust::tls::Identity;
use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, NamedGroup, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

#[tokio::test]
async fn a_revoked_agency_does_not_come_back_by_resuming_a_session() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let police = Insider::enrol(&realm.gateway, POLICE).await?;
    // One configuration, so that tickets of one connection could serve the next.
    let config = client(&realm.gateway, Some(&police.identity), &TLS13)?;
    for attempt in ["first", "second"] {
        let stream = connect(&realm.gateway, &config).await?;
        let (_, session) = stream.get_ref();
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full), "{attempt}");
        assert_eq!(session.tls13_tickets_received(), 0, "a ticket would let a revoked agency resume");
        let group = session.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768), "the hybrid key exchange is preferred");
        assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
    }
    realm.gateway.command(&["agency", "revoke", POLICE]).await?;
    assert_eq!(alert(connect(&realm.gateway, &config).await)?, AlertDescription::CertificateRevoked);
    Ok(())
}

#[tokio::test]
async fn nothing_older_than_tls_1_3_is_spoken() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let old = client(&realm.gateway, None, &TLS12)?;
    assert_eq!(alert(connect(&realm.gateway, &old).await)?, AlertDescription::ProtocolVersion);
    connect(&realm.gateway, &client(&realm.gateway, None, &TLS13)?).await.map(drop)
}

fn client(
    gateway: &Gateway,
    identity: Option<&Identity>,
    version: &'static SupportedProtocolVersion,
) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for root in insider::trust(gateway)?.roots {
        roots.add(root)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => config.with_client_auth_cert(
            identity.chain().to_vec(),
            PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes())?,
        )?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::in_memory_sessions(16);
    Ok(Arc::new(config))
}

/// Connects, and waits for the first byte of the server, which comes once it has taken the client's
/// certificate; tickets would have come before.
async fn connect(gateway: &Gateway, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(gateway.exchange()).await?;
    let host = ServerName::try_from("localhost")?;
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(host, tcp).await?;
    stream.read_u8().await?;
    Ok(stream)
}

/// The alert with which the server ended a connection.
fn alert<T>(connected: Result<T>) -> Result<AlertDescription> {
    let Err(error) = connected else { bail!("connected") };
    let error = error.downcast::<std::io::Error>()?;
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Ok(*alert),
        _ => Err(error).context("the server ended the connection without an alert"),
    }
}
