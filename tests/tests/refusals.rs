//! Every refusal of the road, provoked by a member with genuine keys or by a stranger without: each
//! has its own code, and nothing of what was refused is stored.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use liaison_demo::{Agent, http};
use liaison_proto::{
    exchange::v1::{
        MessageHead, PublishKeyRequest, ResolveAudienceRequest,
        exchange_service_client::ExchangeServiceClient,
    },
    limits,
    message::v1::{
        Audience, Envelope, Facts, HealthHazard, Manifest, Refusal, StateChange,
        alert_kind::Code as AlertKind, error_code::Code as ErrorCode, hazard_type, kem::Code as Kem,
        kind::Code as Kind, purpose::Code as Purpose, referral_state::Code as State,
    },
    times,
};
use liaison_tests::{
    Realm, call,
    forge::Claim,
    insider::{self, Answer, Insider, Session},
    message,
    names::{BORDER, HOSPITAL, POLICE, SHELTER},
    policies, raw,
};
use liaison_trust::{
    ca::Authority,
    key_record,
    keys::{KemKey, SigningKey},
    tls::{Fault, Identity, TlsError},
};
use prost::Message;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::json;
use time::OffsetDateTime;
use tonic::{metadata::MetadataMap, transport::Channel};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn certificates() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let (gateway, now) = (&realm.gateway, OffsetDateTime::now_utc());
    let trust = insider::trust(gateway)?;
    let police = "spiffe://be/agency/police-federal";
    let insider = Insider::enrol(gateway, POLICE).await?;
    let publish = |identity: Option<Identity>| {
        let (trust, request) = (trust.clone(), PublishKeyRequest { key: Some(insider.record.clone()) });
        async move {
            let channel = insider::connect(gateway.exchange(), &trust, identity.as_ref()).await?;
            anyhow::Ok(call::refused(ExchangeServiceClient::new(channel).publish_key(request).await))
        }
    };
    // A genuine one is taken, so that what follows is refused for what is wrong with it.
    assert_eq!(publish(Some(Claim::genuine(police).by_authority_of(gateway)?)).await?, None);
    assert_eq!(publish(None).await?, Some(ErrorCode::NoClientCertificate));
    for (uri, code) in [
        ("spiffe://be/gateway", ErrorCode::WrongName),
        ("https://be/agency/police-federal", ErrorCode::WrongName),
        ("spiffe://be/agency/nobody", ErrorCode::NotEnrolled),
        // Known, and its agent never enrolled.
        ("spiffe://be/agency/border-zaventem", ErrorCode::NotEnrolled),
    ] {
        let refused = publish(Some(Claim::genuine(uri).by_authority_of(gateway)?)).await?;
        assert_eq!(refused, Some(code), "{uri}");
    }

    let authority = Authority::create(&"be".parse()?)?;
    let foreign = Claim::genuine(police).by(&authority.certificate_pem(), &authority.key_pem())?;
    let expired = Claim { not_before: now - 2 * HOUR, not_after: now - HOUR, ..Claim::genuine(police) };
    let early = Claim { not_before: now + HOUR, not_after: now + 2 * HOUR, ..Claim::genuine(police) };
    let usage = Claim { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Claim::genuine(police) };
    let other_domain = Claim::genuine("spiffe://hu/agency/police-federal");
    for (identity, fault) in [
        (foreign, Fault::UnknownCa),
        // Our own authority vouches for our own domain alone.
        (other_domain.by_authority_of(gateway)?, Fault::UnknownCa),
        (expired.by_authority_of(gateway)?, Fault::Expired),
        // TLS has one alert for both ends of a certificate's life.
        (early.by_authority_of(gateway)?, Fault::Expired),
        (usage.by_authority_of(gateway)?, Fault::WrongUsage),
    ] {
        assert_rejected(insider::connect(gateway.exchange(), &trust, Some(&identity)).await, fault)?;
    }
    gateway.command(&["agency", "revoke", POLICE]).await?;
    let revoked = insider::connect(gateway.exchange(), &trust, Some(&insider.identity)).await;
    assert_rejected(revoked, Fault::Revoked)?;
    Ok(())
}

