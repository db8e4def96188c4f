//! An agency of a domain that is a test's own, and what that domain's gateway forwards for it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use liaison_proto::{
    exchange::v1::Agency,
    federation::v1::{Forward, ForwardedRecipient},
    message::v1::{
        Envelope, Facts, Health, RecipientBases, ReferralContent, ReleaseRecord, ReleasedSection,
        ServiceRequest, SignedKeyRecord, StateChange, alert_kind::Code as AlertKind, basis::Code as Basis,
        data_category::Code as Category, kem::Code as Kem, kind::Code as Kind, purpose::Code as Purpose,
        referral_state::Code as State, sector::Code as Sector, service_type, status::Code as Status,
        urgency::Code as Urgency,
    },
    times,
};
use liaison_trust::{
    digest::Digest,
    envelope::{self, Draft, Recipient, Verified, VerifiedRecipient},
    key_record::{self, ProvenKey},
    keys::{KemKey, SigningKey},
    names::AgencyAddress,
    statement,
};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The categories of what it sends.
pub const CATEGORIES: [Category; 2] = [Category::ServiceRequest, Category::Health];

/// An agency with its keys, in memory.
pub struct Outsider {
    pub address: AgencyAddress,
    pub signing: SigningKey,
    pub kem: KemKey,
    pub record: SignedKeyRecord,
}

impl Outsider {
    /// With new keys.
    pub fn new(address: &str) -> Result<Self> {
        let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::X25519)?);
        Self::with(address, signing, kem, OffsetDateTime::now_utc())
    }

    /// With these keys, whose record is valid around `now`.
    pub fn with(address: &str, signing: SigningKey, kem: KemKey, now: OffsetDateTime) -> Result<Self> {
        let address: AgencyAddress = address.parse()?;
        let record = key_record::first(&address, &signing, &kem, now - 10 * DAY, now + 20 * DAY);
        Ok(Self { address, signing, kem, record })
    }

    /// The same agency with its next key; `before` are its key records so far.
    pub fn next(&self, before: &[SignedKeyRecord]) -> Result<(Self, Vec<SignedKeyRecord>)> {
        let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::X25519)?);
        let now = OffsetDateTime::now_utc();
        let record =
            key_record::next(&self.record, &self.signing, &signing, &kem, now - DAY, now + 20 * DAY)?;
        let records = before.iter().chain([&record]).cloned().collect();
        Ok((Self { address: self.address.clone(), signing, kem, record }, records))
    }

    /// As its gateway describes it, with its keys.
    pub fn described(&self, country: &str) -> Agency {
        Agency {
            address: self.address.to_string(),
            name: "An agency of a test".to_owned(),
            country: country.to_owned(),
            sectors: vec![Sector::Ngo.into()],
            keys: vec![self.record.clone()],
            ..Agency::default()
        }
    }

    /// The current key, proven.
    pub fn key(&self) -> Result<ProvenKey> {
        Ok(key_record::prove(&self.record)?)
    }

    /// A message of [`CATEGORIES`] to all of these, each with a basis for everything.
    pub fn draft(&self, kind: Kind, to: &[ProvenKey], now: OffsetDateTime) -> Draft {
        let request = ReferralContent {
            service_request: Some(ServiceRequest {
                services: vec![service_type::Code::Safehouse.into()],
                ..ServiceRequest::default()
            }),
            ..ReferralContent::default()
        };
        let health = ReferralContent {
            health: Some(Health { pregnancy: true, ..Health::default() }),
            ..ReferralContent::default()
        };
        let sections = BTreeMap::from([
            (Category::ServiceRequest, Zeroizing::new(request.encode_to_vec())),
            (Category::Health, Zeroizing::new(health.encode_to_vec())),
        ]);
        let bases: BTreeMap<_, _> =
            sections.keys().map(|category| (*category, Basis::ConsentOfPerson)).collect();
        let recipients = to.iter().map(|key| Recipient { key: key.clone(), bases: bases.clone() }).collect();
        Draft {
            message_id: Uuid::now_v7(),
            thread: Uuid::now_v7(),
            sender: self.address.clone(),
            kind,
            alert_kind: AlertKind::Unspecified,
            created: now,
            expires: now + DAY,
            urgency: Urgency::Immediate,
            handling: None,
            status: Status::Actual,
            state_change: None,
            onward: None,
            facts: Some(Facts { purpose: Purpose::VictimSupport.into(), ..Facts::default() }),
            sections,
            recipients,
        }
    }

    /// The cancellation of a referral that it sent.
    pub fn cancellation(&self, of: &Draft, to: &ProvenKey, now: OffsetDateTime) -> Draft {
        Draft {
            thread: of.thread,
            state_change: Some(StateChange { state: State::Cancelled.into(), ..StateChange::default() }),
            facts: None,
            sections: BTreeMap::new(),
            recipients: vec![Recipient { key: to.clone(), bases: BTreeMap::new() }],
            ..self.draft(Kind::State, &[], now)
        }
    }

    /// Seals and signs as this agency.
    pub fn seal(&self, draft: &Draft) -> Result<Envelope> {
        Ok(envelope::seal(draft, &self.signing, &self.record)?)
    }

    /// Seals, and verifies as its gateway does.
    pub fn verified(&self, draft: &Draft) -> Result<Verified> {
        Ok(envelope::verify(self.seal(draft)?, draft.created)?)
    }
}

