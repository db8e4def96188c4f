//! The inbox against genuine copies, repeated ones, and every forgery that a gateway or a co-recipient
//! could try.

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::{Delivery, delivery},
    message::v1::{
        Acknowledgement, Notice, Refusal, SealedCopy, SignedAcknowledgement, SignedNotice, StateChange,
        error_code::Code as ErrorCode, kind::Code as Kind, notice, referral_state::Code as State,
        rejection_reason::Code as Reason, status::Code as Status,
    },
    times,
};
use liaison_trust::{
    digest::Digest,
    keys::{SigningKey, VerifyingKey},
    names::AgencyAddress,
    statement,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::*;
use crate::{
    outbox::NewMessage,
    store::Waiting,
    testing::{CANARY, Domain, add, introduce, on_disk, referral, reopened, seal},
};

/// A police service that sends, a shelter that receives; they know each other's keys.
struct Pair {
    domain: Domain,
    police: Agent,
    shelter: Agent,
    shelter_dir: TempDir,
    _police_dir: TempDir,
}

impl Pair {
    async fn new() -> Self {
        let domain = Domain::new();
        let (_police_dir, police) = domain.agent("police").await;
        let (shelter_dir, shelter) = domain.agent("shelter").await;
        introduce(&police, &shelter).await;
        introduce(&shelter, &police).await;
        Self { domain, police, shelter, shelter_dir, _police_dir }
    }

    /// A message of the police as the shelter's gateway hands it over.
    async fn sent(&self, message: NewMessage) -> SealedCopy {
        let id = add(&self.police.store, message).await;
        self.domain.copy(seal(&self.police, &self.shelter, id).await)
    }
}

async fn deliver(agent: &Agent, copy: SealedCopy) -> Answer {
    take(agent, Delivery { content: Some(delivery::Content::Copy(copy)) }).await.unwrap()
}

async fn tell(agent: &Agent, notice: SignedNotice) -> Answer {
    take(agent, Delivery { content: Some(delivery::Content::Notice(notice)) }).await.unwrap()
}

fn acknowledgement(answer: Answer, key: &VerifyingKey) -> Acknowledgement {
    match answer {
        Answer::Held(Some(signed)) => statement::read(&signed, key).unwrap(),
        Answer::Held(None) => panic!("not signed"),
        Answer::Refused(refusal) => panic!("{refusal}"),
        Answer::NotNow => panic!("not now"),
    }
}

fn refused(answer: Answer) -> ErrorCode {
    match answer {
        Answer::Refused(refusal) => refusal.code(),
        Answer::Held(_) => panic!("it was taken"),
        Answer::NotNow => panic!("not now"),
    }
}

fn plain(state: State) -> StateChange {
    StateChange { state: state.into(), reason: 0, outcome: 0 }
}

fn state_message(of: &NewMessage, to: &AgencyAddress, change: StateChange) -> NewMessage {
    NewMessage {
        id: Uuid::now_v7(),
        kind: Kind::State,
        state_change: Some(change),
        facts: None,
        sections: Default::default(),
        recipients: vec![(to.clone(), Default::default())],
        ..blank(of)
    }
}

/// The same head without what is secret.
fn blank(of: &NewMessage) -> NewMessage {
    NewMessage {
        facts: of.facts.clone(),
        sections: Default::default(),
        recipients: Vec::new(),
        sealed: None,
        handling: of.handling,
        state_change: None,
        onward: None,
        ..*of
    }
}

#[tokio::test]
async fn a_head_is_shown_with_one_new_message_and_with_each_that_comes_again() {
    let pair = Pair::new().await;
    let shown = ShownHeads::default();
    let key = pair.shelter.custody.signing().public();
    let head = async |copy: &SealedCopy| {
        let delivery = Delivery { content: Some(delivery::Content::Copy(copy.clone())) };
        let Judged::Copy(mut judged) = judge(&pair.shelter, delivery).await.unwrap() else { panic!() };
        judged.1.log_head = Bytes::from_static(b"a head");
        let answer = keep(&pair.shelter, &shown, Judged::Copy(judged)).await.unwrap();
        acknowledgement(answer, &key).log_head
    };
    let first = pair.sent(referral(&pair.shelter.address)).await;
    let second = pair.sent(referral(&pair.shelter.address)).await;
    assert_eq!(head(&first).await, "a head");
    assert_eq!(head(&second).await, "");
    assert_eq!(head(&first).await, "a head", "whoever keeps this answer back hides the head");
}

#[tokio::test]
async fn a_copy_is_committed_acknowledged_and_read_and_again_changes_nothing() {
    let pair = Pair::new().await;
    let message = referral(&pair.shelter.address);
    let id = message.id;
    let copy = pair.sent(message).await;
    let key = pair.shelter.custody.signing().public();

    let word = acknowledgement(deliver(&pair.shelter, copy.clone()).await, &key);
    assert_eq!(word.message_id, id.as_bytes().as_slice());
    assert_eq!(word.recipient, "be/shelter");
    assert_eq!(word.thread_state, Some(plain(State::Received)));
    pair.shelter.store.change_state(id, plain(State::Accepted), "bea").await.unwrap();

    let shelter = reopened(pair.shelter).await;
    let word = acknowledgement(deliver(&shelter, copy).await, &key);
    assert_eq!(word.thread_state, Some(plain(State::Accepted)), "told again, as it stands");
    assert_eq!(shelter.store.counts().await.unwrap().received_referrals, 1);
    let sections = shelter.store.content(id).await.unwrap().unwrap().1;
    assert_eq!(sections.len(), 1);
    assert_eq!(sections[0].plaintext.as_slice(), CANARY);
    let release = shelter.store.content(id).await.unwrap().unwrap().0;
    assert_eq!(release.recipient, "be/shelter");
    assert!(on_disk(&pair.shelter_dir, b"be/police"));
    assert!(!on_disk(&pair.shelter_dir, CANARY), "a section stands in clear");
}

#[tokio::test]
async fn a_section_is_gone_at_the_end_of_its_retention() {
    let pair = Pair::new().await;
    let message = referral(&pair.shelter.address);
    let id = message.id;
    let copy = pair.sent(message).await;
    let ciphertext = copy.sections[0].ciphertext[..64].to_vec();
    acknowledgement(deliver(&pair.shelter, copy.clone()).await, &pair.shelter.custody.signing().public());
    assert!(on_disk(&pair.shelter_dir, &ciphertext));
    let now = OffsetDateTime::now_utc();
    assert_eq!(pair.shelter.store.erase_due(now + Duration::days(29)).await.unwrap(), 0);
    assert_eq!(pair.shelter.store.erase_due(now + Duration::days(30)).await.unwrap(), 1);
    assert!(pair.shelter.store.content(id).await.unwrap().is_none_or(|(_, sections)| sections.is_empty()));
    assert!(!on_disk(&pair.shelter_dir, &ciphertext), "the section is still on the disk");
    assert!(pair.shelter.store.message(id).await.unwrap().is_some(), "what happened stays known");
    // Erased is not forgotten: delivered again, it stays erased.
    let key = pair.shelter.custody.signing().public();
    acknowledgement(deliver(&pair.shelter, copy).await, &key);
    assert!(pair.shelter.store.content(id).await.unwrap().is_none_or(|(_, sections)| sections.is_empty()));
}

#[tokio::test]
async fn forged_copies_are_refused_and_nothing_of_them_is_kept() {
    let pair = Pair::new().await;
    let other_gateway = Domain::new();
    let genuine = pair.sent(referral(&pair.shelter.address)).await;
    let flip = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        bytes[40] ^= 1;
        Bytes::from(bytes)
    };
    let changed = |change: &dyn Fn(&mut SealedCopy)| {
        let mut copy = genuine.clone();
        change(&mut copy);
        copy
    };
    let (_dir, stranger) = pair.domain.agent("police").await;
    let stranger = stranger.custody.ring().current().signed.clone();
    let forged: [(&str, ErrorCode, SealedCopy); 9] = [
        (
            "a changed section",
            ErrorCode::ChangedSection,
            changed(&|copy| {
                copy.sections[0].ciphertext = flip(&copy.sections[0].ciphertext);
            }),
        ),
        (
            "a changed wrapped key",
            ErrorCode::ChangedSection,
            changed(&|copy| {
                let key = &mut copy.recipient.as_mut().unwrap().wrapped_keys[0].sealed_key;
                *key = flip(key);
            }),
        ),
        ("a stripped section", ErrorCode::Malformed, changed(&|copy| copy.sections.clear())),
        (
            "a foreign signature",
            ErrorCode::BadSignature,
            changed(&|copy| {
                copy.signature = flip(&copy.signature);
            }),
        ),
        (
            "another agency's entry",
            ErrorCode::BadRecipients,
            changed(&|copy| {
                copy.recipient.as_mut().unwrap().address = "be/hotel".into();
            }),
        ),
        ("no sender's key", ErrorCode::MissingField, changed(&|copy| copy.sender_key = None)),
        ("no release record", ErrorCode::MissingField, changed(&|copy| copy.release = None)),
        (
            "a release record of another gateway",
            ErrorCode::BadSignature,
            changed(&|copy| {
                let release: liaison_proto::message::v1::ReleaseRecord =
                    statement::read(copy.release.as_ref().unwrap(), &pair.domain.gateway.public()).unwrap();
                copy.release = Some(statement::sign(&release, &other_gateway.gateway));
            }),
        ),
        ("no message", ErrorCode::Malformed, changed(&|copy| copy.manifest = Bytes::from_static(b"?"))),
    ];
    for (what, code, copy) in forged {
        assert_eq!(refused(deliver(&pair.shelter, copy).await), code, "{what}");
    }
    assert_eq!(refused(take(&pair.shelter, Delivery { content: None }).await.unwrap()), ErrorCode::Malformed);
    // A key that somebody else made in the sender's name: it is neither known nor follows, and the
    // directory can't be asked here.
    let swapped = changed(&|copy| copy.sender_key = Some(stranger.clone()));
    assert!(matches!(deliver(&pair.shelter, swapped).await, Answer::NotNow));
    assert_eq!(pair.shelter.store.counts().await.unwrap().received_referrals, 0);
    assert!(matches!(deliver(&pair.shelter, genuine).await, Answer::Held(Some(_))));
}

