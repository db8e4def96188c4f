//! What each recipient of a message gets: plain functions of directory, policies and message. A preview,
//! a submission and a hand-over all ask here, so that they can't disagree.

mod commit;
pub mod evidence;
mod fresh;
mod merge;
mod notice;
mod recheck;
mod release;
pub mod sweep;
mod thread;

use std::collections::BTreeMap;

use liaison_proto::{
    exchange::v1::{MessageHead, PreviewRecipient},
    message::v1::{
        CategoryBasis, Facts, Manifest, RecipientDecision, Refusal, Rule, SealedSection, SectionHeader,
        basis::Code as Basis, data_category::Code as Category, error_code::Code as ErrorCode,
        kind::Code as Kind, verdict::Code as Verdict,
    },
    strict,
};
use liaison_trust::names::{AgencyAddress, Domain};
use metrics::counter;
use tracing::error;

use crate::{
    directory::{Agency, Directory},
    exchange::identity,
    limits,
    policy::{Decision, Incident, Party, PolicySet, Question, Side},
    store::Queue,
};

pub use commit::{
    Offered, Uncommitted, aside, by_what_holds, commit, decoded, internal, log_refusal, may_have_passed,
    offered, queue_full, unless_erased,
};
pub use fresh::fresh;
pub use merge::merged;
pub use notice::{Event, about, name, notice};
pub use recheck::{Recheck, recheck};
pub use release::{positions, release, thread_release};
pub use thread::{NewThreadCopy, authorise, opened};

/// The bases on which one recipient may have categories.
pub type Bases = BTreeMap<Category, Basis>;

/// What is decided for one recipient.
#[derive(Debug, Clone)]
pub struct Decided {
    pub recipient: AgencyAddress,
    pub bases: Bases,
    pub decision: Decision,
}

/// The readable head of a sealed message.
pub fn head(manifest: &Manifest, facts: Option<&Facts>) -> MessageHead {
    MessageHead {
        kind: manifest.kind,
        alert_kind: manifest.alert_kind,
        urgency: manifest.urgency,
        handling: manifest.handling,
        status: manifest.status,
        facts: facts.cloned(),
    }
}

/// Whose layers this domain asks about a message between two agencies.
pub fn side(own: &Domain, from: &AgencyAddress, to: &AgencyAddress) -> Side {
    match (from.domain() == own, to.domain() == own) {
        (true, true) => Side::Both,
        (true, false) => Side::Sender,
        (false, _) => Side::Recipient,
    }
}

/// Where a copy waits for its recipient.
pub fn queue(own: &Domain, from: &AgencyAddress, to: &AgencyAddress) -> Queue {
    if to.domain() == own {
        Queue::Agency(to.clone())
    } else {
        Queue::Lane { to: to.domain().clone(), of: from.clone() }
    }
}

/// Where the words about a copy wait for its sender.
pub fn answers(own: &Domain, from: &AgencyAddress, to: &AgencyAddress) -> Queue {
    if from.domain() == own {
        Queue::Agency(from.clone())
    } else {
        Queue::Notices { to: from.domain().clone(), of: to.clone() }
    }
}

/// A message as policies are asked about it.
pub fn question(head: &MessageHead, bases: &Bases) -> Question {
    let facts = head.facts.clone().unwrap_or_default();
    Question {
        kind: head.kind(),
        alert_kind: head.alert_kind(),
        urgency: head.urgency(),
        handling: head.handling,
        status: head.status(),
        purpose: facts.purpose(),
        minor: facts.minor,
        origin: facts.origin(),
        bases: bases.clone(),
    }
}

/// Decides a message for one recipient, by the layers of one side.
pub fn decide(
    policies: &PolicySet,
    side: Side,
    from: &Agency,
    to: &Agency,
    head: &MessageHead,
    bases: &Bases,
) -> Decision {
    let decision = policies.decide(side, &party(from), &party(to), &question(head, bases));
    report(&decision.incidents);
    decision
}

/// Whether policies let another domain know of an agency of this one.
pub fn may_see(policies: &PolicySet, domain: &Domain, agency: &Agency) -> bool {
    let answer = policies.discover(domain, &party(agency));
    report(&answer.incidents);
    answer.is_permitted()
}

/// Logs and counts policies that could not be evaluated.
pub fn report(incidents: &[Incident]) {
    for incident in incidents {
        counter!("liaison_gateway_policy_incidents_total").increment(1);
        error!(%incident, "a policy could not be evaluated; it denied");
    }
}

/// Decides a message of an agency of this domain for each of its recipients.
///
/// # Errors
/// A recipient is not an active agency.
pub fn decide_all(
    policies: &PolicySet,
    directory: &Directory,
    own: &Domain,
    from: &Agency,
    head: &MessageHead,
    recipients: impl IntoIterator<Item = (AgencyAddress, Bases)>,
) -> Result<Vec<Decided>, Refusal> {
    recipients
        .into_iter()
        .map(|(recipient, bases)| {
            let to = self::recipient(directory, &recipient)?;
            let side = side(own, &from.address, &recipient);
            let decision = decide(policies, side, from, to, head, &bases);
            Ok(Decided { recipient, bases, decision })
        })
        .collect()
}

