//! The calls of the exchange API.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use liaison_proto::admin::v1::agency_state::Code as AgencyState;
use liaison_proto::{
    exchange::v1::{
        ListAgenciesRequest, ListAgenciesResponse, ListKeyEntriesRequest, ListKeyEntriesResponse,
        ListReceiptsRequest, ListReceiptsResponse, MessageHead, PreviewRequest, PreviewResponse,
        PublishKeyRequest, PublishKeyResponse, ResolveAudienceRequest, ResolveAudienceResponse,
        SessionRequest, SessionResponse,
        exchange_service_server::{ExchangeService, ExchangeServiceServer},
    },
    limits::{
        AGENCIES_PAGE, CLOCK_AHEAD, ENVELOPE_HEAD_BYTES, GRPC_MESSAGE_BYTES, KEEPALIVE_INTERVAL, RECIPIENTS,
    },
    message::v1::{
        RecipientDecision, Refusal, Rule, SignedKeyRecord, error_code::Code as ErrorCode, kind::Code as Kind,
        verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::{
    key_record::{self, KeyRecordError, ProvenKey},
    names::{AgencyAddress, SpiffeId},
    tls::Peer,
};
use prost::Message;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::{identity, keys, receipts, session, submission::empty_audience};
use crate::{
    delivery::{self, Bases, Decided, internal},
    directory::{Agency, is_empty},
    federation,
    gateway::{Gateway, to_the_end},
    limits,
    server::{Admit, Strangers},
    strict::Strict,
};

/// The exchange API of a gateway.
pub fn service(gateway: &Arc<Gateway>) -> Strict<ExchangeServiceServer<Exchange>> {
    let exchange = ExchangeServiceServer::new(Exchange { gateway: Arc::clone(gateway) })
        .max_decoding_message_size(GRPC_MESSAGE_BYTES);
    Strict::new(exchange, GRPC_MESSAGE_BYTES)
}

/// Who gets a connection to the exchange: every agency so many, strangers so many in all.
pub fn admit(gateway: &Arc<Gateway>) -> Admit {
    let gateway = Arc::clone(gateway);
    let strangers = Strangers::default();
    Arc::new(move |peer, began| match peer {
        Peer::Known { id: SpiffeId::Agency(agency), .. } => gateway.sessions.connection(agency, began),
        _ => strangers.admit(),
    })
}

/// Answers the calls of agents.
pub struct Exchange {
    gateway: Arc<Gateway>,
}

#[tonic::async_trait]
impl ExchangeService for Exchange {
    type SessionStream = Downstream;

    async fn publish_key(
        &self,
        request: Request<PublishKeyRequest>,
    ) -> Result<Response<PublishKeyResponse>, Status> {
        let agency = identity::agency(&self.gateway, &request)?;
        let key = request.into_inner().key.ok_or_else(|| missing("key"))?;
        let gateway = Arc::clone(&self.gateway);
        to_the_end(async move { publish(&gateway, &agency, &key).await }).await?;
        Ok(Response::new(PublishKeyResponse {}))
    }

    async fn list_agencies(
        &self,
        request: Request<ListAgenciesRequest>,
    ) -> Result<Response<ListAgenciesResponse>, Status> {
        identity::agency(&self.gateway, &request)?;
        Ok(Response::new(list(&self.gateway, &request.into_inner())?))
    }

    async fn resolve_audience(
        &self,
        request: Request<ResolveAudienceRequest>,
    ) -> Result<Response<ResolveAudienceResponse>, Status> {
        let agency = identity::agency(&self.gateway, &request)?;
        Ok(Response::new(resolve(&self.gateway, &agency, request.into_inner())?))
    }

    async fn preview(&self, request: Request<PreviewRequest>) -> Result<Response<PreviewResponse>, Status> {
        let agency = identity::agency(&self.gateway, &request)?;
        Ok(Response::new(preview(&self.gateway, &agency, request.into_inner()).await?))
    }

    async fn list_receipts(
        &self,
        request: Request<ListReceiptsRequest>,
    ) -> Result<Response<ListReceiptsResponse>, Status> {
        let agency = identity::agency(&self.gateway, &request)?;
        Ok(Response::new(receipts::list(&self.gateway, &agency.address, request.into_inner()).await?))
    }

    async fn list_key_entries(
        &self,
        request: Request<ListKeyEntriesRequest>,
    ) -> Result<Response<ListKeyEntriesResponse>, Status> {
        let agency = identity::agency(&self.gateway, &request)?;
        Ok(Response::new(keys::list(&self.gateway, &agency.address, &request.into_inner()).await?))
    }

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let agency = identity::agency(&self.gateway, &request)?;
        let place = self.gateway.sessions.stream(&agency.address).ok_or_else(too_many_streams)?;
        let (frames, outgoing) = mpsc::channel(limits::SESSION_FRAMES);
        let gateway = Arc::clone(&self.gateway);
        tokio::spawn(session::run(gateway, agency.address.clone(), request.into_inner(), frames));
        Ok(Response::new(Downstream { frames: outgoing, _place: place }))
    }
}

/// The frames of a session on their way to its agent, with the place that they take.
pub struct Downstream {
    frames: mpsc::Receiver<Result<SessionResponse, Status>>,
    _place: OwnedSemaphorePermit,
}

impl Stream for Downstream {
    type Item = Result<SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.frames.poll_recv(context)
    }
}

