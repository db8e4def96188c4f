//! A gateway from start to end.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use liaison_proto::{
    DESCRIPTORS,
    admin::v1::admin_service_server,
    exchange::v1::{
        enrolment_service_server::{self, EnrolmentServiceServer},
        exchange_service_server,
    },
    limits::GRPC_MESSAGE_BYTES,
};
use liaison_trust::{
    ca::{Authority as Ca, CaError},
    keys::SigningKey,
};
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};
use tracing::{error, info};

use crate::{
    admin::{self, Admin, SocketError},
    authority::{Authority, AuthorityError},
    config::Config,
    data::{DataError, DataFolder, read_secret, read_text},
    delivery::sweep,
    enrolment::Enrolment,
    exchange,
    gateway::Gateway,
    health, limits,
    policy::{PolicyError, PolicyFile, PolicySet},
    revoked::RevokedFile,
    store::{Store, StoreError},
    strict::Strict,
};

/// Why a gateway did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("the CA's files are not usable ({0}); restore ca.pem and ca.key from a backup")]
    Ca(#[from] CaError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("{} is not there; restore it from a backup", .0.display())]
    NoDatabase(PathBuf),
    #[error("the database is not usable ({0}); run `liaison-gateway doctor`")]
    Store(#[from] StoreError),
    #[error("the database holds no policy set; restore it from a backup")]
    NoPolicy,
    #[error("the active policy set does not fit this version: {0}")]
    Policy(#[from] PolicyError),
    #[error(
        "`{setting}` in gateway.toml is {address}, which can't be listened on ({source}); free it or choose another"
    )]
    Address { setting: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("metrics can't be recorded ({0})")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error("the gateway can't watch for signals ({0})")]
    Signals(io::Error),
    #[error("the exchange can't describe itself ({0})")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the exchange failed ({0})")]
    Exchange(#[from] tonic::transport::Error),
    #[error("a part of the gateway ended by itself; its log says why")]
    Ended,
}

/// Runs a gateway until SIGTERM or SIGINT, then lets what is under way finish.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub async fn run(folder: &DataFolder, config: &Config) -> Result<(), RunError> {
    let mut signals = Signals::watch().map_err(RunError::Signals)?;
    // A second gateway on the same folder ends here.
    let _alone = folder.lock()?;
    let socket = admin::listen(&folder.admin_socket())?;
    let listener = bind("exchange", config.exchange).await?;
    let watched = bind("metrics", config.metrics).await?;
    let metrics = health::record_metrics()?;
    let (gateway, authority) = load(folder, config).await?;

    let (reporter, grpc_health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let stop = gateway.stop.clone();
    let mut parts = JoinSet::<Result<(), RunError>>::new();
    let admin = Admin::new(Arc::clone(&gateway), Arc::clone(&authority), config.reachable_at());
    parts.spawn({
        let (stop, grpc_health) = (stop.clone(), grpc_health.clone());
        async move { Ok(socket.serve(admin, stop, grpc_health).await?) }
    });
    let routes = routes(&gateway, &authority, grpc_health)?;
    let acceptor = Arc::clone(authority.acceptor());
    parts.spawn({
        let gateway = Arc::clone(&gateway);
        async move { Ok(exchange::server::serve(gateway, acceptor, listener, routes).await?) }
    });
    parts.spawn({
        let gateway = Arc::clone(&gateway);
        async move {
            sweep::run(gateway).await;
            Ok(())
        }
    });
    parts.spawn(maintain(Arc::clone(&gateway), Arc::clone(&authority)));
    // Readiness is told until all else has ended.
    let drained = CancellationToken::new();
    let watch =
        health::serve(watched, Arc::clone(&gateway), authority, metrics, drained.clone().cancelled_owned());
    let watch = tokio::spawn(watch);
    info!(domain = %gateway.domain, exchange = %config.exchange, metrics = %config.metrics, "gateway runs");

    let outcome = tokio::select! {
        signal = signals.next() => {
            info!(signal, "gateway stops");
            Ok(())
        }
        ended = parts.join_next() => ended.map_or(Err(RunError::Ended), part_ended).and(Err(RunError::Ended)),
    };
    report(&reporter, ServingStatus::NotServing).await;
    stop.cancel();
    let end = Instant::now() + limits::STOP;
    let mut outcome = outcome;
    while let Ok(Some(ended)) = tokio::time::timeout_at(end, parts.join_next()).await {
        outcome = outcome.and(part_ended(ended));
    }
    drained.cancel();
    _ = timeout(limits::CLOSE, watch).await;
    _ = timeout(limits::CLOSE, gateway.store.close()).await;
    info!("gateway stopped");
    outcome
}

/// Reads everything that a gateway consists of.
async fn load(folder: &DataFolder, config: &Config) -> Result<(Arc<Gateway>, Arc<Authority>), RunError> {
    let ca = Ca::from_pem(&read_text(&folder.ca_certificate())?, &read_secret(&folder.ca_key())?)?;
    let signing = signing_key(folder)?;
    // Opening would make an empty one, and everything that was accepted would be forgotten.
    if !folder.database().exists() {
        return Err(RunError::NoDatabase(folder.database()));
    }
    let store = Store::open(&folder.database(), config.limits.queue()).await?;
    let (file, revocations) = RevokedFile::open(&folder.revoked())?;
    let now = OffsetDateTime::now_utc();
    let authority = Authority::start(ca, config, file, &revocations, &store, now).await?;
    let policy = active_policy(&store).await?;
    let directory = store.directory().await?;
    let gateway = Gateway::new(config.domain.clone(), signing, store, directory, policy);
    Ok((Arc::new(gateway), Arc::new(authority)))
}

/// Reads the key with which the gateway signs.
pub(crate) fn signing_key(folder: &DataFolder) -> Result<SigningKey, DataError> {
    let path = folder.signing_key();
    let text = read_secret(&path)?;
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), seed.as_mut())
        .map_err(|_| DataError::Damaged { path, fault: "not 64 hexadecimal digits".to_owned() })?;
    Ok(SigningKey::from_seed(&seed))
}

