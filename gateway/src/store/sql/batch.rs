//! One transaction: many changes in few statements, for a statement costs more than a row.

use std::collections::{BTreeMap, HashMap, HashSet};

use liaison_proto::message::v1::SignedNotice;
use liaison_trust::names::AgencyAddress;
use prost::Message;
use tokio::sync::oneshot;
use tracing::error;

use super::{
    account::{self, Account, Next},
    columns::{millis, number},
    forwarded::{self, Ended},
    known::{Before, extend, known_messages, known_threads},
    view::View,
    writer::{Job, Word},
};
use crate::store::{
    AcceptError, Accepted, Change, DeliveryId, Item, Load, NewCopy, NewLeaf, NewMessage, NewNotice, Queue,
    QueueBound, Queued, Settled, Settlement, Stager, StoreError, Thread,
    engine::{Pool, Transaction, Value, query, row},
    recent::{self, Added, Recent},
};

/// Commits batches, one after another.
pub(super) struct Batches {
    pool: Pool,
    stager: Stager,
    account: Account,
    recent: Recent,
    view: View,
    bound: QueueBound,
}

pub(super) type Accepts = Vec<(Box<NewMessage>, oneshot::Sender<Result<Accepted, AcceptError>>)>;
pub(super) type Changes = Vec<(Box<Change>, oneshot::Sender<Result<bool, StoreError>>)>;
type Words = Vec<(Word, oneshot::Sender<Result<(), StoreError>>)>;
type Settlements = Vec<(Box<Settlement>, oneshot::Sender<Result<Settled, StoreError>>)>;

/// What became of the parts of a batch, in their order.
struct Outcomes {
    accepted: Vec<Result<Accepted, AcceptError>>,
    changed: Vec<Result<bool, StoreError>>,
    settled: Vec<Settled>,
}

impl Batches {
    pub(super) fn new(
        pool: Pool,
        stager: Stager,
        account: Account,
        (recent, view): (Recent, View),
        bound: QueueBound,
    ) -> Self {
        Self { pool, stager, account, recent, view, bound }
    }

    /// Commits a batch and answers each of its changes.
    pub(super) async fn commit(&mut self, batch: Vec<Job>) {
        let mut accepts = Accepts::new();
        let mut changes = Changes::new();
        let mut settlements = Settlements::new();
        let mut words = Words::new();
        for job in batch {
            match job {
                Job::Accept(message, answer) => accepts.push((message, answer)),
                Job::Change(change, answer) => changes.push((change, answer)),
                Job::Settle(settlement, answer) => settlements.push((settlement, answer)),
                Job::Say(word, answer) => words.push((word, answer)),
            }
        }
        // An answer that nobody waits for any more is no fault: the change is durable all the same.
        match self.write(&accepts, &changes, &settlements, &words).await {
            Ok(Outcomes { accepted, changed, settled }) => {
                for ((_, answer), outcome) in accepts.into_iter().zip(accepted) {
                    let _ = answer.send(outcome);
                }
                for ((_, answer), outcome) in changes.into_iter().zip(changed) {
                    let _ = answer.send(outcome);
                }
                for ((_, answer), outcome) in settlements.into_iter().zip(settled) {
                    let _ = answer.send(Ok(outcome));
                }
                for (_, answer) in words {
                    let _ = answer.send(Ok(()));
                }
            }
            Err(fault) => {
                error!(error = &fault as &dyn std::error::Error, "a batch was not committed");
                for (_, answer) in accepts {
                    let _ = answer.send(Err(StoreError::NotCommitted.into()));
                }
                for (_, answer) in changes {
                    let _ = answer.send(Err(StoreError::NotCommitted));
                }
                for (_, answer) in settlements {
                    let _ = answer.send(Err(StoreError::NotCommitted));
                }
                for (_, answer) in words {
                    let _ = answer.send(Err(StoreError::NotCommitted));
                }
            }
        }
    }

