//! The case API over REST and JSON, on loopback: the same operations as over gRPC, each message in its
//! protobuf JSON mapping.

mod host;

use std::{pin::pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use liaison_proto::{
    case::v1::{
        AnswerOnwardRequestRequest, ConfirmKeysRequest, GetAlertRequest, GetReferralRequest,
        GetStatusRequest, ListAgenciesRequest, ListAlertsRequest, ListKeysRequest, ListOnwardRequestsRequest,
        ListReceiptsRequest, ListReferralsRequest, PreviewRequest, ReferOnwardRequest, SendAlertRequest,
        SendReferralRequest, UpdateReferralRequest,
    },
    json, limits as wire,
    message::v1::{Refusal, error_code::Code as ErrorCode},
    refusal,
};
use prost::{Message, Name};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ServeError, audience, body,
    caller::{ApiToken, Caller},
    connections::Connections,
    keys, metrics, onward, openapi, operations, receipts,
};
use crate::{agent::Agent, limits};

/// Serves the API until `stop`, and then finishes what is under way.
pub async fn serve(
    agent: Arc<Agent>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let service = TowerToHyperService::new(router(agent));
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits::REQUEST_HEAD);
    let http = Arc::new(http);
    let connections = Connections::new(listener, limits::API_CONNECTIONS);
    let under_way = TaskTracker::new();
    while let Some(connection) = stop.run_until_cancelled(connections.next()).await {
        let (http, service, stop) = (Arc::clone(&http), service.clone(), stop.clone());
        let connection = TokioIo::new(connection?);
        under_way.spawn(async move {
            let mut served = pin!(http.serve_connection(connection, service));
            let ended = tokio::select! {
                ended = served.as_mut() => ended,
                () = stop.cancelled() => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection of the REST API ended");
            }
        });
    }
    drop(connections);
    under_way.close();
    under_way.wait().await;
    Ok(())
}

fn router(agent: Arc<Agent>) -> Router {
    let token = ApiToken::new(&agent.api_token);
    Router::new()
        .route("/v1/preview", post(preview))
        .route("/v1/referrals", get(list_referrals).post(send_referral))
        .route("/v1/referrals/{id}", get(get_referral))
        .route("/v1/referrals/{id}/state", post(update_referral))
        .route("/v1/referrals/{id}/onward", post(refer_onward))
        .route("/v1/onward-requests", get(list_onward_requests))
        .route("/v1/onward-requests/{id}/answer", post(answer_onward_request))
        .route("/v1/alerts", get(list_alerts).post(send_alert))
        .route("/v1/alerts/{id}", get(get_alert))
        .route("/v1/messages/{id}/receipts", get(list_receipts))
        .route("/v1/agencies", get(list_agencies))
        .route("/v1/keys", get(list_keys))
        .route("/v1/keys/confirm", post(confirm_keys))
        .route("/v1/status", get(get_status))
        .route("/openapi.json", get(document))
        .route("/livez", get(livez))
        .route("/metrics", get(metrics_text))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(each_request))
        .with_state(Api { agent, token })
}

#[derive(Clone)]
struct Api {
    agent: Arc<Agent>,
    token: ApiToken,
}

async fn preview(State(api): State<Api>, _: Caller, Json(request): Json<PreviewRequest>) -> Response {
    answer(audience::preview(&api.agent, request).await)
}

async fn send_referral(
    State(api): State<Api>,
    caller: Caller,
    Json(request): Json<SendReferralRequest>,
) -> Response {
    answer(operations::send_referral(&api.agent, &caller, request).await)
}

async fn list_referrals(
    State(api): State<Api>,
    _: Caller,
    Asked(request): Asked<ListReferralsRequest>,
) -> Response {
    answer(operations::list_referrals(&api.agent, request).await)
}

async fn get_referral(State(api): State<Api>, caller: Caller, Id(id): Id) -> Response {
    answer(operations::get_referral(&api.agent, &caller, GetReferralRequest { id }).await)
}

