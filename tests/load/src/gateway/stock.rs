//! Messages that are sealed, and acknowledgements that are signed, before the clock starts.

use std::{collections::VecDeque, num::NonZero, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use liaison_proto::{
    category,
    exchange::v1::{ListKeyEntriesRequest, ListReceiptsRequest},
    message::v1::{
        Acknowledgement, Facts, SignedAcknowledgement, alert_kind::Code as AlertKind, basis::Code as Basis,
        kind::Code as Kind, purpose::Code as Purpose, status::Code as Status, urgency::Code as Urgency,
    },
    times,
};
use liaison_tests::insider::Insider;
use liaison_trust::{
    digest::sha256,
    envelope::{Draft, Recipient},
    key_record, statement,
};
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::message;

/// How long a message may be delivered.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// What one agency is to send.
pub(super) type Stock = VecDeque<Sealed>;

/// A message to the next agency, and that one's word that it has it.
pub(super) struct Sealed {
    pub(super) id: Uuid,
    /// Encoded.
    pub(super) envelope: Bytes,
    pub(super) acknowledgement: SignedAcknowledgement,
}

/// Seals so many messages for each agency, on all processors.
pub(super) async fn make(agencies: &[Arc<Insider>], each: u64) -> Result<Vec<Stock>> {
    // What an honest recipient shows: the newest heads of the logs.
    let first = agencies.first().context("there are no agencies")?;
    let mut exchange = first.exchange().await?;
    let receipts = exchange.list_receipts(ListReceiptsRequest::default()).await?.into_inner();
    let keys = exchange.list_key_entries(ListKeyEntriesRequest::default()).await?.into_inner();
    let heads = [receipts.head, keys.head].map(Bytes::from);
    let pairs = agencies.iter().zip(agencies.iter().cycle().skip(1));
    let pairs: Vec<_> = pairs.map(|(from, to)| (Arc::clone(from), Arc::clone(to))).collect();
    tokio::task::spawn_blocking(move || in_parallel(&pairs, each, &heads)).await?
}

fn in_parallel(pairs: &[(Arc<Insider>, Arc<Insider>)], each: u64, heads: &[Bytes; 2]) -> Result<Vec<Stock>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let parts = pairs.chunks(pairs.len().div_ceil(threads).max(1));
        let made: Vec<_> = parts
            .map(|part| scope.spawn(|| part.iter().map(|(from, to)| stock(from, to, each, heads)).collect()))
            .collect();
        let mut all = Vec::new();
        for made in made {
            let part: Result<Vec<Stock>> = made.join().map_err(|_| anyhow!("sealing panicked"))?;
            all.extend(part?);
        }
        Ok(all)
    })
}

fn stock(from: &Insider, to: &Insider, each: u64, heads: &[Bytes; 2]) -> Result<Stock> {
    let [log_head, keys_head] = heads;
    let content = message::referral(&to.address.to_string())?.content.context("a referral has content")?;
    let sections = category::split(&content)?;
    let key = key_record::prove(&to.record)?;
    let bases = sections.keys().map(|category| (*category, Basis::ConsentOfPerson)).collect();
    let mut draft = Draft {
        message_id: Uuid::nil(),
        thread: Uuid::nil(),
        sender: from.address.clone(),
        kind: Kind::Referral,
        alert_kind: AlertKind::Unspecified,
        created: OffsetDateTime::now_utc(),
        expires: OffsetDateTime::now_utc() + LIFE,
        urgency: Urgency::Immediate,
        handling: None,
        status: Status::Actual,
        state_change: None,
        onward: None,
        facts: Some(Facts { purpose: Purpose::VictimSupport.into(), ..Facts::default() }),
        sections: sections.into_iter().map(|(category, part)| (category, Zeroizing::new(part))).collect(),
        recipients: vec![Recipient { key: key.clone(), bases }],
    };
    let one = |_| {
        (draft.message_id, draft.thread) = (Uuid::now_v7(), Uuid::now_v7());
        let envelope = from.seal(&draft)?;
        let acknowledgement = Acknowledgement {
            message_id: Bytes::copy_from_slice(draft.message_id.as_bytes()),
            manifest_digest: sha256(&envelope.manifest).into(),
            recipient: to.address.to_string(),
            key_id: key.id.into(),
            received_at: Some(times::to_wire(OffsetDateTime::now_utc())),
            thread_state: None,
            log_head: log_head.clone(),
            keys_head: keys_head.clone(),
        };
        Ok(Sealed {
            id: draft.message_id,
            envelope: envelope.encode_to_vec().into(),
            acknowledgement: statement::sign(&acknowledgement, &to.signing),
        })
    };
    (0..each).map(one).collect()
}
