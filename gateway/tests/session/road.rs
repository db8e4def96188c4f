//! What is accepted reaches its recipients once, and no more of it than policies let through.

use std::time::Duration;

use liaison_gateway::{delivery::sweep, store::Database};
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    exchange::v1::{
        MessageHead, PreviewRecipient, PreviewRequest, PublishKeyRequest, ResolveAudienceRequest,
    },
    message::v1::{
        Audience, CategoryBasis, Facts, Manifest, Notice, Refusal, SealedCopy, alert_kind::Code as AlertKind,
        basis::Code as Basis, data_category::Code as Category, error_code::Code as ErrorCode,
        kem::Code as Kem, kind::Code as Kind, notice::Event, purpose::Code as Purpose,
        referral_state::Code as State, status::Code as Status, urgency::Code as Urgency,
        verdict::Code as Verdict,
    },
};
use liaison_trust::{
    key_record,
    keys::{KemKey, SigningKey},
};
use prost::Message;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    engine,
    support::{Link, SOON, World},
};

const STRICTER: (&str, &str) = (
    "scheme/stricter.cedar",
    r#"@id("scheme.stricter") @owner("Test") @legal_basis("Test") @explain("Test")
       forbid (principal, action == Action::"share_health", resource);"#,
);
const OTHER: (&str, &str) = (
    "scheme/other.cedar",
    r#"@id("scheme.other") @owner("Test") @legal_basis("Test") @explain("Test")
       forbid (principal, action == Action::"share_migration", resource);"#,
);
const CLOSED: (&str, &str) = (
    "scheme/closed.cedar",
    r#"@id("scheme.closed") @owner("Test") @legal_basis("Test") @explain("Test")
       forbid (principal, action == Action::"receive", resource);"#,
);

#[tokio::test]
async fn a_referral_crosses_and_its_content_goes() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    let envelope = shelter.seal(&shelter.referral(&police, Basis::VitalInterest));
    let acceptance = world.acceptance(&sender.submit(&envelope).await.unwrap());
    let told = &acceptance.decisions[0];
    assert_eq!((told.recipient.as_str(), told.verdict()), ("be/police", Verdict::Released));
    let health = told.categories.iter().find(|told| told.category() == Category::Health).unwrap();
    assert_eq!(health.verdict(), Verdict::Withheld);
    assert_eq!(health.rule.as_ref().unwrap().rule, "scheme.special-not-to-police");

    let mut recipient = world.session(&police).await;
    let (attempt, copy) = recipient.copy().await;
    let received = police.receive(&copy, &shelter, &world);
    let categories: Vec<_> = received.sections.iter().map(|section| section.category).collect();
    assert_eq!(categories, [Category::ServiceRequest]);
    assert_eq!(copy.recipient.as_ref().unwrap().wrapped_keys.len(), 1);
    assert!(received.release.withheld.is_empty(), "that there are health data is a secret here");
    assert_eq!(received.release.policy_hash, acceptance.policy_hash);

    recipient.acknowledge(attempt, &police.acknowledgement(&copy), &police.signing).await;
    let notice = sender.notice(&world).await;
    assert_eq!(notice.manifest_digest, acceptance.manifest_digest);
    assert!(matches!(notice.event, Some(Event::Acknowledged(_))));
    world.until_queued(&shelter, 0).await;
    world.until_queued(&police, 0).await;
}

#[tokio::test]
async fn the_same_message_again_gets_the_same_answer() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    let envelope = shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson));
    let first = sender.submit(&envelope).await.unwrap();
    assert_eq!(sender.submit(&envelope).await.unwrap(), first);
    // Even when the world would refuse it by now.
    world.load_policies(&[CLOSED]);
    assert_eq!(sender.submit(&envelope).await.unwrap(), first);
    world.set_state(&police, AgencyState::Suspended);
    assert_eq!(sender.submit(&envelope).await.unwrap(), first);
    assert_eq!(world.queued(&police).await, 1);
}

