//! A message that a peer forwards: from its bytes to a signed acceptance, or a refusal and nothing stored.

use std::collections::BTreeSet;

use bytes::Bytes;
use liaison_proto::{
    federation::v1::Forward,
    message::v1::{
        Acceptance, Acceptances, Envelope, Refusal, ReleaseRecord, ReleasedSection, Rule,
        data_category::Code as Category, error_code::Code as ErrorCode, kind::Code as Kind,
        verdict::Code as Verdict,
    },
    strict, times,
};
use liaison_trust::{
    digest::Digest,
    envelope::{self, Verified, VerifiedForward, VerifiedRecipient},
    key_record::{self, ProvenKey},
    statement,
};
use prost::Message;
use time::OffsetDateTime;

use super::{
    listed,
    peers::Peer,
    preview::not_a_member,
    refusals::{scheme_mismatch, violation},
};
use crate::{
    delivery::{self, Bases, NewThreadCopy, aside, internal},
    directory::{Agency, Directory},
    gateway::Gateway,
    policy::{Decision, PolicySet, Side},
    store::{NewCopy, NewMessage, Released},
};

/// Accepts a message from a peer: the encoded [`Acceptances`] of the recipients that it is forwarded to. The
/// answer comes after a durable commit; a message that was accepted before gets the acceptances of then.
///
/// # Errors
/// What is wrong with the message, and nothing of it is stored.
pub(super) async fn accept(
    gateway: &Gateway,
    peer: &Peer,
    forward: Bytes,
    now: OffsetDateTime,
) -> Result<Bytes, Refusal> {
    let size = forward.len();
    let forward: Forward = aside(size, move || {
        strict::decode(&forward).map_err(|error| {
            let refusal = Refusal::from(error);
            match refusal.code() {
                ErrorCode::UnknownValue => Refusal { action: UPGRADE.to_owned(), ..refusal },
                _ => refusal,
            }
        })
    })
    .await?;
    let offered = delivery::offered(&forward.manifest);
    let recipients: Vec<String> = forward
        .recipients
        .iter()
        .map(|recipient| recipient.proof.as_ref().map_or_else(String::new, |proof| proof.address.clone()))
        .collect();
    let described = forward.sender.clone().unwrap_or_default();
    let sender = listed::sender(gateway, peer, &described)?;
    let outcome = async {
        let key = gateway.peers.get(&peer.domain).map_or(peer.bundle.signing, |peer| peer.bundle.signing);
        let keys = sender.keys.clone();
        let verified = aside(size, move || {
            let known = |id: &Digest| keys.iter().rev().find(|key| key.id == *id);
            Ok(envelope::verify_forward(forward, &key, now, known)?)
        })
        .await?;
        check_parties(gateway, peer, &sender, &verified.message, now)?;
        let unlisted = (!sender.listed).then(|| listed::continued(&sender, &verified.message.sender_key));
        let message = prepare(gateway, &sender, verified, now).await?;
        if let Some(sender) = unlisted {
            listed::note(gateway, peer, sender).await?;
        }
        delivery::commit(gateway, message).await
    };
    let acceptances = match outcome.await {
        // What a changed world refuses now was perhaps accepted before, and its answer lost.
        Err(refusal) if delivery::may_have_passed(refusal.code()) => {
            let Some((id, digest)) = offered else { return Err(refusal) };
            let known = gateway.store.accepted(&sender.address, id).await.map_err(internal)?;
            known.filter(|(known, _)| *known == digest).map(|(_, acceptance)| acceptance).ok_or(refusal)
        }
        outcome => outcome,
    }?;
    only_of(acceptances, &recipients)
}

/// The acceptances of these recipients: a message that is forwarded again goes only to those of whom the peer has
/// not heard.
fn only_of(acceptances: Bytes, recipients: &[String]) -> Result<Bytes, Refusal> {
    let mut read: Acceptances = strict::decode(&acceptances)?;
    if read.acceptances.len() == recipients.len() {
        return Ok(acceptances);
    }
    read.acceptances.retain(|signed| {
        let acceptance: Result<Acceptance, _> = strict::decode(&signed.acceptance);
        let decisions = acceptance.map(|acceptance| acceptance.decisions).unwrap_or_default();
        decisions.iter().any(|decision| recipients.contains(&decision.recipient))
    });
    Ok(read.encode_to_vec().into())
}

const UPGRADE: &str = "upgrade this gateway, or have the other domain send what this version defines";

