//! Everything that a gateway refuses: each with its own code, and nothing of it stored.

use bytes::Bytes;
use liaison_gateway::store::QueueBound;
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    exchange::v1::{
        Hello, ListAgenciesRequest, SubmissionChunk, session_request::Frame as Request,
        session_response::Frame as Response,
    },
    limits::{CHUNK_BYTES, ENVELOPE_BYTES},
    message::v1::{
        Audience, Envelope, Facts, Manifest, Refusal, basis::Code as Basis, data_category::Code as Category,
        error_code::Code as ErrorCode, referral_state::Code as State, status::Code as Status,
    },
};
use liaison_trust::{
    ca::{Authority, TlsKey, certificate_request},
    envelope::{self, Draft},
    key_record,
    keys::SigningKey,
    names::SpiffeId,
    tls::Identity,
};
use prost::Message;
use time::{Duration, OffsetDateTime};
use tonic::Code;
use uuid::Uuid;

use super::support::{Actor, Link, World};

/// An agency's session, and what must stay empty.
struct Attack {
    world: World,
    police: Actor,
    shelter: Actor,
    health: Actor,
    rapporteur: Actor,
    link: Link,
}

impl Attack {
    async fn start() -> Self {
        let (world, [police, shelter, health, rapporteur]) = World::start().await;
        let link = world.session(&shelter).await;
        Self { world, police, shelter, health, rapporteur, link }
    }

    fn referral(&self) -> Draft {
        self.shelter.referral(&self.police, Basis::ConsentOfPerson)
    }

    /// Submits, expects this refusal, and that nothing was stored.
    async fn refused(&mut self, envelope: &Envelope, code: ErrorCode) -> Refusal {
        let refusal = self.link.submit(envelope).await.expect_err("it was accepted");
        self.nothing_stored(envelope, &refusal, code).await;
        refusal
    }

    async fn nothing_stored(&self, envelope: &Envelope, refusal: &Refusal, code: ErrorCode) {
        assert_eq!(refusal.code(), code, "{refusal}");
        assert!(!refusal.message.is_empty() && !refusal.action.is_empty());
        for actor in [&self.police, &self.shelter, &self.health, &self.rapporteur] {
            assert_eq!(self.world.queued(actor).await, 0);
            if let Ok(manifest) = Manifest::decode(envelope.manifest.clone())
                && let Ok(id) = Uuid::from_slice(&manifest.message_id)
            {
                assert_eq!(self.world.gateway.store.accepted(&actor.address, id).await.unwrap(), None);
            }
        }
    }
}

#[tokio::test]
async fn another_agencys_name_as_sender() {
    let mut attack = Attack::start().await;
    let foreign = attack.health.seal(&attack.health.referral(&attack.police, Basis::ConsentOfPerson));
    attack.refused(&foreign, ErrorCode::SenderMismatch).await;
}

#[tokio::test]
async fn a_changed_or_swapped_section() {
    let mut attack = Attack::start().await;
    let mut changed = attack.shelter.seal(&attack.referral());
    let mut ciphertext = changed.sections[0].ciphertext.to_vec();
    ciphertext[0] ^= 1;
    changed.sections[0].ciphertext = ciphertext.into();
    attack.refused(&changed, ErrorCode::ChangedSection).await;

    let mut swapped = attack.shelter.seal(&attack.referral());
    let other = attack.shelter.seal(&attack.referral());
    swapped.sections[0] = other.sections[0].clone();
    attack.refused(&swapped, ErrorCode::ChangedSection).await;
}

#[tokio::test]
async fn a_stripped_or_foreign_signature() {
    let mut attack = Attack::start().await;
    let mut stripped = attack.shelter.seal(&attack.referral());
    stripped.signature = Bytes::new();
    attack.refused(&stripped, ErrorCode::BadSignature).await;

    let mut foreign = attack.shelter.seal(&attack.referral());
    foreign.signature = attack.shelter.seal(&attack.referral()).signature;
    attack.refused(&foreign, ErrorCode::BadSignature).await;
}

#[tokio::test]
async fn a_key_that_was_never_published() {
    let mut attack = Attack::start().await;
    let signing = SigningKey::generate();
    let until = OffsetDateTime::now_utc() + Duration::days(1);
    let record = key_record::first(
        &attack.shelter.address,
        &signing,
        &attack.shelter.kem,
        OffsetDateTime::now_utc() - Duration::HOUR,
        until,
    );
    let sealed = envelope::seal(&attack.referral(), &signing, &record).unwrap();
    attack.refused(&sealed, ErrorCode::UnknownKey).await;

    // Sealed to a key that the recipient doesn't have.
    let mut draft = attack.referral();
    draft.recipients[0].key.id = attack.health.key.id;
    let sealed = attack.shelter.seal(&draft);
    attack.refused(&sealed, ErrorCode::UnknownKey).await;
}