/// The policy set that was activated last.
async fn active_policy(store: &Store) -> Result<PolicySet, RunError> {
    let files = store.active_policy().await?.ok_or(RunError::NoPolicy)?.files;
    let files: Vec<_> = files.into_iter().map(PolicyFile::from).collect();
    Ok(PolicySet::load(&files)?)
}

/// Tells the health of the gateway as a whole, and of each of its services.
async fn report(reporter: &HealthReporter, status: ServingStatus) {
    let services = [
        "",
        enrolment_service_server::SERVICE_NAME,
        exchange_service_server::SERVICE_NAME,
        admin_service_server::SERVICE_NAME,
    ];
    for service in services {
        reporter.set_service_status(service, status).await;
    }
}

/// What the exchange listener answers.
fn routes(
    gateway: &Arc<Gateway>,
    authority: &Arc<Authority>,
    health: HealthServer<impl Health>,
) -> Result<Routes, RunError> {
    let enrolment = Enrolment::new(Arc::clone(gateway), Arc::clone(authority));
    let enrolment = EnrolmentServiceServer::new(enrolment)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES);
    let enrolment = Strict::new(enrolment, GRPC_MESSAGE_BYTES);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .with_service_name(enrolment_service_server::SERVICE_NAME)
        .with_service_name(exchange_service_server::SERVICE_NAME)
        .build_v1()?;
    let exchange = exchange::service(gateway);
    Ok(Routes::new(enrolment).add_service(exchange).add_service(reflection).add_service(health))
}

/// Renews the gateway's own certificate and the revocation list, and forgets what is long over.
async fn maintain(gateway: Arc<Gateway>, authority: Arc<Authority>) -> Result<(), RunError> {
    // By the clock on the wall: a machine that slept is to notice.
    let mut published = OffsetDateTime::now_utc();
    loop {
        tokio::select! {
            () = gateway.stop.cancelled() => return Ok(()),
            () = sleep(authority.renewal_check()) => {}
        }
        let now = OffsetDateTime::now_utc();
        if let Err(error) = authority.renew_own(now) {
            error!(%error, "the gateway's certificate was not renewed");
        }
        let is_old = (now - published).unsigned_abs() >= limits::REVOCATION_LIST_AGE;
        if is_old || authority.is_stale() {
            match refresh(&gateway, &authority, now).await {
                Ok(()) => published = now,
                Err(error) => error!(%error, "the revocation list was not renewed"),
            }
        }
    }
}

async fn refresh(
    gateway: &Gateway,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<(), AuthorityError> {
    authority.publish(&gateway.store, now).await?;
    Ok(gateway.store.forget_expired(now).await?)
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Address { setting, address, source })
}

fn part_ended(ended: Result<Result<(), RunError>, tokio::task::JoinError>) -> Result<(), RunError> {
    ended.unwrap_or_else(|panic| {
        error!(%panic, "a part of the gateway ended by itself");
        Err(RunError::Ended)
    })
}

/// The signals that stop a gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
