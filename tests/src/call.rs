//! Callers of the case API over gRPC.

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use liaison_demo::{Agent, Gateway, agent::ACTOR, wait};
use liaison_proto::{
    case::v1::{
        Alert, GetAlertRequest, GetReferralRequest, ListAlertsRequest, ListReferralsRequest, Referral,
        SendReferralRequest, case_service_client::CaseServiceClient, direction,
    },
    message::v1::{Refusal, error_code::Code as ErrorCode, referral_state::Code as State},
};
use tokio::net::UnixStream;
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// A caseworker system: its token and the caseworker who sits at it.
#[derive(Debug, Clone)]
pub struct Caseworker {
    bearer: AsciiMetadataValue,
}

impl Interceptor for Caseworker {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request.metadata_mut().insert("liaison-actor", AsciiMetadataValue::from_static(ACTOR));
        Ok(request)
    }
}

pub type Case = CaseServiceClient<InterceptedService<Channel, Caseworker>>;

/// A caseworker system's client of its agent; connects when it is first used, and again after a crash.
pub fn case(agent: &Agent) -> Result<Case> {
    let bearer = format!("Bearer {}", agent.api_token()?).parse()?;
    Ok(CaseServiceClient::with_interceptor(plain(agent)?, Caseworker { bearer }))
}

/// Sends a referral to one recipient; its id.
pub async fn send(agent: &Agent, content: SendReferralRequest) -> Result<String> {
    let sent = case(agent)?.send_referral(content).await?.into_inner().referrals;
    Ok(sent.first().context("no referral was made")?.id.clone())
}

/// A channel to an agent's gRPC API, without any token.
pub fn plain(agent: &Agent) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{}", agent.grpc()))?.connect_lazy())
}

/// The code with which a call was refused.
pub fn refused<T>(answer: Result<tonic::Response<T>, Status>) -> Option<ErrorCode> {
    answer.err().map(|status| Refusal::from(&status).code())
}

/// A referral as an agency sees it.
pub async fn referral(agent: &Agent, id: &str) -> Result<Referral> {
    Ok(case(agent)?.get_referral(GetReferralRequest { id: id.to_owned() }).await?.into_inner())
}

/// Waits until an agency sees a referral in a state.
pub async fn referral_in(agent: &Agent, id: &str, state: State) -> Result<Referral> {
    let mut last = State::Unspecified;
    wait::until(&format!("{} sees referral {id} {}", agent.agency, state.as_str_name()), async || {
        let seen = referral(agent, id).await.ok()?;
        last = seen.state();
        (last == state).then_some(seen)
    })
    .await
    .map_err(|error| error.context(format!("it was last seen {}", last.as_str_name())))
}

/// Waits until an agency has a referral that was sent to it.
pub async fn received(agent: &Agent, id: &str) -> Result<Referral> {
    wait::until(&format!("{} has referral {id}", agent.agency), async || referral(agent, id).await.ok()).await
}

/// Waits until an agency has an alert that was sent to it.
pub async fn received_alert(agent: &Agent, id: &str) -> Result<Alert> {
    let mut case = case(agent)?;
    wait::until(&format!("{} has alert {id}", agent.agency), async || {
        Some(case.get_alert(GetAlertRequest { id: id.to_owned() }).await.ok()?.into_inner())
    })
    .await
}

/// The ids of all referrals that an agency received, as often as each is listed.
pub async fn received_ids(agent: &Agent) -> Result<Vec<String>> {
    let mut case = case(agent)?;
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListReferralsRequest {
            direction: direction::Code::Received.into(),
            page_size: 100,
            page_token,
            ..ListReferralsRequest::default()
        };
        let page = case.list_referrals(request).await?.into_inner();
        ids.extend(page.referrals.into_iter().map(|referral| referral.id));
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        page_token = page.next_page_token;
    }
}

/// The ids of the alerts that an agency received, newest first, as often as each is listed.
pub async fn received_alert_ids(agent: &Agent, status: i32) -> Result<Vec<String>> {
    let mut case = case(agent)?;
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAlertsRequest {
            direction: direction::Code::Received.into(),
            status,
            page_size: 100,
            page_token,
        };
        let page = case.list_alerts(request).await?.into_inner();
        ids.extend(page.alerts.into_iter().map(|alert| alert.id));
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        page_token = page.next_page_token;
    }
}

/// A channel to a gateway's admin socket.
pub async fn admin(gateway: &Gateway) -> Result<Channel> {
    let socket = gateway.data.join("admin.sock");
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { anyhow::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Ok(Endpoint::from_static("http://admin").connect_with_connector(connector).await?)
}
