//! Where referrals stand: changed by this agency, by the other party, or by a gateway.

use liaison_proto::{
    message::v1::{
        Refusal, StateChange, alert_kind::Code as AlertKind, error_code::Code as ErrorCode,
        kind::Code as Kind, referral_state::Code as State,
    },
    referral::Party,
};
use liaison_trust::names::AgencyAddress;
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Direction, Message, Store, StoreError,
    add::{audit, insert, note, to_ms},
    codec, draft,
    writer::Change,
};
use crate::{limits, outbox::NewMessage, thread};

/// A referral, as far as its state goes.
pub(super) struct Standing {
    pub(super) id: Uuid,
    pub(super) direction: Direction,
    pub(super) status: i64,
    urgency: i64,
    /// The agency at the other end.
    pub(super) other: AgencyAddress,
    pub(super) change: StateChange,
    cancel_pending: bool,
}

impl Standing {
    /// What this agency is to the referral.
    pub(super) fn own_party(&self) -> Party {
        match self.direction {
            Direction::Sent => Party::Requester,
            Direction::Received => Party::Responder,
        }
    }

    /// What the other agency is to it.
    pub(super) fn other_party(&self) -> Party {
        match self.direction {
            Direction::Sent => Party::Responder,
            Direction::Received => Party::Requester,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Vec<u8>,
    thread: Vec<u8>,
    direction: i64,
    sender: String,
    urgency: i64,
    status: i64,
    change: Vec<u8>,
    cancel_pending: bool,
    recipient: Option<String>,
}

impl Store {
    /// Moves a referral to another state on behalf of this agency, and tells the other party. The state
    /// that it has already is no change. A cancellation takes effect when the recipient answers it; of
    /// a referral that is not sealed yet, at once.
    ///
    /// Refused as `unknown_message`, `transition_not_allowed` (naming the allowed ones) and
    /// `missing_field`.
    pub async fn change_state(&self, id: Uuid, change: StateChange, actor: &str) -> Result<Message, Refusal> {
        let unknown = || {
            Refusal::new(
                ErrorCode::UnknownMessage,
                format!("this agent has no referral {id}"),
                "list the referrals and take an id from there",
            )
        };
        let mut tx = self.begin().await?;
        let (standing, thread) = by_id(&mut tx, id).await?.ok_or_else(unknown)?;
        let party = standing.own_party();
        let current = standing.change.state();
        let again = standing.cancel_pending && change.state() == State::Cancelled;
        if !again && thread::ask(current, &change, party)? {
            let now = to_ms(OffsetDateTime::now_utc());
            let by = self.address().to_string();
            audit(&mut tx, now, actor, change.state().as_str_name(), id);
            if party == Party::Requester && withdraw_draft(&mut tx, id).await? {
                set(&mut tx, id, &change, now, &by);
            } else {
                if party == Party::Requester {
                    set_cancel_pending(&mut tx, id, true);
                } else {
                    set(&mut tx, id, &change, now, &by);
                }
                let message = NewMessage {
                    state_change: Some(change),
                    ..message(&standing, thread, Kind::State, now)?
                };
                let sealed =
                    draft::seal(self.vault(), message.id, None, &message.sections, &message.recipients);
                insert(&mut tx, by, &message, Some(&sealed));
            }
            tx.commit().await?;
            self.has_erased();
            self.wake_outbox();
        } else {
            tx.commit().await?;
        }
        self.message(id).await?.ok_or_else(unknown)
    }
}

/// A message of this agency's to the other party, in the referral's thread.
pub(super) fn message(
    standing: &Standing,
    thread: Uuid,
    kind: Kind,
    now: OffsetDateTime,
) -> Result<NewMessage, StoreError> {
    Ok(NewMessage {
        id: Uuid::now_v7(),
        thread,
        kind,
        alert_kind: AlertKind::Unspecified,
        created: now,
        expires: now + limits::STATE_LIFETIME,
        urgency: codec::code(standing.urgency)?,
        handling: None,
        status: codec::code(standing.status)?,
        state_change: None,
        onward: None,
        onward_of: None,
        facts: None,
        sections: Default::default(),
        recipients: vec![(standing.other.clone(), Default::default())],
        sealed: None,
    })
}

/// Takes back a referral of which nothing has left this host.
async fn withdraw_draft(tx: &mut Change, id: Uuid) -> Result<bool, StoreError> {
    let taken = tx.ask("delete from outbox where message = ? and draft is not null");
    Ok(taken.bind(id.as_bytes().as_slice()).changed().await? > 0)
}

/// Finds a referral by what follows.
const REFERRAL: &str = "select id, thread, direction, sender, urgency, status, change, cancel_pending, \
                        (select agency from deliveries where message = id) as recipient \
                        from messages where kind = 1 and ";

/// A referral by its own id, with its thread.
pub(super) async fn by_id(tx: &mut Change, id: Uuid) -> Result<Option<(Standing, Uuid)>, StoreError> {
    let row: Option<Row> = tx.ask(REFERRAL).then("id = ?").bind(id.as_bytes().as_slice()).first().await?;
    row.map(standing).transpose()
}

/// A referral by its thread.
pub(super) async fn by_thread(tx: &mut Change, thread: Uuid) -> Result<Option<Standing>, StoreError> {
    let row: Option<Row> =
        tx.ask(REFERRAL).then("thread = ?").bind(thread.as_bytes().as_slice()).first().await?;
    Ok(row.map(standing).transpose()?.map(|(standing, _)| standing))
}

fn standing(row: Row) -> Result<(Standing, Uuid), StoreError> {
    let direction = Direction::from_column(row.direction)?;
    let other = match direction {
        Direction::Sent => row.recipient.ok_or(StoreError::Damaged("referral without a recipient"))?,
        Direction::Received => row.sender,
    };
    let standing = Standing {
        id: codec::uuid(&row.id)?,
        direction,
        status: row.status,
        urgency: row.urgency,
        other: codec::address(&other)?,
        change: codec::message(&row.change)?,
        cancel_pending: row.cancel_pending,
    };
    Ok((standing, codec::uuid(&row.thread)?))
}

/// Sets where a referral stands.
pub(super) fn set(tx: &mut Change, id: Uuid, change: &StateChange, at: OffsetDateTime, by: &str) {
    tx.write("update messages set change = ? where id = ?")
        .bind(change.encode_to_vec())
        .bind(id.as_bytes().as_slice());
    note(tx, id, change, at, by);
}

pub(super) fn set_cancel_pending(tx: &mut Change, id: Uuid, pending: bool) {
    tx.write("update messages set cancel_pending = ? where id = ?")
        .bind(pending)
        .bind(id.as_bytes().as_slice());
}

/// What a gateway says of the state of a referral that stands so, where that is the gateway's to say.
pub(super) fn set_by_gateway(
    tx: &mut Change,
    id: Uuid,
    stands: &StateChange,
    state: State,
    at: OffsetDateTime,
    domain: &str,
) {
    if thread::hear(stands.state(), state, Party::Gateway) {
        let change = StateChange { state: state.into(), reason: 0, outcome: 0 };
        set(tx, id, &change, at, domain);
    }
}
