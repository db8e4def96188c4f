//! The connection to the gateway: made, kept, made again; and the calls that go over it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use liaison_proto::{
    exchange::v1::{
        ListAgenciesRequest, ListAgenciesResponse, ListKeyEntriesRequest, ListKeyEntriesResponse,
        ListReceiptsRequest, ListReceiptsResponse, PreviewRequest, PreviewResponse, PublishKeyRequest,
        RenewRequest, ResolveAudienceRequest, ResolveAudienceResponse,
        enrolment_service_client::EnrolmentServiceClient, exchange_service_client::ExchangeServiceClient,
    },
    limits::{GRPC_MESSAGE_BYTES, REQUEST},
    message::v1::{Refusal, error_code::Code as ErrorCode},
    refusal::CODE,
};
use liaison_trust::{
    key_record::{self, ProvenKey},
    keys::VerifyingKey,
    names::AgencyAddress,
    tls::{Connector, Fault, SetupError, TlsError},
};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, transport::Channel};

use crate::{
    agent::Agent,
    backoff,
    certificate::{Credentials, CredentialsError, store_issued},
    config::Config,
    custody::CustodyError,
    dial::{DialError, Dialer},
    folder::Folder,
    limits, log,
    session::{self, Ended, SessionError},
    store::StoreError,
};

/// The connection to the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    folder: Folder,
    config: Config,
    dialer: Dialer,
    credentials: ArcSwap<Credentials>,
    channel: ArcSwapOption<Channel>,
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    connected: bool,
    problem: Option<String>,
}

/// Whether the gateway can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    pub connected: bool,
    /// Who is at fault, what is wrong and what to do, where something is.
    pub problem: Option<String>,
    pub certificate_expires: Option<OffsetDateTime>,
}

/// Why the connection is not there, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("this agent's certificate could not be renewed: {0}")]
    Renewal(Refusal),
    #[error("this agent's certificate could not be renewed: {0}")]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("this agency's keys could not be published: {0}")]
    Publish(Refusal),
    /// Nothing goes on like this: others would seal to keys that somebody else has.
    #[error(
        "the gateway lists keys of {0} that this agent did not make; restore this agent from its backup, and if it has none or never had other keys, tell the gateway's administrator at once: somebody may receive in this agency's name"
    )]
    ForeignKeys(AgencyAddress),
    #[error(transparent)]
    Custody(#[from] CustodyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl Link {
    pub fn new(folder: Folder, config: Config, credentials: Credentials) -> Result<Self, SetupError> {
        let connector = Connector::new(credentials.trust.clone(), Some(credentials.identity.clone()))?;
        Ok(Self(Arc::new(Inner {
            dialer: Dialer::new(&config, connector),
            folder,
            config,
            credentials: ArcSwap::from_pointee(credentials),
            channel: ArcSwapOption::empty(),
            standing: Mutex::default(),
        })))
    }

    /// How the connection stands.
    pub fn status(&self) -> LinkStatus {
        let standing = self.standing();
        LinkStatus {
            connected: standing.connected,
            problem: standing.problem.clone(),
            certificate_expires: Some(self.0.credentials.load().not_after),
        }
    }

    /// The key with which the gateway signs.
    pub fn gateway_key(&self) -> VerifyingKey {
        self.0.credentials.load().gateway
    }

    /// Asks the gateway to decide without sending.
    pub async fn preview(&self, request: PreviewRequest) -> Result<PreviewResponse, Refusal> {
        answer(self.client()?.preview(timed(request)).await)
    }

    /// Asks the gateway which agencies an alert's audience is.
    pub async fn resolve_audience(
        &self,
        request: ResolveAudienceRequest,
    ) -> Result<ResolveAudienceResponse, Refusal> {
        answer(self.client()?.resolve_audience(timed(request)).await)
    }

    /// Asks the gateway for agencies.
    pub async fn list_agencies(&self, request: ListAgenciesRequest) -> Result<ListAgenciesResponse, Refusal> {
        answer(self.client()?.list_agencies(timed(request)).await)
    }

    /// The key with which the heads of the domain's log are signed, as it was pinned at enrolment; none where the gateway
    /// has not told it yet.
    pub fn log_key(&self) -> Option<VerifyingKey> {
        self.0.credentials.load().log_key
    }

    /// Asks the gateway for receipts.
    pub async fn list_receipts(&self, request: ListReceiptsRequest) -> Result<ListReceiptsResponse, Refusal> {
        answer(self.client()?.list_receipts(timed(request)).await)
    }

    /// Asks the gateway for entries of its log of keys.
    pub async fn list_key_entries(
        &self,
        request: ListKeyEntriesRequest,
    ) -> Result<ListKeyEntriesResponse, Refusal> {
        answer(self.client()?.list_key_entries(timed(request)).await)
    }

    /// The session has begun.
    pub(crate) fn connected(&self) {
        let mut standing = self.standing();
        standing.connected = true;
        standing.problem = None;
    }

    fn client(&self) -> Result<ExchangeServiceClient<Channel>, Refusal> {
        Ok(exchange(self.channel()?))
    }

    /// What calls go over.
    pub(crate) fn channel(&self) -> Result<Channel, Refusal> {
        match self.0.channel.load_full() {
            Some(channel) => Ok(channel.as_ref().clone()),
            None => {
                let problem = self.standing().problem.clone();
                let problem = problem.unwrap_or_else(|| "the gateway is not connected yet".to_owned());
                let action =
                    "what is sent is kept and delivered when the gateway is back; ask for the rest later";
                Err(Refusal::new(ErrorCode::GatewayUnreachable, problem, action)
                    .retry_after(Duration::from_secs(1)))
            }
        }
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, problem: Option<String>) {
        self.0.channel.store(None);
        let mut standing = self.standing();
        standing.connected = false;
        standing.problem = problem;
    }
}