#[tokio::test]
async fn ids_and_threads_are_used_once() {
    let pair = Pair::new().await;
    let (_dir, hotel) = pair.domain.agent("hotel").await;
    introduce(&pair.shelter, &hotel).await;
    let first = referral(&pair.shelter.address);
    let (id, thread) = (first.id, first.thread);
    assert!(matches!(deliver(&pair.shelter, pair.sent(first).await).await, Answer::Held(Some(_))));

    let mut same_id = referral(&pair.shelter.address);
    same_id.id = id;
    let mut same_thread = referral(&pair.shelter.address);
    same_thread.thread = thread;
    for message in [same_id, same_thread] {
        let id = add(&hotel.store, message).await;
        let copy = pair.domain.copy(seal(&hotel, &pair.shelter, id).await);
        assert_eq!(refused(deliver(&pair.shelter, copy).await), ErrorCode::IdReused);
    }
    assert_eq!(pair.shelter.store.counts().await.unwrap().received_referrals, 1);
}

#[tokio::test]
async fn a_state_is_heard_from_the_other_party_alone() {
    let pair = Pair::new().await;
    let (_dir, hotel) = pair.domain.agent("hotel").await;
    introduce(&pair.shelter, &hotel).await;
    let case = referral(&pair.shelter.address);
    let (id, to) = (case.id, pair.shelter.address.clone());
    let head = blank(&case);
    let key = pair.shelter.custody.signing().public();
    deliver(&pair.shelter, pair.sent(case).await).await;
    let stands = || async { pair.shelter.store.message(id).await.unwrap().unwrap().state.state() };

    let by_stranger = add(&hotel.store, state_message(&head, &to, plain(State::Cancelled))).await;
    let by_stranger = pair.domain.copy(seal(&hotel, &pair.shelter, by_stranger).await);
    assert_eq!(refused(deliver(&pair.shelter, by_stranger).await), ErrorCode::NotAParty);

    let not_theirs = pair.sent(state_message(&head, &to, plain(State::Accepted))).await;
    assert_eq!(refused(deliver(&pair.shelter, not_theirs).await), ErrorCode::TransitionNotAllowed);

    let mut exercise = state_message(&head, &to, plain(State::Cancelled));
    exercise.status = Status::Exercise;
    assert_eq!(refused(deliver(&pair.shelter, pair.sent(exercise).await).await), ErrorCode::Malformed);

    let mut nowhere = state_message(&head, &to, plain(State::Cancelled));
    nowhere.thread = Uuid::now_v7();
    assert_eq!(refused(deliver(&pair.shelter, pair.sent(nowhere).await).await), ErrorCode::UnknownMessage);
    assert_eq!(stands().await, State::Received);

    let reject = StateChange { reason: Reason::NoCapacity.into(), ..plain(State::Rejected) };
    pair.shelter.store.change_state(id, reject, "bea").await.unwrap();
    let late = pair.sent(state_message(&head, &to, plain(State::Cancelled))).await;
    let word = acknowledgement(deliver(&pair.shelter, late).await, &key);
    assert_eq!(word.thread_state, Some(reject), "too late to cancel: the sender learns where it stands");
    assert_eq!(stands().await, State::Rejected);
}

