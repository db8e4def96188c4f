//! What a copy must not tell: messages that differ in what was withheld give copies of one shape.

use std::collections::BTreeMap;

use bytes::Bytes;
use liaison_proto::message::v1::{Audience, request_origin};

use super::*;

fn blank(bytes: &mut Bytes) {
    *bytes = vec![0; bytes.len()].into();
}

/// A copy with everything that is random, or depends on it, made zeros of the same length; what
/// remains is what a recipient can learn. Positions are random as well, and become ranks.
fn shape(copy: &SealedCopy) -> (Manifest, SealedCopy, ReleaseRecord) {
    let mut copy = copy.clone();
    let mut manifest = Manifest::decode(copy.manifest.clone()).unwrap();
    manifest.leaves.iter_mut().for_each(blank);
    blank(&mut manifest.recipients_root);
    let mut positions: Vec<u32> = copy.sections.iter().map(|section| section.position).collect();
    positions.sort_unstable();
    let ranks: BTreeMap<u32, u32> = positions.into_iter().zip(0..).collect();

    let signed = copy.release.as_mut().unwrap();
    let mut release = ReleaseRecord::decode(signed.record.clone()).unwrap();
    blank(&mut release.manifest_digest);
    release.released.iter_mut().for_each(|section| section.position = ranks[&section.position]);
    release.released.sort_by_key(|section| section.position);
    let proof = copy.recipient.as_mut().unwrap();
    proof.index = 0;
    proof.path.iter_mut().for_each(blank);
    for wrapped in &mut proof.wrapped_keys {
        blank(&mut wrapped.sealed_key);
        wrapped.position = ranks[&wrapped.position];
    }
    for section in &mut copy.sections {
        section.position = ranks[&section.position];
        for part in [&mut section.salt, &mut section.commitment, &mut section.ciphertext] {
            blank(part);
        }
    }
    for part in [
        &mut copy.manifest,
        &mut copy.signature,
        &mut signed.record,
        &mut signed.signature,
        &mut proof.salt,
        &mut proof.bases_digest,
        &mut proof.encapsulation,
    ] {
        blank(part);
    }
    // The lengths of these two vary with the encoding of positions alone; their content stands beside.
    (copy.manifest, signed.record) = (Bytes::new(), Bytes::new());
    (manifest, copy, release)
}

struct Parties {
    sender: Agency,
    recipients: Vec<Agency>,
    gateway: SigningKey,
}

impl Parties {
    fn new() -> Self {
        let recipients = (0..40).map(|number| Agency::new(&format!("be/{number}"), Kem::X25519)).collect();
        Self { sender: Agency::new("be/sender", Kem::X25519), recipients, gateway: SigningKey::generate() }
    }

    fn alert(&self, recipients: usize, bases: &[Category]) -> Draft {
        let to = self.recipients.iter().take(recipients).map(|agency| agency.to(bases)).collect();
        let mut alert = draft(&self.sender, Kind::Alert, &[Category::Risk], to);
        (alert.message_id, alert.thread) = (IDS[0].parse().unwrap(), IDS[1].parse().unwrap());
        alert
    }

    /// The first recipient's copy with the category risk alone.
    fn copy(&self, draft: &Draft) -> (Manifest, SealedCopy, ReleaseRecord) {
        let verified = verify(self.sender.seal(draft), NOW).unwrap();
        let copy = release(&verified, 0, &[Category::Risk], &self.gateway);
        assert!(self.recipients[0].receive(&copy, &self.sender, &self.gateway).is_ok());
        shape(&copy)
    }
}

const IDS: [&str; 2] = ["01934567-89ab-7cde-8f01-23456789abcd", "01934567-89ab-7cde-8f01-23456789abce"];

#[test]
fn copies_tell_nothing_of_what_was_withheld() {
    let parties = Parties::new();
    let plain = parties.copy(&parties.alert(1, &[Category::Risk]));
    assert_eq!(plain, parties.copy(&parties.alert(1, &[Category::Risk])));

    // Another section, long or short, with a basis for this recipient or without.
    for bases in [&[Category::Risk] as &[_], &[Category::Risk, Category::Narrative]] {
        for length in [0, 10, 100_000] {
            let mut alert = parties.alert(1, &[Category::Risk]);
            alert.sections.insert(Category::Narrative, Zeroizing::new(vec![1; length]));
            alert.recipients[0] = parties.recipients[0].to(bases);
            assert_eq!(plain, parties.copy(&alert), "{length}");
        }
    }
    // Other facts.
    let mut alert = parties.alert(1, &[Category::Risk]);
    alert.facts = Some(Facts {
        purpose: purpose::Code::CriminalInvestigation.into(),
        minor: true,
        audience: Some(Audience { groups: vec!["hotlines".into()], ..Audience::default() }),
        origin: request_origin::Code::Court.into(),
    });
    assert_eq!(plain, parties.copy(&alert));
    // Other recipients, few or many.
    for recipients in [2, 40] {
        assert_eq!(plain, parties.copy(&parties.alert(recipients, &[Category::Risk])));
    }
    // Another basis.
    let mut alert = parties.alert(1, &[Category::Risk]);
    alert.recipients[0].bases.insert(Category::Risk, Basis::LegalObligation);
    assert_eq!(plain, parties.copy(&alert));
}

#[test]
fn a_section_tells_little_of_its_length() {
    let parties = Parties::new();
    let with = |text: &[u8]| {
        let mut alert = parties.alert(1, &[Category::Risk]);
        alert.sections.insert(Category::Risk, Zeroizing::new(text.to_vec()));
        parties.copy(&alert)
    };
    assert_eq!(with(b""), with(&[1; 252]));
    assert_ne!(with(b""), with(&[1; 253]));
}