/// Keeps the connection until `stop`.
pub async fn keep(agent: &Agent, stop: &CancellationToken) {
    let link = &agent.link;
    let mut failures = 0;
    let mut expired = false;
    while !stop.is_cancelled() {
        let connected = connect_once(agent, stop, expired).await;
        let lasted = link.status().connected;
        expired = matches!(
            &connected,
            Err(LinkError::Dial(DialError::Tls { source: TlsError::Ours(Fault::Expired), .. }))
        );
        let wait = match connected {
            Ok(Ended::Stopped) => break,
            Ok(Ended::Drained) => {
                tracing::info!("the gateway asked to connect again");
                link.ended(None);
                failures = 0;
                // Not all agents at the same moment.
                backoff::after(failures)
            }
            Err(error) => {
                failures = if lasted { 0 } else { failures + 1 };
                let wait = backoff::after(failures);
                tracing::warn!(%error, wait_ms = wait.as_millis(), "not connected");
                link.ended(Some(error.to_string()));
                wait
            }
        };
        let _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
    link.ended(None);
}

/// One connection from its beginning to its end. `expired`: the gateway says that the certificate is.
async fn connect_once(agent: &Agent, stop: &CancellationToken, expired: bool) -> Result<Ended, LinkError> {
    let link = &agent.link;
    if expired || link.0.credentials.load().expired(OffsetDateTime::now_utc()) {
        tokio::select! {
            renewed = renew_expired(link) => renewed?,
            () = stop.cancelled() => return Ok(Ended::Stopped),
        }
    }
    let connect = async {
        let channel = link.0.dialer.dial().await?;
        link.0.channel.store(Some(Arc::new(channel.clone())));
        if link.log_key().is_none() {
            // A certificate of before there was a log came without it, and nothing is sealed without it.
            renew(link, channel.clone(), false).await?;
        }
        publish_keys(agent).await?;
        if let Err(error) = agent.directory.replay().await {
            tracing::warn!(%error, "the log of keys could not be replayed");
        }
        Ok::<_, LinkError>(channel)
    };
    let channel = tokio::select! {
        channel = connect => channel?,
        () = stop.cancelled() => return Ok(Ended::Stopped),
    };
    tokio::select! {
        ended = session::run(agent, exchange(channel.clone()), stop) => Ok(ended?),
        never = renew_in_time(link, channel) => match never {},
    }
}

/// Publishes this agency's key records as far as the gateway does not have them. Watches for such as
/// this agent did not make.
async fn publish_keys(agent: &Agent) -> Result<(), LinkError> {
    let own = agent.address.to_string();
    let request = ListAgenciesRequest { addresses: vec![own.clone()], after: String::new() };
    let listed = agent.link.list_agencies(request).await.map_err(LinkError::Publish)?;
    let listed = listed.agencies.into_iter().find(|agency| agency.address == own);
    let listed = listed.map(|agency| agency.keys).unwrap_or_default();
    let ring = agent.custody.ring();
    let Some(adopted) = agent.custody.adopt(&listed)? else {
        let own = |key: &ProvenKey| ring.chain().iter().any(|own| own.id == key.id);
        for key in listed.iter().filter_map(|record| key_record::prove(record).ok()).filter(|key| !own(key)) {
            log::keys::foreign(agent, &key, "is listed by the gateway").await?;
        }
        return Err(LinkError::ForeignKeys(agent.address.clone()));
    };
    if !agent.custody.is_restored() {
        for key in &adopted {
            log::keys::foreign(agent, key, "is listed by the gateway").await?;
        }
    }
    agent.custody.rotate(OffsetDateTime::now_utc())?;
    for key in agent.custody.ring().chain().iter().skip(listed.len()) {
        let request = PublishKeyRequest { key: Some(key.signed.clone()) };
        let mut client = agent.link.client().map_err(LinkError::Publish)?;
        answer(client.publish_key(timed(request)).await).map_err(LinkError::Publish)?;
        tracing::info!(key = %key.id, sequence = key.sequence, "key record published");
    }
    Ok(agent.custody.settle_restored().map_err(CustodyError::from)?)
}

/// Renews the certificate whenever its time comes, over a connection that it made.
async fn renew_in_time(link: &Link, channel: Channel) -> std::convert::Infallible {
    let mut failures = 0;
    let mut at = link.0.credentials.load().renew_at();
    loop {
        // In steps, by the clock on the wall: a machine that slept wakes up late.
        while OffsetDateTime::now_utc() < at {
            let left = (at - OffsetDateTime::now_utc()).max(time::Duration::ZERO).unsigned_abs();
            tokio::time::sleep(left.min(limits::SWEEP)).await;
        }
        match renew(link, channel.clone(), false).await {
            Ok(()) => {
                failures = 0;
                // Whatever the gateway issued, not again at once.
                let soonest = OffsetDateTime::now_utc() + limits::BACKOFF_LEAST;
                at = link.0.credentials.load().renew_at().max(soonest);
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "will try to renew again");
                at = OffsetDateTime::now_utc() + backoff::after(failures);
            }
        }
    }
}

