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
pub(crate) struct Session {
    up: mpsc::Sender<SessionRequest>,
    down: Down,
}

/// What comes down on one.
struct Down {
    frames: Streaming<SessionResponse>,
    /// Deliveries whose last chunk has not come yet.
    parts: HashMap<Bytes, Vec<u8>>,
}

/// What the gateway says on a session.
pub(crate) enum Heard {
    /// A submission was accepted.
    Accepted(u64),
    /// A message is delivered, under this attempt.
    Copy(Bytes, Box<SealedCopy>),
    /// A word about a message that was sent, under this attempt.
    Notice(Bytes, SignedNotice),
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
    pub(crate) async fn open(agency: &Insider) -> Result<Self> {
        let (up, frames) = mpsc::channel(FRAMES);
        let hello = Hello { window: WINDOW, agent_version: "load".to_owned() };
        up.send(frame(session_request::Frame::Hello(hello))).await?;
        let mut frames = agency.exchange().await?.session(ReceiverStream::new(frames)).await?.into_inner();
        match frames.message().await?.and_then(|first| first.frame) {
            Some(Frame::Welcome(_)) => Ok(Self { up, down: Down { frames, parts: HashMap::new() } }),
            other => bail!("the session began with {other:?}"),
        }
    }

    /// Submits an encoded envelope under a number.
    pub(crate) async fn submit(&self, number: u64, envelope: Bytes) -> Result<()> {
        submit(&self.up, number, envelope).await
    }

    /// Waits for what the gateway says next.
    pub(crate) async fn next(&mut self) -> Result<Heard> {
        self.down.next().await
    }

    /// Acknowledges a delivery.
    pub(crate) async fn answer(&self, ack: Ack) -> Result<()> {
        Ok(self.up.send(frame(session_request::Frame::Ack(ack))).await?)
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

impl Down {
    async fn next(&mut self) -> Result<Heard> {
        loop {
            let next = self.frames.message().await?.context("the session ended")?;
            match next.frame.context("an empty frame")? {
                Frame::Accepted(accepted) => return Ok(Heard::Accepted(accepted.submission)),
                Frame::Refused(refused) => {
                    bail!("the gateway refused a message: {}", refused.refusal.unwrap_or_default())
                }
                Frame::Delivery(DeliveryChunk { attempt, data, last }) => {
                    let whole = match self.parts.remove(&attempt) {
                        None if last => data,
                        before => {
                            let mut part = before.unwrap_or_default();
                            part.extend_from_slice(&data);
                            if !last {
                                self.parts.insert(attempt, part);
                                continue;
                            }
                            part.into()
                        }
                    };
                    return Ok(match Delivery::decode(whole)?.content.context("an empty delivery")? {
                        Content::Copy(copy) => Heard::Copy(attempt, Box::new(copy)),
                        Content::Notice(notice) => Heard::Notice(attempt, notice),
                    });
                }
                Frame::Drain(_) | Frame::Welcome(_) => bail!("the gateway ends the session"),
            }
        }
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
            submit(&self.up, number, sealed.envelope).await?;
        }
        self.round.end_now();
        Ok(())
    }

    async fn receive(self: Arc<Self>, mut down: Down) -> Result<()> {
        loop {
            match down.next().await? {
                Heard::Accepted(number) => {
                    let submitted = locked(&self.submitted).remove(&number);
                    let (since, is_taken) = submitted.context("an answer to nothing")?;
                    self.round.accepted(since);
                    if !is_taken {
                        self.round.done(self.connection);
                    }
                }
                Heard::Copy(attempt, copy) => {
                    let acknowledgement = Some(self.copy(&copy)?);
                    self.answer(Ack { attempt, acknowledgement }).await?;
                }
                Heard::Notice(attempt, notice) => {
                    self.answer(Ack { attempt, acknowledgement: None }).await?;
                    self.notice(&notice)?;
                }
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

async fn submit(up: &mpsc::Sender<SessionRequest>, number: u64, envelope: Bytes) -> Result<()> {
    for (data, last) in chunks(envelope) {
        let chunk = SubmissionChunk { submission: number, data, last };
        up.send(frame(session_request::Frame::Submission(chunk))).await?;
    }
    Ok(())
}

fn frame(frame: session_request::Frame) -> SessionRequest {
    SessionRequest { frame: Some(frame) }
}

fn locked<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
