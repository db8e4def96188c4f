//! Notices about a message to another domain: what its gateway decided, and what it says later.

mod ends;
mod keys;
mod waiting;

use liaison_proto::message::v1::{
    CategoryDecision, RecipientDecision, Rule, data_category::Code as Category, notice::Event as Told,
    referral_state::Code as State, verdict::Code as Verdict,
};
use liaison_trust::keys::SigningKey;
use prost::Message as _;
use tempfile::TempDir;

use super::*;
use crate::{
    store::{DeliveryState, Message},
    testing::{Domain, add, introduce, on_disk, referral, seal},
};

/// be/police, which has sent a referral to hu/shelter; its gateway has accepted it.
struct Crossing {
    be: Domain,
    police: Agent,
    shelter: Agent,
    id: Uuid,
    digest: Digest,
    dirs: [TempDir; 2],
}

impl Crossing {
    async fn new() -> Self {
        let crossing = Self::submitted().await;
        crossing.accept().await;
        crossing
    }

    /// Before the own gateway's acceptance.
    async fn submitted() -> Self {
        let (be, hu) = (Domain::new(), Domain::named("hu"));
        let (police_dir, police) = be.agent("police").await;
        let (shelter_dir, shelter) = hu.agent("shelter").await;
        introduce(&police, &shelter).await;
        let id = add(&police.store, referral(&shelter.address)).await;
        let envelope = seal(&police, &shelter, id).await;
        let digest = liaison_trust::digest::sha256(&envelope.manifest);
        Self { be, police, shelter, id, digest, dirs: [police_dir, shelter_dir] }
    }

    /// The own gateway's acceptance: it withholds health, and no more.
    async fn accept(&self) {
        let acceptance = Acceptance {
            policy_hash: Digest([1; 32]).into(),
            ..self.acceptance(vec![decision("be", Verdict::Released, Verdict::Withheld)])
        };
        let signed = statement::sign(&acceptance, &self.be.gateway);
        self.police.store.accepted(self.id, &acceptance, &signed).await.unwrap();
    }

    fn acceptance(&self, decisions: Vec<RecipientDecision>) -> Acceptance {
        Acceptance {
            message_id: self.id.as_bytes().to_vec().into(),
            manifest_digest: self.digest.into(),
            accepted_at: Some(times::to_wire(OffsetDateTime::now_utc())),
            policy_hash: Digest([7; 32]).into(),
            scheme_hash: Digest([2; 32]).into(),
            decisions,
        }
    }

    fn notice(&self, event: Told) -> Notice {
        Notice {
            message_id: self.id.as_bytes().to_vec().into(),
            manifest_digest: self.digest.into(),
            recipient: self.shelter.address.to_string(),
            at: Some(times::to_wire(OffsetDateTime::now_utc())),
            event: Some(event),
            ..Notice::default()
        }
    }

    async fn tell(&self, notice: &Notice) -> Answer {
        let signed = statement::sign(notice, &self.be.gateway);
        take(&self.police, Delivery { content: Some(delivery::Content::Notice(signed)) }).await.unwrap()
    }

    async fn held(&self, notice: &Notice) {
        let answer = self.tell(notice).await;
        assert!(matches!(answer, Answer::Held(None)), "{:?}", code(answer));
    }

    /// What the gateway of `hu` accepted, passed on.
    async fn forwarded(&self, decision: RecipientDecision) {
        self.held(&self.notice(Told::Forwarded(by_hu(&self.acceptance(vec![decision]))))).await;
    }

    /// What the gateway of `hu` says later, passed on.
    async fn relayed(&self, event: Told) {
        let relayed = Some(statement::sign(&self.notice(event.clone()), &SigningKey::generate()));
        self.held(&Notice { relayed, ..self.notice(event) }).await;
    }

    async fn acknowledged(&self) {
        self.relayed(Told::Acknowledged(self.word())).await;
    }

