//! What a gateway makes of those who call it.

use super::*;

/// A client with this certificate, at a gateway of `be` that revokes `revoked`.
async fn call(be: &Realm, client: Option<Identity>, revoked: &[&Identity]) -> Meeting {
    let acceptor = Acceptor::new(be.gateway(), vec![be.trust_revoking(revoked)]).unwrap();
    let connector = Connector::new(be.trust(), client).unwrap();
    meet(&acceptor, &connector, "spiffe://be/gateway").await
}

fn assert_refused(meeting: Meeting, theirs: Fault, ours: Fault) {
    assert_eq!(meeting.server, Err(TlsError::Theirs(theirs)));
    assert_eq!(meeting.client, Err(TlsError::Ours(ours)));
}

#[tokio::test]
async fn a_valid_certificate_is_known() {
    let be = Realm::new("be");
    let agency = be.agency("shelter-antwerp");
    let read = Certificate::read(agency.certificate()).unwrap();
    let meeting = call(&be, Some(agency.clone()), &[]).await;
    assert_eq!(meeting.client, Ok(()));
    assert_eq!(
        meeting.server,
        Ok(Peer::Known {
            id: id("spiffe://be/agency/shelter-antwerp"),
            serial: read.serial,
            not_after: read.not_after,
            certificate: agency.certificate().clone(),
        })
    );
}

#[tokio::test]
async fn no_certificate_is_anonymous() {
    let meeting = call(&Realm::new("be"), None, &[]).await;
    assert_eq!((meeting.server, meeting.client), (Ok(Peer::Anonymous), Ok(())));
}

#[tokio::test]
async fn a_gateway_may_call() {
    let be = Realm::new("be");
    let meeting = call(&be, Some(be.gateway()), &[]).await;
    assert!(matches!(meeting.server, Ok(Peer::Known { id: SpiffeId::Gateway(_), .. })));
}

#[tokio::test]
async fn another_authority_of_the_same_name_is_refused() {
    let (be, impostor) = (Realm::new("be"), Realm::new("be"));
    let meeting = call(&be, Some(impostor.agency("a")), &[]).await;
    assert_refused(meeting, Fault::UnknownCa, Fault::UnknownCa);
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let be = Realm::new("be");
    let meeting = call(&be, Some(be.agency_during("a", days_from_now(-2, -1))), &[]).await;
    assert_refused(meeting, Fault::Expired, Fault::Expired);
}

#[tokio::test]
async fn a_certificate_before_its_life_is_refused() {
    let be = Realm::new("be");
    let meeting = call(&be, Some(be.agency_during("a", days_from_now(1, 2))), &[]).await;
    assert_refused(meeting, Fault::NotYetValid, Fault::Expired);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_neighbour_is_not() {
    let be = Realm::new("be");
    let (revoked, neighbour) = (be.agency("a"), be.agency("a"));
    let meeting = call(&be, Some(revoked.clone()), &[&revoked]).await;
    assert_refused(meeting, Fault::Revoked, Fault::Revoked);
    assert!(call(&be, Some(neighbour), &[&revoked]).await.server.is_ok());
}

#[tokio::test]
async fn an_outdated_revocation_list_judges_nobody() {
    let be = Realm::new("be");
    let trust = be.trust_revoking_during(&[], days_from_now(-2, -1));
    let acceptor = Acceptor::new(be.gateway(), vec![trust]).unwrap();
    let connector = Connector::new(be.trust(), Some(be.agency("a"))).unwrap();
    let meeting = meet(&acceptor, &connector, "spiffe://be/gateway").await;
    assert_refused(meeting, Fault::Unjudged, Fault::Unjudged);
}

#[tokio::test]
async fn a_certificate_for_another_use_is_refused() {
    let be = Realm::new("be");
    let server_only = be.forged(&["spiffe://be/agency/a"], ExtendedKeyUsagePurpose::ServerAuth);
    assert_refused(call(&be, Some(server_only), &[]).await, Fault::WrongUsage, Fault::WrongUsage);
}

#[tokio::test]
async fn a_valid_certificate_that_names_no_party_is_misnamed() {
    let be = Realm::new("be");
    let names: [&[&str]; 4] = [
        &[],
        &["https://be/agency/a"],
        &["spiffe://be/agency/Shelter"],
        &["spiffe://be/agency/a", "spiffe://be/agency/b"],
    ];
    for uris in names {
        let client = be.forged(uris, ExtendedKeyUsagePurpose::ClientAuth);
        let meeting = call(&be, Some(client.clone()), &[]).await;
        assert_eq!(meeting.server, Ok(Peer::Misnamed), "{uris:?}");
        // The chain still counts.
        assert_refused(call(&be, Some(client.clone()), &[&client]).await, Fault::Revoked, Fault::Revoked);
        let elsewhere = call(&Realm::new("be"), Some(client), &[]).await;
        assert_eq!(elsewhere.server, Err(TlsError::Theirs(Fault::UnknownCa)), "{uris:?}");
    }
}

#[tokio::test]
async fn a_domain_vouches_for_its_own_names_alone() {
    let (be, hu) = (Realm::new("be"), Realm::new("hu"));
    let borrowed = be.forged(&["spiffe://hu/agency/a"], ExtendedKeyUsagePurpose::ClientAuth);
    for trusts in [vec![be.trust()], vec![be.trust(), hu.trust()], vec![hu.trust_revoking(&[]), be.trust()]] {
        let peers = trusts.len();
        let acceptor = Acceptor::new(be.gateway(), trusts).unwrap();
        let meet_as = async |client: Identity| {
            let connector = Connector::new(be.trust(), Some(client)).unwrap();
            meet(&acceptor, &connector, "spiffe://be/gateway").await
        };
        assert_refused(meet_as(borrowed.clone()).await, Fault::UnknownCa, Fault::UnknownCa);
        assert!(matches!(meet_as(be.agency("a")).await.server, Ok(Peer::Known { .. })));
        let of_peer = meet_as(hu.agency("a")).await.server;
        if peers == 1 {
            assert_eq!(of_peer, Err(TlsError::Theirs(Fault::UnknownCa)));
        } else {
            assert!(
                matches!(of_peer, Ok(Peer::Known { id, .. }) if id.to_string() == "spiffe://hu/agency/a")
            );
        }
    }
}

#[test]
fn a_domain_is_given_once() {
    let be = Realm::new("be");
    let twice = Acceptor::new(be.gateway(), vec![be.trust(), be.trust()]);
    assert!(matches!(twice.err(), Some(SetupError::Twice(_))));
    let rootless = DomainTrust { roots: Vec::new(), ..be.trust() };
    assert!(matches!(Acceptor::new(be.gateway(), vec![rootless]).err(), Some(SetupError::Trust { .. })));
}
