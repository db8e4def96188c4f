//! The logs over HTTPS, as C2SP tlog-tiles and tlog-witness have them: heads, tiles and entries for agencies and peers,
//! and a witness for peers' heads. Nobody else gets them.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use liaison_proto::{
    log::v1::{Record, record::Event},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::log::{EntryBundle, Note, Receipt, SUBMISSION_BYTES, Tile};
use prost::Message;
use time::OffsetDateTime;
use tracing::error;

use super::{
    LogError,
    witness::{self, WitnessError},
};
use crate::{
    exchange::identity::{self, Caller},
    federation,
    gateway::Gateway,
    store::{LogId, LogKind, StoreError},
};

/// Who may read, by the call's extensions.
type MayRead = fn(&Gateway, Option<&Caller>) -> Result<(), Refusal>;

/// Heads, tiles and entries under `/<origin>/`, for agencies of the domain; of a log that took the place of another one
/// also `/<origin>/opened`, the receipt (C2SP tlog-proof) of the record that says so.
pub fn for_agencies(gateway: &Arc<Gateway>) -> Router {
    tiles(gateway, |gateway, caller| identity::agency_of(gateway, caller).map(drop))
}

/// The same for peers; and `POST /add-checkpoint`, by which they have their own heads cosigned, and
/// `GET /witnessed/<domain>/<kind>`, the largest that was of their newest log of a kind.
pub fn for_peers(gateway: &Arc<Gateway>) -> Router {
    let witness = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/witnessed/{domain}/{kind}", get(witnessed))
        .layer(DefaultBodyLimit::max(SUBMISSION_BYTES))
        .with_state(Arc::clone(gateway));
    tiles(gateway, |gateway, caller| federation::caller(gateway, caller).map(drop)).merge(witness)
}

fn tiles(gateway: &Arc<Gateway>, may_read: MayRead) -> Router {
    Router::new()
        .route("/{domain}/{kind}/{number}/checkpoint", get(checkpoint))
        .route("/{domain}/{kind}/{number}/tile/{*path}", get(tile))
        .route("/{domain}/log/{number}/opened", get(opened))
        .with_state((Arc::clone(gateway), may_read))
}

type Reader = State<(Arc<Gateway>, MayRead)>;
type Known = Option<axum::Extension<Caller>>;

async fn checkpoint(
    State((gateway, may_read)): Reader,
    caller: Known,
    Path((domain, kind, number)): Path<(String, String, u32)>,
) -> Result<Response, Answer> {
    may_read(&gateway, caller.as_deref())?;
    let (_, checkpoint) = log(&gateway, &domain, &kind, number).await?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], checkpoint.to_string()).into_response())
}

async fn tile(
    State((gateway, may_read)): Reader,
    caller: Known,
    Path((domain, kind, number, path)): Path<(String, String, u32, String)>,
) -> Result<Response, Answer> {
    may_read(&gateway, caller.as_deref())?;
    let (log, _) = log(&gateway, &domain, &kind, number).await?;
    let path = format!("tile/{path}");
    let content = if let Ok(bundle) = path.parse::<EntryBundle>() {
        let entries = gateway.store.entries(log, bundle.start(), bundle.width().into()).await?;
        bundle.encode(&entries).ok()
    } else if let Ok(tile) = path.parse::<Tile>() {
        gateway.store.tile(log, tile).await?
    } else {
        None
    };
    let content = content.ok_or(Answer::NotFound)?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], content).into_response())
}

