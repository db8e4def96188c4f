//! An agent's session: submissions and answers to deliveries come up, acceptances and deliveries go
//! down. Whatever isn't answered when it ends is delivered again on the next one.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::{
        Accepted, Ack, Drain, Hello, Nack, Refused, SessionRequest, SessionResponse, Welcome,
        session_request::Frame as Request, session_response::Frame as Response,
    },
    limits::{ENVELOPE_BYTES, SESSION_WINDOW},
    message::v1::{
        Acknowledgement, Refusal, SignedAcceptance, SignedAcknowledgement, error_code::Code as ErrorCode,
    },
    refusal::CODE,
    times,
};
use liaison_trust::{names::AgencyAddress, statement};
use metrics::{counter, histogram};
use time::OffsetDateTime;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{info, warn};
use uuid::Uuid;

use super::{handover, sessions::Place, submission};
use crate::{
    assembly::{Assembly, Step},
    delivery::{Event, internal, notice},
    gateway::Gateway,
    limits,
    store::{Change, DeliveryId, Head, Next},
};

/// The frames that go to the agent.
pub(super) type Frames = mpsc::Sender<Result<SessionResponse, Status>>;

/// A live session.
pub(super) struct Session {
    pub(super) gateway: Arc<Gateway>,
    pub(super) agency: AgencyAddress,
    pub(super) place: Place,
    frames: Frames,
    attempts: Mutex<HashMap<Uuid, Attempt>>,
    /// Cancelled when the store failed under an answer.
    broken: CancellationToken,
}

/// A delivery under way.
pub(super) struct Attempt {
    pub(super) what: Delivered,
    /// Its place in the agent's window.
    pub(super) _turn: OwnedSemaphorePermit,
}

/// What was delivered.
#[derive(Clone)]
pub(super) enum Delivered {
    Copy(Head),
    Notice(DeliveryId),
}

/// Why nothing more can be sent: the agent is gone.
pub(super) struct Gone;

/// Runs a session to its end.
pub(super) async fn run(
    gateway: Arc<Gateway>,
    agency: AgencyAddress,
    incoming: Streaming<SessionRequest>,
    frames: Frames,
) {
    info!(%agency, "a session begins");
    let ended = open(gateway, agency.clone(), incoming, frames.clone()).await;
    match ended {
        Ok(()) => info!(%agency, "a session ended"),
        Err(refusal) => {
            warn!(%agency, code = refusal.code().as_str_name(), reason = refusal.message, "a session was ended");
            let _ = frames.send(Err(refusal.into())).await;
        }
    }
}

async fn open(
    gateway: Arc<Gateway>,
    agency: AgencyAddress,
    mut incoming: Streaming<SessionRequest>,
    frames: Frames,
) -> Result<(), Refusal> {
    let window = hello(&mut incoming).await?;
    let session = Arc::new(Session {
        place: gateway.sessions.open(&agency),
        gateway,
        agency,
        frames,
        attempts: Mutex::default(),
        broken: CancellationToken::new(),
    });
    session.gateway.store.tell_session(&session.agency).await.map_err(internal)?;
    let policy_hash = session.gateway.policy.load().hash();
    let welcome = Welcome {
        window: SESSION_WINDOW,
        now: Some(times::to_wire(OffsetDateTime::now_utc())),
        policy_hash: policy_hash.into(),
    };
    let Ok(()) = session.send(Response::Welcome(welcome)).await else { return Ok(()) };

    let mut receiving = pin!(receive(&session, incoming));
    tokio::select! {
        ended = &mut receiving => ended,
        ended = handover::run(&session, window) => ended,
        () = session.place.replaced.cancelled() => Err(replaced()),
        () = session.broken.cancelled() => Err(Refusal::internal()),
        () = is_to_end(&session.gateway) => {
            let Ok(()) = session.send(Response::Drain(Drain {})).await else { return Ok(()) };
            // No more deliveries; what is under way has a while to finish.
            timeout(limits::DRAIN, receiving).await.unwrap_or(Ok(()))
        }
    }
}

/// The first frame: how many deliveries may be under way.
async fn hello(incoming: &mut Streaming<SessionRequest>) -> Result<u32, Refusal> {
    let first = timeout(limits::HELLO, incoming.message()).await.map_err(|_| no_hello())?;
    match read(first)?.and_then(|request| request.frame) {
        Some(Request::Hello(Hello { window, .. })) if (1..=SESSION_WINDOW).contains(&window) => Ok(window),
        Some(Request::Hello(_)) => Err(Refusal::new(
            ErrorCode::Malformed,
            format!("the window is not from 1 to {SESSION_WINDOW}"),
            "correct the agent's software",
        )),
        _ => Err(no_hello()),
    }
}

