//! Who plays: the domains and their agencies. The policies in `deploy/policies` speak of them.

use liaison_demo::Member;

/// A gateway's realm with its agencies.
pub(crate) struct Domain {
    pub(crate) name: &'static str,
    pub(crate) agencies: &'static [Member<'static>],
}

pub(crate) const SHELTER: &str = "be/shelter-antwerp";
pub(crate) const POLICE: &str = "be/police-federal";
const BORDER: &str = "be/border-zaventem";
const HOSPITAL: &str = "be/hospital-ghent";
pub(crate) const SHELTER_HU: &str = "hu/shelter-budapest";
pub(crate) const HEALTH_HU: &str = "hu/health-pest";
const POLICE_HU: &str = "hu/police-orfk";
const BORDER_HU: &str = "hu/border-guard";

pub(crate) const DOMAINS: [Domain; 2] = [
    Domain {
        name: "be",
        agencies: &[
            Member {
                address: SHELTER,
                name: "Shelter Antwerp",
                country: "be",
                sectors: &["NGO"],
                groups: &[],
                services: &["safehouse", "psychosocial"],
                languages: &["nl", "fr", "en"],
                ages: &["from_18_to_24", "from_25_to_39", "from_40_to_64", "from_65"],
            },
            Member {
                address: POLICE,
                name: "Federal Police",
                country: "be",
                sectors: &["LawEnforcement"],
                groups: &[],
                services: &["police_other"],
                languages: &["nl", "fr", "de"],
                ages: &[],
            },
            Member {
                address: BORDER,
                name: "Border Control Zaventem",
                country: "be",
                sectors: &["BorderManagement"],
                groups: &[],
                services: &["registration"],
                languages: &["nl", "fr", "en"],
                ages: &[],
            },
            Member {
                address: HOSPITAL,
                name: "University Hospital Ghent",
                country: "be",
                sectors: &["HealthServiceOrganisation"],
                groups: &[],
                services: &["health_medical", "interpretation"],
                languages: &["nl", "en"],
                ages: &[],
            },
        ],
    },
    Domain {
        name: "hu",
        agencies: &[
            Member {
                address: SHELTER_HU,
                name: "Shelter Budapest",
                country: "hu",
                sectors: &["NGO"],
                groups: &[],
                services: &["safehouse", "return"],
                languages: &["hu", "en"],
                ages: &["from_18_to_24", "from_25_to_39", "from_40_to_64"],
            },
            Member {
                address: HEALTH_HU,
                name: "Health Service of Pest",
                country: "hu",
                sectors: &["HealthServiceOrganisation"],
                groups: &[],
                services: &["health_medical", "psychosocial"],
                languages: &["hu"],
                ages: &[],
            },
            Member {
                address: POLICE_HU,
                name: "National Police Headquarters",
                country: "hu",
                sectors: &["LawEnforcement"],
                groups: &[],
                services: &["police_other"],
                languages: &["hu", "en"],
                ages: &[],
            },
            Member {
                address: BORDER_HU,
                name: "Border Guard",
                country: "hu",
                sectors: &["BorderManagement"],
                groups: &[],
                services: &["registration"],
                languages: &["hu", "ro"],
                ages: &[],
            },
        ],
    },
];
