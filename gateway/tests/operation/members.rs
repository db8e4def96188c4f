//! Enrolment over real TLS, and how fast a membership ends.

use std::{fs, time::Instant};

use liaison_proto::{
    exchange::v1::{
        ListAgenciesRequest, RenewRequest, enrolment_service_client::EnrolmentServiceClient,
        exchange_service_client::ExchangeServiceClient,
    },
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{
    ca::{TlsKey, certificate_request},
    certificate::Certificate,
};
use tonic::Status;

use crate::gateway::{Gateway, PATIENCE, Running, as_agency};

fn code(status: &Status) -> ErrorCode {
    Refusal::from(status).code()
}

#[tokio::test]
async fn an_agency_enrols_calls_and_renews() {
    let gateway = Gateway::init();
    let running = gateway.run().await;
    gateway.add_shelter();
    let (token, key) = (gateway.token("be/shelter"), TlsKey::generate().unwrap());
    let csr = certificate_request(&key).unwrap();
    let enrolled = running.try_enrol(&token, &csr).await.unwrap();
    assert_eq!(running.try_enrol(&token, &csr).await.unwrap(), enrolled, "a lost answer is given again");
    let other = TlsKey::generate().unwrap();
    let other_csr = certificate_request(&other).unwrap();
    assert_eq!(code(&running.try_enrol(&token, &other_csr).await.unwrap_err()), ErrorCode::BadToken);
    assert_eq!(gateway.json(&["agency", "show", "be/shelter"])["state"], "active");

    let channel = running.channel(as_agency(&enrolled, &key)).await.unwrap();
    let listed =
        ExchangeServiceClient::new(channel.clone()).list_agencies(ListAgenciesRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().agencies.len(), 1);
    let request = RenewRequest { certificate_request: other_csr.to_vec().into(), ..RenewRequest::default() };
    let renewed = EnrolmentServiceClient::new(channel).renew(request).await.unwrap().into_inner();
    let leaf = Certificate::read(&renewed.certificates[0]).unwrap();
    assert_eq!(leaf.public_key, other.public_key());
}

#[tokio::test]
async fn an_agent_that_slept_past_expiry_renews_itself() {
    let gateway = Gateway::init();
    let config = gateway.data().join("gateway.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[limits]\ncertificate_seconds = 2\n")).unwrap();
    let running = gateway.run().await;
    gateway.add_shelter();
    let (enrolled, key) = running.enrol(&gateway.token("be/shelter")).await;
    let leaf = enrolled.certificates[0].clone();
    let end = Certificate::read(&leaf).unwrap().not_after;

    let deadline = Instant::now() + PATIENCE;
    let list = || async {
        let channel = running.channel(as_agency(&enrolled, &key)).await?;
        let mut client = ExchangeServiceClient::new(channel);
        Ok::<_, tonic::transport::Error>(client.list_agencies(ListAgenciesRequest::default()).await)
    };
    while time::OffsetDateTime::now_utc() <= end || matches!(list().await, Ok(Ok(_))) {
        assert!(Instant::now() < deadline, "an expired certificate still connects");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Without its certificate, which no handshake accepts any more; the gateway renewed its own.
    let fingerprint = liaison_trust::digest::sha256(&enrolled.certificates[1]);
    let connector = liaison_trust::tls::Connector::pinned(fingerprint);
    let channel = running.channel(connector).await.unwrap();
    let request = RenewRequest {
        certificate_request: certificate_request(&key).unwrap().to_vec().into(),
        expired_certificate: leaf,
    };
    EnrolmentServiceClient::new(channel).renew(request).await.unwrap();
    assert!(gateway.http("/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_revoked_agency_is_cut_off_and_stays_so_whatever_database_returns() {
    let gateway = Gateway::init();
    let mut running = gateway.run().await;
    gateway.add_shelter();
    let (enrolled, key) = running.enrol(&gateway.token("be/shelter")).await;
    // A backup from before the agency's membership ends.
    running.signal("-TERM");
    running.ended().await;
    let backup = fs::read(gateway.data().join("liaison.db")).unwrap();
    let mut running = gateway.run().await;

    let channel = running.channel(as_agency(&enrolled, &key)).await.unwrap();
    let mut live = ExchangeServiceClient::new(channel);
    live.list_agencies(ListAgenciesRequest::default()).await.unwrap();
    assert_eq!(gateway.cli(&["agency", "revoke", "be/shelter"]).status, 0);
    let cut = live.list_agencies(ListAgenciesRequest::default()).await.unwrap_err();
    assert_ne!(cut.code(), tonic::Code::Ok);
    assert!(is_kept_out(&running, &enrolled, &key).await);
    let anew = ["agency", "add", "be/shelter", "--name", "X", "--country", "be", "--sector", "NGO"];
    assert_eq!(gateway.cli(&anew).status, 1, "its address is never given out again");
    assert_eq!(gateway.cli(&["agency", "resume", "be/shelter"]).status, 1);
    assert_eq!(gateway.cli(&["token", "create", "be/shelter"]).status, 1);

    running.signal("-TERM");
    running.ended().await;
    fs::write(gateway.data().join("liaison.db"), backup).unwrap();
    let running = gateway.run().await;
    assert_eq!(gateway.json(&["agency", "show", "be/shelter"])["state"], "revoked");
    assert!(is_kept_out(&running, &enrolled, &key).await);
}

#[tokio::test]
async fn a_removed_peer_stays_so_whatever_database_returns_until_it_is_accepted_anew() {
    let (gateway, hu) = (Gateway::init(), Gateway::init_as("hu"));
    let hu_runs = hu.run().await;
    let state = || gateway.json(&["peer", "show", "hu"])["state"].clone();
    let restart = async |mut running: Running<'_>, database: Option<&[u8]>| {
        running.signal("-TERM");
        running.ended().await;
        let file = gateway.data().join("liaison.db");
        let before = fs::read(&file).unwrap();
        if let Some(database) = database {
            fs::write(&file, database).unwrap();
        }
        before
    };
    let running = gateway.run().await;
    gateway.accept(&hu);
    let backup = restart(running, None).await;
    let running = gateway.run().await;
    assert_eq!(gateway.json(&["peer", "remove", "hu"])["state"], "removed");
    restart(running, Some(&backup)).await;
    let running = gateway.run().await;
    assert_eq!(state(), "removed");
    assert_eq!(gateway.cli(&["peer", "resume", "hu"]).status, 1);

    gateway.accept(&hu);
    assert_eq!(state(), "active");
    restart(running, Some(&backup)).await;
    let running = gateway.run().await;
    assert_eq!(state(), "active", "what was accepted last is what counts");

    // With another gateway of the same name, the first peering does not come back.
    assert_eq!(gateway.cli(&["peer", "remove", "hu"]).status, 0);
    let new = Gateway::init_as("hu");
    let new_runs = new.run().await;
    gateway.accept(&new);
    restart(running, None).await;
    let running = gateway.run().await;
    assert_eq!(state(), "active");
    restart(running, Some(&backup)).await;
    let running = gateway.run().await;
    assert_eq!(state(), "removed");
    drop((running, hu_runs, new_runs));
}

#[tokio::test]
async fn a_suspended_agency_waits_until_it_is_resumed() {
    let gateway = Gateway::init();
    let running = gateway.run().await;
    gateway.add_shelter();
    let (enrolled, key) = running.enrol(&gateway.token("be/shelter")).await;
    let list = || async {
        let channel = running.channel(as_agency(&enrolled, &key)).await.unwrap();
        ExchangeServiceClient::new(channel).list_agencies(ListAgenciesRequest::default()).await
    };
    assert_eq!(gateway.json(&["agency", "suspend", "be/shelter"])["state"], "suspended");
    assert_eq!(code(&list().await.unwrap_err()), ErrorCode::Suspended);
    assert_eq!(gateway.json(&["agency", "resume", "be/shelter"])["state"], "active");
    list().await.unwrap();
}

/// Whether no handshake with a revoked certificate gets through any more.
async fn is_kept_out(
    running: &crate::gateway::Running<'_>,
    enrolled: &liaison_proto::exchange::v1::EnrollResponse,
    key: &TlsKey,
) -> bool {
    match running.channel(as_agency(enrolled, key)).await {
        Err(_) => true,
        // A client's own part of the handshake ends before the server has looked at its certificate.
        Ok(channel) => {
            let answer =
                ExchangeServiceClient::new(channel).list_agencies(ListAgenciesRequest::default()).await;
            matches!(answer, Err(status) if status.metadata().get("liaison-code").is_none())
        }
    }
}
