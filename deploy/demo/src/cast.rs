//! Who plays: the domains and their agencies. The policies in `deploy/policies` speak of them.

use liaison_demo::Member;

/// A gateway's realm with its agencies.
pub(crate) struct Domain {
    pub(crate) name: &'static str,
    pub(crate) agencies: &'static [Member<'static>],
}

pub(crate) const HOSPITAL: &str = "be/hospital-ghent";
pub(crate) const SHELTER: &str = "be/shelter-antwerp";
pub(crate) const POLICE: &str = "be/police-federal";
pub(crate) const BORDER: &str = "be/border-zaventem";
pub(crate) const WELFARE: &str = "be/welfare-brussels";
pub(crate) const IMMIGRATION: &str = "be/immigration";

pub(crate) const DOMAINS: [Domain; 1] = [Domain {
    name: "be",
    agencies: &[
        Member {
            address: HOSPITAL,
            name: "University Hospital Ghent",
            country: "be",
            sectors: &["HealthServiceOrganisation"],
            groups: &[],
        },
        Member { address: SHELTER, name: "Shelter Antwerp", country: "be", sectors: &["NGO"], groups: &[] },
        Member {
            address: POLICE,
            name: "Federal Police",
            country: "be",
            sectors: &["LawEnforcement"],
            groups: &[],
        },
        Member {
            address: BORDER,
            name: "Border Control Zaventem",
            country: "be",
            sectors: &["BorderManagement"],
            groups: &[],
        },
        Member {
            address: WELFARE,
            name: "Social Welfare Brussels",
            country: "be",
            sectors: &["SocialWelfare"],
            groups: &[],
        },
        Member {
            address: IMMIGRATION,
            name: "Immigration Office",
            country: "be",
            sectors: &["ImmigrationService"],
            groups: &[],
        },
    ],
}];
