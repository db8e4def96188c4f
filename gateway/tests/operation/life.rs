//! Starting, stopping and starting again.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::gateway::Gateway;

#[tokio::test]
async fn a_restart_keeps_everything() {
    let gateway = Gateway::init();
    let mut running = gateway.run().await;
    gateway.add_shelter();
    gateway.add("be/police", "LawEnforcement");
    assert_eq!(gateway.cli(&["agency", "revoke", "be/police"]).status, 0);
    assert_eq!(gateway.cli(&["agency", "suspend", "be/shelter"]).status, 0);
    let before = gateway.json(&["agency", "list"]);
    let policies = gateway.json(&["policy", "load", gateway.data().join("policies").to_str().unwrap()]);
    running.signal("-TERM");
    assert_eq!(running.ended().await.code(), Some(0));
    assert!(!gateway.data().join("admin.sock").exists());

    let mut running = gateway.run().await;
    assert_eq!(gateway.json(&["agency", "list"]), before);
    let again = gateway.json(&["policy", "load", gateway.data().join("policies").to_str().unwrap()]);
    assert_eq!(again, policies);
    running.signal("-INT");
    assert_eq!(running.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_killed_gateway_starts_again_and_only_one_runs() {
    let gateway = Gateway::init();
    let mut running = gateway.run().await;
    gateway.add_shelter();
    let socket = fs::metadata(gateway.data().join("admin.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let second = gateway.cli(&["run"]);
    assert_eq!(second.status, 1);
    assert!(second.stderr.contains("runs on"), "{}", second.stderr);
    assert_eq!(gateway.cli(&["agency", "list"]).status, 0, "the first one goes on");

    running.signal("-KILL");
    running.ended().await;
    assert!(gateway.data().join("admin.sock").exists(), "a stale socket");
    let _running = gateway.run().await;
    assert_eq!(gateway.json(&["agency", "list"])["agencies"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_gateway_does_not_start_without_its_database_or_with_exposed_keys() {
    let gateway = Gateway::init();
    let key = gateway.data().join("signing.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let done = gateway.cli(&["run"]);
    assert!(done.status == 1 && done.stderr.contains("signing.key can be read by others"), "{done:?}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    fs::remove_file(gateway.data().join("liaison.db")).unwrap();
    let done = gateway.cli(&["run"]);
    assert!(done.status == 1 && done.stderr.contains("restore it from a backup"), "{done:?}");
    assert!(!gateway.data().join("liaison.db").exists());
}
