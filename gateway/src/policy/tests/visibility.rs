//! Which agencies another domain knows of.

use super::*;

const ALL: &str = "permit (principal, action, resource);";

fn peer(name: &str) -> Domain {
    name.parse().unwrap()
}

#[test]
fn every_layer_of_the_agency_has_a_say_and_denies_by_default() {
    let messages = "permit (principal, action == Action::\"submit\", resource);";
    let shelter = Member::new("be/x", &[]);
    for (files, layer) in [
        (vec![scheme(&[ALL])], None),
        (vec![scheme(&[messages])], Some("scheme")),
        (vec![scheme(&[ALL]), file("country/be/l.cedar", annotated("m", messages))], Some("country/be")),
        (vec![scheme(&[ALL]), file("agency/be/x/l.cedar", annotated("m", messages))], Some("agency/be/x")),
        (vec![scheme(&[ALL]), file("agency/be/y/l.cedar", annotated("m", messages))], None),
        (vec![scheme(&[ALL]), file("country/hu/l.cedar", annotated("m", messages))], None),
    ] {
        let answer = PolicySet::load(&files).unwrap().discover(&peer("hu"), &shelter.party());
        assert_eq!(answer.is_permitted(), layer.is_none());
        assert_eq!(rule(&answer.rule), layer.map_or(String::new(), |layer| format!("none:{layer}")));
        assert_eq!(answer.incidents, []);
    }
}

#[test]
fn policies_tell_domains_and_agencies_apart() {
    let set = PolicySet::load(&[scheme(&[
        ALL,
        "forbid (principal == Domain::\"hu\", action == Action::\"discover\", resource in Sector::\"NGO\");",
        "forbid (principal, action == Action::\"discover\", resource in Group::\"hidden\");",
        "forbid (principal, action == Action::\"discover\", resource == Agency::\"be/secret\");",
    ])])
    .unwrap();
    let shelter = Member::new("be/shelter", &[sector::Code::Ngo]);
    let police = Member::new("be/police", &[sector::Code::LawEnforcement]);
    let house = Member { groups: vec!["hidden".to_owned()], ..Member::new("be/house", &[]) };
    let secret = Member::new("be/secret", &[]);
    for _ in 0..2 {
        for (domain, agency, expected) in [
            ("hu", &shelter, "p1"),
            ("de", &shelter, ""),
            ("hu", &police, ""),
            ("hu", &house, "p2"),
            ("de", &house, "p2"),
            ("de", &secret, "p3"),
        ] {
            let answer = set.discover(&peer(domain), &agency.party());
            assert_eq!(rule(&answer.rule), expected, "{domain} {}", agency.address);
        }
    }
}

#[test]
fn an_error_hides_and_is_told() {
    let broken =
        "forbid (principal, action == Action::\"discover\", resource) when { 9223372036854775807 + 1 > 0 };";
    let set = PolicySet::load(&[scheme(&[ALL, broken])]).unwrap();
    let good = Member::new("be/a", &[]);
    let unknown = Member::new("be/b", &[sector::Code::Unspecified]);
    for (agency, policy) in [(&good, Some("p1")), (&unknown, None)] {
        for _ in 0..2 {
            let answer = set.discover(&peer("hu"), &agency.party());
            assert_eq!(rule(&answer.rule), "error:scheme");
            let [incident] = answer.incidents.as_slice() else { panic!("{:?}", answer.incidents) };
            assert_eq!((incident.action, incident.policy.as_deref()), (Action::Discover, policy));
        }
    }
}

/// Who asks to discover is a domain and there is no message: a policy that speaks of either says for which
/// actions.
#[test]
fn a_policy_about_messages_names_actions_about_messages() {
    for policy in [
        "forbid (principal, action, resource) when { context.minor };",
        "forbid (principal in Sector::\"NGO\", action == Action::\"discover\", resource);",
        "forbid (principal == Domain::\"hu\", action == Action::\"submit\", resource);",
    ] {
        let error = PolicySet::load(&[scheme(&[ALL, policy])]).expect_err(policy).to_string();
        assert!(error.contains("scheme/scheme.cedar:6: policy p1 does not fit the schema"), "{error}");
    }
}

