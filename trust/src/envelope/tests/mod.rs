//! The envelope against honest parties, dishonest ones, and noise.

mod attacks;
mod noise;
mod road;
mod rules;
mod shape;
mod vectors;

use std::collections::BTreeMap;

use liaison_proto::message::v1::{
    Envelope, Facts, Manifest, OnwardRequest, ReleaseRecord, ReleasedSection, SealedCopy,
    SignedReleaseRecord, alert_kind::Code as AlertKind, basis::Code as Basis,
    data_category::Code as Category, error_code::Code as ErrorCode, kem::Code as Kem, kind::Code as Kind,
    onward_step::Code as OnwardStep, purpose, referral_state::Code as State, status::Code as Status,
    urgency::Code as Urgency,
};
use liaison_proto::{message::v1::StateChange, times};
use prost::Message;
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::*;
use crate::{
    digest::Digest,
    key_record::{self, ProvenKey},
    keys::{KemKey, SigningKey},
    statement,
};

const NOW: OffsetDateTime = datetime!(2026-11-24 09:00:00 UTC);

/// An agency with its keys.
struct Agency {
    signing: SigningKey,
    kem: KemKey,
    key: ProvenKey,
}

impl Agency {
    fn new(address: &str, kem: Kem) -> Self {
        Self::from_keys(address, SigningKey::generate(), KemKey::generate(kem).unwrap())
    }

    fn from_keys(address: &str, signing: SigningKey, kem: KemKey) -> Self {
        let (from, to) = (NOW - Duration::days(10), NOW + Duration::days(20));
        let record = key_record::first(&address.parse().unwrap(), &signing, &kem, from, to);
        let key = key_record::prove(&record).unwrap();
        Self { signing, kem, key }
    }

    fn to(&self, bases: &[Category]) -> Recipient {
        let bases = bases.iter().map(|category| (*category, Basis::ConsentOfPerson)).collect();
        Recipient { key: self.key.clone(), bases }
    }

    fn seal(&self, draft: &Draft) -> Envelope {
        seal(draft, &self.signing, &self.key.signed).unwrap()
    }

    /// Signs a manifest that `change` was done to.
    fn resign(&self, envelope: &Envelope, change: impl FnOnce(&mut Manifest)) -> Envelope {
        let mut manifest = Manifest::decode(envelope.manifest.clone()).unwrap();
        change(&mut manifest);
        self.sign_bytes(envelope, manifest.encode_to_vec())
    }

    fn sign_bytes(&self, envelope: &Envelope, manifest: Vec<u8>) -> Envelope {
        let signature = self.signing.sign("manifest/v1", &manifest).to_vec();
        Envelope { manifest: manifest.into(), signature: signature.into(), ..envelope.clone() }
    }

    fn receive(
        &self,
        copy: &SealedCopy,
        sender: &Agency,
        gateway: &SigningKey,
    ) -> Result<Received, EnvelopeError> {
        let kem = |id: &Digest| (*id == self.key.id).then_some(&self.kem);
        receive(copy, &self.key.agency, kem, &sender.key, &gateway.public(), NOW)
    }
}

fn id() -> Uuid {
    Uuid::now_v7()
}

fn draft(sender: &Agency, kind: Kind, sections: &[Category], recipients: Vec<Recipient>) -> Draft {
    let state = StateChange { state: State::Accepted.into(), reason: 0, outcome: 0 };
    let facts = Facts { purpose: purpose::Code::VictimSupport.into(), ..Facts::default() };
    Draft {
        message_id: id(),
        thread: id(),
        sender: sender.key.agency.clone(),
        kind,
        alert_kind: if kind == Kind::Alert { AlertKind::MissingMinor } else { AlertKind::Unspecified },
        created: NOW,
        expires: NOW + Duration::days(7),
        urgency: Urgency::Immediate,
        handling: None,
        status: Status::Actual,
        state_change: (kind == Kind::State).then_some(state),
        onward: (kind == Kind::Onward).then(onward),
        facts: matches!(kind, Kind::Referral | Kind::Alert).then_some(facts),
        sections: sections.iter().map(|category| (*category, plaintext(*category))).collect(),
        recipients,
    }
}

/// May health and narrative go to be/clinic?
fn onward() -> OnwardRequest {
    OnwardRequest {
        request: id().as_bytes().to_vec().into(),
        step: OnwardStep::Asked.into(),
        to: "be/clinic".into(),
        purpose: purpose::Code::VictimSupport.into(),
        categories: vec![Category::Health.into(), Category::Narrative.into()],
    }
}

fn plaintext(category: Category) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(format!("what is known of {}", category.as_str_name()).into_bytes())
}

/// A gateway's copy of a message for one recipient, of the categories that it releases.
fn release(
    verified: &Verified,
    recipient: usize,
    categories: &[Category],
    gateway: &SigningKey,
) -> SealedCopy {
    let released: Vec<u32> = verified
        .sections
        .iter()
        .filter(|section| categories.contains(&section.category))
        .map(|section| section.section.position)
        .collect();
    let record = release_record(verified, recipient, &released, gateway);
    copy(
        verified.manifest_bytes.clone(),
        verified.signature.clone(),
        verified.sender_key_record.clone(),
        verified.recipients[recipient].proof.clone(),
        verified.sections.iter().map(|section| section.section.clone()),
        record,
        &released,
    )
}

fn release_record(
    verified: &Verified,
    recipient: usize,
    released: &[u32],
    gateway: &SigningKey,
) -> SignedReleaseRecord {
    let section =
        |position: &u32| ReleasedSection { position: *position, retention_days: 30, ..Default::default() };
    let record = ReleaseRecord {
        message_id: verified.id.as_bytes().to_vec().into(),
        manifest_digest: verified.digest.into(),
        recipient: verified.recipients[recipient].address.to_string(),
        policy_hash: Digest([1; 32]).into(),
        scheme_hash: Digest([2; 32]).into(),
        decided_at: Some(times::to_wire(NOW)),
        released: released.iter().map(section).collect(),
        withheld: vec![],
    };
    statement::sign(&record, gateway)
}

/// What a recipient reads.
fn opened(received: &Received) -> BTreeMap<Category, Vec<u8>> {
    let open = |section: &ReceivedSection| {
        let plaintext = open(&received.id, &received.sender, &section.section, &section.key).unwrap();
        (section.category, plaintext.to_vec())
    };
    received.sections.iter().map(open).collect()
}

fn code<T>(result: Result<T, EnvelopeError>) -> Option<ErrorCode> {
    result.err().map(|error| error.code())
}

/// Two categories of a referral between two agencies, and the gateway's key.
struct Scene {
    sender: Agency,
    recipient: Agency,
    gateway: SigningKey,
    draft: Draft,
}

const SCENE: [Category; 2] = [Category::ServiceRequest, Category::Health];

impl Scene {
    fn new(kem: Kem) -> Self {
        let sender = Agency::new("be/police-antwerp", kem);
        let recipient = Agency::new("be/shelter-antwerp", kem);
        let draft = draft(&sender, Kind::Referral, &SCENE, vec![recipient.to(&SCENE)]);
        Self { sender, recipient, gateway: SigningKey::generate(), draft }
    }

    fn envelope(&self) -> Envelope {
        self.sender.seal(&self.draft)
    }

    fn copy(&self) -> SealedCopy {
        release(&verify(self.envelope(), NOW).unwrap(), 0, &SCENE, &self.gateway)
    }

    fn receive(&self, copy: &SealedCopy) -> Result<Received, EnvelopeError> {
        self.recipient.receive(copy, &self.sender, &self.gateway)
    }
}
