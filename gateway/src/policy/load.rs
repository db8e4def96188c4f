//! From texts to a checked set: places, syntax, annotations, names, validation, tests, in this order.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use cedar_policy::{Policy, PolicyId, ValidationMode, Validator};
use liaison_proto::message::v1::Rule;
use liaison_trust::{
    digest,
    digest::Digest,
    names::{AgencyAddress, Domain},
};
use miette::Diagnostic;

use super::{
    PolicyFile, PolicySet,
    cache::Cache,
    cases,
    fault::{Fault, PolicyError, Problem},
    layer::{Layer, LayerName},
    limits,
    question::Named,
    schema::{self, SCHEMA},
};

const ANNOTATIONS: [&str; 4] = ["id", "owner", "legal_basis", "explain"];

/// Where a file of a set stands, which says what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Policies of a layer.
    Policies(LayerName),
    /// Tests of one layer by itself.
    LayerTests(LayerName),
    /// Tests of all layers together.
    SetTests,
}

impl Place {
    /// The place that a path names.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (folder, name) = path.rsplit_once('/')?;
        if path.len() > limits::PATH_BYTES || name.starts_with('.') || name.contains(char::is_control) {
            return None;
        }
        let tests = name.ends_with(".tests.json");
        let layer = match folder.split_once('/') {
            None if folder == "tests" => return tests.then_some(Self::SetTests),
            None if folder == "scheme" => LayerName::Scheme,
            Some(("country", country)) if is_country(country) => LayerName::Country(country.to_owned()),
            Some(("agency", address)) => LayerName::Agency(address.parse().ok()?),
            _ => return None,
        };
        match tests {
            true => Some(Self::LayerTests(layer)),
            false => name.ends_with(".cedar").then_some(Self::Policies(layer)),
        }
    }
}

pub(super) fn load(files: &[PolicyFile]) -> Result<PolicySet, PolicyError> {
    let files = sorted(files)?;
    let (parsed, mut faults) = parse(&files);
    if !parsed.contains_key(&LayerName::Scheme) && faults.is_empty() {
        faults.push(Problem::NoScheme.in_set());
    }
    if parsed.values().map(BTreeMap::len).sum::<usize>() > limits::POLICIES {
        faults.push(Problem::TooManyPolicies.in_set());
    }
    PolicyError::unless_empty(faults)?;

    let named = named(&parsed);
    let policies = parsed.values().map(BTreeMap::len).sum();
    let mut layers = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, policies) in parsed {
        faults.extend(validate(&policies));
        let policies = policies.into_values().map(|parsed| (parsed.policy, parsed.rule)).collect();
        match Layer::new(name.clone(), policies) {
            Ok(layer) => drop(layers.insert(name, layer)),
            Err(error) => faults.push(Problem::Syntax(error).in_file(&name.to_string())),
        }
    }
    PolicyError::unless_empty(faults)?;

    let tests = cases::run(&layers, &files)?;
    Ok(PolicySet {
        layers,
        named,
        hash: hash(&files, |_| true),
        scheme_hash: hash(&files, |path| path.starts_with("scheme/")),
        policies,
        tests,
        messages: Cache::new(limits::CACHED_ANSWERS),
        categories: Cache::new(limits::CACHED_ANSWERS),
        names: Cache::new(limits::CACHED_ANSWERS),
        views: Cache::new(limits::CACHED_ANSWERS),
    })
}

/// A file whose path says what it is.
pub(super) struct PlacedFile<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    pub(super) place: Place,
}

/// The files in the order of their paths, within their limits and each in its place.
fn sorted(files: &[PolicyFile]) -> Result<Vec<PlacedFile<'_>>, PolicyError> {
    if files.len() > limits::FILES {
        return Err(Problem::TooManyFiles.in_set().into());
    }
    if files.iter().map(|file| file.text.len()).sum::<usize>() > limits::SET_BYTES {
        return Err(Problem::SetTooLarge.in_set().into());
    }
    let mut faults = Vec::new();
    let mut placed: BTreeMap<&str, PlacedFile<'_>> = BTreeMap::new();
    for PolicyFile { path, text } in files {
        let Some(place) = Place::of(path) else {
            faults.push(Problem::UnknownPath.in_file(path));
            continue;
        };
        if text.len() > limits::FILE_BYTES {
            faults.push(Problem::FileTooLarge.in_file(path));
        }
        if placed.insert(path, PlacedFile { path, text, place }).is_some() {
            faults.push(Problem::DuplicatePath.in_file(path));
        }
    }
    PolicyError::unless_empty(faults)?;
    Ok(placed.into_values().collect())
}

