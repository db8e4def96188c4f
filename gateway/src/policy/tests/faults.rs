//! A set with a fault is refused, and the error says where and what to do.

use super::*;
use crate::policy::limits;

const ALL: &str = "permit (principal, action, resource);";

fn refused(files: &[PolicyFile]) -> String {
    PolicySet::load(files).expect_err("a fault").to_string()
}

#[track_caller]
fn refuses(files: &[PolicyFile], texts: &[&str]) {
    let error = refused(files);
    for text in texts {
        assert!(error.contains(text), "expected \"{text}\" in:\n{error}");
    }
}

#[test]
fn names_file_and_line_of_a_syntax_error() {
    refuses(
        &[file("scheme/a.cedar", format!("{}\npermit (principal, action resource);", annotated("a", ALL)))],
        &["scheme/a.cedar:7: ", "unexpected token `resource`"],
    );
}

#[test]
fn wants_every_annotation_and_no_other() {
    for missing in ["id", "owner", "legal_basis", "explain"] {
        let text: String = annotated("a", ALL)
            .lines()
            .filter(|line| !line.starts_with(&format!("@{missing}(")))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(
            refused(&[file("scheme/a.cedar", format!("\n// A comment.\n{text}"))]),
            format!("scheme/a.cedar:3: the policy has no @{missing}; write @{missing}(\"...\") above it")
        );
    }
    refuses(
        &[file("scheme/a.cedar", format!("@disabled(\"yes\")\n{}", annotated("a", ALL)))],
        &["@disabled is unknown"],
    );
    refuses(&[file("scheme/a.cedar", annotated("None:scheme", ALL))], &["@id(\"None:scheme\") must have"]);
    let long = annotated("a", ALL)
        .replace("@owner(\"o\")", &format!("@owner(\"{}\")", "o".repeat(limits::ANNOTATION_CHARS + 1)));
    refuses(&[file("scheme/a.cedar", long)], &["@owner must have 1 to 1000 characters"]);
    refuses(
        &[file("scheme/a.cedar", annotated("a", ALL).replace("\"l\"", "\" \""))],
        &["@legal_basis must have"],
    );
}

#[test]
fn wants_an_id_once_in_a_layer() {
    let (one, two) = (annotated("a", ALL), annotated("a", ALL));
    refuses(
        &[file("scheme/a.cedar", one.clone()), file("scheme/b.cedar", format!("\n{two}"))],
        &["scheme/b.cedar:2: @id(\"a\") is taken by the policy at scheme/a.cedar:1"],
    );
    PolicySet::load(&[file("scheme/a.cedar", one), file("country/be/a.cedar", two)]).unwrap();
}

#[test]
fn a_mistyped_value_does_not_pass_validation() {
    for condition in [
        "context.purpose == Purpose::\"victim_suport\"",
        "context.basis == Basis::\"consent\"",
        "resource in Sector::\"Police\"",
        "context.urgent",
        "context.minor == \"yes\"",
        "context.kind == AlertKind::\"MissingMinor\"",
        "principal.country == Country::\"be\"",
        "resource in Sectors::\"NGO\"",
    ] {
        let policy =
            format!("permit (principal, action in Action::\"share_all\", resource) when {{ {condition} }};");
        refuses(&[scheme(&[ALL, &policy])], &["scheme/scheme.cedar:6: policy p1 does not fit the schema"]);
    }
    for scope in ["action == Action::\"share_helth\"", "action in Action::\"share_everything\""] {
        refuses(
            &[scheme(&[&format!("permit (principal, {scope}, resource);")])],
            &["policy p0 does not fit"],
        );
    }
    // The basis is known for a category, not for a message as a whole.
    refuses(
        &[scheme(&[
            "permit (principal, action, resource) when { context.basis == Basis::\"public_task\" };",
        ])],
        &["basis"],
    );
    // It could never apply.
    refuses(&[scheme(&[ALL, "forbid (principal, action, resource) when { false };"])], &["impossible"]);
}