/// Renews a certificate that has expired, without it.
async fn renew_expired(link: &Link) -> Result<(), LinkError> {
    tracing::warn!("the certificate has expired; renewing it");
    let credentials = link.0.credentials.load_full();
    link.0.dialer.connector.replace(credentials.trust.clone(), None)?;
    let renewed = match link.0.dialer.dial().await {
        Ok(channel) => renew(link, channel, true).await,
        Err(error) => Err(error.into()),
    };
    if renewed.is_err() {
        let identity = Some(credentials.identity.clone());
        link.0.dialer.connector.replace(credentials.trust.clone(), identity)?;
    }
    renewed
}

async fn renew(link: &Link, channel: Channel, expired: bool) -> Result<(), LinkError> {
    let credentials = link.0.credentials.load_full();
    let request = RenewRequest {
        certificate_request: credentials.request()?.into(),
        expired_certificate: if expired {
            credentials.identity.certificate().to_vec().into()
        } else {
            Default::default()
        },
    };
    let mut client = EnrolmentServiceClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES);
    let renewed = answer(client.renew(timed(request)).await).map_err(LinkError::Renewal)?;
    let Inner { folder, config, .. } = &*link.0;
    let key = credentials.identity.key();
    store_issued(folder, config, key, &renewed.certificates, renewed.bundle.as_ref())?;
    let credentials = Credentials { since: OffsetDateTime::now_utc(), ..Credentials::load(folder, config)? };
    link.0.dialer.connector.replace(credentials.trust.clone(), Some(credentials.identity.clone()))?;
    tracing::info!(expires = %credentials.not_after, "certificate renewed");
    link.0.credentials.store(Arc::new(credentials));
    Ok(())
}

fn exchange(channel: Channel) -> ExchangeServiceClient<Channel> {
    ExchangeServiceClient::new(channel)
        .max_decoding_message_size(limits::ANSWER_BYTES)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES)
}

/// A request that is given up after the usual time.
fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(REQUEST);
    request
}

fn answer<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Refusal> {
    answer.map(tonic::Response::into_inner).map_err(|status| refusal(&status))
}

/// What a call failed with. Where the gateway itself did not say why, the connection broke.
pub(crate) fn refusal(status: &tonic::Status) -> Refusal {
    let broke = matches!(
        status.code(),
        Code::Unknown | Code::Internal | Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded
    );
    if status.metadata().get(CODE).is_some() || !broke {
        return Refusal::from(status);
    }
    let message = format!("the connection to the gateway broke: {}", status.message());
    Refusal::new(ErrorCode::GatewayUnreachable, message, "it is made again by itself; ask again in a moment")
        .retry_after(Duration::from_secs(1))
}
