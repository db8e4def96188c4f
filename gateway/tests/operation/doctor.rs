//! What `doctor` finds.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::gateway::{Gateway, PATIENCE};

/// The verdict on each check, and the exit status.
fn examine(gateway: &Gateway) -> (i32, Vec<(String, String)>, Value) {
    let done = gateway.cli(&["doctor", "--json"]);
    let json: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let checks = json["checks"].as_array().unwrap();
    let verdicts = checks.iter().map(|check| (text(check, "check"), text(check, "verdict"))).collect();
    assert_eq!(json["ok"], done.status == 0);
    (done.status, verdicts, json)
}

fn not_ok(gateway: &Gateway) -> (i32, Vec<(String, String)>) {
    let (status, verdicts, _) = examine(gateway);
    (status, verdicts.into_iter().filter(|(_, verdict)| verdict != "ok").collect())
}

fn found(check: &str, verdict: &str) -> (String, String) {
    (check.to_owned(), verdict.to_owned())
}

#[tokio::test]
async fn a_sound_gateway_is_ok_stopped_and_running() {
    let gateway = Gateway::init();
    assert_eq!(not_ok(&gateway), (0, vec![found("gateway", "warn")]));
    let running = gateway.run().await;
    let (status, verdicts, _) = examine(&gateway);
    assert_eq!(status, 0);
    assert!(verdicts.iter().all(|(_, verdict)| verdict == "ok"), "{verdicts:?}");
    let checks =
        ["data folder", "CA", "clock", "database", "policies", "gateway", "certificate", "readiness"];
    for check in checks.into_iter().chain(["exchange address", "federation address"]) {
        assert!(verdicts.contains(&found(check, "ok")), "{check}");
    }
    drop(running);
}

#[tokio::test]
async fn peers_are_told_of_as_they_stand() {
    let (gateway, other) = (Gateway::init(), Gateway::init_as("hu"));
    let running = gateway.run().await;
    let other_runs = other.run().await;
    gateway.accept(&other);
    // The other domain has not accepted this one.
    let (status, verdicts) = not_ok(&gateway);
    assert_eq!((status, verdicts), (0, vec![found("peer", "warn")]));
    other.accept(&gateway);
    let deadline = Instant::now() + PATIENCE;
    while [&gateway, &other].into_iter().any(|gateway| !not_ok(gateway).1.is_empty()) {
        assert!(Instant::now() < deadline, "not linked: {:?}", examine(&gateway));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(examine(&gateway).1.contains(&found("peer", "ok")));

    drop(other_runs);
    while not_ok(&gateway).1 != [found("peer", "warn")] {
        assert!(Instant::now() < deadline, "the peer is gone: {:?}", examine(&gateway));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gateway.cli(&["peer", "suspend", "hu"]).status, 0);
    let (_, verdicts, json) = examine(&gateway);
    assert!(verdicts.contains(&found("peer", "ok")) && json.to_string().contains("peer resume hu"), "{json}");
    assert_eq!(gateway.cli(&["peer", "remove", "hu"]).status, 0);
    assert!(examine(&gateway).1.iter().all(|(check, _)| check != "peer"));
    drop(running);
}

#[test]
fn each_fault_is_found_by_name() {
    let gateway = Gateway::init();
    let data = gateway.data();
    let stopped = found("gateway", "warn");

    fs::copy(data.join("ca.key"), data.join("ca-next.key")).unwrap();
    for key in ["ca.key", "ca-next.key", "signing.key"] {
        fs::set_permissions(data.join(key), fs::Permissions::from_mode(0o640)).unwrap();
        let (status, verdicts) = not_ok(&gateway);
        assert_eq!(status, 1);
        assert!(verdicts.contains(&found("private keys", "fail")), "{key}: {verdicts:?}");
        fs::set_permissions(data.join(key), fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::remove_file(data.join("ca-next.key")).unwrap();

    fs::write(data.join("revoked"), "agency nobody\n").unwrap();
    assert_eq!(not_ok(&gateway), (1, vec![found("revocations", "fail"), stopped.clone()]));
    fs::remove_file(data.join("revoked")).unwrap();

    fs::write(data.join("policies/scheme/messages.cedar"), "permit(").unwrap();
    assert_eq!(not_ok(&gateway), (0, vec![found("policies", "warn"), stopped.clone()]));
    fs::remove_dir_all(data.join("policies")).unwrap();

    let listeners = [("exchange address", gateway.exchange), ("federation address", gateway.federation)];
    for (check, address) in listeners {
        let taken = std::net::TcpListener::bind(address).unwrap();
        assert_eq!(not_ok(&gateway), (1, vec![stopped.clone(), found(check, "fail")]));
        drop(taken);
    }

    let config = fs::read_to_string(data.join("gateway.toml")).unwrap();
    fs::write(data.join("gateway.toml"), config.replace("\"be\"", "\"hu\"")).unwrap();
    assert_eq!(not_ok(&gateway), (1, vec![found("CA", "fail"), stopped.clone()]));
    fs::write(data.join("gateway.toml"), config).unwrap();

    fs::write(data.join("liaison.db"), "no database").unwrap();
    assert_eq!(not_ok(&gateway), (1, vec![found("database", "fail"), stopped.clone()]));
    fs::remove_file(data.join("liaison.db")).unwrap();
    assert_eq!(not_ok(&gateway), (1, vec![found("database", "fail"), stopped]));
    assert!(!data.join("liaison.db").exists(), "doctor makes no database");

    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(not_ok(&gateway), (1, vec![found("data folder", "fail")]));
    assert_eq!(not_ok(&Gateway::nothing()), (1, vec![found("data folder", "fail")]));
}