/// The agency that a message is for.
///
/// # Errors
/// It is not there, or takes no part.
pub fn recipient<'d>(directory: &'d Directory, address: &AgencyAddress) -> Result<&'d Agency, Refusal> {
    let agency = directory.get(address).filter(|agency| agency.listed);
    let agency = agency.ok_or_else(|| unknown_recipient(address))?;
    identity::is_active(agency)?;
    Ok(agency)
}

/// The refusal of a message to an agency that is not there, or that its sender may not know of.
pub fn unknown_recipient(address: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownRecipient,
        format!("no agency {address} is known here"),
        "look the recipient up in the list of agencies",
    )
}

/// Passes what was decided if the message goes to anybody.
///
/// # Errors
/// It goes to nobody: refused by the first recipient's rule.
pub fn goes_to_somebody(kind: Kind, decided: &[Decided]) -> Result<(), Refusal> {
    if decided.iter().any(|decided| decided.decision.verdict == Verdict::Released) {
        return Ok(());
    }
    let rule = decided.iter().find_map(|decided| decided.decision.rule.clone()).unwrap_or_default();
    let message = match kind {
        Kind::Alert => {
            format!("policies let this alert reach none of its recipients; the first by rule {}", rule.rule)
        }
        _ => format!("the rule {} of {} refuses this message", rule.rule, rule.layer),
    };
    Err(Refusal::new(ErrorCode::ForbiddenByPolicy, message, "read the rule's explanation, or ask its owner")
        .by_rule(rule))
}

/// What was decided, as the sender is told it; bounded, since an acceptance is one frame. Where the
/// rules' texts don't fit, each is given in full once.
///
/// # Errors
/// It doesn't fit even so.
pub fn told(decided: &[Decided]) -> Result<Vec<RecipientDecision>, Refusal> {
    let mut told: Vec<_> =
        decided.iter().map(|decided| decided.decision.to_wire(&decided.recipient)).collect();
    let size = |told: &[RecipientDecision]| told.iter().map(prost::Message::encoded_len).sum::<usize>();
    if size(&told) <= limits::DECISIONS_BYTES {
        return Ok(told);
    }
    let mut seen = std::collections::BTreeSet::new();
    for decision in &mut told {
        let rules = decision.categories.iter_mut().filter_map(|category| category.rule.as_mut());
        for rule in decision.rule.iter_mut().chain(rules) {
            if !seen.insert((rule.layer.clone(), rule.rule.clone())) {
                *rule = Rule { layer: rule.layer.clone(), rule: rule.rule.clone(), ..Rule::default() };
            }
        }
    }
    if size(&told) <= limits::DECISIONS_BYTES {
        return Ok(told);
    }
    Err(Refusal::new(
        ErrorCode::TooLarge,
        "the decisions about this many recipients don't fit into one acceptance",
        "send the message to fewer recipients at a time",
    ))
}

/// The bases of a recipient as the store keeps them.
pub fn bases_to_wire(recipient: &AgencyAddress, bases: &Bases) -> PreviewRecipient {
    let bases = bases
        .iter()
        .map(|(category, basis)| CategoryBasis { category: (*category).into(), basis: (*basis).into() });
    PreviewRecipient { address: recipient.to_string(), bases: bases.collect() }
}

/// The bases of a recipient as an agent or the store gives them.
///
/// # Errors
/// A category stands twice, or either side is missing.
pub fn bases_from_wire(recipient: &PreviewRecipient) -> Result<Bases, Refusal> {
    let mut bases = Bases::new();
    for basis in &recipient.bases {
        let (category, ground) = (basis.category(), basis.basis());
        if category == Category::Unspecified || ground == Basis::Unspecified {
            return Err(malformed("a basis names a category and a ground", ErrorCode::MissingField));
        }
        if bases.insert(category, ground).is_some() {
            return Err(malformed("a category has one basis", ErrorCode::Malformed));
        }
    }
    Ok(bases)
}

/// The category of a section.
///
/// # Errors
/// Its header is not one.
pub fn category(section: &SealedSection) -> Result<Category, strict::StrictError> {
    strict::decode::<SectionHeader>(&section.header).map(|header| header.category())
}

fn malformed(message: &str, code: ErrorCode) -> Refusal {
    Refusal::new(code, message, "correct the sender's software")
}

/// An agency as policies see it.
pub fn party(agency: &Agency) -> Party<'_> {
    Party {
        address: &agency.address,
        country: &agency.country,
        sectors: &agency.sectors,
        groups: &agency.groups,
    }
}
