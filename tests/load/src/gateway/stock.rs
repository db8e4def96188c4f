//! Messages that are sealed, and acknowledgements that are signed, before the clock starts.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZero,
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use liaison_proto::{
    category,
    exchange::v1::{ListKeyEntriesRequest, ListReceiptsRequest},
    message::v1::{
        Acknowledgement, Audience, Facts, SignedAcknowledgement, alert_kind::Code as AlertKind,
        basis::Code as Basis, data_category::Code as Category, kind::Code as Kind, purpose::Code as Purpose,
        status::Code as Status, urgency::Code as Urgency,
    },
    times,
};
use liaison_tests::insider::Insider;
use liaison_trust::{
    digest::sha256,
    envelope::{Draft, Recipient},
    key_record::{self, ProvenKey},
    statement,
};
use prost::Message as _;
use rustix::thread::gettid;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{limits, message};

/// How long a message may be delivered, and one that nobody takes: longer than a stock is kept.
pub(super) const LIFE: Duration = Duration::from_secs(24 * 3600);
const SHORT_LIFE: Duration = Duration::from_secs(180);
/// Bytes of the messages in a mixed stock, in turns.
const LENGTHS: [usize; 4] = [1_024, message::BYTES, 2_048, 12_288];
/// One of so many messages of a mixed stock goes to the agency that never connects.
const ABSENT: usize = 32;

/// What one agency is to send.
pub(crate) type Stock = VecDeque<Sealed>;

/// A message to the next agency, and that one's word that it has it; none from one that never connects.
pub(crate) struct Sealed {
    pub(super) id: Uuid,
    /// Encoded.
    pub(super) envelope: Bytes,
    pub(super) acknowledgement: Option<SignedAcknowledgement>,
}

/// Those who send, each to the next, and an agency that never connects. With one, a stock is mixed: of messages of
/// several lengths, some of which expire.
#[derive(Clone)]
pub(crate) struct Cast {
    pub(super) agencies: Vec<Arc<Insider>>,
    pub(super) absent: Option<Arc<Insider>>,
}

/// Who gives way to whom while a stock is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Nobody: it takes all processors.
    Now,
    /// It does to all else: it takes what is left of one.
    Aside,
}

impl Cast {
    /// The first one.
    pub(crate) fn sender(&self) -> Result<Arc<Insider>> {
        self.agencies.first().cloned().context("there are no agencies")
    }

    /// Seals so many messages for each agency.
    pub(crate) async fn seal(self, each: u64, haste: Haste) -> Result<Vec<Stock>> {
        let heads = heads(&*self.sender()?).await?;
        tokio::task::spawn_blocking(move || self.in_threads(each, haste, &heads)).await?
    }

    fn in_threads(&self, each: u64, haste: Haste, heads: &[Bytes; 2]) -> Result<Vec<Stock>> {
        let threads = match haste {
            Haste::Now => std::thread::available_parallelism().map_or(1, NonZero::get),
            Haste::Aside => 1,
        };
        let pairs: Vec<_> = self.agencies.iter().zip(self.agencies.iter().cycle().skip(1)).collect();
        let part = |pairs: &[(&Arc<Insider>, &Arc<Insider>)]| -> Result<Vec<Stock>> {
            if haste == Haste::Aside {
                give_way()?;
            }
            pairs.iter().map(|(from, to)| self.stock(from, to, each, heads)).collect()
        };
        std::thread::scope(|scope| {
            let parts = pairs.chunks(pairs.len().div_ceil(threads).max(1));
            let made: Vec<_> = parts.map(|pairs| scope.spawn(move || part(pairs))).collect();
            let mut all = Vec::new();
            for made in made {
                all.extend(made.join().map_err(|_| anyhow!("sealing panicked"))??);
            }
            Ok(all)
        })
    }

    fn stock(&self, from: &Insider, to: &Insider, each: u64, heads: &[Bytes; 2]) -> Result<Stock> {
        let lengths = if self.absent.is_some() { LENGTHS.as_slice() } else { &[message::BYTES] };
        let key = key_record::prove(&to.record)?;
        let to_next = |length: &usize| referral(from, &key, *length, LIFE);
        let mut drafts: Vec<Draft> = lengths.iter().map(to_next).collect::<Result<_>>()?;
        let mut for_absent = match &self.absent {
            Some(absent) => {
                Some(referral(from, &key_record::prove(&absent.record)?, message::BYTES, SHORT_LIFE)?)
            }
            None => None,
        };
        let mut stock = Stock::new();
        for number in 0..usize::try_from(each)? {
            let for_absent = for_absent.as_mut().filter(|_| number % ABSENT == ABSENT / 2);
            let is_taken = for_absent.is_none();
            let turn = number % drafts.len();
            let draft = for_absent.or(drafts.get_mut(turn)).context("a stock has drafts")?;
            (draft.message_id, draft.thread) = (Uuid::now_v7(), Uuid::now_v7());
            let envelope = from.seal(draft)?;
            let id = draft.message_id;
            let acknowledgement = is_taken
                .then(|| acknowledgement(id, &envelope.manifest, to, key.id.into(), shown(number, heads)));
            stock.push_back(Sealed { id, envelope: envelope.encode_to_vec().into(), acknowledgement });
        }
        Ok(stock)
    }
}

