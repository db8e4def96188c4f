//! A link from a peer: what it pushes is taken, each frame answered after a durable commit.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use liaison_proto::{
    chunks,
    federation::v1::{
        AcceptedChunk, Done, Drain, Hello, LinkRequest, LinkResponse, Refused, Renewal, SignedBundle,
        Welcome, link_request::Frame as Request, link_response::Frame as Response,
    },
    limits::{FORWARD_BYTES, LINK_WINDOW},
    message::v1::{Refusal, error_code::Code as ErrorCode},
    refusal::CODE,
    times,
};
use liaison_trust::names::Domain;
use metrics::{counter, histogram};
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::{accept, bundle::Bundle, listed, peers::Peer, refusals::is_violation, relay};
use crate::{
    assembly::{Assembly, Step},
    delivery::internal,
    gateway::{Gateway, to_the_end},
    limits,
};

/// The frames that go to the peer.
pub(super) type Frames = mpsc::Sender<Result<LinkResponse, Status>>;

/// A link from a peer.
struct Incoming {
    gateway: Arc<Gateway>,
    domain: Domain,
    frames: Frames,
}

/// Runs a link from a peer to its end.
pub(super) async fn run(
    gateway: Arc<Gateway>,
    peer: Arc<Peer>,
    incoming: Streaming<LinkRequest>,
    frames: Frames,
) {
    let domain = peer.domain.clone();
    info!(peer = %domain, "a link from a peer begins");
    let link = Arc::new(Incoming { gateway, domain: domain.clone(), frames: frames.clone() });
    let ended = link.run(&peer, incoming).await;
    match ended {
        Ok(()) => info!(peer = %domain, "a link from a peer ended"),
        Err(refusal) => {
            warn!(peer = %domain, code = refusal.code().as_str_name(), reason = refusal.message, "a link from a peer was ended");
            // Not where a newer link took its place, nor where an administrator ended it.
            if refusal.code() != ErrorCode::ShuttingDown && link.peer().is_ok() {
                peer.refuses(Some(&refusal));
            }
            let _ = timeout(limits::HELLO, frames.send(Err(refusal.into()))).await;
        }
    }
}

impl Incoming {
    async fn run(self: &Arc<Self>, peer: &Peer, mut incoming: Streaming<LinkRequest>) -> Result<(), Refusal> {
        peer.may_speak()?;
        self.hello(&mut incoming).await.inspect_err(|refusal| {
            if is_violation(refusal) {
                peer.violation(refusal);
            }
        })?;
        let (own, welcome) = self.welcome(peer).await?;
        let Ok(()) = self.send(Response::Welcome(welcome)).await else { return Ok(()) };
        let standing = LinkFrom { peer, replaced: peer.live.begin_link_from() };
        tokio::select! {
            ended = self.receive(incoming) => ended,
            () = standing.replaced.cancelled() => Err(replaced()),
            () = self.tell_bundles(own) => Ok(()),
            () = is_to_end(&self.gateway) => {
                let _ = self.send(Response::Drain(Drain {})).await;
                sleep(limits::DRAIN).await;
                Ok(())
            }
        }
    }

    /// The first frame: the peer's bundle.
    async fn hello(&self, incoming: &mut Streaming<LinkRequest>) -> Result<(), Refusal> {
        let no_hello = || {
            Refusal::new(ErrorCode::Malformed, "a link begins with a hello", "correct the gateway's software")
        };
        let first = timeout(limits::HELLO, incoming.message()).await.map_err(|_| no_hello())?;
        match read(first)?.and_then(|request| request.frame) {
            Some(Request::Hello(Hello { bundle, .. })) => {
                renew(&self.gateway, &self.domain, &bundle.unwrap_or_default()).await
            }
            _ => Err(no_hello()),
        }
    }

    async fn welcome(&self, peer: &Peer) -> Result<(SignedBundle, Welcome), Refusal> {
        let own = self.gateway.peers.own().borrow().clone();
        let known = self.gateway.store.peers().await.map_err(internal)?;
        let (epoch, sequence) = known
            .into_iter()
            .find(|known| known.domain == peer.domain)
            .map(|known| known.directory)
            .unwrap_or_default();
        let welcome = Welcome {
            bundle: Some(own.clone()),
            gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
            window: LINK_WINDOW,
            now: Some(times::to_wire(OffsetDateTime::now_utc())),
            directory_epoch: epoch.into(),
            directory_sequence: sequence,
            log: self.gateway.logs.evidence.number(),
        };
        Ok((own, welcome))
    }