#[tokio::test]
async fn the_same_id_with_other_content() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut link = world.session(&shelter).await;
    let first = shelter.referral(&police, Basis::ConsentOfPerson);
    link.submit(&shelter.seal(&first)).await.unwrap();
    let mut second = shelter.referral(&police, Basis::ConsentOfPerson);
    second.message_id = first.message_id;
    assert_eq!(link.submit(&shelter.seal(&second)).await.unwrap_err().code(), ErrorCode::IdReused);
    // Another message in the same thread is another referral in it.
    let mut third = shelter.referral(&police, Basis::ConsentOfPerson);
    third.thread = first.thread;
    assert_eq!(link.submit(&shelter.seal(&third)).await.unwrap_err().code(), ErrorCode::IdReused);
    assert_eq!(world.queued(&police).await, 1);
}

#[tokio::test]
async fn a_replay_by_another_agency() {
    let (world, [police, shelter, health, _]) = World::start().await;
    let envelope = shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson));
    world.session(&shelter).await.submit(&envelope).await.unwrap();
    let replayed = world.session(&health).await.submit(&envelope).await;
    assert_eq!(replayed.unwrap_err().code(), ErrorCode::SenderMismatch);
    assert_eq!(world.queued(&police).await, 1);
}

#[tokio::test]
async fn a_recipient_that_is_the_sender_or_nobody_or_gone() {
    let mut attack = Attack::start().await;
    let mut envelope = attack.shelter.seal(&attack.referral());
    envelope.recipients[0].address = attack.shelter.address.to_string();
    attack.refused(&envelope, ErrorCode::ToOneself).await;

    let mut draft = attack.referral();
    draft.recipients[0].key.agency = "be/nobody".parse().unwrap();
    let envelope = attack.shelter.seal(&draft);
    attack.refused(&envelope, ErrorCode::UnknownRecipient).await;

    let envelope = attack.shelter.seal(&attack.referral());
    attack.world.set_state(&attack.police, AgencyState::Suspended);
    attack.refused(&envelope, ErrorCode::Suspended).await;
    attack.world.set_state(&attack.police, AgencyState::Revoked);
    attack.refused(&envelope, ErrorCode::Revoked).await;
    attack.world.set_state(&attack.police, AgencyState::Invited);
    attack.refused(&envelope, ErrorCode::NotEnrolled).await;
}

#[tokio::test]
async fn recipients_that_were_changed() {
    let mut attack = Attack::start().await;
    let mut envelope = attack.shelter.seal(&attack.referral());
    envelope.recipients[0].address = attack.health.address.to_string();
    attack.refused(&envelope, ErrorCode::BadRecipients).await;
    envelope.recipients.clear();
    attack.refused(&envelope, ErrorCode::BadRecipients).await;
}

#[tokio::test]
async fn times_that_are_off() {
    let mut attack = Attack::start().await;
    let now = OffsetDateTime::now_utc();
    let mut expired = attack.referral();
    (expired.created, expired.expires) = (now - Duration::minutes(2), now - Duration::minutes(1));
    let envelope = attack.shelter.seal(&expired);
    attack.refused(&envelope, ErrorCode::Expired).await;

    let mut early = attack.referral();
    early.created = now + Duration::minutes(20);
    let envelope = attack.shelter.seal(&early);
    attack.refused(&envelope, ErrorCode::ClockSkew).await;
}

#[tokio::test]
async fn bytes_that_are_no_envelope() {
    let mut attack = Attack::start().await;
    let good = attack.shelter.seal(&attack.referral());
    let garbage = attack.link.submit_bytes(&[0xff; 64]).await.unwrap_err();
    attack.nothing_stored(&good, &garbage, ErrorCode::Malformed).await;

    // A field that this version does not have: number 99, a varint.
    let mut unknown = good.encode_to_vec();
    unknown.extend_from_slice(&[0x98, 0x06, 0x01]);
    let refusal = attack.link.submit_bytes(&unknown).await.unwrap_err();
    attack.nothing_stored(&good, &refusal, ErrorCode::UnknownValue).await;
}

#[tokio::test]
async fn an_envelope_that_is_too_large() {
    let mut attack = Attack::start().await;
    let mut huge = attack.shelter.seal(&attack.referral());
    huge.sections[0].ciphertext = vec![0; ENVELOPE_BYTES].into();
    attack.refused(&huge, ErrorCode::TooLarge).await;

    let data = vec![0; CHUNK_BYTES + 1].into();
    attack.link.send(Request::Submission(SubmissionChunk { submission: 77, data, last: true })).await;
    let Response::Refused(refused) = attack.link.frame().await.unwrap() else { panic!("not refused") };
    assert_eq!(refused.refusal.unwrap().code(), ErrorCode::TooLarge);
}

