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
    change: StateChange,
}

/// Forgets the envelope of a message that waits for nobody any more.
pub(super) async fn forget_envelope(tx: &mut Change, id: Uuid) -> Result<(), StoreError> {
    sqlx::query(
        "delete from envelopes where message = ?1 \
         and not exists (select 1 from deliveries where message = ?1 and state in (?2, ?3))",
    )
    .bind(id.as_bytes().as_slice())
    .bind(i32::from(State::Submitted))
    .bind(i32::from(State::Requested))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes a message out of the outbox; none if it is not there.
pub(super) async fn take(tx: &mut Change, id: Uuid) -> Result<Option<Sent>, StoreError> {
    let taken = sqlx::query("delete from outbox where message = ?")
        .bind(id.as_bytes().as_slice())
        .execute(&mut **tx)
        .await?
        .rows_affected();
    if taken == 0 { Ok(None) } else { sent(tx, id).await }
}

async fn sent(tx: &mut Change, id: Uuid) -> Result<Option<Sent>, StoreError> {
    let row: Option<(Vec<u8>, i64, Vec<u8>)> =
        sqlx::query_as("select thread, kind, change from messages where id = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&mut **tx)
            .await?;
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
    let ended = sqlx::query(
        "update deliveries set state = ?3, refusal = ?4, holder = ?7 where message = ?1 and (?2 is null or agency = ?2) \
         and state in (?5, ?6)",
    )
    .bind(id.as_bytes().as_slice())
    .bind(agency)
    .bind(i32::from(state))
    .bind(refusal.encode_to_vec())
    .bind(i32::from(State::Submitted))
    .bind(i32::from(State::Requested))
    .bind(by)
    .execute(&mut **tx)
    .await?;
    Ok(ended.rows_affected() > 0)
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
            if let Some((standing, _)) = states::by_id(tx, sent.id).await? {
                states::set_by_gateway(tx, &standing, state, at, by).await?;
            }
        }
        Kind::State => {
            if let Some(standing) = states::by_thread(tx, sent.thread).await? {
                told = standing.id;
                if standing.own_party() == Party::Requester && sent.change.state() == State::Cancelled {
                    states::set_cancel_pending(tx, standing.id, false).await?;
                }
            }
        }
        Kind::Onward => {
            onward::not_delivered(tx, sent.id).await?;
            if let Some(standing) = states::by_thread(tx, sent.thread).await? {
                told = standing.id;
            }
        }
        Kind::Alert | Kind::Unspecified => {}
    }
    sqlx::query("update messages set refusal = ?2 where id = ?1")
        .bind(told.as_bytes().as_slice())
        .bind(refusal.encode_to_vec())
        .execute(&mut **tx)
        .await?;
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
    match sent(tx, id).await? {
        // An alert fails at one recipient alone.
        Some(sent) if sent.kind != Kind::Alert => fail(tx, &sent, state, refusal, at, by).await,
        _ => Ok(()),
    }
}
