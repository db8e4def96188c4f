//! Versions, key exchanges, resumption, time: with clients of other makes too.

use std::time::Duration;

use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig,
    crypto::aws_lc_rs::{default_provider, kx_group},
    server::ServerSessionMemoryCache,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::*;

/// A client of another make: it checks the host name, and knows nothing of SPIFFE.
fn foreign(
    be: &Realm,
    client: &Identity,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    foreign_with(be, client, versions, default_provider())
}

fn foreign_with(
    be: &Realm,
    client: &Identity,
    versions: &[&'static rustls::SupportedProtocolVersion],
    provider: CryptoProvider,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(be.authority.certificate_der().clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client.certified())))
}

/// Connects to a server that greets, and hears the greeting.
async fn hear(config: &Arc<ClientConfig>, io: DuplexStream) -> Result<TlsStream<DuplexStream>, TlsError> {
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = connector
        .connect("localhost".try_into().unwrap(), io)
        .await
        .map_err(|error| TlsError::from_io(&error))?;
    stream.read_exact(&mut [0; 5]).await.map_err(|error| TlsError::from_io(&error))?;
    Ok(stream)
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_and_the_protocol_http2() {
    let be = Realm::new("be");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust()]).unwrap();
    let connector = Connector::new(be.trust(), Some(be.agency("a"))).unwrap();
    let (client, server) = duplex(64 << 10);
    let expected = id("spiffe://be/gateway");
    let (server, client) = tokio::join!(acceptor.accept(server), connector.connect(client, &expected));
    let (server, client) = (server.unwrap().0, client.unwrap());
    let connection = server.get_ref().1;
    assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn a_client_without_post_quantum_is_served() {
    let be = Realm::new("be");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust()]).unwrap();
    let classical = CryptoProvider { kx_groups: vec![kx_group::X25519], ..default_provider() };
    let config = Arc::new(foreign_with(&be, &be.agency("a"), &[&TLS13], classical));
    let (client, server) = duplex(64 << 10);
    let (peer, stream) = tokio::join!(greet(&acceptor, server), hear(&config, client));
    assert!(matches!(peer, Ok(Peer::Known { .. })));
    let group = stream.unwrap().get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519);
}

#[tokio::test]
async fn tls_1_2_is_refused_on_either_side() {
    let be = Realm::new("be");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust()]).unwrap();
    let config = Arc::new(foreign(&be, &be.agency("a"), &[&TLS12]));
    let (client, server) = duplex(64 << 10);
    let (peer, stream) = tokio::join!(greet(&acceptor, server), hear(&config, client));
    assert_eq!((peer.err(), stream.err()), (Some(TlsError::Version), Some(TlsError::Version)));

    let old = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(be.gateway().certified())));
    let connector = Connector::new(be.trust(), None).unwrap();
    let (client, server) = duplex(64 << 10);
    let expected = id("spiffe://be/gateway");
    let (_, stream) =
        tokio::join!(TlsAcceptor::from(Arc::new(old)).accept(server), connector.connect(client, &expected));
    assert_eq!(stream.err(), Some(TlsError::Version));
}

#[tokio::test]
async fn a_ticket_spares_nobody_the_check() {
    let be = Realm::new("be");
    let agency = be.agency("a");
    let resuming = Arc::new(foreign(&be, &agency, &[&TLS13]));
    // Another server of the domain hands out tickets, so that the client does try to resume.
    let mut generous = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(be.gateway().certified())));
    generous.session_storage = ServerSessionMemoryCache::new(8);
    let generous = TlsAcceptor::from(Arc::new(generous));
    let meet_generous = async || {
        let (client, server) = duplex(64 << 10);
        let server = async {
            let mut stream = generous.accept(server).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
        };
        tokio::join!(server, hear(&resuming, client)).1.unwrap().get_ref().1.handshake_kind()
    };
    assert_eq!(meet_generous().await, Some(HandshakeKind::Full));
    assert_eq!(meet_generous().await, Some(HandshakeKind::Resumed), "this client does resume");

    let acceptor = Acceptor::new(be.gateway(), vec![be.trust_revoking(&[])]).unwrap();
    for _ in 0..2 {
        let (client, server) = duplex(64 << 10);
        let (peer, stream) = tokio::join!(greet(&acceptor, server), hear(&resuming, client));
        assert!(matches!(peer, Ok(Peer::Known { .. })));
        assert_eq!(stream.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    acceptor.replace(be.gateway(), vec![be.trust_revoking(&[&agency])]).unwrap();
    assert_eq!(meet_generous().await, Some(HandshakeKind::Resumed), "the client has a ticket again");
    let (client, server) = duplex(64 << 10);
    let (peer, stream) = tokio::join!(greet(&acceptor, server), hear(&resuming, client));
    assert_eq!(peer, Err(TlsError::Theirs(Fault::Revoked)));
    assert_eq!(stream.err(), Some(TlsError::Ours(Fault::Revoked)));
}

#[tokio::test]
async fn our_own_client_does_not_resume() {
    let be = Realm::new("be");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust()]).unwrap();
    let connector = Connector::new(be.trust(), Some(be.agency("a"))).unwrap();
    let expected = id("spiffe://be/gateway");
    for _ in 0..2 {
        let (client, server) = duplex(64 << 10);
        let client = async { admitted(connector.connect(client, &expected).await?).await };
        let (_, stream) = tokio::join!(greet(&acceptor, server), client);
        let mut stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello", "what told of the admission is still there to read");
    }
}

#[tokio::test]
async fn a_slow_handshake_is_cut() {
    let be = Realm::new("be");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust()]).unwrap();
    let (mut client, server) = duplex(64 << 10);
    // The beginning of a record that never ends.
    client.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    let refused = acceptor.accept_within(Duration::from_millis(20), server).await;
    assert_eq!(refused.err(), Some(TlsError::NoAnswer));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "the connection is closed");
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let be = Realm::new("be");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust()]).unwrap();
    let (mut client, server) = duplex(64 << 10);
    client.write_all(b"GET / HTTP/1.1\r\nHost: be\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert!(matches!(acceptor.accept(server).await.err(), Some(TlsError::Protocol(_))));
    let (client, server) = duplex(64 << 10);
    drop(client);
    assert_eq!(acceptor.accept(server).await.err(), Some(TlsError::Closed));
}

#[tokio::test]
async fn a_refused_client_that_talks_on_still_learns_why() {
    let be = Realm::new("be");
    let agency = be.agency("a");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust_revoking(&[&agency])]).unwrap();
    let connector = Connector::new(be.trust(), Some(agency)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (io, _) = listener.accept().await.unwrap();
        acceptor.accept(io).await.err()
    };
    let client = async {
        let io = TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect(io, &id("spiffe://be/gateway")).await.unwrap();
        // If the server just closed the connection, it would be reset, and most clients stop at the
        // first write that fails.
        for _ in 0..8 {
            stream.write_all(&[0; 4 << 10]).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        admitted(stream).await.err()
    };
    let (server, client) = tokio::join!(server, client);
    assert_eq!(server, Some(TlsError::Theirs(Fault::Revoked)));
    assert_eq!(client, Some(TlsError::Ours(Fault::Revoked)));
}
