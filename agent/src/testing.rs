//! Agents of one domain for tests, without a gateway: what a gateway does to a message is done by hand.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::{Delivery, DomainBundle, delivery},
    message::v1::{
        Acceptance, Envelope, Facts, ReleaseRecord, ReleasedSection, SealedCopy,
        alert_kind::Code as AlertKind, basis::Code as Basis, data_category::Code as Category,
        kind::Code as Kind, purpose::Code as Purpose, status::Code as Status, urgency::Code as Urgency,
    },
    times,
};
use liaison_trust::{
    ca::{Authority, TlsKey, certificate_request},
    digest::Digest,
    envelope,
    keys::{SigningKey, VerifyingKey},
    names::{AgencyAddress, SpiffeId},
    statement,
};
use prost::Message as _;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    agent::Agent,
    certificate::store_issued,
    config::Config,
    custody::Custody,
    folder::{self, Folder},
    inbox::{self, Answer},
    outbox::NewMessage,
    store::{Store, Waiting},
};

/// A word that must be found nowhere but where it belongs.
pub(crate) const CANARY: &[u8] = b"canary-7f3d9a";

/// A domain without a gateway.
pub(crate) struct Domain {
    name: &'static str,
    authority: Authority,
    pub(crate) gateway: SigningKey,
    pub(crate) log: SigningKey,
}

impl Domain {
    pub(crate) fn new() -> Self {
        Self::named("be")
    }

    pub(crate) fn named(name: &'static str) -> Self {
        let authority = Authority::create(&name.parse().unwrap()).unwrap();
        Self { name, authority, gateway: SigningKey::generate(), log: SigningKey::generate() }
    }

    /// An agent of this domain; its gateway can't be reached.
    pub(crate) async fn agent(&self, name: &str) -> (TempDir, Agent) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let agency: AgencyAddress = format!("{}/{name}", self.name).parse().unwrap();
        let config = Config {
            agency: agency.clone(),
            gateway: "127.0.0.1:1".parse().unwrap(),
            grpc: "127.0.0.1:0".parse().unwrap(),
            rest: "127.0.0.1:0".parse().unwrap(),
            proxy: None,
        };
        Custody::create(&folder, &agency, OffsetDateTime::now_utc()).unwrap();
        folder::write_private(&folder.api_token(), b"token").unwrap();
        self.issue(&folder, &config, self.log.public());
        folder::write_private(&folder.config(), toml::to_string(&config).unwrap().as_bytes()).unwrap();
        (dir, Agent::open(folder).await.unwrap())
    }

    /// What an agent of this domain is given with a new certificate, this key of the log among it.
    pub(crate) fn issue(&self, folder: &Folder, config: &Config, log: VerifyingKey) {
        let (now, key) = (OffsetDateTime::now_utc(), TlsKey::generate().unwrap());
        let request = certificate_request(&key).unwrap();
        let id = SpiffeId::Agency(config.agency.clone());
        let certificate = self.authority.sign_request(&request, &id, now, now + Duration::DAY).unwrap();
        let bundle = DomainBundle {
            domain: self.name.into(),
            roots: vec![self.authority.certificate_der().to_vec().into()],
            gateway_signing_key: self.gateway.public().as_bytes().to_vec().into(),
            log_key: log.as_bytes().to_vec().into(),
        };
        folder::write_private(&folder.tls_key(), key.to_pem().as_bytes()).unwrap();
        store_issued(folder, config, &key, &[certificate.to_vec().into()], Some(&bundle)).unwrap();
    }

    /// The copy that a gateway hands over, with every section released.
    pub(crate) fn copy(&self, envelope: Envelope) -> SealedCopy {
        self.copy_to_share(envelope, &[])
    }

    /// The same, with categories that may be shared onward.
    pub(crate) fn copy_to_share(&self, envelope: Envelope, onward: &[Category]) -> SealedCopy {
        let now = OffsetDateTime::now_utc();
        let verified = envelope::verify(envelope, now).unwrap();
        let recipient = verified.recipients.into_iter().next().unwrap();
        let released: Vec<u32> = verified.sections.iter().map(|section| section.section.position).collect();
        let onward: Vec<u32> = verified
            .sections
            .iter()
            .filter(|section| onward.contains(&section.category))
            .map(|section| section.section.position)
            .collect();
        let waived = |position: &u32| ReleasedSection {
            position: *position,
            retention_days: 30,
            onward_share: onward.contains(position),
            use_as_evidence: false,
        };
        let release = ReleaseRecord {
            message_id: verified.id.as_bytes().to_vec().into(),
            manifest_digest: verified.digest.into(),
            recipient: recipient.address.to_string(),
            policy_hash: Digest([1; 32]).into(),
            scheme_hash: Digest([2; 32]).into(),
            decided_at: Some(times::to_wire(now)),
            released: released.iter().map(waived).collect(),
            withheld: Vec::new(),
        };
        envelope::copy(
            verified.manifest_bytes,
            verified.signature,
            verified.sender_key_record,
            recipient.proof,
            verified.sections.into_iter().map(|section| section.section),
            statement::sign(&release, &self.gateway),
            &released,
        )
    }
}