/// What a recipient shows with an acknowledgement: as an agent does, each head that it holds to each sender once, of which
/// it has a new one now and then.
pub(super) fn shown(number: usize, heads: &[Bytes; 2]) -> [Bytes; 2] {
    if number.is_multiple_of(limits::HEAD_OF) { heads.clone() } else { <[Bytes; 2]>::default() }
}

/// The newest heads of the logs.
pub(crate) async fn heads(agency: &Insider) -> Result<[Bytes; 2]> {
    let mut exchange = agency.exchange().await?;
    let receipts = exchange.list_receipts(ListReceiptsRequest::default()).await?.into_inner();
    let keys = exchange.list_key_entries(ListKeyEntriesRequest::default()).await?.into_inner();
    Ok([receipts.head, keys.head].map(Bytes::from))
}

/// An alert to all of these, encoded.
pub(crate) fn alert(from: &Insider, to: &[Arc<Insider>]) -> Result<Bytes> {
    let sections = category::split(&message::alert()?)?;
    let bases: BTreeMap<_, _> = sections.keys().map(|category| (*category, Basis::PublicTask)).collect();
    let recipient = |agency: &Arc<Insider>| -> Result<Recipient> {
        Ok(Recipient { key: key_record::prove(&agency.record)?, bases: bases.clone() })
    };
    let audience = Audience { groups: vec!["network".to_owned()], ..Audience::default() };
    let draft = Draft {
        message_id: Uuid::now_v7(),
        thread: Uuid::now_v7(),
        kind: Kind::Alert,
        alert_kind: AlertKind::MissingMinor,
        facts: Some(Facts {
            purpose: Purpose::Protection.into(),
            minor: true,
            audience: Some(audience),
            ..Facts::default()
        }),
        recipients: to.iter().map(recipient).collect::<Result<_>>()?,
        ..draft(from, sections, LIFE)
    };
    Ok(from.seal(&draft)?.encode_to_vec().into())
}

/// Lets this thread run only while nobody else wants its processor, by Debian's util-linux: whoever has merely the lowest
/// priority still holds a processor for a while after another wants it.
fn give_way() -> Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let status = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status();
    ensure!(status.context("chrt does not start")?.success(), "chrt failed");
    Ok(())
}

/// A referral of so many bytes to who has this key.
fn referral(from: &Insider, key: &ProvenKey, length: usize, life: Duration) -> Result<Draft> {
    let content = message::referral_of(&key.agency.to_string(), length)?.content;
    let sections = category::split(&content.context("a referral has content")?)?;
    let bases = sections.keys().map(|category| (*category, Basis::ConsentOfPerson)).collect();
    let recipients = vec![Recipient { key: key.clone(), bases }];
    Ok(Draft { recipients, ..draft(from, sections, life) })
}

/// A referral to nobody yet.
fn draft(from: &Insider, sections: BTreeMap<Category, Vec<u8>>, life: Duration) -> Draft {
    let now = OffsetDateTime::now_utc();
    Draft {
        message_id: Uuid::nil(),
        thread: Uuid::nil(),
        sender: from.address.clone(),
        kind: Kind::Referral,
        alert_kind: AlertKind::Unspecified,
        created: now,
        expires: now + life,
        urgency: Urgency::Immediate,
        handling: None,
        status: Status::Actual,
        state_change: None,
        onward: None,
        facts: Some(Facts { purpose: Purpose::VictimSupport.into(), ..Facts::default() }),
        sections: sections.into_iter().map(|(category, part)| (category, Zeroizing::new(part))).collect(),
        recipients: Vec::new(),
    }
}

fn acknowledgement(
    id: Uuid,
    manifest: &[u8],
    recipient: &Insider,
    key_id: Bytes,
    [log_head, keys_head]: [Bytes; 2],
) -> SignedAcknowledgement {
    let acknowledgement = Acknowledgement {
        message_id: Bytes::copy_from_slice(id.as_bytes()),
        manifest_digest: sha256(manifest).into(),
        recipient: recipient.address.to_string(),
        key_id,
        received_at: Some(times::to_wire(OffsetDateTime::now_utc())),
        thread_state: None,
        log_head,
        keys_head,
    };
    statement::sign(&acknowledgement, &recipient.signing)
}
