//! Messages that a gateway has behind it: put into its database as it would have itself, had it accepted each, handed it
//! over and been told that its recipient has it. What each row says is what the gateway said of a message that went that
//! way; ids, times, salts and signatures are each message's own.

use std::{num::NonZero, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use liaison_gateway::{
    data::{DataFolder, read_secret},
    log::Logs,
    store::{Company, LogKind, NewLeaf, QueueBound, Staged, Stager, Store},
};
use liaison_proto::{
    log::v1::{Record, outcome::Event as What, record::Event},
    message::v1::{Acceptance, Acknowledgement, SignedAcceptance},
    times,
};
use liaison_tests::insider::Insider;
use liaison_trust::{digest::sha256, keys::SigningKey, statement};
use prost::Message as _;
use sqlx::{Connection as _, QueryBuilder, SqliteConnection};
use time::OffsetDateTime;
use uuid::{Builder, Uuid};

use super::{
    Cast,
    stock::{LIFE, shown},
};
use crate::limits;

/// The log of evidence in a database that never was restored.
const LOG: i64 = 1;

/// What the gateway said of one message of a sender.
struct Template {
    sender: String,
    recipient: Arc<Insider>,
    acceptance: Acceptance,
    /// Accepted, handed over, acknowledged.
    events: Vec<Event>,
    /// Of its thread: who asked, who answers, and its status.
    parties: (String, String, i64),
}

/// Makes rows, on whichever thread.
struct Seeder {
    templates: Vec<Template>,
    gateway: SigningKey,
    stager: Stager,
    /// The first number of a message, and index of a leaf.
    first: (i64, u64),
    /// When the first and the last message were accepted.
    times: (OffsetDateTime, OffsetDateTime),
    messages: u64,
}

/// The rows of one message.
struct Rows {
    id: Uuid,
    thread: Uuid,
    template: usize,
    seq: i64,
    digest: Bytes,
    expires: OffsetDateTime,
    acceptance: SignedAcceptance,
    leaves: Vec<(u64, NewLeaf)>,
}

/// Puts so many messages into the database of a gateway of `be` that does not run and has carried some already.
pub(super) async fn seed(folder: &Path, cast: &Cast, messages: u64) -> Result<()> {
    let data = DataFolder::new(folder.to_owned());
    let mut seed = [0; 32];
    hex::decode_to_slice(read_secret(&data.signing_key())?.trim_end(), &mut seed)?;
    let gateway = SigningKey::from_seed(&seed);
    let file = data.database();
    let mut database = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await?;
    // Whoever seeds can begin anew; no journal takes the place of all of it once more.
    for pragma in ["journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"]
    {
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"))).execute(&mut database).await?;
    }
    let templates = templates(&mut database, cast).await?;
    let (seq, index): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT MAX(seq) + 1 FROM message), (SELECT MAX(idx) + 1 FROM leaf WHERE log = 1)",
    )
    .fetch_one(&mut database)
    .await?;
    let now = OffsetDateTime::now_utc();
    let seeder = Arc::new(Seeder {
        templates,
        stager: Stager::new(&gateway),
        gateway: SigningKey::from_seed(&seed),
        first: (seq, index.unsigned_abs()),
        times: (now - limits::SEEDED_DURING, now),
        messages,
    });
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let made = stream::iter((0..messages).step_by(limits::SEEDED_AT_ONCE)).map(|from| {
        let seeder = Arc::clone(&seeder);
        tokio::task::spawn_blocking(move || {
            let until = seeder.messages.min(from + limits::SEEDED_AT_ONCE as u64);
            (from..until).map(|number| seeder.rows(number)).collect::<Result<Vec<_>>>()
        })
    });
    let mut made = made.buffered(threads + 1);
    let mut change = database.begin().await?;
    let (mut done, mut told) = (0, 0);
    while let Some(rows) = made.try_next().await? {
        let rows = rows?;
        done += rows.len() as u64;
        if done * 20 / messages > told {
            told = done * 20 / messages;
            eprintln!("{done} messages of {messages}");
        }
        seeder.insert(&mut change, &rows).await?;
    }
    change.commit().await?;
    database.close().await?;
    eprintln!("growing the log");
    let store = Store::open(&file.into(), Company::None, QueueBound::default(), &gateway).await?;
    let logs = Logs::open(&store, &"be".parse()?, &gateway, folder).await?;
    logs.evidence.grow().await?;
    store.close().await;
    Ok(())
}

