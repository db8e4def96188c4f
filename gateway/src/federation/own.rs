//! This domain's own bundle, made anew whenever what stands in it changes, and every hour.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    federation::v1::{Bundle as Wire, SignedBundle},
    times,
};
use liaison_trust::statement;
use time::OffsetDateTime;
use tokio::time::sleep;
use tracing::error;

use super::bundle::{self, PROTOCOL};
use crate::{authority::Authority, gateway::Gateway, limits, log, store::StoreError};

/// The bundle of this domain as of a moment. Its sequence grows with the clock, and survives a restore.
fn bundle_of(
    gateway: &Gateway,
    authority: &Authority,
    addresses: &[String],
    now: OffsetDateTime,
) -> SignedBundle {
    let last = bundle::sequence(&gateway.peers.own().borrow());
    let clock = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let bundle = Wire {
        domain: gateway.domain.to_string(),
        roots: authority.roots().iter().map(|root| Bytes::copy_from_slice(root)).collect(),
        gateway_signing_key: Bytes::copy_from_slice(gateway.signing.public().as_bytes()),
        addresses: addresses.to_vec(),
        countries: countries(gateway).into_iter().collect(),
        sequence: clock.max(last + 1),
        issued: Some(times::to_wire(now)),
        scheme_hash: gateway.policy.load().scheme_hash().into(),
        protocol: PROTOCOL,
        log_key: Bytes::copy_from_slice(gateway.signing.derived(log::SIGNER).public().as_bytes()),
        witness_key: Bytes::copy_from_slice(gateway.signing.derived(log::WITNESS).public().as_bytes()),
    };
    statement::sign(&bundle, &gateway.signing)
}

/// Makes the domain's own bundle, or takes over the one that the gateway made which leads.
///
/// # Errors
/// The store failed.
pub async fn begin_own(
    gateway: &Gateway,
    authority: &Authority,
    addresses: &[String],
) -> Result<(), StoreError> {
    if *gateway.leads.borrow() {
        return make(gateway, authority, addresses).await;
    }
    if let Some(bundle) = gateway.store.shared_bundle().await? {
        gateway.peers.set_own(bundle);
    }
    Ok(())
}

async fn make(gateway: &Gateway, authority: &Authority, addresses: &[String]) -> Result<(), StoreError> {
    // The gateway that led before may have had a faster clock.
    if let Some(shared) = gateway.store.shared_bundle().await?
        && bundle::sequence(&shared) > bundle::sequence(&gateway.peers.own().borrow())
    {
        gateway.peers.set_own(shared);
    }
    let bundle = bundle_of(gateway, authority, addresses, OffsetDateTime::now_utc());
    gateway.store.share_bundle(&bundle).await?;
    gateway.peers.set_own(bundle);
    Ok(())
}

/// Keeps the domain's own bundle true until the gateway stops.
pub async fn renew_own(gateway: Arc<Gateway>, authority: Arc<Authority>, addresses: Vec<String>) {
    let mut revised = gateway.revised.subscribe();
    let mut roots = authority.revised();
    let mut leads = gateway.leads.subscribe();
    let mut said = said(&gateway, &authority);
    loop {
        let aged = tokio::select! {
            // The one that led before had other addresses.
            _ = leads.changed() => true,
            () = gateway.stop.cancelled() => return,
            () = sleep(limits::BUNDLE_RENEWAL) => true,
            // A peer knows one of a clock that has gone back since.
            () = gateway.peers.not_taken() => {
                sleep(limits::BUNDLE_RETRY).await;
                true
            }
            _ = revised.changed() => false,
            _ = roots.changed() => false,
        };
        if !*gateway.leads.borrow() {
            continue;
        }
        let says = self::said(&gateway, &authority);
        if aged || says != said {
            match make(&gateway, &authority, &addresses).await {
                Ok(()) => said = says,
                Err(fault) => {
                    error!(error = &fault as &dyn std::error::Error, "the domain's bundle was not renewed");
                    sleep(limits::BUNDLE_RETRY).await;
                    gateway.revised.send_replace(());
                }
            }
        }
    }
}

/// What a bundle says that may change.
fn said(gateway: &Gateway, authority: &Authority) -> (Vec<Vec<u8>>, BTreeSet<String>, [u8; 32]) {
    let roots = authority.roots().iter().map(|root| root.to_vec()).collect();
    (roots, countries(gateway), *gateway.policy.load().scheme_hash().as_bytes())
}

/// The countries of the domain's agencies.
fn countries(gateway: &Gateway) -> BTreeSet<String> {
    let directory = gateway.directory.load();
    let here = directory.of(&gateway.domain).filter(|agency| agency.state != AgencyState::Revoked);
    here.map(|agency| agency.country.clone()).collect()
}
