//! Tests beside the policies, as data: agencies, a message, and what is expected. Tests in a layer's folder
//! ask that layer alone, so that they hold whatever other layers say; those in `tests/` ask all.

use std::collections::BTreeMap;

use liaison_proto::message::v1::{
    Handling, Rule, alert_kind, basis, data_category::Code as Category, kind, police_handling, purpose,
    request_origin, sector, status, tlp, urgency, verdict,
};
use liaison_trust::names::{AgencyAddress, Domain};
use serde::Deserialize;

use super::{
    asking::{self, Asking, Layers, Side},
    decision::{Answer, Decision},
    fault::{PolicyError, Problem},
    layer::{Layer, LayerName},
    limits,
    load::{Place, PlacedFile},
    question::{Party, Question},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    agencies: BTreeMap<String, Agency>,
    /// What becomes of messages.
    #[serde(default)]
    tests: Vec<Case>,
    /// Which agencies other domains know of.
    #[serde(default)]
    visible: Vec<Sight>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Agency {
    country: String,
    sectors: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What is expected and why, as a person would say it.
    reason: String,
    from: String,
    to: String,
    /// Whose layers are asked; all of them unless said.
    #[serde(default)]
    side: Side,
    message: Message,
    /// The message's categories, each with the recipient's basis.
    #[serde(default)]
    bases: BTreeMap<String, String>,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    kind: String,
    alert_kind: Option<String>,
    purpose: Option<String>,
    #[serde(default)]
    minor: bool,
    police_handling: Option<String>,
    tlp: Option<String>,
    urgency: Option<String>,
    origin: Option<String>,
    #[serde(default)]
    exercise: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: String,
    rule: Option<String>,
    #[serde(default)]
    categories: BTreeMap<String, ExpectedCategory>,
}

/// Obligations that are not named are not compared.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedCategory {
    verdict: String,
    rule: Option<String>,
    name_withheld: Option<bool>,
    retention_days: Option<u32>,
    onward_share: Option<bool>,
    use_as_evidence: Option<bool>,
}

/// Whether a domain knows of an agency.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sight {
    /// What is expected and why, as a person would say it.
    reason: String,
    /// The domain that asks.
    to: String,
    agency: String,
    expect: ExpectedSight,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedSight {
    visible: bool,
    rule: Option<String>,
}

/// Runs every test; how many there were.
pub(super) fn run(
    layers: &BTreeMap<LayerName, Layer>,
    files: &[PlacedFile<'_>],
) -> Result<usize, PolicyError> {
    let mut count = 0;
    let mut faults = Vec::new();
    for file in files {
        let alone = match &file.place {
            Place::Policies(_) => continue,
            Place::LayerTests(layer) => Some(layer),
            Place::SetTests => None,
        };
        let cases: CaseFile = match serde_json::from_str(file.text) {
            Ok(cases) => cases,
            Err(error) => {
                faults.push(Problem::TestSyntax(error.to_string()).at(file.path, error.line()));
                continue;
            }
        };
        count += cases.tests.len() + cases.visible.len();
        if count > limits::TESTS {
            return Err(Problem::TooManyTests.in_set().into());
        }
        let tests = cases.tests.iter().map(|case| {
            let decided = decide(layers, alone, &cases.agencies, case);
            (&case.reason, decided.map(|decision| compare(case, &decision)))
        });
        let sights = cases.visible.iter().map(|sight| {
            let answered = discover(layers, alone, &cases.agencies, sight);
            (&sight.reason, answered.map(|answer| compare_sight(&sight.expect, &answer)))
        });
        for (reason, outcome) in tests.chain(sights) {
            let test = reason.clone();
            let problem = match outcome {
                Err(error) => Problem::TestSetup { test, error },
                Ok(Err(error)) => Problem::TestFails { test, error },
                Ok(Ok(())) => continue,
            };
            faults.push(problem.in_file(file.path));
        }
    }
    PolicyError::unless_empty(faults).map(|()| count)
}

/// What the layers decide in a test's case.
fn decide(
    layers: &BTreeMap<LayerName, Layer>,
    alone: Option<&LayerName>,
    agencies: &BTreeMap<String, Agency>,
    case: &Case,
) -> Result<Decision, String> {
    let from = Member::named(&case.from, agencies)?;
    let to = Member::named(&case.to, agencies)?;
    let (from, to) = (from.party(), to.party());
    let question = case.question()?;
    let layers = match alone {
        None => Layers::between(layers, case.side, &from, &to),
        Some(name) => Layers::between(layers, case.side, &from, &to).only(name),
    };
    if layers.is_empty() {
        return Err(
            "the layer that it is about has no say here; name one of its agencies, on the side that is asked"
                .to_owned(),
        );
    }
    let mut asking = Asking::new(&from, &to, question.head());
    let message = asking.message(&layers);
    Ok(Decision::new(message, &question, |category, basis| asking.category(&layers, category, basis)))
}

/// What the layers answer a domain that asks for an agency.
fn discover(
    layers: &BTreeMap<LayerName, Layer>,
    alone: Option<&LayerName>,
    agencies: &BTreeMap<String, Agency>,
    sight: &Sight,
) -> Result<Answer, String> {
    let peer: Domain = sight.to.parse().map_err(|error| format!("{}: {error}", sight.to))?;
    let agency = Member::named(&sight.agency, agencies)?;
    let mut asked = asking::of_agency(layers, &agency.party());
    asked.retain(|layer| alone.is_none_or(|name| layer.name() == name));
    if asked.is_empty() {
        return Err("the layer that it is about has no say here; name one of its agencies".to_owned());
    }
    Ok(asking::discovery(&asked, &peer, &agency.party()))
}

/// An agency of a test.
struct Member<'a> {
    address: AgencyAddress,
    sectors: Vec<sector::Code>,
    agency: &'a Agency,
}