/// A policy under its `@id`, with what a refusal by it quotes.
struct Parsed<'a> {
    policy: Policy,
    rule: Rule,
    file: &'a str,
    line: usize,
}

/// A layer's policies by their `@id`.
type Policies<'a> = BTreeMap<String, Parsed<'a>>;

fn parse<'a>(files: &[PlacedFile<'a>]) -> (BTreeMap<LayerName, Policies<'a>>, Vec<Fault>) {
    let mut layers: BTreeMap<LayerName, Policies<'a>> = BTreeMap::new();
    let mut faults = Vec::new();
    for file in files {
        let Place::Policies(name) = &file.place else { continue };
        let policies = match parse_file(file, name) {
            Ok(policies) => policies,
            Err(found) => {
                faults.extend(found);
                continue;
            }
        };
        for parsed in policies {
            match layers.entry(name.clone()).or_default().entry(parsed.rule.rule.clone()) {
                Entry::Vacant(free) => drop(free.insert(parsed)),
                Entry::Occupied(taken) => {
                    let Parsed { file, line, .. } = *taken.get();
                    let id = taken.key().clone();
                    let problem = Problem::DuplicateId { id, file: file.to_owned(), line };
                    faults.push(problem.at(parsed.file, parsed.line));
                }
            }
        }
    }
    (layers, faults)
}

fn parse_file<'a>(file: &PlacedFile<'a>, layer: &LayerName) -> Result<Vec<Parsed<'a>>, Vec<Fault>> {
    let line_at = |offset: usize| file.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    let set: cedar_policy::PolicySet = file.text.parse().map_err(|errors: cedar_policy::ParseErrors| {
        errors.iter().map(|error| syntax_fault(error, file.path, line_at)).collect::<Vec<_>>()
    })?;
    let mut faults: Vec<Fault> = set
        .templates()
        .map(|template| {
            Problem::Template.at(file.path, line_at(template.as_ref().loc().map_or(0, |loc| loc.start())))
        })
        .collect();
    let mut policies = Vec::new();
    for policy in set.policies() {
        let line = line_at(policy.as_ref().loc().map_or(0, |loc| loc.start()));
        match annotated(policy, layer) {
            Ok((policy, rule)) => {
                faults.extend(impossible_names(&policy).map(|problem| problem.at(file.path, line)));
                policies.push(Parsed { policy, rule, file: file.path, line });
            }
            Err(problems) => faults.extend(problems.into_iter().map(|problem| problem.at(file.path, line))),
        }
    }
    policies.sort_by_key(|parsed| parsed.line);
    faults.sort_by_key(|fault| fault.line);
    if faults.is_empty() { Ok(policies) } else { Err(faults) }
}

fn syntax_fault(error: &(impl Diagnostic + ToString), file: &str, line_at: impl Fn(usize) -> usize) -> Fault {
    let mut text = error.to_string();
    let label = error.labels().and_then(|mut labels| labels.next());
    for more in [
        label.as_ref().and_then(|label| label.label().map(str::to_owned)),
        error.help().map(|help| help.to_string()),
    ] {
        text.extend(more.iter().flat_map(|more| ["; ", more]));
    }
    match label {
        Some(label) => Problem::Syntax(text).at(file, line_at(label.offset())),
        None => Problem::Syntax(text).in_file(file),
    }
}

