//! The agencies that the tests know.

use liaison_demo::Member;

pub const HOSPITAL: &str = "be/hospital-ghent";
pub const SHELTER: &str = "be/shelter-antwerp";
pub const POLICE: &str = "be/police-federal";
pub const BORDER: &str = "be/border-zaventem";

pub const SHELTER_HU: &str = "hu/shelter-budapest";
pub const HEALTH_HU: &str = "hu/health-pest";
pub const POLICE_HU: &str = "hu/police-orfk";
/// In the group `hidden`, which [`crate::policies::hiding`] keeps from other domains.
pub const REFUGE_HU: &str = "hu/refuge";

pub const SHELTER_FR: &str = "fr/shelter-lyon";

const BE: &[Member<'static>] = &[
    Member {
        address: HOSPITAL,
        name: "Hospital",
        country: "be",
        sectors: &["HealthServiceOrganisation"],
        ..Member::NOBODY
    },
    Member {
        address: SHELTER,
        name: "Shelter",
        country: "be",
        sectors: &["NGO"],
        groups: &["network"],
        ..Member::NOBODY
    },
    Member {
        address: POLICE,
        name: "Police",
        country: "be",
        sectors: &["LawEnforcement"],
        groups: &["network"],
        ..Member::NOBODY
    },
    Member {
        address: BORDER,
        name: "Border",
        country: "nl",
        sectors: &["BorderManagement"],
        ..Member::NOBODY
    },
];

const HU: &[Member<'static>] = &[
    Member {
        address: SHELTER_HU,
        name: "Shelter Budapest",
        country: "hu",
        sectors: &["NGO"],
        services: &["safehouse"],
        languages: &["hu", "en"],
        ages: &["from_18_to_24", "from_25_to_39"],
        ..Member::NOBODY
    },
    Member {
        address: HEALTH_HU,
        name: "Health Pest",
        country: "hu",
        sectors: &["HealthServiceOrganisation"],
        services: &["health_medical"],
        languages: &["hu"],
        ..Member::NOBODY
    },
    Member {
        address: POLICE_HU,
        name: "Police Hungary",
        country: "hu",
        sectors: &["LawEnforcement"],
        ..Member::NOBODY
    },
    Member {
        address: REFUGE_HU,
        name: "Refuge",
        country: "hu",
        sectors: &["NGO"],
        groups: &["hidden"],
        ..Member::NOBODY
    },
];

const FR: &[Member<'static>] = &[Member {
    address: SHELTER_FR,
    name: "Shelter Lyon",
    country: "fr",
    sectors: &["NGO"],
    ..Member::NOBODY
}];

/// All members of a domain; none of one that the tests don't know.
pub fn members(domain: &str) -> &'static [Member<'static>] {
    match domain {
        "be" => BE,
        "hu" => HU,
        "fr" => FR,
        _ => &[],
    }
}

/// The domain of an agency's address.
pub fn domain_of(agency: &str) -> &str {
    agency.split_once('/').map_or(agency, |(domain, _)| domain)
}
