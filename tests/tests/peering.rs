//! What is wrong with an invitation to become a peer, or with a call of federation, is refused with its own
//! code and changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use liaison_demo::Gateway;
use liaison_proto::{
    POOL,
    admin::v1::{
        AcceptPeerRequest, AuthorityRequest, ListPeersRequest, PeerRequest,
        admin_service_client::AdminServiceClient,
    },
    federation::v1::{Bundle, SignedBundle},
    limits,
    message::v1::{Refusal, error_code::Code as ErrorCode},
    strict, times,
};
use liaison_tests::{
    Federation, Realm, call,
    federation::Setup,
    forge::Claim,
    insider, message,
    names::{HEALTH_HU, SHELTER, SHELTER_HU},
    policies, raw,
    realm::{BE, HU},
};
use liaison_trust::{ca::Authority, digest, keys::SigningKey, statement};
use prost::Message;
use serde_json::json;
use time::OffsetDateTime;
use tonic::{Status, metadata::MetadataMap, transport::Channel};

/// Field 1000, a varint: in no message of this version.
const UNKNOWN_FIELD: &[u8] = &[0xc0, 0x3e, 0x01];

#[tokio::test]
async fn invitations_that_are_not_what_was_read_out() -> Result<()> {
    let be = Realm::start(policies::OPEN, &[]).await?;
    let mut hu = Realm::prepare_domain(HU, &[("scheme/test.cedar", policies::OPEN)]).await?;
    hu.gateway.start().await?;
    hu.join(&[]).await?;
    let mut admin = AdminServiceClient::new(call::admin(&be.gateway).await?);
    let (ours, theirs) = (invitation(&be.gateway).await?, invitation(&hu.gateway).await?);
    let half = theirs.0.get(..theirs.0.len() / 2).context("a bundle is longer")?.to_owned();
    let cases = [
        (String::new(), theirs.1.clone(), ErrorCode::Malformed),
        (PREFIX.to_owned(), theirs.1.clone(), ErrorCode::Malformed),
        ("a letter that came by post".to_owned(), theirs.1.clone(), ErrorCode::Malformed),
        (half, theirs.1.clone(), ErrorCode::Malformed),
        ("x".repeat(2 * limits::BUNDLE_BYTES), theirs.1.clone(), ErrorCode::Malformed),
        (ours.0.clone(), ours.1.clone(), ErrorCode::ToOneself),
        (theirs.0.clone(), String::new(), ErrorCode::BadSignature),
        (theirs.0.clone(), ours.1.clone(), ErrorCode::BadSignature),
    ];
    for (number, (bundle, fingerprint, code)) in cases.into_iter().enumerate() {
        let answer = admin.accept_peer(AcceptPeerRequest { bundle, fingerprint }).await;
        let refusal = Refusal::from(&answer.err().with_context(|| format!("case {number} was accepted"))?);
        assert_eq!(refusal.code(), code, "case {number}: {refusal}");
        ensure!(!refusal.action.is_empty(), "case {number} does not say what to do: {refusal:?}");
    }
    // As somebody between the two would make it: the other domain's name and addresses, and a key of his own.
    let signed = read(&theirs.0)?;
    let genuine: Bundle = strict::decode(&signed.bundle)?;
    let key = SigningKey::generate();
    let forged = Bundle { gateway_signing_key: Bytes::copy_from_slice(key.public().as_bytes()), ..genuine };
    let swapped = SignedBundle { bundle: signed.bundle.clone(), ..statement::sign(&forged, &key) };
    for (forgery, code) in
        [(statement::sign(&forged, &key), ErrorCode::BadSignature), (swapped, ErrorCode::BadSignature)]
    {
        let request = AcceptPeerRequest { bundle: text(&forgery), fingerprint: theirs.1.clone() };
        assert_eq!(call::refused(admin.accept_peer(request).await), Some(code));
    }
    let peers = admin.list_peers(ListPeersRequest {}).await?.into_inner().peers;
    ensure!(peers.is_empty(), "something of it was believed: {peers:?}");

    // The same bundle is taken as it was read out.
    let request = AcceptPeerRequest { bundle: theirs.0, fingerprint: theirs.1 };
    admin.accept_peer(request).await?;
    Ok(())
}