/// One message of each sender that was acknowledged.
async fn templates(database: &mut SqliteConnection, cast: &Cast) -> Result<Vec<Template>> {
    let mut templates = Vec::new();
    for sender in &cast.agencies {
        let sender = sender.address.to_string();
        let (id, acceptance): (Vec<u8>, Vec<u8>) =
            sqlx::query_as("SELECT id, acceptance FROM message WHERE sender = ? ORDER BY seq LIMIT 1")
                .bind(&sender)
                .fetch_one(&mut *database)
                .await?;
        let leaves: Vec<(Vec<u8>, Option<Vec<u8>>)> =
            sqlx::query_as("SELECT record, thread FROM leaf WHERE message = ? ORDER BY idx")
                .bind(id)
                .fetch_all(&mut *database)
                .await?;
        let event = |(record, _): &(Vec<u8>, _)| {
            Record::decode(record.as_slice())?.event.context("a record says nothing")
        };
        let events: Vec<Event> = leaves.iter().map(event).collect::<Result<_>>()?;
        let [Event::Accepted(_), Event::HandedOver(_), Event::Outcome(outcome)] = events.as_slice() else {
            anyhow::bail!("a message of {sender} was not acknowledged");
        };
        let recipient = cast.agencies.iter().find(|agency| agency.address.to_string() == outcome.recipient);
        let recipient = Arc::clone(recipient.context("a recipient is not of the cast")?);
        let thread = leaves.iter().find_map(|(_, thread)| thread.clone());
        let parties = sqlx::query_as("SELECT requester, responder, status FROM thread WHERE thread = ?")
            .bind(thread)
            .fetch_one(&mut *database)
            .await?;
        let signed = SignedAcceptance::decode(acceptance.as_slice())?;
        let acceptance = Acceptance::decode(signed.acceptance)?;
        templates.push(Template { sender, recipient, acceptance, events, parties });
    }
    ensure!(!templates.is_empty(), "nothing was sent yet");
    Ok(templates)
}

impl Seeder {
    /// The message of a number, counted from 0.
    fn rows(&self, number: u64) -> Result<Rows> {
        let place = (number % self.templates.len() as u64) as usize;
        let template = self.templates.get(place).context("there is no such template")?;
        let (from, until) = self.times;
        let at = from + (until - from) * (number as f64 / self.messages as f64);
        let ids = sha256(&number.to_be_bytes());
        let (id, thread) = ids.as_bytes().split_at(16);
        let (id, thread) = (id_at(at, id)?, id_at(at, thread)?);
        let digest = Bytes::from(sha256(id.as_bytes()));
        let (message_id, thread_id) = (raw(id), raw(thread));
        let mut acceptance = template.acceptance.clone();
        (acceptance.message_id, acceptance.manifest_digest) = (message_id.clone(), digest.clone());
        acceptance.accepted_at = Some(times::to_wire(at));
        let mut leaves = Vec::new();
        let (seq, index) = self.first;
        let count = template.events.len() as u64;
        for (index, event) in (index + number * count..).zip(&template.events) {
            let mut event = event.clone();
            let (its_id, its_digest) = match &mut event {
                Event::Accepted(event) => {
                    event.thread = thread_id.clone();
                    (&mut event.message_id, &mut event.manifest_digest)
                }
                Event::HandedOver(event) => (&mut event.message_id, &mut event.manifest_digest),
                Event::Outcome(event) => {
                    if let Some(What::Acknowledged(signed)) = &mut event.event {
                        let mut word = Acknowledgement::decode(signed.acknowledgement.clone())?;
                        (word.message_id, word.manifest_digest) = (message_id.clone(), digest.clone());
                        word.received_at = Some(times::to_wire(at));
                        let heads = [word.log_head, word.keys_head];
                        [word.log_head, word.keys_head] = shown(usize::try_from(number)?, &heads);
                        *signed = statement::sign(&word, &template.recipient.signing);
                    }
                    (&mut event.message_id, &mut event.manifest_digest)
                }
                _ => anyhow::bail!("a template has other events"),
            };
            (*its_id, *its_digest) = (message_id.clone(), digest.clone());
            leaves.push((index, NewLeaf::new(event, at)?));
        }
        Ok(Rows {
            id,
            thread,
            template: place,
            seq: seq + i64::try_from(number)?,
            digest,
            expires: at + LIFE,
            acceptance: statement::sign(&acceptance, &self.gateway),
            leaves,
        })
    }

