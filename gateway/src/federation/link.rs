//! The link to a peer: made, kept, made again; and the frames that go over it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use liaison_proto::{
    admin::v1::peer_state::Code as PeerState,
    federation::v1::{
        AcceptedChunk, Hello, LinkRequest, LinkResponse, Renewal, SignedBundle, Welcome,
        federation_service_client::FederationServiceClient, link_request::Frame as Request,
        link_response::Frame as Response,
    },
    limits::{ACCEPTANCES_BYTES, CLOCK_AHEAD, CONNECTION_AGE, GRPC_MESSAGE_BYTES, LINK_WINDOW},
    message::v1::{Refusal, error_code::Code as ErrorCode},
    refusal::CODE,
    times,
};
use liaison_trust::names::Domain;
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{Id, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tracing::{info, warn};

use super::{
    bundle, cosign, dial::dial, give, incoming, lost, peers::Peer, refusals::is_violation, tell, watch,
};
use crate::{authority::Authority, gateway::Gateway, limits};

/// Keeps a link to every active peer until the gateway stops.
pub async fn run(gateway: Arc<Gateway>, authority: Arc<Authority>) {
    let mut changed = gateway.peers.changed();
    let mut links = JoinSet::new();
    let mut kept: HashMap<Id, Domain> = HashMap::new();
    loop {
        changed.mark_unchanged();
        for peer in gateway.peers.all() {
            let is_kept = kept.values().any(|domain| *domain == peer.domain);
            if !is_kept && peer.state == PeerState::Active {
                let (gateway, authority) = (Arc::clone(&gateway), Arc::clone(&authority));
                let link = links.spawn(keep(gateway, authority, peer.domain.clone()));
                kept.insert(link.id(), peer.domain.clone());
            }
        }
        tokio::select! {
            () = gateway.stop.cancelled() => break,
            _ = changed.changed() => {}
            // Its peer may have become active again while it ended.
            Some(ended) = links.join_next_with_id() => {
                kept.remove(&ended.map_or_else(|fault| fault.id(), |(id, ())| id));
            }
        }
    }
    // They end at once: what is under way is offered again by the next run.
    while links.join_next().await.is_some() {}
}

/// Keeps the link to one peer as long as it is active.
async fn keep(gateway: Arc<Gateway>, authority: Arc<Authority>, domain: Domain) {
    let mut failures = 0;
    while let Ok(peer) = gateway.peers.active(&domain)
        && !gateway.stop.is_cancelled()
    {
        let cut = peer.live.token();
        let (mut linked, mut beside_since) = (None, None);
        let mut leads = gateway.leads.subscribe();
        let is_leader = *leads.borrow_and_update();
        let ended = tokio::select! {
            ended = once(&gateway, &authority, &peer, &cut, &mut linked), if is_leader => ended,
            ended = beside(&authority, &peer, &cut, &mut beside_since), if !is_leader => ended,
            _ = leads.changed() => Ok(()),
            () = cut.cancelled() => Ok(()),
            () = gateway.stop.cancelled() => Ok(()),
        };
        peer.live.set_channel(None);
        // One that welcomes and hangs up is no better than one that can't be reached.
        let stood =
            linked.or(beside_since).is_some_and(|since: Instant| since.elapsed() >= limits::LINK_STOOD);
        failures = if stood { 0 } else { failures + 1 };
        match ended {
            Ok(()) => peer.live.set_problem(None),
            Err(refusal) => {
                warn!(peer = %domain, code = refusal.code().as_str_name(), "not linked: {}", refusal.message);
                peer.live.set_problem(Some(format!("{}; {}", refusal.message, refusal.action)));
            }
        }
        tokio::select! {
            () = sleep(backoff(failures)) => {}
            () = gateway.stop.cancelled() => {}
        }
    }
}

/// Twice as long after each failure, less a random half, so that gateways don't come back together.
fn backoff(failures: u32) -> Duration {
    let (least, most) = limits::LINK_BACKOFF;
    let wait = least.saturating_mul(1 << failures.min(10)).min(most);
    wait.mul_f64(rand::random_range(0.5..1.0))
}

/// A connection beside the link that another gateway of this domain has, over which its agencies' previews are asked.
async fn beside(
    authority: &Authority,
    peer: &Arc<Peer>,
    cut: &CancellationToken,
    since: &mut Option<Instant>,
) -> Result<(), Refusal> {
    let channel = dial(authority, peer, cut).await?;
    peer.live.set_problem(None);
    peer.live.set_channel(Some(channel.clone()));
    *since = Some(Instant::now());
    let mut health = HealthClient::new(channel);
    loop {
        sleep(limits::LINK_STOOD).await;
        let request = HealthCheckRequest::default();
        let asked = timeout(limits::HELLO, health.check(request)).await;
        asked.map_err(|_| silent(&peer.domain))?.map_err(|status| broke(peer, &status))?;
    }
}

/// One link from its beginning to its end. `linked` is since when it stands.
async fn once(
    gateway: &Arc<Gateway>,
    authority: &Authority,
    peer: &Arc<Peer>,
    cut: &CancellationToken,
    linked: &mut Option<Instant>,
) -> Result<(), Refusal> {
    let channel = dial(authority, peer, cut).await?;
    // One at a time, so that what was sent is on its way and not in line.
    let (frames, outgoing) = mpsc::channel(1);
    let own = gateway.peers.own().borrow().clone();
    let hello = Hello { bundle: Some(own.clone()), gateway_version: env!("CARGO_PKG_VERSION").to_owned() };
    let _ = frames.send(LinkRequest { frame: Some(Request::Hello(hello)) }).await;
    let mut client = FederationServiceClient::new(channel.clone())
        .max_decoding_message_size(GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES);
    let begin = async {
        let mut inbound = client.link(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = inbound.message().await?;
        Ok::<_, Status>((inbound, first))
    };
    let begun = timeout(limits::HELLO, begin).await.map_err(|_| no_welcome(&peer.domain))?;
    let begun = begun.map_err(|status| broke(peer, &status));
    let (inbound, first) = begun.inspect_err(|refusal| gateway.peers.refused_own(&own, refusal))?;
    let Some(LinkResponse { frame: Some(Response::Welcome(welcome)) }) = first else {
        return Err(no_welcome(&peer.domain));
    };
    same_clock(peer, &welcome)?;
    let bundle = welcome.bundle.clone().unwrap_or_default();
    renew(gateway, peer, &bundle).await?;
    peer.live.took(bundle::sequence(&own));
    lost::offer_again(gateway, &peer.domain, welcome.log).await?;
    peer.live.set_problem(None);
    peer.live.set_channel(Some(channel.clone()));
    *linked = Some(Instant::now());
    info!(peer = %peer.domain, version = welcome.gateway_version, "linked");
    let link = Arc::new(Link {
        gateway: Arc::clone(gateway),
        peer: Arc::clone(peer),
        frames,
        numbers: AtomicU64::new(0),
        waiting: Mutex::default(),
        window: Arc::new(Semaphore::new(welcome.window.clamp(1, LINK_WINDOW) as usize)),
        log: welcome.log,
    });
    let (told, directory) = oneshot::channel();
    let give = async {
        // A message may be signed by a key that the peer learns of in the directory.
        let _ = timeout(limits::ANSWER_LATE, directory).await;
        give::run(&link).await
    };
    tokio::select! {
        ended = link.read(inbound) => ended,
        ended = give => ended,
        ended = tell::run(&link, &welcome, told) => ended,
        ended = link.renew_bundles(own) => ended,
        () = cosign::run(&link, channel.clone()) => Ok(()),
        () = watch::run(&link, channel) => Ok(()),
        // What is under way then is offered again on the next link.
        () = sleep(CONNECTION_AGE.mul_f64(rand::random_range(0.7..0.9))) => Ok(()),
    }
}

/// A link that stands.
pub(super) struct Link {
    pub(super) gateway: Arc<Gateway>,
    pub(super) peer: Arc<Peer>,
    frames: mpsc::Sender<LinkRequest>,
    numbers: AtomicU64,
    /// Who waits for the answers to frames, by their numbers.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// Frames that may be under way.
    pub(super) window: Arc<Semaphore>,
    /// The number of the log that the peer signs: it opens another only after it has ended.
    pub(super) log: u32,
}

/// The answer to a frame.
pub(super) enum Answer {
    /// The encoded acceptances of a message.
    Accepted(Bytes),
    Done,
    Refused(Refusal),
}

/// The link ended before the answer came.
pub(super) struct Gone;

impl Link {
    /// Sends what makes up one frame or message, each part made with its number, and waits for the answer.
    pub(super) async fn ask(&self, parts: impl Fn(u64) -> Vec<Request>) -> Result<Answer, Gone> {
        self.send(parts).await?.await.map_err(|_| Gone)
    }

    /// Sends the same; the answer that is to come, or nothing where the link ends before.
    pub(super) async fn send(
        &self,
        parts: impl Fn(u64) -> Vec<Request>,
    ) -> Result<oneshot::Receiver<Answer>, Gone> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        self.waiting().insert(number, answer);
        for frame in parts(number) {
            self.frames.send(LinkRequest { frame: Some(frame) }).await.map_err(|_| Gone)?;
        }
        Ok(answered)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer as it stands now.
    pub(super) fn peer(&self) -> Arc<Peer> {
        self.gateway.peers.get(&self.peer.domain).unwrap_or_else(|| Arc::clone(&self.peer))
    }

    /// Reads answers until the link ends.
    async fn read(&self, mut inbound: Streaming<LinkResponse>) -> Result<(), Refusal> {
        let mut parts = Parts::default();
        loop {
            let Ok(next) = timeout(limits::LINK_ANSWER, inbound.message()).await else {
                if self.waiting().is_empty() {
                    continue;
                }
                return Err(silent(&self.peer.domain));
            };
            let Some(response) = next.map_err(|status| broke(&self.peer, &status))? else {
                return Err(closed(&self.peer.domain));
            };
            match response.frame {
                Some(Response::Accepted(chunk)) => {
                    if !self.waiting().contains_key(&chunk.number) {
                        return Err(self.protocol(UNASKED));
                    }
                    let number = chunk.number;
                    if let Some(whole) = parts.add(chunk).map_err(|what| self.protocol(what))? {
                        self.answered(number, Answer::Accepted(whole.into()))?;
                    }
                }
                Some(Response::Refused(refused)) => {
                    let refusal = refused.refusal.unwrap_or_default();
                    self.answered(refused.number, Answer::Refused(in_words(&self.peer.domain, refusal)))?;
                }
                Some(Response::Done(done)) => self.answered(done.number, Answer::Done)?,
                Some(Response::Renewal(renewal)) => {
                    let bundle = renewal.bundle.unwrap_or_default();
                    match renew(&self.gateway, &self.peer, &bundle).await {
                        // The peer hears so where it asks, on its own link.
                        Err(refusal)
                            if refusal.code() == ErrorCode::StaleBundle && !is_violation(&refusal) => {}
                        taken => taken?,
                    }
                }
                Some(Response::Drain(_)) => return Ok(()),
                Some(Response::Welcome(_)) | None => return Err(self.protocol("an unexpected frame")),
            }
        }
    }

    fn answered(&self, number: u64, answer: Answer) -> Result<(), Refusal> {
        let waiting = self.waiting().remove(&number);
        let Some(waiting) = waiting else { return Err(self.protocol(UNASKED)) };
        // Whoever waited may have gone meanwhile.
        let _ = waiting.send(answer);
        Ok(())
    }

    /// Tells the peer of newer bundles of this domain.
    async fn renew_bundles(&self, mut last: SignedBundle) -> Result<(), Refusal> {
        let mut own = self.gateway.peers.own();
        loop {
            let newest = own.borrow_and_update().clone();
            if newest != last {
                let renewal =
                    |number| vec![Request::Renewal(Renewal { number, bundle: Some(newest.clone()) })];
                match self.ask(renewal).await {
                    Ok(Answer::Done) => self.peer.live.took(bundle::sequence(&newest)),
                    // The newer one is on its way over the other link, and comes over this one next.
                    Ok(Answer::Refused(refusal))
                        if refusal.code() == ErrorCode::StaleBundle && *own.borrow() != newest => {}
                    Ok(Answer::Refused(refusal)) => {
                        self.gateway.peers.refused_own(&newest, &refusal);
                        return Err(refusal);
                    }
                    Ok(Answer::Accepted(_)) => return Err(self.protocol("an answer of another kind")),
                    Err(Gone) => return Err(closed(&self.peer.domain)),
                }
                last = newest;
            }
            if own.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// The peer does not keep to the protocol.
    pub(super) fn protocol(&self, what: &str) -> Refusal {
        let refusal = Refusal::new(
            ErrorCode::PeerViolation,
            format!("the gateway of {} breaks the link's protocol: {what}", self.peer.domain),
            "tell its administrator",
        );
        self.peer.violation(&refusal);
        refusal
    }
}

/// Answers of which more is to come.
#[derive(Default)]
struct Parts {
    answers: HashMap<u64, Vec<u8>>,
    bytes: usize,
}

impl Parts {
    /// Adds a chunk to its answer; the whole of it after its last.
    ///
    /// # Errors
    /// What the peer does that it must not.
    fn add(&mut self, chunk: AcceptedChunk) -> Result<Option<Vec<u8>>, &'static str> {
        let answer = self.answers.entry(chunk.number).or_default();
        answer.extend_from_slice(&chunk.data);
        self.bytes += chunk.data.len();
        if answer.len() > ACCEPTANCES_BYTES {
            return Err("an answer that is too long");
        }
        if self.bytes > limits::ANSWERS_BYTES {
            return Err("too much of answers that it does not finish");
        }
        if !chunk.last {
            return Ok(None);
        }
        let whole = self.answers.remove(&chunk.number).unwrap_or_default();
        self.bytes -= whole.len();
        Ok(Some(whole))
    }
}

/// Takes a newer bundle of the peer.
async fn renew(gateway: &Arc<Gateway>, peer: &Peer, bundle: &SignedBundle) -> Result<(), Refusal> {
    incoming::renew(gateway, &peer.domain, bundle).await.inspect_err(|refusal| {
        if is_violation(refusal) {
            peer.violation(refusal);
        }
    })
}

const UNASKED: &str = "an answer to something that is not under way";

/// What the link failed with. Where the peer itself did not say why, the connection broke.
fn broke(peer: &Peer, status: &Status) -> Refusal {
    if status.metadata().get(CODE).is_some() && std::error::Error::source(status).is_some() {
        let refusal = Refusal::from(status);
        let message = format!("{} sends what can't be read: {}", peer.domain, refusal.message);
        let refusal = Refusal { message, ..refusal };
        peer.violation(&refusal);
        return refusal;
    }
    if status.metadata().get(CODE).is_some() {
        return in_words(&peer.domain, Refusal::from(status));
    }
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("the link to {} broke", peer.domain),
        "it is made again by itself; check the network if that does not help",
    )
}

fn closed(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("{domain} closed the link"),
        "it is made again by itself; look at that gateway's log if that does not help",
    )
}

fn silent(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("the gateway of {domain} takes what it is sent and answers nothing"),
        "the link is made again by itself; look at that gateway's log if that does not help",
    )
}

