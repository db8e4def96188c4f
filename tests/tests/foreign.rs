//! Programs that share no code with this project send a referral and read it at the other end. They
//! need what `tests/run` installs; it names its Python in `LIAISON_PYTHON`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use liaison_demo::process;
use liaison_tests::{
    Realm,
    names::{HOSPITAL, SHELTER},
    policies,
    python::python,
};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[tokio::test]
async fn a_python_program_on_grpc() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    let script = project("tests/foreign/case_client.py");
    let told = python(&[
        &script.to_string_lossy(),
        "--proto",
        &project("proto").to_string_lossy(),
        "--sender",
        &hospital.grpc().to_string(),
        "--sender-token",
        &hospital.api_token()?,
        "--recipient",
        &shelter.grpc().to_string(),
        "--recipient-token",
        &shelter.api_token()?,
        "--to",
        SHELTER,
    ])
    .await?;
    assert!(told.contains("read at the other end"), "{told}");
    Ok(())
}

#[tokio::test]
async fn curl_on_rest() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    let script = project("tests/foreign/case_curl.sh");
    let (sender, recipient) = (hospital.rest().to_string(), shelter.rest().to_string());
    let (sender_token, recipient_token) = (hospital.api_token()?, shelter.api_token()?);
    let arguments =
        [&*script.to_string_lossy(), &sender, &sender_token, &recipient, &recipient_token, SHELTER];
    let told = process::text(Path::new("bash"), arguments).await?;
    assert!(told.contains("read at the other end"), "{told}");
    Ok(())
}

#[tokio::test]
async fn the_openapi_document_is_valid() -> Result<()> {
    let document = project("agent/openapi.json");
    python(&["-m", "openapi_spec_validator", &document.to_string_lossy()]).await.map(drop)
}

/// The committed envelopes open in an implementation that shares no line with ours, and one that was
/// tampered with does not.
#[tokio::test]
async fn another_implementation_opens_our_envelopes() -> Result<()> {
    let script = project("tests/foreign/open_envelope.py").to_string_lossy().into_owned();
    let mut vectors = Vec::new();
    for entry in std::fs::read_dir(project("trust/tests/vectors"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "json") {
            vectors.push(path.to_string_lossy().into_owned());
        }
    }
    anyhow::ensure!(!vectors.is_empty(), "there are no vectors");
    let vectors: Vec<&str> = vectors.iter().map(String::as_str).collect();
    python(&[&[script.as_str()], vectors.as_slice()].concat()).await?;
    python(&[&[script.as_str(), "--tamper"], vectors.as_slice()].concat()).await.map(drop)
}
