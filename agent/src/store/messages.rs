//! Messages as they are read back.

use liaison_proto::message::v1::{
    DomainDecision, Handling, RecipientDecision, Refusal, ReleaseRecord, ReleasedSection,
    SignedReleaseRecord, StateChange, alert_kind::Code as AlertKind, data_category::Code as Category,
    kind::Code as Kind, referral_state::Code as State, status::Code as Status, urgency::Code as Urgency,
};
use liaison_trust::{digest::Digest, envelope, names::AgencyAddress};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Store, StoreError, codec, parts,
    receive::LocalKey,
    statements::{Gave, Statements},
};

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

/// A referral or an alert, without its sections.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: Uuid,
    pub thread: Uuid,
    pub direction: Direction,
    pub kind: Kind,
    pub alert_kind: AlertKind,
    pub from: AgencyAddress,
    pub urgency: Urgency,
    pub handling: Option<Handling>,
    pub status: Status,
    pub created: OffsetDateTime,
    pub expires: OffsetDateTime,
    /// The policy set that decided, once one has.
    pub policy_hash: Option<Digest>,
    /// Sent: why it failed, or why the last change of its state did.
    pub refusal: Option<Refusal>,
    /// Sent: one for each recipient. Received: this agency alone.
    pub deliveries: Vec<DeliveryState>,
    /// Where a referral stands, with its reason or outcome; of an alert the state is `unspecified`.
    pub state: StateChange,
    /// A cancellation was sent and the recipient has not answered it yet.
    pub cancel_pending: bool,
    /// Sent: the data categories that it holds.
    pub categories: Vec<Category>,
    /// Of a referral, oldest first.
    pub history: Vec<StateEvent>,
    /// Of a referral that was referred onward: the received one.
    pub onward_of: Option<Uuid>,
}

/// Where a message stands at one recipient.
#[derive(Debug, Clone)]
pub struct DeliveryState {
    pub agency: AgencyAddress,
    /// submitted, requested, received, refused or expired.
    pub state: State,
    /// What was decided; towards another domain, what both say together.
    pub decision: Option<RecipientDecision>,
    pub refusal: Option<Refusal>,
    /// Towards another domain: each domain's part that is known, this agency's domain first. While the copy
    /// waits on its way there, the other's tells why.
    pub parts: Vec<DomainDecision>,
    /// Sent: the agency or the domain that holds it now, or that ended it.
    pub holder: String,
}

/// A change of a referral's state.
#[derive(Debug, Clone, PartialEq)]
pub struct StateEvent {
    pub change: StateChange,
    pub at: OffsetDateTime,
    /// The agency or the domain that set it.
    pub by: String,
}

/// A received section, opened.
pub struct StoredSection {
    pub category: Category,
    pub plaintext: Zeroizing<Vec<u8>>,
    pub release: ReleasedSection,
    /// When it is erased here.
    pub retain_until: OffsetDateTime,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Messages that the gateway has not accepted yet.
    pub outbox: u64,
    pub received_referrals: u64,
    pub received_alerts: u64,
}

impl Direction {
    pub(super) fn column(self) -> i32 {
        match self {
            Self::Sent => 1,
            Self::Received => 2,
        }
    }

