//! One session with the gateway: submissions up, deliveries down, each answered.

mod parts;

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, Stream, StreamExt as _, TryStreamExt as _,
    future::{self, BoxFuture},
    stream,
};
use liaison_proto::{
    chunks,
    exchange::v1::{
        Accepted, Ack, Delivery, Hello, Nack, Refused, SessionRequest, SessionResponse, SubmissionChunk,
        Welcome, exchange_service_client::ExchangeServiceClient, session_request, session_response::Frame,
    },
    limits::{CLOCK_AHEAD, REQUEST, SESSION_WINDOW},
    message::v1::Refusal,
    strict, times,
};
use liaison_trust::digest::Digest;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};
use uuid::Uuid;

use self::parts::Parts;
use crate::{
    agent::Agent,
    inbox::{self, Answer, Judged},
    limits, link,
    log::ShownHeads,
    outbox::{self, Offer},
    store::StoreError,
};

/// How a session ended without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// This agent stops.
    Stopped,
    /// The gateway asked to connect again.
    Drained,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the session ended: {0}")]
    Refused(Refusal),
    #[error("the gateway closed the session")]
    Closed,
    #[error("the gateway did not answer to the session's beginning")]
    NoWelcome,
    #[error("the gateway broke the session's protocol: {0}; tell its administrator")]
    Protocol(&'static str),
    /// Nothing is judged by a wrong clock: genuine messages would be taken for expired ones.
    #[error(
        "this machine's clock is {seconds} s {direction} the gateway's; set it (and tell the gateway's administrator if it is right)"
    )]
    Clock { seconds: u64, direction: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is being offered and is not answered yet.
#[derive(Default)]
struct UnderWay {
    /// What was offered.
    by_number: HashMap<u64, (Uuid, Digest)>,
    ids: HashSet<Uuid>,
    last: u64,
    draining: bool,
}

struct Session<'a> {
    agent: &'a Agent,
    under_way: Mutex<UnderWay>,
    /// The session is asked to drain.
    drain_asked: Notify,
    answers: mpsc::Sender<SessionRequest>,
    chunks: mpsc::Sender<SessionRequest>,
    /// The heads of logs that senders were shown with acknowledgements.
    shown: ShownHeads,
}

/// Runs a session to its end.
pub(crate) async fn run(
    agent: &Agent,
    mut client: ExchangeServiceClient<Channel>,
    stop: &CancellationToken,
) -> Result<Ended, SessionError> {
    // Answers have room for a whole window, so that reading never waits for submissions to be written.
    let (answers, answers_out) = mpsc::channel(limits::DELIVERY_WINDOW as usize + 1);
    let (chunks, chunks_out) = mpsc::channel(2);
    let hello =
        Hello { window: limits::DELIVERY_WINDOW, agent_version: env!("CARGO_PKG_VERSION").to_owned() };
    let sent = answers.send(frame(session_request::Frame::Hello(hello))).await;
    sent.map_err(|_| SessionError::Closed)?;

    let begin = async {
        let mut inbound = client.session(outgoing(answers_out, chunks_out)).await?.into_inner();
        let first = inbound.message().await?;
        Ok::<_, tonic::Status>((inbound, first))
    };
    let begun = tokio::select! {
        begun = tokio::time::timeout(REQUEST, begin) => begun,
        () = stop.cancelled() => return Ok(Ended::Stopped),
    };
    let (inbound, first) = begun.map_err(|_| SessionError::NoWelcome)?.map_err(|status| refused(&status))?;
    let Some(SessionResponse { frame: Some(Frame::Welcome(welcome)) }) = first else {
        return Err(SessionError::Protocol("its first frame is no welcome"));
    };
    same_clock(&welcome, OffsetDateTime::now_utc())?;
    tracing::info!(window = welcome.window, "session begun");
    agent.link.connected();

    let session = Session {
        agent,
        under_way: Mutex::default(),
        drain_asked: Notify::new(),
        answers,
        chunks,
        shown: ShownHeads::default(),
    };
    let window = welcome.window.clamp(1, SESSION_WINDOW);
    let stopped = async {
        stop.cancelled().await;
        session.drain();
        tokio::time::sleep(STOPPING).await;
    };
    tokio::select! {
        read = session.read(inbound) => match read? {
            Ended::Drained if stop.is_cancelled() => Ok(Ended::Stopped),
            ended => Ok(ended),
        },
        submitted = session.submit(window) => submitted.map(|()| Ended::Drained),
        () = stopped => Ok(Ended::Stopped),
    }
}

