//! Why a message waits on its way to another domain.

use super::*;

fn waits(why: &str) -> Told {
    Told::Waiting(Refusal::new(ErrorCode::GatewayUnreachable, why, "wait"))
}

impl Crossing {
    async fn waits(&self, why: &str) {
        self.held(&self.notice(waits(why))).await;
    }

    /// Each domain that has a part, with why it has not decided.
    async fn undecided(&self) -> Vec<(String, Option<String>)> {
        let delivery = self.message().await.deliveries.into_iter().next().unwrap();
        let part = |part: DomainDecision| {
            assert_eq!(
                (part.recipient.as_str(), part.decision.is_some()),
                ("hu/shelter", part.unknown.is_none())
            );
            (part.domain, part.unknown.map(|why| why.message))
        };
        delivery.parts.into_iter().map(part).collect()
    }
}

/// The parts of both domains, with why `hu` has not decided.
fn parts(why: Option<&str>) -> [(String, Option<String>); 2] {
    [("be".into(), None), ("hu".into(), why.map(str::to_owned))]
}

#[tokio::test]
async fn why_a_message_waits_is_told_until_the_other_domain_decides() {
    let crossing = Crossing::submitted().await;
    crossing.waits("the link is down").await;
    assert_eq!(crossing.undecided().await, parts(Some("the link is down"))[1..]);
    crossing.accept().await;
    let waiting = stands(State::Requested, "be", None, Some("be"));
    for why in ["the link is down", "the schemes differ", "the schemes differ"] {
        crossing.waits(why).await;
        assert_eq!(crossing.undecided().await, parts(Some(why)));
        assert_eq!(crossing.stands().await, waiting, "nothing is decided");
    }
    crossing.held(&crossing.notice(Told::Narrowed(decision("be", RELEASED, RELEASED)))).await;
    assert_eq!(crossing.undecided().await, parts(Some("the schemes differ")));

    crossing.forwarded(decision("hu", RELEASED, WITHHELD)).await;
    let decided = stands(State::Requested, "hu", None, Some("hu"));
    for _late in 0..2 {
        assert_eq!(
            (crossing.undecided().await, crossing.stands().await),
            (parts(None).into(), decided.clone())
        );
        crossing.waits("the link is down").await;
    }
}

#[tokio::test]
async fn a_message_that_ended_waits_no_more() {
    let gone = Refusal::new(ErrorCode::UnknownDomain, "gone", "ask");
    for end in [Told::Expired(notice::Expired::default()), Told::Undeliverable(gone)] {
        let crossing = Crossing::new().await;
        crossing.waits("the link is down").await;
        crossing.held(&crossing.notice(end)).await;
        for _late in 0..2 {
            assert_eq!(crossing.undecided().await, parts(None)[..1]);
            crossing.waits("the link is down").await;
        }
    }
    let crossing = Crossing::new().await;
    crossing.waits("the link is down").await;
    crossing.acknowledged().await;
    for _late in 0..2 {
        assert_eq!(crossing.undecided().await, parts(None)[..1]);
        crossing.waits("the link is down").await;
    }
    // What that domain decided is told once it is heard.
    crossing.forwarded(decision("hu", RELEASED, RELEASED)).await;
    assert_eq!(crossing.undecided().await, parts(None));
}

#[tokio::test]
async fn no_other_domain_tells_why_a_message_waits() {
    let crossing = Crossing::new().await;
    let event = waits("the link is down");
    let relayed = Some(statement::sign(&crossing.notice(event.clone()), &SigningKey::generate()));
    let passed_on = Notice { relayed, ..crossing.notice(event) };
    assert_eq!(code(crossing.tell(&passed_on).await), Some(ErrorCode::Malformed));
    assert_eq!(crossing.domains().await, ["be"]);
}
