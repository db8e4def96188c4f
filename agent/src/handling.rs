//! What the originator's handling codes let a recipient do with a message, as a plain function.

use liaison_proto::message::v1::{
    Handling, police_handling::Code as Police, purpose::Code as Purpose, tlp::Code as Tlp,
};

/// Whether what was received may be referred onward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onward {
    Free,
    /// Once the originator permits it.
    Asked,
    /// Never for this purpose, and why.
    Forbidden(&'static str),
}

/// What these codes say about referring onward for a purpose.
pub(crate) fn onward(handling: Option<&Handling>, purpose: Purpose) -> Onward {
    let (police, tlp) =
        handling.map_or((Police::Unspecified, Tlp::Unspecified), |codes| (codes.police(), codes.tlp()));
    let against_crime = matches!(purpose, Purpose::CriminalInvestigation | Purpose::Prevention);
    if police == Police::H0 && !against_crime {
        return Onward::Forbidden("its handling code H0 keeps it to criminal investigation and prevention");
    }
    if police != Police::Unspecified && purpose == Purpose::HealthCare {
        return Onward::Forbidden("its police handling code does not go with the purpose health_care");
    }
    let restricted =
        matches!(police, Police::H2 | Police::H3) || matches!(tlp, Tlp::Red | Tlp::Amber | Tlp::AmberStrict);
    if restricted { Onward::Asked } else { Onward::Free }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_lets_what_it_lets() {
        let rule = |police: Police, tlp: Tlp, purpose| {
            onward(Some(&Handling { police: police.into(), tlp: tlp.into() }), purpose)
        };
        let (no_police, no_tlp) = (Police::Unspecified, Tlp::Unspecified);
        let forbidden = |rule| matches!(rule, Onward::Forbidden(_));
        assert_eq!(onward(None, Purpose::HealthCare), Onward::Free);
        for purpose in [Purpose::CriminalInvestigation, Purpose::Prevention] {
            assert_eq!(rule(Police::H0, no_tlp, purpose), Onward::Free);
            assert_eq!(rule(Police::H0, Tlp::Red, purpose), Onward::Asked);
        }
        for purpose in [Purpose::VictimSupport, Purpose::Protection, Purpose::BorderControl] {
            assert!(forbidden(rule(Police::H0, no_tlp, purpose)));
            assert_eq!(rule(Police::H1, no_tlp, purpose), Onward::Free);
        }
        assert!(forbidden(rule(Police::H1, no_tlp, Purpose::HealthCare)));
        for police in [Police::H2, Police::H3] {
            assert_eq!(rule(police, Tlp::Clear, Purpose::VictimSupport), Onward::Asked);
        }
        for tlp in [Tlp::Red, Tlp::Amber, Tlp::AmberStrict] {
            assert_eq!(rule(no_police, tlp, Purpose::HealthCare), Onward::Asked);
        }
        for tlp in [Tlp::Green, Tlp::Clear] {
            assert_eq!(rule(no_police, tlp, Purpose::HealthCare), Onward::Free);
        }
    }
}
