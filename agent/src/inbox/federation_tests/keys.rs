//! Acknowledgements of agencies that the directory does not show, which have changed their keys.

use liaison_proto::message::v1::SignedKeyRecord;
use time::Duration;

use super::*;

impl Crossing {
    /// The shelter, which has changed its keys twice since the police pinned them: its key records.
    async fn rotated(&self) -> Vec<SignedKeyRecord> {
        for days in [30, 60] {
            let at = OffsetDateTime::now_utc() + Duration::days(days);
            assert!(self.shelter.custody.rotate(at).unwrap());
        }
        self.shelter.custody.ring().chain().iter().map(|key| key.signed.clone()).collect()
    }

    /// The shelter's word, in a notice of its gateway that brings these key records.
    fn with_keys(&self, recipient_keys: Vec<SignedKeyRecord>) -> Notice {
        let notice = self.notice(Told::Acknowledged(self.word()));
        let of_hu = Notice { recipient_keys, ..notice.clone() };
        Notice { relayed: Some(statement::sign(&of_hu, &SigningKey::generate())), ..notice }
    }

    async fn known_keys(&self) -> usize {
        self.police.store.keys(&self.shelter.address).await.unwrap().len()
    }
}

#[tokio::test]
async fn keys_that_come_with_an_acknowledgement_are_believed_where_they_continue_the_pin() {
    // The list may begin with the pinned record, or after it.
    for from in [0, 1] {
        let crossing = Crossing::new().await;
        let records = crossing.rotated().await;
        crossing.held(&crossing.with_keys(records[from..].to_vec())).await;
        assert_eq!(crossing.stands().await.0, State::Received);
        assert_eq!(crossing.known_keys().await, 3);
        // Known now, they need not come again.
        crossing.held(&crossing.with_keys(Vec::new())).await;
    }
}

#[tokio::test]
async fn keys_that_do_not_continue_the_pin_change_nothing() {
    let crossing = Crossing::new().await;
    let records = crossing.rotated().await;
    let other = Crossing::new().await;
    let foreign = other.rotated().await;
    let in_own_name = Notice { recipient_keys: records.clone(), ..crossing.with_keys(Vec::new()) };
    for notice in [
        crossing.with_keys(foreign.clone()),
        crossing.with_keys(records[2..].to_vec()),
        crossing.with_keys(vec![records[1].clone(), foreign[2].clone()]),
        crossing.with_keys(Vec::new()),
        in_own_name,
    ] {
        // The directory might know better, and can't be asked here.
        assert!(matches!(crossing.tell(&notice).await, Answer::NotNow));
        assert_eq!(crossing.known_keys().await, 1);
        assert_eq!(crossing.stands().await.0, State::Requested);
    }
    // Keys do not make another's word the shelter's.
    let mut forged = crossing.with_keys(records.clone());
    let claimed: Acknowledgement =
        statement::read(&crossing.word(), &crossing.shelter.custody.signing().public()).unwrap();
    forged.event = Some(Told::Acknowledged(statement::sign(&claimed, &SigningKey::generate())));
    assert_eq!(code(crossing.tell(&forged).await), Some(ErrorCode::BadSignature));
    assert_eq!(crossing.stands().await.0, State::Requested);
}
