//! This domain's logs shown to a peer, who cosigns their heads as a witness; or has seen later ones than this database
//! holds.

use axum::http::{Method, StatusCode};
use liaison_trust::log::{Note, NoteSignature, Submission, WitnessKey};
use metrics::counter;
use tokio::time::sleep;
use tonic::transport::Channel;
use tracing::{debug, error, warn};

use super::{
    call::{CallError, call, get},
    link::Link,
};
use crate::{
    limits,
    log::{Log, LogError, Shown, witness},
};

/// Under which a peer has a head cosigned.
const ADD: &str = "/add-checkpoint";

/// Why a peer did not cosign a head. Nothing else stops for it.
#[derive(Debug, thiserror::Error)]
pub(super) enum CosignError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the peer answers with something else than its cosignature")]
    NotItsWord,
    #[error("the peer has cosigned a head that this log does not go on from, and keeps both as evidence")]
    Conflict,
}

/// Has the peer cosign the heads of this domain's logs while the link lasts.
pub(super) async fn run(link: &Link, channel: Channel) {
    // How many leaves the head had that it has cosigned last, log by log.
    let mut seen = [0, 0];
    loop {
        for (log, seen) in link.gateway.logs.all().into_iter().zip(&mut seen) {
            let asked = ask(link, &channel, log, seen).await;
            let outcome = if asked.is_ok() { "cosigned" } else { "refused" };
            counter!("liaison_gateway_log_cosignatures_total", "peer" => link.peer.domain.to_string(), "outcome" => outcome)
                .increment(1);
            match asked {
                Ok(()) => {}
                Err(CosignError::Conflict) => {
                    let log = log.signer().key().name().to_string();
                    counter!("liaison_gateway_log_conflicts_total", "log" => log.clone()).increment(1);
                    error!(log, peer = %link.peer.domain, "{}", CosignError::Conflict);
                }
                Err(fault) => warn!(peer = %link.peer.domain, "a head was not cosigned: {fault}"),
            }
        }
        sleep(limits::LOG_COSIGN).await;
    }
}

/// Has one head cosigned. `seen` is the size of the last.
async fn ask(link: &Link, channel: &Channel, log: &Log, seen: &mut u64) -> Result<(), CosignError> {
    let key = log.signer().key();
    let Some(note) = log.candidate() else { return Ok(()) };
    let size = key.open(&note).map_err(LogError::from)?.size();
    // The size that the peer knows better, and once more if it has cosigned over another link meanwhile.
    for _ in 0..3 {
        let old = (*seen).min(size);
        let proof = log.tree().consistency(old, size).await?;
        let submission = Submission { old, proof, checkpoint: note.clone() }.to_string();
        let (status, answer) = call(channel, Method::POST, ADD, submission, limits::LOG_COSIGN_BYTES).await?;
        match (status, String::from_utf8_lossy(&answer).into_owned()) {
            (StatusCode::OK, answer) => {
                let signature = cosignature(link, &note, &answer).ok_or(CosignError::NotItsWord)?;
                *seen = size;
                debug!(peer = %link.peer.domain, log = %key.name(), size, "a head was cosigned");
                return Ok(log.cosigned(note.text(), signature).await?);
            }
            (StatusCode::CONFLICT, answer) => {
                let known: u64 = answer.trim().parse().map_err(|_| CosignError::NotItsWord)?;
                if known > size {
                    return behind(channel, log).await;
                }
                if known == old {
                    return Err(CosignError::Conflict);
                }
                *seen = known;
            }
            (StatusCode::UNPROCESSABLE_ENTITY, _) => {
                behind(channel, log).await?;
                return Err(CosignError::Conflict);
            }
            // It has cosigned a later log.
            (StatusCode::GONE, _) => return behind(channel, log).await,
            (status, _) => return Err(CallError::Refused { path: ADD.to_owned(), status }.into()),
        }
    }
    Ok(())
}

/// The peer has seen another head than is asked about: a newer one of this log, or one that the database lacks.
async fn behind(channel: &Channel, log: &Log) -> Result<(), CosignError> {
    let path = format!("/witnessed/{}", log.kind_of());
    let answer = get(channel, &path, limits::LOG_COSIGN_BYTES).await?;
    let note = Note::parse(&answer).map_err(|_| CosignError::NotItsWord)?;
    match log.shown(&note).await? {
        Shown::Known => Ok(()),
        Shown::Ahead(_) => Err(CosignError::Conflict),
    }
}

/// The peer's own cosignature in its answer.
fn cosignature(link: &Link, note: &Note, answer: &str) -> Option<NoteSignature> {
    let peer = link.peer();
    let key = WitnessKey::new(witness::name(&peer.domain)?, peer.bundle.witness);
    let signatures = answer.lines().filter_map(|line| NoteSignature::parse(line).ok());
    signatures.into_iter().find(|signature| {
        let cosigned = note.clone().with(signature.clone());
        signature.name() == key.name() && cosigned.is_ok_and(|cosigned| key.verify(&cosigned).is_ok())
    })
}