#[tokio::test]
async fn an_alert_to_nobody() {
    let mut attack = Attack::start().await;
    let mut alert = attack.shelter.alert(&[&attack.police]);
    alert.facts = Some(Facts { audience: Some(Audience::default()), ..alert.facts.unwrap() });
    let envelope = attack.shelter.seal(&alert);
    attack.refused(&envelope, ErrorCode::EmptyAudience).await;
}

#[tokio::test]
async fn a_message_that_policies_forbid() {
    let mut attack = Attack::start().await;
    let draft = attack.shelter.referral(&attack.rapporteur, Basis::ConsentOfPerson);
    let envelope = attack.shelter.seal(&draft);
    let refusal = attack.refused(&envelope, ErrorCode::ForbiddenByPolicy).await;
    let rule = refusal.rule.unwrap();
    assert_eq!((rule.layer.as_str(), rule.rule.as_str()), ("scheme", "scheme.no-cases-for-statistics"));
    assert!(!rule.explain.is_empty());
    // However often it is offered, the log tells of it once.
    attack.refused(&envelope, ErrorCode::ForbiddenByPolicy).await;
    let gateway = &attack.world.gateway;
    let leaves = gateway.store.leaves(gateway.logs.evidence.tree().id(), 0, 100).await.unwrap();
    assert_eq!(leaves.len(), 1, "{leaves:?}");

    // Held is refused, by the rule that holds, as long as nobody can release.
    let mut held = attack.referral();
    held.handling = Some(liaison_proto::message::v1::Handling {
        police: liaison_proto::message::v1::police_handling::Code::H3.into(),
        ..Default::default()
    });
    let envelope = attack.shelter.seal(&held);
    let refusal = attack.refused(&envelope, ErrorCode::ForbiddenByPolicy).await;
    assert_eq!(refusal.rule.unwrap().rule, "scheme.h3-needs-a-person");
}

#[tokio::test]
async fn a_full_queue() {
    let bound = QueueBound { deliveries: 1, bytes: 1 << 20 };
    let (world, [police, shelter, ..]) = World::start_with(bound).await;
    let mut link = world.session(&shelter).await;
    link.submit(&shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson))).await.unwrap();
    let second = shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson));
    let refusal = link.submit(&second).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::QueueFull);
    assert!(refusal.retry_after_ms > 0);
    assert_eq!(world.queued(&police).await, 1);
}

#[tokio::test]
async fn an_alert_to_one_who_is_full_and_one_who_is_not() {
    let bound = QueueBound { deliveries: 1, bytes: 1 << 20 };
    let (world, [police, shelter, health, _]) = World::start_with(bound).await;
    let mut link = world.session(&shelter).await;
    link.submit(&shelter.seal(&shelter.alert(&[&police]))).await.unwrap();
    let second = shelter.alert(&[&police, &health]);
    let signed = link.submit(&shelter.seal(&second)).await.unwrap();
    let decisions = world.acceptance(&signed).decisions;
    let rules: Vec<_> = decisions
        .iter()
        .map(|decision| (decision.recipient.as_str(), decision.rule.as_ref().map(|rule| rule.rule.as_str())))
        .collect();
    assert_eq!(
        rules,
        [
            (police.address.to_string().as_str(), Some("none:room")),
            (health.address.to_string().as_str(), None)
        ]
    );
    assert_eq!((world.queued(&police).await, world.queued(&health).await), (1, 1));
    // Where nobody has room, it waits.
    let refusal = link.submit(&shelter.seal(&shelter.alert(&[&police, &health]))).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::QueueFull);
}

#[tokio::test]
async fn states_of_strangers_and_states_of_the_other_party() {
    let (world, [police, shelter, health, _]) = World::start().await;
    let mut link = world.session(&shelter).await;
    let draft = shelter.referral(&police, Basis::ConsentOfPerson);
    link.submit(&shelter.seal(&draft)).await.unwrap();
    let mut stranger = world.session(&health).await;
    for (from, to) in [(&health, &shelter), (&health, &police)] {
        let state = from.state(to, draft.thread, State::Accepted);
        let refused = stranger.submit(&from.seal(&state)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::NotAParty);
    }
    let unknown = shelter.state(&police, Uuid::now_v7(), State::Cancelled);
    assert_eq!(link.submit(&shelter.seal(&unknown)).await.unwrap_err().code(), ErrorCode::NotAParty);
    for state in [State::Accepted, State::Requested] {
        let others = shelter.state(&police, draft.thread, state);
        let refused = link.submit(&shelter.seal(&others)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::TransitionNotAllowed);
    }
    let mut exercise = shelter.state(&police, draft.thread, State::Cancelled);
    exercise.status = Status::Exercise;
    assert_eq!(link.submit(&shelter.seal(&exercise)).await.unwrap_err().code(), ErrorCode::NotAParty);
    assert_eq!(world.queued(&police).await, 1);
    assert_eq!(world.queued(&shelter).await, 0);
}

