//! Into the outbox.

use std::time::Duration;

use liaison_proto::message::v1::{
    OnwardRequest, RecipientDecision, Refusal, StateChange, error_code::Code as ErrorCode,
    kind::Code as Kind, referral_state::Code as State,
};
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Direction, Store, StoreError, codec, draft, writer::Change};
use crate::{
    limits,
    outbox::{Idempotency, NewMessage, Stored},
};

impl Store {
    /// Commits messages to the outbox, all or none. Answers with their ids once that is durable. `actor`
    /// is who asked, `officers` answer for vital interests; `refused` are recipients of the first message
    /// that it is not even sealed to.
    ///
    /// Refused as `idempotency_conflict` where the key was used for another request, and as `queue_full`.
    pub async fn add(
        &self,
        messages: Vec<NewMessage>,
        idempotency: Option<Idempotency>,
        actor: &str,
        officers: &[&str],
        refused: Vec<RecipientDecision>,
    ) -> Result<(Stored, Vec<Uuid>), Refusal> {
        // Sealed before the one writer is taken.
        let drafts: Vec<_> = messages
            .into_iter()
            .map(|message| {
                let draft = message.sealed.is_none().then(|| {
                    let NewMessage { id, facts, sections, recipients, .. } = &message;
                    draft::seal(self.vault(), *id, facts.clone(), sections, recipients)
                });
                (message, draft)
            })
            .collect();
        let now = OffsetDateTime::now_utc();
        let mut tx = self.begin().await?;
        if let Some(idempotency) = &idempotency {
            let known = tx.ask(REPEATED).bind(&idempotency.key).first().await.map_err(StoreError::from)?;
            if let Some(ids) = repeated(idempotency, known)? {
                tx.commit().await?;
                return Ok((Stored::Again, ids));
            }
        }
        has_room(&mut tx, &drafts).await?;
        let ids: Vec<Uuid> = drafts.iter().map(|(message, _)| message.id).collect();
        for (message, draft) in &drafts {
            // One after another, however many there are.
            tx.flush().await.map_err(StoreError::from)?;
            insert(&mut tx, self.address().to_string(), message, draft.as_deref());
            audit(&mut tx, now, actor, "send", message.id);
            if let Some(received) = message.onward_of {
                audit(&mut tx, now, actor, "refer_onward", received);
            }
            for officer in officers {
                audit(&mut tx, now, officer, "vital_interest", message.id);
            }
        }
        if let Some(first) = ids.first() {
            for decision in refused {
                insert_refused(&mut tx, *first, decision, self.address().domain().as_str());
            }
        }
        if let Some(idempotency) = idempotency {
            remember(&mut tx, &idempotency, &ids, now);
        }
        tx.commit().await?;
        self.wake_outbox();
        Ok((Stored::New, ids))
    }

    /// The ids that this very request gave before.
    ///
    /// Refused as `idempotency_conflict` where the key was used for another request.
    pub async fn repeated(&self, idempotency: &Idempotency) -> Result<Option<Vec<Uuid>>, Refusal> {
        let known = sqlx::query_as(REPEATED).bind(&idempotency.key).fetch_optional(self.readers()).await;
        repeated(idempotency, known.map_err(StoreError::from)?)
    }

    /// Notes that somebody did something with a message.
    pub async fn audit(&self, actor: &str, action: &'static str, message: Uuid) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        audit(&mut tx, OffsetDateTime::now_utc(), actor, action, message);
        tx.commit().await
    }
}

#[cfg(test)]
impl Store {
    /// Who did what with a message, in order.
    pub(crate) async fn audited(&self, message: Uuid) -> Vec<(String, String)> {
        sqlx::query_as("select actor, action from audit where message = ? order by seq")
            .bind(message.as_bytes().as_slice())
            .fetch_all(self.readers())
            .await
            .unwrap()
    }
}

/// Finds a request by its key: its digest, and the ids that it gave.
const REPEATED: &str = "select digest, messages from idempotency where key = ?";

/// The ids that the request known by the same key gave, if it is the same.
fn repeated(
    idempotency: &Idempotency,
    known: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<Option<Vec<Uuid>>, Refusal> {
    let Some((digest, ids)) = known else { return Ok(None) };
    if digest != idempotency.digest.as_bytes() {
        return Err(Refusal::new(
            ErrorCode::IdempotencyConflict,
            "this idempotency key was used for another request",
            "use a new key for a new request, and the same key only to repeat the same request",
        ));
    }
    Ok(Some(ids.chunks(16).map(codec::uuid).collect::<Result<_, _>>()?))
}

fn remember(tx: &mut Change, idempotency: &Idempotency, ids: &[Uuid], now: OffsetDateTime) {
    let ids: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
    tx.write("insert into idempotency (key, digest, messages, at) values (?, ?, ?, ?)")
        .bind(&idempotency.key)
        .bind(idempotency.digest.as_bytes().as_slice())
        .bind(ids)
        .bind(codec::ms(now));
}

async fn has_room(tx: &mut Change, drafts: &[(NewMessage, Option<Vec<u8>>)]) -> Result<(), Refusal> {
    let there = tx.ask("select count(*), coalesce(sum(bytes), 0) from outbox").first().await;
    let (count, bytes): (i64, i64) = there.map_err(StoreError::from)?.unwrap_or_default();
    let more = i64::try_from(drafts.len()).unwrap_or(i64::MAX);
    let more_bytes: i64 = drafts.iter().map(|(message, draft)| length(message, draft.as_deref())).sum();
    if count.saturating_add(more) <= limits::OUTBOX_MESSAGES
        && bytes.saturating_add(more_bytes) <= limits::OUTBOX_BYTES
    {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::QueueFull,
        format!("this agent's outbox is full: {count} messages wait for the gateway"),
        "ask `liaison-agent doctor` why the gateway does not take them; send again when it does",
    )
    .retry_after(Duration::from_secs(30)))
}

