//! The example policies, and what single rules of deciding amount to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use liaison_proto::message::v1::{Handling, police_handling};

use super::*;

const DOMAINS: [&str; 2] = ["be", "hu"];

/// The set of a domain, as its administrator puts it together: the scheme beside its own layers.
fn examples(domain: &str) -> Vec<PolicyFile> {
    [starter(), read_folder(&folder().join(domain)).unwrap()].concat()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies")
}

#[test]
fn the_examples_hold() {
    for domain in DOMAINS {
        let set = PolicySet::load(&examples(domain)).unwrap_or_else(|error| panic!("{domain}: {error}"));
        let layers: Vec<String> = set.layers().map(ToString::to_string).collect();
        assert_eq!(layers[..2], ["scheme".to_owned(), format!("country/{domain}")]);
        assert!(layers[2..].iter().all(|layer| layer.starts_with(&format!("agency/{domain}/"))));
        assert!(set.tests() > set.policies());
    }
}

/// Each domain has the same scheme, which is what two gateways compare, and it is what a new one starts with.
#[test]
fn the_starter_is_the_scheme_of_the_examples() {
    let starter = starter();
    let scheme: Vec<_> = fs::read_dir(folder().join("scheme")).unwrap().map(Result::unwrap).collect();
    for file in &scheme {
        let path = format!("scheme/{}", file.file_name().into_string().unwrap());
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(starter.contains(&PolicyFile { path, text }), "{file:?} is missing from starter()");
    }
    assert_eq!(starter.len(), scheme.len());
    let hash = PolicySet::load(&starter).unwrap().scheme_hash();
    for domain in DOMAINS {
        assert_eq!(PolicySet::load(&examples(domain)).unwrap().scheme_hash(), hash);
    }
}