/// Lets `agent` know the keys of `other`, as its directory would.
pub(crate) async fn introduce(agent: &Agent, other: &Agent) {
    agent.store.add_keys(other.custody.ring().chain()).await.unwrap();
}

/// A referral with a health section that holds the canary.
pub(crate) fn referral(to: &AgencyAddress) -> NewMessage {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_millisecond(now.millisecond()).unwrap();
    NewMessage {
        id: Uuid::now_v7(),
        thread: Uuid::now_v7(),
        kind: Kind::Referral,
        alert_kind: AlertKind::Unspecified,
        created: now,
        expires: now + Duration::DAY,
        urgency: Urgency::Immediate,
        handling: None,
        status: Status::Actual,
        state_change: None,
        onward: None,
        onward_of: None,
        facts: Some(Facts { purpose: Purpose::HealthCare.into(), ..Facts::default() }),
        sections: BTreeMap::from([(Category::Health, Zeroizing::new(CANARY.to_vec()))]),
        recipients: vec![(to.clone(), BTreeMap::from([(Category::Health, Basis::ConsentOfPerson)]))],
        sealed: None,
    }
}

/// Seals what waits in the sender's outbox to `to`, as the outbox does with the keys of its directory.
pub(crate) async fn seal(from: &Agent, to: &Agent, id: Uuid) -> Envelope {
    let Some(Waiting::Draft(message)) = from.store.waiting(id).await.unwrap() else { panic!("no draft") };
    let key = to.custody.ring().current().clone();
    let recipients =
        message.recipients.iter().map(|(_, bases)| (key.clone(), bases.clone())).collect::<Vec<_>>();
    let draft = envelope::Draft {
        message_id: id,
        thread: message.thread,
        sender: from.address.clone(),
        kind: message.kind,
        alert_kind: message.alert_kind,
        created: message.created,
        expires: message.expires,
        urgency: message.urgency,
        handling: message.handling,
        status: message.status,
        state_change: message.state_change,
        onward: message.onward,
        facts: message.facts,
        sections: message.sections,
        recipients: recipients.into_iter().map(|(key, bases)| envelope::Recipient { key, bases }).collect(),
    };
    let signed = from.custody.ring().current().signed.clone();
    let envelope = envelope::seal(&draft, from.custody.signing(), &signed).unwrap();
    let digest = liaison_trust::digest::sha256(&envelope.manifest);
    let bytes = Bytes::from(envelope.encode_to_vec());
    assert!(from.store.sealed(id, &bytes, digest, &[]).await.unwrap());
    envelope
}

/// Hands over all that waits in `from`'s outbox to `to`, as the gateway of both, and gives the answers.
pub(crate) async fn convey(domain: &Domain, from: &Agent, to: &Agent, onward: &[Category]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let [id, ..] = from.store.due(OffsetDateTime::now_utc(), &HashSet::new(), 1).await.unwrap()[..] {
        let copy = domain.copy_to_share(seal(from, to, id).await, onward);
        let delivery = Delivery { content: Some(delivery::Content::Copy(copy)) };
        answers.push(inbox::take(to, delivery).await.unwrap());
        accepted(domain, from, id).await;
    }
    answers
}

/// The gateway takes a message out of an outbox.
pub(crate) async fn accepted(domain: &Domain, from: &Agent, id: Uuid) {
    let acceptance = Acceptance {
        message_id: id.as_bytes().to_vec().into(),
        policy_hash: Digest([1; 32]).into(),
        ..Acceptance::default()
    };
    let signed = statement::sign(&acceptance, &domain.gateway);
    from.store.accepted(id, &acceptance, &signed).await.unwrap();
}

/// Whether a word stands anywhere in the files of a store, its write-ahead log included.
pub(crate) fn on_disk(dir: &TempDir, word: &[u8]) -> bool {
    std::fs::read_dir(dir.path()).unwrap().any(|entry| {
        let entry = entry.unwrap();
        entry.file_name().to_string_lossy().starts_with("agent.db")
            && std::fs::read(entry.path()).unwrap().windows(word.len()).any(|window| window == word)
    })
}

/// The store, closed and opened again as after a crash.
pub(crate) async fn reopened(agent: Agent) -> Agent {
    let folder = agent.folder.clone();
    agent.store.close().await;
    Agent::open(folder).await.unwrap()
}

/// Adds one message on behalf of nobody in particular.
pub(crate) async fn add(store: &Store, message: NewMessage) -> Uuid {
    let (_, ids) = store.add(vec![message], None, "tester", &[], Vec::new()).await.unwrap();
    ids[0]
}
