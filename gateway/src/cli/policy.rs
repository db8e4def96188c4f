//! `policy`: check a folder of policies, make it the active set, and ask the active set.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use liaison_proto::{
    admin::v1::{ExplainPolicyRequest, LoadPolicyRequest},
    category,
    exchange::v1::{MessageHead, PreviewRecipient, PreviewRequest, PreviewResponse},
    message::v1::{
        CategoryBasis, Facts, Handling, RecipientDecision, Rule, alert_kind, basis, data_category, kind,
        police_handling, purpose, request_origin, status, tlp, urgency, verdict,
    },
};
use liaison_trust::names::AgencyAddress;
use serde_json::{Value, json};

use super::{
    output::{Output, table},
    refused,
};
use crate::{admin::connect, data::DataFolder, policy};

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a folder of policies and run the tests beside them; needs no running gateway
    Check(Folder),
    /// Check a folder of policies and make it the active set; a fault anywhere changes nothing
    Load(Folder),
    /// Ask the active set what a recipient would get, and why not
    Explain(Box<Explain>),
}

/// A folder of policies.
#[derive(Debug, Args)]
pub struct Folder {
    /// Holds scheme/*.cedar, country/<cc>/*.cedar, agency/<domain>/<name>/*.cedar and *.tests.json
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// A case to decide.
#[derive(Debug, Args)]
pub struct Explain {
    /// The agency that would send
    #[arg(long, value_name = "ADDRESS")]
    from: AgencyAddress,
    /// An agency that would receive; repeat for several
    #[arg(long, required = true, value_name = "ADDRESS")]
    to: Vec<AgencyAddress>,
    /// A data category that the message would hold; repeat for several
    #[arg(long = "category", required = true, value_name = "CATEGORY", value_parser = names(category::all().map(|category| category.as_str_name()), data_category::Code::from_str_name))]
    categories: Vec<data_category::Code>,
    /// The basis on which the recipients may have those categories
    #[arg(long, value_name = "BASIS", value_parser = names(values(basis::Code::as_str_name), basis::Code::from_str_name))]
    basis: basis::Code,
    /// Referral or alert
    #[arg(long, default_value = "referral", value_parser = names(["referral", "alert"].into_iter(), kind::Code::from_str_name))]
    kind: kind::Code,
    /// What an alert warns of
    #[arg(long, value_name = "KIND", required_if_eq("kind", "alert"), value_parser = names(values(alert_kind::Code::as_str_name), alert_kind::Code::from_str_name))]
    alert_kind: Option<alert_kind::Code>,
    /// What the recipients would use it for
    #[arg(long, default_value = "victim_support", value_parser = names(values(purpose::Code::as_str_name), purpose::Code::from_str_name))]
    purpose: purpose::Code,
    /// How urgent it is
    #[arg(long, default_value = "Expected", value_parser = names(values(urgency::Code::as_str_name), urgency::Code::from_str_name))]
    urgency: urgency::Code,
    /// Who asked for the referral
    #[arg(long, default_value = "victim", value_parser = names(values(request_origin::Code::as_str_name), request_origin::Code::from_str_name))]
    origin: request_origin::Code,
    /// Europol handling code
    #[arg(long, value_name = "CODE", value_parser = names(values(police_handling::Code::as_str_name), police_handling::Code::from_str_name))]
    police: Option<police_handling::Code>,
    /// Traffic Light Protocol
    #[arg(long, value_name = "TLP", value_parser = names(values(tlp::Code::as_str_name), tlp::Code::from_str_name))]
    tlp: Option<tlp::Code>,
    /// The person is a minor
    #[arg(long)]
    minor: bool,
    /// It is an exercise
    #[arg(long)]
    exercise: bool,
}

/// Reads a value of an enumeration by its name in the contracts, and lists the names in the help.
fn names<T: Clone + Send + Sync + 'static>(
    known: impl Iterator<Item = &'static str>,
    read: fn(&str) -> Option<T>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(known.collect::<Vec<_>>())
        .try_map(move |name| read(&name).ok_or("not in the contracts"))
}

