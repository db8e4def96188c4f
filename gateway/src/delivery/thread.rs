//! Messages inside a thread: authorised by the referral that opened it, whatever policies say.

use liaison_proto::{
    exchange::v1::PreviewRecipient,
    message::v1::{
        Manifest, RecipientDecision, Refusal, ReleaseRecord, error_code::Code as ErrorCode,
        kind::Code as Kind, onward_step::Code as OnwardStep, verdict::Code as Verdict,
    },
    referral::{self, Party},
};
use liaison_trust::{envelope::Verified, names::AgencyAddress, statement};
use time::OffsetDateTime;

use super::thread_release;
use crate::{
    gateway::Gateway,
    limits,
    policy::PolicySet,
    store::{NewCopy, Released, Thread},
};

/// A copy of a message inside a thread, with the decision and the record that go with it.
pub struct NewThreadCopy {
    pub copy: NewCopy,
    pub decision: RecipientDecision,
    pub record: ReleaseRecord,
}

/// Makes the one copy of a change of state or an onward message.
///
/// # Errors
/// Sender and recipient are not the parties of the thread, or the sender's part in it does not let it say this.
pub async fn authorise(
    gateway: &Gateway,
    policies: &PolicySet,
    verified: &Verified,
    now: OffsetDateTime,
) -> Result<NewThreadCopy, Refusal> {
    let sender = &verified.sender;
    let recipient = verified.recipients.first().ok_or_else(|| not_a_party(sender))?;
    let thread = gateway.store.thread(verified.thread).await.map_err(super::internal)?;
    let Some(thread) = thread else {
        return Err(if is_returning(gateway) { on_its_way() } else { not_a_party(sender) });
    };
    let role = role(&thread, sender, &recipient.address).ok_or_else(|| not_a_party(sender))?;
    if thread.status != verified.manifest.status() {
        // Of two referrals at once with one thread, two domains may know different ones: it is no gateway's fault.
        return Err(Refusal::new(
            ErrorCode::NotAParty,
            "a message of a thread has another status than its referral: exercise and real traffic don't mix",
            "give the message the status of its referral",
        ));
    }
    may_say(&verified.manifest, sender, role)?;
    let record = thread_release((verified.id, verified.digest), &recipient.address, policies, now);
    let decision = RecipientDecision {
        recipient: recipient.address.to_string(),
        verdict: Verdict::Released.into(),
        ..RecipientDecision::default()
    };
    let own = &gateway.domain;
    let copy = NewCopy {
        recipient: recipient.address.clone(),
        queue: super::queue(own, sender, &recipient.address),
        answers: super::answers(own, sender, &recipient.address),
        proof: recipient.proof.clone(),
        bases_salt: recipient.bases_salt.clone(),
        released: Released {
            bases: PreviewRecipient { address: recipient.address.to_string(), bases: Vec::new() },
            decision: decision.clone(),
            release: statement::sign(&record, &gateway.signing),
        },
        handed_over: None,
    };
    Ok(NewThreadCopy { copy, decision, record })
}

/// The thread that a referral opens.
pub fn opened(verified: &Verified) -> Option<Thread> {
    let responder = verified.recipients.first()?;
    (verified.manifest.kind() == Kind::Referral).then(|| Thread {
        id: verified.thread,
        requester: verified.sender.clone(),
        responder: responder.address.clone(),
        status: verified.manifest.status(),
    })
}

/// Whether a party of a thread may say what a message says.
fn may_say(manifest: &Manifest, sender: &AgencyAddress, role: Party) -> Result<(), Refusal> {
    let (setter, what) = match manifest.kind() {
        Kind::Onward => {
            let step = manifest.onward.clone().unwrap_or_default().step();
            let setter = match step {
                OnwardStep::Asked => Some(Party::Responder),
                OnwardStep::Granted | OnwardStep::Denied => Some(Party::Requester),
                OnwardStep::Unspecified => None,
            };
            (setter, step.as_str_name())
        }
        _ => {
            let state = manifest.state_change.unwrap_or_default().state();
            (referral::setter(state), state.as_str_name())
        }
    };
    if setter == Some(role) {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::TransitionNotAllowed,
        format!("{sender} can't say {what} in this thread"),
        "leave this to the other party of the referral",
    ))
}

/// Whether what the database lost may be on its way back: agents and peers offer it again once they are connected.
fn is_returning(gateway: &Gateway) -> bool {
    gateway.logs.evidence.number() > 1 && gateway.started.elapsed() < limits::RETURNING
}

fn on_its_way() -> Refusal {
    Refusal::new(
        ErrorCode::RateLimited,
        "the gateway was restored from an older copy, and the referral of the thread may be on its way again",
        "offer the message again",
    )
    .retry_after(limits::SUBMISSION_RETRY)
}

/// The part that a sender plays in a thread, if these two are its parties.
fn role(thread: &Thread, sender: &AgencyAddress, recipient: &AgencyAddress) -> Option<Party> {
    if (sender, recipient) == (&thread.requester, &thread.responder) {
        Some(Party::Requester)
    } else if (sender, recipient) == (&thread.responder, &thread.requester) {
        Some(Party::Responder)
    } else {
        None
    }
}

fn not_a_party(sender: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::NotAParty,
        format!("{sender} and the recipient are not the two parties of a referral with this thread"),
        "send states to the other party, in the thread of a referral that was accepted",
    )
}
