//! Asking the layers: which have a say in what, and what their answers add up to.

use std::collections::BTreeMap;

use cedar_policy::Entities;
use liaison_proto::{
    log::v1::RuleName,
    message::v1::{Rule, data_category::Code as Category, verdict},
};
use liaison_trust::names::Domain;
use serde::Deserialize;

use super::{
    decision::{Answer, CategoryOutcome, Incident},
    layer::{Layer, LayerName},
    question::{self, Basis, Head, Party},
    schema::Action,
};

/// Retention where no layer permits more, days.
const SHORTEST_RETENTION_DAYS: u32 = 30;
/// Longer retentions, the best first, each with the action that permits it.
const RETENTIONS: [(Action, u32); 2] = [(Action::Retain2Years, 730), (Action::Retain180Days, 180)];

/// Whose layers are asked. The scheme's always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The sender's and the recipient's: both are of this domain.
    #[default]
    Both,
    /// The sender's: the recipient's gateway asks the recipient's.
    Sender,
    /// The recipient's: the sender's gateway asked the sender's.
    Recipient,
    /// Nobody's: whether anybody at all may send and receive this.
    Scheme,
}

/// The layers that have a say between two agencies, each list in the order of asking.
pub(super) struct Layers<'a> {
    /// Scheme, the sender's country, the sender.
    sender: Vec<&'a Layer>,
    /// Scheme, the recipient's country, the recipient.
    recipient: Vec<&'a Layer>,
    /// All of these, each once.
    all: Vec<&'a Layer>,
}

impl<'a> Layers<'a> {
    /// Those of the set that exist and are of this side.
    pub(super) fn between(
        layers: &'a BTreeMap<LayerName, Layer>,
        side: Side,
        from: &Party<'_>,
        to: &Party<'_>,
    ) -> Self {
        let of = |party, asked| {
            let own = if asked { own_layers(party).to_vec() } else { Vec::new() };
            [vec![LayerName::Scheme], own].concat()
        };
        let sender = of(from, matches!(side, Side::Both | Side::Sender));
        let recipient = of(to, matches!(side, Side::Both | Side::Recipient));
        let mut all = sender.clone();
        all.extend(recipient.iter().filter(|name| !sender.contains(name)).cloned());
        let [sender, recipient, all] = [sender, recipient, all].map(|names| existing(layers, &names));
        Self { sender, recipient, all }
    }

    /// This layer alone, where it has a say.
    pub(super) fn only(mut self, name: &LayerName) -> Self {
        for layers in [&mut self.sender, &mut self.recipient, &mut self.all] {
            layers.retain(|layer| layer.name() == name);
        }
        self
    }

    /// Whether no layer has a say.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// The layers that decide who may know of an agency, those that exist.
pub(super) fn of_agency<'a>(layers: &'a BTreeMap<LayerName, Layer>, agency: &Party<'_>) -> Vec<&'a Layer> {
    let [country, own] = own_layers(agency);
    existing(layers, &[LayerName::Scheme, country, own])
}

fn own_layers(party: &Party<'_>) -> [LayerName; 2] {
    [LayerName::Country(party.country.to_owned()), LayerName::Agency(party.address.clone())]
}

fn existing<'a>(layers: &'a BTreeMap<LayerName, Layer>, names: &[LayerName]) -> Vec<&'a Layer> {
    names.iter().filter_map(|name| layers.get(name)).collect()
}

/// Whether these layers let a domain know of an agency.
pub(super) fn discovery(layers: &[&Layer], peer: &Domain, agency: &Party<'_>) -> Answer {
    let (request, entities) = (question::discovery(peer, agency), question::entities(&[agency]));
    let denial = layers.iter().find_map(|layer| layer.ask(Action::Discover, &request, &entities).err());
    denial.map_or_else(Answer::default, |denial| Answer {
        rule: Some(denial.rule),
        incidents: denial.incident.into_iter().collect(),
    })
}

/// What the layers say of one category.
#[derive(Clone)]
pub(super) struct CategoryAnswer {
    pub(super) outcome: CategoryOutcome,
    pub(super) incidents: Vec<Incident>,
}