/// A gateway that forwards: the key that signs its release records, and the scheme that it has.
pub struct Forwarder<'a> {
    pub signing: &'a SigningKey,
    pub scheme: Digest,
}

impl Forwarder<'_> {
    /// What an honest gateway forwards of a message that releases these categories to every recipient.
    pub fn forward(&self, message: &Verified, sender: Agency, released: &[Category]) -> Forward {
        let positions: Vec<u32> = message
            .sections
            .iter()
            .filter(|section| released.contains(&section.category))
            .map(|section| section.section.position)
            .collect();
        let recipients = message.recipients.iter().map(|recipient| {
            let mut proof = recipient.proof.clone();
            proof.wrapped_keys.retain(|wrapped| positions.contains(&wrapped.position));
            if proof.wrapped_keys.is_empty() {
                proof.encapsulation = bytes::Bytes::new();
            }
            let bases =
                recipient.bases.iter().map(|(category, basis)| liaison_proto::message::v1::CategoryBasis {
                    category: (*category).into(),
                    basis: (*basis).into(),
                });
            ForwardedRecipient {
                proof: Some(proof),
                bases: Some(RecipientBases { bases: bases.collect(), salt: recipient.bases_salt.clone() }),
                release: Some(statement::sign(&self.record(message, recipient, &positions), self.signing)),
            }
        });
        Forward {
            manifest: message.manifest_bytes.clone(),
            signature: message.signature.clone(),
            sender_key: Some(message.sender_key_record.clone()),
            sender: Some(Agency { keys: Vec::new(), ..sender }),
            facts: message.facts_bytes.clone(),
            facts_salt: message.facts_salt.clone(),
            facts_position: message.facts_position,
            recipients: recipients.collect(),
            sections: message
                .sections
                .iter()
                .filter(|section| positions.contains(&section.section.position))
                .map(|section| section.section.clone())
                .collect(),
        }
    }

    /// The record of what goes to one recipient.
    pub fn record(
        &self,
        message: &Verified,
        recipient: &VerifiedRecipient,
        positions: &[u32],
    ) -> ReleaseRecord {
        let released = |position: &u32| ReleasedSection {
            position: *position,
            retention_days: 30,
            ..ReleasedSection::default()
        };
        ReleaseRecord {
            message_id: message.id.as_bytes().to_vec().into(),
            manifest_digest: message.digest.into(),
            recipient: recipient.address.to_string(),
            policy_hash: Digest([1; 32]).into(),
            scheme_hash: self.scheme.into(),
            decided_at: Some(times::to_wire(message.created)),
            released: positions.iter().map(released).collect(),
            withheld: Vec::new(),
        }
    }
}
