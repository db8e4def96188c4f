//! What both domains would decide, asked before anything is sent. Nothing of it is recorded anywhere.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use liaison_proto::{
    exchange::v1::{Agency as WireAgency, MessageHead, PreviewRecipient, PreviewRequest, PreviewResponse},
    federation::v1::{self as wire, federation_service_client::FederationServiceClient},
    limits::{ENVELOPE_HEAD_BYTES, RECIPIENTS},
    message::v1::{
        DomainDecision, RecipientDecision, Refusal, error_code::Code as ErrorCode, kind::Code as Kind,
        verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::names::{AgencyAddress, Domain};
use time::OffsetDateTime;
use tonic::Request;

use super::{
    forward::gate,
    link::in_words,
    listed,
    peers::Peer,
    refusals::{is_violation, violation},
    told,
};
use crate::{
    delivery::{self, Bases, Decided},
    directory::Agency,
    gateway::Gateway,
    limits,
    policy::{Decision, Side},
};

/// Completes this domain's preview with what the domains of its foreign recipients say, each with its time;
/// where one can't be asked, with why.
///
/// # Errors
/// What they say does not fit into one answer.
pub async fn preview(
    gateway: &Gateway,
    from: &Agency,
    head: &MessageHead,
    decided: &[Decided],
    own: PreviewResponse,
) -> Result<PreviewResponse, Refusal> {
    let mut by_domain: BTreeMap<&Domain, Vec<&Decided>> = BTreeMap::new();
    for decided in decided.iter().filter(|decided| *decided.recipient.domain() != gateway.domain) {
        by_domain.entry(decided.recipient.domain()).or_default().push(decided);
    }
    if by_domain.is_empty() {
        return Ok(own);
    }
    let asked = by_domain.into_iter().map(async |(domain, decided)| {
        let released: Vec<_> =
            decided.iter().filter(|decided| decided.decision.verdict == Verdict::Released).collect();
        let answer = if released.is_empty() {
            Ok(wire::PreviewResponse::default())
        } else {
            ask(gateway, domain, from, head, &released).await
        };
        (domain, answer)
    });
    let answers: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
    let complete = complete(gateway, own, &answers);
    if prost::Message::encoded_len(&complete) > ENVELOPE_HEAD_BYTES {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            "the decisions about this many recipients don't fit into one answer",
            "preview the message for fewer recipients at a time",
        ));
    }
    Ok(complete)
}

type Answers<'a> = BTreeMap<&'a Domain, Result<wire::PreviewResponse, Refusal>>;

fn complete(gateway: &Gateway, own: PreviewResponse, answers: &Answers<'_>) -> PreviewResponse {
    let mut complete = PreviewResponse { decisions: Vec::with_capacity(own.decisions.len()), ..own.clone() };
    for ours in own.decisions {
        let address: Option<AgencyAddress> = ours.recipient.parse().ok();
        let Some((domain, answer)) =
            address.and_then(|address| answers.get_key_value(address.domain()).map(|(d, a)| (*d, a)))
        else {
            complete.decisions.push(ours);
            continue;
        };
        let theirs = answer
            .as_ref()
            .ok()
            .and_then(|answer| answer.decisions.iter().find(|decision| decision.recipient == ours.recipient));
        complete.parts.push(DomainDecision {
            domain: gateway.domain.to_string(),
            recipient: ours.recipient.clone(),
            decision: Some(ours.clone()),
            policy_hash: own.policy_hash.clone(),
            decided_at: own.decided_at,
            unknown: None,
        });
        if ours.verdict() == Verdict::Released {
            complete.parts.push(DomainDecision {
                domain: domain.to_string(),
                recipient: ours.recipient.clone(),
                decision: theirs.cloned(),
                policy_hash: answer.as_ref().map(|answer| answer.policy_hash.clone()).unwrap_or_default(),
                decided_at: answer.as_ref().ok().and_then(|answer| answer.decided_at),
                unknown: match (theirs, answer) {
                    (Some(_), _) => None,
                    (None, Err(refusal)) => Some(refusal.clone()),
                    (None, Ok(_)) => Some(no_answer(domain)),
                },
            });
        }
        complete.decisions.push(delivery::merged(ours, theirs));
    }
    complete
}

