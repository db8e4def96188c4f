//! The outbox: what waits, what is sealed to whom, and what is refused.

use std::{collections::HashSet, time::Duration};

use liaison_proto::exchange::v1::Services;
use liaison_trust::keys::SigningKey;

use super::*;
use crate::{
    directory::Agency,
    testing::{Domain, add, introduce, referral},
};

fn found(agent: &Agent, reachable: bool) -> Found {
    Ok(Some(Agency {
        address: agent.address.clone(),
        name: String::new(),
        country: "be".into(),
        sectors: Vec::new(),
        groups: Vec::new(),
        services: Services::default(),
        reachable,
        key: reachable.then(|| agent.custody.ring().current().clone()),
        fingerprint: None,
    }))
}

fn broken() -> Found {
    Err(Refusal::new(ErrorCode::KeyChainBroken, "", ""))
}

fn away() -> Found {
    Err(Refusal::new(ErrorCode::GatewayUnreachable, "", ""))
}

#[tokio::test]
async fn a_referral_waits_for_keys_and_is_refused_where_there_can_be_none() {
    let domain = Domain::new();
    let (_dir, shelter) = domain.agent("shelter").await;
    let message = referral(&shelter.address);
    let sorted = |found: Option<Found>| {
        let found = found.map(|found| (shelter.address.clone(), found));
        sort(&message, found.into_iter().collect(), BTreeMap::new())
    };
    let Recipients::Known { sealed_to, left_out } = sorted(Some(found(&shelter, true))) else { panic!() };
    assert_eq!((sealed_to.len(), left_out.len()), (1, 0));
    assert_eq!(sealed_to[0].bases, message.recipients[0].1);
    for waits in [found(&shelter, false), away()] {
        assert!(matches!(sorted(Some(waits)), Recipients::NotNow(_)));
    }
    let refused = |recipients| match recipients {
        Recipients::None(refusal) => refusal.code(),
        _ => panic!("not refused"),
    };
    let Recipients::Broken(waits) = sorted(Some(broken())) else { panic!("it does not wait for a person") };
    assert_eq!(waits[0].1.code(), ErrorCode::KeyChainBroken);
    assert_eq!(refused(sorted(Some(Ok(None)))), ErrorCode::UnknownRecipient);
    assert_eq!(refused(sorted(None)), ErrorCode::UnknownRecipient);
}

#[tokio::test]
async fn whoever_sent_can_be_answered_although_it_is_not_listed() {
    let (be, hu) = (Domain::new(), Domain::named("hu"));
    let (_dir, shelter) = be.agent("shelter").await;
    let (_hu_dir, police) = hu.agent("police").await;
    let answer = |kind| NewMessage { kind, ..referral(&police.address) };
    let sorted = async |message: NewMessage| {
        let proven = proven(&shelter, &message).await.unwrap();
        sort(&message, BTreeMap::from([(police.address.clone(), Ok(None))]), proven)
    };
    let refused = |recipients| match recipients {
        Recipients::None(refusal) => refusal.code(),
        _ => panic!("not refused"),
    };
    for kind in [Kind::State, Kind::Onward] {
        assert_eq!(refused(sorted(answer(kind)).await), ErrorCode::UnknownRecipient, "it never sent");
    }
    introduce(&shelter, &police).await;
    assert!(police.custody.rotate(OffsetDateTime::now_utc() + time::Duration::days(30)).unwrap());
    introduce(&shelter, &police).await;
    let newest = police.custody.ring().current().id;
    for kind in [Kind::State, Kind::Onward] {
        let Recipients::Known { sealed_to, left_out } = sorted(answer(kind)).await else { panic!() };
        assert_eq!((sealed_to.len(), left_out.len()), (1, 0));
        assert_eq!(sealed_to[0].key.id, newest);
    }
    for kind in [Kind::Referral, Kind::Alert] {
        assert_eq!(refused(sorted(answer(kind)).await), ErrorCode::UnknownRecipient, "{kind:?}");
    }
    let mut ended = police.custody.ring().current().clone();
    ended.not_after = OffsetDateTime::now_utc() - time::Duration::SECOND;
    let proven = BTreeMap::from([(police.address.clone(), ended)]);
    assert_eq!(
        refused(sort(&answer(Kind::State), BTreeMap::new(), proven)),
        ErrorCode::UnknownRecipient,
        "its last key has ended"
    );
}