/// The names of an enumeration's values, the unspecified one left out.
fn values<T: TryFrom<i32>>(name: fn(&T) -> &'static str) -> impl Iterator<Item = &'static str> {
    (1..).map_while(|number| T::try_from(number).ok()).map(move |value| name(&value))
}

pub(super) async fn execute(data: &DataFolder, command: Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Check(Folder { folder }) => {
            let set = policy::check(&folder)?;
            print_set(&folder, &set.hash, set.policies, set.tests, "is sound", output)?;
        }
        Command::Load(Folder { folder }) => {
            let files = policy::read_folder(&folder)?;
            let request = LoadPolicyRequest { files: files.into_iter().map(Into::into).collect() };
            let set = connect(data).await?.load_policy(request).await.map_err(refused)?.into_inner();
            let (policies, tests) = (set.policies as usize, set.tests as usize);
            let hash = hex::encode(&set.policy_hash);
            print_set(&folder, &hash, policies, tests, "is the active set now", output)?;
        }
        Command::Explain(explain) => {
            let sender = explain.from.to_string();
            let request = request(*explain);
            let answer = connect(data).await?.explain_policy(request).await.map_err(refused)?.into_inner();
            output.print(&to_json(&sender, &answer), || decisions(&answer))?;
        }
    }
    Ok(())
}

fn print_set(
    folder: &Path,
    hash: &str,
    policies: usize,
    tests: usize,
    is: &str,
    output: Output,
) -> io::Result<()> {
    output.print(&json!({"hash": hash, "policies": policies, "tests": tests}), || {
        format!("{} {is}: {policies} policies, {tests} tests passed, hash {hash}", folder.display())
    })
}

fn request(explain: Explain) -> ExplainPolicyRequest {
    let categories: BTreeMap<_, _> =
        explain.categories.iter().map(|category| (i32::from(*category), explain.basis)).collect();
    let bases = categories
        .into_iter()
        .map(|(category, basis)| CategoryBasis { category, basis: basis.into() })
        .collect::<Vec<_>>();
    let handling = Handling {
        police: explain.police.unwrap_or_default().into(),
        tlp: explain.tlp.unwrap_or_default().into(),
    };
    let status = if explain.exercise { status::Code::Exercise } else { status::Code::Actual };
    let head = MessageHead {
        kind: explain.kind.into(),
        alert_kind: explain.alert_kind.unwrap_or_default().into(),
        urgency: explain.urgency.into(),
        handling: Some(handling),
        status: status.into(),
        facts: Some(Facts {
            purpose: explain.purpose.into(),
            minor: explain.minor,
            audience: None,
            origin: explain.origin.into(),
        }),
    };
    let recipients = explain
        .to
        .iter()
        .map(|address| PreviewRecipient { address: address.to_string(), bases: bases.clone() })
        .collect();
    ExplainPolicyRequest {
        sender: explain.from.to_string(),
        preview: Some(PreviewRequest { head: Some(head), recipients }),
    }
}

fn decisions(answer: &PreviewResponse) -> String {
    let mut text = format!("policy set {}\n", hex::encode(&answer.policy_hash));
    for decision in &answer.decisions {
        let mut rows = vec![row("(the message)", decision.verdict(), decision.rule.as_ref())];
        rows.extend(decision.categories.iter().map(|category| {
            row(category.category().as_str_name(), category.verdict(), category.rule.as_ref())
        }));
        text += &format!(
            "\n{}\n{}\n",
            decision.recipient,
            table(["WHAT", "VERDICT", "LAYER", "RULE", "WHY"], &rows)
        );
    }
    text
}

fn row(what: &str, verdict: verdict::Code, rule: Option<&Rule>) -> [String; 5] {
    let (layer, id, why) = rule
        .map_or_else(Default::default, |rule| (rule.layer.clone(), rule.rule.clone(), rule.explain.clone()));
    [what.to_owned(), verdict.as_str_name().to_owned(), layer, id, why]
}

fn to_json(sender: &str, answer: &PreviewResponse) -> Value {
    let rule = |rule: &Rule| {
        json!({
            "layer": rule.layer,
            "rule": rule.rule,
            "owner": rule.owner,
            "legal_basis": rule.legal_basis,
            "explain": rule.explain,
        })
    };
    let decision = |decision: &RecipientDecision| {
        let categories: Vec<_> = decision
            .categories
            .iter()
            .map(|category| {
                json!({
                    "category": category.category().as_str_name(),
                    "verdict": category.verdict().as_str_name(),
                    "basis": category.basis().as_str_name(),
                    "rule": category.rule.as_ref().map(rule),
                })
            })
            .collect();
        json!({
            "to": decision.recipient,
            "verdict": decision.verdict().as_str_name(),
            "rule": decision.rule.as_ref().map(rule),
            "categories": categories,
        })
    };
    json!({
        "from": sender,
        "policy": hex::encode(&answer.policy_hash),
        "decisions": answer.decisions.iter().map(decision).collect::<Vec<_>>(),
    })
}
