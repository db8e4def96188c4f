//! Certificates, roots and revocation lists change while connections live.

use tokio::io::AsyncReadExt as _;

use super::*;

const GATEWAY: &str = "spiffe://be/gateway";

#[tokio::test]
async fn a_revocation_meets_the_next_handshake_and_leaves_a_connection_alone() {
    let be = Realm::new("be");
    let agency = be.agency("a");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust_revoking(&[])]).unwrap();
    let connector = Connector::new(be.trust(), Some(agency.clone())).unwrap();
    let (client, server) = duplex(64 << 10);
    let expected = id(GATEWAY);
    let (server, client) = tokio::join!(acceptor.accept(server), connector.connect(client, &expected));
    let ((mut server, _), mut client) = (server.unwrap(), client.unwrap());

    acceptor.replace(be.gateway(), vec![be.trust_revoking(&[&agency])]).unwrap();

    let meeting = meet(&acceptor, &connector, GATEWAY).await;
    assert_eq!(meeting.server, Err(TlsError::Theirs(Fault::Revoked)));
    server.write_all(b"still here").await.unwrap();
    server.flush().await.unwrap();
    let mut heard = [0; 10];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn both_sides_take_a_new_authority() {
    let (old, new) = (Realm::new("be"), Realm::new("be"));
    let both = || DomainTrust {
        roots: vec![old.authority.certificate_der().clone(), new.authority.certificate_der().clone()],
        ..old.trust()
    };
    let acceptor = Acceptor::new(old.gateway(), vec![old.trust()]).unwrap();
    let connector = Connector::new(old.trust(), Some(old.agency("a"))).unwrap();
    assert!(meet(&acceptor, &connector, GATEWAY).await.server.is_ok());

    connector.replace(new.trust(), Some(new.agency("a"))).unwrap();
    let meeting = meet(&acceptor, &connector, GATEWAY).await;
    assert!(matches!(meeting.client, Err(TlsError::Intercepted { .. })));

    connector.replace(both(), Some(new.agency("a"))).unwrap();
    let meeting = meet(&acceptor, &connector, GATEWAY).await;
    assert_eq!(meeting.client, Err(TlsError::Ours(Fault::UnknownCa)));

    acceptor.replace(new.gateway(), vec![both()]).unwrap();
    assert_eq!(meet(&acceptor, &connector, GATEWAY).await.client, Ok(()));
    connector.replace(both(), Some(old.agency("a"))).unwrap();
    assert_eq!(meet(&acceptor, &connector, GATEWAY).await.client, Ok(()));
}

#[tokio::test]
async fn two_authorities_of_a_domain_keep_a_list_each() {
    let (old, new) = (Realm::new("be"), Realm::new("be"));
    let (good, bad) = (new.agency("a"), new.agency("b"));
    let (first, second) = (old.trust_revoking(&[]), new.trust_revoking(&[&bad]));
    let trust = DomainTrust {
        domain: first.domain,
        roots: [first.roots, second.roots].concat(),
        crls: [first.crls, second.crls].concat(),
    };
    let acceptor = Acceptor::new(old.gateway(), vec![trust]).unwrap();
    for (client, expected) in
        [(old.agency("a"), Ok(())), (good, Ok(())), (bad, Err(TlsError::Ours(Fault::Revoked)))]
    {
        let connector = Connector::new(old.trust(), Some(client)).unwrap();
        assert_eq!(meet(&acceptor, &connector, GATEWAY).await.client, expected);
    }
}

#[tokio::test]
async fn a_failed_replacement_changes_nothing() {
    let be = Realm::new("be");
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust()]).unwrap();
    let connector = Connector::new(be.trust(), Some(be.agency("a"))).unwrap();
    let broken = || DomainTrust { crls: vec![vec![1, 2, 3].into()], ..be.trust() };
    assert!(matches!(acceptor.replace(be.gateway(), vec![broken()]), Err(SetupError::Trust { .. })));
    assert!(matches!(connector.replace(broken(), None), Err(SetupError::Trust { .. })));
    assert!(matches!(meet(&acceptor, &connector, GATEWAY).await.server, Ok(Peer::Known { .. })));
}