/// Decides, without sending, what each recipient of a message would get: what a submission with the
/// same head and bases gets under the same policies.
///
/// # Errors
/// What a submission would be refused for before policies are asked.
pub async fn preview(
    gateway: &Gateway,
    from: &Agency,
    request: PreviewRequest,
) -> Result<PreviewResponse, Refusal> {
    let head = request.head.ok_or_else(|| missing("head"))?;
    check_kind(&head)?;
    if request.recipients.is_empty() {
        return Err(missing("recipients"));
    }
    if request.recipients.len() > RECIPIENTS {
        return Err(too_many_recipients());
    }
    let mut recipients: Vec<(AgencyAddress, Bases)> = Vec::with_capacity(request.recipients.len());
    for recipient in &request.recipients {
        let address = address(&recipient.address)?;
        if address == from.address {
            return Err(Refusal::new(
                ErrorCode::ToOneself,
                format!("{address} is the sender"),
                "name other recipients than the sender",
            ));
        }
        recipients.push((address, delivery::bases_from_wire(recipient)?));
    }
    let (decided, policy_hash) = {
        let (policies, directory) = (gateway.policy.load(), gateway.directory.load());
        let decided = delivery::decide_all(&policies, &directory, &gateway.domain, from, &head, recipients)?;
        (decided, policies.hash())
    };
    let own = PreviewResponse {
        decisions: delivery::told(&decided)?,
        policy_hash: policy_hash.into(),
        decided_at: Some(times::to_wire(OffsetDateTime::now_utc())),
        parts: Vec::new(),
    };
    federation::preview(gateway, from, &head, &decided, own).await
}

fn resolve(
    gateway: &Gateway,
    from: &Agency,
    request: ResolveAudienceRequest,
) -> Result<ResolveAudienceResponse, Refusal> {
    let head = request.head.ok_or_else(|| missing("head"))?;
    check_kind(&head)?;
    let audience = head.facts.as_ref().and_then(|facts| facts.audience.clone()).unwrap_or_default();
    if is_empty(&audience) {
        return Err(empty_audience());
    }
    let directory = gateway.directory.load();
    for named in &audience.agencies {
        delivery::recipient(&directory, &address(named)?)?;
    }
    let policies = gateway.policy.load();
    let mut agencies = Vec::new();
    let mut refused: Vec<Decided> = Vec::new();
    let mut keyless = Vec::new();
    for to in directory.audience(&audience).filter(|to| to.address != from.address) {
        let side = delivery::side(&gateway.domain, &from.address, &to.address);
        let decision = delivery::decide(&policies, side, from, to, &head, &Bases::new());
        if decision.verdict != Verdict::Released {
            refused.push(Decided { recipient: to.address.clone(), bases: Bases::new(), decision });
        } else if to.current().is_none() {
            keyless.push(without_key(&to.address));
        } else {
            agencies.push(to.to_wire());
        }
    }
    if agencies.is_empty() && refused.is_empty() && keyless.is_empty() {
        return Err(empty_audience());
    }
    if agencies.len() > RECIPIENTS {
        return Err(too_many_recipients());
    }
    let mut refused = delivery::told(&refused)?;
    refused.extend(keyless);
    let response = ResolveAudienceResponse { agencies, refused, policy_hash: policies.hash().into() };
    if response.encoded_len() > ENVELOPE_HEAD_BYTES {
        return Err(too_many_recipients());
    }
    Ok(response)
}

/// A page of agencies: bounded in number and in bytes, for some have many keys.
fn list(gateway: &Gateway, request: &ListAgenciesRequest) -> Result<ListAgenciesResponse, Refusal> {
    if request.addresses.len() > AGENCIES_PAGE {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("more than {AGENCIES_PAGE} addresses in one request"),
            "ask for fewer at a time",
        ));
    }
    let directory = gateway.directory.load();
    let addresses =
        request.addresses.iter().map(|text| address(text)).collect::<Result<Vec<_>, Refusal>>()?;
    let after = (!request.after.is_empty()).then(|| address(&request.after)).transpose()?;
    let mut agencies: Box<dyn Iterator<Item = &Arc<Agency>>> = match (&after, addresses.is_empty()) {
        (_, false) => Box::new(addresses.iter().filter_map(|address| directory.get(address))),
        (Some(after), true) => Box::new(directory.after(after)),
        (None, true) => Box::new(directory.iter()),
    };
    let mut page = ListAgenciesResponse::default();
    let mut bytes = 0;
    let shown = |agency: &&Arc<Agency>| agency.listed && agency.state != AgencyState::Revoked;
    for agency in agencies.by_ref().filter(shown) {
        let agency = agency.to_wire();
        bytes += agency.encoded_len();
        if page.agencies.len() >= AGENCIES_PAGE || bytes > limits::AGENCIES_BYTES && !page.agencies.is_empty()
        {
            page.more = true;
            break;
        }
        page.agencies.push(agency);
    }
    Ok(page)
}

