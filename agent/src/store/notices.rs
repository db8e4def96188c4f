//! What became of an accepted message at a recipient, as the gateway tells it.

use liaison_proto::{
    case::v1::receipt_event::Code as ReceiptEvent,
    message::v1::{
        DomainDecision, Refusal, SignedAcceptance, SignedAcknowledgement, StateChange,
        error_code::Code as ErrorCode, kind::Code as Kind, referral_state::Code as State,
        verdict::Code as Verdict,
    },
    referral::Party,
};
use liaison_trust::{
    digest::Digest,
    names::{AgencyAddress, Domain},
};
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Direction, Store, StoreError,
    add::forbidden,
    codec,
    ends::fail_at,
    log,
    parts::{self, Keep},
    states,
    writer::Change,
};
use crate::{log::Head, thread};

/// What became of a message at one recipient; every signature in it was verified.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The recipient holds it; the referral stands there so. With it the heads that the recipient holds of the own domain's
    /// logs, by kind.
    Acknowledged {
        signed: SignedAcknowledgement,
        thread_state: Option<StateChange>,
        heads: Vec<(&'static str, Head)>,
    },
    /// The gateway of the recipient's domain, which is another, holds it, with its part of the decision.
    Forwarded { signed: SignedAcceptance, part: DomainDecision },
    /// Nobody took it in time; where the own gateway still had it, why it waited there.
    Expired { why: Option<Refusal> },
    /// The copy waits at the own gateway: the part of the recipient's domain, which is another, tells why.
    Waiting(DomainDecision),
    /// A domain's policy has changed what was released: this is its part now.
    Narrowed(DomainDecision),
    /// The recipient could not take it as genuine, or is no longer there.
    Failed(Refusal),
}

impl Store {
    /// The digest of the manifest of a message that was sent to this recipient; none where none was.
    pub async fn sent_to(&self, id: Uuid, recipient: &AgencyAddress) -> Result<Option<Digest>, StoreError> {
        let digest: Option<Option<Vec<u8>>> = sqlx::query_scalar(
            "select m.digest from messages m join deliveries d on d.message = m.id \
             where m.id = ? and m.direction = ? and d.agency = ?",
        )
        .bind(id.as_bytes().as_slice())
        .bind(Direction::Sent.column())
        .bind(recipient.to_string())
        .fetch_optional(self.readers())
        .await?;
        digest.flatten().as_deref().map(codec::digest).transpose()
    }

    /// Commits what became of a message at one recipient, as the domain `by` tells it. Again it changes
    /// nothing.
    pub async fn notice(
        &self,
        id: Uuid,
        recipient: &AgencyAddress,
        at: OffsetDateTime,
        by: &Domain,
        event: Event,
    ) -> Result<(), StoreError> {
        let domain = by.as_str();
        let to = recipient.to_string();
        let mut tx = self.begin().await?;
        if let Some(logged) = logged(&event) {
            log::expect(&mut tx, id, &[logged], &to);
        }
        match event {
            Event::Acknowledged { signed, thread_state, heads } => {
                for (kind, head) in &heads {
                    log::head_shown(&mut tx, kind, &to, head);
                }
                self.acknowledged(&mut tx, id, recipient, &signed, thread_state, at).await?;
            }
            Event::Expired { why } => {
                let refusal = expired(recipient, by, why);
                fail_at(&mut tx, id, &to, State::Expired, &refusal, at, domain).await?;
            }
            Event::Waiting(part) => parts::waits(&mut tx, id, &part).await?,
            Event::Forwarded { signed, part } => {
                let new = tx
                    .ask("update deliveries set forwarded = ? where message = ? and agency = ? and forwarded is null")
                    .bind(signed.encode_to_vec())
                    .bind(id.as_bytes().as_slice())
                    .bind(&to)
                    .changed()
                    .await?;
                if new == 0 {
                    self.forwarded_again(&mut tx, id, &to, &signed, &part).await?;
                    return tx.commit().await;
                }
                // What that domain has said since, it has said of its first decision.
                parts::keep(&mut tx, id, self.address().domain(), &part, Keep::First).await?;
                match part.decision {
                    Some(decision) if decision.verdict() != Verdict::Released => {
                        let refusal = forbidden(&decision);
                        fail_at(&mut tx, id, &to, State::Refused, &refusal, at, domain).await?;
                    }
                    _ => parts::under_way_at(&mut tx, id, &to, domain),
                }
            }
            Event::Narrowed(part) => {
                parts::keep(&mut tx, id, self.address().domain(), &part, Keep::Last).await?;
                if let Some(decision) = part.decision.filter(|said| said.verdict() != Verdict::Released) {
                    let refusal = forbidden(&decision);
                    fail_at(&mut tx, id, &to, State::Refused, &refusal, at, domain).await?;
                }
            }
            Event::Failed(refusal) => {
                fail_at(&mut tx, id, &to, State::Refused, &refusal, at, domain).await?;
            }
        }
        tx.commit().await
    }