#[tokio::test]
async fn a_dropped_session_delivers_again_with_one_effect() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    for _ in 0..3 {
        let draft = shelter.referral(&police, Basis::ConsentOfPerson);
        sender.submit(&shelter.seal(&draft)).await.unwrap();
    }
    let mut first = world.session(&police).await;
    let (_, before) = first.copy().await;
    let second_copy = first.copy().await.1;
    drop(first);

    let mut again = world.session(&police).await;
    let (attempt, copy) = again.copy().await;
    assert_eq!(copy, before);
    assert_eq!(again.copy().await.1, second_copy);
    // The answer comes twice, as from an agent that is unsure.
    let word = police.acknowledgement(&copy);
    again.acknowledge(attempt.clone(), &word, &police.signing).await;
    again.acknowledge(attempt, &word, &police.signing).await;
    again.acknowledge(vec![7; 16].into(), &word, &police.signing).await;
    assert!(matches!(sender.notice(&world).await.event, Some(Event::Acknowledged(_))));
    world.until_queued(&shelter, 0).await;
    assert_eq!(world.queued(&police).await, 2);
}

#[tokio::test]
async fn the_window_is_kept() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let draft = shelter.referral(&police, Basis::ConsentOfPerson);
        ids.push(draft.message_id);
        sender.submit(&shelter.seal(&draft)).await.unwrap();
    }
    let mut recipient = world.session_with(&police, 1).await;
    for id in ids {
        let (attempt, copy) = recipient.copy().await;
        assert_eq!(police.receive(&copy, &shelter, &world).id, id);
        let silence = timeout(std::time::Duration::from_millis(20), recipient.delivery()).await;
        assert!(silence.is_err(), "a second delivery came without an answer to the first");
        recipient.acknowledge(attempt, &police.acknowledgement(&copy), &police.signing).await;
    }
}

#[tokio::test]
async fn policies_that_tighten_after_acceptance_win() {
    let (world, [_, shelter, health, _]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    let narrowed = shelter.seal(&shelter.referral(&health, Basis::ConsentOfPerson));
    sender.submit(&narrowed).await.unwrap();
    world.load_policies(&[STRICTER]);

    let mut recipient = world.session(&health).await;
    let (_, copy) = recipient.copy().await;
    let received = health.receive(&copy, &shelter, &world);
    let categories: Vec<_> = received.sections.iter().map(|section| section.category).collect();
    assert_eq!(categories, [Category::ServiceRequest]);
    assert_eq!(received.release.withheld, [i32::from(Category::Health)]);
    assert_eq!(received.release.policy_hash, world.gateway.policy.load().hash().as_bytes().as_slice());
    let Some(Event::Narrowed(told)) = sender.notice(&world).await.event else { panic!("no notice") };
    assert_eq!(told.verdict(), Verdict::Released);
    let verdict = |category| {
        let told = told.categories.iter().find(|told| told.category() == category).unwrap();
        (told.verdict(), told.rule.as_ref().map(|rule| rule.rule.clone()))
    };
    assert_eq!(verdict(Category::Health), (Verdict::Withheld, Some("scheme.stricter".to_owned())));
    assert_eq!(verdict(Category::ServiceRequest), (Verdict::Released, None));

    // Looser again: what was taken away stays away, on the next session as well.
    world.load_policies(&[]);
    let mut recipient = world.session(&health).await;
    let (_, copy) = recipient.copy().await;
    assert_eq!(health.receive(&copy, &shelter, &world).sections.len(), 1);

    // And nothing at all where the message itself is refused by now.
    world.load_policies(&[CLOSED]);
    let _recipient = world.session(&health).await;
    let Some(Event::Narrowed(told)) = sender.notice(&world).await.event else { panic!("no notice") };
    assert_eq!(told.verdict(), Verdict::Withheld);
    assert_eq!(told.rule.unwrap().rule, "scheme.closed");
    world.until_queued(&health, 0).await;
}

#[tokio::test]
async fn a_copy_does_not_tell_that_policies_tightened_meanwhile() {
    let (world, [_, shelter, health, _]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    let submit = shelter.seal(&shelter.referral(&health, Basis::ConsentOfPerson));
    sender.submit(&submit).await.unwrap();
    world.load_policies(&[OTHER]);
    let mut recipient = world.session(&health).await;
    let (_, copy) = recipient.copy().await;
    let received = health.receive(&copy, &shelter, &world);
    assert_eq!(received.sections.len(), 2);
    // As that of a copy which was narrowed: decided by the policies of now.
    assert_eq!(received.release.policy_hash, world.gateway.policy.load().hash().as_bytes().as_slice());
}

#[tokio::test]
async fn states_travel_in_their_thread_whatever_policies_say() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut requester = world.session(&shelter).await;
    let draft = shelter.referral(&police, Basis::ConsentOfPerson);
    requester.submit(&shelter.seal(&draft)).await.unwrap();
    world.load_policies(&[CLOSED]);

    let mut responder = world.session(&police).await;
    // The referral itself is withheld by now.
    let notice = requester.notice(&world).await;
    assert!(matches!(notice.event, Some(Event::Narrowed(_))));
    let accepted = police.state(&shelter, draft.thread, State::Accepted);
    responder.submit(&police.seal(&accepted)).await.unwrap();
    let (attempt, copy) = requester.copy().await;
    let received = shelter.receive(&copy, &police, &world);
    assert_eq!(received.manifest.state_change.unwrap().state(), State::Accepted);
    requester.acknowledge(attempt, &shelter.acknowledgement(&copy), &shelter.signing).await;
    assert!(matches!(responder.notice(&world).await.event, Some(Event::Acknowledged(_))));
}

#[tokio::test]
async fn a_copy_that_its_recipient_cannot_believe_is_set_aside() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    sender.submit(&shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson))).await.unwrap();
    let mut recipient = world.session(&police).await;
    let (attempt, _) = recipient.copy().await;
    let reason = Refusal::new(ErrorCode::ChangedSection, "canary", "canary");
    recipient.set_aside(attempt, reason).await;
    let Some(Event::Quarantined(reason)) = sender.notice(&world).await.event else { panic!("no notice") };
    assert_eq!(reason.code(), ErrorCode::ChangedSection);
    assert!(!format!("{reason:?}").contains("canary"), "a recipient's own words went through the gateway");
    world.until_queued(&police, 0).await;
}

