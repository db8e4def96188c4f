//! What is asked: two agencies and a message, in the form that Cedar evaluates and in the form that
//! tells whether it was asked before.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Context, Entities, Entity, EntityTypeName, EntityUid, Request, RestrictedExpression};
use liaison_proto::message::v1::{
    Handling, alert_kind, basis, data_category::Code as Category, kind, police_handling, purpose,
    request_origin, sector, status, tlp, urgency,
};
use liaison_trust::names::{AgencyAddress, Domain};

use super::schema::{Action, SCHEMA, TYPES, uid};

pub(super) use basis::Code as Basis;

/// An agency as policies see it.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// The agency's address.
    pub address: &'a AgencyAddress,
    /// ISO 3166-1 alpha-2, lower case.
    pub country: &'a str,
    /// The agency's sectors.
    pub sectors: &'a [sector::Code],
    /// The named groups that the agency is in.
    pub groups: &'a [String],
}

/// A message as policies see it, for one recipient.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Referral or alert; of no other kind is policy asked.
    pub kind: kind::Code,
    /// Unspecified unless it is an alert.
    pub alert_kind: alert_kind::Code,
    /// CAP urgency.
    pub urgency: urgency::Code,
    /// Handling codes, if there are any.
    pub handling: Option<Handling>,
    /// Actual or exercise.
    pub status: status::Code,
    /// What the recipient is to use the message for.
    pub purpose: purpose::Code,
    /// Whether the message is about a minor.
    pub minor: bool,
    /// Who asked for the referral.
    pub origin: request_origin::Code,
    /// The categories that the message holds, each with the basis on which this recipient may have it.
    pub bases: BTreeMap<Category, Basis>,
}

impl Question {
    /// Everything but the categories.
    pub(super) fn head(&self) -> Head {
        let handling = self.handling.unwrap_or_default();
        Head {
            kind: self.kind,
            alert_kind: self.alert_kind,
            urgency: self.urgency,
            police_handling: handling.police,
            tlp: handling.tlp,
            exercise: self.status == status::Code::Exercise,
            purpose: self.purpose,
            minor: self.minor,
            origin: self.origin,
        }
    }
}

/// A question without its categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Head {
    kind: kind::Code,
    alert_kind: alert_kind::Code,
    urgency: urgency::Code,
    /// As it came: a number that the contracts don't know must not read as none.
    police_handling: i32,
    tlp: i32,
    exercise: bool,
    purpose: purpose::Code,
    minor: bool,
    origin: request_origin::Code,
}

impl Head {
    /// The request to evaluate; with a category, its context is that of a section.
    ///
    /// # Errors
    /// A value that the schema does not have.
    pub(super) fn request(
        self,
        from: &Party<'_>,
        to: &Party<'_>,
        action: Action,
        section: Option<(Category, Basis)>,
    ) -> Result<Request, String> {
        let police = police_handling::Code::try_from(self.police_handling).map(|code| code.as_str_name());
        let tlp = tlp::Code::try_from(self.tlp).map(|code| code.as_str_name());
        let mut values = vec![
            value("kind", &TYPES.kind, self.kind.as_str_name()),
            value("alert_kind", &TYPES.alert_kind, self.alert_kind.as_str_name()),
            value("urgency", &TYPES.urgency, self.urgency.as_str_name()),
            value("police_handling", &TYPES.police_handling, police.unwrap_or("unknown")),
            value("tlp", &TYPES.tlp, tlp.unwrap_or("unknown")),
            value("purpose", &TYPES.purpose, self.purpose.as_str_name()),
            value("origin", &TYPES.origin, self.origin.as_str_name()),
            flag("minor", self.minor),
            flag("exercise", self.exercise),
            flag("cross_border", crosses_border(from, to)),
        ];
        if let Some((category, basis)) = section {
            values.push(value("category", &TYPES.category, category.as_str_name()));
            values.push(value("basis", &TYPES.basis, basis.as_str_name()));
        }
        let context = Context::from_pairs(values).map_err(|error| error.to_string())?;
        Request::new(agency(from), action.uid(), agency(to), context, Some(&SCHEMA))
            .map_err(|error| error.to_string())
    }
}

/// The request whether a domain may know of an agency.
///
/// # Errors
/// Cedar does not take it.
pub(super) fn discovery(peer: &Domain, of: &Party<'_>) -> Result<Request, String> {
    let peer = uid(&TYPES.domain, &peer.to_string());
    Request::new(peer, Action::Discover.uid(), agency(of), Context::empty(), Some(&SCHEMA))
        .map_err(|error| error.to_string())
}

/// The entities that a request about these agencies needs, with the schema's actions.
///
/// # Errors
/// A sector that the schema does not have.
pub(super) fn entities(parties: &[&Party<'_>]) -> Result<Entities, String> {
    let mut entities = BTreeMap::new();
    for party in parties {
        let parents = party
            .sectors
            .iter()
            .map(|sector| uid(&TYPES.sector, sector.as_str_name()))
            .chain([uid(&TYPES.country, party.country)])
            .chain(party.groups.iter().map(|group| uid(&TYPES.group, group)));
        let entity = Entity::new_no_attrs(agency(party), parents.collect());
        entities.insert(party.address, entity);
    }
    Entities::from_entities(entities.into_values(), Some(&SCHEMA)).map_err(|error| error.to_string())
}

/// The names that policies and layers use: the only ones by which they can tell agencies and domains apart.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) agencies: BTreeSet<AgencyAddress>,
    pub(super) countries: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
    pub(super) domains: BTreeSet<Domain>,
}

/// What policies can tell of a sender and a recipient. Equal pairs get equal decisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    from: Class,
    to: Class,
    crosses_border: bool,
    same_agency: bool,
}

/// What policies can tell of a domain that looks and of the agency that it looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct View {
    peer: Option<Domain>,
    agency: Class,
}

/// What policies can tell of an agency.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Class {
    address: Option<AgencyAddress>,
    country: Option<String>,
    sectors: BTreeSet<i32>,
    groups: BTreeSet<String>,
}

impl Named {
    /// What policies can tell of these two.
    pub(super) fn pair(&self, from: &Party<'_>, to: &Party<'_>) -> Pair {
        Pair {
            from: self.class(from),
            to: self.class(to),
            crosses_border: crosses_border(from, to),
            same_agency: from.address == to.address,
        }
    }

    /// What policies can tell of this domain and this agency.
    pub(super) fn view(&self, peer: &Domain, agency: &Party<'_>) -> View {
        View { peer: self.domains.get(peer).cloned(), agency: self.class(agency) }
    }

    fn class(&self, party: &Party<'_>) -> Class {
        Class {
            address: self.agencies.get(party.address).cloned(),
            country: self.countries.get(party.country).cloned(),
            sectors: party.sectors.iter().map(|sector| (*sector).into()).collect(),
            groups: party.groups.iter().filter(|group| self.groups.contains(*group)).cloned().collect(),
        }
    }
}

fn crosses_border(from: &Party<'_>, to: &Party<'_>) -> bool {
    from.country != to.country
}

fn agency(party: &Party<'_>) -> EntityUid {
    uid(&TYPES.agency, &party.address.to_string())
}

fn value(key: &str, values: &EntityTypeName, name: &str) -> (String, RestrictedExpression) {
    let name = if name.eq_ignore_ascii_case("unspecified") { "none" } else { name };
    (key.to_owned(), RestrictedExpression::new_entity_uid(uid(values, name)))
}

fn flag(key: &str, set: bool) -> (String, RestrictedExpression) {
    (key.to_owned(), RestrictedExpression::new_bool(set))
}