    pub(super) fn from_column(column: i64) -> Result<Self, StoreError> {
        match column {
            1 => Ok(Self::Sent),
            2 => Ok(Self::Received),
            _ => Err(StoreError::Damaged("direction")),
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Vec<u8>,
    thread: Vec<u8>,
    direction: i64,
    kind: i64,
    alert_kind: i64,
    sender: String,
    urgency: i64,
    handling: Option<Vec<u8>>,
    status: i64,
    created: i64,
    expires: i64,
    policy_hash: Option<Vec<u8>>,
    refusal: Option<Vec<u8>>,
    change: Vec<u8>,
    categories: Vec<u8>,
    cancel_pending: bool,
    onward_of: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    agency: String,
    state: i64,
    decision: Option<Vec<u8>>,
    refusal: Option<Vec<u8>>,
    own_part: Option<Vec<u8>>,
    other_part: Option<Vec<u8>>,
    holder: String,
}

impl Store {
    /// A message by its id.
    pub async fn message(&self, id: Uuid) -> Result<Option<Message>, StoreError> {
        let id = id.as_bytes().as_slice();
        let mut find = Statements::default();
        find.add(
            "select id, thread, direction, kind, alert_kind, sender, urgency, handling, status, created, expires, \
             policy_hash, refusal, change, categories, cancel_pending, onward_of from messages where id = ?",
        )
        .bind(id);
        find_rest(&mut find, id);
        let mut gave = find.run(self.readers()).await?.into_iter();
        match gave.next().unwrap_or_default().first()? {
            Some(row) => Ok(Some(message(row, gave)?)),
            None => Ok(None),
        }
    }

    /// Messages of a kind, newest first, behind the message `after`.
    pub async fn messages(
        &self,
        kind: Kind,
        direction: Option<Direction>,
        status: Status,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "select * from messages where kind = ?1 and status = ?2 and (?3 is null or direction = ?3) \
             and (?4 is null or seq < (select seq from messages where id = ?4)) order by seq desc limit ?5",
        )
        .bind(i32::from(kind))
        .bind(i32::from(status))
        .bind(direction.map(Direction::column))
        .bind(after.map(|id| id.as_bytes().to_vec()))
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        let mut messages = Vec::with_capacity(rows.len());
        for row in rows {
            let mut find = Statements::default();
            find_rest(&mut find, &row.id);
            let gave = find.run(self.readers()).await?;
            messages.push(message(row, gave.into_iter())?);
        }
        Ok(messages)
    }

    /// What a received message holds: what the gateway released of it, and the sections that were not erased yet,
    /// opened. None where none was received.
    pub async fn content(&self, id: Uuid) -> Result<Option<(ReleaseRecord, Vec<StoredSection>)>, StoreError> {
        let mut find = Statements::default();
        find.add("select sender, evidence, local_key from messages where id = ? and direction = ?")
            .bind(id.as_bytes().as_slice())
            .bind(Direction::Received.column());
        find.add(
            "select position, category, retain_until, wrapped_key, released_section, sealed_section \
             from sections where message = ? and retain_until > ? order by category, position",
        )
        .bind(id.as_bytes().as_slice())
        .bind(codec::ms(OffsetDateTime::now_utc()));
        let mut gave = find.run(self.readers()).await?.into_iter();
        let found: Option<(String, Option<Vec<u8>>, Option<Vec<u8>>)> =
            gave.next().unwrap_or_default().first()?;
        let Some((sender, Some(evidence), local_key)) = found else { return Ok(None) };
        let signed: SignedReleaseRecord = codec::message(&evidence)?;
        let release = codec::message(&signed.record)?;
        let Some(local_key) = local_key else { return Ok(Some((release, Vec::new()))) };
        let sender = codec::address(&sender)?;
        let keys = LocalKey::open(self.vault(), id, &local_key)?;
        let rows: Vec<(i64, i64, i64, Vec<u8>, Vec<u8>, Vec<u8>)> = gave.next().unwrap_or_default().all()?;
        let sections = rows
            .into_iter()
            .map(|(position, category, retain_until, wrapped, released, sealed)| {
                let key = keys.unwrap(position, &wrapped)?;
                let plaintext = envelope::open(&id, &sender, &codec::message(&sealed)?, &key)
                    .map_err(|_| StoreError::Damaged("section"))?;
                Ok(StoredSection {
                    category: codec::code(category)?,
                    plaintext,
                    release: codec::message(&released)?,
                    retain_until: codec::time(retain_until)?,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Some((release, sections)))
    }

    /// How much there is.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let (outbox, referrals, alerts): (i64, i64, i64) = sqlx::query_as(
            "select (select count(*) from outbox), \
             (select count(*) from messages where kind = ?1 and direction = ?3), \
             (select count(*) from messages where kind = ?2 and direction = ?3)",
        )
        .bind(i32::from(Kind::Referral))
        .bind(i32::from(Kind::Alert))
        .bind(Direction::Received.column())
        .fetch_one(self.readers())
        .await?;
        Ok(Counts {
            outbox: outbox.unsigned_abs(),
            received_referrals: referrals.unsigned_abs(),
            received_alerts: alerts.unsigned_abs(),
        })
    }
}

/// Finds a message's deliveries and its history.
fn find_rest(find: &mut Statements, id: &[u8]) {
    find.add(
        "select agency, state, decision, refusal, own_part, other_part, holder from deliveries \
         where message = ? order by agency",
    )
    .bind(id);
    find.add("select change, at, by from history where message = ? order by seq").bind(id);
}

/// A message with its deliveries and its history.
fn message(row: Row, mut rest: impl Iterator<Item = Gave>) -> Result<Message, StoreError> {
    let deliveries: Vec<DeliveryRow> = rest.next().unwrap_or_default().all()?;
    let history: Vec<(Vec<u8>, i64, String)> = rest.next().unwrap_or_default().all()?;
    let event = |(change, at, by): (Vec<u8>, i64, String)| {
        Ok(StateEvent { change: codec::message(&change)?, at: codec::time(at)?, by })
    };
    Ok(Message {
        id: codec::uuid(&row.id)?,
        thread: codec::uuid(&row.thread)?,
        direction: Direction::from_column(row.direction)?,
        kind: codec::code(row.kind)?,
        alert_kind: codec::code(row.alert_kind)?,
        from: codec::address(&row.sender)?,
        urgency: codec::code(row.urgency)?,
        handling: codec::some_message(row.handling.as_deref())?,
        status: codec::code(row.status)?,
        created: codec::time(row.created)?,
        expires: codec::time(row.expires)?,
        policy_hash: row.policy_hash.as_deref().map(codec::digest).transpose()?,
        refusal: codec::some_message(row.refusal.as_deref())?,
        deliveries: deliveries.into_iter().map(delivery).collect::<Result<_, StoreError>>()?,
        state: codec::message(&row.change)?,
        cancel_pending: row.cancel_pending,
        categories: codec::categories_of(&row.categories)?,
        history: history.into_iter().map(event).collect::<Result<_, StoreError>>()?,
        onward_of: row.onward_of.as_deref().map(codec::uuid).transpose()?,
    })
}

fn delivery(row: DeliveryRow) -> Result<DeliveryState, StoreError> {
    let state = codec::code(row.state)?;
    let parts = [row.own_part, row.other_part].into_iter().flatten().map(|part| codec::message(&part));
    let parts = parts.filter(|part| part.as_ref().map_or(true, |part| parts::is_told(part, state)));
    Ok(DeliveryState {
        agency: codec::address(&row.agency)?,
        state,
        decision: codec::some_message(row.decision.as_deref())?,
        refusal: codec::some_message(row.refusal.as_deref())?,
        parts: parts.collect::<Result<_, _>>()?,
        holder: row.holder,
    })
}