#[tokio::test]
async fn a_bundle_from_the_future_is_not_accepted() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let mut admin = AdminServiceClient::new(call::admin(&realm.gateway).await?);
    let now = OffsetDateTime::now_utc();
    let ahead =
        admin.accept_peer(on_paper("xx", now + limits::CLOCK_AHEAD + Duration::from_secs(600))?).await;
    let refusal = Refusal::from(&ahead.err().context("it was accepted")?);
    ensure!(refusal.code() == ErrorCode::ClockSkew && refusal.action.contains("clock"), "{refusal:?}");
    admin.accept_peer(on_paper("xx", now + limits::CLOCK_AHEAD / 2)?).await?;
    Ok(())
}

#[tokio::test]
async fn only_peers_that_were_not_removed_count() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let mut admin = AdminServiceClient::new(call::admin(&realm.gateway).await?);
    let peer = |number| on_paper(&format!("xx{number}"), OffsetDateTime::now_utc());
    for number in 0..PEERS {
        admin.accept_peer(peer(number)?).await?;
    }
    assert_eq!(call::refused(admin.accept_peer(peer(PEERS)?).await), Some(ErrorCode::QueueFull));
    admin.remove_peer(PeerRequest { domain: "xx0".to_owned() }).await?;
    admin.accept_peer(peer(PEERS)?).await?;
    // Nor is there room for one that comes back.
    assert_eq!(call::refused(admin.accept_peer(peer(0)?).await), Some(ErrorCode::QueueFull));
    Ok(())
}

/// Peers that a domain may have.
const PEERS: usize = 200;

/// The bundle of a domain that has no gateway, with its fingerprint.
fn on_paper(domain: &str, issued: OffsetDateTime) -> Result<AcceptPeerRequest> {
    let signing = SigningKey::generate();
    let key = signing.public();
    let bundle = Bundle {
        domain: domain.to_owned(),
        roots: vec![Authority::create(&domain.parse()?)?.certificate_der().to_vec().into()],
        gateway_signing_key: key.as_bytes().to_vec().into(),
        addresses: vec!["127.0.0.1:1".to_owned()],
        sequence: 1,
        issued: Some(times::to_wire(issued)),
        scheme_hash: vec![0; 32].into(),
        protocol: 1,
        log_key: key.as_bytes().to_vec().into(),
        witness_key: key.as_bytes().to_vec().into(),
        ..Bundle::default()
    };
    let digits = digest::hash("bundle-fingerprint/v1", &[domain.as_bytes(), key.as_bytes()]).to_string();
    Ok(AcceptPeerRequest {
        bundle: text(&statement::sign(&bundle, &signing)),
        fingerprint: digits.chars().take(24).collect(),
    })
}

/// How the text of a bundle begins.
const PREFIX: &str = "liaison-bundle1.";

fn read(text: &str) -> Result<SignedBundle> {
    let encoded = text.strip_prefix(PREFIX).context("not the text of a bundle")?;
    Ok(strict::decode(&URL_SAFE_NO_PAD.decode(encoded)?)?)
}

fn text(bundle: &SignedBundle) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bundle.encode_to_vec()))
}

/// A gateway's bundle as text, with its fingerprint.
async fn invitation(gateway: &Gateway) -> Result<(String, String)> {
    let told: serde_json::Value =
        serde_json::from_str(&gateway.command(&["--json", "peer", "invite"]).await?)?;
    let field = |name: &str| {
        let text = told.get(name).and_then(serde_json::Value::as_str);
        Ok::<_, anyhow::Error>(text.with_context(|| format!("no {name} in {told}"))?.to_owned())
    };
    Ok((field("bundle")?, field("fingerprint")?))
}