async fn opened(
    State((gateway, may_read)): Reader,
    caller: Known,
    Path((domain, number)): Path<(String, u32)>,
) -> Result<Response, Answer> {
    may_read(&gateway, caller.as_deref())?;
    let log = &gateway.logs.evidence;
    let found = if domain == gateway.domain.as_str() { log.numbered(number).await? } else { None };
    let (tree, head) = found.ok_or(Answer::NotFound)?;
    let leaf = gateway.store.leaves(tree.id(), 0, 1).await?.pop();
    let (record, checkpoint) = leaf.and_then(|leaf| leaf.record).zip(head.note).ok_or(Answer::NotFound)?;
    let event = Record::decode(record.record()).ok().and_then(|record| record.event);
    if !matches!(event, Some(Event::Opened(_))) {
        return Err(Answer::NotFound);
    }
    let proof = tree.inclusion(&[0], head.size).await?.pop().unwrap_or_default();
    let receipt = Receipt { record, index: 0, proof, checkpoint, signer: None };
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], receipt.to_string()).into_response())
}

/// A log of this domain with its newest checkpoint.
async fn log(gateway: &Gateway, domain: &str, kind: &str, number: u32) -> Result<(LogId, Note), Answer> {
    let kind = LogKind::named(kind).filter(|_| domain == gateway.domain.as_str());
    let log = match kind.ok_or(Answer::NotFound)? {
        LogKind::Evidence => &gateway.logs.evidence,
        LogKind::Keys => &gateway.logs.keys,
    };
    let (tree, head) = log.numbered(number).await?.ok_or(Answer::NotFound)?;
    Ok((tree.id(), head.note.ok_or(Answer::NotFound)?))
}

async fn add_checkpoint(
    State(gateway): State<Arc<Gateway>>,
    caller: Known,
    body: Bytes,
) -> Result<Response, Answer> {
    let peer = federation::caller(&gateway, caller.as_deref())?;
    peer.may_speak()?;
    let key = peer.bundle.log;
    let cosigned = witness::cosign(&gateway, (&peer.domain, &key), &body, OffsetDateTime::now_utc()).await;
    let signature = cosigned.inspect_err(|error| {
        if error.is_violation() {
            let message = format!("a head that {} shows is not cosigned: {error}", peer.domain);
            peer.violation(&Refusal::new(
                ErrorCode::PeerViolation,
                message,
                "show the heads of its own logs",
            ));
        }
    })?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{signature}\n")).into_response())
}

async fn witnessed(
    State(gateway): State<Arc<Gateway>>,
    caller: Known,
    Path((domain, kind)): Path<(String, String)>,
) -> Result<Response, Answer> {
    let peer = federation::caller(&gateway, caller.as_deref())?;
    let kind = LogKind::named(&kind).filter(|_| domain == peer.domain.as_str()).ok_or(Answer::NotFound)?;
    let seen = gateway.store.witnessed_newest(&peer.domain, kind).await?.ok_or(Answer::NotFound)?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], seen).into_response())
}

/// Any other answer than what was asked for.
enum Answer {
    Refused(Refusal),
    Witness(WitnessError),
    NotFound,
    Failed(LogError),
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<WitnessError> for Answer {
    fn from(error: WitnessError) -> Self {
        Self::Witness(error)
    }
}

impl From<StoreError> for Answer {
    fn from(fault: StoreError) -> Self {
        Self::Failed(fault.into())
    }
}

impl From<LogError> for Answer {
    fn from(fault: LogError) -> Self {
        Self::Failed(fault)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => {
                let status = StatusCode::from_u16(liaison_proto::refusal::http(refusal.code()));
                let text = format!("{}; {}\n", refusal.message, refusal.action);
                (status.unwrap_or(StatusCode::FORBIDDEN), text).into_response()
            }
            Self::Witness(WitnessError::Another(size)) => {
                (StatusCode::CONFLICT, [(CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n"))
                    .into_response()
            }
            Self::Witness(error) => {
                if error.status().is_server_error() {
                    error!(error = &error as &dyn std::error::Error, "a head was not cosigned");
                }
                (error.status(), format!("{error}\n")).into_response()
            }
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "there is no such log, tile or head here\n").into_response()
            }
            Self::Failed(fault) => {
                error!(error = &fault as &dyn std::error::Error, "a log could not be read");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}