fn assert_rejected<T>(connected: Result<T, TlsError>, expected: Fault) -> Result<()> {
    match connected {
        Err(TlsError::Ours(fault)) => ensure!(fault == expected, "{fault:?} instead of {expected:?}"),
        Err(other) => bail!("{other:?} instead of {expected:?}"),
        Ok(_) => bail!("admitted instead of {expected:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn submissions() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let hospital = Insider::enrol(&realm.gateway, HOSPITAL).await?;
    let police = Insider::enrol(&realm.gateway, POLICE).await?;
    let shelter = Insider::enrol(&realm.gateway, SHELTER).await?;
    let shelter_key = hospital.key_of(SHELTER).await?;
    let mut session = hospital.session().await?;
    let good = || hospital.seal(&hospital.draft(&shelter_key));
    let manifest = |envelope: &Envelope| Manifest::decode(envelope.manifest.clone());

    // Another agency's name as sender: its own message, and one signed by us in its name.
    let theirs = police.seal(&police.draft(&shelter_key))?;
    refused(&mut session, &realm, &theirs, ErrorCode::SenderMismatch).await?;
    let mut forged = good()?;
    let head = Manifest { sender: POLICE.to_owned(), ..manifest(&forged)? };
    hospital.sign_again(&mut forged, head.encode_to_vec());
    refused(&mut session, &realm, &forged, ErrorCode::SenderMismatch).await?;

    // A changed section, a swapped one, one taken out of its place.
    for change in [
        (|envelope| flip(envelope.sections.first_mut().map(|section| &mut section.ciphertext)))
            as fn(&mut Envelope),
        |envelope| flip(envelope.sections.first_mut().map(|section| &mut section.salt)),
        |envelope| flip(envelope.sections.first_mut().map(|section| &mut section.commitment)),
        |envelope| flip(Some(&mut envelope.facts_salt)),
        |envelope| {
            if let [one, other] = envelope.sections.as_mut_slice() {
                std::mem::swap(&mut one.ciphertext, &mut other.ciphertext);
            }
        },
        |envelope| {
            if let [one, other] = envelope.sections.as_mut_slice() {
                std::mem::swap(&mut one.position, &mut other.position);
            }
        },
        |envelope| {
            envelope.facts = Facts { purpose: Purpose::CriminalInvestigation.into(), ..Facts::default() }
                .encode_to_vec()
                .into();
        },
    ] {
        let mut envelope = good()?;
        change(&mut envelope);
        refused(&mut session, &realm, &envelope, ErrorCode::ChangedSection).await?;
    }
    let mut mixed = good()?;
    mixed.sections = good()?.sections;
    refused(&mut session, &realm, &mixed, ErrorCode::ChangedSection).await?;

    // A signature that was stripped, is another's, or was made with a key that is not published.
    let mut stripped = good()?;
    stripped.signature = Bytes::new();
    refused(&mut session, &realm, &stripped, ErrorCode::BadSignature).await?;
    let mut foreign = good()?;
    let head = foreign.manifest.to_vec();
    police.sign_again(&mut foreign, head);
    refused(&mut session, &realm, &foreign, ErrorCode::BadSignature).await?;
    let (own, own_kem, now) =
        (SigningKey::generate(), KemKey::generate(Kem::X25519)?, OffsetDateTime::now_utc());
    let unpublished = key_record::first(&hospital.address, &own, &own_kem, now - HOUR, now + 30 * 24 * HOUR);
    let envelope = liaison_trust::envelope::seal(&hospital.draft(&shelter_key), &own, &unpublished)?;
    refused(&mut session, &realm, &envelope, ErrorCode::UnknownKey).await?;

    // Recipients that the sender did not sign, or that there are not.
    let mut oneself = good()?;
    if let Some(entry) = oneself.recipients.first_mut() {
        entry.address = HOSPITAL.to_owned();
    }
    refused(&mut session, &realm, &oneself, ErrorCode::ToOneself).await?;
    let mut redirected = good()?;
    if let Some(entry) = redirected.recipients.first_mut() {
        entry.address = POLICE.to_owned();
    }
    refused(&mut session, &realm, &redirected, ErrorCode::BadRecipients).await?;
    let nobody = key_record::first(
        &"be/nobody".parse()?,
        &shelter.signing,
        &shelter.kem,
        now - HOUR,
        now + 30 * 24 * HOUR,
    );
    let unknown = hospital.seal(&hospital.draft(&key_record::prove(&nobody)?))?;
    refused(&mut session, &realm, &unknown, ErrorCode::UnknownRecipient).await?;
    let other_key = key_record::first(&shelter.address, &own, &own_kem, now - HOUR, now + 30 * 24 * HOUR);
    let unknown_key = hospital.seal(&hospital.draft(&key_record::prove(&other_key)?))?;
    refused(&mut session, &realm, &unknown_key, ErrorCode::UnknownKey).await?;

    // Times.
    let mut draft = hospital.draft(&shelter_key);
    (draft.created, draft.expires) = (now - 2 * HOUR, now - HOUR);
    refused(&mut session, &realm, &hospital.seal(&draft)?, ErrorCode::Expired).await?;
    let mut draft = hospital.draft(&shelter_key);
    draft.created = now + limits::CLOCK_AHEAD + Duration::from_secs(60);
    refused(&mut session, &realm, &hospital.seal(&draft)?, ErrorCode::ClockSkew).await?;
    let mut eternal = good()?;
    let head = Manifest { expires: Some(times::to_wire(now + 31 * 24 * HOUR)), ..manifest(&eternal)? };
    hospital.sign_again(&mut eternal, head.encode_to_vec());
    refused(&mut session, &realm, &eternal, ErrorCode::Malformed).await?;

    // What this version does not know.
    for (change, code) in [
        ((|head| head.version = 2) as fn(&mut Manifest), ErrorCode::Unsupported),
        (|head| head.suite = 77, ErrorCode::UnknownValue),
        (|head| head.urgency = 77, ErrorCode::UnknownValue),
        (|head| head.kind = 77, ErrorCode::UnknownValue),
    ] {
        let mut envelope = good()?;
        let mut head = manifest(&envelope)?;
        change(&mut head);
        hospital.sign_again(&mut envelope, head.encode_to_vec());
        refused(&mut session, &realm, &envelope, code).await?;
    }
    let mut extended = good()?;
    // Field 1000, a varint.
    let head = [extended.manifest.as_ref(), &[0xc0, 0x3e, 0x01]].concat();
    hospital.sign_again(&mut extended, head);
    refused(&mut session, &realm, &extended, ErrorCode::UnknownValue).await?;
    for (garbage, code) in [
        (b"not protobuf at all".as_slice(), ErrorCode::Malformed),
        (&[0xff; 64], ErrorCode::Malformed),
        // An empty envelope is well-formed, and of no version.
        (&[], ErrorCode::Unsupported),
    ] {
        let Answer::Refused(refusal) = session.submit_bytes(garbage).await? else {
            bail!("garbage accepted")
        };
        assert_eq!(refusal.code(), code, "{garbage:?}: {refusal}");
    }
    let outer = [good()?.encode_to_vec().as_slice(), &[0xc0, 0x3e, 0x01]].concat();
    let Answer::Refused(refusal) = session.submit_bytes(&outer).await? else { bail!("accepted") };
    assert_eq!(refusal.code(), ErrorCode::UnknownValue, "{refusal}");

    // Too much.
    let mut large = good()?;
    if let Some(section) = large.sections.first_mut() {
        section.ciphertext = vec![0; limits::SECTIONS_BYTES + 1].into();
    }
    refused(&mut session, &realm, &large, ErrorCode::TooLarge).await?;
    // Offered on a session of its own, because a gateway may end one that sends more than any message
    // has. It takes the place of the one before.
    let mut flood = hospital.session().await?;
    match flood.submit_bytes(&vec![0x0a; limits::ENVELOPE_BYTES + limits::CHUNK_BYTES]).await {
        Ok(Answer::Refused(refusal)) => assert_eq!(refusal.code(), ErrorCode::TooLarge, "{refusal}"),
        Ok(Answer::Accepted(_)) => bail!("more than any message can have was accepted"),
        Err(error) => bail!("the session ended without a word: {error}"),
    }
    drop(flood);
    let mut session = hospital.session().await?;

    // A change of state by one who is no party to the thread, or for a thread that there is not.
    let mut draft = hospital.draft(&shelter_key);
    (draft.kind, draft.facts) = (Kind::State, None);
    draft.state_change = Some(StateChange { state: State::Cancelled.into(), ..StateChange::default() });
    draft.sections.clear();
    draft.recipients.iter_mut().for_each(|recipient| recipient.bases.clear());
    refused(&mut session, &realm, &hospital.seal(&draft)?, ErrorCode::NotAParty).await?;

    // After all of it, an honest message passes on the same session.
    accepted(&mut session, &good()?).await
}

#[tokio::test]
async fn a_replay_has_one_effect_and_an_id_is_used_once() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let hospital = Insider::enrol(&realm.gateway, HOSPITAL).await?;
    let shelter = Insider::enrol(&realm.gateway, SHELTER).await?;
    let shelter_key = hospital.key_of(SHELTER).await?;
    let mut session = hospital.session().await?;
    let draft = hospital.draft(&shelter_key);
    let envelope = hospital.seal(&draft)?;
    let Answer::Accepted(first) = session.submit(&envelope).await? else { bail!("refused") };
    let Answer::Accepted(again) = session.submit(&envelope).await? else { bail!("refused") };
    assert_eq!(first, again, "the same acceptance, to the letter");

    // Delivered once: what comes after it is the next message.
    let mut inbox = shelter.session().await?;
    let (attempt, delivery) = inbox.delivery().await?;
    let copy = copy_of(delivery)?;
    assert_eq!(copy.manifest, envelope.manifest);
    inbox.ack(attempt, Some(shelter.acknowledge(&copy.manifest, &first.message_id)?)).await?;
    // Also after its sections are gone.
    let Answer::Accepted(late) = session.submit(&envelope).await? else { bail!("refused") };
    assert_eq!(first, late);
    let next = hospital.seal(&hospital.draft(&shelter_key))?;
    accepted(&mut session, &next).await?;
    let (_, delivery) = inbox.delivery().await?;
    assert_eq!(copy_of(delivery)?.manifest, next.manifest);

    // The same id with other content: it is the same draft, sealed with other keys.
    let Answer::Refused(refusal) = session.submit(&hospital.seal(&draft)?).await? else { bail!("accepted") };
    assert_eq!(refusal.code(), ErrorCode::IdReused, "{refusal}");
    let metrics = http::request(realm.gateway.metrics(), "GET", "/metrics", &[], &[]).await?.text();
    assert!(metrics.contains("id_reused"), "an id that was used again is not counted:\n{metrics}");
    Ok(())
}

#[tokio::test]
async fn a_full_queue_refuses_and_loses_nothing() -> Result<()> {
    const ROOM: usize = 3;
    let mut realm = Realm::prepare(policies::OPEN).await?;
    realm.gateway.configure(&format!("[limits]\nqueue_deliveries = {ROOM}"))?;
    realm.gateway.start().await?;
    realm.join(&[HOSPITAL]).await?;
    let police = Insider::enrol(&realm.gateway, POLICE).await?;
    let shelter = Insider::enrol(&realm.gateway, SHELTER).await?;
    let shelter_key = police.key_of(SHELTER).await?;
    let mut session = police.session().await?;
    let mut sent = Vec::new();
    for _ in 0..ROOM {
        let envelope = police.seal(&police.draft(&shelter_key))?;
        accepted(&mut session, &envelope).await?;
        sent.push(envelope.manifest);
    }
    let late = police.seal(&police.draft(&shelter_key))?;
    refused(&mut session, &realm, &late, ErrorCode::QueueFull).await?;
    let Answer::Refused(refusal) = session.submit(&late).await? else { bail!("accepted") };
    assert!(refusal.retry_after_ms > 0, "it says when to try again: {refusal:?}");
    // An honest agent keeps what is refused for this, and offers it again.
    let request = message::small_referral(SHELTER);
    let kept = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner().referrals;
    let kept = kept.first().context("no referral was made")?.id.clone();

    let mut inbox = shelter.session().await?;
    let mut arrived = Vec::new();
    for _ in 0..ROOM {
        let (attempt, delivery) = inbox.delivery().await?;
        let copy = copy_of(delivery)?;
        let id = Manifest::decode(copy.manifest.clone())?.message_id;
        inbox.ack(attempt, Some(shelter.acknowledge(&copy.manifest, &id)?)).await?;
        arrived.push(copy.manifest);
    }
    assert_eq!(arrived, sent, "in the order of their acceptance");
    // There is room again.
    let (attempt, delivery) = inbox.delivery().await?;
    let copy = copy_of(delivery)?;
    let id = Manifest::decode(copy.manifest.clone())?.message_id;
    assert_eq!(Uuid::from_slice(&id)?.to_string(), kept);
    inbox.ack(attempt, Some(shelter.acknowledge(&copy.manifest, &id)?)).await?;
    // Its own queue is bounded as well: it takes the notices of what was acknowledged.
    for _ in 0..ROOM {
        let (attempt, _) = session.delivery().await?;
        session.ack(attempt, None).await?;
    }
    liaison_demo::wait::until("the message that was refused is accepted", async || {
        matches!(session.submit(&late).await, Ok(Answer::Accepted(_))).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_suspended_agency_is_told_so() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let hospital = Insider::enrol(&realm.gateway, HOSPITAL).await?;
    Insider::enrol(&realm.gateway, SHELTER).await?;
    let shelter_key = hospital.key_of(SHELTER).await?;
    let mut session = hospital.session().await?;
    realm.gateway.command(&["agency", "suspend", HOSPITAL]).await?;
    session.ended().await?;
    let refused = Session::open(hospital.exchange().await?).await.err().context("a session was opened")?;
    let status = refused.downcast::<tonic::Status>()?;
    assert_eq!(Refusal::from(&status).code(), ErrorCode::Suspended, "{status}");
    realm.gateway.command(&["agency", "resume", HOSPITAL]).await?;
    accepted(&mut hospital.session().await?, &hospital.seal(&hospital.draft(&shelter_key))?).await
}

#[tokio::test]
async fn a_request_with_more_than_the_contracts_define() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let channel = Insider::enrol(&realm.gateway, HOSPITAL).await?.channel().await?;
    let admin = call::admin(&realm.gateway).await?;
    let call = async |channel: &Channel, method: &str, message: Bytes| {
        let path = format!("/liaison.{method}");
        let answer = raw::call_with(channel.clone(), &path, MetadataMap::new(), message).await;
        answer.err().map(|status| Refusal::from(&status).code())
    };
    // Field 1000, a varint.
    let unknown = Bytes::from_static(&[0xc0, 0x3e, 0x01]);
    for method in ["Preview", "ResolveAudience", "ListAgencies", "PublishKey", "Session"] {
        let method = format!("exchange.v1.ExchangeService/{method}");
        assert_eq!(call(&channel, &method, unknown.clone()).await, Some(ErrorCode::UnknownValue), "{method}");
    }
    for method in ["Enroll", "Renew"] {
        let method = format!("exchange.v1.EnrolmentService/{method}");
        assert_eq!(call(&channel, &method, unknown.clone()).await, Some(ErrorCode::UnknownValue), "{method}");
    }
    let add = "admin.v1.AdminService/AddAgency";
    assert_eq!(call(&admin, add, unknown).await, Some(ErrorCode::UnknownValue));

    let preview = "exchange.v1.ExchangeService/Preview";
    assert_eq!(call(&channel, preview, Bytes::from_static(&[0xff])).await, Some(ErrorCode::Malformed));
    let much = Bytes::from(vec![0; limits::GRPC_MESSAGE_BYTES + 1]);
    assert_eq!(call(&channel, preview, much).await, Some(ErrorCode::TooLarge));
    Ok(())
}

#[tokio::test]
async fn audiences() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[]).await?;
    let hospital = Insider::enrol(&realm.gateway, HOSPITAL).await?;
    let mut exchange = hospital.exchange().await?;
    let mut resolve = async |audience| {
        let facts = Facts { purpose: Purpose::Prevention.into(), audience, ..Facts::default() };
        let head = MessageHead {
            kind: Kind::Alert.into(),
            alert_kind: AlertKind::ExploitationPattern.into(),
            facts: Some(facts),
            ..MessageHead::default()
        };
        call::refused(exchange.resolve_audience(ResolveAudienceRequest { head: Some(head) }).await)
    };
    assert_eq!(resolve(Some(Audience::default())).await, Some(ErrorCode::EmptyAudience));
    let nobody = Audience { agencies: vec!["be/nobody".to_owned()], ..Audience::default() };
    assert_eq!(resolve(Some(nobody)).await, Some(ErrorCode::UnknownRecipient));
    let free_text = Audience { groups: vec!["Elena Petrova".to_owned()], ..Audience::default() };
    assert_eq!(resolve(Some(free_text)).await, Some(ErrorCode::EmptyAudience), "no group has such a name");
    let unknown = Audience { sectors: vec![77], ..Audience::default() };
    assert_eq!(resolve(Some(unknown)).await, Some(ErrorCode::UnknownValue));
    Ok(())
}