    /// The shelter's own word that it has the referral.
    fn word(&self) -> SignedAcknowledgement {
        let word = Acknowledgement {
            message_id: self.id.as_bytes().to_vec().into(),
            manifest_digest: self.digest.into(),
            recipient: self.shelter.address.to_string(),
            key_id: self.shelter.custody.ring().current().id.into(),
            received_at: Some(times::to_wire(OffsetDateTime::now_utc())),
            log_head: Vec::new().into(),
            keys_head: Vec::new().into(),
            thread_state: Some(liaison_proto::message::v1::StateChange {
                state: State::Received.into(),
                reason: 0,
                outcome: 0,
            }),
        };
        statement::sign(&word, self.shelter.custody.signing())
    }

    async fn message(&self) -> Message {
        self.police.store.message(self.id).await.unwrap().unwrap()
    }

    /// State, holder, and the layers that withhold the message and health.
    async fn stands(&self) -> (State, String, Option<String>, Option<String>) {
        let message = self.message().await;
        let DeliveryState { state, holder, decision, .. } = message.deliveries.into_iter().next().unwrap();
        if message.state.state() != State::Submitted {
            assert_eq!(message.state.state(), state, "the referral stands as its delivery");
        }
        let layer = |rule: &Option<Rule>| rule.as_ref().map(|rule| rule.layer.clone());
        let decision = decision.unwrap_or_default();
        let health = decision.categories.first().and_then(|category| layer(&category.rule));
        (state, holder, layer(&decision.rule), health)
    }

    async fn domains(&self) -> Vec<String> {
        let delivery = self.message().await.deliveries.into_iter().next().unwrap();
        delivery.parts.into_iter().map(|part| part.domain).collect()
    }
}

/// A decision about hu/shelter whose rules name the layer of this domain.
fn decision(domain: &str, whole: Verdict, health: Verdict) -> RecipientDecision {
    let rule = |verdict: Verdict| {
        (verdict != Verdict::Released).then(|| Rule {
            layer: format!("country/{domain}"),
            rule: "no".into(),
            ..Rule::default()
        })
    };
    RecipientDecision {
        recipient: "hu/shelter".into(),
        verdict: whole.into(),
        rule: rule(whole),
        categories: vec![CategoryDecision {
            category: Category::Health.into(),
            verdict: health.into(),
            rule: rule(health),
            basis: 0,
        }],
    }
}

/// Signed by a key that this agent can't know.
fn by_hu(acceptance: &Acceptance) -> SignedAcceptance {
    statement::sign(acceptance, &SigningKey::generate())
}

fn code(answer: Answer) -> Option<ErrorCode> {
    match answer {
        Answer::Refused(refusal) => Some(refusal.code()),
        Answer::Held(_) | Answer::NotNow => None,
    }
}

const RELEASED: Verdict = Verdict::Released;
const WITHHELD: Verdict = Verdict::Withheld;

fn stands(
    state: State,
    holder: &str,
    whole: Option<&str>,
    health: Option<&str>,
) -> (State, String, Option<String>, Option<String>) {
    let layer = |domain: Option<&str>| domain.map(|domain| format!("country/{domain}"));
    (state, holder.to_owned(), layer(whole), layer(health))
}

#[tokio::test]
async fn who_holds_a_message_and_what_each_domain_said_is_told_on_the_way() {
    let crossing = Crossing::submitted().await;
    assert_eq!(crossing.stands().await, stands(State::Submitted, "be/police", None, None));
    crossing.accept().await;
    assert_eq!(crossing.stands().await, stands(State::Requested, "be", None, Some("be")));
    assert_eq!(crossing.domains().await, ["be"]);

    let signed = by_hu(&crossing.acceptance(vec![decision("hu", RELEASED, RELEASED)]));
    crossing.held(&crossing.notice(Told::Forwarded(signed.clone()))).await;
    assert!(on_disk(&crossing.dirs[0], &signed.signature), "its word is kept as evidence");
    assert_eq!(crossing.stands().await, stands(State::Requested, "hu", None, Some("be")));
    let delivery = crossing.message().await.deliveries.into_iter().next().unwrap();
    let [own, other] = delivery.parts.as_slice() else { panic!("{:?}", delivery.parts) };
    assert_eq!((own.domain.as_str(), other.domain.as_str()), ("be", "hu"));
    assert_eq!(own.policy_hash, Digest([1; 32]).as_bytes().as_slice());
    assert_eq!(other.policy_hash, Digest([7; 32]).as_bytes().as_slice());
    assert_eq!(other.decision, Some(decision("hu", RELEASED, RELEASED)));
    assert!(own.decided_at.is_some() && other.decided_at.is_some());

    crossing.acknowledged().await;
    assert_eq!(crossing.stands().await, stands(State::Received, "hu/shelter", None, Some("be")));
}