async fn publish(gateway: &Gateway, agency: &Agency, record: &SignedKeyRecord) -> Result<(), Refusal> {
    if agency.current().is_some_and(|current| current.signed == *record) {
        return Ok(());
    }
    let proven = match agency.current() {
        Some(current) => key_record::follows(current, record),
        None => key_record::prove_chain(std::slice::from_ref(record))
            .and_then(|mut chain| chain.pop().ok_or(KeyRecordError::NoFirst)),
    };
    let key = proven.map_err(|fault| {
        Refusal::new(
            ErrorCode::KeyChainBroken,
            fault.to_string(),
            "sign the next key record with the current key, as the agent does by itself",
        )
    })?;
    check_key(agency, &key, OffsetDateTime::now_utc())?;
    if !gateway.store.add_key(&agency.address, key.sequence, record).await.map_err(internal)? {
        return Err(Refusal::new(
            ErrorCode::KeyChainBroken,
            format!("{} published another key record {} at the same time", agency.address, key.sequence),
            "run one agent for each agency",
        ));
    }
    info!(agency = %agency.address, key = %key.id, sequence = key.sequence, "a key record was published");
    gateway.change(&agency.address, |agency| {
        if agency.current().is_none_or(|current| current.sequence < key.sequence) {
            agency.keys.push(key.clone());
        }
    });
    Ok(())
}

fn check_key(agency: &Agency, key: &ProvenKey, now: OffsetDateTime) -> Result<(), Refusal> {
    if key.agency != agency.address {
        return Err(Refusal::new(
            ErrorCode::SenderMismatch,
            format!("the key record is of {}, the caller is {}", key.agency, agency.address),
            "publish one's own key records",
        ));
    }
    if key.not_after <= now {
        return Err(Refusal::new(
            ErrorCode::Expired,
            "the key record is no longer valid",
            "make a new key record",
        ));
    }
    if key.not_before > now + CLOCK_AHEAD {
        return Err(Refusal::new(
            ErrorCode::ClockSkew,
            "the key record is not valid yet",
            "set the clock of the agent's machine",
        ));
    }
    if agency.keys.len() >= limits::KEY_RECORDS {
        return Err(Refusal::new(
            ErrorCode::RateLimited,
            format!(
                "{} has {} key records, as many as an agency may have",
                agency.address,
                agency.keys.len()
            ),
            "ask the gateway's administrator why its keys change so often",
        ));
    }
    Ok(())
}

fn check_kind(head: &MessageHead) -> Result<(), Refusal> {
    match head.kind() {
        Kind::Referral | Kind::Alert => Ok(()),
        Kind::State | Kind::Onward | Kind::Unspecified => Err(Refusal::new(
            ErrorCode::Malformed,
            "policies decide on referrals and alerts",
            "name one of these kinds",
        )),
    }
}

/// An agency that policies permit and that nobody can seal to yet.
fn without_key(agency: &AgencyAddress) -> RecipientDecision {
    RecipientDecision {
        recipient: agency.to_string(),
        verdict: Verdict::Withheld.into(),
        rule: Some(Rule {
            layer: format!("agency/{agency}"),
            rule: "none:key".to_owned(),
            explain: "The agency's agent has not published its keys yet, so nothing can be sealed to it."
                .to_owned(),
            ..Rule::default()
        }),
        categories: Vec::new(),
    }
}

fn address(text: &str) -> Result<AgencyAddress, Refusal> {
    text.parse().map_err(|fault: liaison_trust::names::NameError| {
        Refusal::new(ErrorCode::Malformed, fault.to_string(), "correct the address")
    })
}

fn missing(field: &str) -> Refusal {
    Refusal::new(
        ErrorCode::MissingField,
        format!("the request has no {field}"),
        "correct the agent's software",
    )
}

fn too_many_streams() -> Refusal {
    Refusal::new(
        ErrorCode::RateLimited,
        "the agency has too many sessions that it does not let go",
        "run one agent for each agency, and end a connection before opening another",
    )
    .retry_after(KEEPALIVE_INTERVAL)
}

fn too_many_recipients() -> Refusal {
    Refusal::new(
        ErrorCode::TooLarge,
        format!("a message has {RECIPIENTS} recipients at most, and their keys fit into one answer"),
        "address fewer agencies at a time",
    )
}
