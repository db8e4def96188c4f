use std::{fs, os::unix::fs::PermissionsExt};

use tokio::net::TcpListener;

use super::*;
use crate::{
    config::Config,
    testing::{Domain, add, referral},
};

fn verdict(findings: &[Finding], check: &str) -> Option<Verdict> {
    findings.iter().filter(|finding| finding.check == check).map(|finding| finding.verdict).max()
}

#[tokio::test]
async fn a_stopped_agent_without_its_gateway() {
    let (_dir, agent) = Domain::new().agent("shelter").await;
    add(&agent.store, referral(&"be/clinic".parse().unwrap())).await;
    agent.store.close().await;
    fs::set_permissions(agent.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let findings = examine(&agent.folder).await;
    for check in ["data folder", "configuration", "keys", "certificate", "database", "disk", "name"] {
        assert_eq!(verdict(&findings, check), Some(Verdict::Ok), "{check}: {findings:?}");
    }
    assert_eq!(verdict(&findings, "case API"), Some(Verdict::Warn), "{findings:?}");
    assert_eq!(verdict(&findings, "outbox"), Some(Verdict::Warn), "{findings:?}");
    assert_eq!(verdict(&findings, "network"), Some(Verdict::Fail), "{findings:?}");
    for finding in &findings {
        assert_eq!(finding.verdict == Verdict::Ok, finding.action.is_empty(), "{finding:?}");
    }
}

#[tokio::test]
async fn what_is_broken_is_named() {
    let (_dir, agent) = Domain::new().agent("shelter").await;
    agent.store.close().await;
    let folder = &agent.folder;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config {
        rest: taken.local_addr().unwrap(),
        gateway: silent.local_addr().unwrap().to_string().parse().unwrap(),
        ..agent.config.clone()
    };
    fs::write(folder.config(), toml::to_string(&config).unwrap()).unwrap();
    fs::write(folder.keys().join("signing.seed"), [7; 32]).unwrap();
    fs::write(folder.certificate(), "no certificate").unwrap();
    let mut database = fs::read(folder.database()).unwrap();
    let middle = database.len() / 2;
    database[middle..].fill(0x5a);
    fs::write(folder.database(), &database).unwrap();

    let findings = examine(folder).await;
    for check in ["case API", "keys", "certificate", "database"] {
        assert_eq!(verdict(&findings, check), Some(Verdict::Fail), "{check}: {findings:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_answers_with_something_else_is_noticed() {
    let (_dir, agent) = Domain::new().agent("shelter").await;
    agent.store.close().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = other.local_addr().unwrap();
    let served = tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let config = Config { gateway: at.to_string().parse().unwrap(), ..agent.config.clone() };
    fs::write(agent.folder.config(), toml::to_string(&config).unwrap()).unwrap();
    let findings = examine(&agent.folder).await;
    assert_eq!(verdict(&findings, "network"), Some(Verdict::Ok), "{findings:?}");
    assert_eq!(verdict(&findings, "TLS"), Some(Verdict::Fail), "{findings:?}");
    served.abort();
}

#[tokio::test]
async fn a_folder_without_an_agent() {
    let folder = tempfile::tempdir().unwrap();
    let findings = examine(&Folder::new(folder.path())).await;
    assert_eq!(verdict(&findings, "configuration"), Some(Verdict::Fail));
    let findings = examine(&Folder::new("/nowhere at all")).await;
    assert_eq!(verdict(&findings, "data folder"), Some(Verdict::Fail));
}
