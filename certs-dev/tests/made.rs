//! What the program makes, presented to a gateway: every good certificate is known, every bad kind is
//! refused with an error of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use liaison_trust::{
    certificate::certificates_from_pem,
    names::SpiffeId,
    tls::{Acceptor, Connector, DomainTrust, Fault, Identity, Peer, TlsError, admitted},
};
use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject as _};
use tokio::io::{AsyncWriteExt as _, duplex};

const KINDS: [&str; 6] =
    ["expired", "not-yet-valid", "wrong-name", "revoked", "foreign-ca", "wrong-key-usage"];

fn run(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_liaison-certs-dev")).arg(folder).args(more).output().unwrap()
}

fn make(folder: &Path, bad: &[&str]) -> Output {
    let mut arguments = vec!["--domain", "be", "--agency", "shelter-antwerp", "--agency", "police-brussels"];
    arguments.extend(bad.iter().flat_map(|kind| ["--bad", kind]));
    run(folder, &arguments)
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

fn identity(folder: &Path, stem: &str) -> Identity {
    let [chain, key] = ["pem", "key"].map(|kind| read(folder, &format!("{stem}.{kind}")));
    Identity::from_pem(&chain, &key).unwrap()
}

fn trust(folder: &Path) -> DomainTrust {
    DomainTrust {
        domain: "be".parse().unwrap(),
        roots: certificates_from_pem(&read(folder, "ca.pem")).unwrap(),
        crls: vec![CertificateRevocationListDer::from_pem_slice(read(folder, "crl.pem").as_bytes()).unwrap()],
    }
}

/// What the gateway makes of this client, and what the client hears.
async fn call(folder: &Path, client: &str) -> (Result<Peer, TlsError>, Option<TlsError>) {
    let acceptor = Acceptor::new(identity(folder, "gateway"), vec![trust(folder)]).unwrap();
    let connector = Connector::new(trust(folder), Some(identity(folder, client))).unwrap();
    let (near, far) = duplex(64 << 10);
    let expected: SpiffeId = "spiffe://be/gateway".parse().unwrap();
    let server = async {
        let (mut stream, peer) = acceptor.accept(far).await?;
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        Ok(peer)
    };
    let client = async { admitted(connector.connect(near, &expected).await?).await };
    let (server, client) = tokio::join!(server, client);
    (server, client.err())
}

#[tokio::test]
async fn good_certificates_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let output = make(folder.path(), &[]);
    assert!(output.status.success(), "{output:?}");
    for name in ["shelter-antwerp", "police-brussels"] {
        let (peer, heard) = call(folder.path(), &format!("agencies/{name}")).await;
        let Ok(Peer::Known { id, .. }) = peer else { panic!("{peer:?}") };
        assert_eq!((id.to_string(), heard), (format!("spiffe://be/agency/{name}"), None));
    }
    assert!(!folder.path().join("bad").exists());
    let table = String::from_utf8(output.stdout).unwrap();
    for file in ["ca.pem", "ca.key", "crl.pem", "gateway.pem", "agencies/police-brussels.key"] {
        assert!(table.contains(folder.path().join(file).to_str().unwrap()), "{table}");
    }
    for key in ["ca.key", "gateway.key", "agencies/shelter-antwerp.key"] {
        let mode = fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[tokio::test]
async fn every_bad_kind_has_its_own_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let output = make(folder.path(), &KINDS);
    assert!(output.status.success(), "{output:?}");
    let mut seen = Vec::new();
    for kind in KINDS {
        let (peer, heard) = call(folder.path(), &format!("bad/{kind}")).await;
        let (expected, hears) = match kind {
            "expired" => (Err(Fault::Expired), Some(Fault::Expired)),
            "not-yet-valid" => (Err(Fault::NotYetValid), Some(Fault::Expired)),
            "wrong-name" => (Ok(Peer::Misnamed), None),
            "revoked" => (Err(Fault::Revoked), Some(Fault::Revoked)),
            "foreign-ca" => (Err(Fault::UnknownCa), Some(Fault::UnknownCa)),
            "wrong-key-usage" => (Err(Fault::WrongUsage), Some(Fault::WrongUsage)),
            other => panic!("{other}"),
        };
        assert_eq!(peer, expected.map_err(TlsError::Theirs), "{kind}");
        assert_eq!(heard, hears.map(TlsError::Ours), "{kind}");
        assert!(!seen.contains(&peer), "{kind} is refused as another kind is");
        seen.push(peer);
    }
    assert!(matches!(call(folder.path(), "agencies/shelter-antwerp").await.0, Ok(Peer::Known { .. })));
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    assert!(make(folder.path(), &[]).status.success());
    let before = read(folder.path(), "ca.pem");
    let again = make(folder.path(), &["expired"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("not empty"));
    assert_eq!(read(folder.path(), "ca.pem"), before);
}

#[test]
fn wrong_use_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let wrong: [&[&str]; 4] = [
        &["--domain", "be"],
        &["--domain", "Be", "--agency", "a"],
        &["--domain", "be", "--agency", "A!"],
        &["--domain", "be", "--agency", "a", "--bad", "worst"],
    ];
    for arguments in wrong {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    let output = run(folder.path(), &["--domain", "be", "--agency", "a", "--gateway-name", "no host"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("no host"));
    assert!(make(folder.path(), &[]).status.success(), "failures left nothing behind");
}
