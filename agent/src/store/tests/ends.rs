//! How messages end, and what the recipient's own word changes about it.

use super::*;
use crate::testing::convey;

#[tokio::test]
async fn a_cancellation_ends_as_the_responder_says() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    for answer in [State::Cancelled, State::Completed] {
        let id = held_referral(&domain, &police, &other).await;
        police.store.change_state(id, change(State::Cancelled), "ann").await.unwrap();
        police.store.change_state(id, change(State::Cancelled), "ann").await.unwrap();
        let waiting = due(&police.store).await;
        assert_eq!(waiting.len(), 1, "cancelled twice, told once");
        seal(&police, &other, waiting[0]).await;
        accept(&domain, &police.store, waiting[0], &[]).await;
        police.store.notice(waiting[0], &shelter(), now(), &belgium(), acknowledged(answer)).await.unwrap();
        let message = police.store.message(id).await.unwrap().unwrap();
        assert_eq!((message.state, message.cancel_pending), (change(answer), false));
    }
}

#[tokio::test]
async fn what_nobody_takes_expires_but_not_what_may_have_been_taken() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let draft = add(&police.store, referral(&shelter())).await;
    let sealed = add(&police.store, referral(&shelter())).await;
    seal(&police, &other, sealed).await;

    assert_eq!(police.store.expire_outbox(now()).await.unwrap(), 0);
    assert_eq!(police.store.expire_outbox(now() + Duration::days(1)).await.unwrap(), 1);
    let message = police.store.message(draft).await.unwrap().unwrap();
    assert_eq!((message.state.state(), message.deliveries[0].state), (State::Expired, State::Expired));
    assert_eq!(message.refusal.unwrap().code(), ErrorCode::Expired);
    assert_eq!(due(&police.store).await, [sealed]);
    assert_eq!(police.store.expire_outbox(now() + Duration::days(2)).await.unwrap(), 1);
    assert_eq!(state(&police.store, sealed).await, State::Expired);
}

#[tokio::test]
async fn a_refusal_ends_a_message_and_is_told() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let refusal = Refusal::new(ErrorCode::ForbiddenByPolicy, "no", "ask");
    let id = add(&police.store, referral(&shelter())).await;
    police.store.refused(id, &refusal).await.unwrap();
    let message = police.store.message(id).await.unwrap().unwrap();
    assert_eq!(message.state.state(), State::Refused);
    assert_eq!(message.refusal.as_ref(), Some(&refusal));
    assert_eq!(message.deliveries[0].refusal.as_ref(), Some(&refusal));

    let id = held_referral(&domain, &police, &other).await;
    police.store.change_state(id, change(State::Cancelled), "ann").await.unwrap();
    police.store.refused(due(&police.store).await[0], &refusal).await.unwrap();
    let message = police.store.message(id).await.unwrap().unwrap();
    assert_eq!((message.state.state(), message.cancel_pending), (State::Received, false));
    assert_eq!(message.refusal.as_ref(), Some(&refusal), "the referral tells why the cancellation failed");
}

#[tokio::test]
async fn notices_end_what_they_are_about() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let withheld = RecipientDecision {
        recipient: "be/shelter".into(),
        verdict: Verdict::Withheld.into(),
        rule: Some(Rule { rule: "stop".into(), ..Rule::default() }),
        categories: Vec::new(),
    };
    let quarantined = Refusal::new(ErrorCode::BadSignature, "bad", "look");
    let cases = [
        (Event::Expired { why: None }, State::Expired, ErrorCode::Expired),
        (Event::Narrowed(part(withheld)), State::Refused, ErrorCode::ForbiddenByPolicy),
        (Event::Failed(quarantined), State::Refused, ErrorCode::BadSignature),
    ];
    for (event, ended, code) in cases {
        let id = add(&police.store, referral(&shelter())).await;
        seal(&police, &other, id).await;
        accept(&domain, &police.store, id, &[("be/shelter", Verdict::Released)]).await;
        police.store.notice(id, &shelter(), now(), &belgium(), event.clone()).await.unwrap();
        let message = police.store.message(id).await.unwrap().unwrap();
        assert_eq!((message.state.state(), message.deliveries[0].state), (ended, ended));
        assert_eq!(message.refusal.unwrap().code(), code);
        police.store.notice(id, &shelter(), now(), &belgium(), event).await.unwrap();
        assert_eq!(state(&police.store, id).await, ended);
    }
}

#[tokio::test]
async fn what_the_recipient_signed_for_has_not_failed_whatever_the_gateway_tells_later() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let id = add(&police.store, referral(&shelter())).await;
    seal(&police, &other, id).await;
    accept(&domain, &police.store, id, &[("be/shelter", Verdict::Released)]).await;
    police.store.notice(id, &shelter(), now(), &belgium(), acknowledged(State::Received)).await.unwrap();
    for event in
        [Event::Expired { why: None }, Event::Failed(Refusal::new(ErrorCode::BadSignature, "bad", "look"))]
    {
        police.store.notice(id, &shelter(), now(), &belgium(), event).await.unwrap();
        let message = police.store.message(id).await.unwrap().unwrap();
        assert_eq!((message.state.state(), message.refusal), (State::Received, None));
    }
}

/// A referral that the shelter holds and of which the police has not heard since its gateway had it.
async fn unheard(domain: &Domain, police: &Agent, other: &Agent) -> Uuid {
    let id = add(&police.store, referral(&shelter())).await;
    assert_eq!(convey(domain, police, other, &[]).await.len(), 1);
    id
}

fn lost() -> Refusal {
    Refusal::new(ErrorCode::GatewayUnreachable, "no word came", "ask the agency")
}