#[tokio::test]
async fn another_domain_s_refusal_refuses_as_the_own_one_does() {
    let crossing = Crossing::new().await;
    crossing.forwarded(decision("hu", WITHHELD, WITHHELD)).await;
    assert_eq!(crossing.stands().await, stands(State::Refused, "hu", Some("hu"), Some("be")));
    let message = crossing.message().await;
    let refusal = message.refusal.unwrap();
    assert_eq!(refusal.code(), ErrorCode::ForbiddenByPolicy);
    assert_eq!(refusal.rule.unwrap().layer, "country/hu");
    assert_eq!(message.history.last().unwrap().by, "hu");
}

#[tokio::test]
async fn an_acceptance_that_is_passed_on_is_about_this_message_and_recipient_alone() {
    let crossing = Crossing::new().await;
    let genuine = crossing.acceptance(vec![decision("hu", WITHHELD, WITHHELD)]);
    let elsewhere = RecipientDecision { recipient: "hu/clinic".into(), ..decision("hu", RELEASED, RELEASED) };
    let two = vec![decision("hu", RELEASED, RELEASED), decision("hu", WITHHELD, WITHHELD)];
    let mut unknown = by_hu(&genuine);
    unknown.acceptance = [genuine.encode_to_vec().as_slice(), &[0xa0, 0x06, 0x01]].concat().into();
    let forged = [
        by_hu(&Acceptance { message_id: Uuid::now_v7().as_bytes().to_vec().into(), ..genuine.clone() }),
        by_hu(&Acceptance { manifest_digest: Digest([0; 32]).into(), ..genuine.clone() }),
        by_hu(&crossing.acceptance(two)),
        by_hu(&crossing.acceptance(Vec::new())),
        by_hu(&crossing.acceptance(vec![elsewhere])),
        SignedAcceptance { acceptance: Bytes::from_static(b"\xff"), ..by_hu(&genuine) },
        unknown,
    ];
    for (index, signed) in forged.into_iter().enumerate() {
        let refused = code(crossing.tell(&crossing.notice(Told::Forwarded(signed))).await);
        assert!(
            matches!(refused, Some(ErrorCode::Malformed | ErrorCode::UnknownValue)),
            "{index}: {refused:?}"
        );
    }
    let by_stranger =
        statement::sign(&crossing.notice(Told::Forwarded(by_hu(&genuine))), &SigningKey::generate());
    let by_stranger = Delivery { content: Some(delivery::Content::Notice(by_stranger)) };
    assert_eq!(code(take(&crossing.police, by_stranger).await.unwrap()), Some(ErrorCode::BadSignature));
    assert_eq!(crossing.stands().await, stands(State::Requested, "be", None, Some("be")));
    assert_eq!(crossing.domains().await, ["be"]);
}

