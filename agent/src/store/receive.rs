//! Received messages: committed once, with the keys of their sections under a key of their own.

use liaison_proto::{
    case::v1::receipt_event::Code as ReceiptEvent,
    message::v1::{
        Handling, OnwardRequest, Refusal, ReleasedSection, SealedSection, SignedReleaseRecord, StateChange,
        alert_kind::Code as AlertKind, data_category::Code as Category, error_code::Code as ErrorCode,
        kind::Code as Kind, referral_state::Code as State, status::Code as Status, urgency::Code as Urgency,
    },
    referral::{Party, setter},
};
use liaison_trust::{digest::Digest, names::AgencyAddress, vault::Vault};
use prost::Message as _;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Direction, Store, StoreError,
    add::note,
    codec, log, parts,
    states::{self, Standing},
    writer::Change,
};
use crate::{limits, thread};

/// A message that was proven genuine, about to be committed.
pub struct Incoming {
    pub id: Uuid,
    pub thread: Uuid,
    pub sender: AgencyAddress,
    pub kind: Kind,
    pub alert_kind: AlertKind,
    pub urgency: Urgency,
    pub handling: Option<Handling>,
    pub status: Status,
    pub state_change: Option<StateChange>,
    pub onward: Option<OnwardRequest>,
    pub created: OffsetDateTime,
    pub expires: OffsetDateTime,
    /// Of the manifest.
    pub digest: Digest,
    pub policy_hash: Option<Digest>,
    pub release: SignedReleaseRecord,
    pub sections: Vec<IncomingSection>,
    pub received_at: OffsetDateTime,
}

/// A section with its key, which was tried.
pub struct IncomingSection {
    pub category: Category,
    pub key: Zeroizing<[u8; 32]>,
    pub section: SealedSection,
    pub release: ReleasedSection,
}

/// What became of a received message.
#[derive(Debug, Clone, PartialEq)]
pub enum Receipt {
    /// It is held durably, by now or, where it is not new, since before; with it the state of its referral.
    Held { thread_state: Option<StateChange>, is_new: bool },
    /// It can't be taken as genuine.
    Refused(Refusal),
}

/// The key over the keys of one message's sections. It is stored under the vault alone: once that is
/// erased, nothing opens the sections.
pub(super) struct LocalKey(Vault);

impl LocalKey {
    /// A new one, and how it is stored.
    fn new(vault: &Vault, message: Uuid) -> (Self, Vec<u8>) {
        let key = Zeroizing::new(rand::random::<[u8; 32]>());
        let sealed = vault.seal(&local_key_context(message), key.as_slice());
        (Self(Vault::from_key(*key)), sealed)
    }

    pub(super) fn open(vault: &Vault, message: Uuid, sealed: &[u8]) -> Result<Self, StoreError> {
        let key = vault
            .open(&local_key_context(message), sealed)
            .map_err(|_| StoreError::Sealed("message's local key"))?;
        Ok(Self(Vault::from_key(key_bytes(&key)?)))
    }

    fn wrap(&self, position: i64, key: &[u8; 32]) -> Vec<u8> {
        self.0.seal(&position.to_be_bytes(), key)
    }

    pub(super) fn unwrap(&self, position: i64, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let key =
            self.0.open(&position.to_be_bytes(), wrapped).map_err(|_| StoreError::Sealed("section's key"))?;
        Ok(Zeroizing::new(key_bytes(&key)?))
    }
}

fn key_bytes(key: &[u8]) -> Result<[u8; 32], StoreError> {
    key.try_into().map_err(|_| StoreError::Damaged("key"))
}

fn local_key_context(message: Uuid) -> Vec<u8> {
    [b"local-key/", message.as_bytes().as_slice()].concat()
}

impl Store {
    /// Commits a received message, once for its sender and id; again it answers the same.
    pub async fn receive(&self, message: Incoming) -> Result<Receipt, StoreError> {
        let mut tx = self.begin().await?;
        if let Some(receipt) = received_before(&mut tx, &message).await? {
            tx.commit().await?;
            return Ok(receipt);
        }
        let receipt = match message.kind {
            Kind::Referral => self.receive_referral(&mut tx, &message).await?,
            Kind::Alert => {
                self.insert(&mut tx, &message, StateChange::default());
                Receipt::Held { thread_state: None, is_new: true }
            }
            Kind::State => self.receive_state(&mut tx, &message).await?,
            Kind::Onward => self.receive_onward(&mut tx, &message).await?,
            Kind::Unspecified => Receipt::Refused(malformed("the message has no kind")),
        };
        if matches!(receipt, Receipt::Held { .. }) {
            let own = self.address().to_string();
            let events = [ReceiptEvent::HandedOver, ReceiptEvent::Acknowledged];
            log::expect(&mut tx, message.id, &events, &own);
            tx.commit().await?;
        } else {
            tx.undo().await?;
        }
        Ok(receipt)
    }

    async fn receive_referral(&self, tx: &mut Change, message: &Incoming) -> Result<Receipt, StoreError> {
        if states::by_thread(tx, message.thread).await?.is_some() {
            return Ok(Receipt::Refused(Refusal::new(
                ErrorCode::IdReused,
                "the message's thread is that of another referral",
                "the sender must give each referral a thread of its own",
            )));
        }
        let change = StateChange { state: State::Received.into(), reason: 0, outcome: 0 };
        self.insert(tx, message, change);
        note(tx, message.id, &change, message.received_at, &self.address().to_string());
        Ok(Receipt::Held { thread_state: Some(change), is_new: true })
    }