/// Asks a peer what its recipients would get.
async fn ask(
    gateway: &Gateway,
    domain: &Domain,
    from: &Agency,
    head: &MessageHead,
    decided: &[&&Decided],
) -> Result<wire::PreviewResponse, Refusal> {
    let peer = gateway.peers.active(domain)?;
    let channel = peer.live.channel().ok_or_else(|| unreachable(&peer))?;
    gate(gateway, &peer)?;
    peer.live.admit_asking(&from.address, Instant::now())?;
    let recipients = decided.iter().map(|decided| {
        let released: Vec<_> = decided.decision.released().collect();
        let bases: Bases = decided
            .bases
            .iter()
            .filter(|(category, _)| released.contains(category))
            .map(|(category, basis)| (*category, *basis))
            .collect();
        delivery::bases_to_wire(&decided.recipient, &bases)
    });
    let preview = PreviewRequest { head: Some(head.clone()), recipients: recipients.collect() };
    let sender = WireAgency { keys: Vec::new(), ..from.to_wire() };
    let mut request = Request::new(wire::PreviewRequest { sender: Some(sender), preview: Some(preview) });
    request.set_timeout(limits::PREVIEW_WAIT);
    let mut client = FederationServiceClient::new(channel).max_decoding_message_size(ENVELOPE_HEAD_BYTES);
    match client.preview(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(in_words(domain, Refusal::from(&status))),
    }
}

fn unreachable(peer: &Peer) -> Refusal {
    // Why is for its administrator: it may name addresses.
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("{} can't be asked now: its gateway is not connected", peer.domain),
        "what is sent waits and is delivered when it is back; ask again later for its part, or ask the gateway's \
         administrator, who sees why in `peer show`",
    )
    .retry_after(Duration::from_secs(1))
}

fn no_answer(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("{domain} said nothing of this recipient"),
        "ask again later, or ask the gateway's administrator",
    )
}

/// Answers a peer's preview, by this domain's layers.
///
/// # Errors
/// The peer has no right to ask so, or asks for too much.
pub(super) fn answer(
    gateway: &Gateway,
    peer: &Peer,
    request: wire::PreviewRequest,
) -> Result<wire::PreviewResponse, Refusal> {
    let (Some(sender), Some(preview)) = (request.sender, request.preview) else {
        return Err(malformed("a preview names its sender and its recipients"));
    };
    let sender = listed::sender(gateway, peer, &sender).inspect_err(|refusal| {
        if is_violation(refusal) {
            peer.violation(refusal);
        }
    })?;
    let head = preview.head.ok_or_else(|| malformed("a preview has a head"))?;
    if !matches!(head.kind(), Kind::Referral | Kind::Alert) {
        return Err(malformed("policies decide on referrals and alerts"));
    }
    if preview.recipients.is_empty() || preview.recipients.len() > RECIPIENTS {
        return Err(malformed("a preview has 1 to 4,096 recipients"));
    }
    let (policies, directory) = (gateway.policy.load(), gateway.directory.load());
    let decide = |recipient: &PreviewRecipient| -> Result<RecipientDecision, Refusal> {
        let address: Option<AgencyAddress> = recipient.address.parse().ok();
        let address = address.filter(|address| *address.domain() == gateway.domain).ok_or_else(|| {
            let refusal = violation(format!("{} asks about an agency of another domain", peer.domain));
            peer.violation(&refusal);
            refusal
        })?;
        let bases = delivery::bases_from_wire(recipient)?;
        let decision = match told::addressed(&directory, &policies, &peer.domain, &address) {
            Ok(to) => delivery::decide(&policies, Side::Recipient, &sender, to, &head, &bases),
            Err(rule) => Decision::refused(&bases, rule),
        };
        Ok(decision.to_wire(&address))
    };
    Ok(wire::PreviewResponse {
        decisions: preview.recipients.iter().map(decide).collect::<Result<_, _>>()?,
        policy_hash: policies.hash().into(),
        decided_at: Some(times::to_wire(OffsetDateTime::now_utc())),
    })
}

fn malformed(message: &str) -> Refusal {
    Refusal::new(ErrorCode::Malformed, message, "correct the gateway's software")
}
