//! What was decided, as the gateway acts on it and as it is told to the sender.

use std::collections::BTreeMap;

use liaison_proto::{
    log::v1::RuleName,
    message::v1::{
        CategoryDecision, RecipientDecision, Rule, basis, data_category::Code as Category, verdict,
    },
};
use liaison_trust::names::AgencyAddress;

use super::{asking::CategoryAnswer, layer::LayerName, no_basis, question::Question, schema::Action};

/// What one recipient gets of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Released, or withheld: then nothing goes to the recipient, whatever the categories say.
    pub verdict: verdict::Code,
    /// The rule that withholds the message, or that holds one of its categories.
    pub rule: Option<Rule>,
    /// One outcome for each category of the question. Where the message itself is refused, all are
    /// withheld by its rule.
    pub categories: BTreeMap<Category, CategoryOutcome>,
    /// Errors of evaluation. They denied already; log and count them.
    pub incidents: Vec<Incident>,
}

/// What becomes of one category at one recipient.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoryOutcome {
    /// Released, withheld, or held until a person releases it.
    pub verdict: verdict::Code,
    /// The rule that withholds or holds; none if released.
    pub rule: Option<Rule>,
    /// The policies by which each layer lets it be shared, for the log; none if withheld.
    pub permitted_by: Vec<RuleName>,
    /// On which basis the recipient may have it.
    pub basis: basis::Code,
    /// Whether the recipient may be told that it was withheld.
    pub name_withheld: bool,
    /// How long the recipient may keep it, days.
    pub retention_days: u32,
    /// Whether the recipient may hand it on.
    pub onward_share: bool,
    /// Whether it may be used in judicial proceedings.
    pub use_as_evidence: bool,
}

/// What layers say of one thing that is permitted or not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The rule that does not permit it; none where all layers do.
    pub rule: Option<Rule>,
    /// Errors of evaluation. They denied already; log and count them.
    pub incidents: Vec<Incident>,
}

/// A policy, or a request, that could not be evaluated. Holds no word of a section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the layer {layer} could not be asked about {action}: {error}")]
pub struct Incident {
    /// The layer that denied for it.
    pub layer: LayerName,
    /// What was asked.
    pub action: Action,
    /// The policy's `@id`; none if it was the request.
    pub policy: Option<String>,
    /// What Cedar said.
    pub error: String,
}

impl Answer {
    /// Whether all layers permit it.
    pub fn is_permitted(&self) -> bool {
        self.rule.is_none()
    }
}

impl Decision {
    /// Puts the answers together.
    pub(super) fn new(
        message: Answer,
        question: &Question,
        mut ask: impl FnMut(Category, basis::Code) -> CategoryAnswer,
    ) -> Self {
        let mut incidents = message.incidents;
        let mut categories = BTreeMap::new();
        for (&category, &basis) in &question.bases {
            let outcome = match &message.rule {
                Some(rule) => {
                    CategoryOutcome { rule: Some(rule.clone()), ..CategoryOutcome::withheld(basis) }
                }
                None if basis == basis::Code::Unspecified => {
                    CategoryOutcome { rule: Some(no_basis()), ..CategoryOutcome::withheld(basis) }
                }
                None => {
                    let answer = ask(category, basis);
                    incidents.extend(answer.incidents);
                    answer.outcome
                }
            };
            categories.insert(category, outcome);
        }
        let held = categories.values().find(|outcome| outcome.verdict == verdict::Code::Held);
        let rule = message.rule.or_else(|| held.and_then(|outcome| outcome.rule.clone()));
        let verdict = if rule.is_some() { verdict::Code::Withheld } else { verdict::Code::Released };
        Self { verdict, rule, categories, incidents }
    }

    /// Nothing goes to the recipient, by a rule that is no policy's.
    pub fn refused(bases: &BTreeMap<Category, basis::Code>, rule: Rule) -> Self {
        let withheld = |basis: &basis::Code| CategoryOutcome {
            rule: Some(rule.clone()),
            ..CategoryOutcome::withheld(*basis)
        };
        Self {
            verdict: verdict::Code::Withheld,
            categories: bases.iter().map(|(category, basis)| (*category, withheld(basis))).collect(),
            rule: Some(rule),
            incidents: Vec::new(),
        }
    }

    /// The categories that go to the recipient: none unless the message itself does.
    pub fn released(&self) -> impl Iterator<Item = Category> {
        let goes = self.verdict == verdict::Code::Released;
        let released =
            self.categories.iter().filter(|(_, outcome)| outcome.verdict == verdict::Code::Released);
        released.filter(move |_| goes).map(|(category, _)| *category)
    }

    /// The decision as the sender is told it.
    pub fn to_wire(&self, recipient: &AgencyAddress) -> RecipientDecision {
        let categories = self.categories.iter().map(|(category, outcome)| CategoryDecision {
            category: (*category).into(),
            verdict: outcome.verdict.into(),
            rule: outcome.rule.clone(),
            basis: outcome.basis.into(),
        });
        RecipientDecision {
            recipient: recipient.to_string(),
            verdict: self.verdict.into(),
            rule: self.rule.clone(),
            categories: categories.collect(),
        }
    }
}

impl CategoryOutcome {
    /// The strict case: withheld, and every obligation binds.
    pub(super) fn withheld(basis: basis::Code) -> Self {
        Self {
            verdict: verdict::Code::Withheld,
            rule: None,
            permitted_by: Vec::new(),
            basis,
            name_withheld: false,
            retention_days: 30,
            onward_share: false,
            use_as_evidence: false,
        }
    }
}