/// What a message adds to the outbox, bytes.
fn length(message: &NewMessage, draft: Option<&[u8]>) -> i64 {
    let envelope = message.sealed.as_ref().map(|sealed| sealed.envelope.as_ref());
    codec::length(draft.or(envelope).unwrap_or_default())
}

/// A message of this agency's own, with its draft where it was not sealed yet.
pub(super) fn insert(tx: &mut Change, sender: String, message: &NewMessage, draft: Option<&[u8]>) {
    let change = match message.kind {
        Kind::Referral => StateChange { state: State::Submitted.into(), reason: 0, outcome: 0 },
        _ => message.state_change.unwrap_or_default(),
    };
    let id = message.id.as_bytes().as_slice();
    tx.write(
        "insert into messages (id, thread, direction, kind, alert_kind, sender, urgency, handling, status, \
         created, expires, change, categories, onward, onward_of, digest) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(message.thread.as_bytes().as_slice())
    .bind(Direction::Sent.column())
    .bind(i32::from(message.kind))
    .bind(i32::from(message.alert_kind))
    .bind(&sender)
    .bind(i32::from(message.urgency))
    .bind(message.handling.map(|handling| handling.encode_to_vec()))
    .bind(i32::from(message.status))
    .bind(codec::ms(message.created))
    .bind(codec::ms(message.expires))
    .bind(change.encode_to_vec())
    .bind(codec::categories(message.sections.keys()))
    .bind(message.onward.as_ref().map(OnwardRequest::encode_to_vec))
    .bind(message.onward_of.map(|id| id.as_bytes().to_vec()))
    .bind(message.sealed.as_ref().map(|sealed| sealed.digest.as_bytes().to_vec()));
    tx.write(
        "insert into outbox (seq, message, thread, expires, bytes, draft) \
         values (last_insert_rowid(), ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(message.thread.as_bytes().as_slice())
    .bind(codec::ms(message.expires))
    .bind(length(message, draft))
    .bind(draft);
    if let Some(sealed) = &message.sealed {
        insert_envelope(tx, message.id, &sealed.envelope);
    }
    if !message.recipients.is_empty() {
        // One statement: an alert may have thousands of recipients.
        tx.write("insert into deliveries (message, agency, state, holder) values ").rows(
            &message.recipients,
            |row, (agency, _)| {
                row.bind(id).bind(agency.to_string()).bind(i32::from(State::Submitted)).bind(&sender);
            },
        );
    }
    if message.kind == Kind::Referral {
        note(tx, message.id, &change, message.created, &sender);
    }
}

pub(super) fn insert_envelope(tx: &mut Change, id: Uuid, envelope: &[u8]) {
    tx.write("insert into envelopes (message, envelope) values (?, ?)")
        .bind(id.as_bytes().as_slice())
        .bind(envelope);
}

fn insert_refused(tx: &mut Change, id: Uuid, decision: RecipientDecision, by: &str) {
    let refusal = forbidden(&decision);
    tx.write(
        "insert into deliveries (message, agency, state, decision, refusal, holder) values (?, ?, ?, ?, ?, ?) \
         on conflict do nothing",
    )
    .bind(id.as_bytes().as_slice())
    .bind(&decision.recipient)
    .bind(i32::from(State::Refused))
    .bind(decision.encode_to_vec())
    .bind(refusal.encode_to_vec())
    .bind(by);
}

/// What a decision against a recipient says to the sender.
pub(super) fn forbidden(decision: &RecipientDecision) -> Refusal {
    let refusal = Refusal::new(
        ErrorCode::ForbiddenByPolicy,
        format!("policy keeps this message from {}", decision.recipient),
        "read the rule; ask its owner, or send by another way that it permits",
    );
    match &decision.rule {
        Some(rule) => refusal.by_rule(rule.clone()),
        None => refusal,
    }
}

/// A step in a referral's history.
pub(super) fn note(tx: &mut Change, id: Uuid, change: &StateChange, at: OffsetDateTime, by: &str) {
    tx.write("insert into history (message, change, at, by) values (?, ?, ?, ?)")
        .bind(id.as_bytes().as_slice())
        .bind(change.encode_to_vec())
        .bind(codec::ms(at))
        .bind(by);
}

pub(super) fn audit(tx: &mut Change, at: OffsetDateTime, actor: &str, action: &str, message: Uuid) {
    tx.write("insert into audit (at, actor, action, message) values (?, ?, ?, ?)")
        .bind(codec::ms(at))
        .bind(actor)
        .bind(action)
        .bind(message.as_bytes().as_slice());
}

/// A moment to the millisecond, as everything here is kept.
pub(super) fn to_ms(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_millisecond(at.millisecond()).unwrap_or(at)
}