#[test]
fn names_that_cannot_exist_are_refused() {
    for (name, hint) in [
        ("Country::\"BE\"", "two lower-case letters"),
        ("Group::\"My group\"", "lower-case letters"),
        ("Agency::\"police\"", "<domain>/<name>"),
        ("Domain::\"HU\"", "lower-case letters"),
    ] {
        let policy = format!("forbid (principal in {name}, action, resource);");
        refuses(&[scheme(&[ALL, &policy])], &["scheme/scheme.cedar:6:", name, hint]);
    }
}

#[test]
fn templates_are_refused() {
    let template = "permit (principal == ?principal, action, resource);";
    refuses(&[scheme(&[ALL, template])], &["scheme/scheme.cedar:6: is a template"]);
}

#[test]
fn a_set_without_a_scheme_is_refused() {
    refuses(&[], &["policy set: there is no policy in scheme/"]);
    refuses(&[file("country/be/law.cedar", annotated("a", ALL))], &["no policy in scheme/"]);
}

#[test]
fn every_file_has_a_place() {
    for path in [
        "a.cedar",
        "scheme/a.txt",
        "scheme/.a.cedar",
        "scheme/deep/a.cedar",
        "scheme/../a.cedar",
        "/scheme/a.cedar",
        "country/a.cedar",
        "country/BE/a.cedar",
        "country/bel/a.cedar",
        "agency/be/a.cedar",
        "agency/be/x/y/a.cedar",
        "agency/be/-x/a.cedar",
        "tests/a.cedar",
        "schemes/a.cedar",
        "scheme\\a.cedar",
        "scheme/a\n.cedar",
    ] {
        let files = [scheme(&[ALL]), file(path, annotated("a", ALL))];
        assert!(refused(&files).contains("has no place in a policy folder"), "{path}");
    }
    refuses(&[scheme(&[ALL]), scheme(&[ALL])], &["scheme/scheme.cedar: is given twice"]);
}

#[test]
fn limits_hold() {
    let many = (0..=limits::FILES).map(|n| file(&format!("scheme/{n}.cedar"), "")).collect::<Vec<_>>();
    refuses(&many, &["more than 2048 files"]);
    refuses(&[file("scheme/a.cedar", " ".repeat(limits::FILE_BYTES + 1))], &["more than 262144 bytes"]);
    let full = " ".repeat(limits::FILE_BYTES);
    let large = (0..=limits::SET_BYTES / limits::FILE_BYTES)
        .map(|n| file(&format!("scheme/{n}.cedar"), full.clone()));
    refuses(&large.collect::<Vec<_>>(), &["the files together"]);
}

#[test]
fn the_numbers_of_policies_and_tests_have_limits() {
    let numbers: Vec<usize> = (0..=limits::POLICIES).collect();
    let many = numbers.chunks(1_000).map(|chunk| {
        let text: String = chunk.iter().map(|n| annotated(&format!("p{n}"), ALL)).collect();
        file(&format!("scheme/{}.cedar", chunk[0]), text)
    });
    refuses(&many.collect::<Vec<_>>(), &["policy set: there are more than 10000 policies"]);

    let case = r#"{"reason": "", "from": "", "to": "", "message": {"kind": ""}, "expect": {"verdict": ""}},"#;
    let text = format!("{{\"agencies\": {{}}, \"tests\": [{}]}}", case.repeat(2_000).trim_end_matches(','));
    let many = (0..=limits::TESTS / 2_000).map(|n| file(&format!("tests/{n}.tests.json"), text.clone()));
    let many: Vec<_> = many.chain([scheme(&[ALL])]).collect();
    refuses(&many, &["policy set: there are more than 20000 tests"]);
}

#[test]
fn all_faults_are_told_at_once_up_to_a_limit() {
    let error =
        PolicySet::load(&[file("scheme/a.cedar", ALL), file("scheme/b.cedar", "permit")]).unwrap_err();
    assert!(error.to_string().contains("scheme/a.cedar:1:"));
    assert!(error.to_string().contains("scheme/b.cedar:1:"));
    let many = PolicySet::load(&[file("scheme/a.cedar", ALL.repeat(100))]).unwrap_err();
    assert_eq!(many.faults.len(), limits::FAULTS);
}