#[tokio::test]
async fn an_acknowledgement_that_is_not_the_recipients() {
    let (world, [police, shelter, health, _]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    sender.submit(&shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson))).await.unwrap();
    for case in 0..3 {
        let mut link = world.session(&police).await;
        let (attempt, copy) = link.copy().await;
        let mut word = police.acknowledgement(&copy);
        let signing = match case {
            0 => &health.signing,
            1 => {
                word.manifest_digest = vec![0; 32].into();
                &police.signing
            }
            _ => {
                word.recipient = health.address.to_string();
                &police.signing
            }
        };
        link.acknowledge(attempt, &word, signing).await;
        assert_eq!(link.frame().await.unwrap_err().code(), ErrorCode::BadSignature);
        assert_eq!(world.queued(&police).await, 1);
    }
    assert_eq!(world.queued(&shelter).await, 0);
}

#[tokio::test]
async fn callers_without_the_right_certificate() {
    let (world, [police, ..]) = World::start().await;
    let refused = async |identity: Option<Identity>| {
        let mut client = world.client(identity).await;
        let status = client.list_agencies(ListAgenciesRequest::default()).await.unwrap_err();
        let Err(session) = Link::open(&mut client).await else { panic!("a session was opened") };
        assert_eq!(session.code(), status.code());
        (status.code(), Refusal::from(&status).code())
    };
    assert_eq!(refused(None).await, (Code::Unauthenticated, ErrorCode::NoClientCertificate));
    // The gateway's own certificate names no agency.
    let (from, to) = (OffsetDateTime::now_utc() - Duration::HOUR, OffsetDateTime::now_utc() + Duration::HOUR);
    let gateway = world.ca.issue_gateway(&[], from, to).unwrap();
    assert_eq!(refused(Some(gateway)).await, (Code::Unauthenticated, ErrorCode::WrongName));
    let stranger = world.identity(&"be/stranger".parse().unwrap());
    assert_eq!(refused(Some(stranger)).await, (Code::FailedPrecondition, ErrorCode::NotEnrolled));
    world.set_state(&police, AgencyState::Suspended);
    let suspended = world.identity(&police.address);
    assert_eq!(refused(Some(suspended)).await, (Code::PermissionDenied, ErrorCode::Suspended));
}

#[tokio::test]
async fn a_certificate_of_a_foreign_authority() {
    let (world, [police, ..]) = World::start().await;
    let foreign = Authority::create(&"be".parse().unwrap()).unwrap();
    let key = TlsKey::generate().unwrap();
    let (from, to) = (OffsetDateTime::now_utc() - Duration::HOUR, OffsetDateTime::now_utc() + Duration::HOUR);
    let name = SpiffeId::Agency(police.address.clone());
    let leaf = foreign.sign_request(&certificate_request(&key).unwrap(), &name, from, to).unwrap();
    let mut client = world.client(Some(Identity::new(vec![leaf], key).unwrap())).await;
    assert!(client.list_agencies(ListAgenciesRequest::default()).await.is_err());
}

#[tokio::test]
async fn a_session_that_does_not_keep_to_the_protocol() {
    let (world, [police, ..]) = World::start().await;
    let mut client = world.client(Some(world.identity(&police.address))).await;
    for first in [
        Request::Hello(Hello { window: 0, ..Hello::default() }),
        Request::Hello(Hello { window: 257, ..Hello::default() }),
        Request::Submission(SubmissionChunk::default()),
    ] {
        let mut link = Link::open(&mut client).await.unwrap();
        link.send(first).await;
        assert_eq!(link.frame().await.unwrap_err().code(), ErrorCode::Malformed);
    }
    let mut link = world.session(&police).await;
    link.send(Request::Hello(Hello { window: 1, ..Hello::default() })).await;
    assert_eq!(link.frame().await.unwrap_err().code(), ErrorCode::Malformed);
}

#[tokio::test]
async fn nothing_is_disclosed_without_a_basis() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut link = world.session(&shelter).await;
    let mut draft = shelter.referral(&police, Basis::ConsentOfPerson);
    draft.recipients[0].bases.remove(&Category::Health);
    link.submit(&shelter.seal(&draft)).await.unwrap();
    let (_, copy) = world.session(&police).await.copy().await;
    let received = police.receive(&copy, &shelter, &world);
    assert_eq!(received.sections.len(), 1);
    assert!(received.release.withheld.is_empty());
}