#[tokio::test]
async fn an_answer_moves_the_sender_s_referral() {
    let pair = Pair::new().await;
    let case = referral(&pair.shelter.address);
    let id = case.id;
    deliver(&pair.shelter, pair.sent(case).await).await;
    pair.shelter.store.change_state(id, plain(State::Accepted), "bea").await.unwrap();
    let due = pair.shelter.store.due(OffsetDateTime::now_utc(), &Default::default(), 9).await.unwrap();
    let copy = pair.domain.copy(seal(&pair.shelter, &pair.police, due[0]).await);
    let word = acknowledgement(deliver(&pair.police, copy).await, &pair.police.custody.signing().public());
    assert_eq!(word.thread_state, Some(plain(State::Accepted)));
    let message = pair.police.store.message(id).await.unwrap().unwrap();
    assert_eq!(message.state.state(), State::Accepted);
    assert_eq!(message.history.last().unwrap().by, "be/shelter");
}

#[tokio::test]
async fn notices_are_believed_by_their_signatures() {
    let pair = Pair::new().await;
    let message = referral(&pair.shelter.address);
    let id = message.id;
    let answer = deliver(&pair.shelter, pair.sent(message).await).await;
    let Answer::Held(Some(word)) = answer else { panic!("not taken") };
    let digest = match pair.police.store.waiting(id).await.unwrap() {
        Some(Waiting::Sealed { digest, .. }) => digest,
        _ => panic!("not sealed"),
    };
    let notice = |event| Notice {
        message_id: id.as_bytes().to_vec().into(),
        manifest_digest: digest.into(),
        recipient: "be/shelter".into(),
        at: Some(times::to_wire(OffsetDateTime::now_utc())),
        event: Some(event),
        ..Notice::default()
    };
    let gateway = &pair.domain.gateway;
    let genuine = notice(notice::Event::Acknowledged(word.clone()));

    let by_stranger = statement::sign(&genuine, &SigningKey::generate());
    assert_eq!(refused(tell(&pair.police, by_stranger).await), ErrorCode::BadSignature);
    let claimed: Acknowledgement = statement::read(&word, &pair.shelter.custody.signing().public()).unwrap();
    let forged: SignedAcknowledgement = statement::sign(&claimed, &SigningKey::generate());
    let forged = statement::sign(&notice(notice::Event::Acknowledged(forged)), gateway);
    assert_eq!(refused(tell(&pair.police, forged).await), ErrorCode::BadSignature);
    let of_another = Acknowledgement { manifest_digest: Digest([0; 32]).into(), ..claimed };
    let of_another = statement::sign(&of_another, pair.shelter.custody.signing());
    let of_another = statement::sign(&notice(notice::Event::Acknowledged(of_another)), gateway);
    assert_eq!(refused(tell(&pair.police, of_another).await), ErrorCode::BadSignature);
    let other_digest = Notice { manifest_digest: Digest([0; 32]).into(), ..genuine.clone() };
    assert_eq!(
        refused(tell(&pair.police, statement::sign(&other_digest, gateway)).await),
        ErrorCode::Malformed
    );
    let state = || async { pair.police.store.message(id).await.unwrap().unwrap().state.state() };
    assert_eq!(state().await, State::Submitted);

    // The acknowledgement may be here before the acceptance is.
    assert!(matches!(tell(&pair.police, statement::sign(&genuine, gateway)).await, Answer::Held(None)));
    assert_eq!(state().await, State::Received);
    let too_late = notice(notice::Event::Quarantined(Refusal::internal()));
    assert!(matches!(tell(&pair.police, statement::sign(&too_late, gateway)).await, Answer::Held(None)));
    assert_eq!(state().await, State::Received, "what is received stays received");
    let unknown = Notice { message_id: Uuid::now_v7().as_bytes().to_vec().into(), ..genuine };
    assert!(matches!(tell(&pair.police, statement::sign(&unknown, gateway)).await, Answer::Held(None)));
}