#[tokio::test]
async fn an_answer_shows_that_a_referral_was_not_lost() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    introduce(&police, &other).await;
    introduce(&other, &police).await;
    let (to, by) = (shelter(), belgium());
    for event in [Event::Failed(lost()), Event::Expired { why: None }] {
        for answer in [State::Accepted, State::Rejected] {
            let id = unheard(&domain, &police, &other).await;
            let tell = |event| police.store.notice(id, &to, now(), &by, event);
            tell(event.clone()).await.unwrap();
            assert!(police.store.message(id).await.unwrap().unwrap().refusal.is_some());
            other.store.change_state(id, change(answer), "bea").await.unwrap();
            convey(&domain, &other, &police, &[]).await;
            // What was said before is late, and what a gateway tells then is no longer so.
            for late in [acknowledged(State::Received), event.clone()] {
                let message = police.store.message(id).await.unwrap().unwrap();
                assert_eq!((message.state, message.refusal), (change(answer), None));
                let delivery = &message.deliveries[0];
                assert_eq!((delivery.state, delivery.refusal.as_ref()), (State::Received, None));
                assert_eq!(delivery.holder, "be/shelter");
                assert_eq!(message.history.last().unwrap().by, "be/shelter");
                tell(late).await.unwrap();
            }
            assert_eq!(state(&police.store, id).await, answer);
        }
    }
}

#[tokio::test]
async fn a_cancellation_counts_though_a_gateway_had_given_up() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let (to, by) = (shelter(), belgium());
    for answer in [State::Cancelled, State::Accepted] {
        let id = held_referral(&domain, &police, &other).await;
        police.store.change_state(id, change(State::Cancelled), "ann").await.unwrap();
        let cancel = due(&police.store).await[0];
        seal(&police, &other, cancel).await;
        accept(&domain, &police.store, cancel, &[]).await;
        let tell = |event| police.store.notice(cancel, &to, now(), &by, event);
        tell(Event::Failed(lost())).await.unwrap();
        let message = police.store.message(id).await.unwrap().unwrap();
        assert_eq!((message.state.state(), message.refusal), (State::Received, Some(lost())));
        tell(acknowledged(answer)).await.unwrap();
        let message = police.store.message(id).await.unwrap().unwrap();
        assert_eq!((message.state, message.refusal), (change(answer), None));
    }

    // The referral itself was given up, while its cancellation was under way.
    let id = add(&police.store, referral(&shelter())).await;
    seal(&police, &other, id).await;
    accept(&domain, &police.store, id, &[("be/shelter", Verdict::Released)]).await;
    police.store.change_state(id, change(State::Cancelled), "ann").await.unwrap();
    let cancel = due(&police.store).await[0];
    seal(&police, &other, cancel).await;
    accept(&domain, &police.store, cancel, &[]).await;
    police.store.notice(id, &to, now(), &by, Event::Failed(lost())).await.unwrap();
    assert_eq!(state(&police.store, id).await, State::Refused);
    police.store.notice(cancel, &to, now(), &by, acknowledged(State::Cancelled)).await.unwrap();
    let message = police.store.message(id).await.unwrap().unwrap();
    assert_eq!((message.state.state(), message.cancel_pending), (State::Cancelled, false));
    assert_eq!((message.refusal, message.deliveries[0].state), (None, State::Received));
}

#[tokio::test]
async fn a_failure_that_another_message_told_stays_told() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let id = held_referral(&domain, &police, &other).await;
    police.store.change_state(id, change(State::Cancelled), "ann").await.unwrap();
    police.store.refused(due(&police.store).await[0], &lost()).await.unwrap();
    // The referral's own acknowledgement, once more.
    police.store.notice(id, &shelter(), now(), &belgium(), acknowledged(State::Received)).await.unwrap();
    let message = police.store.message(id).await.unwrap().unwrap();
    assert_eq!((message.state.state(), message.refusal), (State::Received, Some(lost())));
}

#[tokio::test]
async fn what_nobody_has_signed_for_is_offered_again_to_a_restored_gateway() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    held_referral(&domain, &police, &other).await;
    let refused = add(&police.store, referral(&shelter())).await;
    seal(&police, &other, refused).await;
    accept(&domain, &police.store, refused, &[("be/shelter", Verdict::Withheld)]).await;
    let id = add(&police.store, referral(&shelter())).await;
    seal(&police, &other, id).await;
    let digest = digest_of(&police.store, id).await;
    accept(&domain, &police.store, id, &[("be/shelter", Verdict::Released)]).await;

    let police = reopened(police).await;
    assert!(due(&police.store).await.is_empty(), "it was accepted");
    assert_eq!(
        police.store.offer_again().await.unwrap(),
        1,
        "what is there, and what was refused, is not offered"
    );
    assert_eq!(police.store.offer_again().await.unwrap(), 0, "it waits already");
    assert_eq!(due(&police.store).await, [id]);
    assert_eq!(digest_of(&police.store, id).await, digest, "the very same");
    assert_eq!(state(&police.store, id).await, State::Requested);
    accept(&domain, &police.store, id, &[("be/shelter", Verdict::Released)]).await;
    assert_eq!(police.store.offer_again().await.unwrap(), 1, "the gateway may be restored once more");
    accept(&domain, &police.store, id, &[("be/shelter", Verdict::Released)]).await;
    police.store.notice(id, &shelter(), now(), &belgium(), acknowledged(State::Received)).await.unwrap();
    assert_eq!(police.store.offer_again().await.unwrap(), 0, "its recipient has it");
    let history = police.store.message(id).await.unwrap().unwrap().history;
    let states: Vec<_> = history.iter().map(|event| event.change.state()).collect();
    assert_eq!(states, [State::Submitted, State::Requested, State::Received]);
}