#[tokio::test]
async fn what_nobody_took_expires_and_a_revoked_recipient_returns_it() {
    let (world, [police, shelter, health, _]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    let expiring = shelter.referral(&police, Basis::ConsentOfPerson);
    sender.submit(&shelter.seal(&expiring)).await.unwrap();
    sweep::sweep(&world.gateway, expiring.expires - time::Duration::SECOND).await.unwrap();
    assert_eq!(world.queued(&police).await, 1);
    sweep::sweep(&world.gateway, expiring.expires).await.unwrap();
    assert!(matches!(sender.notice(&world).await.event, Some(Event::Expired(_))));
    assert_eq!(world.queued(&police).await, 0);

    sender.submit(&shelter.seal(&shelter.referral(&health, Basis::ConsentOfPerson))).await.unwrap();
    world.set_state(&health, AgencyState::Revoked);
    sweep::sweep(&world.gateway, OffsetDateTime::now_utc()).await.unwrap();
    let Some(Event::Undeliverable(reason)) = sender.notice(&world).await.event else { panic!("no notice") };
    assert_eq!(reason.code(), ErrorCode::Revoked);
    assert_eq!(world.queued(&health).await, 0);
}

#[tokio::test]
async fn an_alert_reaches_its_audience() {
    let (world, [police, shelter, health, rapporteur]) = World::start().await;
    let mut sender = world.session(&police).await;
    let all = [&shelter, &health, &rapporteur];
    let acceptance = sender.submit(&police.seal(&police.alert(&all))).await.unwrap();
    assert_eq!(world.acceptance(&acceptance).decisions.len(), 3);
    for actor in all {
        let mut link = world.session(actor).await;
        let (attempt, copy) = link.copy().await;
        assert_eq!(actor.receive(&copy, &police, &world).sections.len(), 1);
        link.acknowledge(attempt, &actor.acknowledgement(&copy), &actor.signing).await;
        let notice: Notice = sender.notice(&world).await;
        assert_eq!(notice.recipient, actor.address.to_string());
    }
}

#[tokio::test]
async fn a_preview_and_its_submission_agree() {
    let (world, [police, shelter, health, rapporteur]) = World::start().await;
    let mut client = world.client(Some(world.identity(&shelter.address))).await;
    let mut sender = world.session(&shelter).await;
    for basis in [Basis::ConsentOfPerson, Basis::VitalInterest, Basis::PublicTask] {
        for to in [&police, &health, &rapporteur] {
            let draft = shelter.referral(to, basis);
            let bases = draft.recipients[0].bases.iter();
            let bases = bases.map(|(category, basis)| CategoryBasis {
                category: (*category).into(),
                basis: (*basis).into(),
            });
            let head = MessageHead {
                kind: draft.kind.into(),
                urgency: draft.urgency.into(),
                status: draft.status.into(),
                facts: draft.facts.clone(),
                ..MessageHead::default()
            };
            let recipient = PreviewRecipient { address: to.address.to_string(), bases: bases.collect() };
            let request = PreviewRequest { head: Some(head), recipients: vec![recipient] };
            let preview = client.preview(request).await.unwrap().into_inner();
            match sender.submit(&shelter.seal(&draft)).await {
                Ok(acceptance) => {
                    let acceptance = world.acceptance(&acceptance);
                    assert_eq!(acceptance.policy_hash, preview.policy_hash);
                    assert_eq!(acceptance.decisions, preview.decisions);
                }
                Err(refusal) => {
                    assert_eq!(refusal.code(), ErrorCode::ForbiddenByPolicy);
                    assert_eq!(preview.decisions[0].verdict(), Verdict::Withheld);
                    assert_eq!(refusal.rule, preview.decisions[0].rule);
                }
            }
        }
    }
}

#[tokio::test]
async fn an_audience_is_resolved_under_policy() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut client = world.client(Some(world.identity(&shelter.address))).await;
    let head = |kind: AlertKind, audience: Audience| MessageHead {
        kind: Kind::Alert.into(),
        alert_kind: kind.into(),
        urgency: Urgency::Immediate.into(),
        status: Status::Actual.into(),
        facts: Some(Facts {
            purpose: Purpose::Prevention.into(),
            audience: Some(audience),
            ..Facts::default()
        }),
        ..MessageHead::default()
    };
    let all = Audience { countries: vec!["be".to_owned()], ..Audience::default() };
    let request = ResolveAudienceRequest { head: Some(head(AlertKind::ExploitationPattern, all.clone())) };
    let resolved = client.resolve_audience(request).await.unwrap().into_inner();
    let addresses: Vec<_> = resolved.agencies.iter().map(|agency| agency.address.as_str()).collect();
    assert_eq!(addresses, ["be/health", "be/police", "be/rapporteur"]);
    assert_eq!(resolved.agencies[1].keys, std::slice::from_ref(&police.record));

    let request = ResolveAudienceRequest { head: Some(head(AlertKind::MissingMinor, all)) };
    let resolved = client.resolve_audience(request).await.unwrap().into_inner();
    assert_eq!(resolved.agencies.len(), 1);
    assert_eq!(resolved.refused.len(), 2);
    let rule = resolved.refused[0].rule.as_ref().unwrap();
    assert_eq!(rule.rule, "scheme.missing-minor-only-to-searchers");

    for empty in [Audience::default(), Audience { countries: vec!["hu".to_owned()], ..Audience::default() }] {
        let request = ResolveAudienceRequest { head: Some(head(AlertKind::ExploitationPattern, empty)) };
        let status = client.resolve_audience(request).await.unwrap_err();
        assert_eq!(Refusal::from(&status).code(), ErrorCode::EmptyAudience);
    }
}