#[tokio::test]
async fn nobody_speaks_for_the_own_domain_but_its_gateway() {
    let be = Domain::new();
    let (_police_dir, police) = be.agent("police").await;
    let (_dir, shelter) = be.agent("shelter").await;
    let id = add(&police.store, referral(&shelter.address)).await;
    let digest = liaison_trust::digest::sha256(&seal(&police, &shelter, id).await.manifest);
    let notice = |event, relayed| Notice {
        message_id: id.as_bytes().to_vec().into(),
        manifest_digest: digest.into(),
        recipient: "be/shelter".into(),
        at: Some(times::to_wire(OffsetDateTime::now_utc())),
        event: Some(event),
        relayed,
        ..Notice::default()
    };
    let expired = Told::Expired(notice::Expired::default());
    let relayed = statement::sign(&notice(expired.clone(), None), &SigningKey::generate());
    let waits = Told::Waiting(Refusal::new(ErrorCode::GatewayUnreachable, "away", "wait"));
    for notice in [
        notice(expired, Some(relayed)),
        notice(Told::Forwarded(by_hu(&Acceptance::default())), None),
        notice(waits, None),
    ] {
        let signed = statement::sign(&notice, &be.gateway);
        let delivery = Delivery { content: Some(delivery::Content::Notice(signed)) };
        assert_eq!(code(take(&police, delivery).await.unwrap()), Some(ErrorCode::Malformed));
    }
    assert_eq!(police.store.message(id).await.unwrap().unwrap().deliveries[0].state, State::Submitted);
}

#[tokio::test]
async fn notices_that_overtake_each_other_or_come_twice_end_the_same() {
    let crossing = Crossing::submitted().await;
    crossing.acknowledged().await;
    crossing.forwarded(decision("hu", RELEASED, WITHHELD)).await;
    assert_eq!(crossing.stands().await, stands(State::Received, "hu/shelter", None, Some("hu")));
    crossing.accept().await;
    let last = stands(State::Received, "hu/shelter", None, Some("be"));
    assert_eq!(crossing.stands().await, last);
    assert_eq!(crossing.domains().await, ["be", "hu"]);
    let history = crossing.message().await.history;

    crossing.forwarded(decision("hu", WITHHELD, WITHHELD)).await;
    crossing.acknowledged().await;
    assert_eq!(crossing.stands().await, last);
    assert_eq!(crossing.message().await.history, history);

    let early = Crossing::submitted().await;
    early.forwarded(decision("hu", RELEASED, RELEASED)).await;
    assert_eq!(early.stands().await, stands(State::Submitted, "hu", None, None));
    early.accept().await;
    let once = stands(State::Requested, "hu", None, Some("be"));
    assert_eq!(early.stands().await, once);
    early.forwarded(decision("hu", WITHHELD, WITHHELD)).await;
    assert_eq!(early.stands().await, once, "a domain accepts once");
}

#[tokio::test]
async fn whose_decision_narrows_depends_on_who_said_so() {
    let crossing = Crossing::new().await;
    let first = by_hu(&crossing.acceptance(vec![decision("hu", RELEASED, RELEASED)]));
    crossing.held(&crossing.notice(Told::Forwarded(first.clone()))).await;
    crossing.held(&crossing.notice(Told::Narrowed(decision("be", RELEASED, RELEASED)))).await;
    assert_eq!(crossing.stands().await, stands(State::Requested, "hu", None, None));
    crossing.relayed(Told::Narrowed(decision("hu", RELEASED, WITHHELD))).await;
    assert_eq!(crossing.stands().await, stands(State::Requested, "hu", None, Some("hu")));
    assert_eq!(crossing.domains().await, ["be", "hu"]);
    // Its first decision, once more.
    crossing.held(&crossing.notice(Told::Forwarded(first))).await;
    assert_eq!(crossing.stands().await, stands(State::Requested, "hu", None, Some("hu")));
    crossing.held(&crossing.notice(Told::Narrowed(decision("be", WITHHELD, WITHHELD)))).await;
    assert_eq!(crossing.stands().await, stands(State::Refused, "be", Some("be"), Some("be")));

    let crossing = Crossing::new().await;
    crossing.relayed(Told::Narrowed(decision("hu", WITHHELD, WITHHELD))).await;
    assert_eq!(crossing.stands().await, stands(State::Refused, "hu", Some("hu"), Some("be")));
}