/// One question, put to layers. The entities are built when first needed.
pub(super) struct Asking<'a> {
    from: &'a Party<'a>,
    to: &'a Party<'a>,
    head: Head,
    entities: Option<Result<Entities, String>>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(from: &'a Party<'a>, to: &'a Party<'a>, head: Head) -> Self {
        Self { from, to, head, entities: None }
    }

    /// Whether the sender's layers let the message go and the recipient's let it in.
    pub(super) fn message(&mut self, layers: &Layers<'_>) -> Answer {
        let mut incidents = Vec::new();
        let rule = self
            .refusal(&layers.sender, Action::Submit, None, &mut incidents)
            .or_else(|| self.refusal(&layers.recipient, Action::Receive, None, &mut incidents));
        Answer { rule, incidents }
    }

    /// Whether all layers let the recipient know that the category was withheld.
    pub(super) fn name_withheld(&mut self, layers: &Layers<'_>, category: Category, basis: Basis) -> Answer {
        let mut incidents = Vec::new();
        let rule = self.refusal(&layers.all, Action::NameWithheld, Some((category, basis)), &mut incidents);
        Answer { rule, incidents }
    }

    /// Whether all layers let the recipient have the category, and under which obligations.
    pub(super) fn category(
        &mut self,
        layers: &Layers<'_>,
        category: Category,
        basis: Basis,
    ) -> CategoryAnswer {
        let mut incidents = Vec::new();
        let mut outcome = CategoryOutcome::withheld(basis);
        let section = Some((category, basis));
        let shared = self.permits(&layers.all, Action::Share(category), section, &mut incidents);
        let mut refusal = |action| self.refusal(&layers.all, action, section, &mut incidents);
        match shared {
            Ok(permits) => outcome.permitted_by = permits,
            Err(rule) => {
                outcome.rule = Some(rule);
                outcome.name_withheld = refusal(Action::NameWithheld).is_none();
                return CategoryAnswer { outcome, incidents };
            }
        }
        outcome.rule = refusal(Action::AutoRelease);
        outcome.verdict = if outcome.rule.is_some() { verdict::Code::Held } else { verdict::Code::Released };
        outcome.onward_share = refusal(Action::OnwardShare).is_none();
        outcome.use_as_evidence = refusal(Action::UseAsEvidence).is_none();
        outcome.retention_days = layers
            .all
            .iter()
            .map(|layer| self.retention_days(layer, category, basis, &mut incidents))
            .min()
            .unwrap_or(SHORTEST_RETENTION_DAYS);
        CategoryAnswer { outcome, incidents }
    }

    /// The longest retention that one layer permits.
    fn retention_days(
        &mut self,
        layer: &Layer,
        category: Category,
        basis: Basis,
        incidents: &mut Vec<Incident>,
    ) -> u32 {
        RETENTIONS
            .into_iter()
            .find(|(action, _)| self.refusal(&[layer], *action, Some((category, basis)), incidents).is_none())
            .map_or(SHORTEST_RETENTION_DAYS, |(_, days)| days)
    }

    /// The rule of the first of these layers that does not permit the action.
    fn refusal(
        &mut self,
        layers: &[&Layer],
        action: Action,
        section: Option<(Category, Basis)>,
        incidents: &mut Vec<Incident>,
    ) -> Option<Rule> {
        self.permits(layers, action, section, incidents).err()
    }

    /// The policies by which all of these layers permit the action, or the rule of the first that does not.
    fn permits(
        &mut self,
        layers: &[&Layer],
        action: Action,
        section: Option<(Category, Basis)>,
        incidents: &mut Vec<Incident>,
    ) -> Result<Vec<RuleName>, Rule> {
        let entities = self.entities.get_or_insert_with(|| question::entities(&[self.from, self.to]));
        let request = self.head.request(self.from, self.to, action, section);
        let mut permits = Vec::new();
        for layer in layers {
            match layer.ask(action, &request, entities) {
                Ok(policies) => permits.extend(policies),
                Err(denial) => {
                    incidents.extend(denial.incident);
                    return Err(denial.rule);
                }
            }
        }
        Ok(permits)
    }
}