fn no_welcome(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("the gateway of {domain} did not answer to the link's beginning"),
        "it is tried again by itself; look at that gateway's log if that does not help",
    )
}

/// Nothing is judged by a wrong clock: genuine messages would be taken for expired ones.
fn same_clock(peer: &Peer, welcome: &Welcome) -> Result<(), Refusal> {
    let theirs = welcome.now.as_ref().and_then(times::from_wire);
    let theirs = theirs.ok_or_else(|| no_welcome(&peer.domain))?;
    let ahead = OffsetDateTime::now_utc() - theirs;
    if ahead.unsigned_abs() <= CLOCK_AHEAD {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::ClockSkew,
        format!(
            "the clocks of this gateway and of {}'s are {} s apart",
            peer.domain,
            ahead.unsigned_abs().as_secs()
        ),
        "set the one that is wrong",
    ))
}

/// What a peer says, with who says it, and no longer than it takes: it is shown to people.
pub(super) fn in_words(domain: &Domain, refusal: Refusal) -> Refusal {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| !c.is_control()).take(limits::PEER_WORDS_CHARS).collect()
    };
    Refusal {
        message: format!("{domain}: {}", plain(&refusal.message)),
        action: plain(&refusal.action),
        rule: None,
        ..refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u64, bytes: usize, last: bool) -> AcceptedChunk {
        AcceptedChunk { number, data: vec![0; bytes].into(), last }
    }

    #[test]
    fn answers_are_put_together_within_bounds() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(chunk(1, 3, false)), Ok(None));
        assert_eq!(parts.add(chunk(2, 4, true)), Ok(Some(vec![0; 4])));
        assert_eq!(parts.add(chunk(1, 2, true)), Ok(Some(vec![0; 5])));
        assert!(Parts::default().add(chunk(1, ACCEPTANCES_BYTES + 1, true)).is_err());

        // What is finished counts no more.
        let longest = u64::try_from(limits::ANSWERS_BYTES / ACCEPTANCES_BYTES).unwrap();
        for number in 0..2 * longest {
            assert!(parts.add(chunk(number, ACCEPTANCES_BYTES, true)).unwrap().is_some());
        }
        for number in 0..longest {
            assert_eq!(parts.add(chunk(number, ACCEPTANCES_BYTES, false)), Ok(None));
        }
        assert!(parts.add(chunk(longest, 1, false)).is_err(), "all of them together are too long");
    }
}