/// The policy under its `@id`, and its four annotations.
fn annotated(policy: &Policy, layer: &LayerName) -> Result<(Policy, Rule), Vec<Problem>> {
    let mut problems: Vec<Problem> = policy
        .annotations()
        .filter(|(name, _)| !ANNOTATIONS.contains(name))
        .map(|(name, _)| Problem::UnknownAnnotation(name.to_owned()))
        .collect();
    let [id, owner, legal_basis, explain] = ANNOTATIONS.map(|name| match policy.annotation(name) {
        None => {
            problems.push(Problem::MissingAnnotation(name));
            String::new()
        }
        Some(text) => {
            let fits = (1..=limits::ANNOTATION_CHARS).contains(&text.chars().count());
            if !fits || text.trim().is_empty() || text.contains(char::is_control) {
                problems.push(Problem::BadAnnotation(name));
            }
            text.to_owned()
        }
    });
    if !id.is_empty() && !is_id(&id) {
        problems.push(Problem::BadId(id.clone()));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let policy = policy.new_id(PolicyId::new(&id));
    Ok((policy, Rule { layer: layer.to_string(), rule: id, owner, legal_basis, explain }))
}

/// Names of open entity types that are not written as such names are: nothing would ever match them.
fn impossible_names(policy: &Policy) -> impl Iterator<Item = Problem> {
    let id = policy.id().to_string();
    policy.entity_literals().into_iter().filter_map(move |literal| {
        let text = literal.id().unescaped();
        let expected = match literal.type_name().basename() {
            "Country" if !is_country(text) => "a country is two lower-case letters of ISO 3166-1",
            "Group" if !is_group(text) => "a group is 1 to 64 lower-case letters, digits and hyphens",
            "Agency" if text.parse::<AgencyAddress>().is_err() => "an agency is written <domain>/<name>",
            "Domain" if text.parse::<Domain>().is_err() => {
                "a domain is 1 to 63 lower-case letters, digits and hyphens, the first a letter"
            }
            _ => return None,
        };
        Some(Problem::BadName { id: id.clone(), name: literal.to_string(), expected })
    })
}

/// The names that policies use and layers have.
fn named(layers: &BTreeMap<LayerName, Policies<'_>>) -> Named {
    let mut named = Named::default();
    for name in layers.keys() {
        match name {
            LayerName::Scheme => {}
            LayerName::Country(country) => drop(named.countries.insert(country.clone())),
            LayerName::Agency(address) => drop(named.agencies.insert(address.clone())),
        }
    }
    for literal in
        layers.values().flat_map(BTreeMap::values).flat_map(|parsed| parsed.policy.entity_literals())
    {
        let text = literal.id().unescaped();
        match literal.type_name().basename() {
            "Country" => drop(named.countries.insert(text.to_owned())),
            "Group" => drop(named.groups.insert(text.to_owned())),
            "Agency" => named.agencies.extend(text.parse::<AgencyAddress>()),
            "Domain" => named.domains.extend(text.parse::<Domain>()),
            _ => {}
        }
    }
    named
}

/// Strict validation. What Cedar only warns of is refused as well: a policy that can never apply, or that
/// reads otherwise than it looks, is a mistake.
fn validate(policies: &Policies<'_>) -> Vec<Fault> {
    let set = cedar_policy::PolicySet::from_policies(policies.values().map(|parsed| parsed.policy.clone()));
    let set = match set {
        Ok(set) => set,
        Err(error) => return vec![Problem::Syntax(error.to_string()).in_set()],
    };
    let result = Validator::new(SCHEMA.clone()).validate(&set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|error| (error.policy_id(), described(error)));
    let warnings = result.validation_warnings().map(|warning| (warning.policy_id(), described(warning)));
    let found: BTreeMap<String, BTreeSet<String>> =
        errors.chain(warnings).fold(BTreeMap::new(), |mut found, (id, error)| {
            found.entry(id.to_string()).or_default().insert(error);
            found
        });
    policies
        .iter()
        .flat_map(|(id, parsed)| {
            found.get(id).into_iter().flatten().map(move |error| {
                Problem::Invalid { id: id.clone(), error: error.clone() }.at(parsed.file, parsed.line)
            })
        })
        .collect()
}

fn described(error: &(impl Diagnostic + ToString)) -> String {
    let text = error.to_string();
    match error.help() {
        Some(help) => format!("{text}; {help}"),
        None => text,
    }
}

/// SHA-256 over the schema and these files, each path and text with its length.
fn hash(files: &[PlacedFile<'_>], belongs: impl Fn(&str) -> bool) -> Digest {
    let files = files.iter().filter(|file| belongs(file.path));
    let texts = files.flat_map(|file| [file.path.as_bytes(), file.text.as_bytes()]);
    let parts: Vec<&[u8]> = [schema::TEXT.as_bytes()].into_iter().chain(texts).collect();
    digest::hash("policy-set/v1", &parts)
}

fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn is_group(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn is_id(text: &str) -> bool {
    (1..=limits::ID_CHARS).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}