    async fn write(
        &mut self,
        accepts: &Accepts,
        changes: &Changes,
        settlements: &Settlements,
        words: &Words,
    ) -> Result<Outcomes, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let copies = accepts.iter().flat_map(|(message, _)| &message.copies);
        let filled: HashSet<_> = copies.flat_map(|copy| [&copy.queue, &copy.answers]).collect();
        let state = self.account.begin(&mut transaction, filled).await?;
        self.view.is_behind(state);
        let mut rows = Rows::new(self, state);
        let changed = rows.change(&mut transaction, changes).await?;
        let settled = rows.settle(&mut transaction, settlements).await?;
        let accepted = rows.accept(&mut transaction, accepts).await?;
        for (word, _) in words {
            match word {
                Word::Leaf(leaf) => rows.leaves.push(leaf),
                Word::Notice(notice) => rows.add_notice(Some(notice)),
            }
        }
        // Before what is new, which takes the place on the disk of what goes: it is overwritten without being written
        // as zeros before.
        rows.forget_contents(&mut transaction).await?;
        rows.insert(&mut transaction).await?;
        let recent = rows.recent();
        let Rows { queues, next, gone, narrowed, .. } = rows;
        transaction.tell_queues(queues.keys()).await?;
        let loads = self.account.end(&mut transaction, next, queues).await?;
        transaction.commit().await?;
        self.recent.add(recent);
        self.recent.forget(gone.into_iter().chain(narrowed));
        self.account.loads.set(loads);
        self.account.next = next;
        Ok(Outcomes { accepted, changed, settled })
    }
}

/// What a batch is going to write, and the account of queues and numbers as it will stand then.
pub(super) struct Rows<'a> {
    batches: &'a Batches,
    /// How often the domain's state has changed.
    pub(super) state: u64,
    /// By how much each queue changes.
    queues: account::Changes,
    next: Next,
    messages: Vec<(i64, &'a NewMessage)>,
    /// Messages that were accepted before, and are now for more recipients.
    extended: Vec<(i64, &'a NewMessage)>,
    threads: Vec<&'a Thread>,
    deliveries: Vec<Delivery<'a>>,
    pub(super) leaves: Vec<&'a NewLeaf>,
    /// Messages that lost a delivery, and perhaps their last.
    pub(super) touched: Vec<i64>,
    /// Deliveries that have ended, and those that are not any more what they were.
    pub(super) gone: Vec<DeliveryId>,
    pub(super) narrowed: Vec<DeliveryId>,
}

/// A row of the table of deliveries.
struct Delivery<'a> {
    seq: i64,
    agency: &'a AgencyAddress,
    queue: &'a Queue,
    expires: i64,
    bytes: u64,
    what: What<'a>,
}

enum What<'a> {
    Copy { message: i64, of: &'a NewMessage, copy: &'a NewCopy, proof: Vec<u8> },
    Notice(&'a SignedNotice, Vec<u8>),
}

impl Delivery<'_> {
    fn row(&self) -> [Value; 13] {
        let (copy, proof, notice) = match &self.what {
            What::Copy { message, copy, proof, .. } => (Some((*message, *copy)), Some(proof.clone()), None),
            What::Notice(_, notice) => (None, None, Some(notice.clone())),
        };
        let released = copy.map(|(_, copy)| &copy.released);
        row![
            self.seq,
            self.agency.to_string(),
            self.queue.to_string(),
            self.expires,
            number(self.bytes),
            copy.map(|(message, _)| message),
            proof,
            copy.map(|(_, copy)| copy.bases_salt.clone()),
            released.map(|released| released.bases.encode_to_vec()),
            released.map(|released| released.decision.encode_to_vec()),
            released.map(|released| released.release.encode_to_vec()),
            copy.is_some_and(|(_, copy)| copy.handed_over.is_some()),
            notice,
        ]
    }
}

impl<'a> Rows<'a> {
    fn new(batches: &'a Batches, state: u64) -> Self {
        Self {
            batches,
            state,
            queues: HashMap::new(),
            next: batches.account.next,
            messages: Vec::new(),
            extended: Vec::new(),
            threads: Vec::new(),
            deliveries: Vec::new(),
            leaves: Vec::new(),
            touched: Vec::new(),
            gone: Vec::new(),
            narrowed: Vec::new(),
        }
    }

