//! The case API over gRPC, on loopback. Whatever reaches the operations was sent by a caller with the
//! token and holds nothing that the contracts do not define.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::stream;
use liaison_proto::{
    DESCRIPTORS, POOL,
    case::v1::{
        AgencyKeys, Alert, AnswerOnwardRequestRequest, ConfirmKeysRequest, GetAlertRequest,
        GetReferralRequest, GetStatusRequest, ListAgenciesRequest, ListAgenciesResponse, ListAlertsRequest,
        ListAlertsResponse, ListKeysRequest, ListKeysResponse, ListOnwardRequestsRequest,
        ListOnwardRequestsResponse, ListReceiptsRequest, ListReceiptsResponse, ListReferralsRequest,
        ListReferralsResponse, OnwardRequest, PreviewRequest, PreviewResponse, ReferOnwardRequest,
        ReferOnwardResponse, Referral, SendAlertRequest, SendAlertResponse, SendReferralRequest,
        SendReferralResponse, StatusResponse, UpdateReferralRequest,
        case_service_server::{CaseService, CaseServiceServer, SERVICE_NAME},
    },
    limits as wire,
    message::v1::{Refusal, error_code::Code as ErrorCode},
    strict::{self, StrictError},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, body::Body, server::NamedService, transport::Server};
use tower::Service;

use super::{
    ServeError, audience, body,
    caller::{ApiToken, Caller},
    connections::Connections,
    keys, onward, operations, receipts,
};
use crate::{agent::Agent, limits};

/// Serves the API until `stop`, and then finishes what is under way.
pub async fn serve(
    agent: Arc<Agent>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let token = ApiToken::new(&agent.api_token);
    let case = CaseServiceServer::new(Handler { agent }).max_decoding_message_size(wire::CASE_REQUEST_BYTES);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<CaseServiceServer<Handler>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .with_service_name(SERVICE_NAME)
    };
    let connections = Connections::new(listener, limits::API_CONNECTIONS);
    let incoming =
        stream::unfold(connections, async |connections| Some((connections.next().await, connections)));
    Server::builder()
        .timeout(wire::REQUEST)
        .max_concurrent_streams(wire::HTTP2_STREAMS)
        .http2_max_local_error_reset_streams(Some(wire::HTTP2_LOCAL_ERROR_RESETS))
        .http2_max_header_list_size(wire::HTTP2_HEADER_BYTES)
        .http2_keepalive_interval(Some(wire::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(wire::KEEPALIVE_TIMEOUT))
        .add_service(Guarded { case, token })
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}

/// The case service behind its door: the caller's token, and the strict reading of the request.
#[derive(Clone)]
struct Guarded {
    case: CaseServiceServer<Handler>,
    token: ApiToken,
}

impl NamedService for Guarded {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Guarded {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { mut case, token } = self.clone();
        Box::pin(async move {
            match admit(&token, request).await {
                Ok(request) => case.call(request).await,
                Err(refusal) => Ok(Status::from(refusal).into_http()),
            }
        })
    }
}

/// Reads the whole request, which the caller may make only with the token, and only as the contracts
/// define it: prost would drop the rest in silence.
async fn admit(token: &ApiToken, request: http::Request<Body>) -> Result<http::Request<Body>, Refusal> {
    let (mut head, body) = request.into_parts();
    let caller = token.admit(&head.headers)?;
    let body = body::whole(body, FRAMING_BYTES).await?;
    let method = head.uri.path().rsplit('/').next().unwrap_or_default();
    check(method, &body)?;
    head.extensions.insert(caller);
    Ok(http::Request::from_parts(head, Body::new(http_body_util::Full::new(body))))
}

/// What gRPC puts before a message: whether it is compressed, and its length.
const FRAMING_BYTES: usize = 5;

