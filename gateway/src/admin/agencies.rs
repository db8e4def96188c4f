//! What a new agency may look like.

use liaison_proto::{
    admin::v1::{AddAgencyRequest, agency_state::Code as AgencyState},
    message::v1::{Refusal, error_code::Code as ErrorCode, sector::Code as Sector},
};
use liaison_trust::names::{AgencyAddress, Domain};

use crate::{directory::Agency, limits};

/// Reads a request for a new agency of this domain.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(super) fn parse(request: AddAgencyRequest, domain: &Domain) -> Result<Agency, Refusal> {
    let malformed = |message: String, action: &str| Refusal::new(ErrorCode::Malformed, message, action);
    let address: AgencyAddress = request.address.parse().map_err(|fault| {
        malformed(format!("`{}` is no address: {fault}", request.address), "write <domain>/<name>")
    })?;
    if address.domain() != domain {
        return Err(malformed(
            format!("{address} is not of the domain {domain}"),
            &format!("write {domain}/{}, or ask the gateway of {}", address.name(), address.domain()),
        ));
    }
    let name = request.name.trim();
    if !(1..=limits::AGENCY_TITLE_CHARS).contains(&name.chars().count()) || name.chars().any(char::is_control)
    {
        return Err(malformed(
            format!("a name has 1 to {} characters on one line", limits::AGENCY_TITLE_CHARS),
            "write a name that people know the agency by",
        ));
    }
    if !(request.country.len() == 2 && request.country.bytes().all(|byte| byte.is_ascii_lowercase())) {
        return Err(malformed(
            format!("`{}` is no country", request.country),
            "write two lower-case letters of ISO 3166-1, such as be",
        ));
    }
    let mut sectors: Vec<Sector> = request
        .sectors
        .iter()
        .map(|number| Sector::try_from(*number).ok().filter(|sector| *sector != Sector::Unspecified))
        .collect::<Option<_>>()
        .ok_or_else(|| {
            let message = "a sector is not in this version's contracts".to_owned();
            Refusal::new(ErrorCode::UnknownValue, message, "see `liaison-gateway agency add --help`")
        })?;
    sectors.sort_by_key(|sector| i32::from(*sector));
    sectors.dedup();
    if !(1..=limits::AGENCY_SECTORS).contains(&sectors.len()) {
        return Err(malformed(
            format!("an agency has 1 to {} sectors, not {}", limits::AGENCY_SECTORS, sectors.len()),
            "name the sectors that it mainly works in",
        ));
    }
    let mut groups = request.groups;
    groups.sort();
    groups.dedup();
    if let Some(group) = groups.iter().find(|group| !is_group(group)) {
        return Err(malformed(
            format!("`{group}` is no group"),
            "write 1 to 64 lower-case letters, digits and hyphens",
        ));
    }
    if groups.len() > limits::AGENCY_GROUPS {
        let message = format!("an agency has at most {} groups", limits::AGENCY_GROUPS);
        return Err(malformed(message, "name fewer groups"));
    }
    Ok(Agency {
        address,
        name: name.to_owned(),
        country: request.country,
        sectors,
        groups,
        state: AgencyState::Invited,
        listed: true,
        services: Default::default(),
        keys: Vec::new(),
    })
}

fn is_group(text: &str) -> bool {
    (1..=limits::GROUP_CHARS).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> AddAgencyRequest {
        AddAgencyRequest {
            address: "be/shelter".to_owned(),
            name: " The shelter ".to_owned(),
            country: "be".to_owned(),
            sectors: vec![Sector::Ngo.into(), Sector::Housing.into(), Sector::Ngo.into()],
            groups: vec!["network".to_owned()],
        }
    }

    #[test]
    fn reads_what_is_right() {
        let agency = parse(request(), &"be".parse().unwrap()).unwrap();
        assert_eq!(agency.name, "The shelter");
        assert_eq!(agency.sectors, [Sector::Ngo, Sector::Housing]);
        assert_eq!(agency.state, AgencyState::Invited);
    }

    #[test]
    fn refuses_what_is_wrong() {
        let many = (0..=limits::AGENCY_GROUPS).map(|group| group.to_string()).collect();
        let wrong = [
            AddAgencyRequest { address: "hu/shelter".to_owned(), ..request() },
            AddAgencyRequest { address: "be/Shelter".to_owned(), ..request() },
            AddAgencyRequest { name: "\n".to_owned(), ..request() },
            AddAgencyRequest { name: "a\u{1b}[31m".to_owned(), ..request() },
            AddAgencyRequest { name: "x".repeat(201), ..request() },
            AddAgencyRequest { country: "BE".to_owned(), ..request() },
            AddAgencyRequest { country: "bel".to_owned(), ..request() },
            AddAgencyRequest { sectors: vec![], ..request() },
            AddAgencyRequest { sectors: (1..=15).collect(), ..request() },
            AddAgencyRequest { groups: vec!["two words".to_owned()], ..request() },
            AddAgencyRequest { groups: many, ..request() },
        ];
        for request in wrong {
            let refusal = parse(request.clone(), &"be".parse().unwrap()).unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::Malformed, "{request:?}");
        }
        for sector in [0, 99] {
            let request = AddAgencyRequest { sectors: vec![sector], ..request() };
            let refusal = parse(request, &"be".parse().unwrap()).unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::UnknownValue);
        }
    }
}