    async fn receive_state(&self, tx: &mut Change, message: &Incoming) -> Result<Receipt, StoreError> {
        let standing = match of_this_thread(tx, message).await? {
            Ok(standing) => standing,
            Err(refusal) => return Ok(Receipt::Refused(refusal)),
        };
        let change = match rightful(&standing, message) {
            Ok(change) => change,
            Err(refusal) => return Ok(Receipt::Refused(refusal)),
        };
        self.insert(tx, message, change);
        let mut stands = standing.change;
        if thread::hear(standing.change.state(), change.state(), standing.other_party()) {
            let by = message.sender.to_string();
            states::set(tx, standing.id, &change, message.created, &by);
            if standing.own_party() == Party::Requester {
                parts::reached(tx, standing.id, &by);
            }
            stands = change;
        }
        Ok(Receipt::Held { thread_state: Some(stands), is_new: true })
    }

    pub(super) fn insert(&self, tx: &mut Change, message: &Incoming, change: StateChange) {
        let id = message.id.as_bytes().as_slice();
        let (local_key, stored) = LocalKey::new(self.vault(), message.id);
        tx.write(
            "insert into messages (id, thread, direction, kind, alert_kind, sender, urgency, handling, status, \
             created, expires, digest, policy_hash, change, evidence, local_key, onward) \
             values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(message.thread.as_bytes().as_slice())
        .bind(Direction::Received.column())
        .bind(i32::from(message.kind))
        .bind(i32::from(message.alert_kind))
        .bind(message.sender.to_string())
        .bind(i32::from(message.urgency))
        .bind(message.handling.map(|handling| handling.encode_to_vec()))
        .bind(i32::from(message.status))
        .bind(codec::ms(message.created))
        .bind(codec::ms(message.expires))
        .bind(message.digest.as_bytes().as_slice())
        .bind(message.policy_hash.map(|hash| hash.as_bytes().to_vec()))
        .bind(change.encode_to_vec())
        .bind(message.release.encode_to_vec())
        .bind((!message.sections.is_empty()).then_some(stored))
        .bind(message.onward.as_ref().map(OnwardRequest::encode_to_vec));
        tx.write("insert into deliveries (message, agency, state) values (?, ?, ?)")
            .bind(id)
            .bind(self.address().to_string())
            .bind(i32::from(State::Received));
        // In one statement: each costs as much as a row of it.
        for some in message.sections.chunks(limits::ROWS) {
            tx.write(
                "insert into sections (message, position, category, retain_until, wrapped_key, \
                 released_section, sealed_section) values ",
            )
            .rows(some, |row, section| {
                let position = i64::from(section.section.position);
                let retain = Duration::days(i64::from(section.release.retention_days));
                row.bind(id)
                    .bind(position)
                    .bind(i32::from(section.category))
                    .bind(codec::ms(message.received_at.saturating_add(retain)))
                    .bind(local_key.wrap(position, &section.key))
                    .bind(section.release.encode_to_vec())
                    .bind(section.section.encode_to_vec());
            });
        }
    }
}

/// The answer of then, if this message was received before. Whoever uses an id that another message
/// has, of this agency or of another, is refused.
async fn received_before(tx: &mut Change, message: &Incoming) -> Result<Option<Receipt>, StoreError> {
    let known: Option<(i64, String, Option<Vec<u8>>)> = tx
        .ask("select direction, sender, digest from messages where id = ?")
        .bind(message.id.as_bytes().as_slice())
        .first()
        .await?;
    let Some((direction, sender, digest)) = known else { return Ok(None) };
    let same = Direction::from_column(direction)? == Direction::Received
        && sender == message.sender.to_string()
        && digest.as_deref() == Some(message.digest.as_bytes());
    if !same {
        tracing::warn!(message = %message.id, sender = %message.sender, "an id was used for two messages");
        return Ok(Some(Receipt::Refused(Refusal::new(
            ErrorCode::IdReused,
            "the message's id is that of another message",
            "the sender must give each message an id of its own",
        ))));
    }
    let thread_state = match message.kind {
        Kind::Referral | Kind::State => {
            states::by_thread(tx, message.thread).await?.map(|standing| standing.change)
        }
        _ => None,
    };
    Ok(Some(Receipt::Held { thread_state, is_new: false }))
}

/// The referral of the thread that a message is in, if its sender is the other party to it.
pub(super) async fn of_this_thread(
    tx: &mut Change,
    message: &Incoming,
) -> Result<Result<Standing, Refusal>, StoreError> {
    let Some(standing) = states::by_thread(tx, message.thread).await? else {
        return Ok(Err(Refusal::new(
            ErrorCode::UnknownMessage,
            "the message is for a thread in which this agency has no referral",
            "the sender should look at its referral again",
        )));
    };
    if standing.other != message.sender {
        return Ok(Err(Refusal::new(
            ErrorCode::NotAParty,
            "the sender is no party to this referral",
            "only the two agencies of a referral write in its thread",
        )));
    }
    if standing.status != i64::from(i32::from(message.status)) {
        return Ok(Err(malformed("an exercise and real traffic were mixed in one thread")));
    }
    Ok(Ok(standing))
}

/// What a state message of the other party says, if that party may say it.
fn rightful(standing: &Standing, message: &Incoming) -> Result<StateChange, Refusal> {
    let change = message.state_change.ok_or_else(|| malformed("a state message without a state"))?;
    match setter(change.state()) {
        Some(party) if party == standing.other_party() => Ok(change),
        _ => Err(Refusal::new(
            ErrorCode::TransitionNotAllowed,
            format!("{} is not the sender's to set", change.state().as_str_name()),
            "send a state that the sender's part in the referral may set",
        )),
    }
}

pub(super) fn malformed(message: &str) -> Refusal {
    Refusal::new(ErrorCode::Malformed, message, "the sender's agent must be repaired")
}