#[tokio::test]
async fn what_a_caseworker_system_gets_wrong() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let hospital = realm.agent(HOSPITAL)?;
    let good = message::to_json(&message::small_referral(SHELTER))?;
    let with = |path: &str, value: serde_json::Value| -> Result<serde_json::Value> {
        let mut body = good.clone();
        let (parent, field) = path.rsplit_once('/').context("a path")?;
        let parent =
            body.pointer_mut(parent).and_then(serde_json::Value::as_object_mut).context("an object")?;
        parent.insert(field.to_owned(), value);
        Ok(body)
    };
    for (body, code) in [
        (with("/to", json!([HOSPITAL]))?, "to_oneself"),
        (with("/to", json!(["be/nobody"]))?, "unknown_recipient"),
        (with("/to", json!(["somewhere"]))?, "malformed"),
        (with("/to", json!([]))?, "missing_field"),
        (with("/content", json!({}))?, "missing_field"),
        (with("/surprise", json!(1))?, "unknown_value"),
        (with("/purpose", json!("gossip"))?, "unknown_value"),
        (with("/content/serviceRequest", json!({ "services": ["teleport"] }))?, "unknown_value"),
        (with("/expires", json!("2020-01-01T00:00:00Z"))?, "expired"),
    ] {
        let answer = hospital.call("POST", "/v1/referrals", &[], Some(&body)).await?;
        assert_eq!(answer.error_code(), code, "{}", answer.text());
        let error = answer.json();
        for part in ["/error/message", "/error/action"] {
            let text = error.pointer(part).and_then(serde_json::Value::as_str).unwrap_or_default();
            assert!(!text.is_empty(), "{part} is missing: {error}");
        }
    }
    let raw = |body: &'static [u8]| raw_post(hospital, body);
    assert_eq!(raw(b"{\"to\": [").await?, (400, "malformed".to_owned()));
    assert_eq!(raw(b"").await?, (400, "malformed".to_owned()));
    assert_eq!(raw(b"\xff\xfe").await?, (400, "malformed".to_owned()));
    let large = vec![b' '; limits::CASE_REQUEST_BYTES + 1];
    assert_eq!(raw_post(hospital, &large).await?, (413, "too_large".to_owned()));

    let empty = message::pattern_alert(Audience::default());
    let empty = call::case(hospital)?.send_alert(empty).await;
    assert_eq!(call::refused(empty), Some(ErrorCode::EmptyAudience));
    let audience = Audience { agencies: vec![SHELTER.to_owned()], ..Audience::default() };
    let mut wrong = message::pattern_alert(audience);
    if let Some(content) = &mut wrong.content {
        let r#type = hazard_type::Code::InfectiousDisease.into();
        content.health_hazard = Some(HealthHazard { r#type, ..HealthHazard::default() });
    }
    let wrong = call::case(hospital)?.send_alert(wrong).await;
    assert_eq!(call::refused(wrong), Some(ErrorCode::Malformed), "a pattern of exploitation holds no health");

    let listed = hospital.get("/v1/referrals?direction=sent").await?;
    assert_eq!(listed.get("referrals"), Some(&json!([])), "nothing of it was kept");
    assert!(call::received_ids(realm.agent(SHELTER)?).await?.is_empty());
    Ok(())
}

/// A token enrols one agency, once.
#[tokio::test]
async fn tokens() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[]).await?;
    let token = realm.gateway.token(BORDER).await?;
    let mut attempts = Vec::new();
    for name in ["be/border-zaventem", "be/impostor"] {
        let agent = Agent::named(&realm.gateway.programs, realm.folder(), name)?;
        let (grpc, rest) = (agent.grpc().to_string(), agent.rest().to_string());
        attempts.push(agent.attempt(&["enroll", &token, "--grpc", &grpc, "--rest", &rest]).await?);
    }
    let codes: Vec<_> = attempts.iter().map(|attempt| attempt.status.code()).collect();
    assert_eq!(codes, [Some(0), Some(1)], "{attempts:?}");
    let told = attempts.last().map(|attempt| String::from_utf8_lossy(&attempt.stderr).into_owned());
    assert!(told.as_deref().unwrap_or_default().contains("token"), "{told:?}");
    realm.gateway.stop().await
}

