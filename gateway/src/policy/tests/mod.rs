mod examples;
mod faults;
mod folders;
mod properties;
mod schema;
mod sides;
mod visibility;

use liaison_proto::message::v1::{
    alert_kind, basis, data_category::Code as Category, kind, purpose, request_origin, sector, status,
    urgency, verdict,
};
use liaison_trust::names::AgencyAddress;

use super::*;

/// The four annotations, for a policy whose id is all that matters.
fn annotated(id: &str, policy: &str) -> String {
    format!("@id(\"{id}\")\n@owner(\"o\")\n@legal_basis(\"l\")\n@explain(\"e {id}\")\n{policy}\n")
}

fn file(path: &str, text: impl Into<String>) -> PolicyFile {
    PolicyFile { path: path.to_owned(), text: text.into() }
}

/// A scheme of these policies, called `p0`, `p1` and so on.
fn scheme(policies: &[&str]) -> PolicyFile {
    let texts = policies.iter().enumerate().map(|(n, policy)| annotated(&format!("p{n}"), policy));
    file("scheme/scheme.cedar", texts.collect::<String>())
}

#[derive(Debug)]
struct Member {
    address: AgencyAddress,
    country: String,
    sectors: Vec<sector::Code>,
    groups: Vec<String>,
}

impl Member {
    fn new(address: &str, sectors: &[sector::Code]) -> Self {
        let address: AgencyAddress = address.parse().unwrap();
        let country = address.domain().to_string();
        Self { address, country, sectors: sectors.to_vec(), groups: Vec::new() }
    }

    fn party(&self) -> Party<'_> {
        Party { address: &self.address, country: &self.country, sectors: &self.sectors, groups: &self.groups }
    }
}

fn referral(bases: &[(Category, basis::Code)]) -> Question {
    Question {
        kind: kind::Code::Referral,
        alert_kind: alert_kind::Code::Unspecified,
        urgency: urgency::Code::Expected,
        handling: None,
        status: status::Code::Actual,
        purpose: purpose::Code::VictimSupport,
        minor: false,
        origin: request_origin::Code::Victim,
        bases: bases.iter().copied().collect(),
    }
}

fn rule(rule: &Option<Rule>) -> &str {
    rule.as_ref().map_or("", |rule| rule.rule.as_str())
}

const HEALTH: (Category, basis::Code) = (Category::Health, basis::Code::ConsentOfPerson);
const RISK: (Category, basis::Code) = (Category::Risk, basis::Code::ConsentOfPerson);