async fn update_referral(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    Json(request): Json<UpdateReferralRequest>,
) -> Response {
    match path_id(id, &request.id) {
        Ok(id) => {
            let request = UpdateReferralRequest { id, ..request };
            answer(operations::update_referral(&api.agent, &caller, request).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn refer_onward(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    Json(request): Json<ReferOnwardRequest>,
) -> Response {
    match path_id(id, &request.id) {
        Ok(id) => {
            let request = ReferOnwardRequest { id, ..request };
            answer(onward::refer_onward(&api.agent, &caller, request).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn list_onward_requests(
    State(api): State<Api>,
    _: Caller,
    Asked(request): Asked<ListOnwardRequestsRequest>,
) -> Response {
    answer(onward::list_requests(&api.agent, request).await)
}

async fn answer_onward_request(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    Json(request): Json<AnswerOnwardRequestRequest>,
) -> Response {
    match path_id(id, &request.id) {
        Ok(id) => {
            let request = AnswerOnwardRequestRequest { id, ..request };
            answer(onward::answer_request(&api.agent, &caller, request).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn send_alert(
    State(api): State<Api>,
    caller: Caller,
    Json(request): Json<SendAlertRequest>,
) -> Response {
    answer(operations::send_alert(&api.agent, &caller, request).await)
}

async fn list_alerts(
    State(api): State<Api>,
    _: Caller,
    Asked(request): Asked<ListAlertsRequest>,
) -> Response {
    answer(operations::list_alerts(&api.agent, request).await)
}

async fn get_alert(State(api): State<Api>, caller: Caller, Id(id): Id) -> Response {
    answer(operations::get_alert(&api.agent, &caller, GetAlertRequest { id }).await)
}

async fn list_agencies(
    State(api): State<Api>,
    _: Caller,
    Asked(request): Asked<ListAgenciesRequest>,
) -> Response {
    answer(operations::list_agencies(&api.agent, request).await)
}

async fn list_keys(State(api): State<Api>, _: Caller, Asked(request): Asked<ListKeysRequest>) -> Response {
    answer(keys::list(&api.agent, request).await)
}

async fn confirm_keys(
    State(api): State<Api>,
    caller: Caller,
    Json(request): Json<ConfirmKeysRequest>,
) -> Response {
    answer(keys::confirm(&api.agent, &caller, request).await)
}

async fn list_receipts(
    State(api): State<Api>,
    _: Caller,
    Id(id): Id,
    Asked(request): Asked<ListReceiptsRequest>,
) -> Response {
    match path_id(id, &request.id) {
        Ok(id) => answer(receipts::list(&api.agent, ListReceiptsRequest { id, ..request }).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn get_status(State(api): State<Api>, _: Caller, Asked(request): Asked<GetStatusRequest>) -> Response {
    answer(operations::get_status(&api.agent, request).await)
}

async fn document() -> Response {
    written(StatusCode::OK, openapi::DOCUMENT.clone())
}

async fn livez() -> Response {
    written(StatusCode::OK, String::from(r#"{"live":true}"#))
}

async fn metrics_text(State(api): State<Api>) -> Response {
    match operations::get_status(&api.agent, GetStatusRequest::default()).await {
        Ok(status) => ([(CONTENT_TYPE, METRICS)], metrics::text(&status)).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// The text format of Prometheus.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

async fn no_such_path() -> Response {
    let refusal = Refusal::new(ErrorCode::Unsupported, "there is nothing at this path", SEE_DOCUMENT);
    refused_with(StatusCode::NOT_FOUND, &refusal)
}

async fn no_such_method() -> Response {
    let refusal = Refusal::new(ErrorCode::Unsupported, "this path does not take this method", SEE_DOCUMENT);
    refused_with(StatusCode::METHOD_NOT_ALLOWED, &refusal)
}

const SEE_DOCUMENT: &str = "see the document at /openapi.json";

/// What holds for every request: it was meant for this host, ends in time, and leaves no copy behind.
async fn each_request(request: Request, next: Next) -> Response {
    let mut response = if host::is_for_loopback(request.headers()) {
        tokio::time::timeout(wire::REQUEST, next.run(request)).await.unwrap_or_else(|_| {
            let late = Refusal::new(ErrorCode::Malformed, "the request did not end in time", "send it again");
            refused_with(StatusCode::REQUEST_TIMEOUT, &late)
        })
    } else {
        let refusal = Refusal::new(
            ErrorCode::WrongName,
            "the request names another host than this machine",
            "call the API as localhost or by its loopback address",
        );
        refused_with(StatusCode::MISDIRECTED_REQUEST, &refusal)
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Response> {
        api.token.admit(&parts.headers).map_err(|refusal| refused(&refusal))
    }
}

/// The id in the path of a request.
struct Id(String);

impl FromRequestParts<Api> for Id {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Response> {
        let Path(id) = Path::from_request_parts(parts, api).await.map_err(|_| {
            refused(&Refusal::new(ErrorCode::Malformed, "the path is not well formed", SEE_DOCUMENT))
        })?;
        Ok(Self(id))
    }
}

/// The id in the path, if the body does not name another.
fn path_id(in_path: String, in_body: &str) -> Result<String, Refusal> {
    if in_body.is_empty() || in_body == in_path {
        return Ok(in_path);
    }
    Err(Refusal::new(
        ErrorCode::Malformed,
        "the id in the body is not the one in the path",
        "leave it out of the body",
    ))
}

/// A message in the body of a request.
struct Json<M>(M);

impl<M: Message + Name + Default> FromRequest<Api> for Json<M> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Response> {
        if !is_json(request.headers()) {
            let refusal = Refusal::new(
                ErrorCode::Unsupported,
                "the request's content-type is not application/json",
                "send JSON, and say so",
            );
            return Err(refused_with(StatusCode::UNSUPPORTED_MEDIA_TYPE, &refusal));
        }
        let body = body::whole(request.into_body(), 0).await.map_err(|refusal| refused(&refusal))?;
        json::from_slice(&body).map(Self).map_err(|error| refused(&error.into()))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// A message in the query of a request: each parameter is one of its fields.
struct Asked<M>(M);

impl<M: Message + Name + Default> FromRequestParts<Api> for Asked<M> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Response> {
        asked(parts).map(Self).map_err(|refusal| refused(&refusal))
    }
}

fn asked<M: Message + Name + Default>(parts: &Parts) -> Result<M, Refusal> {
    let malformed = || {
        let wrong = "the query is not a list of parameters, each given once";
        Refusal::new(ErrorCode::Malformed, wrong, SEE_DOCUMENT)
    };
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(|_| malformed())?;
    let mut fields = Map::new();
    for (name, value) in pairs {
        if fields.insert(name, Value::String(value)).is_some() {
            return Err(malformed());
        }
    }
    Ok(json::from_slice(Value::Object(fields).to_string().as_bytes())?)
}

fn answer<M: Message + Name>(outcome: Result<M, Refusal>) -> Response {
    let written_out = outcome.and_then(|message| Ok(json::to_value(&message)?));
    match written_out {
        Ok(value) => written(StatusCode::OK, value.to_string()),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal::http(refusal.code()));
    refused_with(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal)
}

fn refused_with(status: StatusCode, refusal: &Refusal) -> Response {
    let mut response = written(status, error(refusal).to_string());
    if refusal.retry_after_ms > 0 {
        let seconds = refusal.retry_after_ms.div_ceil(1000);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A refusal as the API writes it.
pub(super) fn error(refusal: &Refusal) -> Value {
    let mut error = Map::new();
    error.insert("code".into(), refusal.code().as_str_name().into());
    error.insert("message".into(), refusal.message.clone().into());
    error.insert("action".into(), refusal.action.clone().into());
    if let Some(rule) = refusal.rule.as_ref().and_then(|rule| json::to_value(rule).ok()) {
        error.insert("rule".into(), rule);
    }
    Value::Object(Map::from_iter([("error".to_owned(), Value::Object(error))]))
}

fn written(status: StatusCode, json: String) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(json)).into_response()
}