#[test]
fn tests_of_visibility_are_run_and_counted() {
    let agencies = r#"{"be/a": {"country": "be", "sectors": [], "groups": ["hidden"]}}"#;
    let forbid = "forbid (principal, action == Action::\"discover\", resource in Group::\"hidden\");";
    let load = |path: &str, test: &str| {
        let text = format!("{{\"agencies\": {agencies},\n\"visible\": [{test}]}}");
        let law = file("country/hu/law.cedar", annotated("law", ALL));
        PolicySet::load(&[scheme(&[ALL, forbid]), law, file(path, text)])
    };
    let right =
        r#"{"reason": "r", "to": "hu", "agency": "be/a", "expect": {"visible": false, "rule": "p1"}}"#;
    assert_eq!(load("tests/v.tests.json", &format!("{right}, {right}")).unwrap().tests(), 2);
    assert_eq!(load("scheme/v.tests.json", right).unwrap().tests(), 1);
    for (path, from, to, error) in [
        ("tests/v", r#"false, "rule": "p1""#, "true", "fails: the agency is hidden by p1, expected visible;"),
        ("tests/v", "p1", "p9", "fails: the agency is hidden by p1, expected hidden by p9;"),
        ("tests/v", "hu", "HU", "cannot run: HU: a domain has 1 to 63 characters"),
        ("tests/v", "be/a", "be/b", "cannot run: be/b is not among its agencies"),
        ("country/hu/v", "hu", "be", "cannot run: the layer that it is about has no say"),
    ] {
        let path = format!("{path}.tests.json");
        let refused = load(&path, &right.replace(from, to)).unwrap_err().to_string();
        assert!(refused.contains(&format!("{path}: test \"r\" {error}")), "{refused}");
    }
    let misspelt = load("tests/v.tests.json", &right.replace("agency", "agnecy")).unwrap_err().to_string();
    assert!(misspelt.contains("tests/v.tests.json:2: these tests cannot be read"), "{misspelt}");
}

/// A test as data may ask one side, as a gateway between two domains does.
#[test]
fn tests_ask_the_side_that_they_name() {
    let test = |side: &str, verdict: &str| {
        format!(
            r#"{{"agencies": {{"be/a": {{"country": "be", "sectors": []}}, "hu/b": {{"country": "hu", "sectors": []}}}},
            "tests": [{{"reason": "r", "from": "be/a", "to": "hu/b", {side} "message": {{"kind": "referral"}},
            "expect": {{"verdict": {verdict}}}}}]}}"#
        )
    };
    let receive = "forbid (principal, action == Action::\"receive\", resource);";
    let law = file("country/hu/law.cedar", annotated("all", ALL) + &annotated("no", receive));
    let load = |path: &str, side: &str, verdict: &str| {
        PolicySet::load(&[scheme(&[ALL]), law.clone(), file(path, test(side, verdict))])
    };
    let (all, withheld) = ("tests/all.tests.json", r#""withheld", "rule": "no""#);
    load(all, "", withheld).unwrap();
    load(all, r#""side": "both","#, withheld).unwrap();
    load(all, r#""side": "recipient","#, withheld).unwrap();
    load(all, r#""side": "sender","#, r#""released""#).unwrap();
    let wrong = load(all, r#""side": "sender","#, withheld).unwrap_err().to_string();
    assert!(wrong.contains("the message is released, expected withheld by no"), "{wrong}");
    let unknown = load(all, r#""side": "receiver","#, withheld).unwrap_err().to_string();
    assert!(unknown.contains("unknown variant `receiver`"), "{unknown}");
    let own = "country/hu/law.tests.json";
    load(own, r#""side": "recipient","#, withheld).unwrap();
    let silent = load(own, r#""side": "sender","#, withheld).unwrap_err().to_string();
    assert!(silent.contains("the layer that it is about has no say here"), "{silent}");
}
