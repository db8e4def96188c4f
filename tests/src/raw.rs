//! Any RPC, called by its path with any bytes: what a caller can do who has no stubs.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::{
    Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::Channel,
};

/// Calls an RPC with one message of no bytes; its first answer, or why there is none. Whether the RPC
/// streams makes no difference on the wire.
pub async fn call(channel: Channel, path: &str, metadata: MetadataMap) -> Result<Option<Bytes>, Status> {
    call_with(channel, path, metadata, Bytes::new()).await
}

/// The same with a message of any bytes.
pub async fn call_with(
    channel: Channel,
    path: &str,
    metadata: MetadataMap,
    message: Bytes,
) -> Result<Option<Bytes>, Status> {
    open(channel, path, metadata, vec![message]).await?.message().await
}

/// The same with messages one after another, and their answers.
pub async fn open(
    channel: Channel,
    path: &str,
    metadata: MetadataMap,
    messages: Vec<Bytes>,
) -> Result<Streaming<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
    let mut request = Request::new(tokio_stream::iter(messages));
    *request.metadata_mut() = metadata;
    Ok(client.streaming(request, path, Opaque).await?.into_inner())
}

/// Messages as they stand on the wire.
#[derive(Debug, Clone, Copy)]
struct Opaque;

impl Codec for Opaque {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Opaque {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Opaque {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
