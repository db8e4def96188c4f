//! A gateway from start to end.

use std::{io, net::SocketAddr, sync::Arc};

use liaison_proto::{
    DESCRIPTORS,
    admin::v1::admin_service_server,
    exchange::v1::{
        enrolment_service_server::{self, EnrolmentServiceServer},
        exchange_service_server,
    },
    federation::v1::federation_service_server,
    limits::GRPC_MESSAGE_BYTES,
    message::v1::Refusal,
};
use liaison_trust::{
    keys::SigningKey,
    names::Domain,
    tls::{Acceptor, DomainTrust, SetupError},
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
    authority::{Authority, AuthorityError, Cas, CasError},
    config::Config,
    data::{DataError, DataFolder, read_secret},
    delivery::sweep,
    directory::Directory,
    enrolment::Enrolment,
    exchange,
    federation::{self, peers::Peers},
    gateway::Gateway,
    health, limits,
    log::{self, LogError, Logs},
    policy::{PolicyError, PolicyFile, PolicySet},
    replicas,
    revoked::RevokedFile,
    server,
    store::{Company, Database, Lead, Store, StoreError},
    strict::Strict,
};

/// Why a gateway did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Cas(#[from] CasError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(
        "{0} is not there, or holds nothing of a gateway; name the right one in gateway.toml, or restore it from a backup"
    )]
    NoDatabase(Database),
    #[error("{database} is of the domain {domain}: name the database of {own} as `database` in gateway.toml")]
    OtherDomain { database: Database, domain: String, own: Domain },
    #[error("the database is not usable ({0}); run `liaison-gateway doctor`")]
    Store(#[from] StoreError),
    #[error("the log of evidence is not what this gateway signed ({0}); run `liaison-gateway log verify`")]
    Log(#[from] LogError),
    #[error(
        "other gateways of the domain run with other CAs: stop this one, and copy ca*.pem and ca*.key from the data folder of \
         one of them"
    )]
    OtherRoots,
    #[error("the database holds no policy set; restore it from a backup")]
    NoPolicy,
    #[error("what the database holds of a peer can't be read ({0}); restore it from a backup")]
    Peers(Refusal),
    #[error("the federation listener can't be set up ({0})")]
    Tls(#[from] SetupError),
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
    let peers_at = match config.federation {
        Some(address) => Some(bind("federation", address).await?),
        None => None,
    };
    let watched = bind("metrics", config.metrics).await?;
    let metrics = health::record_metrics()?;
    let loaded = tokio::select! {
        loaded = load(folder, config) => loaded?,
        // The database may keep it waiting.
        _ = signals.next() => return Ok(()),
    };
    let Loaded { gateway, authority, lead } = loaded;

    let (reporter, grpc_health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let stop = gateway.stop.clone();
    let mut parts = JoinSet::<Result<(), RunError>>::new();
    let admin = Admin::new(Arc::clone(&gateway), Arc::clone(&authority), config.reachable_at());
    let federation = match peers_at {
        Some(listener) => Some((
            listener,
            federation_acceptor(&gateway, &authority)?,
            federation_routes(&gateway, grpc_health.clone())?,
        )),
        None => None,
    };
    parts.spawn({
        let (stop, grpc_health) = (stop.clone(), grpc_health.clone());
        async move { Ok(socket.serve(admin, stop, grpc_health).await?) }
    });
    let routes = routes(&gateway, &authority, grpc_health)?;
    let acceptor = Arc::clone(authority.acceptor());
    parts.spawn({
        let (stop, admit) = (stop.clone(), exchange::admit(&gateway));
        async move { Ok(server::serve(stop, admit, acceptor, listener, routes).await?) }
    });
    if let Some((listener, acceptor, routes)) = federation {
        let addresses = config.federation_addresses();
        federation::begin_own(&gateway, &authority, &addresses).await?;
        parts.spawn({
            let (stop, admit, acceptor) = (stop.clone(), federation::admit(&gateway), Arc::clone(&acceptor));
            async move { Ok(server::serve(stop, admit, acceptor, listener, routes).await?) }
        });
        parts.spawn(to_its_end(federation::run(Arc::clone(&gateway), Arc::clone(&authority))));
        let (shared, issuing) = (Arc::clone(&gateway), Arc::clone(&authority));
        parts.spawn(to_its_end(federation::renew_own(shared, issuing, addresses)));
        parts.spawn(to_its_end(keep_acceptor(Arc::clone(&gateway), Arc::clone(&authority), acceptor)));
    }
    parts.spawn(to_its_end(sweep::run(Arc::clone(&gateway))));
    parts.spawn(to_its_end(log::run(Arc::clone(&gateway))));
    parts.spawn(guard(Arc::clone(&gateway)));
    parts.spawn(keep_database(Arc::clone(&gateway)));
    parts.spawn(replicas::run(Arc::clone(&gateway), Arc::clone(&authority), lead));
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

/// Ends the gateway once it can't go on with its database.
async fn keep_database(gateway: Arc<Gateway>) -> Result<(), RunError> {
    match gateway.stop.run_until_cancelled(gateway.store.lost()).await {
        Some(()) => Err(StoreError::Lost.into()),
        None => Ok(()),
    }
}

/// Everything that a gateway consists of.
struct Loaded {
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    /// What finds out whether it leads those of the domain.
    lead: Option<Lead>,
}

/// Reads everything that a gateway consists of.
async fn load(folder: &DataFolder, config: &Config) -> Result<Loaded, RunError> {
    let cas = Cas::open(folder)?;
    let signing = signing_key(folder)?;
    // Opening would make an empty one, and everything that was accepted would be forgotten.
    let database = config.database(folder);
    if !database.exists().await? {
        return Err(RunError::NoDatabase(database));
    }
    let store = Store::open(&database, Company::Gateways, config.limits.queue(), &signing).await?;
    // Before anything is written: neither a database of another domain, nor other CAs than those of the domain's gateways.
    if let Some(domain) = store.domain().await?.filter(|domain| domain != config.domain.as_str()) {
        return Err(RunError::OtherDomain { database, domain, own: config.domain.clone() });
    }
    if !store.agree_on_roots(&cas.fingerprints()).await? {
        return Err(RunError::OtherRoots);
    }
    let (file, revoked) = RevokedFile::open(&folder.revoked())?;
    let now = OffsetDateTime::now_utc();
    let authority = Authority::start(cas, config, file, &revoked, &store, now).await?;
    let policy = active_policy(&store).await?;
    let peers = Peers::new(store.peers().await?).map_err(RunError::Peers)?;
    let foreign = federation::from_store(&store.peer_agencies().await?, &peers.all(), &Directory::default());
    let directory = store.directory(&Directory::default()).await?.with_all(foreign);
    let logs = Logs::open(&store, &config.domain, &signing, folder.path()).await?;
    let gateway = Gateway::new(config.domain.clone(), signing, (store, logs), directory, policy, peers);
    let mut lead = gateway.store.lead();
    if let Some(lead) = &mut lead {
        gateway.leads.send_replace(lead.leads().await);
    }
    Ok(Loaded { gateway: Arc::new(gateway), authority: Arc::new(authority), lead })
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
        federation_service_server::SERVICE_NAME,
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
    let routes = Routes::new(enrolment).add_service(exchange).add_service(reflection).add_service(health);
    Ok(routes.into_axum_router().merge(log::serve::for_agencies(gateway)).into())
}

/// What the federation listener answers.
fn federation_routes(gateway: &Arc<Gateway>, health: HealthServer<impl Health>) -> Result<Routes, RunError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .with_service_name(federation_service_server::SERVICE_NAME)
        .build_v1()?;
    let routes = Routes::new(federation::service(gateway)).add_service(reflection).add_service(health);
    Ok(routes.into_axum_router().merge(log::serve::for_peers(gateway)).into())
}

/// What accepts the connections of peers: each under the roots of its own domain.
fn federation_acceptor(gateway: &Gateway, authority: &Authority) -> Result<Arc<Acceptor>, SetupError> {
    Ok(Arc::new(Acceptor::new(authority.identity(), trusted(gateway))?))
}

fn trusted(gateway: &Gateway) -> Vec<DomainTrust> {
    let peers = gateway.peers.all();
    let active = peers.iter().filter(|peer| gateway.peers.active(&peer.domain).is_ok());
    active.map(|peer| peer.bundle.trust()).collect()
}

/// Lets the federation listener follow the gateway's own certificate and the peers' roots.
async fn keep_acceptor(gateway: Arc<Gateway>, authority: Arc<Authority>, acceptor: Arc<Acceptor>) {
    let (mut peers, mut own) = (gateway.peers.changed(), authority.revised());
    loop {
        if let Err(error) = acceptor.replace(authority.identity(), trusted(&gateway)) {
            error!(%error, "the federation listener goes on with the roots of before");
        }
        tokio::select! {
            () = gateway.stop.cancelled() => return,
            _ = peers.changed() => {}
            _ = own.changed() => {}
        }
    }
}

async fn to_its_end(part: impl Future<Output = ()>) -> Result<(), RunError> {
    part.await;
    Ok(())
}

/// Ends the gateway once somebody shows that its database is an older copy; not before others had the time to show higher
/// heads, of which the guard file keeps the highest.
async fn guard(gateway: Arc<Gateway>) -> Result<(), RunError> {
    let [evidence, keys] = gateway.logs.all();
    let behind = tokio::select! {
        () = gateway.stop.cancelled() => return Ok(()),
        _ = evidence.guard().ahead() => evidence,
        _ = keys.guard().ahead() => keys,
    };
    _ = timeout(limits::LOG_SHOWN_MORE, gateway.stop.cancelled()).await;
    Err(LogError::from(behind.guard().ahead().await).into())
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