/// Takes what the agent sends, until it closes its side.
async fn receive(session: &Arc<Session>, mut incoming: Streaming<SessionRequest>) -> Result<(), Refusal> {
    let mut assembly = Assembly::new(Arc::clone(&session.gateway.submissions), ENVELOPE_BYTES);
    let window = Arc::new(Semaphore::new(SESSION_WINDOW as usize));
    while let Some(request) = read(incoming.message().await)? {
        match request.frame {
            Some(Request::Submission(chunk)) => {
                let number = chunk.submission;
                match assembly.add(number, chunk.data, chunk.last)? {
                    Step::Waits => {}
                    Step::Refused(refusal) => session.answer(number, Err(refusal)).await,
                    Step::Whole { bytes, room } => {
                        let Ok(turn) = Arc::clone(&window).acquire_owned().await else { return Ok(()) };
                        let session = Arc::clone(session);
                        tokio::spawn(async move {
                            let outcome = session.submit(bytes).await;
                            // Before the answer, for which an agent may let the gateway wait: others
                            // need the room.
                            drop(room);
                            session.answer(number, outcome).await;
                            drop(turn);
                        });
                    }
                }
            }
            Some(Request::Ack(ack)) => session.acknowledge(ack)?,
            Some(Request::Nack(nack)) => session.set_aside(nack)?,
            Some(Request::Hello(_)) => {
                return Err(Refusal::new(
                    ErrorCode::Malformed,
                    "a second hello on one session",
                    "correct the agent's software",
                ));
            }
            None => {
                return Err(Refusal::new(
                    ErrorCode::UnknownValue,
                    "a frame that this version does not know",
                    "send what this version's contracts define, or upgrade the gateway",
                ));
            }
        }
    }
    Ok(())
}

impl Session {
    /// Sends a frame; waits while the agent is slow.
    pub(super) async fn send(&self, frame: Response) -> Result<(), Gone> {
        self.frames.send(Ok(SessionResponse { frame: Some(frame) })).await.map_err(|_| Gone)
    }

    /// Remembers a delivery that is about to be sent.
    pub(super) fn remember(&self, attempt: Uuid, delivery: Attempt) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt, delivery);
    }

    async fn submit(&self, envelope: Bytes) -> Result<SignedAcceptance, Refusal> {
        let started = Instant::now();
        let outcome =
            submission::submit(&self.gateway, &self.agency, envelope, OffsetDateTime::now_utc()).await;
        histogram!("liaison_gateway_submission_seconds").record(started.elapsed());
        outcome
    }

    async fn answer(&self, submission: u64, outcome: Result<SignedAcceptance, Refusal>) {
        let code = outcome.as_ref().map_or_else(|refusal| refusal.code().as_str_name(), |_| "accepted");
        counter!("liaison_gateway_submissions_total", "outcome" => code).increment(1);
        let frame = match outcome {
            Ok(acceptance) => Response::Accepted(Accepted { submission, acceptance: Some(acceptance) }),
            Err(refusal) => {
                info!(agency = %self.agency, code, "a submission was refused");
                Response::Refused(Refused { submission, refusal: Some(refusal) })
            }
        };
        // An agent that is gone offers the message again, and gets the same answer.
        let _ = self.send(frame).await;
    }

    /// The agent holds a delivery. An attempt that is not of this session is passed over: its delivery
    /// comes again, or was answered.
    fn acknowledge(self: &Arc<Self>, ack: Ack) -> Result<(), Refusal> {
        let Some((id, what)) = self.attempt(&ack.attempt) else { return Ok(()) };
        let now = OffsetDateTime::now_utc();
        let change = match what {
            Delivered::Notice(delivery) => Change { delivery, to: Next::Gone, notice: None },
            Delivered::Copy(copy) => {
                let signed = ack.acknowledgement.ok_or_else(unsigned)?;
                self.check(&copy, &signed)?;
                let word =
                    notice(&self.gateway, &copy, Event::Acknowledged(signed), now).map_err(internal)?;
                Change { delivery: copy.delivery, to: Next::Gone, notice: Some(word) }
            }
        };
        self.settle(id, change);
        Ok(())
    }

    /// The agent can't take a delivery as genuine.
    fn set_aside(self: &Arc<Self>, nack: Nack) -> Result<(), Refusal> {
        let Some((id, what)) = self.attempt(&nack.attempt) else { return Ok(()) };
        let refusal = reason(nack.refusal.unwrap_or_default().code());
        counter!("liaison_gateway_quarantined_total").increment(1);
        warn!(agency = %self.agency, code = refusal.code().as_str_name(), "a delivery was quarantined");
        let (delivery, notice) = match what {
            Delivered::Notice(delivery) => (delivery, None),
            Delivered::Copy(copy) => {
                let event = Event::Quarantined(refusal.clone());
                let word = notice(&self.gateway, &copy, event, OffsetDateTime::now_utc());
                (copy.delivery, Some(word.map_err(internal)?))
            }
        };
        self.settle(id, Change { delivery, to: Next::Quarantined(refusal), notice });
        Ok(())
    }

    /// Commits an answer, beside those of other deliveries; then the window has room again.
    fn settle(self: &Arc<Self>, id: Uuid, change: Change) {
        let attempt = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let session = Arc::clone(self);
        tokio::spawn(async move {
            let answers = change.notice.as_ref().map(|notice| notice.queue.clone());
            match session.gateway.store.change(change).await {
                Ok(true) => {
                    if let Some(answers) = answers {
                        session.gateway.wake(&answers);
                    }
                }
                Ok(false) => {}
                Err(fault) => {
                    internal(fault);
                    session.broken.cancel();
                }
            }
            drop(attempt);
        });
    }

    fn attempt(&self, id: &[u8]) -> Option<(Uuid, Delivered)> {
        let id = Uuid::from_slice(id).ok()?;
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        Some((id, attempts.get(&id)?.what.clone()))
    }

    /// Checks that an acknowledgement is this agency's own word about this copy.
    fn check(&self, copy: &Head, signed: &SignedAcknowledgement) -> Result<(), Refusal> {
        let directory = self.gateway.directory.load();
        let agency = directory.get(&self.agency).ok_or_else(bad_acknowledgement)?;
        let read = |key: &liaison_trust::key_record::ProvenKey| {
            let read: Acknowledgement = statement::read(signed, &key.signing).ok()?;
            (read.key_id == key.id.as_bytes().as_slice()).then_some(read)
        };
        let word = agency.keys.iter().rev().take(2).find_map(read).ok_or_else(bad_acknowledgement)?;
        let is_about_it = word.message_id == copy.message.as_bytes().as_slice()
            && word.manifest_digest == copy.digest.as_bytes().as_slice()
            && word.recipient == self.agency.to_string();
        if is_about_it { Ok(()) } else { Err(bad_acknowledgement()) }
    }
}

