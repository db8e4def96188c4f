//! What a new agency may look like.

use liaison_proto::{
    admin::v1::{AddAgencyRequest, agency_state::Code as AgencyState},
    exchange::v1::Services,
    message::v1::{
        Refusal, age_band::Code as AgeBand, error_code::Code as ErrorCode, sector::Code as Sector,
        service_type::Code as ServiceType,
    },
};
use liaison_trust::names::{AgencyAddress, Domain};

use crate::{directory::Agency, limits};

/// Reads a request for a new agency of this domain.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(super) fn parse(request: AddAgencyRequest, domain: &Domain) -> Result<Agency, Refusal> {
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
    let sectors: Vec<Sector> = known(request.sectors, "sector")?;
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
        services: services(request.services.unwrap_or_default())?,
        keys: Vec::new(),
    })
}

/// Reads what is said of an agency's services; each value once, in the order of the contracts.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(super) fn services(request: Services) -> Result<Services, Refusal> {
    let types: Vec<ServiceType> = known(request.types, "service")?;
    if types.len() > limits::AGENCY_SERVICES {
        let message = format!("an agency has at most {} services", limits::AGENCY_SERVICES);
        return Err(malformed(message, "name those that it mainly offers"));
    }
    let mut languages = request.languages;
    languages.sort();
    languages.dedup();
    if let Some(language) = languages.iter().find(|language| !is_language(language)) {
        return Err(malformed(
            format!("`{language}` is no language"),
            "write the two or three lower-case letters of ISO 639, such as hu",
        ));
    }
    if languages.len() > limits::AGENCY_LANGUAGES {
        let message = format!("an agency has at most {} languages", limits::AGENCY_LANGUAGES);
        return Err(malformed(message, "name those that people can be served in"));
    }
    let ages: Vec<AgeBand> = known(request.ages, "age")?;
    Ok(Services {
        types: types.into_iter().map(i32::from).collect(),
        languages,
        ages: ages.into_iter().map(i32::from).collect(),
    })
}

/// The values of an enumeration behind these numbers, each once, ascending.
fn known<E: TryFrom<i32>>(mut numbers: Vec<i32>, what: &str) -> Result<Vec<E>, Refusal> {
    numbers.sort_unstable();
    numbers.dedup();
    let known = |number: i32| E::try_from(number).ok().filter(|_| number != 0);
    numbers.into_iter().map(known).collect::<Option<_>>().ok_or_else(|| {
        let message = format!("the {what} is not in this version's contracts");
        Refusal::new(ErrorCode::UnknownValue, message, "see `liaison-gateway agency add --help`")
    })
}

fn malformed(message: String, action: &str) -> Refusal {
    Refusal::new(ErrorCode::Malformed, message, action)
}

fn is_language(text: &str) -> bool {
    (2..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase())
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
            services: None,
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
    fn reads_services_each_once() {
        let read = services(Services {
            types: vec![ServiceType::Housing.into(), ServiceType::Food.into(), ServiceType::Food.into()],
            languages: vec!["nl".to_owned(), "hun".to_owned(), "nl".to_owned()],
            ages: vec![AgeBand::From65.into(), AgeBand::Under12.into()],
        });
        let read = read.unwrap();
        assert_eq!(read.types().collect::<Vec<_>>(), [ServiceType::Food, ServiceType::Housing]);
        assert_eq!(read.languages, ["hun", "nl"]);
        assert_eq!(read.ages().collect::<Vec<_>>(), [AgeBand::Under12, AgeBand::From65]);
    }

    #[test]
    fn refuses_services_that_are_wrong() {
        let many = (0..=limits::AGENCY_LANGUAGES as u8).map(|n| format!("a{}", char::from(b'a' + n % 26)));
        let many = many.enumerate().map(|(n, text)| if n < 26 { text } else { format!("{text}x") }).collect();
        for languages in [vec!["Hu".to_owned()], vec!["hung".to_owned()], vec!["h".to_owned()], many] {
            let refusal = services(Services { languages, ..Services::default() }).unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::Malformed);
        }
        for number in [0, 99] {
            let types = services(Services { types: vec![number], ..Services::default() });
            assert_eq!(types.unwrap_err().code(), ErrorCode::UnknownValue);
            let ages = services(Services { ages: vec![number], ..Services::default() });
            assert_eq!(ages.unwrap_err().code(), ErrorCode::UnknownValue);
        }
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
