//! One layer: its policies, cut by action, and what it answers.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::LazyLock,
};

use cedar_policy::{
    AuthorizationError, Authorizer, Decision, Entities, Policy, PolicyId, PolicySet, Request,
};
use liaison_proto::{log::v1::RuleName, message::v1::Rule};
use liaison_trust::names::AgencyAddress;

use super::{decision::Incident, limits, schema::Action};

/// Whose policies they are. In the order in which layers are asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerName {
    /// The federation's agreement.
    Scheme,
    /// A country's, by its ISO 3166-1 alpha-2 code in lower case.
    Country(String),
    /// An agency's own.
    Agency(AgencyAddress),
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("scheme"),
            Self::Country(country) => write!(f, "country/{country}"),
            Self::Agency(address) => write!(f, "agency/{address}"),
        }
    }
}

/// A layer's policies.
pub(super) struct Layer {
    name: LayerName,
    /// For each action, the policies whose scope has it. An action without policies is absent.
    slices: BTreeMap<Action, PolicySet>,
    /// What a refusal by a policy quotes.
    rules: HashMap<PolicyId, Rule>,
    /// Whoever owns the layer's policies.
    owners: String,
}

/// Why a layer does not permit.
pub(super) struct Denial {
    pub(super) rule: Rule,
    /// Set if a policy or the request could not be evaluated.
    pub(super) incident: Option<Incident>,
}

impl Layer {
    /// A layer of policies whose ids are their `@id`s, each with what a refusal by it quotes.
    ///
    /// # Errors
    /// Two policies with one id.
    pub(super) fn new(name: LayerName, policies: Vec<(Policy, Rule)>) -> Result<Self, String> {
        let mut slices = BTreeMap::new();
        for action in Action::all() {
            let slice =
                policies.iter().map(|(policy, _)| policy).filter(|policy| action.is_in_scope_of(policy));
            let slice = PolicySet::from_policies(slice.cloned()).map_err(|error| error.to_string())?;
            if !slice.is_empty() {
                slices.insert(action, slice);
            }
        }
        let mut owners: Vec<String> = policies.iter().map(|(_, rule)| rule.owner.clone()).collect();
        owners.sort();
        owners.dedup();
        let rules = policies.into_iter().map(|(policy, rule)| (policy.id().clone(), rule)).collect();
        Ok(Self { name, slices, rules, owners: owners.join(", ") })
    }

    /// Whose policies they are.
    pub(super) fn name(&self) -> &LayerName {
        &self.name
    }

    /// Whether the layer permits the action: by which policies, or by which rule not.
    pub(super) fn ask(
        &self,
        action: Action,
        request: &Result<Request, String>,
        entities: &Result<Entities, String>,
    ) -> Result<Vec<RuleName>, Box<Denial>> {
        static AUTHORIZER: LazyLock<Authorizer> = LazyLock::new(Authorizer::new);
        let (request, entities) = match (request, entities) {
            (Ok(request), Ok(entities)) => (request, entities),
            (Err(error), _) | (_, Err(error)) => return Err(self.failed(action, None, error.clone())),
        };
        let Some(slice) = self.slices.get(&action) else { return Err(self.silent(action)) };
        let response = AUTHORIZER.is_authorized(request, slice, entities);
        // Cedar skips a policy that errs, a forbid included; here an error denies.
        let errors = response.diagnostics().errors();
        if let Some(AuthorizationError::PolicyEvaluationError(error)) =
            errors.min_by_key(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id().clone())
        {
            return Err(self.failed(action, Some(error.policy_id()), error.to_string()));
        }
        if response.decision() == Decision::Allow {
            let mut permits: Vec<_> = response.diagnostics().reason().map(ToString::to_string).collect();
            permits.sort_unstable();
            permits.truncate(limits::PERMITS);
            let layer = self.name.to_string();
            return Ok(permits.into_iter().map(|rule| RuleName { layer: layer.clone(), rule }).collect());
        }
        let forbids = response.diagnostics().reason().min().and_then(|id| self.rules.get(id));
        Err(match forbids {
            Some(rule) => Box::new(Denial { rule: rule.clone(), incident: None }),
            None => self.silent(action),
        })
    }

    /// The denial where no policy permits.
    fn silent(&self, action: Action) -> Box<Denial> {
        let explain = format!(
            "No policy of the layer {} permits {} in this case, and what is not permitted is refused. If it \
             should be possible, ask the owner of the layer's policies for one.",
            self.name,
            words(action)
        );
        Box::new(Denial { rule: self.rule("none", explain), incident: None })
    }

    /// The denial where evaluation failed.
    fn failed(&self, action: Action, policy: Option<&PolicyId>, error: String) -> Box<Denial> {
        let explain = format!(
            "The policies of the layer {} could not be evaluated, so {} is refused. Ask the gateway's \
             administrator, who finds the error in the gateway's log.",
            self.name,
            words(action)
        );
        let policy = policy.map(ToString::to_string);
        let incident = Incident { layer: self.name.clone(), action, policy, error };
        Box::new(Denial { rule: self.rule("error", explain), incident: Some(incident) })
    }

    fn rule(&self, kind: &str, explain: String) -> Rule {
        Rule {
            layer: self.name.to_string(),
            rule: format!("{kind}:{}", self.name),
            owner: self.owners.clone(),
            legal_basis: String::new(),
            explain,
        }
    }
}

/// An action as a caseworker would say it.
fn words(action: Action) -> String {
    match action {
        Action::Submit => "sending this message to this recipient".to_owned(),
        Action::Receive => "this recipient's receiving the message".to_owned(),
        Action::Discover => "telling this domain of the agency".to_owned(),
        Action::Share(category) => format!("sharing the category {}", category.as_str_name()),
        Action::AutoRelease => "releasing the category without a person's decision".to_owned(),
        Action::OnwardShare => "handing the category on".to_owned(),
        Action::NameWithheld => "telling the recipient what was withheld".to_owned(),
        Action::Retain30Days | Action::Retain180Days | Action::Retain2Years => {
            "keeping the category for longer".to_owned()
        }
        Action::UseAsEvidence => "using the category as evidence".to_owned(),
    }
}
