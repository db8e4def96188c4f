//! Consent records and claimed bases, as the grounds from which bases are derived.

use liaison_proto::message::v1::{
    Consent as Record, ConsentExclusion, ConsentScope, Refusal, basis::Code as Basis,
    consent_source::Code as Source,
};

use super::fields::{addresses, code, codes, countries, few, line, malformed, missing, moment};
use crate::{
    basis::{Claim, ClaimedBasis, Consent, Exclusion, Giver, Named, Scope},
    limits,
};

/// A consent record that stands in the request's field `name`.
pub(super) fn consent(name: &str, record: &Record) -> Result<Consent, Refusal> {
    let source = format!("{name}.obtained_from");
    let giver = match code(&source, record.obtained_from)? {
        Some(Source::Individual) => Some(Giver::Person),
        Some(Source::Caregiver) => Some(Giver::Guardian),
        Some(Source::Other) => None,
        Some(Source::Unspecified) | None => return Err(missing(&source, "say who gave the consent")),
    };
    let (scopes, exclusions) = (format!("{name}.scopes"), format!("{name}.exclusions"));
    few(&scopes, record.scopes.len())?;
    few(&exclusions, record.exclusions.len())?;
    Ok(Consent {
        giver,
        obtained: moment(&format!("{name}.obtained_at"), record.obtained_at.as_ref())?,
        expires: moment(&format!("{name}.expires_at"), record.expires_at.as_ref())?,
        withdrawn: record.withdrawn_at.is_some(),
        for_disclosure: record.for_disclosure,
        scopes: each(&scopes, &record.scopes, scope)?,
        exclusions: each(&exclusions, &record.exclusions, exclusion)?,
    })
}

/// The bases that a sender claims.
pub(super) fn claims(
    name: &str,
    claims: &[liaison_proto::case::v1::ClaimedBasis],
) -> Result<Vec<Claim>, Refusal> {
    few(name, claims.len())?;
    each(name, claims, claim)
}

fn claim(name: &str, claim: &liaison_proto::case::v1::ClaimedBasis) -> Result<Claim, Refusal> {
    let (basis, officer) = (format!("{name}.basis"), format!("{name}.officer"));
    let categories = codes(&format!("{name}.categories"), &claim.categories)?;
    if categories.is_empty() {
        return Err(missing(&format!("{name}.categories"), "name the categories that it is claimed for"));
    }
    let named = line(&officer, &claim.officer, limits::OFFICER_CHARS)?;
    let basis = match code(&basis, claim.basis)? {
        Some(Basis::VitalInterest) if named.trim().is_empty() => {
            return Err(missing(&officer, "name the officer who answers for the vital interest"));
        }
        Some(Basis::VitalInterest) => ClaimedBasis::VitalInterest { officer: named },
        Some(Basis::LegalObligation) => ClaimedBasis::LegalObligation,
        Some(Basis::PublicTask) => ClaimedBasis::PublicTask,
        Some(_) => {
            let action =
                "claim vital_interest, legal_obligation or public_task; consent is derived from its record";
            return Err(malformed(&basis, "can't be claimed", action));
        }
        None => return Err(missing(&basis, "claim vital_interest, legal_obligation or public_task")),
    };
    let agencies = addresses(&format!("{name}.agencies"), &claim.agencies, limits::LIST_ITEMS)?;
    Ok(Claim { basis, categories, agencies: agencies.into_iter().collect() })
}

fn scope(name: &str, scope: &ConsentScope) -> Result<Scope, Refusal> {
    Ok(Scope {
        categories: codes(&format!("{name}.categories"), &scope.categories)?,
        recipients: named(name, &scope.agencies, &scope.sectors, &scope.countries)?,
        purposes: codes(&format!("{name}.purposes"), &scope.purposes)?,
    })
}

fn exclusion(name: &str, exclusion: &ConsentExclusion) -> Result<Exclusion, Refusal> {
    Ok(Exclusion {
        categories: codes(&format!("{name}.categories"), &exclusion.categories)?,
        recipients: named(name, &exclusion.agencies, &exclusion.sectors, &exclusion.countries)?,
    })
}

fn named(name: &str, agencies: &[String], sectors: &[i32], countries_: &[String]) -> Result<Named, Refusal> {
    let agencies = addresses(&format!("{name}.agencies"), agencies, limits::LIST_ITEMS)?;
    Ok(Named {
        agencies: agencies.into_iter().collect(),
        sectors: codes(&format!("{name}.sectors"), sectors)?,
        countries: countries(&format!("{name}.countries"), countries_)?,
    })
}

fn each<T, U>(
    name: &str,
    items: &[T],
    parse: impl Fn(&str, &T) -> Result<U, Refusal>,
) -> Result<Vec<U>, Refusal> {
    items.iter().enumerate().map(|(index, item)| parse(&format!("{name}[{index}]"), item)).collect()
}