    async fn insert(&self, database: &mut SqliteConnection, rows: &[Rows]) -> Result<()> {
        let template = |row: &Rows| self.templates.get(row.template).context("there is no such template");
        let mut insert =
            QueryBuilder::new("INSERT INTO message (seq, sender, id, digest, expires, acceptance) ");
        let with: Vec<_> = rows.iter().map(|row| Ok((row, template(row)?))).collect::<Result<_>>()?;
        insert.push_values(&with, |mut values, (row, template)| {
            values
                .push_bind(row.seq)
                .push_bind(&template.sender)
                .push_bind(row.id.as_bytes().as_slice())
                .push_bind(row.digest.as_ref())
                .push_bind((row.expires.unix_timestamp_nanos() / 1_000_000) as i64)
                .push_bind(row.acceptance.encode_to_vec());
        });
        insert.build().execute(&mut *database).await?;
        let mut insert = QueryBuilder::new("INSERT INTO thread (thread, requester, responder, status) ");
        insert.push_values(&with, |mut values, (row, template)| {
            let (requester, responder, status) = &template.parties;
            values
                .push_bind(row.thread.as_bytes().as_slice())
                .push_bind(requester)
                .push_bind(responder)
                .push_bind(*status);
        });
        insert.build().execute(&mut *database).await?;
        let mut insert = QueryBuilder::new(
            "INSERT INTO leaf (log, idx, entry, salt, record, message, thread, readers, mac) ",
        );
        insert.push_values(rows.iter().flat_map(|row| &row.leaves), |mut values, (index, leaf)| {
            let entry = leaf.record.entry();
            let readers: Vec<String> = leaf.about.readers.iter().map(ToString::to_string).collect();
            let staged = Staged {
                log: (LogKind::Evidence, 1),
                index: *index,
                entry: entry.as_bytes(),
                message: leaf.about.message.as_ref().map(|id| id.as_bytes().as_slice()),
                thread: leaf.about.thread.as_ref().map(|id| id.as_bytes().as_slice()),
            };
            values
                .push_bind(LOG)
                .push_bind(*index as i64)
                .push_bind(entry.as_bytes().to_vec())
                .push_bind(leaf.record.salt().as_slice())
                .push_bind(leaf.record.record())
                .push_bind(staged.message)
                .push_bind(staged.thread)
                .push_bind(readers.join(" "))
                .push_bind(self.stager.mac(staged).to_vec());
        });
        insert.build().execute(&mut *database).await?;
        Ok(())
    }
}

/// An id of that moment, with some of these bytes.
fn id_at(at: OffsetDateTime, random: &[u8]) -> Result<Uuid> {
    let random = random.first_chunk().context("too few bytes")?;
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000)?;
    Ok(Builder::from_unix_timestamp_millis(millis, random).into_uuid())
}

fn raw(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}
