//! Out of the outbox: sealed once, then accepted, refused or expired.

use std::collections::HashSet;

use bytes::Bytes;
use liaison_proto::{
    case::v1::receipt_event::Code as ReceiptEvent,
    limits::REPLAY_MEMORY,
    message::v1::{
        Acceptance, DomainDecision, Refusal, SignedAcceptance, error_code::Code as ErrorCode,
        kind::Code as Kind, referral_state::Code as State, verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError,
    add::{forbidden, insert_envelope},
    codec, draft,
    ends::{end_delivery, fail, forget_envelope, take},
    log, logged,
    parts::{self, Keep},
    states,
};
use crate::outbox::NewMessage;

/// What waits in the outbox.
pub enum Waiting {
    /// Not sealed yet.
    Draft(Box<NewMessage>),
    /// A sealed envelope, encoded, and the digest of its manifest.
    Sealed { envelope: Bytes, digest: Digest },
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Vec<u8>,
    thread: Vec<u8>,
    kind: i64,
    alert_kind: i64,
    urgency: i64,
    handling: Option<Vec<u8>>,
    status: i64,
    created: i64,
    expires: i64,
    digest: Option<Vec<u8>>,
    change: Vec<u8>,
    onward: Option<Vec<u8>>,
    onward_of: Option<Vec<u8>>,
    draft: Option<Vec<u8>>,
    envelope: Option<Vec<u8>>,
}

impl Store {
    /// Up to `limit` messages that may be offered now, in order: of each thread the first that the
    /// gateway has not accepted, unless it is under way.
    pub async fn due(
        &self,
        now: OffsetDateTime,
        under_way: &HashSet<Uuid>,
        limit: u32,
    ) -> Result<Vec<Uuid>, StoreError> {
        let most = limit.saturating_add(u32::try_from(under_way.len()).unwrap_or(u32::MAX));
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(
            "select message from outbox o where not_before <= ? and not exists \
             (select 1 from outbox earlier where earlier.thread = o.thread and earlier.seq < o.seq) \
             order by seq limit ?",
        )
        .bind(codec::ms(now))
        .bind(most)
        .fetch_all(self.readers())
        .await?;
        let ids = ids.iter().map(|id| codec::uuid(id)).collect::<Result<Vec<_>, _>>()?;
        Ok(ids.into_iter().filter(|id| !under_way.contains(id)).take(limit as usize).collect())
    }

    /// What waits in the outbox under this id.
    pub async fn waiting(&self, id: Uuid) -> Result<Option<Waiting>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "select m.*, o.draft, e.envelope from outbox o join messages m on m.id = o.message \
             left join envelopes e on e.message = m.id where m.id = ?",
        )
        .bind(id.as_bytes().as_slice())
        .fetch_optional(self.readers())
        .await?;
        let Some(row) = row else { return Ok(None) };
        if let (Some(envelope), Some(digest)) = (row.envelope, &row.digest) {
            let digest = codec::digest(digest)?;
            return Ok(Some(Waiting::Sealed { envelope: envelope.into(), digest }));
        }
        let sealed = row.draft.ok_or(StoreError::Damaged("message without a draft"))?;
        let draft = draft::open(self.vault(), id, &sealed)?;
        let kind = codec::code(row.kind)?;
        Ok(Some(Waiting::Draft(Box::new(NewMessage {
            id: codec::uuid(&row.id)?,
            thread: codec::uuid(&row.thread)?,
            kind,
            alert_kind: codec::code(row.alert_kind)?,
            created: codec::time(row.created)?,
            expires: codec::time(row.expires)?,
            urgency: codec::code(row.urgency)?,
            handling: codec::some_message(row.handling.as_deref())?,
            status: codec::code(row.status)?,
            state_change: match kind {
                Kind::State => Some(codec::message(&row.change)?),
                _ => None,
            },
            onward: codec::some_message(row.onward.as_deref())?,
            onward_of: row.onward_of.as_deref().map(codec::uuid).transpose()?,
            facts: draft.facts,
            sections: draft.sections,
            recipients: draft.recipients,
            sealed: None,
        }))))
    }

    /// Puts the envelope in the place of its draft, and tells of recipients that it is not sealed to.
    /// False if the draft is not there any more.
    pub async fn sealed(
        &self,
        id: Uuid,
        envelope: &[u8],
        digest: Digest,
        left_out: &[(AgencyAddress, Refusal)],
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let replaced = tx
            .ask("update outbox set draft = null, bytes = ? where message = ? and draft is not null")
            .bind(codec::length(envelope))
            .bind(id.as_bytes().as_slice())
            .changed()
            .await?;
        if replaced == 0 {
            return Ok(false);
        }
        insert_envelope(&mut tx, id, envelope);
        tx.write("update messages set digest = ? where id = ?")
            .bind(digest.as_bytes().as_slice())
            .bind(id.as_bytes().as_slice());
        logged::waits_no_more(&mut tx, id);
        for (agency, refusal) in left_out {
            let by = self.address().to_string();
            end_delivery(&mut tx, id, Some(&agency.to_string()), State::Refused, refusal, &by).await?;
        }
        tx.commit().await?;
        self.has_erased();
        Ok(true)
    }

    /// Not now, but from `not_before` on.
    pub async fn postpone(&self, id: Uuid, not_before: OffsetDateTime) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.write("update outbox set attempts = attempts + 1, not_before = ? where message = ?")
            .bind(codec::ms(not_before))
            .bind(id.as_bytes().as_slice());
        tx.commit().await
    }

    /// How often this message was postponed.
    pub async fn attempts(&self, id: Uuid) -> Result<u32, StoreError> {
        let attempts: Option<i64> = sqlx::query_scalar("select attempts from outbox where message = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await?;
        Ok(attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(0))
    }

    /// The gateway has the message: its decisions are kept, and its envelope until its recipients have it.
    pub async fn accepted(
        &self,
        id: Uuid,
        acceptance: &Acceptance,
        signed: &SignedAcceptance,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let Some(sent) = take(&mut tx, id).await? else { return Ok(()) };
        let at = acceptance
            .accepted_at
            .as_ref()
            .and_then(times::from_wire)
            .unwrap_or_else(OffsetDateTime::now_utc);
        tx.write("update messages set policy_hash = ?, evidence = ? where id = ?")
            .bind(acceptance.policy_hash.to_vec())
            .bind(signed.encode_to_vec())
            .bind(id.as_bytes().as_slice());
        let domain = self.address().domain();
        // What the gateway has told already, ahead of its acceptance, stays so.
        tx.write(
            "update deliveries set state = ?, holder = case when holder = ? then ? else holder end \
             where message = ? and state = ?",
        )
        .bind(i32::from(State::Requested))
        .bind(self.address().to_string())
        .bind(domain.as_str())
        .bind(id.as_bytes().as_slice())
        .bind(i32::from(State::Submitted));
        log::expect(&mut tx, id, &[ReceiptEvent::Accepted], "");
        for decision in &acceptance.decisions {
            let part = DomainDecision {
                domain: domain.to_string(),
                recipient: decision.recipient.clone(),
                decision: Some(decision.clone()),
                policy_hash: acceptance.policy_hash.clone(),
                decided_at: acceptance.accepted_at,
                unknown: None,
            };
            parts::keep(&mut tx, id, domain, &part, Keep::First).await?;
            if decision.verdict() != Verdict::Released {
                let (to, refusal) = (Some(decision.recipient.as_str()), forbidden(decision));
                end_delivery(&mut tx, id, to, State::Refused, &refusal, domain.as_str()).await?;
            }
        }
        if sent.kind == Kind::Referral {
            states::set_by_gateway(&mut tx, id, &sent.change, State::Requested, at, domain.as_str());
        }
        // Where the gateway told the end ahead of its acceptance.
        forget_envelope(&mut tx, id);
        tx.commit().await?;
        // The next of its thread may go.
        self.wake_outbox();
        Ok(())
    }

    /// Offers everything again that the gateway accepted and no recipient has signed for: the gateway may not know of it
    /// any more. Tells how many messages that are.
    pub async fn offer_again(&self) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let offered = tx
            .ask(
                "insert into outbox (seq, message, thread, expires, bytes) \
                 select m.seq, m.id, m.thread, m.expires, length(e.envelope) \
                 from envelopes e join messages m on m.id = e.message \
                 where m.id not in (select message from outbox)",
            )
            .changed()
            .await?;
        tx.commit().await?;
        self.wake_outbox();
        Ok(offered)
    }

    /// The message is refused for good.
    pub async fn refused(&self, id: Uuid, refusal: &Refusal) -> Result<(), StoreError> {
        let by = self.address().domain().to_string();
        self.end(id, State::Refused, refusal, &by).await
    }

    /// Ends what nobody took in time. What may have reached the gateway is left to the gateway's answer
    /// for as long as that remembers.
    pub async fn expire_outbox(&self, now: OffsetDateTime) -> Result<usize, StoreError> {
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(
            "select message from outbox where expires <= case when draft is null then ?2 else ?1 end",
        )
        .bind(codec::ms(now))
        .bind(codec::ms(now - REPLAY_MEMORY))
        .fetch_all(self.readers())
        .await?;
        let refusal = Refusal::new(
            ErrorCode::Expired,
            "the message expired before it could be handed to the gateway",
            "ask `liaison-agent doctor` why; then send it again",
        );
        let by = self.address().to_string();
        for id in &ids {
            self.end(codec::uuid(id)?, State::Expired, &refusal, &by).await?;
        }
        Ok(ids.len())
    }

    async fn end(&self, id: Uuid, state: State, refusal: &Refusal, by: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let Some(sent) = take(&mut tx, id).await? else { return Ok(()) };
        end_delivery(&mut tx, id, None, state, refusal, by).await?;
        forget_envelope(&mut tx, id);
        fail(&mut tx, &sent, state, refusal, OffsetDateTime::now_utc(), by).await?;
        if refusal.code() == ErrorCode::ForbiddenByPolicy {
            log::expect(&mut tx, id, &[ReceiptEvent::Refused], "");
        }
        tx.commit().await?;
        self.has_erased();
        self.wake_outbox();
        Ok(())
    }
}
