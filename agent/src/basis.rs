//! On which basis a recipient may have a category: what the person or the guardian consented to, or a
//! legal basis that the sender claims. Without one no key is wrapped for that recipient at all,
//! whatever a policy would permit.

use std::collections::{BTreeMap, BTreeSet};

use liaison_proto::message::v1::{
    basis::Code as Basis, data_category::Code as Category, purpose::Code as Purpose, sector::Code as Sector,
};
use liaison_trust::names::AgencyAddress;
use time::OffsetDateTime;

/// What is known of an agency that is to receive something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Its address.
    pub address: AgencyAddress,
    /// ISO 3166-1 alpha-2, lower case.
    pub country: String,
    /// Its sectors, one or more.
    pub sectors: Vec<Sector>,
}

/// Everything that bases are derived from.
#[derive(Debug, Clone)]
pub struct Grounds {
    /// What the recipient is to use the message for.
    pub purpose: Purpose,
    /// The consent record, where there is one.
    pub consent: Option<Consent>,
    /// What the sender claims.
    pub claims: Vec<Claim>,
    /// True where the schema of the message has no place for a person.
    pub not_personal: bool,
}

/// A consent record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Who gave it; none where neither the person nor a guardian did, which is no consent.
    pub giver: Option<Giver>,
    /// When it was obtained; none where it was not.
    pub obtained: Option<OffsetDateTime>,
    /// Until when it holds.
    pub expires: Option<OffsetDateTime>,
    /// True once it was withdrawn.
    pub withdrawn: bool,
    /// Whether it is for disclosure to other organisations.
    pub for_disclosure: bool,
    /// What it covers.
    pub scopes: Vec<Scope>,
    /// What is to be kept from whom. Holds however the consent ended.
    pub exclusions: Vec<Exclusion>,
}

/// Who gave a consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Giver {
    /// The person. Said of a child this is still not a guardian's consent.
    Person,
    /// Whoever cares for the person.
    Guardian,
}

/// Every one of these categories, towards every one of these recipients, for every one of these
/// purposes. An empty set covers nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The categories covered.
    pub categories: BTreeSet<Category>,
    /// The recipients covered.
    pub recipients: Named,
    /// The purposes covered.
    pub purposes: BTreeSet<Purpose>,
}

/// Categories that are to be kept from recipients. An empty set means all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// The categories kept.
    pub categories: BTreeSet<Category>,
    /// From whom.
    pub recipients: Named,
}

/// Agencies, by address or by what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Addresses.
    pub agencies: BTreeSet<AgencyAddress>,
    /// All agencies in one of these sectors.
    pub sectors: BTreeSet<Sector>,
    /// All agencies of one of these countries.
    pub countries: BTreeSet<String>,
}

/// A legal basis other than consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What is claimed.
    pub basis: ClaimedBasis,
    /// The categories that it is claimed for.
    pub categories: BTreeSet<Category>,
    /// The recipients that it is claimed for; empty for all.
    pub agencies: BTreeSet<AgencyAddress>,
}

/// The legal bases that a sender can claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimedBasis {
    /// Vital interest, answered for by this officer.
    VitalInterest { officer: String },
    /// A legal obligation.
    LegalObligation,
    /// A task in the public interest.
    PublicTask,
}

impl Grounds {
    /// The basis of each of the categories for which there is one.
    pub fn bases(
        &self,
        to: &Recipient,
        categories: impl IntoIterator<Item = Category>,
        now: OffsetDateTime,
    ) -> BTreeMap<Category, Basis> {
        categories
            .into_iter()
            .filter_map(|category| Some((category, self.basis(to, category, now)?)))
            .collect()
    }

    /// Until when a message on these bases may be delivered at most: what waits for its recipient is not
    /// handed over on a consent that has run out meanwhile.
    pub fn until<'a>(
        &self,
        most: OffsetDateTime,
        bases: impl IntoIterator<Item = &'a Basis>,
    ) -> OffsetDateTime {
        let on_consent =
            bases.into_iter().any(|basis| matches!(basis, Basis::ConsentOfPerson | Basis::ConsentOfGuardian));
        let consent_ends = self.consent.as_ref().filter(|_| on_consent).and_then(|consent| consent.expires);
        consent_ends.map_or(most, |ends| ends.min(most))
    }

    /// Who answers for the vital interests that are claimed.
    pub fn officers(&self) -> Vec<&str> {
        self.claims.iter().filter_map(|claim| claim.basis.officer()).collect()
    }

    /// Consent goes before claims. What the person excluded stays excluded unless a life depends on it.
    fn basis(&self, to: &Recipient, category: Category, now: OffsetDateTime) -> Option<Basis> {
        let mut claims =
            self.claims.iter().filter(|claim| claim.covers(to, category)).map(|claim| claim.basis.code());
        let excluded = self.consent.as_ref().is_some_and(|consent| consent.excludes(to, category));
        if excluded {
            return claims.find(|basis| *basis == Basis::VitalInterest);
        }
        self.consent
            .as_ref()
            .and_then(|consent| consent.basis(to, category, self.purpose, now))
            .or_else(|| claims.next())
            .or_else(|| self.not_personal.then_some(Basis::NotPersonal))
    }
}

impl Consent {
    fn basis(
        &self,
        to: &Recipient,
        category: Category,
        purpose: Purpose,
        now: OffsetDateTime,
    ) -> Option<Basis> {
        let in_force = self.for_disclosure
            && !self.withdrawn
            && self.obtained.is_some_and(|at| at <= now)
            && self.expires.is_none_or(|at| at > now);
        let covered = self.scopes.iter().any(|scope| scope.covers(to, category, purpose));
        (in_force && covered).then_some(match self.giver? {
            Giver::Person => Basis::ConsentOfPerson,
            Giver::Guardian => Basis::ConsentOfGuardian,
        })
    }

    fn excludes(&self, to: &Recipient, category: Category) -> bool {
        self.exclusions.iter().any(|exclusion| {
            (exclusion.categories.is_empty() || exclusion.categories.contains(&category))
                && (exclusion.recipients.is_empty() || exclusion.recipients.contains(to))
        })
    }
}

impl Scope {
    fn covers(&self, to: &Recipient, category: Category, purpose: Purpose) -> bool {
        self.categories.contains(&category)
            && self.purposes.contains(&purpose)
            && self.recipients.contains(to)
    }
}

impl Named {
    fn is_empty(&self) -> bool {
        self.agencies.is_empty() && self.sectors.is_empty() && self.countries.is_empty()
    }

    fn contains(&self, agency: &Recipient) -> bool {
        self.agencies.contains(&agency.address)
            || self.countries.contains(&agency.country)
            || agency.sectors.iter().any(|sector| self.sectors.contains(sector))
    }
}

impl Claim {
    fn covers(&self, to: &Recipient, category: Category) -> bool {
        self.categories.contains(&category)
            && (self.agencies.is_empty() || self.agencies.contains(&to.address))
    }
}

impl ClaimedBasis {
    /// Who answers for it.
    pub fn officer(&self) -> Option<&str> {
        match self {
            Self::VitalInterest { officer } => Some(officer),
            Self::LegalObligation | Self::PublicTask => None,
        }
    }

    /// The basis as it stands on the wire.
    pub fn code(&self) -> Basis {
        match self {
            Self::VitalInterest { .. } => Basis::VitalInterest,
            Self::LegalObligation => Basis::LegalObligation,
            Self::PublicTask => Basis::PublicTask,
        }
    }
}

#[cfg(test)]
#[path = "basis_tests.rs"]
mod tests;
