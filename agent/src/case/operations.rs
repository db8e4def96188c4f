//! What the case API does. gRPC and REST call the same operations.

use liaison_proto::{
    case::v1::{
        Alert, GetAlertRequest, GetReferralRequest, GetStatusRequest, ListAgenciesRequest,
        ListAgenciesResponse, ListAlertsRequest, ListAlertsResponse, ListReferralsRequest,
        ListReferralsResponse, Referral, SendAlertRequest, SendAlertResponse, SendReferralRequest,
        SendReferralResponse, StatusResponse, UpdateReferralRequest,
    },
    message::v1::{
        Refusal, alert_kind::Code as AlertKind, error_code::Code as ErrorCode, kind::Code as Kind,
    },
    times,
};
use liaison_trust::digest;
use prost::Name;
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use super::{
    audience::{self, Audience},
    caller::Caller,
    parse::{self, Body, Page},
    receipts, views,
};
use crate::{
    agent::Agent,
    basis::Recipient,
    outbox::{self, Idempotency, NewMessage},
    store::{Direction, Message},
};

/// Commits one message for each recipient to the outbox.
pub(super) async fn send_referral(
    agent: &Agent,
    caller: &Caller,
    request: SendReferralRequest,
) -> Result<SendReferralResponse, Refusal> {
    let now = OffsetDateTime::now_utc();
    let idempotency = idempotency(caller, &request);
    if let Some(ids) = repeated(agent, idempotency.as_ref()).await? {
        return sent_referrals(agent, ids).await;
    }
    let parse::Referral { to, body } = parse::referral(&request, &agent.address, now)?;
    let mut messages = Vec::with_capacity(to.len());
    for address in to {
        let recipient = audience::recipient(agent, &address).await?;
        let message = message(Kind::Referral, AlertKind::Unspecified, &body, &[recipient], now);
        messages.push(outbox::seal_at_once(agent, message).await);
    }
    let officers = body.grounds.officers();
    let (_, ids) = agent.store.add(messages, idempotency, &caller.actor, &officers, Vec::new()).await?;
    sent_referrals(agent, ids).await
}

/// Resolves the audience, and commits the alert to the outbox.
pub(super) async fn send_alert(
    agent: &Agent,
    caller: &Caller,
    request: SendAlertRequest,
) -> Result<SendAlertResponse, Refusal> {
    let now = OffsetDateTime::now_utc();
    let idempotency = idempotency(caller, &request);
    if let Some(ids) = repeated(agent, idempotency.as_ref()).await? {
        return sent_alert(agent, &ids).await;
    }
    let parse::Alert { kind, body } = parse::alert(&request, &agent.address, now)?;
    let Audience { recipients, refused, .. } = audience::resolve(agent, kind, &body).await?;
    if recipients.is_empty() {
        return Err(audience::reaches_nobody(refused));
    }
    let messages = vec![message(Kind::Alert, kind, &body, &recipients, now)];
    let officers = body.grounds.officers();
    let (_, ids) = agent.store.add(messages, idempotency, &caller.actor, &officers, refused).await?;
    sent_alert(agent, &ids).await
}

/// A page of referrals, newest first.
pub(super) async fn list_referrals(
    agent: &Agent,
    request: ListReferralsRequest,
) -> Result<ListReferralsResponse, Refusal> {
    let (messages, next_page_token) = page(agent, Kind::Referral, parse::referrals_page(&request)?).await?;
    let referrals = messages.into_iter().map(|message| views::referral(message, &agent.address)).collect();
    Ok(ListReferralsResponse { referrals, next_page_token })
}

/// One referral, with its sections where it was received.
pub(super) async fn get_referral(
    agent: &Agent,
    caller: &Caller,
    request: GetReferralRequest,
) -> Result<Referral, Refusal> {
    let message = find(agent, parse::id("id", &request.id)?, Kind::Referral).await?;
    let noted = note_reading(agent, caller, message.id, message.direction);
    let (referral, ()) = tokio::try_join!(shown(agent, message), noted)?;
    Ok(referral)
}

/// Moves a referral to another state.
pub(super) async fn update_referral(
    agent: &Agent,
    caller: &Caller,
    request: UpdateReferralRequest,
) -> Result<Referral, Refusal> {
    let (id, change) = parse::state_change(&request)?;
    let message = agent.store.change_state(id, change, &caller.actor).await?;
    shown(agent, message).await
}

/// A page of alerts, newest first.
pub(super) async fn list_alerts(
    agent: &Agent,
    request: ListAlertsRequest,
) -> Result<ListAlertsResponse, Refusal> {
    let (messages, next_page_token) = page(agent, Kind::Alert, parse::alerts_page(&request)?).await?;
    Ok(ListAlertsResponse { alerts: messages.iter().map(views::alert).collect(), next_page_token })
}

/// One alert, with its sections where it was received, with its deliveries where it was sent.
pub(super) async fn get_alert(
    agent: &Agent,
    caller: &Caller,
    request: GetAlertRequest,
) -> Result<Alert, Refusal> {
    let message = find(agent, parse::id("id", &request.id)?, Kind::Alert).await?;
    let noted = note_reading(agent, caller, message.id, message.direction);
    let (alert, ()) = tokio::try_join!(shown_alert(agent, message), noted)?;
    Ok(alert)
}

/// A page of the agencies that can be addressed.
pub(super) async fn list_agencies(
    agent: &Agent,
    request: ListAgenciesRequest,
) -> Result<ListAgenciesResponse, Refusal> {
    let after = parse::agencies_page(&request)?;
    let (agencies, more) = agent.directory.list(after.as_ref()).await?;
    let last = agencies.last().filter(|_| more);
    let next_page_token = last.map(|agency| agency.address.to_string()).unwrap_or_default();
    Ok(ListAgenciesResponse { agencies: agencies.into_iter().map(views::agency).collect(), next_page_token })
}

