//! How sent messages end: as a whole, or at one recipient.

use liaison_proto::{
    message::v1::{Refusal, StateChange, kind::Code as Kind, referral_state::Code as State},
    referral::Party,
};
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, codec, onward, states, writer::Change};

/// A sent message, as far as its end goes.
pub(super) struct Sent {
    pub(super) id: Uuid,
    thread: Uuid,
    pub(super) kind: Kind,
    pub(super) change: StateChange,
}

/// Forgets the envelope of a message that waits for nobody any more.
pub(super) fn forget_envelope(tx: &mut Change, id: Uuid) {
    tx.write(
        "delete from envelopes where message = ? \
         and not exists (select 1 from deliveries d where d.message = envelopes.message and d.state in (?, ?))",
    )
    .bind(id.as_bytes().as_slice())
    .bind(i32::from(State::Submitted))
    .bind(i32::from(State::Requested));
}

/// Takes a message out of the outbox; none if it is not there.
pub(super) async fn take(tx: &mut Change, id: Uuid) -> Result<Option<Sent>, StoreError> {
    tx.write("delete from outbox where message = ?").bind(id.as_bytes().as_slice());
    // Of what was deleted right before.
    let row = tx.ask("select thread, kind, change from messages where id = ? and changes() > 0");
    sent(id, row.bind(id.as_bytes().as_slice()).first().await?)
}

fn sent(id: Uuid, row: Option<(Vec<u8>, i64, Vec<u8>)>) -> Result<Option<Sent>, StoreError> {
    row.map(|(thread, kind, change)| {
        Ok(Sent {
            id,
            thread: codec::uuid(&thread)?,
            kind: codec::code(kind)?,
            change: codec::message(&change)?,
        })
    })
    .transpose()
}

/// Ends the deliveries of a message, or that to one agency, which have not ended yet. Tells whether there
/// were any.
pub(super) async fn end_delivery(
    tx: &mut Change,
    id: Uuid,
    agency: Option<&str>,
    state: State,
    refusal: &Refusal,
    by: &str,
) -> Result<bool, StoreError> {
    let ended = tx
        .ask(
            "update deliveries set state = ?, refusal = ?, holder = ? where message = ? \
             and agency = coalesce(?, agency) and state in (?, ?)",
        )
        .bind(i32::from(state))
        .bind(refusal.encode_to_vec())
        .bind(by)
        .bind(id.as_bytes().as_slice())
        .bind(agency)
        .bind(i32::from(State::Submitted))
        .bind(i32::from(State::Requested));
    Ok(ended.changed().await? > 0)
}

/// What the failure of a whole message does beside its deliveries. Of a state or an onward message, the
/// referral tells why.
pub(super) async fn fail(
    tx: &mut Change,
    sent: &Sent,
    state: State,
    refusal: &Refusal,
    at: OffsetDateTime,
    by: &str,
) -> Result<(), StoreError> {
    let mut told = sent.id;
    match sent.kind {
        Kind::Referral => {
            states::set_by_gateway(tx, sent.id, &sent.change, state, at, by);
        }
        Kind::State => {
            if let Some(standing) = states::by_thread(tx, sent.thread).await? {
                told = standing.id;
                if standing.own_party() == Party::Requester && sent.change.state() == State::Cancelled {
                    states::set_cancel_pending(tx, standing.id, false);
                }
            }
        }
        Kind::Onward => {
            onward::not_delivered(tx, sent.id);
            if let Some(standing) = states::by_thread(tx, sent.thread).await? {
                told = standing.id;
            }
        }
        Kind::Alert | Kind::Unspecified => {}
    }
    tx.write("update messages set refusal = ? where id = ?")
        .bind(refusal.encode_to_vec())
        .bind(told.as_bytes().as_slice());
    Ok(())
}

/// The failure of a message at one recipient, as the gateway tells it. What the recipient has signed for
/// did not fail, whatever the gateway tells later.
pub(super) async fn fail_at(
    tx: &mut Change,
    id: Uuid,
    recipient: &str,
    state: State,
    refusal: &Refusal,
    at: OffsetDateTime,
    by: &str,
) -> Result<(), StoreError> {
    if !end_delivery(tx, id, Some(recipient), state, refusal, by).await? {
        return Ok(());
    }
    let row = tx.ask("select thread, kind, change from messages where id = ?");
    match sent(id, row.bind(id.as_bytes().as_slice()).first().await?)? {
        // An alert fails at one recipient alone.
        Some(sent) if sent.kind != Kind::Alert => fail(tx, &sent, state, refusal, at, by).await,
        _ => Ok(()),
    }
}
