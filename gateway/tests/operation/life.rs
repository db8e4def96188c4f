//! Starting, stopping and starting again.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tokio::{net::TcpListener, time::timeout};

use crate::gateway::{Gateway, PATIENCE};

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
async fn the_database_of_another_domain_is_named_and_not_touched() {
    let gateway = Gateway::init();
    let mut running = gateway.run().await;
    gateway.add_shelter();
    let until = Instant::now() + PATIENCE;
    while !gateway.cli(&["log", "head"]).stdout.contains("be/log/1") {
        assert!(Instant::now() < until, "no head is signed");
    }
    running.signal("-TERM");
    running.ended().await;
    let other = Gateway::init_as("hu");
    for file in ["liaison.db", "liaison.db-wal"] {
        _ = fs::copy(gateway.data().join(file), other.data().join(file));
    }
    let done = other.cli(&["run"]);
    assert_eq!(done.status, 1);
    assert!(done.stderr.contains("is of the domain be") && done.stderr.contains("of hu"), "{}", done.stderr);
}

#[tokio::test]
async fn a_gateway_that_waits_for_its_database_ends_when_it_is_told_to() {
    let gateway = Gateway::init();
    // A server that says nothing.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://liaison@{}/liaison", server.local_addr().unwrap());
    let config = gateway.data().join("gateway.toml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("database = \"{url}\"\n{before}")).unwrap();
    let mut running = gateway.begin(&gateway.data().join("log"));
    let connected = timeout(PATIENCE, server.accept()).await.unwrap().unwrap();
    running.signal("-TERM");
    // Long before it gives the server up.
    let ended = timeout(Duration::from_secs(10), running.ended()).await.expect("it waits on");
    assert_eq!(ended.code(), Some(0));
    drop(connected);
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

#[tokio::test]
async fn a_database_that_takes_no_writes_ends_readiness() {
    let gateway = Gateway::init();
    let _running = gateway.run().await;
    let file = SqliteConnectOptions::new().filename(gateway.data().join("liaison.db"));
    let mut other = file.connect().await.unwrap();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = gateway.http("/readyz").await;
        if answer.starts_with("HTTP/1.1 503") {
            assert!(answer.ends_with("the database takes no writes\n"), "{answer}");
            break;
        }
        assert!(Instant::now() < deadline, "still ready: {answer}");
    }
    assert!(gateway.http("/livez").await.starts_with("HTTP/1.1 200"));
    held.rollback().await.unwrap();
    while !gateway.http("/readyz").await.starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "not ready again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_database_that_could_not_grow_goes_on_when_it_can() {
    let gateway = Gateway::init();
    let running = gateway.run().await;
    gateway.add_shelter();
    let add = ["agency", "add", "be/police", "--name", "X", "--country", "be", "--sector", "LawEnforcement"];
    for _ in 0..3 {
        running.limit_files("1");
        assert_eq!(gateway.cli(&add).status, 1);
        assert_eq!(gateway.json(&["agency", "list"])["agencies"].as_array().unwrap().len(), 1);
        let answer = gateway.http("/readyz").await;
        running.limit_files("unlimited");
        assert_eq!(gateway.cli(&["agency", "suspend", "be/shelter"]).status, 0, "{answer}");
        assert_eq!(gateway.cli(&["agency", "resume", "be/shelter"]).status, 0);
    }
    assert_eq!(gateway.cli(&add).status, 0);
}

#[tokio::test]
async fn a_log_that_takes_no_lines_stops_nothing() {
    let gateway = Gateway::init();
    // As on a full disk.
    let mut running = gateway.run_logging_to(Path::new("/dev/full")).await;
    gateway.add_shelter();
    running.signal("-TERM");
    assert_eq!(running.ended().await.code(), Some(0));
}

#[tokio::test]
async fn metrics_hold_counts_alone() {
    let gateway = Gateway::init();
    let _running = gateway.run().await;
    gateway.add_shelter();
    let metrics = gateway.http("/metrics").await;
    assert!(metrics.contains("\nliaison_gateway_agencies 1\n"), "{metrics}");
    assert!(metrics.contains("\nliaison_gateway_queued 0\n"));
    assert!(metrics.contains("\nliaison_gateway_certificate_seconds_left "));
    assert!(!metrics.contains("shelter"), "no agency is named");
}
