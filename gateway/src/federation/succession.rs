//! A peer's log of evidence that takes the place of another one: whether the domain names, in the record that opened it,
//! all that this gateway has cosigned of the one before.

use axum::http::StatusCode;
use liaison_trust::log::{Checkpoint, Note, Succession, SuccessionError};
use time::OffsetDateTime;
use tonic::transport::Channel;
use tracing::warn;

use super::{
    call::{CallError, get},
    link::Link,
};
use crate::{
    limits,
    log::witness,
    store::{LogKind, StoreError, Witnessed},
};

/// Why a log was not compared yet. Nothing else stops for it.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompareError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a log does not go on from the one before.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Succession(#[from] SuccessionError),
    #[error("its domain shows no record that opened {0}")]
    NotShown(String),
}

/// Compares each log of the peer with what was cosigned of the one before it, once. One that does not name that is a
/// conflict, and kept as one.
pub(super) async fn compare(link: &Link, channel: &Channel) -> Result<(), CompareError> {
    let store = &link.gateway.store;
    let logs = store.witnessed_logs(&link.peer.domain, LogKind::Evidence).await?;
    for (before, log) in logs.iter().zip(logs.iter().skip(1)).filter(|(_, log)| !log.compared) {
        let (seen, fault) = follow(link, channel, before, log).await?;
        match fault {
            None => {
                warn!(
                    log = log.origin,
                    before = before.origin,
                    "a log of a peer names what was seen of the one before it; what it lost behind that, it does not show"
                );
            }
            Some(fault) => {
                witness::conflict(
                    store,
                    &log.origin,
                    (&before.checkpoint, &seen),
                    &fault.to_string(),
                    OffsetDateTime::now_utc(),
                )
                .await?;
            }
        }
        store.log_compared(&log.origin).await?;
    }
    Ok(())
}

/// Follows a log back to the head that was cosigned. What was shown last, and what is wrong with it.
async fn follow(
    link: &Link,
    channel: &Channel,
    before: &Witnessed,
    log: &Witnessed,
) -> Result<(Vec<u8>, Option<Fault>), CompareError> {
    let corrupt = || CompareError::Store(StoreError::Corrupt("cosigned checkpoint"));
    let held = Note::parse(&before.checkpoint).map_err(|_| corrupt())?;
    let held: Checkpoint = held.text().parse().map_err(|_| corrupt())?;
    let mut shown = log.checkpoint.clone();
    let mut way = match Succession::new(link.peer().bundle.log, &held, &log.origin) {
        Ok(way) => way,
        Err(fault) => return Ok((shown, Some(fault.into()))),
    };
    loop {
        let wanted = way.wanted().to_string();
        match get(channel, &format!("/{wanted}/opened"), limits::LOG_COSIGN_BYTES).await {
            Ok(receipt) => shown = receipt.to_vec(),
            Err(CallError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                return Ok((shown, Some(Fault::NotShown(wanted))));
            }
            Err(fault) => return Err(fault.into()),
        }
        match way.take(&shown) {
            Ok(true) => return Ok((shown, None)),
            Ok(false) => {}
            Err(fault) => return Ok((shown, Some(fault.into()))),
        }
    }
}
