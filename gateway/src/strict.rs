//! The strict reading of requests: what a caller sent and this version doesn't know is refused, where
//! prost would drop it in silence and the answer would be about something else.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::to_bytes;
use http::Request;
use liaison_proto::{
    POOL,
    message::v1::{Refusal, error_code::Code as ErrorCode},
    strict::{self, StrictError},
};
use prost_reflect::MethodDescriptor;
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

/// The flag and the length that gRPC puts before a message, bytes.
const FRAME_HEAD_BYTES: usize = 5;

/// A service whose single requests hold nothing that the contracts don't define. Streams pass: what
/// their frames carry is read by its own rules.
#[derive(Debug, Clone)]
pub struct Strict<S> {
    service: S,
    request_bytes: usize,
}

impl<S> Strict<S> {
    /// A service that takes requests of this many bytes.
    pub fn new(service: S, request_bytes: usize) -> Self {
        Self { service, request_bytes }
    }
}

impl<S: NamedService> NamedService for Strict<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Strict<S>
where
    S: Service<Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { mut service, request_bytes } = self.clone();
        Box::pin(async move {
            let method = method(S::NAME, request.uri().path());
            let Some(method) = method.filter(|method| !method.is_client_streaming()) else {
                return service.call(request).await;
            };
            match read(&method, request, request_bytes).await {
                Ok(request) => service.call(request).await,
                Err(refusal) => Ok(Status::from(refusal).into_http()),
            }
        })
    }
}

/// The method that a path names; none where the service has no such one, which it says itself.
fn method(service: &str, path: &str) -> Option<MethodDescriptor> {
    let name = path.rsplit('/').next()?;
    POOL.get_service_by_name(service)?.methods().find(|method| method.name() == name)
}

async fn read(
    method: &MethodDescriptor,
    request: Request<Body>,
    request_bytes: usize,
) -> Result<Request<Body>, Refusal> {
    let (head, body) = request.into_parts();
    let body = to_bytes(axum::body::Body::new(body), request_bytes + FRAME_HEAD_BYTES);
    let body = body.await.map_err(|_| {
        Refusal::new(
            ErrorCode::TooLarge,
            format!("the request is larger than {request_bytes} bytes, or ended too early"),
            "send less, and all of it",
        )
    })?;
    check(method, &body)?;
    Ok(Request::from_parts(head, Body::new(axum::body::Body::from(body))))
}

/// Checks the one message of a request's body.
fn check(method: &MethodDescriptor, body: &[u8]) -> Result<(), Refusal> {
    let input = method.input();
    let malformed = || StrictError::Malformed { message: input.full_name().to_owned() };
    let (head, message) = body.split_first_chunk::<FRAME_HEAD_BYTES>().ok_or_else(malformed)?;
    let [compressed, length @ ..] = *head;
    if compressed != 0 {
        return Err(Refusal::new(ErrorCode::Unsupported, "the request is compressed", "send it as it is"));
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(malformed().into());
    }
    Ok(strict::check(&input, message)?)
}