#[tokio::test]
async fn a_newer_session_takes_the_place_of_an_older_one() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut older = world.session(&police).await;
    let mut newer = world.session(&police).await;
    assert_eq!(older.frame().await.unwrap_err().code(), ErrorCode::ShuttingDown);
    let mut sender = world.session(&shelter).await;
    sender.submit(&shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson))).await.unwrap();
    newer.copy().await;
    assert_eq!(world.gateway.sessions.count(), 2);
}

#[tokio::test]
async fn a_stopping_gateway_drains() {
    let (world, [police, ..]) = World::start().await;
    let mut link = world.session(&police).await;
    world.gateway.stop.cancel();
    let frame = link.frame().await.unwrap();
    assert!(matches!(frame, liaison_proto::exchange::v1::session_response::Frame::Drain(_)));
}

#[tokio::test]
async fn keys_follow_one_another() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut client = world.client(Some(world.identity(&shelter.address))).await;
    let now = OffsetDateTime::now_utc();
    let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::XWing).unwrap());
    let until = now + time::Duration::days(60);
    let next = key_record::next(&shelter.record, &shelter.signing, &signing, &kem, now, until).unwrap();
    let foreign = key_record::first(&shelter.address, &signing, &kem, now, until);
    let publish = |key| PublishKeyRequest { key: Some(key) };

    let refused = client.publish_key(publish(foreign)).await.unwrap_err();
    assert_eq!(Refusal::from(&refused).code(), ErrorCode::KeyChainBroken);
    client.publish_key(publish(next.clone())).await.unwrap();
    client.publish_key(publish(next.clone())).await.unwrap();
    assert_eq!(world.gateway.store.keys().await.unwrap()[&shelter.address], [next]);

    // A message that was sealed under the key before is still taken.
    let mut sender = world.session(&shelter).await;
    sender.submit(&shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson))).await.unwrap();
}

