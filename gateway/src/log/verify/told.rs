//! What the leaves about one message tell of its copies.

use std::collections::BTreeMap;

use liaison_proto::{
    log::v1::{Accepted, Decision, Record, ended::Code as Ended, outcome::Event as What, record::Event},
    message::v1::verdict::Code as Verdict,
    strict,
};

use crate::store::LeafRow;

/// What leaves tell of a message.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) accepted: Vec<Accepted>,
    /// By recipient.
    pub(super) copies: BTreeMap<String, Copy>,
    /// Whether records were erased that may have told what was decided.
    pub(super) lacks_decisions: bool,
    /// Whether records were erased that may have told what became of copies.
    pub(super) lacks_outcomes: bool,
}

/// What leaves tell of one copy.
#[derive(Debug, Default)]
pub(super) struct Copy {
    /// What was decided last by this domain's layers.
    pub(super) decision: Option<Decision>,
    /// What was narrowed since a peer accepted it: by that one, or here, where it is to be offered again.
    pub(super) since: Vec<Decision>,
    /// Whether it was handed over, to its recipient's agent or to a peer.
    pub(super) handed_over: bool,
    /// Whether a peer has accepted it.
    pub(super) forwarded: bool,
    pub(super) end: Option<End>,
}

/// How a copy ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Its recipient has it, or nothing of it is released any more, or it expired.
    Over,
    /// It was set aside as evidence, here or by the peer.
    Quarantined,
    /// It could not be delivered as far as is known; a peer's later word may differ.
    Undeliverable,
}

impl Told {
    /// What leaves tell, in their order, of the message of a sender.
    pub(super) fn of(sender: &str, leaves: &[LeafRow]) -> Self {
        let mut told = Self::default();
        for leaf in leaves {
            let Some(record) = leaf.record.as_deref() else {
                // An acceptance has its thread beside it.
                let lacks =
                    if leaf.thread.is_some() { &mut told.lacks_decisions } else { &mut told.lacks_outcomes };
                *lacks = true;
                continue;
            };
            let Ok(Record { event: Some(event), .. }) = strict::decode(record) else { continue };
            told.take(sender, event);
        }
        told
    }

    /// Copies that were released and of whose end nothing is told.
    pub(super) fn open(&self) -> impl Iterator<Item = &str> {
        let open = self.copies.iter().filter(|(_, copy)| copy.is_released() && copy.end.is_none());
        open.map(|(recipient, _)| recipient.as_str()).filter(|_| !self.lacks_outcomes)
    }

    fn take(&mut self, sender: &str, event: Event) {
        match event {
            Event::Accepted(accepted) if accepted.sender == sender => {
                for decision in &accepted.decisions {
                    self.copy(&decision.recipient).decision = Some(told_of(decision));
                }
                self.accepted.push(accepted);
            }
            Event::HandedOver(event) if event.sender == sender => {
                self.copy(&event.recipient).handed_over = true;
            }
            Event::Outcome(outcome) if outcome.sender == sender => {
                let copy = self.copy(&outcome.recipient);
                match outcome.event {
                    Some(What::Acknowledged(_)) => copy.end = Some(End::Over),
                    Some(What::Forwarded(now) | What::Narrowed(now))
                        if now.verdict() != Verdict::Released =>
                    {
                        copy.end = Some(End::Over);
                    }
                    Some(What::Narrowed(now)) if copy.forwarded => copy.since.push(told_of(&now)),
                    Some(What::Narrowed(now)) => copy.decision = Some(told_of(&now)),
                    Some(What::Forwarded(_)) => copy.forwarded = true,
                    Some(What::Ended(ended)) => {
                        copy.end = Some(match ended.how() {
                            Ended::Quarantined => End::Quarantined,
                            Ended::Undeliverable => End::Undeliverable,
                            Ended::Expired | Ended::Unspecified => End::Over,
                        });
                    }
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn copy(&mut self, recipient: &str) -> &mut Copy {
        self.copies.entry(recipient.to_owned()).or_default()
    }
}

impl Copy {
    pub(super) fn is_released(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.verdict() == Verdict::Released)
    }
}

/// A decision of the log as far as its sender is told it.
pub(super) fn told_of(logged: &Decision) -> Decision {
    let mut told = logged.clone();
    told.categories.iter_mut().for_each(|category| category.permitted_by = 0);
    told
}