    pub(super) fn queue(&mut self, queue: &Queue) -> &mut account::Change {
        self.queues.entry(queue.clone()).or_default()
    }

    /// What waits in a queue with this batch.
    fn load(&self, queue: &Queue) -> Load {
        self.batches.account.loads.after(queue, self.queues.get(queue).copied().unwrap_or_default())
    }

    async fn accept(
        &mut self,
        db: &mut Transaction,
        accepts: &'a Accepts,
    ) -> Result<Vec<Result<Accepted, AcceptError>>, StoreError> {
        let mut known = known_messages(db, accepts).await?;
        let mut threads = known_threads(db, accepts).await?;
        let outcomes = accepts.iter().map(|(message, _)| {
            let key = (message.sender.clone(), message.id);
            let seq = match known.get(&key) {
                Some(before) if before.digest != message.digest => return Err(AcceptError::IdReused),
                Some(before) if before.acceptance.is_empty() => return Err(AcceptError::Erased),
                Some(before) if message.extends.as_ref() != Some(&before.acceptance) => {
                    return Ok(Accepted::Again(before.acceptance.clone()));
                }
                _ if message.view < self.state => return Err(AcceptError::Outdated),
                Some(before) => {
                    self.check_room(message)?;
                    self.extended.push((before.seq, message));
                    before.seq
                }
                None => {
                    if message.opens.as_ref().is_some_and(|thread| threads.contains(&thread.id)) {
                        return Err(AcceptError::ThreadTaken);
                    }
                    self.check_room(message)?;
                    self.next.message += 1;
                    self.messages.push((self.next.message - 1, message));
                    self.next.message - 1
                }
            };
            self.leaves.extend(message.leaf.as_ref());
            self.add_copies(seq, message);
            let acceptance = message.acceptance.clone();
            known.insert(key, Before { seq, digest: message.digest, acceptance });
            threads.extend(message.opens.as_ref().map(|thread| thread.id));
            Ok(Accepted::New)
        });
        Ok(outcomes.collect())
    }

    fn check_room(&self, message: &NewMessage) -> Result<(), AcceptError> {
        let bound = self.batches.bound;
        let content = message.content.encoded_len();
        let mut more: BTreeMap<&Queue, Load> = BTreeMap::new();
        for copy in &message.copies {
            // Where notices are not taken, no more of them are to come.
            if !bound.has_room(self.load(&copy.answers), Load::one(0)) {
                return Err(AcceptError::QueueFull(copy.answers.clone()));
            }
            *more.entry(&copy.queue).or_default() += Load::one((content + copy.proof.encoded_len()) as u64);
        }
        for (queue, more) in more {
            if !bound.has_room(self.load(queue), more) {
                return Err(AcceptError::QueueFull(queue.clone()));
            }
        }
        Ok(())
    }

    fn add_copies(&mut self, seq: i64, message: &'a NewMessage) {
        self.threads.extend(message.opens.as_ref());
        let expires = millis(message.expires);
        let content = message.content.encoded_len();
        for copy in &message.copies {
            self.leaves.extend(copy.handed_over.as_ref());
            let proof = copy.proof.encode_to_vec();
            let bytes = (content + proof.len()) as u64;
            let what = What::Copy { message: seq, of: message, copy, proof };
            self.add_delivery((&copy.recipient, &copy.queue), expires, bytes, what);
        }
    }

    fn add_delivery(
        &mut self,
        (agency, queue): (&'a AgencyAddress, &'a Queue),
        expires: i64,
        bytes: u64,
        what: What<'a>,
    ) {
        self.queue(queue).add(Load::one(bytes));
        self.deliveries.push(Delivery { seq: self.next.delivery, agency, queue, expires, bytes, what });
        self.next.delivery += 1;
    }