#[tokio::test]
async fn a_revoked_agency_is_cut_off() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    let mut link: Link = world.session(&police).await;
    world.set_state(&police, AgencyState::Revoked);
    world.gateway.sessions.cut(&police.address);
    assert!(link.frame().await.is_err());
    let refused = sender.submit(&shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson))).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::Revoked);
    let waiting = async {
        while world.gateway.sessions.is_connected(&police.address) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
    let mut client = world.client(Some(world.identity(&police.address))).await;
    let Err(status) = Link::open(&mut client).await else { panic!("a revoked agency has a session") };
    assert_eq!(Refusal::from(&status).code(), ErrorCode::Revoked);
}

#[tokio::test]
async fn what_a_suspended_agency_sent_waits_and_what_a_revoked_one_sent_goes_nowhere() {
    let (world, [police, shelter, health, rapporteur]) = World::start().await;
    let of = |copy: &SealedCopy| Manifest::decode(copy.manifest.clone()).unwrap().sender;
    for sender in [&shelter, &rapporteur, &health] {
        let draft = sender.referral(&police, Basis::ConsentOfPerson);
        world.session(sender).await.submit(&sender.seal(&draft)).await.unwrap();
    }
    world.set_state(&shelter, AgencyState::Suspended);
    world.set_state(&rapporteur, AgencyState::Revoked);
    let mut link = world.session(&police).await;
    let (_, copy) = link.copy().await;
    assert_eq!(of(&copy), health.address.to_string());
    world.until_queued(&police, 2).await;
    // Once, however often the directory changes.
    world.set_state(&shelter, AgencyState::Active);
    world.set_state(&shelter, AgencyState::Active);
    let (_, copy) = link.copy().await;
    assert_eq!(of(&copy), shelter.address.to_string());
    assert!(timeout(Duration::from_millis(300), link.copy()).await.is_err(), "handed over twice");
}

#[tokio::test]
async fn what_waits_for_its_turn_is_held_if_its_sender_is_suspended_meanwhile() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    for _ in 0..2 {
        sender.submit(&shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson))).await.unwrap();
    }
    let mut link = world.session_with(&police, 1).await;
    let (attempt, first) = link.copy().await;
    world.set_state(&shelter, AgencyState::Suspended);
    link.acknowledge(attempt, &police.acknowledgement(&first), &police.signing).await;
    assert!(timeout(Duration::from_millis(300), link.copy()).await.is_err(), "handed over nevertheless");
    world.set_state(&shelter, AgencyState::Active);
    timeout(SOON, link.copy()).await.expect("it is held for ever");
}

/// Where a database is shared, a change that another gateway makes meanwhile refuses nothing that is under way.
#[tokio::test]
async fn what_another_gateway_changed_meanwhile_decides_without_a_refusal() {
    let (world, [police, shelter, ..]) = World::start().await;
    let database = world.database().await;
    if matches!(database, Database::Sqlite(_)) {
        return;
    }
    let mut sender = world.session(&shelter).await;
    engine::by_hand(&database, "UPDATE shared SET state = state + 1").await;
    // It is taken over as soon as something is decided too early, and forbids then what it allowed before.
    let follows = async {
        world.gateway.store.wanted().await;
        world.load_policies(&[STRICTER]);
        world.gateway.store.knows(world.gateway.store.state().await.unwrap());
    };
    let envelope = shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson));
    let (accepted, ()) =
        timeout(SOON, async { tokio::join!(sender.submit(&envelope), follows) }).await.unwrap();
    let acceptance = world.acceptance(&accepted.unwrap());
    assert_eq!(acceptance.policy_hash, world.gateway.policy.load().hash().as_ref());
    let health = acceptance.decisions[0].categories.iter().find(|told| told.category() == Category::Health);
    assert_eq!(health.unwrap().verdict(), Verdict::Withheld);
}