/// Checks that the sender is the peer's own, under a key that is the sender's, and that all recipients are of
/// this domain: nothing transits.
fn check_parties(
    gateway: &Gateway,
    peer: &Peer,
    sender: &Agency,
    message: &Verified,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    if message.sender != sender.address {
        return Err(violation(format!(
            "{} describes {} and forwards a message of {}",
            peer.domain, sender.address, message.sender
        )));
    }
    if let Some(foreign) =
        message.recipients.iter().find(|recipient| *recipient.address.domain() != gateway.domain)
    {
        return Err(violation(format!(
            "{} forwards a message to {}, which is not of {}",
            peer.domain, foreign.address, gateway.domain
        )));
    }
    if !is_senders_key(sender, &message.sender_key, now) {
        return Err(Refusal::new(
            ErrorCode::UnknownKey,
            format!(
                "the message is signed by a key of {} that does not continue those known here",
                sender.address
            ),
            "let this domain see the sender in the directory: its key records come with it",
        ));
    }
    Ok(())
}

/// Whether a key is the current one of an agency, the one before, or the next; of one whose keys are not known,
/// its gateway's word is all that there is.
fn is_senders_key(sender: &Agency, key: &ProvenKey, now: OffsetDateTime) -> bool {
    match sender.current() {
        None => true,
        Some(current) => {
            sender.usable_key(&key.id, now).is_some() || key_record::follows(current, &key.signed).is_ok()
        }
    }
}

/// Decides by this domain's layers, and makes all that is to be stored.
async fn prepare(
    gateway: &Gateway,
    sender: &Agency,
    forward: VerifiedForward,
    now: OffsetDateTime,
) -> Result<NewMessage, Refusal> {
    let policies = gateway.policy.load_full();
    let directory = gateway.directory.load_full();
    let VerifiedForward { message, releases } = forward;
    if let Some(other) =
        releases.iter().find(|release| release.scheme_hash != policies.scheme_hash().as_ref())
    {
        return Err(scheme_mismatch(&other.scheme_hash, policies.scheme_hash()));
    }
    let in_thread = matches!(message.manifest.kind(), Kind::State | Kind::Onward);
    let mut copies = Vec::new();
    let mut acceptances = Acceptances::default();
    if in_thread {
        let NewThreadCopy { copy, decision, .. } =
            delivery::authorise(gateway, &policies, &message, now).await?;
        let directory_knows = delivery::recipient(&directory, &copy.recipient);
        directory_knows?;
        acceptances.acceptances.push(accepted(gateway, &message, &policies, decision, now));
        copies.push(copy);
    } else {
        for (recipient, release) in message.recipients.iter().zip(&releases) {
            let offer = Offer { sender, message: &message, recipient, release };
            let (decision, copy) = offer.decide(gateway, &directory, &policies, now)?;
            let told = decision.to_wire(&recipient.address);
            acceptances.acceptances.push(accepted(gateway, &message, &policies, told, now));
            copies.extend(copy);
        }
    }
    let acceptance: Bytes = acceptances.encode_to_vec().into();
    if acceptance.len() > liaison_proto::limits::ACCEPTANCES_BYTES {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            "the decisions about this many recipients don't fit into one answer",
            "send the message to fewer recipients at a time",
        ));
    }
    Ok(NewMessage {
        id: message.id,
        digest: message.digest,
        expires: message.expires,
        acceptance,
        opens: delivery::opened(&message).filter(|_| !copies.is_empty()),
        sender: message.sender,
        content: Envelope {
            manifest: message.manifest_bytes,
            signature: message.signature,
            sender_key: Some(message.sender_key_record),
            facts: message.facts_bytes,
            sections: message.sections.into_iter().map(|section| section.section).collect(),
            ..Envelope::default()
        },
        copies,
    })
}

fn accepted(
    gateway: &Gateway,
    message: &Verified,
    policies: &PolicySet,
    decision: liaison_proto::message::v1::RecipientDecision,
    now: OffsetDateTime,
) -> liaison_proto::message::v1::SignedAcceptance {
    let acceptance = Acceptance {
        message_id: Bytes::copy_from_slice(message.id.as_bytes()),
        manifest_digest: message.digest.into(),
        accepted_at: Some(times::to_wire(now)),
        policy_hash: policies.hash().into(),
        scheme_hash: policies.scheme_hash().into(),
        decisions: vec![decision],
    };
    statement::sign(&acceptance, &gateway.signing)
}

/// What the sender's gateway released to one recipient.
struct Offer<'a> {
    sender: &'a Agency,
    message: &'a Verified,
    recipient: &'a VerifiedRecipient,
    release: &'a ReleaseRecord,
}

