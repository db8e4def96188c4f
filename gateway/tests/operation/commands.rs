//! What commands print, and how they end.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use crate::gateway::{Done, Gateway};

#[test]
fn init_makes_a_folder_for_its_owner_alone() {
    let gateway = Gateway::init();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&gateway.data()), 0o700);
    for file in ["ca.key", "signing.key", "liaison.db", "gateway.toml", "ca.pem"] {
        assert_eq!(mode(&gateway.data().join(file)), 0o600, "{file}");
    }
    assert!(gateway.data().join("policies/scheme").is_dir());

    let before = fs::read(gateway.data().join("ca.key")).unwrap();
    let again = gateway.cli(&["init", "--domain", "be", "--json"]);
    assert_eq!((again.status, again.stdout.as_str()), (1, ""));
    assert_eq!(error(&again)["code"], "exists");
    assert_eq!(fs::read(gateway.data().join("ca.key")).unwrap(), before);
}

#[test]
fn init_says_what_it_made() {
    let gateway = Gateway::nothing();
    // As a package or a volume leaves it.
    fs::create_dir(gateway.data()).unwrap();
    let done = gateway.init_with(&["--name", "gateway.example", "--json"]);
    let mut made: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(made["ca"].take().as_str().unwrap().len(), 64);
    assert_eq!(made["policy"].take()["hash"].as_str().unwrap().len(), 64);
    let expected = json!({
        "domain": "be",
        "data": gateway.data(),
        "ca": null,
        "exchange": gateway.exchange.to_string(),
        "metrics": gateway.metrics.to_string(),
        "policy": null,
    });
    assert_eq!(made, expected);
}

#[test]
fn a_failed_init_leaves_nothing() {
    let gateway = Gateway::nothing();
    let policies = tempfile::tempdir().unwrap();
    fs::create_dir(policies.path().join("scheme")).unwrap();
    fs::write(policies.path().join("scheme/base.cedar"), "permit(").unwrap();
    let done = gateway.init_with(&["--policies", policies.path().to_str().unwrap()]);
    assert_eq!(done.status, 1);
    assert!(done.stderr.contains("scheme/base.cedar:1"), "{}", done.stderr);
    assert!(!gateway.data().exists());
}

