//! Random policies, agencies and questions: what is decided is what Cedar says of every whole layer, and
//! a policy more never releases more.

use std::collections::BTreeMap;

use cedar_policy::Authorizer;
use liaison_proto::message::v1::{Handling, police_handling, tlp};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::policy::question;

const AGENCIES: [&str; 6] = ["be/a", "be/b", "be/c", "hu/a", "hu/b", "de/a"];
const SECTORS: [sector::Code; 3] =
    [sector::Code::Ngo, sector::Code::LawEnforcement, sector::Code::HealthServiceOrganisation];
const CATEGORIES: [Category; 4] =
    [Category::Health, Category::Identity, Category::Location, Category::Narrative];
const SIDES: [Side; 4] = [Side::Both, Side::Sender, Side::Recipient, Side::Scheme];
const FOLDERS: [&str; 5] = ["scheme", "country/be", "country/hu", "agency/be/a", "agency/hu/b"];

pub(super) type Folders = BTreeMap<&'static str, Vec<String>>;

fn scope(variable: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(variable.to_owned()),
        1 => select(&AGENCIES[..]).prop_map(move |address| format!("{variable} == Agency::\"{address}\"")),
        1 => select(vec!["be", "hu"]).prop_map(move |country| format!("{variable} in Country::\"{country}\"")),
        1 => select(vec!["g", "h"]).prop_map(move |group| format!("{variable} in Group::\"{group}\"")),
        1 => select(&SECTORS[..])
            .prop_map(move |sector| format!("{variable} in Sector::\"{}\"", sector.as_str_name())),
    ]
}

fn policy_with(effect: impl Strategy<Value = &'static str>) -> impl Strategy<Value = String> {
    let message = select(vec![
        "true",
        "context.minor",
        "!context.cross_border",
        "context.exercise == false",
        "context.purpose == Purpose::\"health_care\"",
        "context.police_handling != PoliceHandling::\"H3\"",
        "principal != resource",
        "[Kind::\"referral\"].contains(context.kind)",
        "resource in Group::\"g\" || principal in Country::\"hu\"",
        "action != Action::\"submit\" || context.minor",
        "9223372036854775807 + 1 > 0 || context.minor",
    ]);
    let section = select(vec![
        "context.basis == Basis::\"consent_of_person\"",
        "context.category == Category::\"health\"",
        "!(action in Action::\"share_special\") || context.minor",
        "context.minor && context.basis != Basis::\"vital_interest\"",
    ]);
    let any_action = select(vec![
        "action in [Action::\"submit\", Action::\"receive\", Action::\"share_all\", Action::\"auto_release\"]",
        "action == Action::\"submit\"",
        "action in [Action::\"receive\", Action::\"share_health\"]",
    ]);
    let section_action = select(vec![
        "action in Action::\"share_all\"",
        "action in Action::\"share_special\"",
        "action in [Action::\"share_identifying\", Action::\"auto_release\"]",
        "action in [Action::\"retain_2y\", Action::\"retain_180d\", Action::\"name_withheld\"]",
        "action in [Action::\"onward_share\", Action::\"use_as_evidence\"]",
        "action == Action::\"auto_release\"",
    ]);
    let action_and_condition = prop_oneof![
        (any_action, message.clone()),
        (section_action.clone(), message),
        (section_action, section),
    ];
    (effect, scope("principal"), action_and_condition, scope("resource")).prop_map(
        |(effect, principal, (action, condition), resource)| {
            format!("{effect} ({principal}, {action}, {resource}) when {{ {condition} }};")
        },
    )
}

/// A policy about who may be discovered.
fn discover_policy() -> impl Strategy<Value = String> {
    let effect = select(vec!["permit", "permit", "forbid"]);
    let domain = select(vec!["principal", "principal == Domain::\"hu\"", "principal == Domain::\"de\""]);
    let condition = select(vec![
        "true",
        "principal == Domain::\"be\" || resource in Sector::\"NGO\"",
        "9223372036854775807 + 1 > 0 || resource in Group::\"g\"",
    ]);
    (effect, domain, scope("resource"), condition).prop_map(|(effect, domain, resource, condition)| {
        format!("{effect} ({domain}, action == Action::\"discover\", {resource}) when {{ {condition} }};")
    })
}

/// Policies by folder. Most layers begin with a permit of all, so that more than refusals is compared.
pub(super) fn folders() -> impl Strategy<Value = Folders> {
    let effect = select(vec!["permit", "permit", "forbid"]);
    let discover = vec(discover_policy(), 0..3);
    let layer =
        (any::<bool>(), vec(policy_with(effect), 1..5), discover).prop_map(|(open, policies, discover)| {
            let open = open.then(|| "permit (principal, action, resource);".to_owned());
            policies.into_iter().chain(discover).chain(open).collect()
        });
    (vec(layer, FOLDERS.len()), vec(any::<bool>(), FOLDERS.len())).prop_map(|(layers, exist)| {
        let layers = FOLDERS.into_iter().zip(layers).zip(exist);
        layers
            .filter(|((folder, _), exists)| *exists || *folder == "scheme")
            .map(|(layer, _)| layer)
            .collect()
    })
}