/// Checks the one message that a request to `method` holds. What is no method of the service is left
/// to tonic to answer.
fn check(method: &str, body: &[u8]) -> Result<(), Refusal> {
    let service = POOL.get_service_by_name(SERVICE_NAME).ok_or_else(Refusal::internal)?;
    let Some(method) = service.methods().find(|known| known.name() == method) else { return Ok(()) };
    let input = method.input();
    let malformed = || StrictError::Malformed { message: input.full_name().to_owned() };
    let (head, message) = body.split_first_chunk::<FRAMING_BYTES>().ok_or_else(malformed)?;
    let [compressed, length @ ..] = *head;
    if compressed != 0 {
        return Err(Refusal::new(
            ErrorCode::Unsupported,
            "the request is compressed",
            "send it without compression; it does not leave this machine",
        ));
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(malformed().into());
    }
    Ok(strict::check(&input, message)?)
}

struct Handler {
    agent: Arc<Agent>,
}

/// The caller whom the door admitted.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Refusal::internal().into())
}

#[tonic::async_trait]
impl CaseService for Handler {
    async fn preview(&self, request: Request<PreviewRequest>) -> Result<Response<PreviewResponse>, Status> {
        Ok(Response::new(audience::preview(&self.agent, request.into_inner()).await?))
    }

    async fn send_referral(
        &self,
        request: Request<SendReferralRequest>,
    ) -> Result<Response<SendReferralResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(operations::send_referral(&self.agent, &caller, request.into_inner()).await?))
    }

    async fn list_referrals(
        &self,
        request: Request<ListReferralsRequest>,
    ) -> Result<Response<ListReferralsResponse>, Status> {
        Ok(Response::new(operations::list_referrals(&self.agent, request.into_inner()).await?))
    }

    async fn get_referral(&self, request: Request<GetReferralRequest>) -> Result<Response<Referral>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(operations::get_referral(&self.agent, &caller, request.into_inner()).await?))
    }

    async fn update_referral(
        &self,
        request: Request<UpdateReferralRequest>,
    ) -> Result<Response<Referral>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(operations::update_referral(&self.agent, &caller, request.into_inner()).await?))
    }

    async fn refer_onward(
        &self,
        request: Request<ReferOnwardRequest>,
    ) -> Result<Response<ReferOnwardResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(onward::refer_onward(&self.agent, &caller, request.into_inner()).await?))
    }

    async fn list_onward_requests(
        &self,
        request: Request<ListOnwardRequestsRequest>,
    ) -> Result<Response<ListOnwardRequestsResponse>, Status> {
        Ok(Response::new(onward::list_requests(&self.agent, request.into_inner()).await?))
    }

    async fn answer_onward_request(
        &self,
        request: Request<AnswerOnwardRequestRequest>,
    ) -> Result<Response<OnwardRequest>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(onward::answer_request(&self.agent, &caller, request.into_inner()).await?))
    }

    async fn send_alert(
        &self,
        request: Request<SendAlertRequest>,
    ) -> Result<Response<SendAlertResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(operations::send_alert(&self.agent, &caller, request.into_inner()).await?))
    }

    async fn list_alerts(
        &self,
        request: Request<ListAlertsRequest>,
    ) -> Result<Response<ListAlertsResponse>, Status> {
        Ok(Response::new(operations::list_alerts(&self.agent, request.into_inner()).await?))
    }

    async fn get_alert(&self, request: Request<GetAlertRequest>) -> Result<Response<Alert>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(operations::get_alert(&self.agent, &caller, request.into_inner()).await?))
    }

    async fn list_agencies(
        &self,
        request: Request<ListAgenciesRequest>,
    ) -> Result<Response<ListAgenciesResponse>, Status> {
        Ok(Response::new(operations::list_agencies(&self.agent, request.into_inner()).await?))
    }

    async fn list_receipts(
        &self,
        request: Request<ListReceiptsRequest>,
    ) -> Result<Response<ListReceiptsResponse>, Status> {
        Ok(Response::new(receipts::list(&self.agent, request.into_inner()).await?))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        Ok(Response::new(keys::list(&self.agent, request.into_inner()).await?))
    }

    async fn confirm_keys(
        &self,
        request: Request<ConfirmKeysRequest>,
    ) -> Result<Response<AgencyKeys>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(keys::confirm(&self.agent, &caller, request.into_inner()).await?))
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(operations::get_status(&self.agent, request.into_inner()).await?))
    }
}
