//! The compiled-in Cedar schema: what policies can speak of, and the actions that they are asked about.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use cedar_policy::{ActionConstraint, EntityId, EntityTypeName, EntityUid, Policy, Schema};
use liaison_proto::{category, message::v1::data_category::Code as Category};

/// The schema as text: a part of what a set's hash covers.
pub(super) const TEXT: &str = include_str!("schema.cedarschema");

/// The schema that every policy is validated and every request is checked against.
#[allow(clippy::expect_used, reason = "a constant that a test reads")]
pub(super) static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::from_cedarschema_str(TEXT).expect("the compiled schema parses").0);

/// What a layer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// May the sender send the message to this recipient?
    Submit,
    /// May the recipient have the message?
    Receive,
    /// May another domain know of this agency?
    Discover,
    /// May the recipient have this category?
    Share(Category),
    /// May the category go out without a person's release?
    AutoRelease,
    /// May the recipient hand it on?
    OnwardShare,
    /// May the recipient be told that the category was withheld?
    NameWithheld,
    /// May the recipient keep it for 30 days?
    Retain30Days,
    /// May the recipient keep it for 180 days?
    Retain180Days,
    /// May the recipient keep it for two years?
    Retain2Years,
    /// May it be used in judicial proceedings?
    UseAsEvidence,
}

impl Action {
    /// Every action.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Submit,
            Self::Receive,
            Self::Discover,
            Self::AutoRelease,
            Self::OnwardShare,
            Self::NameWithheld,
            Self::Retain30Days,
            Self::Retain180Days,
            Self::Retain2Years,
            Self::UseAsEvidence,
        ]
        .into_iter()
        .chain(category::all().map(Self::Share))
    }

    /// The action's entity, as the schema names it.
    pub(super) fn uid(self) -> EntityUid {
        uid(&TYPES.action, &self.to_string())
    }

    /// Whether a policy's scope lets it speak of this action. A policy whose scope does not is never
    /// evaluated for the action, so leaving it out changes nothing.
    pub(super) fn is_in_scope_of(self, policy: &Policy) -> bool {
        let names = |named: &EntityUid| GROUPS.get(&self).is_some_and(|groups| groups.contains(named));
        match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(named) => named == self.uid(),
            ActionConstraint::In(named) => named.iter().any(names),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Submit => "submit",
            Self::Receive => "receive",
            Self::Discover => "discover",
            Self::Share(category) => return write!(f, "share_{}", category.as_str_name()),
            Self::AutoRelease => "auto_release",
            Self::OnwardShare => "onward_share",
            Self::NameWithheld => "name_withheld",
            Self::Retain30Days => "retain_30d",
            Self::Retain180Days => "retain_180d",
            Self::Retain2Years => "retain_2y",
            Self::UseAsEvidence => "use_as_evidence",
        })
    }
}

/// The schema's entity types.
pub(super) struct Types {
    pub(super) action: EntityTypeName,
    pub(super) agency: EntityTypeName,
    pub(super) sector: EntityTypeName,
    pub(super) country: EntityTypeName,
    pub(super) group: EntityTypeName,
    pub(super) domain: EntityTypeName,
    pub(super) kind: EntityTypeName,
    pub(super) alert_kind: EntityTypeName,
    pub(super) purpose: EntityTypeName,
    pub(super) police_handling: EntityTypeName,
    pub(super) tlp: EntityTypeName,
    pub(super) urgency: EntityTypeName,
    pub(super) origin: EntityTypeName,
    pub(super) category: EntityTypeName,
    pub(super) basis: EntityTypeName,
}

pub(super) static TYPES: LazyLock<Types> = LazyLock::new(|| {
    #[allow(clippy::expect_used, reason = "constants that a test reads")]
    let name = |name: &str| name.parse().expect("a type name");
    Types {
        action: name("Action"),
        agency: name("Agency"),
        sector: name("Sector"),
        country: name("Country"),
        group: name("Group"),
        domain: name("Domain"),
        kind: name("Kind"),
        alert_kind: name("AlertKind"),
        purpose: name("Purpose"),
        police_handling: name("PoliceHandling"),
        tlp: name("Tlp"),
        urgency: name("Urgency"),
        origin: name("Origin"),
        category: name("Category"),
        basis: name("Basis"),
    }
});

/// An entity of a type.
pub(super) fn uid(type_name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(type_name.clone(), EntityId::new(id))
}

/// Each action with itself and the groups that it is in.
static GROUPS: LazyLock<BTreeMap<Action, Vec<EntityUid>>> = LazyLock::new(|| {
    let groups: Vec<EntityUid> = SCHEMA.action_groups().cloned().collect();
    #[allow(clippy::expect_used, reason = "a constant that a test reads")]
    let actions = SCHEMA.action_entities().expect("the compiled schema has actions");
    Action::all()
        .map(|action| {
            let own = action.uid();
            let within = groups.iter().filter(|group| actions.is_ancestor_of(group, &own)).cloned();
            (action, within.chain([own.clone()]).collect())
        })
        .collect()
});