pub(super) fn load(folders: &Folders) -> PolicySet {
    let files: Vec<_> = folders
        .iter()
        .map(|(folder, policies)| PolicyFile {
            path: format!("{folder}/p.cedar"),
            ..scheme(&as_strs(policies))
        })
        .collect();
    PolicySet::load(&files).unwrap_or_else(|error| panic!("{error}"))
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

pub(super) fn members() -> impl Strategy<Value = Vec<Member>> {
    let member = (vec(select(&SECTORS[..]), 0..3), vec(select(vec!["g", "h", "i"]), 0..3));
    vec(member, AGENCIES.len()).prop_map(|members| {
        let members = AGENCIES.iter().zip(members).map(|(address, (sectors, groups))| Member {
            groups: groups.into_iter().map(str::to_owned).collect(),
            ..Member::new(address, &sectors)
        });
        members.collect()
    })
}

pub(super) fn question() -> impl Strategy<Value = Question> {
    let bases = select(vec![
        basis::Code::ConsentOfPerson,
        basis::Code::VitalInterest,
        basis::Code::PublicTask,
        basis::Code::Unspecified,
    ]);
    (
        any::<[bool; 4]>(),
        vec(bases, CATEGORIES.len()),
        select(vec![police_handling::Code::Unspecified, police_handling::Code::H3]),
    )
        .prop_map(|([alert, exercise, minor, care], bases, police)| Question {
            kind: if alert { kind::Code::Alert } else { kind::Code::Referral },
            status: if exercise { status::Code::Exercise } else { status::Code::Actual },
            purpose: if care { purpose::Code::HealthCare } else { purpose::Code::Unspecified },
            minor,
            handling: Some(Handling { police: police.into(), tlp: tlp::Code::Unspecified.into() }),
            ..referral(&CATEGORIES.into_iter().zip(bases).collect::<Vec<_>>())
        })
}

/// Every layer whole, asked afresh: what a set must decide, written down a second time and plainly.
struct Oracle(BTreeMap<&'static str, cedar_policy::PolicySet>);

impl Oracle {
    fn new(folders: &Folders) -> Self {
        Self(folders.iter().map(|(folder, policies)| (*folder, policies.concat().parse().unwrap())).collect())
    }

    fn permits(
        &self,
        folder: &str,
        action: Action,
        from: &Party<'_>,
        to: &Party<'_>,
        q: &Question,
        category: Option<Category>,
    ) -> bool {
        let Some(policies) = self.0.get(folder) else { return true };
        let section = category.map(|category| (category, q.bases[&category]));
        let request = q.head().request(from, to, action, section).unwrap();
        let entities = question::entities(&[from, to]).unwrap();
        let response = Authorizer::new().is_authorized(&request, policies, &entities);
        response.decision() == cedar_policy::Decision::Allow
            && response.diagnostics().errors().next().is_none()
    }

    fn discover(&self, peer: &Domain, agency: &Party<'_>) -> bool {
        let request = question::discovery(peer, agency).unwrap();
        let entities = question::entities(&[agency]).unwrap();
        folders_of(agency).iter().filter_map(|folder| self.0.get(folder.as_str())).all(|policies| {
            let response = Authorizer::new().is_authorized(&request, policies, &entities);
            response.decision() == cedar_policy::Decision::Allow
                && response.diagnostics().errors().next().is_none()
        })
    }

    fn decide(&self, side: Side, from: &Party<'_>, to: &Party<'_>, q: &Question) -> Told {
        let of = |party, asked: bool| if asked { folders_of(party).to_vec() } else { vec!["scheme".into()] };
        let sender = of(from, side == Side::Both || side == Side::Sender);
        let recipient = of(to, side == Side::Both || side == Side::Recipient);
        let both: Vec<String> = [sender.clone(), recipient.clone()].concat();
        let permit = |folders: &[String], action, category| {
            folders.iter().all(|folder| self.permits(folder, action, from, to, q, category))
        };
        let mut goes = permit(&sender, Action::Submit, None) && permit(&recipient, Action::Receive, None);
        let passes = goes;
        let mut categories = BTreeMap::new();
        for (&category, &basis) in &q.bases {
            let all = |action| permit(&both, action, Some(category));
            let shared = passes && basis != basis::Code::Unspecified && all(Action::Share(category));
            let asked = passes && basis != basis::Code::Unspecified;
            let verdict = match (shared, shared && all(Action::AutoRelease)) {
                (false, _) => verdict::Code::Withheld,
                (true, false) => verdict::Code::Held,
                (true, true) => verdict::Code::Released,
            };
            goes &= verdict != verdict::Code::Held;
            let days = |folder: &String| {
                let one = std::slice::from_ref(folder);
                match () {
                    () if permit(one, Action::Retain2Years, Some(category)) => 730,
                    () if permit(one, Action::Retain180Days, Some(category)) => 180,
                    () => 30,
                }
            };
            let existing = both.iter().filter(|folder| self.0.contains_key(folder.as_str()));
            categories.insert(
                category,
                (
                    verdict,
                    asked && !shared && all(Action::NameWithheld),
                    shared && all(Action::OnwardShare),
                    shared && all(Action::UseAsEvidence),
                    if shared { existing.map(days).min().unwrap() } else { 30 },
                ),
            );
        }
        Told { goes, categories }
    }
}

/// Whose policies have a say in what an agency sends, receives and shows.
fn folders_of(party: &Party<'_>) -> [String; 3] {
    ["scheme".to_owned(), format!("country/{}", party.country), format!("agency/{}", party.address)]
}

/// What was decided, without the reasons: verdict, name withheld, onward share, evidence, days.
#[derive(Debug, PartialEq)]
struct Told {
    goes: bool,
    categories: BTreeMap<Category, (verdict::Code, bool, bool, bool, u32)>,
}

impl From<&Decision> for Told {
    fn from(decision: &Decision) -> Self {
        let categories = decision.categories.iter().map(|(category, o)| {
            (*category, (o.verdict, o.name_withheld, o.onward_share, o.use_as_evidence, o.retention_days))
        });
        Self { goes: decision.verdict == verdict::Code::Released, categories: categories.collect() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Sliced, remembered and classed decisions are those of every whole layer; reasons and all, they
    /// don't depend on what was asked before.
    #[test]
    fn decides_what_the_whole_layers_say(
        folders in folders(),
        members in members(),
        questions in vec(question(), 3),
        side in select(&SIDES[..]),
    ) {
        let (set, oracle) = (load(&folders), Oracle::new(&folders));
        for question in &questions {
            for (from, to) in members.iter().flat_map(|from| members.iter().map(move |to| (from, to))) {
                let (from, to) = (from.party(), to.party());
                let decision = set.decide(side, &from, &to, question);
                prop_assert_eq!(Told::from(&decision), oracle.decide(side, &from, &to, question));
                prop_assert_eq!(&set.decide(side, &from, &to, question), &decision);
            }
        }
        let fresh = load(&folders);
        let (from, to) = (members[5].party(), members[0].party());
        prop_assert_eq!(fresh.decide(side, &from, &to, &questions[0]), set.decide(side, &from, &to, &questions[0]));
    }

    /// The same of who may be discovered.
    #[test]
    fn shows_what_the_whole_layers_say(folders in folders(), members in members()) {
        let (set, oracle) = (load(&folders), Oracle::new(&folders));
        for member in &members {
            for peer in ["be", "hu", "de", "fr"].map(|peer| peer.parse::<Domain>().unwrap()) {
                let answer = set.discover(&peer, &member.party());
                prop_assert_eq!(answer.is_permitted(), oracle.discover(&peer, &member.party()));
                prop_assert_eq!(set.discover(&peer, &member.party()), answer);
            }
        }
    }

    /// Every refusal names its rule, and a released message none.
    #[test]
    fn every_refusal_has_its_rule(folders in folders(), members in members(), question in question()) {
        let set = load(&folders);
        for (from, to) in members.iter().flat_map(|from| members.iter().map(move |to| (from, to))) {
            let decision = set.decide(Side::Both, &from.party(), &to.party(), &question);
            prop_assert_eq!(decision.rule.is_some(), decision.verdict == verdict::Code::Withheld);
            for outcome in decision.categories.values() {
                prop_assert_eq!(outcome.rule.is_some(), outcome.verdict != verdict::Code::Released);
            }
        }
    }

    /// A forbid more in a layer, or a layer more, never releases more and never waives more.
    #[test]
    fn more_policies_never_release_more(
        folders in folders(),
        members in members(),
        question in question(),
        folder in select(&FOLDERS[..]),
        forbid in policy_with(Just("forbid")),
        layer in vec(policy_with(select(vec!["permit", "forbid"])), 1..4),
    ) {
        let mut stricter = folders.clone();
        match stricter.get_mut(folder) {
            Some(policies) => policies.push(forbid),
            None => drop(stricter.insert(folder, layer)),
        }
        let (before, after) = (load(&folders), load(&stricter));
        for (from, to) in members.iter().flat_map(|from| members.iter().map(move |to| (from, to))) {
            let before = before.decide(Side::Both, &from.party(), &to.party(), &question);
            let after = after.decide(Side::Both, &from.party(), &to.party(), &question);
            let released: Vec<_> = before.released().collect();
            prop_assert!(after.released().all(|category| released.contains(&category)));
            for (category, is) in &after.categories {
                let was = &before.categories[category];
                prop_assert!(rank(is.verdict) <= rank(was.verdict));
                prop_assert!(is.retention_days <= was.retention_days);
                prop_assert!(is.onward_share <= was.onward_share);
                prop_assert!(is.use_as_evidence <= was.use_as_evidence);
                if is.verdict == was.verdict {
                    prop_assert!(is.name_withheld <= was.name_withheld);
                }
            }
        }
    }
}

fn rank(verdict: verdict::Code) -> u8 {
    match verdict {
        verdict::Code::Released => 2,
        verdict::Code::Held => 1,
        verdict::Code::Withheld | verdict::Code::Undecided | verdict::Code::Unspecified => 0,
    }
}