    /// Takes what peers said of copies that they accepted; each end once.
    async fn settle(
        &mut self,
        db: &mut Transaction,
        settlements: &'a Settlements,
    ) -> Result<Vec<Settled>, StoreError> {
        let mut outcomes = Vec::with_capacity(settlements.len());
        for (settlement, _) in settlements {
            let (outcome, ended) = forwarded::settle(db, settlement).await?;
            if let Some(Ended { queue, bytes, message }) = ended {
                self.queue(&queue).take(bytes);
                self.touched.push(message);
            }
            if outcome == Settled::Done {
                self.add_notice(Some(&settlement.notice));
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    pub(super) fn add_notice(&mut self, notice: Option<&'a NewNotice>) {
        if let Some(NewNotice { to, queue, notice, leaf }) = notice {
            self.leaves.extend(leaf.as_ref());
            let encoded = notice.encode_to_vec();
            let bytes = encoded.len() as u64;
            self.add_delivery((to, queue), i64::MAX, bytes, What::Notice(notice, encoded));
        }
    }

    async fn insert(&self, db: &mut Transaction) -> Result<(), StoreError> {
        const MESSAGE: &str = "INSERT INTO message (seq, sender, id, digest, expires, acceptance) ";
        const CONTENT: &str = "INSERT INTO content (message, envelope) ";
        const THREAD: &str = "INSERT INTO thread (thread, requester, responder, status) ";
        const DELIVERY: &str = "INSERT INTO delivery (seq, agency, queue, expires, bytes, message, proof, bases_salt, bases, decision, release, handed_over, notice) ";
        for run in db.runs(&self.messages) {
            let rows = query(MESSAGE).rows(run, |(seq, message)| {
                row![
                    *seq,
                    message.sender.to_string(),
                    message.id.as_bytes().as_slice(),
                    message.digest.as_bytes().as_slice(),
                    millis(message.expires),
                    message.acceptance.clone(),
                ]
            });
            rows.execute(&mut *db).await?;
        }
        // A message that reaches nobody has no content to keep.
        let kept: Vec<_> = self.messages.iter().filter(|(_, message)| !message.copies.is_empty()).collect();
        for run in db.runs(&kept) {
            let rows = query(CONTENT).rows(run, |(seq, message)| row![*seq, message.content.encode_to_vec()]);
            rows.execute(&mut *db).await?;
        }
        for (seq, message) in &self.extended {
            extend(db, *seq, message).await?;
        }
        for run in db.runs(&self.threads) {
            let rows = query(THREAD).rows(run, |thread| {
                row![
                    thread.id.as_bytes().as_slice(),
                    thread.requester.to_string(),
                    thread.responder.to_string(),
                    i32::from(thread.status),
                ]
            });
            rows.execute(&mut *db).await?;
        }
        for run in db.runs(&self.deliveries) {
            query(DELIVERY).rows(run, Delivery::row).execute(&mut *db).await?;
        }
        self.batches.stager.append(db, self.leaves.iter().copied()).await
    }

    /// What was put into agencies' queues: what is handed over next, if its recipient is there, is kept in memory.
    fn recent(&self) -> Vec<Added<'a>> {
        let new: HashSet<i64> = self.messages.iter().map(|(seq, _)| *seq).collect();
        let queued = |delivery: &Delivery<'_>| match &delivery.what {
            // Of a message that was there before, there may be more content than came now.
            What::Copy { message, of, copy, .. } if new.contains(message) && copy.handed_over.is_some() => {
                Some(recent::copy(DeliveryId(delivery.seq), of, copy))
            }
            What::Copy { .. } => None,
            What::Notice(notice, _) => {
                Some(Queued { id: DeliveryId(delivery.seq), item: Item::Notice((*notice).clone()) })
            }
        };
        let of_agencies = self.deliveries.iter().filter(|delivery| delivery.queue.peer().is_none());
        let added = of_agencies.map(|delivery| Added {
            id: DeliveryId(delivery.seq),
            queue: delivery.queue,
            kept: queued(delivery),
            bytes: delivery.bytes,
        });
        added.collect()
    }

    /// Deletes the content of messages whose last delivery has gone.
    async fn forget_contents(&self, db: &mut Transaction) -> Result<(), StoreError> {
        for run in db.runs(&self.touched) {
            let delete = query(
                "DELETE FROM content WHERE NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.message = content.message) AND message ",
            );
            delete.one_of(run.iter().copied()).execute(&mut *db).await?;
        }
        Ok(())
    }
}
