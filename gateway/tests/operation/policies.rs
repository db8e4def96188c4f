//! Loading policies into a running gateway, and asking it about them.

use std::fs;

use serde_json::{Value, json};

use crate::gateway::Gateway;

#[tokio::test]
async fn a_broken_policy_set_changes_nothing() {
    let gateway = Gateway::init();
    let _running = gateway.run().await;
    gateway.add_shelter();
    let hash = || gateway.json(&["doctor"])["checks"].to_string();
    let before = active(&hash());
    let scheme = gateway.data().join("policies/scheme/messages.cedar");
    let good = fs::read_to_string(&scheme).unwrap();
    let folder = gateway.data().join("policies");
    let folder = folder.to_str().unwrap();

    fs::write(&scheme, format!("{good}\npermit(principal, action == Action::\"nonsense\", resource);\n"))
        .unwrap();
    for command in ["check", "load"] {
        let done = gateway.cli(&["policy", command, folder]);
        assert_eq!(done.status, 1);
        assert!(done.stderr.contains("scheme/messages.cedar"), "{}", done.stderr);
    }
    assert_eq!(active(&hash()), before);

    fs::write(&scheme, format!("{good}\n// Another text, another set.\n")).unwrap();
    let loaded = gateway.json(&["policy", "load", folder]);
    assert_eq!(loaded, gateway.json(&["policy", "check", folder]));
    assert_eq!(active(&hash()), loaded["hash"].as_str().unwrap());
    assert_ne!(active(&hash()), before);
}

#[tokio::test]
async fn the_active_set_says_what_it_would_do_and_why() {
    let gateway = Gateway::init();
    let running = gateway.run().await;
    for (address, sector) in [("be/shelter", "NGO"), ("be/police", "LawEnforcement")] {
        gateway.add(address, sector);
        running.enrol(&gateway.token(address)).await;
    }
    let ask =
        ["policy", "explain", "--from", "be/shelter", "--to", "be/police", "--basis", "consent_of_person"];
    let ask = [&ask[..], &["--category", "service_request", "--category", "narrative"]].concat();
    let told = gateway.json(&ask);
    assert_eq!(told["from"], "be/shelter");
    assert_eq!(told["policy"], active(&gateway.json(&["doctor"])["checks"].to_string()));
    let [decision] = told["decisions"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((&decision["to"], &decision["verdict"]), (&json!("be/police"), &json!("released")));
    let category = |name: &str| {
        let categories = decision["categories"].as_array().unwrap();
        categories.iter().find(|category| category["category"] == name).unwrap().clone()
    };
    assert_eq!(category("service_request")["verdict"], "released");
    assert_eq!(category("service_request")["rule"], Value::Null);
    let narrative = category("narrative");
    assert_eq!((&narrative["verdict"], &narrative["rule"]["layer"]), (&json!("withheld"), &json!("scheme")));
    assert!(!narrative["rule"]["explain"].as_str().unwrap().is_empty());
    let text = gateway.cli(&ask).stdout;
    for word in ["be/police", "narrative", "withheld", "scheme"] {
        assert!(text.contains(word), "{text}");
    }
}

/// The hash that doctor names as active.
fn active(checks: &str) -> String {
    checks.split("active, set ").nth(1).unwrap()[..64].to_owned()
}
