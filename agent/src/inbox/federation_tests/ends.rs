//! How a message to another domain ends, and who is told to have ended it.

use super::*;

#[tokio::test]
async fn what_ended_is_held_by_whoever_ended_it() {
    let gone = || Refusal::new(ErrorCode::UnknownRecipient, "gone", "ask");
    for (event, state) in [
        (Told::Expired(notice::Expired::default()), State::Expired),
        (Told::Undeliverable(gone()), State::Refused),
        (Told::Quarantined(gone()), State::Refused),
    ] {
        let crossing = Crossing::new().await;
        crossing.held(&crossing.notice(event.clone())).await;
        assert_eq!(crossing.stands().await, stands(state, "be", None, Some("be")));
        let crossing = Crossing::new().await;
        crossing.forwarded(decision("hu", RELEASED, RELEASED)).await;
        crossing.relayed(event).await;
        assert_eq!(crossing.stands().await, stands(state, "hu", None, Some("be")));
    }
    let crossing = Crossing::submitted().await;
    crossing.police.store.refused(crossing.id, &gone()).await.unwrap();
    assert_eq!(crossing.stands().await, stands(State::Refused, "be", None, None));
    let late = OffsetDateTime::now_utc() + time::Duration::days(60);
    let crossing = Crossing::submitted().await;
    crossing.police.store.expire_outbox(late).await.unwrap();
    assert_eq!(crossing.stands().await, stands(State::Expired, "be/police", None, None));
}

#[tokio::test]
async fn what_expired_is_told_by_where_it_lay() {
    let why = |action: &str| Some(Refusal::new(ErrorCode::GatewayUnreachable, "hu can't be reached", action));
    let fetched = "hu/shelter did not fetch the message before it expired";
    let ask_agency = "ask the agency whether its agent runs; then send it again";
    let ask_gateway = "ask the gateway's administrator; then send it again";
    for (by_hu, why, message, action) in [
        (false, None, "the message did not reach hu before it expired", ask_gateway),
        (
            false,
            why("wait until hu is back"),
            "the message did not reach hu before it expired: hu can't be reached",
            "wait until hu is back",
        ),
        (false, why(""), "the message did not reach hu before it expired: hu can't be reached", ask_gateway),
        (true, None, fetched, ask_agency),
        (true, why("of another domain it is not its to say"), fetched, ask_agency),
    ] {
        let crossing = Crossing::new().await;
        let expired = Told::Expired(notice::Expired { why });
        match by_hu {
            true => crossing.relayed(expired).await,
            false => crossing.held(&crossing.notice(expired)).await,
        }
        let refusal = crossing.message().await.refusal.unwrap();
        assert_eq!(refusal, Refusal::new(ErrorCode::Expired, message, action));
    }
}

#[tokio::test]
async fn what_the_recipient_has_was_not_given_up() {
    let gone = Refusal::new(ErrorCode::UnknownDomain, "the peering was ended", "ask");
    for event in [Told::Undeliverable(gone), Told::Expired(notice::Expired::default())] {
        let crossing = Crossing::new().await;
        crossing.held(&crossing.notice(event.clone())).await;
        assert!(crossing.message().await.refusal.is_some());
        for _again in 0..2 {
            crossing.acknowledged().await;
            assert_eq!(crossing.stands().await, stands(State::Received, "hu/shelter", None, Some("be")));
            crossing.held(&crossing.notice(event.clone())).await;
        }
        let message = crossing.message().await;
        assert_eq!((message.refusal, message.deliveries[0].refusal.as_ref()), (None, None));
        let by: Vec<_> = message.history.iter().map(|event| event.by.as_str()).collect();
        assert_eq!(by, ["be/police", "be", "be", "hu/shelter"]);
    }
}

/// Its domain lost that it had accepted it, and decides anew: the recipient may have what either decision released.
#[tokio::test]
async fn what_either_acceptance_released_is_told_as_released() {
    let crossing = Crossing::new().await;
    let acceptance = |health| by_hu(&crossing.acceptance(vec![decision("hu", RELEASED, health)]));
    let (open, closed) = (acceptance(RELEASED), acceptance(WITHHELD));
    let forwarded = async |signed: &SignedAcceptance| {
        crossing.held(&crossing.notice(Told::Forwarded(signed.clone()))).await;
        let delivery = crossing.message().await.deliveries.into_iter().next().unwrap();
        delivery.parts.into_iter().find(|part| part.domain == "hu").unwrap().decision.unwrap()
    };
    assert_eq!(forwarded(&closed).await, decision("hu", RELEASED, WITHHELD));
    assert_eq!(forwarded(&open).await, decision("hu", RELEASED, RELEASED));
    assert_eq!(forwarded(&acceptance(WITHHELD)).await, decision("hu", RELEASED, RELEASED));
    // What it said of its newest acceptance stands, whatever is told again.
    crossing.relayed(Told::Narrowed(decision("hu", RELEASED, WITHHELD))).await;
    let newest = acceptance(WITHHELD);
    assert_eq!(forwarded(&newest).await, decision("hu", RELEASED, WITHHELD));
    assert_eq!(forwarded(&newest).await, decision("hu", RELEASED, WITHHELD));
    crossing.acknowledged().await;
}