fn with_test(test: &str) -> [PolicyFile; 2] {
    let agencies =
        r#"{"be/a": {"country": "be", "sectors": ["NGO"]}, "be/b": {"country": "be", "sectors": []}}"#;
    let text = format!("{{\"agencies\": {agencies},\n\"tests\": [{test}]}}");
    let forbid = "forbid (principal, action == Action::\"share_health\", resource);";
    [scheme(&[ALL, forbid]), file("scheme/scheme.tests.json", text)]
}

#[test]
fn tests_beside_the_policies_are_run() {
    let case = |bases: &str, expect: &str| {
        format!(
            r#"{{"reason": "r", "from": "be/a", "to": "be/b", "message": {{"kind": "referral"}}, "bases": {bases}, "expect": {expect}}}"#
        )
    };
    let health = r#"{"health": "consent_of_person"}"#;
    let expected =
        |health: &str| format!(r#"{{"verdict": "released", "categories": {{"health": {health}}}}}"#);
    let right = expected(r#"{"verdict": "withheld", "rule": "p1", "name_withheld": true}"#);
    assert_eq!(PolicySet::load(&with_test(&case(health, &right))).unwrap().tests(), 1);

    for (expect, error) in [
        (expected(r#"{"verdict": "released"}"#), "health is withheld by p1, expected released;"),
        (
            expected(r#"{"verdict": "withheld", "rule": "p9"}"#),
            "health is withheld by p1, expected withheld by p9",
        ),
        (expected(r#"{"verdict": "withheld"}"#), "health is withheld by p1, expected withheld;"),
        (
            expected(r#"{"verdict": "withheld", "rule": "p1", "name_withheld": false}"#),
            "name_withheld of health is 1, expected 0",
        ),
        (r#"{"verdict": "released"}"#.to_owned(), "it expects nothing of health, which is withheld"),
        (
            r#"{"verdict": "withheld", "rule": "x"}"#.to_owned(),
            "the message is released, expected withheld by x",
        ),
    ] {
        refuses(&with_test(&case(health, &expect)), &["scheme/scheme.tests.json: test \"r\" fails: ", error]);
    }
    for (bases, error) in [
        (r#"{"helth": "public_task"}"#, "helth is no category"),
        (r#"{"health": "consent"}"#, "consent is no basis"),
    ] {
        refuses(&with_test(&case(bases, &right)), &["test \"r\" cannot run: ", error]);
    }
    let misspelt = case(health, &right).replace("\"message\"", "\"mesage\"");
    refuses(&with_test(&misspelt), &["scheme/scheme.tests.json:2: these tests cannot be read", "mesage"]);
    let stranger = case(health, &right).replace("\"to\": \"be/b\"", "\"to\": \"be/c\"");
    refuses(&with_test(&stranger), &["be/c is not among its agencies"]);
}

/// Tests beside a layer ask that layer alone; tests of a layer that has no say there are a mistake.
#[test]
fn tests_of_a_layer_ask_it_alone() {
    let [scheme, tests] = with_test(
        r#"{"reason": "r", "from": "be/a", "to": "be/b", "message": {"kind": "referral"},
            "bases": {"health": "public_task"},
            "expect": {"verdict": "released", "categories": {"health": {"verdict": "released"}}}}"#,
    );
    let law = file("country/be/law.cedar", annotated("law", ALL));
    let at = |path: &str| PolicyFile { path: path.to_owned(), ..tests.clone() };
    PolicySet::load(&[scheme.clone(), law.clone(), at("country/be/law.tests.json")]).unwrap();
    refuses(&[scheme.clone(), law.clone(), at("tests/all.tests.json")], &["health is withheld by p1"]);
    refuses(&[scheme, law, at("country/hu/law.tests.json")], &["the layer that it is about has no say"]);
}
