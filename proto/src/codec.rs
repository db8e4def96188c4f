//! The codec of every service: prost's, that refuses what gateways read off streams and of one another where it
//! holds what the contracts don't define. Single requests are read strictly before they come here, and an agent
//! may be older than its gateway.

use std::marker::PhantomData;

use prost::{Message, Name, bytes::Buf as _};
use prost_reflect::MessageDescriptor;
use tonic::{
    Status,
    codec::{self, DecodeBuf},
};
use tonic_prost::ProstEncoder;

use crate::{POOL, message::v1::Refusal, strict};

/// The package of what gateways say to one another.
const FEDERATION: &str = "liaison.federation.v1";

/// Encodes `T` and decodes `U`.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder { strict: read_strictly(&U::full_name()), decodes: PhantomData }
    }
}

/// Decodes `U`. What it refuses is told by a status with the refusal's code.
#[derive(Debug)]
pub struct Decoder<U> {
    /// The schema of `U` where it is read strictly.
    strict: Option<MessageDescriptor>,
    decodes: PhantomData<U>,
}

impl<U: Message + Default> codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        if let Some(schema) = &self.strict {
            strict::check(schema, &bytes).map_err(Refusal::from)?;
        }
        U::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The message of this name, if gateways get it from one another or as the frame of a stream.
fn read_strictly(name: &str) -> Option<MessageDescriptor> {
    let message = POOL.get_message_by_name(name)?;
    let is_frame = || {
        POOL.services().any(|service| {
            service.methods().any(|method| method.is_client_streaming() && method.input() == message)
        })
    };
    (message.package_name() == FEDERATION || is_frame()).then_some(message)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use prost::bytes::{BufMut as _, Bytes};
    use tonic::{Streaming, codec::Codec as _};

    use super::*;
    use crate::{
        exchange::v1::{ListAgenciesResponse, SessionRequest, SessionResponse},
        federation::v1::{Hello, LinkRequest, LinkResponse, PreviewResponse, link_request},
        message::v1::error_code::Code as ErrorCode,
        refusal,
    };

    /// Field 100, of which no message of the contracts knows: the varint 1.
    const UNKNOWN: [u8; 3] = [0xa0, 0x06, 1];

    /// Reads one message as it comes over the wire.
    async fn read<U: Message + Name + Default + Send + 'static>(message: &[u8]) -> Result<U, Status> {
        let mut body = vec![0];
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.put_slice(message);
        let decoder = Codec::<U, U>::default().decoder();
        let body = Full::new(Bytes::from(body));
        Ok(Streaming::new_request(decoder, body, None, None).message().await?.unwrap())
    }

    async fn refused<U: Message + Name + Default + Send + 'static>(message: &[u8]) -> Refusal {
        let status = read::<U>(message).await.err().unwrap();
        assert!(status.metadata().contains_key(refusal::CODE), "{status:?}");
        Refusal::from(&status)
    }

    #[tokio::test]
    async fn a_frame_is_what_was_sent() {
        let hello = Hello { gateway_version: "1".to_owned(), ..Hello::default() };
        let sent = LinkRequest { frame: Some(link_request::Frame::Hello(hello)) };
        assert_eq!(read::<LinkRequest>(&sent.encode_to_vec()).await.unwrap(), sent);
        assert_eq!(read::<LinkRequest>(&[]).await.unwrap(), LinkRequest::default());
    }

    #[tokio::test]
    async fn what_a_frame_holds_beyond_the_contracts_is_refused_at_any_depth() {
        // A hello, which is field 1, with the unknown field in it.
        let nested = [&[0x0a, 3], UNKNOWN.as_slice()].concat();
        for refusal in [
            refused::<LinkRequest>(&UNKNOWN).await,
            refused::<LinkRequest>(&nested).await,
            refused::<LinkResponse>(&UNKNOWN).await,
            refused::<SessionRequest>(&nested).await,
            refused::<PreviewResponse>(&UNKNOWN).await,
        ] {
            assert_eq!(refusal.code(), ErrorCode::UnknownValue, "{refusal}");
            assert!(refusal.message.contains("field number 100"), "{refusal}");
            assert!(refusal.action.contains("upgrade"), "{refusal}");
        }
        assert_eq!(refused::<LinkRequest>(&[0xff; 16]).await.code(), ErrorCode::Malformed);
    }

    #[tokio::test]
    async fn an_agent_may_be_older_than_its_gateway() {
        assert_eq!(read::<SessionResponse>(&UNKNOWN).await.unwrap(), SessionResponse::default());
        assert_eq!(read::<ListAgenciesResponse>(&UNKNOWN).await.unwrap(), ListAgenciesResponse::default());
    }
}
