//! The body of a request, in either API.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use liaison_proto::{
    limits::CASE_REQUEST_BYTES,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};

/// Reads a whole body, of at most [`CASE_REQUEST_BYTES`] and `framing` bytes more.
pub(super) async fn whole<B>(body: B, framing: usize) -> Result<Bytes, Refusal>
where
    B: BodyExt,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let read = Limited::new(body, CASE_REQUEST_BYTES + framing).collect().await;
    read.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large()
        } else {
            Refusal::new(
                ErrorCode::Malformed,
                "the request's body is broken off or badly framed",
                "send it again",
            )
        }
    })
}

/// A request over the limit.
pub(super) fn too_large() -> Refusal {
    Refusal::new(
        ErrorCode::TooLarge,
        format!("the request is larger than {CASE_REQUEST_BYTES} bytes"),
        "send less; a photo may have 256 KiB",
    )
}