impl Offer<'_> {
    /// Decides what of it goes to the recipient; a copy where anything goes at all.
    fn decide(
        &self,
        gateway: &Gateway,
        directory: &Directory,
        policies: &PolicySet,
        now: OffsetDateTime,
    ) -> Result<(Decision, Option<NewCopy>), Refusal> {
        let head = delivery::head(&self.message.manifest, self.message.facts.as_ref());
        let bases = self.released_bases();
        let to = match delivery::recipient(directory, &self.recipient.address) {
            Ok(agency) => agency,
            Err(refusal) => return Ok((Decision::refused(&bases, not_a_member(&refusal)), None)),
        };
        if to.usable_key(&self.recipient.key_id, now).is_none() {
            return Ok((Decision::refused(&bases, other_keys()), None));
        }
        // The same scheme was asked by the sender's gateway: what it forbids should never have left.
        let scheme = delivery::decide(policies, Side::Scheme, self.sender, to, &head, &bases);
        let forbidden = scheme.verdict != Verdict::Released
            || scheme.categories.values().any(|outcome| outcome.verdict != Verdict::Released);
        if forbidden {
            let categories = scheme.categories.values().filter_map(|outcome| outcome.rule.as_ref());
            let rule = scheme.rule.as_ref().or_else(|| categories.into_iter().next());
            return Err(violation(format!(
                "{} forwards to {} what the scheme's rule {} forbids",
                self.sender.address.domain(),
                self.recipient.address,
                rule.map_or("(none)", |rule| rule.rule.as_str())
            )));
        }
        let decision = delivery::decide(policies, Side::Recipient, self.sender, to, &head, &bases);
        if decision.verdict != Verdict::Released {
            return Ok((decision, None));
        }
        let record = self.record(policies, to, &decision, now);
        let own = &gateway.domain;
        let copy = NewCopy {
            recipient: self.recipient.address.clone(),
            queue: delivery::queue(own, &self.sender.address, &self.recipient.address),
            answers: delivery::answers(own, &self.sender.address, &self.recipient.address),
            proof: self.recipient.proof.clone(),
            bases_salt: Bytes::new(),
            released: Released {
                bases: delivery::bases_to_wire(&self.recipient.address, &bases),
                decision: decision.to_wire(&self.recipient.address),
                release: statement::sign(&record, &gateway.signing),
                policy_hash: policies.hash(),
            },
        };
        Ok((decision, Some(copy)))
    }

    /// The bases of the categories that the sender's gateway released to the recipient.
    fn released_bases(&self) -> Bases {
        let positions: BTreeSet<u32> = self.release.released.iter().map(|section| section.position).collect();
        let categories: BTreeSet<Category> = self
            .message
            .sections
            .iter()
            .filter(|section| positions.contains(&section.section.position))
            .map(|section| section.category)
            .collect();
        let bases = self.recipient.bases.iter().filter(|(category, _)| categories.contains(category));
        bases.map(|(category, basis)| (*category, *basis)).collect()
    }

    /// The record of what goes to the recipient: the obligations of both domains bind, and a withheld category
    /// is named only where both let it be.
    fn record(
        &self,
        policies: &PolicySet,
        to: &Agency,
        decision: &Decision,
        now: OffsetDateTime,
    ) -> ReleaseRecord {
        let sections: Vec<_> = self
            .message
            .sections
            .iter()
            .map(|section| (section.category, section.section.position))
            .collect();
        let message = (self.message.id, self.message.digest);
        let own = delivery::release(message, &self.recipient.address, &sections, decision, policies, now);
        let head = delivery::head(&self.message.manifest, self.message.facts.as_ref());
        let question = delivery::question(&head, &self.recipient.bases);
        let (from, to) = (delivery::party(self.sender), delivery::party(to));
        let named = self.release.withheld().filter(|category| {
            let answer = policies.may_name(Side::Recipient, &from, &to, &question, *category);
            delivery::report(&answer.incidents);
            answer.is_permitted()
        });
        let mut withheld: BTreeSet<i32> = own.withheld.iter().copied().collect();
        withheld.extend(named.map(i32::from));
        ReleaseRecord {
            released: own.released.iter().filter_map(|own| self.with_obligations(own)).collect(),
            withheld: withheld.into_iter().collect(),
            ..own
        }
    }

    fn with_obligations(&self, own: &ReleasedSection) -> Option<ReleasedSection> {
        let theirs = self.release.released.iter().find(|theirs| theirs.position == own.position)?;
        Some(ReleasedSection {
            position: own.position,
            retention_days: own.retention_days.min(theirs.retention_days),
            onward_share: own.onward_share && theirs.onward_share,
            use_as_evidence: own.use_as_evidence && theirs.use_as_evidence,
        })
    }
}

fn other_keys() -> Rule {
    Rule {
        layer: "keys".to_owned(),
        rule: "none:keys".to_owned(),
        explain:
            "The message is sealed to keys that the agency no longer uses. Send it again: its new keys are \
                  known by then."
                .to_owned(),
        ..Rule::default()
    }
}
