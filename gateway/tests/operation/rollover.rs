//! The change of a domain's CA: nobody is shut out who follows it, nobody stays in who doesn't.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use liaison_gateway::{admin::connect, data::DataFolder};
use liaison_proto::{
    admin::v1::{AuthorityRequest, authority_step::Code as Step},
    exchange::v1::{
        EnrollResponse, ListAgenciesRequest, RenewRequest, enrolment_service_client::EnrolmentServiceClient,
        exchange_service_client::ExchangeServiceClient,
    },
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{
    ca::{TlsKey, certificate_request},
    digest::sha256,
    tls::Connector,
};
use serde_json::{Value, json};

use crate::gateway::{Gateway, PATIENCE, Running, as_agency};

/// An enrolled agency as its agent knows it.
struct Member {
    enrolled: EnrollResponse,
    key: TlsKey,
}

impl Member {
    async fn enrol(gateway: &Gateway, running: &Running<'_>, address: &str) -> Self {
        let (enrolled, key) = running.enrol(&gateway.token(address)).await;
        Self { enrolled, key }
    }

    /// Connects with what it has, and asks for something.
    async fn calls(&self, running: &Running<'_>) -> bool {
        let Ok(channel) = running.channel(as_agency(&self.enrolled, &self.key)).await else { return false };
        ExchangeServiceClient::new(channel).list_agencies(ListAgenciesRequest::default()).await.is_ok()
    }

    /// Connects with what it has, and gets a new certificate and what is to be believed now.
    async fn renew(&mut self, running: &Running<'_>) {
        let channel = running.channel(as_agency(&self.enrolled, &self.key)).await.unwrap();
        self.renew_over(channel, Vec::new()).await.unwrap();
    }

    /// The same with the certificate in the request, as after its end.
    async fn renew_expired(&mut self, running: &Running<'_>, root: &[u8]) -> Result<(), tonic::Status> {
        let channel = running.channel(Connector::pinned(sha256(root))).await.unwrap();
        let certificate = self.enrolled.certificates[0].to_vec();
        self.renew_over(channel, certificate).await
    }

    async fn renew_over(
        &mut self,
        channel: tonic::transport::Channel,
        expired: Vec<u8>,
    ) -> Result<(), tonic::Status> {
        let request = RenewRequest {
            certificate_request: certificate_request(&self.key).unwrap().to_vec().into(),
            expired_certificate: expired.into(),
        };
        let renewed = EnrolmentServiceClient::new(channel).renew(request).await?.into_inner();
        self.enrolled.certificates = renewed.certificates;
        self.enrolled.bundle = renewed.bundle;
        Ok(())
    }

    fn roots(&self) -> Vec<String> {
        let roots = &self.enrolled.bundle.as_ref().unwrap().roots;
        roots.iter().map(|root| sha256(root).to_string()).collect()
    }

    /// The root that its certificate leads to.
    fn root(&self) -> String {
        sha256(&self.enrolled.certificates[1]).to_string()
    }
}

/// What a refused command told.
fn refusal(gateway: &Gateway, arguments: &[&str]) -> (Value, String) {
    let done = gateway.cli(&[arguments, &["--json"]].concat());
    assert_eq!(done.status, 1, "{done:?}");
    let told: Value = serde_json::from_str(&done.stderr).unwrap();
    (told["error"]["code"].clone(), told["error"]["message"].as_str().unwrap().to_owned())
}

fn names(status: &Value) -> (String, Value, Value, Value) {
    let issuing = status["issuing"].as_str().unwrap().to_owned();
    (issuing, status["other"].clone(), status["next"].clone(), status["behind"].clone())
}

fn audited(gateway: &Gateway) -> bool {
    let database = fs::read(gateway.data().join("liaison.db")).unwrap();
    let log = fs::read(gateway.data().join("liaison.db-wal")).unwrap_or_default();
    ["prepare_ca", "switch_ca", "retire_ca"].iter().all(|act| {
        [&database, &log].iter().any(|file| file.windows(act.len()).any(|bytes| bytes == act.as_bytes()))
    })
}

#[tokio::test]
async fn a_member_follows_a_change_through_every_step_and_restart() {
    let gateway = Gateway::init();
    let mut running = gateway.run().await;
    gateway.add_shelter();
    let mut shelter = Member::enrol(&gateway, &running, "be/shelter").await;
    let (first, other, next, behind) = names(&gateway.json(&["ca", "show"]));
    assert_eq!((other, next, behind), (Value::Null, json!("prepare"), json!([])));
    assert_eq!(refusal(&gateway, &["ca", "switch"]).0, "transition_not_allowed");
    assert_eq!(refusal(&gateway, &["ca", "retire", "--force"]).0, "transition_not_allowed");

    let prepared = gateway.json(&["ca", "prepare"]);
    let second = prepared["other"].as_str().unwrap().to_owned();
    assert_eq!(names(&prepared), (first.clone(), json!(second), json!("switch"), json!(["be/shelter"])));
    assert_eq!(refusal(&gateway, &["ca", "prepare"]).0, "transition_not_allowed");
    let (code, message) = refusal(&gateway, &["ca", "switch"]);
    assert_eq!(code, "transition_not_allowed");
    assert!(message.ends_with("be/shelter"), "{message}");

    running.signal("-TERM");
    running.ended().await;
    let mut running = gateway.run().await;
    assert!(shelter.calls(&running).await, "what it knows from before is still right");
    shelter.renew(&running).await;
    assert_eq!((shelter.root(), shelter.roots()), (first.clone(), vec![first.clone(), second.clone()]));
    assert_eq!(gateway.json(&["ca", "show"])["behind"], json!([]));

    let switched = names(&gateway.json(&["ca", "switch"]));
    assert_eq!(switched, (second.clone(), json!(first), json!("retire"), json!(["be/shelter"])));
    assert!(
        shelter.calls(&running).await,
        "the gateway's new certificate and its own former one are believed"
    );
    let (code, message) = refusal(&gateway, &["ca", "retire"]);
    assert_eq!(code, "transition_not_allowed");
    assert!(message.ends_with("be/shelter"), "{message}");
    running.signal("-TERM");
    running.ended().await;
    let mut running = gateway.run().await;
    shelter.renew(&running).await;
    assert_eq!((shelter.root(), shelter.roots()), (second.clone(), vec![second.clone(), first]));
    // Whoever enrols now knows the gateway by its new root.
    gateway.add("be/clinic", "NGO");
    let clinic = Member::enrol(&gateway, &running, "be/clinic").await;
    assert_eq!(clinic.root(), second);

    let retired = names(&gateway.json(&["ca", "retire"]));
    assert_eq!(retired, (second.clone(), Value::Null, json!("prepare"), json!([])));
    assert!(shelter.calls(&running).await && clinic.calls(&running).await);
    running.signal("-TERM");
    running.ended().await;
    let running = gateway.run().await;
    shelter.renew(&running).await;
    assert_eq!((shelter.root(), shelter.roots()), (second.clone(), vec![second]));
    assert!(audited(&gateway));
}

#[tokio::test]
async fn whoever_did_not_follow_is_shut_out_by_force_alone() {
    let gateway = Gateway::init();
    let running = gateway.run().await;
    gateway.add_shelter();
    gateway.add("be/gone", "NGO");
    gateway.add("be/sleeper", "NGO");
    let mut shelter = Member::enrol(&gateway, &running, "be/shelter").await;
    let mut sleeper = Member::enrol(&gateway, &running, "be/sleeper").await;
    let gone = Member::enrol(&gateway, &running, "be/gone").await;
    assert_eq!(gateway.cli(&["agency", "revoke", "be/gone"]).status, 0);
    let first_root = shelter.enrolled.certificates[1].to_vec();
    let token = gateway.token("be/shelter");
    gateway.json(&["ca", "prepare"]);
    shelter.renew(&running).await;
    assert_eq!(gateway.json(&["ca", "show"])["behind"], json!(["be/sleeper"]), "a former member is none");
    let keys = ["ca.key", "ca-next.key"];
    for key in keys {
        let mode = fs::metadata(gateway.data().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_eq!(gateway.cli(&["ca", "switch"]).status, 1);
    let switched = gateway.cli(&["ca", "switch", "--force"]);
    assert_eq!(switched.status, 0, "{switched:?}");
    assert!(switched.stdout.contains("make them again"), "{}", switched.stdout);
    assert!(!sleeper.calls(&running).await, "it does not know the gateway's new root");
    assert!(!gone.calls(&running).await, "each CA's certificates are checked against a list");
    let pinned = token.parse::<liaison_gateway::enrolment::Token>().unwrap().ca;
    assert!(running.channel(Connector::pinned(pinned)).await.is_err(), "the token is of the former CA");
    // Its certificate is still one that this domain issued.
    let second_root = shelter.enrolled.bundle.as_ref().unwrap().roots[1].to_vec();
    sleeper.renew_expired(&running, &second_root).await.unwrap();
    assert!(sleeper.calls(&running).await);

    // The shelter keeps its certificate of the former CA until that is retired.
    let before = Member { enrolled: shelter.enrolled.clone(), key: shelter.key.clone() };
    let live = running.channel(as_agency(&shelter.enrolled, &shelter.key)).await.unwrap();
    let mut live = ExchangeServiceClient::new(live);
    live.list_agencies(ListAgenciesRequest::default()).await.unwrap();
    assert_eq!(gateway.json(&["ca", "retire", "--force"])["behind"], json!([]));
    assert!(live.list_agencies(ListAgenciesRequest::default()).await.is_err(), "its connection is cut");
    assert!(!before.calls(&running).await);
    let refused = shelter.renew_expired(&running, &second_root).await.unwrap_err();
    assert_eq!(Refusal::from(&refused).code(), ErrorCode::WrongName);
    assert!(running.channel(Connector::pinned(sha256(&first_root))).await.is_err());
    assert!(sleeper.calls(&running).await);
    let data = DataFolder::new(gateway.data());
    assert!(!data.former_ca_key().exists() && !data.former_ca_certificate().exists());

    let anew = Member::enrol(&gateway, &running, "be/shelter").await;
    assert!(anew.calls(&running).await);
}

#[tokio::test]
async fn no_step_is_taken_before_peers_know_of_the_last() {
    let (gateway, other) = (Gateway::init(), Gateway::init_as("hu"));
    let (_running, other_runs) = (gateway.run().await, other.run().await);
    gateway.accept(&other);
    other.accept(&gateway);
    wait(|| gateway.json(&["peer", "show", "hu"])["linked"] == json!(true)).await;
    other_runs.signal("-STOP");
    let admin = connect(&DataFolder::new(gateway.data())).await.unwrap();
    let step = async |step: Step| {
        let request = AuthorityRequest { step: step.into(), force: false };
        admin.clone().authority(request).await.map(tonic::Response::into_inner)
    };
    // At once, so that the second is under way before the first has changed anything.
    let (prepared, switched) = tokio::join!(step(Step::Prepare), step(Step::Switch));
    assert_eq!(prepared.unwrap().behind, ["hu"]);
    assert_eq!(Refusal::from(&switched.unwrap_err()).code(), ErrorCode::TransitionNotAllowed);
    let (_, message) = refusal(&gateway, &["ca", "switch"]);
    assert!(message.ends_with("hu"), "{message}");
    other_runs.signal("-CONT");
    wait(|| gateway.cli(&["ca", "switch"]).status == 0).await;
}

/// Waits until something is so.
async fn wait(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not become so");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_crash_in_the_midst_of_a_switch_is_gone_on_from() {
    let gateway = Gateway::init();
    let mut running = gateway.run().await;
    gateway.add_shelter();
    let mut shelter = Member::enrol(&gateway, &running, "be/shelter").await;
    let second = gateway.json(&["ca", "prepare"])["other"].as_str().unwrap().to_owned();
    shelter.renew(&running).await;
    running.signal("-KILL");
    running.ended().await;
    let data = DataFolder::new(gateway.data());
    fs::rename(data.ca_key(), data.former_ca_key()).unwrap();
    fs::rename(data.ca_certificate(), data.former_ca_certificate()).unwrap();
    let doctor: Value = serde_json::from_str(&gateway.cli(&["doctor", "--json"]).stdout).unwrap();
    let ca = doctor["checks"].as_array().unwrap().iter().find(|check| check["check"] == "CA").unwrap();
    assert_eq!((&doctor["ok"], &ca["verdict"]), (&json!(true), &json!("warn")), "{doctor}");

    let running = gateway.run().await;
    let (issuing, _, next, behind) = names(&gateway.json(&["ca", "show"]));
    assert_eq!((issuing, next, behind), (second.clone(), json!("retire"), json!(["be/shelter"])));
    assert!(shelter.calls(&running).await);
    shelter.renew(&running).await;
    assert_eq!(shelter.root(), second);
    let doctor: Value = serde_json::from_str(&gateway.cli(&["doctor", "--json"]).stdout).unwrap();
    let change = doctor["checks"].as_array().unwrap().iter().find(|check| check["check"] == "CA change");
    assert_eq!(change.unwrap()["verdict"], "ok");
    assert_eq!(gateway.cli(&["ca", "retire"]).status, 0);
}