#[tokio::test]
async fn administrators_acts_that_make_no_sense() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let channel = call::admin(&realm.gateway).await?;
    let mut admin = AdminServiceClient::new(channel.clone());
    let nobody = || PeerRequest { domain: "hu".to_owned() };
    for refused in [
        call::refused(admin.suspend_peer(nobody()).await),
        call::refused(admin.resume_peer(nobody()).await),
        call::refused(admin.remove_peer(nobody()).await),
    ] {
        assert_eq!(refused, Some(ErrorCode::UnknownDomain));
    }
    let unheard = admin.authority(AuthorityRequest { step: 77, force: false }).await;
    assert_eq!(call::refused(unheard), Some(ErrorCode::UnknownValue));

    // No call of an administrator's drops a field in silence.
    let service = POOL.get_service_by_name("liaison.admin.v1.AdminService").context("no admin service")?;
    for method in service.methods() {
        let path = format!("/{}/{}", service.full_name(), method.name());
        let answer = raw::call_with(channel.clone(), &path, MetadataMap::new(), UNKNOWN_FIELD.into()).await;
        assert_eq!(code(answer), Some(ErrorCode::UnknownValue), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn calls_of_a_peer_with_more_than_the_contracts_define() -> Result<()> {
    let setup = Setup { domains: &[BE, HU], scheme: policies::OPEN, layers: &[], agencies: &[] };
    let federation = Federation::linked(&setup).await?;
    let (be, hu) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    let identity = Claim::genuine("spiffe://hu/gateway").by_authority_of(hu)?;
    let channel = insider::connect(be.federation(), &insider::trust(be)?, Some(&identity)).await?;
    let ask = async |channel: &Channel, message: Bytes| {
        let path = "/liaison.federation.v1.FederationService/Preview";
        code(raw::call_with(channel.clone(), path, MetadataMap::new(), message).await)
    };
    assert_eq!(ask(&channel, UNKNOWN_FIELD.into()).await, Some(ErrorCode::UnknownValue));
    assert_eq!(ask(&channel, Bytes::from_static(&[0xff])).await, Some(ErrorCode::Malformed));
    let much = Bytes::from(vec![0; limits::GRPC_MESSAGE_BYTES + 1]);
    assert_eq!(ask(&channel, much).await, Some(ErrorCode::TooLarge));
    Ok(())
}

#[tokio::test]
async fn what_a_caseworker_system_gets_wrong_when_it_refers_onward() -> Result<()> {
    let agencies = [SHELTER, SHELTER_HU, HEALTH_HU];
    let setup = Setup { domains: &[BE, HU], scheme: policies::OPEN, layers: &[], agencies: &agencies };
    let federation = Federation::start(&setup).await?;
    let holder = federation.agent(SHELTER_HU)?;
    let received = federation.send_one(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let own = federation.send_one(SHELTER_HU, message::small_referral(HEALTH_HU)).await?;
    let nothing = "019a0000-0000-7000-8000-000000000000";
    let good = json!({ "to": HEALTH_HU, "purpose": "victim_support", "categories": ["health"] });
    let with = |field: &str, value: serde_json::Value| {
        let mut body = good.clone();
        body.as_object_mut().map(|body| body.insert(field.to_owned(), value));
        body
    };
    for (id, body, code) in [
        (nothing, good.clone(), "unknown_message"),
        ("case-4711", good.clone(), "malformed"),
        (own.as_str(), good.clone(), "malformed"),
        (received.as_str(), with("to", json!(SHELTER)), "malformed"),
        (received.as_str(), with("to", json!(SHELTER_HU)), "to_oneself"),
        (received.as_str(), with("to", json!("hu/nobody")), "unknown_recipient"),
        (received.as_str(), with("to", json!("")), "malformed"),
        (received.as_str(), with("purpose", json!("gossip")), "unknown_value"),
        (received.as_str(), with("surprise", json!(1)), "unknown_value"),
        // It was never there.
        (received.as_str(), with("categories", json!(["identity"])), "onward_forbidden"),
    ] {
        let path = format!("/v1/referrals/{id}/onward");
        let answer = holder.call("POST", &path, &[], Some(&body)).await?;
        assert_eq!(answer.error_code(), code, "{id} {body}: {}", answer.text());
    }
    for (id, body, code) in [
        (nothing, json!({ "step": "granted" }), "unknown_message"),
        ("case-4711", json!({ "step": "granted" }), "malformed"),
        (nothing, json!({ "step": "asked" }), "malformed"),
        (nothing, json!({}), "missing_field"),
    ] {
        let path = format!("/v1/onward-requests/{id}/answer");
        let answer = holder.call("POST", &path, &[], Some(&body)).await?;
        assert_eq!(answer.error_code(), code, "{id} {body}: {}", answer.text());
    }
    let listed = holder.get("/v1/onward-requests?direction=sent").await?;
    assert_eq!(listed.get("requests"), Some(&json!([])), "nothing of it was kept");
    assert_eq!(call::received_ids(federation.agent(HEALTH_HU)?).await?, [own]);
    Ok(())
}

fn code<T>(answer: Result<T, Status>) -> Option<ErrorCode> {
    answer.err().map(|status| Refusal::from(&status).code())
}
