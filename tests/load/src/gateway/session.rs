//! An agent's session as the exchange service sees it: submissions and answers go up, deliveries come down.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use liaison_proto::{
    chunks,
    exchange::v1::{
        Ack, Delivery, DeliveryChunk, Hello, SessionRequest, SessionResponse, SubmissionChunk,
        delivery::Content, session_request, session_response::Frame,
    },
    message::v1::{Manifest, Notice, SealedCopy, SignedAcknowledgement, SignedNotice, notice::Event},
};
use liaison_tests::insider::Insider;
use prost::Message as _;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use uuid::Uuid;

use super::stock::Stock;
use crate::{message, round::Round};

/// Deliveries under way without an answer, as an agent has them.
const WINDOW: u32 = 64;
/// Frames that wait to be sent: a window of answers, and as many submissions as may be under way.
const FRAMES: usize = 256;

/// What one agency has sent: since when it is under way, and what its recipient will answer.
pub(super) type Flights = Arc<Mutex<HashMap<Uuid, (Instant, SignedAcknowledgement)>>>;

/// An open session.
pub(super) struct Session {
    up: mpsc::Sender<SessionRequest>,
    down: Streaming<SessionResponse>,
}

/// What a session does in a round.
struct Driven {
    round: Arc<Round>,
    connection: usize,
    up: mpsc::Sender<SessionRequest>,
    /// Submissions without an answer: since when, and whether anybody will acknowledge them.
    submitted: Mutex<HashMap<u64, (Instant, bool)>>,
    /// Messages of this round that were not acknowledged yet. A notice may come a second time, in the next round.
    unacknowledged: Mutex<HashSet<Uuid>>,
    /// What this agency sent, and what the one before it did.
    sent: Flights,
    coming: Flights,
}

impl Session {
    /// Opens one and waits until it is welcome.
    pub(super) async fn open(agency: &Insider) -> Result<Self> {
        let (up, frames) = mpsc::channel(FRAMES);
        let hello = Hello { window: WINDOW, agent_version: "load".to_owned() };
        up.send(frame(session_request::Frame::Hello(hello))).await?;
        let mut down = agency.exchange().await?.session(ReceiverStream::new(frames)).await?.into_inner();
        match down.message().await?.and_then(|first| first.frame) {
            Some(Frame::Welcome(_)) => Ok(Self { up, down }),
            other => bail!("the session began with {other:?}"),
        }
    }

    /// Sends the stock as its turns come, and takes what comes.
    pub(super) fn drive(
        self,
        round: Arc<Round>,
        connection: usize,
        stock: Stock,
        sent: Flights,
        coming: Flights,
    ) -> (impl Future<Output = Result<()>> + Send, impl Future<Output = Result<()>> + Send) {
        let (submitted, unacknowledged) = Default::default();
        let up = self.up;
        let driven = Arc::new(Driven { round, connection, up, submitted, unacknowledged, sent, coming });
        (Arc::clone(&driven).send(stock), driven.receive(self.down))
    }
}

impl Driven {
    async fn send(self: Arc<Self>, stock: Stock) -> Result<()> {
        for (number, sealed) in (0..).zip(stock) {
            let Some(since) = self.round.turn(self.connection, number).await else { return Ok(()) };
            let is_taken = sealed.acknowledgement.is_some();
            locked(&self.submitted).insert(number, (since, is_taken));
            if let Some(acknowledgement) = sealed.acknowledgement {
                locked(&self.unacknowledged).insert(sealed.id);
                locked(&self.sent).insert(sealed.id, (since, acknowledgement));
            }
            for (data, last) in chunks(sealed.envelope) {
                let chunk = SubmissionChunk { submission: number, data, last };
                self.up.send(frame(session_request::Frame::Submission(chunk))).await?;
            }
        }
        self.round.end_now();
        Ok(())
    }

    async fn receive(self: Arc<Self>, mut down: Streaming<SessionResponse>) -> Result<()> {
        let mut parts: HashMap<Bytes, Vec<u8>> = HashMap::new();
        loop {
            let next = down.message().await?.context("the session ended")?;
            match next.frame.context("an empty frame")? {
                Frame::Accepted(accepted) => {
                    let submitted = locked(&self.submitted).remove(&accepted.submission);
                    let (since, is_taken) = submitted.context("an answer to nothing")?;
                    self.round.accepted(since);
                    if !is_taken {
                        self.round.done(self.connection);
                    }
                }
                Frame::Refused(refused) => {
                    bail!("the gateway refused a message: {}", refused.refusal.unwrap_or_default())
                }
                Frame::Delivery(DeliveryChunk { attempt, data, last: true })
                    if !parts.contains_key(&attempt) =>
                {
                    self.take(attempt, Delivery::decode(data)?).await?;
                }
                Frame::Delivery(chunk) => {
                    let part = parts.entry(chunk.attempt.clone()).or_default();
                    part.extend_from_slice(&chunk.data);
                    if chunk.last {
                        let whole = parts.remove(&chunk.attempt).unwrap_or_default();
                        self.take(chunk.attempt, Delivery::decode(whole.as_slice())?).await?;
                    }
                }
                Frame::Drain(_) | Frame::Welcome(_) => bail!("the gateway ends the session"),
            }
        }
    }

    async fn take(&self, attempt: Bytes, delivery: Delivery) -> Result<()> {
        match delivery.content.context("an empty delivery")? {
            Content::Copy(copy) => {
                let acknowledgement = Some(self.copy(&copy)?);
                self.answer(Ack { attempt, acknowledgement }).await
            }
            Content::Notice(notice) => {
                self.answer(Ack { attempt, acknowledgement: None }).await?;
                self.notice(&notice)
            }
        }
    }

    /// A message that came: what its recipient answers.
    fn copy(&self, copy: &SealedCopy) -> Result<SignedAcknowledgement> {
        ensure!(copy.sections.len() == message::SECTIONS.len(), "sections are missing in what was delivered");
        let id = Uuid::from_slice(&Manifest::decode(copy.manifest.clone())?.message_id)?;
        let flight = locked(&self.coming).remove(&id);
        let (since, acknowledgement) = flight.context("a message that nobody sent, or twice the same")?;
        self.round.delivered(since);
        Ok(acknowledgement)
    }

    /// What the gateway says of a message that was sent: its recipient acknowledged it, or it expired and there was
    /// nobody to take it.
    fn notice(&self, notice: &SignedNotice) -> Result<()> {
        let notice = Notice::decode(notice.notice.clone())?;
        let was_awaited = locked(&self.unacknowledged).remove(&Uuid::from_slice(&notice.message_id)?);
        match notice.event {
            Some(Event::Acknowledged(_)) if was_awaited => self.round.done(self.connection),
            Some(Event::Acknowledged(_)) => {}
            Some(Event::Expired(_)) if !was_awaited => {}
            other => bail!("a message was not delivered: {other:?}"),
        }
        Ok(())
    }

    async fn answer(&self, ack: Ack) -> Result<()> {
        Ok(self.up.send(frame(session_request::Frame::Ack(ack))).await?)
    }
}

fn frame(frame: session_request::Frame) -> SessionRequest {
    SessionRequest { frame: Some(frame) }
}

fn locked<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