#[tokio::test]
async fn a_sender_s_next_key_is_believed_and_one_that_skips_waits_for_the_directory() {
    let pair = Pair::new().await;
    let rotate = |days| {
        let at = OffsetDateTime::now_utc() + Duration::days(days);
        assert!(pair.police.custody.rotate(at).unwrap());
    };
    rotate(30);
    let next = pair.sent(referral(&pair.shelter.address)).await;
    assert!(matches!(deliver(&pair.shelter, next).await, Answer::Held(Some(_))));
    assert_eq!(pair.shelter.store.keys(&pair.police.address).await.unwrap().len(), 2, "pinned");

    // Two records later; the one between has never been seen here, and nobody can be asked.
    let mut skipped = pair.police.custody.ring().current().clone();
    let signing = pair.police.custody.signing();
    let now = OffsetDateTime::now_utc();
    let mut chain = Vec::new();
    for _ in 0..2 {
        let kem = liaison_trust::keys::KemKey::generate(skipped.kem).unwrap();
        let until = now + Duration::days(90);
        let record = liaison_trust::key_record::next(
            &skipped.signed,
            signing,
            signing,
            &kem,
            now - Duration::DAY,
            until,
        );
        skipped = liaison_trust::key_record::prove(&record.unwrap()).unwrap();
        chain.push(skipped.signed.clone());
    }
    let directory = &pair.shelter.directory;
    assert!(matches!(directory.believe(&skipped.signed, &[]).await, Belief::Unknown(_)));
    assert!(matches!(directory.believe(&skipped.signed, &chain[1..]).await, Belief::Unknown(_)), "a gap");
    // Unless the one between comes along.
    assert!(matches!(directory.believe(&skipped.signed, &chain).await, Belief::Proven(_)));
}

#[tokio::test]
async fn a_key_record_whose_signature_is_wrong_breaks_the_chain() {
    let pair = Pair::new().await;
    let mut copy = pair.sent(referral(&pair.shelter.address)).await;
    let record = copy.sender_key.as_mut().unwrap();
    record.signature = Bytes::from(vec![0; 64]);
    assert_eq!(refused(deliver(&pair.shelter, copy).await), ErrorCode::KeyChainBroken);
}