async fn raw_post(agent: &Agent, body: &[u8]) -> Result<(u16, String)> {
    let bearer = format!("Bearer {}", agent.api_token()?);
    let headers = [
        ("authorization", bearer.as_str()),
        ("liaison-actor", "tester"),
        ("content-type", "application/json"),
    ];
    let answer = http::request(agent.rest(), "POST", "/v1/referrals", &headers, body).await?;
    Ok((answer.status, answer.error_code()))
}

async fn accepted(session: &mut Session, envelope: &Envelope) -> Result<()> {
    match session.submit(envelope).await? {
        Answer::Accepted(_) => Ok(()),
        Answer::Refused(refusal) => bail!("refused: {refusal}"),
    }
}

/// The envelope is refused with this code, says what to do, and leaves no trace in the gateway's folder.
async fn refused(session: &mut Session, realm: &Realm, envelope: &Envelope, code: ErrorCode) -> Result<()> {
    let Answer::Refused(refusal) = session.submit(envelope).await? else { bail!("accepted, not {code:?}") };
    assert_eq!(refusal.code(), code, "{refusal}");
    assert!(!refusal.message.is_empty() && !refusal.action.is_empty(), "{refusal:?}");
    let manifest = Manifest::decode(envelope.manifest.clone())?;
    for trace in [&manifest.message_id, &envelope.signature, &manifest.recipients_root] {
        if trace.len() >= 16 {
            ensure!(!stored(&realm.gateway.data, trace)?, "{code:?}: something of it is stored");
        }
    }
    Ok(())
}

fn stored(folder: &Path, bytes: &[u8]) -> Result<bool> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && fs::read(&path)?.windows(bytes.len()).any(|window| window == bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn flip(bytes: Option<&mut Bytes>) {
    if let Some(bytes) = bytes {
        let mut changed = bytes.to_vec();
        if let Some(first) = changed.first_mut() {
            *first ^= 1;
        }
        *bytes = changed.into();
    }
}

fn copy_of(
    delivery: liaison_proto::exchange::v1::Delivery,
) -> Result<liaison_proto::message::v1::SealedCopy> {
    match delivery.content {
        Some(liaison_proto::exchange::v1::delivery::Content::Copy(copy)) => Ok(copy),
        other => bail!("no copy but {other:?}"),
    }
}