#[test]
fn wrong_use_ends_with_2_and_failure_with_1() {
    let gateway = Gateway::init();
    let add = ["agency", "add", "be/x", "--name", "X", "--country", "be"];
    let wrong: [&[&str]; 9] = [
        &[],
        &["frobnicate"],
        &["init"],
        &["init", "--domain", "Be"],
        &["init", "--domain", "be", "--exchange", "0.0.0.0:7400"],
        &add,
        &[&add[..], &["--sector", "Astrology"]].concat(),
        &["agency", "show", "be"],
        &["token", "create", "be/x", "--hours", "0"],
    ];
    for arguments in wrong {
        let done = gateway.cli(arguments);
        assert_eq!((done.status, done.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!done.stderr.is_empty());
    }
    for arguments in [&["agency", "list"][..], &["token", "create", "be/x"], &["policy", "load", "/nowhere"]]
    {
        assert_eq!(gateway.cli(arguments).status, 1, "{arguments:?}");
    }
    let asleep = gateway.cli(&["agency", "list", "--json"]);
    assert_eq!(error(&asleep)["code"], "gateway_unreachable");
    for arguments in
        [&["--help"][..], &["--version"], &["agency", "add", "--help"], &["policy", "explain", "--help"]]
    {
        let done = gateway.cli(arguments);
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn help_lists_every_command() {
    assert_eq!(Gateway::nothing().cli(&["--help"]).stdout, include_str!("help.txt"));
}

#[test]
fn a_broken_configuration_names_its_line() {
    let gateway = Gateway::init();
    let config = gateway.data().join("gateway.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}exchagne = 1\n")).unwrap();
    let done = gateway.cli(&["run"]);
    assert_eq!(done.status, 1);
    let line = format!("line {}: unknown field `exchagne`", text.lines().count() + 1);
    assert!(done.stderr.contains(&line), "{}", done.stderr);
}

#[tokio::test]
async fn agencies_are_shown_as_a_table_and_as_json() {
    let gateway = Gateway::init();
    let _running = gateway.run().await;
    assert!(gateway.cli(&["agency", "list"]).stdout.starts_with("no agencies yet"));
    gateway.add_shelter();
    let table = "\
ADDRESS     STATE    CONNECTED  QUEUED  COUNTRY  SECTORS  NAME
be/shelter  invited  no         0       be       NGO      The shelter
";
    assert_eq!(gateway.cli(&["agency", "list"]).stdout, table);
    let shelter = json!({
        "address": "be/shelter",
        "name": "The shelter",
        "state": "invited",
        "country": "be",
        "sectors": ["NGO"],
        "groups": ["network"],
        "services": [],
        "languages": [],
        "ages": [],
        "connected": false,
        "queued": 0,
        "key_records": 0,
        "certificate_expires": null,
    });
    assert_eq!(gateway.json(&["agency", "show", "be/shelter"]), shelter);
    assert_eq!(gateway.json(&["agency", "list"]), json!({"agencies": [shelter]}));

    let again =
        ["agency", "add", "be/shelter", "--name", "X", "--country", "be", "--sector", "NGO", "--json"];
    assert_eq!(error(&gateway.cli(&again))["code"], "id_reused");
    let foreign = ["agency", "add", "hu/x", "--name", "X", "--country", "hu", "--sector", "NGO", "--json"];
    assert_eq!(error(&gateway.cli(&foreign))["code"], "malformed");
    assert_eq!(error(&gateway.cli(&["agency", "show", "be/none", "--json"]))["code"], "unknown_recipient");
}

#[tokio::test]
async fn what_an_agency_offers_is_described_and_kept() {
    let gateway = Gateway::init();
    let mut running = gateway.run().await;
    let add = ["agency", "add", "be/clinic", "--name", "Clinic", "--country", "be", "--sector", "NGO"];
    let offers = ["--service", "health_medical", "--language", "nl", "--language", "hu", "--age", "from_65"];
    assert_eq!(gateway.cli(&[&add[..], &offers].concat()).status, 0);
    let offered = |services: &[&str], languages: &[&str], ages: &[&str]| {
        let shown = gateway.json(&["agency", "show", "be/clinic"]);
        assert_eq!(shown["services"], json!(services));
        assert_eq!(shown["languages"], json!(languages));
        assert_eq!(shown["ages"], json!(ages));
    };
    offered(&["health_medical"], &["hu", "nl"], &["from_65"]);

    let describe = ["agency", "describe", "be/clinic"];
    let more = ["--service", "housing", "--service", "food", "--service", "food"];
    assert_eq!(gateway.cli(&[&describe[..], &more].concat()).status, 0);
    offered(&["food", "housing"], &[], &[]);
    let wrong = [&describe[..], &["--language", "Dutch", "--json"]].concat();
    assert_eq!(error(&gateway.cli(&wrong))["code"], "malformed");
    assert_eq!(gateway.cli(&[&describe[..], &["--service", "magic"]].concat()).status, 2);
    running.signal("-TERM");
    running.ended().await;
    let _running = gateway.run().await;
    offered(&["food", "housing"], &[], &[]);
    assert_eq!(gateway.cli(&describe).status, 0);
    offered(&[], &[], &[]);
}

#[tokio::test]
async fn a_token_is_printed_alone() {
    let gateway = Gateway::init();
    let _running = gateway.run().await;
    gateway.add_shelter();
    let token = gateway.token("be/shelter");
    assert!(token.starts_with("liaison1.") && !token.contains(char::is_whitespace));
    let token: liaison_gateway::enrolment::Token = token.parse().unwrap();
    assert_eq!(token.gateway, gateway.exchange.to_string());

    let made = gateway.json(&["token", "create", "be/shelter", "--hours", "5"]);
    assert_eq!(made["agency"], "be/shelter");
    assert!(made["token"].as_str().unwrap().starts_with("liaison1."));
    assert!(made["expires"].as_str().unwrap().ends_with('Z'));
    assert_eq!(made.as_object().unwrap().len(), 3);
    for _ in 2..10 {
        gateway.token("be/shelter");
    }
    let done = gateway.cli(&["token", "create", "be/shelter", "--json"]);
    assert_eq!(error(&done)["code"], "rate_limited");
}

/// The error that a command told with `--json`.
fn error(done: &Done) -> Value {
    let text: Value = serde_json::from_str(&done.stderr).unwrap_or_else(|_| panic!("{done:?}"));
    text["error"].clone()
}
