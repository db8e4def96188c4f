//! What machines watch: `/metrics`, `/livez` and `/readyz` in plain HTTP on an address of its own.

use std::{sync::Arc, time::Instant};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use time::OffsetDateTime;
use tokio::{net::TcpListener, sync::Mutex};
use tracing::warn;

use crate::{authority::Authority, gateway::Gateway, limits, store::StoreError};

/// What the listener answers from.
struct Health {
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    metrics: PrometheusHandle,
    /// The last look at the database, and when it was: a flood of questions writes no more than one.
    probed: Mutex<Option<(Instant, Result<(), &'static str>)>>,
}

/// Starts recording metrics for the whole process.
///
/// # Errors
/// Something records them already.
pub fn record_metrics() -> Result<PrometheusHandle, BuildError> {
    let seconds = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
    let suffix = metrics_exporter_prometheus::Matcher::Suffix("_seconds".to_owned());
    PrometheusBuilder::new().set_buckets_for_metric(suffix, &seconds)?.install_recorder()
}

/// Answers until the gateway stops, and keeps the recorder tidy meanwhile.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    metrics: PrometheusHandle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let tidy = tokio::spawn({
        let metrics = metrics.clone();
        async move {
            loop {
                tokio::time::sleep(limits::METRICS_UPKEEP).await;
                metrics.run_upkeep();
            }
        }
    });
    let health = Health { gateway, authority, metrics, probed: Mutex::default() };
    let routes = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Arc::new(health));
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop).await;
    tidy.abort();
    served
}

async fn metrics_text(State(health): State<Arc<Health>>) -> String {
    let now = OffsetDateTime::now_utc();
    let left = (health.authority.own_not_after() - now).as_seconds_f64();
    metrics::gauge!("liaison_gateway_certificate_seconds_left").set(left);
    let directory = health.gateway.directory.load();
    metrics::gauge!("liaison_gateway_agencies").set(directory.of(&health.gateway.domain).count() as f64);
    metrics::gauge!("liaison_gateway_queued").set(health.gateway.queued() as f64);
    health.gateway.peers.measure(&health.gateway.store);
    health.metrics.render()
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.gateway.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if !health.authority.is_ready(OffsetDateTime::now_utc()) {
        (StatusCode::SERVICE_UNAVAILABLE, "the gateway's certificate ends soon and was not renewed\n")
    } else if let Err(fault) = health.probe().await {
        (StatusCode::SERVICE_UNAVAILABLE, fault)
    } else {
        (StatusCode::OK, "ready\n")
    }
}

impl Health {
    /// What keeps the gateway from accepting anything, if something does.
    async fn probe(&self) -> Result<(), &'static str> {
        let mut probed = self.probed.lock().await;
        if let Some((at, found)) = *probed
            && at.elapsed() < limits::READINESS_AGE
        {
            return found;
        }
        let store = &self.gateway.store;
        let found = async {
            within(store.probe(OffsetDateTime::now_utc()))
                .await
                .map_err(|fault| (fault, "the database takes no writes\n"))?;
            let follows = "what another gateway of the domain changed is not taken over\n";
            within(store.fresh()).await.map_err(|fault| (fault, follows))
        };
        let found = found.await.map_err(|(fault, found)| {
            warn!(fault, "not ready: {}", found.trim_end());
            found
        });
        *probed = Some((Instant::now(), found));
        found
    }
}

/// Does something that keeps a gateway ready only if it does not take long; what became of it.
async fn within(done: impl Future<Output = Result<(), StoreError>>) -> Result<(), String> {
    match tokio::time::timeout(limits::PROBE, done).await {
        Ok(done) => done.map_err(|fault| fault.to_string()),
        Err(late) => Err(late.to_string()),
    }
}
