//! Calls to a peer over HTTP: its witness, and its logs.

use axum::{
    body::Bytes,
    http::{Method, Request, StatusCode},
};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tonic::{body::Body, transport::Channel};
use tower::{Service, ServiceExt};

use crate::limits;

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("the peer does not answer {path} ({why})")]
    Unanswered { path: String, why: String },
    /// What it says with it could be anything, and stays out of the log.
    #[error("the peer answers {status} for {path}; its own log says why")]
    Refused { path: String, status: StatusCode },
}

/// Calls the peer; its answer, of so many bytes at most.
///
/// # Errors
/// It does not answer.
pub(super) async fn call(
    channel: &Channel,
    method: Method,
    path: &str,
    body: String,
    most: usize,
) -> Result<(StatusCode, Bytes), CallError> {
    let failed = |error: &dyn std::fmt::Display| CallError::Unanswered {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let request = Request::builder().method(method).uri(format!("http://peer{path}"));
    let request = request.body(Body::new(body)).map_err(|error| failed(&error))?;
    let called = async {
        let mut channel = channel.clone();
        let response = channel
            .ready()
            .await
            .map_err(|error| failed(&error))?
            .call(request)
            .await
            .map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), most).collect().await;
        Ok((status, body.map_err(|error| failed(&error))?.to_bytes()))
    };
    timeout(limits::LOG_COSIGN_WAIT, called).await.map_err(|late| failed(&late))?
}

/// What the peer has under a path, of so many bytes at most.
///
/// # Errors
/// It does not answer, or refuses.
pub(super) async fn get(channel: &Channel, path: &str, most: usize) -> Result<Bytes, CallError> {
    match call(channel, Method::GET, path, String::new(), most).await? {
        (StatusCode::OK, answer) => Ok(answer),
        (status, _) => Err(CallError::Refused { path: path.to_owned(), status }),
    }
}