#[test]
fn what_the_readme_shows_works() {
    let readme = include_str!("../../../../deploy/policies/README.md");
    let block = |language: &str| {
        readme.split_once(&format!("```{language}\n")).unwrap().1.split_once("```").unwrap().0
    };
    let shown =
        [file("country/xx/shown.cedar", block("cedar")), file("tests/shown.tests.json", block("json"))];
    let tests = PolicySet::load(&examples("be")).unwrap().tests();
    let set =
        PolicySet::load(&[examples("be"), shown.to_vec()].concat()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(set.tests(), tests + 3);
}

/// Without any one of the policies, a test fails: each policy has tests that need it.
#[test]
fn every_example_policy_is_tested() {
    for domain in DOMAINS {
        let files = examples(domain);
        let is_next = |file: &PolicyFile| {
            let scheme_was_tested = domain != DOMAINS[0] && file.path.starts_with("scheme/");
            file.path.ends_with(".cedar") && !scheme_was_tested
        };
        for (index, file) in files.iter().enumerate().filter(|(_, file)| is_next(file)) {
            let set: cedar_policy::PolicySet = file.text.parse().unwrap();
            for left_out in set.policies() {
                let mut files = files.clone();
                let kept = set.policies().filter(|policy| policy.id() != left_out.id());
                files[index].text = kept.map(|policy| policy.to_cedar().unwrap() + "\n").collect();
                let id = left_out.annotation("id").unwrap();
                let error = PolicySet::load(&files).expect_err(&format!("no test needs {id}"));
                assert!(
                    error.faults.iter().any(|fault| matches!(fault.problem, Problem::TestFails { .. })),
                    "{id}: {error}"
                );
            }
        }
    }
}

#[test]
fn a_denial_quotes_the_policy_that_forbids() {
    let set = PolicySet::load(&[
        scheme(&["permit (principal, action, resource);"]),
        file(
            "country/be/law.cedar",
            annotated("first", "permit (principal, action, resource);")
                + &annotated(
                    "no-health",
                    "forbid (principal, action == Action::\"share_health\", resource);",
                ),
        ),
    ])
    .unwrap();
    let (from, to) = (Member::new("hu/a", &[]), Member::new("be/b", &[]));
    let decision = set.decide(Side::Both, &from.party(), &to.party(), &referral(&[HEALTH, RISK]));
    assert_eq!(decision.verdict, verdict::Code::Released);
    assert_eq!(decision.released().collect::<Vec<_>>(), [Category::Risk]);
    let expected = Rule {
        layer: "country/be".into(),
        rule: "no-health".into(),
        owner: "o".into(),
        legal_basis: "l".into(),
        explain: "e no-health".into(),
    };
    assert_eq!(decision.categories[&Category::Health].rule, Some(expected.clone()));
    let wire = decision.to_wire(&to.address);
    assert_eq!(wire.recipient, "be/b");
    let health = wire.categories.iter().find(|decision| decision.category() == Category::Health).unwrap();
    assert_eq!((health.verdict(), health.rule.clone()), (verdict::Code::Withheld, Some(expected)));
}

#[test]
fn what_nothing_permits_is_denied_by_its_layer() {
    let share = "permit (principal, action in Action::\"share_all\", resource);";
    let messages = "permit (principal, action in [Action::\"submit\", Action::\"receive\"], resource);";
    let set = PolicySet::load(&[
        scheme(&["permit (principal, action, resource);"]),
        file("agency/be/b/own.cedar", annotated("share", share) + &annotated("messages", messages)),
        file("country/hu/law.cedar", annotated("share", share)),
    ])
    .unwrap();
    let [a, b, hu] = ["be/a", "be/b", "hu/c"].map(|address| Member::new(address, &[]));

    let held = set.decide(Side::Both, &a.party(), &b.party(), &referral(&[RISK]));
    assert_eq!(held.verdict, verdict::Code::Withheld);
    assert_eq!(held.categories[&Category::Risk].verdict, verdict::Code::Held);
    assert_eq!(rule(&held.rule), "none:agency/be/b");
    assert_eq!(held.rule.unwrap().owner, "o");
    assert_eq!(held.categories[&Category::Risk].retention_days, 30);

    let unsent = set.decide(Side::Both, &hu.party(), &a.party(), &referral(&[RISK]));
    assert_eq!(rule(&unsent.rule), "none:country/hu");
    assert_eq!(rule(&unsent.categories[&Category::Risk].rule), "none:country/hu");
    assert_eq!(unsent.released().count(), 0);
}

/// Who sends is asked of the sender's layers, who receives of the recipient's, sharing of both.
#[test]
fn each_side_decides_its_own_part() {
    let all = "permit (principal, action, resource);";
    let but = |action: &str| format!("forbid (principal, action == Action::\"{action}\", resource);");
    let (submit, receive, share) = (but("submit"), but("receive"), but("share_risk"));
    let own = |forbid: &str| file("agency/be/x/own.cedar", annotated("all", all) + &annotated("not", forbid));
    let [x, y] = ["be/x", "be/y"].map(|address| Member::new(address, &[]));
    for (forbid, as_sender, as_recipient) in [
        (&submit, verdict::Code::Withheld, verdict::Code::Released),
        (&receive, verdict::Code::Released, verdict::Code::Withheld),
    ] {
        let set = PolicySet::load(&[scheme(&[all]), own(forbid)]).unwrap();
        assert_eq!(set.decide(Side::Both, &x.party(), &y.party(), &referral(&[RISK])).verdict, as_sender);
        assert_eq!(set.decide(Side::Both, &y.party(), &x.party(), &referral(&[RISK])).verdict, as_recipient);
    }
    let set = PolicySet::load(&[scheme(&[all]), own(&share)]).unwrap();
    for (from, to) in [(&x, &y), (&y, &x)] {
        let decision = set.decide(Side::Both, &from.party(), &to.party(), &referral(&[RISK, HEALTH]));
        assert_eq!(decision.released().collect::<Vec<_>>(), [Category::Health]);
    }
}

#[test]
fn the_shortest_retention_of_all_layers_counts() {
    let all = "permit (principal, action, resource);";
    let short = |action: &str| {
        annotated("all", all)
            + &annotated("short", &format!("forbid (principal, action in [{action}], resource);"))
    };
    let (two_years, longer) = ("Action::\"retain_2y\"", "Action::\"retain_2y\", Action::\"retain_180d\"");
    let set = PolicySet::load(&[
        scheme(&[all]),
        file("country/be/law.cedar", short(two_years)),
        file("agency/be/x/own.cedar", short(longer)),
    ])
    .unwrap();
    let days = |from: &str, to: &str| {
        let (from, to) = (Member::new(from, &[]), Member::new(to, &[]));
        let decision = set.decide(Side::Both, &from.party(), &to.party(), &referral(&[RISK]));
        decision.categories[&Category::Risk].retention_days
    };
    assert_eq!(days("hu/a", "hu/b"), 730);
    assert_eq!(days("hu/a", "be/b"), 180);
    assert_eq!(days("be/x", "hu/b"), 30);
}

/// Agencies that no policy names look alike, and still it matters whether a border lies between them.
#[test]
fn agencies_that_look_alike_are_told_apart_by_the_border() {
    let abroad =
        "forbid (principal, action == Action::\"share_risk\", resource) when { context.cross_border };";
    let set = PolicySet::load(&[scheme(&["permit (principal, action, resource);", abroad])]).unwrap();
    let [from, near, far] = ["be/a", "be/b", "hu/b"].map(|address| Member::new(address, &[]));
    for (to, verdict) in [(&near, verdict::Code::Released), (&far, verdict::Code::Withheld)] {
        let decision = set.decide(Side::Both, &from.party(), &to.party(), &referral(&[RISK]));
        assert_eq!(decision.categories[&Category::Risk].verdict, verdict);
    }
}

#[test]
fn an_evaluation_error_denies_and_is_told() {
    let set = PolicySet::load(&[scheme(&[
        "permit (principal, action, resource);",
        "forbid (principal, action == Action::\"share_health\", resource) when { 9223372036854775807 + 1 > 0 };",
    ])])
    .unwrap();
    let (from, to) = (Member::new("be/a", &[]), Member::new("be/b", &[]));
    for _ in 0..2 {
        let decision = set.decide(Side::Both, &from.party(), &to.party(), &referral(&[HEALTH, RISK]));
        assert_eq!(decision.released().collect::<Vec<_>>(), [Category::Risk]);
        assert_eq!(rule(&decision.categories[&Category::Health].rule), "error:scheme");
        let [incident] = decision.incidents.as_slice() else { panic!("{:?}", decision.incidents) };
        assert_eq!(incident.layer, LayerName::Scheme);
        assert_eq!(incident.action, Action::Share(Category::Health));
        assert_eq!(incident.policy.as_deref(), Some("p1"));
    }
}

/// A value that the contracts don't know is never read as one that they do.
#[test]
fn an_unknown_value_denies() {
    let set = PolicySet::load(&[scheme(&["permit (principal, action, resource);"])]).unwrap();
    let (from, to) = (Member::new("be/a", &[]), Member::new("be/b", &[]));
    let unspecified = Member::new("be/c", &[sector::Code::Unspecified]);
    let good = referral(&[RISK]);
    let handling = Handling { police: police_handling::Code::H3 as i32 + 1, tlp: 0 };
    let unknown_handling = Question { handling: Some(handling), ..good.clone() };
    let state = Question { kind: kind::Code::State, ..good.clone() };
    for (to, question) in [(&to, &unknown_handling), (&to, &state), (&unspecified, &good)] {
        let decision = set.decide(Side::Both, &from.party(), &to.party(), question);
        assert_eq!(rule(&decision.rule), "error:scheme", "{question:?}");
        assert_eq!(decision.verdict, verdict::Code::Withheld);
        assert_eq!(decision.incidents.len(), 1);
    }
    let no_basis = referral(&[(Category::Risk, basis::Code::Unspecified)]);
    let decision = set.decide(Side::Both, &from.party(), &to.party(), &no_basis);
    assert_eq!(rule(&decision.categories[&Category::Risk].rule), "none:basis");
    assert_eq!(decision.released().count(), 0);
}

#[test]
fn the_hash_covers_every_path_and_text() {
    let one = scheme(&["permit (principal, action, resource);"]);
    let law = file("country/be/law.cedar", annotated("law", "permit (principal, action, resource);"));
    let hash = |files: &[PolicyFile]| {
        let set = PolicySet::load(files).unwrap();
        (set.hash(), set.scheme_hash())
    };
    let both = hash(&[one.clone(), law.clone()]);
    assert_eq!(hash(&[law.clone(), one.clone()]), both);
    assert_eq!(hash(std::slice::from_ref(&one)).1, both.1);
    assert_ne!(hash(std::slice::from_ref(&one)).0, both.0);
    let changed = PolicyFile { text: format!("{} ", law.text), ..law.clone() };
    assert_ne!(hash(&[one.clone(), changed]).0, both.0);
    let moved = PolicyFile { path: "country/be/laws.cedar".into(), ..law };
    assert_ne!(hash(&[one, moved]).0, both.0);
}