    /// Tells the peer of newer bundles of this domain.
    async fn tell_bundles(&self, mut last: SignedBundle) {
        let mut own = self.gateway.peers.own();
        loop {
            let newest = own.borrow_and_update().clone();
            if newest != last {
                last.clone_from(&newest);
                let renewal = Renewal { number: 0, bundle: Some(newest) };
                let Ok(()) = self.send(Response::Renewal(renewal)).await else { return };
            }
            if own.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes what the peer sends, until it closes its side.
    async fn receive(self: &Arc<Self>, mut incoming: Streaming<LinkRequest>) -> Result<(), Refusal> {
        let room = Arc::new(Semaphore::new(limits::LINK_BYTES >> 10));
        let mut assembly = Assembly::new(room, FORWARD_BYTES);
        let window = Arc::new(Semaphore::new(LINK_WINDOW as usize));
        while let Some(request) =
            read(incoming.message().await).inspect_err(|refusal| self.violated(refusal))?
        {
            let Ok(turn) = Arc::clone(&window).acquire_owned().await else { return Ok(()) };
            match request.frame {
                Some(Request::Forward(chunk)) => {
                    let number = chunk.number;
                    let step = assembly.add(number, chunk.data, chunk.last);
                    match step.inspect_err(|refusal| self.violated(refusal))? {
                        Step::Waits => {}
                        Step::Refused(refusal) => {
                            if refusal.code() == ErrorCode::TooLarge {
                                self.violated(&refusal);
                            }
                            self.answer(number, Err(refusal)).await;
                        }
                        Step::Whole { bytes, room } => {
                            let link = Arc::clone(self);
                            tokio::spawn(async move {
                                let outcome = link.accept(bytes).await;
                                drop(room);
                                link.answer(number, outcome).await;
                                drop(turn);
                            });
                        }
                    }
                }
                Some(Request::Notice(notice)) => {
                    let link = Arc::clone(self);
                    tokio::spawn(async move {
                        let signed = notice.notice.unwrap_or_default();
                        let outcome = match link.peer() {
                            Ok(peer) => relay::take(&link.gateway, &peer, signed).await,
                            Err(refusal) => Err(refusal),
                        };
                        // An older version may learn to read it.
                        let outcome = outcome.map_err(|refusal| match refusal.code() {
                            ErrorCode::UnknownValue => refusal.retry_after(limits::QUEUE_RETRY),
                            _ => refusal,
                        });
                        link.done(notice.number, outcome).await;
                        drop(turn);
                    });
                }
                // One after another: a page follows from the one before.
                Some(Request::Directory(change)) => {
                    let peer = self.peer()?;
                    let page = change.page.unwrap_or_default();
                    let (gateway, of) = (Arc::clone(&self.gateway), Arc::clone(&peer));
                    let outcome = to_the_end(async move { listed::take(&gateway, &of, &page).await }).await;
                    if !matches!(outcome, Ok(false)) {
                        peer.refuses(outcome.as_ref().err());
                    }
                    self.done(change.number, outcome.map(drop)).await;
                    sleep(limits::PAGE_PACE).await;
                }
                Some(Request::Renewal(renewal)) => {
                    let bundle = renewal.bundle.unwrap_or_default();
                    let outcome = renew(&self.gateway, &self.domain, &bundle).await;
                    self.done(renewal.number, outcome).await;
                }
                Some(Request::Hello(_)) => return Err(self.protocol("a second hello on one link")),
                None => {
                    let refusal = Refusal::new(
                        ErrorCode::UnknownValue,
                        format!("{} sends a frame that this version does not know", self.domain),
                        "upgrade this gateway, or have the peer send what this version defines",
                    );
                    self.violated(&refusal);
                    return Err(refusal);
                }
            }
            self.peer()?.may_speak()?;
        }
        Ok(())
    }

    async fn accept(&self, forward: Bytes) -> Result<Bytes, Refusal> {
        let started = Instant::now();
        let peer = self.peer()?;
        let outcome = accept::accept(&self.gateway, &peer, forward, OffsetDateTime::now_utc()).await;
        histogram!("liaison_gateway_forward_seconds").record(started.elapsed());
        outcome
    }

    async fn answer(&self, number: u64, outcome: Result<Bytes, Refusal>) {
        let code = outcome.as_ref().map_or_else(|refusal| refusal.code().as_str_name(), |_| "accepted");
        counter!("liaison_gateway_forwards_taken_total", "peer" => self.domain.to_string(), "outcome" => code)
            .increment(1);
        let acceptances = match outcome {
            Ok(acceptances) => acceptances,
            Err(refusal) => return self.refuse(number, refusal).await,
        };
        for (data, last) in chunks(acceptances) {
            let sent = self.send(Response::Accepted(AcceptedChunk { number, data, last })).await;
            if sent.is_err() {
                return;
            }
        }
    }

    async fn done(&self, number: u64, outcome: Result<(), Refusal>) {
        match outcome {
            Ok(()) => {
                // A peer that is gone sends it again, and gets the same answer.
                let _ = self.send(Response::Done(Done { number })).await;
            }
            Err(refusal) => self.refuse(number, refusal).await,
        }
    }

    async fn refuse(&self, number: u64, refusal: Refusal) {
        if is_violation(&refusal) {
            self.violated(&refusal);
        } else {
            info!(peer = %self.domain, code = refusal.code().as_str_name(), "what a peer sent was refused");
        }
        let _ = self.send(Response::Refused(Refused { number, refusal: Some(refusal) })).await;
    }

    /// The peer as it stands now, if traffic with it flows.
    fn peer(&self) -> Result<Arc<Peer>, Refusal> {
        self.gateway.peers.active(&self.domain)
    }

    fn violated(&self, refusal: &Refusal) {
        if let Some(peer) = self.gateway.peers.get(&self.domain) {
            peer.violation(refusal);
        }
    }

    fn protocol(&self, what: &str) -> Refusal {
        let refusal = Refusal::new(ErrorCode::Malformed, what, "correct the gateway's software");
        self.violated(&refusal);
        refusal
    }

    async fn send(&self, frame: Response) -> Result<(), ()> {
        self.frames.send(Ok(LinkResponse { frame: Some(frame) })).await.map_err(|_| ())
    }
}

/// A link from a peer that stands as long as this lives.
struct LinkFrom<'a> {
    peer: &'a Peer,
    replaced: CancellationToken,
}

impl Drop for LinkFrom<'_> {
    fn drop(&mut self) {
        self.peer.live.end_link_from(&self.replaced);
    }
}