impl<'a> Member<'a> {
    fn named(address: &str, agencies: &'a BTreeMap<String, Agency>) -> Result<Self, String> {
        let agency = agencies.get(address).ok_or_else(|| format!("{address} is not among its agencies"))?;
        let sectors = agency.sectors.iter().map(|name| known("sector", name, sector::Code::from_str_name));
        Ok(Self {
            address: address.parse().map_err(|error| format!("{address}: {error}"))?,
            sectors: sectors.collect::<Result<_, _>>()?,
            agency,
        })
    }

    fn party(&self) -> Party<'_> {
        Party {
            address: &self.address,
            country: &self.agency.country,
            sectors: &self.sectors,
            groups: &self.agency.groups,
        }
    }
}

impl Case {
    fn question(&self) -> Result<Question, String> {
        let message = &self.message;
        let mut bases = BTreeMap::new();
        for (category, basis) in &self.bases {
            let category = known("category", category, Category::from_str_name)?;
            bases.insert(category, known("basis", basis, basis::Code::from_str_name)?);
        }
        let status = if message.exercise { status::Code::Exercise } else { status::Code::Actual };
        let police =
            optional("police handling code", &message.police_handling, police_handling::Code::from_str_name)?;
        let tlp = optional("TLP code", &message.tlp, tlp::Code::from_str_name)?;
        Ok(Question {
            kind: known("kind", &message.kind, kind::Code::from_str_name)?,
            alert_kind: optional("alert kind", &message.alert_kind, alert_kind::Code::from_str_name)?,
            urgency: optional("urgency", &message.urgency, urgency::Code::from_str_name)?,
            handling: Some(Handling { police: police.into(), tlp: tlp.into() }),
            status,
            purpose: optional("purpose", &message.purpose, purpose::Code::from_str_name)?,
            minor: message.minor,
            origin: optional("origin", &message.origin, request_origin::Code::from_str_name)?,
            bases,
        })
    }
}

fn known<T>(what: &str, name: &str, from: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    from(name).ok_or_else(|| format!("{name} is no {what}"))
}

fn optional<T: Default>(
    what: &str,
    name: &Option<String>,
    from: impl Fn(&str) -> Option<T>,
) -> Result<T, String> {
    name.as_deref().map_or_else(|| Ok(T::default()), |name| known(what, name, from))
}

fn compare(case: &Case, decision: &Decision) -> Result<(), String> {
    if let Some(incident) = decision.incidents.first() {
        return Err(incident.to_string());
    }
    let expected = &case.expect;
    compare_verdict("the message", (&expected.verdict, &expected.rule), (decision.verdict, &decision.rule))?;
    let unasked = expected.categories.keys().find(|category| !case.bases.contains_key(*category));
    if let Some(category) = unasked {
        return Err(format!("it expects something of {category}, which has no basis in the case"));
    }
    for (category, outcome) in &decision.categories {
        let name = category.as_str_name();
        let expected = expected.categories.get(name).ok_or_else(|| {
            format!("it expects nothing of {name}, which is {}", outcome.verdict.as_str_name())
        })?;
        compare_verdict(name, (&expected.verdict, &expected.rule), (outcome.verdict, &outcome.rule))?;
        let obligations = [
            ("name_withheld", expected.name_withheld.map(u32::from), outcome.name_withheld.into()),
            ("retention_days", expected.retention_days, outcome.retention_days),
            ("onward_share", expected.onward_share.map(u32::from), outcome.onward_share.into()),
            ("use_as_evidence", expected.use_as_evidence.map(u32::from), outcome.use_as_evidence.into()),
        ];
        for (obligation, expected, actual) in obligations {
            if let Some(expected) = expected.filter(|expected| *expected != actual) {
                return Err(format!("{obligation} of {name} is {actual}, expected {expected}"));
            }
        }
    }
    Ok(())
}

fn compare_sight(expected: &ExpectedSight, answer: &Answer) -> Result<(), String> {
    if let Some(incident) = answer.incidents.first() {
        return Err(incident.to_string());
    }
    let rule = answer.rule.as_ref().map(|rule| &rule.rule);
    if (expected.visible, expected.rule.as_ref()) == (answer.is_permitted(), rule) {
        return Ok(());
    }
    let words = |visible: bool, rule: Option<&String>| {
        let by = rule.map_or_else(String::new, |rule| format!(" by {rule}"));
        format!("{}{by}", if visible { "visible" } else { "hidden" })
    };
    Err(format!(
        "the agency is {}, expected {}",
        words(answer.is_permitted(), rule),
        words(expected.visible, expected.rule.as_ref())
    ))
}

fn compare_verdict(
    what: &str,
    expected: (&str, &Option<String>),
    actual: (verdict::Code, &Option<Rule>),
) -> Result<(), String> {
    let rule = actual.1.as_ref().map(|rule| &rule.rule);
    if expected == (actual.0.as_str_name(), &rule.cloned()) {
        return Ok(());
    }
    let by = |rule: Option<&String>| rule.map_or_else(String::new, |rule| format!(" by {rule}"));
    Err(format!(
        "{what} is {}{}, expected {}{}",
        actual.0.as_str_name(),
        by(rule),
        expected.0,
        by(expected.1.as_ref())
    ))
}