#[tokio::test]
async fn an_alert_goes_to_those_it_can_be_sealed_to() {
    let domain = Domain::new();
    let (_dir, shelter) = domain.agent("shelter").await;
    let mut alert = referral(&shelter.address);
    let other = |name: &str| -> AgencyAddress { format!("be/{name}").parse().unwrap() };
    for name in ["asleep", "broken", "gone"] {
        alert.recipients.push((other(name), BTreeMap::new()));
    }
    let found = BTreeMap::from([
        (shelter.address.clone(), found(&shelter, true)),
        (other("asleep"), found(&shelter, false)),
        (other("broken"), broken()),
    ]);
    let Recipients::Known { sealed_to, left_out } = sort(&alert, found, BTreeMap::new()) else { panic!() };
    assert_eq!(sealed_to.len(), 1);
    let left_out: Vec<_> =
        left_out.iter().map(|(address, refusal)| (address.name(), refusal.code())).collect();
    assert_eq!(
        left_out,
        [
            ("asleep", ErrorCode::UnknownKey),
            ("broken", ErrorCode::KeyChainBroken),
            ("gone", ErrorCode::UnknownRecipient),
        ]
    );
}

#[tokio::test]
async fn a_draft_waits_while_the_gateway_is_away_and_a_refusal_for_now_is_not_for_good() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let id = add(&police.store, referral(&"be/shelter".parse().unwrap())).await;
    let due = |at| {
        let store = police.store.clone();
        async move { store.due(at, &HashSet::new(), 9).await.unwrap() }
    };
    let now = OffsetDateTime::now_utc();
    assert!(matches!(prepare(&police, id).await.unwrap(), Offer::NotNow));
    assert!(due(now).await.is_empty(), "not at once again");
    assert_eq!(due(now + time::Duration::MINUTE * 2).await, [id]);

    let full = Refusal::new(ErrorCode::QueueFull, "", "").retry_after(Duration::from_secs(120));
    refused(&police, id, &full).await.unwrap();
    assert!(due(now + time::Duration::seconds(119)).await.is_empty(), "not before the gateway asks");
    assert_eq!(due(now + time::Duration::HOUR).await, [id]);
    refused(&police, id, &Refusal::new(ErrorCode::ForbiddenByPolicy, "", "")).await.unwrap();
    assert!(due(now + time::Duration::HOUR).await.is_empty());
}

#[tokio::test]
async fn a_draft_that_can_t_be_read_holds_up_no_other_and_is_kept() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_other_dir, other) = domain.agent("other").await;
    let id = add(&police.store, referral(&"be/shelter".parse().unwrap())).await;
    // As if agent.db were that of a backup with another vault key.
    other.store.close().await;
    police.store.close().await;
    std::fs::copy(police.folder.database(), other.folder.database()).unwrap();
    let mixed = Agent::open(other.folder).await.unwrap();
    assert!(mixed.store.waiting(id).await.is_err());
    assert!(matches!(prepare(&mixed, id).await.unwrap(), Offer::NotNow));
    assert_eq!(mixed.store.attempts(id).await.unwrap(), 1);
    assert_eq!(mixed.store.counts().await.unwrap().outbox, 1);
}

#[test]
fn an_acceptance_is_believed_for_its_message_alone() {
    let (gateway, id, digest) = (SigningKey::generate(), Uuid::now_v7(), Digest([1; 32]));
    let acceptance = Acceptance {
        message_id: id.as_bytes().to_vec().into(),
        manifest_digest: digest.into(),
        ..Acceptance::default()
    };
    let signed: SignedAcceptance = statement::sign(&acceptance, &gateway);
    let read = |key: &SigningKey, id, digest| read_acceptance(&signed, &key.public(), id, digest);
    assert_eq!(read(&gateway, id, digest), Ok(acceptance.clone()));
    assert!(read(&SigningKey::generate(), id, digest).is_err());
    assert!(read(&gateway, Uuid::now_v7(), digest).is_err());
    assert!(read(&gateway, id, Digest([2; 32])).is_err());
}