fn replaced() -> Refusal {
    Refusal::new(
        ErrorCode::ShuttingDown,
        "a newer link of the same gateway took this one's place",
        "look for two gateways of the domain that both hold its links",
    )
}

/// Takes a newer bundle of a peer.
///
/// # Errors
/// It is not its next one.
pub(super) async fn renew(
    gateway: &Arc<Gateway>,
    domain: &Domain,
    signed: &SignedBundle,
) -> Result<(), Refusal> {
    let (gateway, domain, signed) = (Arc::clone(gateway), domain.clone(), signed.clone());
    to_the_end(async move {
        let live = Arc::clone(&gateway.peers.active(&domain)?.live);
        let _one_at_a_time = live.renewing.lock().await;
        for _ in 0..limits::RENEWALS {
            let known = gateway.peers.active(&domain)?.bundle.clone();
            let newer: Bundle = known.renewed(&signed, OffsetDateTime::now_utc())?;
            if newer == known {
                return Ok(());
            }
            let other = gateway.store.renew_bundle(&domain, &known.signed, &newer.signed).await;
            if let Some(other) = other.map_err(internal)? {
                // Another gateway of this domain was told of one meanwhile.
                gateway.peers.renew(&domain, &Bundle::read(&other)?);
                continue;
            }
            gateway.peers.renew(&domain, &newer);
            gateway.store.changed();
            info!(peer = %domain, sequence = newer.sequence, roots = newer.roots.len(), "a peer's bundle was renewed");
            return Ok(());
        }
        Err(Refusal::internal())
    })
    .await
}

/// A frame from a peer; none where its connection ended, well or not.
fn read(message: Result<Option<LinkRequest>, Status>) -> Result<Option<LinkRequest>, Refusal> {
    match message {
        Ok(request) => Ok(request),
        // What the codec refuses.
        Err(status) if status.metadata().contains_key(CODE) => Err(Refusal::from(&status)),
        // What the transport reports has a cause; what the decoder reports has none.
        Err(status) if std::error::Error::source(&status).is_some() => Ok(None),
        Err(status) if matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::ResourceExhausted) => {
            Err(Refusal::new(ErrorCode::TooLarge, "a frame is too large", "send chunks of 256 KiB at most"))
        }
        Err(_) => Err(Refusal::new(
            ErrorCode::Malformed,
            "a frame is not well-formed protobuf",
            "correct the gateway's software",
        )),
    }
}

/// Waits until a link should end: the gateway stops, or the link is old.
async fn is_to_end(gateway: &Gateway) {
    let age: Duration = limits::SESSION_AGE.mul_f64(rand::random_range(0.8..1.0));
    tokio::select! {
        () = gateway.stop.cancelled() => {}
        () = sleep(age) => {}
    }
}