/// How the agent stands.
pub(super) async fn get_status(agent: &Agent, _request: GetStatusRequest) -> Result<StatusResponse, Refusal> {
    let link = agent.link.status();
    let counts = agent.store.counts().await?;
    Ok(StatusResponse {
        agency: agent.address.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        connected: link.connected,
        problem: link.problem.unwrap_or_default(),
        certificate_expires: link.certificate_expires.map(times::to_wire),
        outbox: counts.outbox,
        received_referrals: counts.received_referrals,
        received_alerts: counts.received_alerts,
        log: Some(receipts::status(agent).await?),
    })
}

/// A message to these recipients, with an id and a thread that tell nothing of any other message but
/// the time.
pub(super) fn message(
    kind: Kind,
    alert_kind: AlertKind,
    body: &Body,
    recipients: &[Recipient],
    now: OffsetDateTime,
) -> NewMessage {
    let bases = |recipient: &Recipient| {
        let bases = body.grounds.bases(recipient, body.sections.keys().copied(), now);
        (recipient.address.clone(), bases)
    };
    let recipients: Vec<_> = recipients.iter().map(bases).collect();
    // Without a context: the shared one counts, and would show which ids were made together.
    let unrelated = || Uuid::new_v7(Timestamp::now(NoContext));
    NewMessage {
        id: unrelated(),
        thread: unrelated(),
        kind,
        alert_kind,
        created: now,
        expires: body.grounds.until(body.expires, recipients.iter().flat_map(|(_, bases)| bases.values())),
        urgency: body.urgency,
        handling: body.handling,
        status: body.status,
        state_change: None,
        onward: None,
        onward_of: None,
        facts: Some(body.facts.clone()),
        sections: body.sections.clone(),
        recipients,
        sealed: None,
    }
}

/// The caller's idempotency key, bound to the request.
pub(super) fn idempotency<M: prost::Message + Name>(caller: &Caller, request: &M) -> Option<Idempotency> {
    let key = caller.idempotency_key.clone()?;
    let digest = digest::hash("idempotency/v1", &[M::full_name().as_bytes(), &request.encode_to_vec()]);
    Some(Idempotency { key, digest })
}

/// What this very request gave before.
pub(super) async fn repeated(
    agent: &Agent,
    idempotency: Option<&Idempotency>,
) -> Result<Option<Vec<Uuid>>, Refusal> {
    match idempotency {
        Some(idempotency) => agent.store.repeated(idempotency).await,
        None => Ok(None),
    }
}

/// Notes who read what was received.
async fn note_reading(agent: &Agent, caller: &Caller, id: Uuid, direction: Direction) -> Result<(), Refusal> {
    if direction == Direction::Received {
        agent.store.audit(&caller.actor, "read", id).await?;
    }
    Ok(())
}

async fn sent_referrals(agent: &Agent, ids: Vec<Uuid>) -> Result<SendReferralResponse, Refusal> {
    let mut referrals = Vec::with_capacity(ids.len());
    for id in ids {
        referrals.push(views::referral(find(agent, id, Kind::Referral).await?, &agent.address));
    }
    Ok(SendReferralResponse { referrals })
}

async fn sent_alert(agent: &Agent, ids: &[Uuid]) -> Result<SendAlertResponse, Refusal> {
    let id = ids.first().copied().ok_or_else(Refusal::internal)?;
    let alert = shown_alert(agent, find(agent, id, Kind::Alert).await?).await?;
    Ok(SendAlertResponse { alert: Some(alert) })
}

/// A referral with its sections.
async fn shown(agent: &Agent, message: Message) -> Result<Referral, Refusal> {
    let (id, direction) = (message.id, message.direction);
    let mut referral = views::referral(message, &agent.address);
    if direction == Direction::Received {
        let (release, sections) = agent.store.content(id).await?.ok_or_else(Refusal::internal)?;
        referral.sections = views::referral_sections(id, &sections, &release);
    }
    Ok(referral)
}

/// An alert with its sections or its deliveries.
async fn shown_alert(agent: &Agent, message: Message) -> Result<Alert, Refusal> {
    let id = message.id;
    let mut alert = views::alert(&message);
    match message.direction {
        Direction::Received => {
            let (release, sections) = agent.store.content(id).await?.ok_or_else(Refusal::internal)?;
            alert.sections = views::alert_sections(id, &sections, &release);
        }
        Direction::Sent => alert.deliveries = views::deliveries(message, &agent.address),
    }
    Ok(alert)
}

/// A message of this kind.
pub(super) async fn find(agent: &Agent, id: Uuid, kind: Kind) -> Result<Message, Refusal> {
    agent.store.message(id).await?.filter(|message| message.kind == kind).ok_or_else(|| {
        Refusal::new(
            ErrorCode::UnknownMessage,
            format!("this agent has no {} of this id", kind.as_str_name()),
            "give the id that the agent answered with, or list what there is",
        )
    })
}

/// A page of messages, and the token of the next one.
async fn page(agent: &Agent, kind: Kind, page: Page) -> Result<(Vec<Message>, String), Refusal> {
    // One more than is shown tells whether there is a next page.
    let mut messages =
        agent.store.messages(kind, page.direction, page.status, page.after, page.size + 1).await?;
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let more = messages.len() > size;
    messages.truncate(size);
    let last = messages.last().filter(|_| more);
    let token = last.map(|message| message.id.to_string()).unwrap_or_default();
    Ok((messages, token))
}