/// Waits until a session should end: the gateway stops, or the session is old. Ages differ, so that
/// agents that came together don't come back together.
async fn is_to_end(gateway: &Gateway) {
    let age = limits::SESSION_AGE.mul_f64(rand::random_range(0.8..1.0));
    tokio::select! {
        () = gateway.stop.cancelled() => {}
        () = sleep(age) => {}
    }
}

/// Why a recipient set a delivery aside. The gateway keeps and passes on the code alone, in words of its
/// own: whatever an agent writes could be a word of a section.
fn reason(code: ErrorCode) -> Refusal {
    Refusal::new(
        code,
        "the recipient's agent could not take the delivery as genuine",
        "compare with the recipient's log; the gateway keeps the copy as evidence",
    )
}

/// A frame from the agent; none where its connection ended, well or not.
fn read(message: Result<Option<SessionRequest>, Status>) -> Result<Option<SessionRequest>, Refusal> {
    match message {
        Ok(request) => Ok(request),
        // What the codec refuses.
        Err(status) if status.metadata().contains_key(CODE) => Err(Refusal::from(&status)),
        // What the transport reports has a cause; what the decoder reports has none.
        Err(status) if std::error::Error::source(&status).is_some() => Ok(None),
        Err(status) if matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted) => {
            Err(Refusal::new(ErrorCode::TooLarge, "a frame is too large", "send chunks of 256 KiB at most"))
        }
        Err(_) => Err(Refusal::new(
            ErrorCode::Malformed,
            "a frame is not well-formed protobuf",
            "correct the agent's software",
        )),
    }
}

fn no_hello() -> Refusal {
    Refusal::new(ErrorCode::Malformed, "a session begins with a hello", "correct the agent's software")
}

fn replaced() -> Refusal {
    Refusal::new(
        ErrorCode::ShuttingDown,
        "a newer session of the same agency took this one's place",
        "run one agent for each agency",
    )
}

fn unsigned() -> Refusal {
    Refusal::new(
        ErrorCode::MissingField,
        "the acknowledgement of a message is not signed",
        "correct the agent's software",
    )
}

fn bad_acknowledgement() -> Refusal {
    Refusal::new(
        ErrorCode::BadSignature,
        "an acknowledgement is not this agency's word about what was delivered",
        "sign with the agency's current key, about the message that the attempt delivered",
    )
}