    /// The domain accepted the message anew, having lost that it had: what it released then, or releases now, the
    /// recipient may have. The same acceptance again tells nothing, nor does one that releases nothing.
    async fn forwarded_again(
        &self,
        tx: &mut Change,
        id: Uuid,
        to: &str,
        signed: &SignedAcceptance,
        part: &DomainDecision,
    ) -> Result<(), StoreError> {
        if part.decision.as_ref().is_none_or(|decision| decision.verdict() != Verdict::Released) {
            return Ok(());
        }
        let signed = signed.encode_to_vec();
        let is_other = tx
            .ask("update deliveries set forwarded = ? where message = ? and agency = ? and forwarded <> ?")
            .bind(signed.as_slice())
            .bind(id.as_bytes().as_slice())
            .bind(to)
            .bind(signed.as_slice())
            .changed()
            .await?;
        if is_other > 0 {
            parts::keep(tx, id, self.address().domain(), part, Keep::Either).await?;
        }
        Ok(())
    }

    async fn acknowledged(
        &self,
        tx: &mut Change,
        id: Uuid,
        recipient: &AgencyAddress,
        signed: &SignedAcknowledgement,
        thread_state: Option<StateChange>,
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let to = recipient.to_string();
        parts::reached(tx, id, &to);
        tx.write("update deliveries set acknowledgement = ? where message = ? and agency = ?")
            .bind(signed.encode_to_vec())
            .bind(id.as_bytes().as_slice())
            .bind(&to);
        let message: Option<(Vec<u8>, i64, Vec<u8>)> = tx
            .ask("select thread, kind, change from messages where id = ?")
            .bind(id.as_bytes().as_slice())
            .first()
            .await?;
        let Some((thread, kind, said)) = message else { return Ok(()) };
        if matches!(codec::code(kind)?, Kind::Alert | Kind::Onward) {
            return Ok(());
        }
        let Some(standing) = states::by_thread(tx, codec::uuid(&thread)?).await? else { return Ok(()) };
        // The responder orders the thread: what a requester answers changes nothing there.
        if standing.own_party() != Party::Requester {
            return Ok(());
        }
        if standing.id != id && codec::message::<StateChange>(&said)?.state() == State::Cancelled {
            states::set_cancel_pending(tx, standing.id, false);
        }
        if let Some(told) = thread_state
            && thread::acknowledged(standing.change.state(), told.state())
        {
            // The cancellation is this agency's, the responder's word lets it take effect.
            let by = if told.state() == State::Cancelled { self.address() } else { recipient };
            states::set(tx, standing.id, &told, at, &by.to_string());
            if standing.id != id {
                parts::reached(tx, standing.id, &to);
            }
        }
        Ok(())
    }
}

/// What the gateway logs of what it tells.
fn logged(event: &Event) -> Option<ReceiptEvent> {
    match event {
        Event::Acknowledged { .. } => Some(ReceiptEvent::Acknowledged),
        Event::Forwarded { .. } => Some(ReceiptEvent::Forwarded),
        Event::Expired { .. } => Some(ReceiptEvent::Expired),
        Event::Narrowed(_) => Some(ReceiptEvent::Narrowed),
        Event::Failed(_) => Some(ReceiptEvent::Undeliverable),
        Event::Waiting(_) => None,
    }
}

/// Who did not take a message in time: its recipient, or the recipient's domain where only the own gateway
/// had it.
fn expired(recipient: &AgencyAddress, by: &Domain, why: Option<Refusal>) -> Refusal {
    let domain = recipient.domain();
    if by == domain {
        return Refusal::new(
            ErrorCode::Expired,
            format!("{recipient} did not fetch the message before it expired"),
            "ask the agency whether its agent runs; then send it again",
        );
    }
    let Refusal { message: why, action, .. } = why.unwrap_or_default();
    let mut message = format!("the message did not reach {domain} before it expired");
    if !why.is_empty() {
        message = format!("{message}: {why}");
    }
    let action = Some(action).filter(|action| !action.is_empty());
    let action = action.unwrap_or_else(|| "ask the gateway's administrator; then send it again".to_owned());
    Refusal::new(ErrorCode::Expired, message, action)
}
