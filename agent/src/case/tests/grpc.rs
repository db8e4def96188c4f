use liaison_proto::{
    POOL,
    case::v1::{
        GetReferralRequest, GetStatusRequest, SendReferralRequest, case_service_client::CaseServiceClient,
        case_service_server::SERVICE_NAME,
    },
    limits as wire,
    message::v1::{Refusal, error_code::Code as ErrorCode, purpose::Code as Purpose},
    refusal,
};
use tonic::{
    Code, Request, Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceExt;

use super::*;

const GOOD: [(&str, &str); 2] = [("authorization", "Bearer token"), ("liaison-actor", "anna")];

async fn channel(served: &Served) -> Channel {
    Endpoint::from_shared(format!("http://{}", served.grpc)).unwrap().connect().await.unwrap()
}

/// Calls a method with these headers and this body, as a foreign client could.
async fn raw(channel: &Channel, method: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Status {
    let mut request = http::Request::post(format!("http://agent/{SERVICE_NAME}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::new(http_body_util::Full::new(bytes::Bytes::from(body)))).unwrap();
    let response = channel.clone().oneshot(request).await.unwrap();
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok("answered"))
}

/// One uncompressed gRPC message.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

fn code(status: &Status) -> ErrorCode {
    let code = Refusal::from(status).code();
    assert_eq!(status.code(), refusal::grpc(code), "{status}");
    code
}

#[tokio::test]
async fn every_method_wants_the_token_and_an_actor() {
    let served = Served::new().await;
    let channel = channel(&served).await;
    let service = POOL.get_service_by_name(SERVICE_NAME).unwrap();
    assert_eq!(service.methods().count(), 16);
    for method in service.methods() {
        let call =
            async |headers: &[(&str, &str)]| code(&raw(&channel, method.name(), headers, framed(b"")).await);
        let name = method.name();
        assert_eq!(call(&[("liaison-actor", "anna")]).await, ErrorCode::BadToken, "{name}");
        assert_eq!(call(&[("authorization", "Bearer tokem"), GOOD[1]]).await, ErrorCode::BadToken, "{name}");
        assert_eq!(call(&GOOD[..1]).await, ErrorCode::MissingField, "{name}");
    }
    let unknown = raw(&channel, "Nothing", &GOOD, framed(b"")).await;
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn nothing_is_passed_over_in_a_request() {
    let served = Served::new().await;
    let channel = channel(&served).await;
    let request = SendReferralRequest { to: vec!["be/clinic".into()], ..SendReferralRequest::default() };
    let with = |extra: &[u8]| framed(&[request.encode_to_vec().as_slice(), extra].concat());
    let call = async |body: Vec<u8>| code(&raw(&channel, "SendReferral", &GOOD, body).await);

    assert_eq!(call(with(b"")).await, ErrorCode::MissingField, "as it is, it has no content");
    assert_eq!(call(with(b"\xf8\x07\x01")).await, ErrorCode::UnknownValue, "field 127");
    assert_eq!(call(with(b"\x18\x63")).await, ErrorCode::UnknownValue, "purpose 99");
    // content.health with a field 127
    assert_eq!(call(with(b"\x12\x05\x42\x03\xf8\x07\x01")).await, ErrorCode::UnknownValue);
    assert_eq!(call(with(b"\x12\xff")).await, ErrorCode::Malformed, "cut off");
    assert_eq!(call(b"\0\0".to_vec()).await, ErrorCode::Malformed, "no frame");
    let two = [framed(b""), framed(b"")].concat();
    assert_eq!(call(two).await, ErrorCode::Malformed, "two messages");
    let mut compressed = with(b"");
    compressed[0] = 1;
    assert_eq!(call(compressed).await, ErrorCode::Unsupported);
    let large = framed(&vec![0; wire::CASE_REQUEST_BYTES + 1]);
    assert_eq!(call(large).await, ErrorCode::TooLarge);
    assert_eq!(served.outbox().await, 0);
}

#[tokio::test]
async fn health_and_reflection_answer_anybody() {
    let served = Served::new().await;
    let channel = channel(&served).await;
    let mut health = HealthClient::new(channel.clone());
    let checked = health.check(HealthCheckRequest { service: SERVICE_NAME.into() }).await.unwrap();
    assert_eq!(checked.get_ref().status, 1, "serving");

    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(answer.contains(SERVICE_NAME), "{answer}");
    assert!(!answer.contains("ExchangeService"), "{answer}");
}

#[tokio::test]
async fn both_apis_show_the_same() {
    let served = Served::new().await;
    let signed = |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", "Bearer token".parse().unwrap());
        request.metadata_mut().insert("liaison-actor", "anna".parse().unwrap());
        Ok(request)
    };
    let mut client = CaseServiceClient::with_interceptor(channel(&served).await, signed);
    let content = ReferralContent {
        health: Some(Health { physical: "broken arm".into(), ..Health::default() }),
        ..ReferralContent::default()
    };
    let request = SendReferralRequest {
        to: vec!["be/clinic".into()],
        content: Some(content),
        purpose: Purpose::HealthCare.into(),
        ..SendReferralRequest::default()
    };
    let sent = client.send_referral(request).await.unwrap().into_inner();
    let id = &sent.referrals[0].id;
    let over_grpc = client.get_referral(GetReferralRequest { id: id.clone() }).await.unwrap().into_inner();
    let (_, over_rest) = served.call("GET", &format!("/v1/referrals/{id}"), None).await;
    assert_eq!(liaison_proto::json::to_value(&over_grpc).unwrap(), over_rest);
    assert_eq!(client.get_status(GetStatusRequest {}).await.unwrap().get_ref().outbox, 1);

    let unknown =
        client.get_referral(GetReferralRequest { id: Uuid::now_v7().to_string() }).await.unwrap_err();
    assert_eq!(code(&unknown), ErrorCode::UnknownMessage);
    let no_id = client.get_referral(GetReferralRequest { id: "1".into() }).await.unwrap_err();
    assert_eq!(code(&no_id), ErrorCode::Malformed);
}