/// What is under way when the agent stops has this long to be answered.
const STOPPING: Duration = Duration::from_secs(3);
/// How often drafts that were postponed are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// Reads frames until the session ends. What they change is committed while the next ones are read.
    async fn read(&self, inbound: Streaming<SessionResponse>) -> Result<Ended, SessionError> {
        stream::try_unfold((inbound, Parts::default()), |(mut inbound, mut parts)| async move {
            let commit = self.next_commit(&mut inbound, &mut parts).await?;
            Ok(commit.map(|commit| (commit, (inbound, parts))))
        })
        .try_buffer_unordered(limits::COMMITS)
        .try_for_each(|()| future::ready(Ok(())))
        .await?;
        Ok(Ended::Drained)
    }

    /// Reads until there is something to commit; none at the end of the session.
    async fn next_commit<'a>(
        &'a self,
        inbound: &mut Streaming<SessionResponse>,
        parts: &mut Parts,
    ) -> Result<Option<BoxFuture<'a, Result<(), SessionError>>>, SessionError> {
        loop {
            if self.is_drained() {
                return Ok(None);
            }
            let next = tokio::select! {
                next = inbound.message() => next.map_err(|status| refused(&status))?,
                () = self.drain_asked.notified() => continue,
            };
            let mut commit = match next.ok_or(SessionError::Closed)?.frame {
                Some(Frame::Accepted(accepted)) => self.accepted(accepted).boxed(),
                Some(Frame::Refused(refused)) => self.refused(refused).boxed(),
                Some(Frame::Delivery(chunk)) => match parts.add(chunk)? {
                    Some((attempt, delivery)) => {
                        self.deliver(attempt, self.judge(delivery.into()).await?).boxed()
                    }
                    None => continue,
                },
                Some(Frame::Drain(_)) => {
                    tracing::info!("the gateway drains the session");
                    self.drain();
                    continue;
                }
                Some(Frame::Welcome(_)) | None => return Err(SessionError::Protocol("an unexpected frame")),
            };
            // It stands in line for the database before the next frame is read, so that the order stays.
            match futures_util::poll!(&mut commit) {
                Poll::Ready(committed) => committed?,
                Poll::Pending => return Ok(Some(commit)),
            }
        }
    }

    /// Offers what waits in the outbox, as far as the window goes. Returns only when it fails.
    async fn submit(&self, window: u32) -> Result<(), SessionError> {
        stream::try_unfold(Vec::new(), |mut due: Vec<Uuid>| async move {
            while due.is_empty() {
                due = self.take_due(window).await?;
                if due.is_empty() {
                    tokio::select! {
                        () = self.agent.store.outbox_changed() => {}
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
            }
            let rest = due.split_off(1);
            Ok(due.pop().map(|id| (self.prepare(id), rest)))
        })
        .try_buffer_unordered(limits::PREPARING)
        .try_for_each(|()| future::ready(Ok(())))
        .await
    }

    /// Messages that are due and not under way, as far as the window goes. They are under way then.
    async fn take_due(&self, window: u32) -> Result<Vec<Uuid>, SessionError> {
        let (ids, free) = {
            let under_way = self.under_way();
            let count = u32::try_from(under_way.ids.len()).unwrap_or(u32::MAX);
            let free = if under_way.draining { 0 } else { window.saturating_sub(count) };
            (under_way.ids.clone(), free.min(limits::OUTBOX_TURN))
        };
        if free == 0 {
            return Ok(Vec::new());
        }
        let due = self.agent.store.due(OffsetDateTime::now_utc(), &ids, free).await?;
        self.under_way().ids.extend(&due);
        Ok(due)
    }

    async fn prepare(&self, id: Uuid) -> Result<(), SessionError> {
        match outbox::prepare(self.agent, id).await? {
            Offer::Ready { envelope, digest } if !self.under_way().draining => {
                self.offer(id, &envelope, digest).await
            }
            _ => {
                self.end(&id);
                Ok(())
            }
        }
    }

    async fn offer(&self, id: Uuid, envelope: &Bytes, digest: Digest) -> Result<(), SessionError> {
        let number = {
            let mut under_way = self.under_way();
            under_way.last += 1;
            let number = under_way.last;
            under_way.by_number.insert(number, (id, digest));
            number
        };
        for (data, last) in chunks(envelope.clone()) {
            let chunk = SubmissionChunk { submission: number, data, last };
            let chunk = frame(session_request::Frame::Submission(chunk));
            self.chunks.send(chunk).await.map_err(|_| SessionError::Closed)?;
        }
        Ok(())
    }

    async fn accepted(&self, accepted: Accepted) -> Result<(), SessionError> {
        let (id, digest) = self.answer_to(accepted.submission)?;
        let signed = accepted.acceptance.ok_or(SessionError::Protocol("an acceptance without one"))?;
        let acceptance = outbox::read_acceptance(&signed, &self.agent.link.gateway_key(), id, digest)
            .map_err(SessionError::Protocol)?;
        self.agent.store.accepted(id, &acceptance, &signed).await?;
        self.forget(accepted.submission);
        Ok(())
    }

    async fn refused(&self, refused: Refused) -> Result<(), SessionError> {
        let (id, _) = self.answer_to(refused.submission)?;
        let refusal = refused.refusal.ok_or(SessionError::Protocol("a refusal without one"))?;
        outbox::refused(self.agent, id, &refusal).await?;
        self.forget(refused.submission);
        Ok(())
    }

    async fn judge(&self, delivery: Bytes) -> Result<Judged, StoreError> {
        match strict::decode_shared::<Delivery>(delivery) {
            Ok(delivery) => inbox::judge(self.agent, delivery).await,
            Err(error) => Ok(Judged::Answered(Answer::Refused(error.into()))),
        }
    }

    async fn deliver(&self, attempt: Bytes, judged: Judged) -> Result<(), SessionError> {
        let answer = inbox::keep(self.agent, &self.shown, judged).await?;
        let answer = match answer {
            Answer::Held(acknowledgement) => session_request::Frame::Ack(Ack { attempt, acknowledgement }),
            Answer::Refused(refusal) => {
                tracing::error!(%refusal, "a delivery can't be taken as genuine");
                session_request::Frame::Nack(Nack { attempt, refusal: Some(refusal) })
            }
            // Left without an answer: the gateway offers it again in the next session.
            Answer::NotNow => return Ok(()),
        };
        self.answers.send(frame(answer)).await.map_err(|_| SessionError::Closed)
    }

    fn answer_to(&self, number: u64) -> Result<(Uuid, Digest), SessionError> {
        let known = self.under_way().by_number.get(&number).copied();
        known.ok_or(SessionError::Protocol("an answer to a submission that is not under way"))
    }

    /// Only once the answer is committed: until then the message must not be offered again.
    fn forget(&self, number: u64) {
        let answered = self.under_way().by_number.remove(&number);
        if let Some((id, _)) = answered {
            self.end(&id);
        }
    }

    fn end(&self, id: &Uuid) {
        let mut under_way = self.under_way();
        under_way.ids.remove(id);
        if under_way.draining {
            self.drain_asked.notify_one();
        }
    }

    fn drain(&self) {
        self.under_way().draining = true;
        self.drain_asked.notify_one();
    }

    fn is_drained(&self) -> bool {
        let under_way = self.under_way();
        under_way.draining && under_way.ids.is_empty()
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that goes up: answers before submissions.
fn outgoing(
    answers: mpsc::Receiver<SessionRequest>,
    chunks: mpsc::Receiver<SessionRequest>,
) -> impl Stream<Item = SessionRequest> + Send + 'static {
    stream::select_with_strategy(ReceiverStream::new(answers), ReceiverStream::new(chunks), |_: &mut ()| {
        stream::PollNext::Left
    })
    .boxed()
}

fn same_clock(welcome: &Welcome, now: OffsetDateTime) -> Result<(), SessionError> {
    let gateway = welcome
        .now
        .as_ref()
        .and_then(times::from_wire)
        .ok_or(SessionError::Protocol("its welcome does not tell the time"))?;
    let ahead = now - gateway;
    if ahead.unsigned_abs() <= CLOCK_AHEAD {
        return Ok(());
    }
    let direction = if ahead.is_positive() { "ahead of" } else { "behind" };
    Err(SessionError::Clock { seconds: ahead.unsigned_abs().as_secs(), direction })
}

fn frame(frame: session_request::Frame) -> SessionRequest {
    SessionRequest { frame: Some(frame) }
}

fn refused(status: &tonic::Status) -> SessionError {
    SessionError::Refused(link::refusal(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_ends_the_session() {
        let now = OffsetDateTime::now_utc();
        let welcome = |now| Welcome { now: Some(times::to_wire(now)), ..Welcome::default() };
        assert!(same_clock(&welcome(now + CLOCK_AHEAD), now).is_ok());
        let behind = same_clock(&welcome(now + time::Duration::HOUR), now).unwrap_err();
        assert!(behind.to_string().contains("3600 s behind the gateway's"), "{behind}");
        let ahead = same_clock(&welcome(now - time::Duration::HOUR), now).unwrap_err();
        assert!(ahead.to_string().contains("3600 s ahead of the gateway's"), "{ahead}");
        assert!(same_clock(&Welcome::default(), now).is_err());
    }
}
