//! What those who call make of a gateway.

use super::*;
use crate::digest::sha256;

/// An agency of `be` calls, expecting `expected`, and meets this server.
async fn call(be: &Realm, server: Identity, trust: DomainTrust, expected: &str) -> Meeting {
    let acceptor = Acceptor::new(server, vec![be.trust()]).unwrap();
    let connector = Connector::new(trust, Some(be.agency("a"))).unwrap();
    meet(&acceptor, &connector, expected).await
}

#[tokio::test]
async fn somebody_else_is_refused() {
    let be = Realm::new("be");
    let names: [&[&str]; 3] =
        [&[], &["spiffe://be/agency/a"], &["spiffe://be/gateway", "spiffe://be/agency/a"]];
    for uris in names {
        let server = be.forged(uris, ExtendedKeyUsagePurpose::ServerAuth);
        let meeting = call(&be, server, be.trust(), "spiffe://be/gateway").await;
        let presented = (uris.len() == 1).then(|| uris[0].to_owned());
        let expected = id("spiffe://be/gateway");
        assert_eq!(meeting.client, Err(TlsError::WrongName { expected, presented }));
        assert_eq!(meeting.server, Err(TlsError::Ours(Fault::Bad)));
    }
}

#[tokio::test]
async fn a_chain_to_somebody_elses_root_is_an_interception() {
    let (be, proxy) = (Realm::new("be"), Realm::new("proxy"));
    for server in
        [proxy.gateway(), proxy.forged(&["spiffe://be/gateway"], ExtendedKeyUsagePurpose::ServerAuth)]
    {
        let meeting = call(&be, server, be.trust(), "spiffe://be/gateway").await;
        let Err(TlsError::Intercepted { issuer }) = &meeting.client else { panic!("{:?}", meeting.client) };
        assert!(issuer.contains("CN=proxy"), "{issuer}");
        assert_eq!(meeting.server, Err(TlsError::Ours(Fault::UnknownCa)));
    }
}

#[tokio::test]
async fn an_expired_or_revoked_gateway_is_refused() {
    let be = Realm::new("be");
    let [begin, end] = days_from_now(-2, -1);
    let expired = be.authority.issue_gateway(&[], begin, end).unwrap();
    let meeting = call(&be, expired, be.trust(), "spiffe://be/gateway").await;
    assert_eq!(meeting.client, Err(TlsError::Theirs(Fault::Expired)));

    let revoked = be.gateway();
    let trust = be.trust_revoking(&[&revoked]);
    let meeting = call(&be, revoked, trust.clone(), "spiffe://be/gateway").await;
    assert_eq!(meeting.client, Err(TlsError::Theirs(Fault::Revoked)));
    assert_eq!(call(&be, be.gateway(), trust, "spiffe://be/gateway").await.client, Ok(()));

    let outdated = be.trust_revoking_during(&[], days_from_now(-2, -1));
    let meeting = call(&be, be.gateway(), outdated, "spiffe://be/gateway").await;
    assert_eq!(meeting.client, Err(TlsError::Theirs(Fault::Unjudged)));
}

#[tokio::test]
async fn an_agency_is_no_server() {
    let be = Realm::new("be");
    let meeting = call(&be, be.agency("b"), be.trust(), "spiffe://be/agency/b").await;
    assert_eq!(meeting.client, Err(TlsError::Theirs(Fault::WrongUsage)));
}

#[tokio::test]
async fn a_domain_without_roots_is_not_called() {
    let hu = Realm::new("hu");
    let (client, _server) = duplex(1 << 10);
    let connector = Connector::new(hu.trust(), None).unwrap();
    let expected = id("spiffe://be/gateway");
    let error = connector.connect(client, &expected).await.unwrap_err();
    assert_eq!(error, TlsError::NoRoots(expected));
}

#[tokio::test]
async fn a_pinned_root_vouches_for_its_gateway() {
    let (be, other) = (Realm::new("be"), Realm::new("be"));
    let pinned = Connector::pinned(sha256(be.authority.certificate_der()));
    let serve = |identity| Acceptor::new(identity, vec![be.trust()]).unwrap();

    let meeting = meet(&serve(be.gateway()), &pinned, "spiffe://be/gateway").await;
    assert_eq!((meeting.server, meeting.client), (Ok(Peer::Anonymous), Ok(())));

    let meeting = meet(&serve(be.gateway()), &pinned, "spiffe://hu/gateway").await;
    assert!(matches!(meeting.client, Err(TlsError::WrongName { .. })));

    let meeting = meet(&serve(other.gateway()), &pinned, "spiffe://be/gateway").await;
    assert!(matches!(meeting.client, Err(TlsError::Intercepted { .. })));

    // The root that is pinned, but a leaf that it didn't sign.
    let leaf = other.gateway();
    let chain = vec![leaf.certificate().clone(), be.authority.certificate_der().clone()];
    let liar = Identity::new(chain, leaf.key().clone()).unwrap();
    let meeting = meet(&serve(liar), &pinned, "spiffe://be/gateway").await;
    assert!(matches!(meeting.client, Err(TlsError::Intercepted { .. })));

    // The right leaf, but no root.
    let leaf = be.gateway();
    let rootless = Identity::new(vec![leaf.certificate().clone()], leaf.key().clone()).unwrap();
    let meeting = meet(&serve(rootless), &pinned, "spiffe://be/gateway").await;
    assert!(matches!(meeting.client, Err(TlsError::Intercepted { .. })));
}
