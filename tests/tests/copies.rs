//! What a recipient's copy tells of what the recipient may not know: nothing. Copies of messages that
//! differ only in that are compared byte for byte, once what is random in every message is set to zero.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use liaison_proto::{
    exchange::v1::delivery,
    message::v1::{
        Audience, Envelope, Facts, Health, Manifest, ReferralContent, ReleaseRecord, SealedCopy,
        data_category::Code as Category, purpose::Code as Purpose, request_origin,
    },
};
use liaison_tests::{
    Realm,
    insider::{Answer, Insider, Session},
    message,
    names::{BORDER, HOSPITAL, POLICE, SHELTER},
    policies,
};
use liaison_trust::{envelope::Draft, key_record::ProvenKey};
use prost::Message;
use zeroize::Zeroizing;

#[tokio::test]
async fn a_copy_tells_nothing_of_what_was_withheld() -> Result<()> {
    // Withheld, and the recipient is not told so.
    let silent = policies::without_health().replace(r#"Action::"name_withheld", "#, "");
    let realm = Realm::start(&silent, &[]).await?;
    let hospital = Insider::enrol(&realm.gateway, HOSPITAL).await?;
    let shelter = Insider::enrol(&realm.gateway, SHELTER).await?;
    let police = Insider::enrol(&realm.gateway, POLICE).await?;
    let border = Insider::enrol(&realm.gateway, BORDER).await?;
    let to = hospital.key_of(SHELTER).await?;
    let mut sender = hospital.session().await?;
    let mut inbox = shelter.session().await?;

    let plain = hospital.draft(&to);
    let first = deliver(&hospital, &shelter, &mut sender, &mut inbox, &plain).await?;
    ensure!(first.copy.sections.len() == 1, "{} sections arrived", first.copy.sections.len());
    first.holds_nothing_withheld()?;

    // A withheld section of another length and content; none at all; other facts.
    let mut longer = again(&plain, &hospital, &to);
    let health = Health { physical: "x".repeat(5_000), ..Health::default() };
    let health = ReferralContent { health: Some(health), ..ReferralContent::default() };
    longer.sections.insert(Category::Health, Zeroizing::new(health.encode_to_vec()));
    let mut without = again(&plain, &hospital, &to);
    without.sections.remove(&Category::Health);
    without_basis(&mut without);
    let mut unbased = again(&plain, &hospital, &to);
    without_basis(&mut unbased);
    let mut facts = again(&plain, &hospital, &to);
    facts.facts = Some(Facts {
        purpose: Purpose::CriminalInvestigation.into(),
        minor: true,
        origin: request_origin::Code::Court.into(),
        audience: Some(Audience { groups: vec!["network".to_owned()], ..Audience::default() }),
    });
    for (what, draft) in
        [("longer", &longer), ("absent", &without), ("without a basis", &unbased), ("other facts", &facts)]
    {
        let other = deliver(&hospital, &shelter, &mut sender, &mut inbox, draft).await?;
        other.holds_nothing_withheld()?;
        assert_eq!(first.shape()?, other.shape()?, "the withheld section is {what}, and the copy shows it");
    }
    // The comparison sees what is there to be seen.
    let mut visible = again(&plain, &hospital, &to);
    visible.sections.insert(Category::ServiceRequest, Zeroizing::new(health.encode_to_vec()));
    let visible = deliver(&hospital, &shelter, &mut sender, &mut inbox, &visible).await?;
    assert_ne!(first.shape()?, visible.shape()?);

    // Other recipients of an alert: none, or two.
    let alone = alert(&plain, &hospital, &to, &[]);
    let alone = deliver(&hospital, &shelter, &mut sender, &mut inbox, &alone).await?;
    let others = [hospital.key_of(POLICE).await?, hospital.key_of(BORDER).await?];
    let among = alert(&plain, &hospital, &to, &others);
    let among = deliver(&hospital, &shelter, &mut sender, &mut inbox, &among).await?;
    assert_eq!(alone.shape()?, among.shape()?, "other recipients show in the copy");
    let bytes = among.copy.encode_to_vec();
    for other in [&police, &border] {
        ensure!(!contains(&bytes, other.address.to_string().as_bytes()), "{} shows", other.address);
    }
    for entry in among.envelope.recipients.iter().filter(|entry| entry.address != SHELTER) {
        for secret in [&entry.key_id, &entry.salt, &entry.bases_salt, &entry.encapsulation] {
            ensure!(!contains(&bytes, secret), "something of {} shows", entry.address);
        }
    }
    Ok(())
}

/// The same message under another id.
fn again(draft: &Draft, sender: &Insider, to: &ProvenKey) -> Draft {
    let mut other = sender.draft(to);
    (other.created, other.expires) = (draft.created, draft.expires);
    other
}

/// Takes away the basis on which anybody may have the health section.
fn without_basis(draft: &mut Draft) {
    for recipient in &mut draft.recipients {
        recipient.bases.remove(&Category::Health);
    }
}

/// An alert, made when `like` was made.
fn alert(like: &Draft, sender: &Insider, first: &ProvenKey, others: &[ProvenKey]) -> Draft {
    message::health_alert(again(like, sender, first), &[others, std::slice::from_ref(first)].concat())
}

/// A message with what one recipient got of it.
struct Delivered {
    envelope: Envelope,
    copy: SealedCopy,
}

async fn deliver(
    sender: &Insider,
    recipient: &Insider,
    outbox: &mut Session,
    inbox: &mut Session,
    draft: &Draft,
) -> Result<Delivered> {
    let envelope = sender.seal(draft)?;
    let answer = outbox.submit(&envelope).await?;
    let Answer::Accepted(acceptance) = answer else { bail!("{answer:?}") };
    let (attempt, delivery) = inbox.delivery().await?;
    let Some(delivery::Content::Copy(copy)) = delivery.content else { bail!("no copy") };
    ensure!(copy.manifest == envelope.manifest, "another message was delivered");
    inbox.ack(attempt, Some(recipient.acknowledge(&copy.manifest, &acceptance.message_id)?)).await?;
    Ok(Delivered { envelope, copy })
}

impl Delivered {
    /// Nothing of the sections that are not in the copy, of the facts or of the bases is in its bytes.
    fn holds_nothing_withheld(&self) -> Result<()> {
        let bytes = self.copy.encode_to_vec();
        let positions: BTreeSet<u32> = self.copy.sections.iter().map(|section| section.position).collect();
        let entries = self.envelope.recipients.iter();
        let sections = self.envelope.sections.iter().filter(|section| !positions.contains(&section.position));
        let secrets = sections
            .flat_map(|section| [&section.salt, &section.commitment, &section.ciphertext])
            .chain([&self.envelope.facts_salt, &self.envelope.tree_seed])
            .chain(entries.clone().map(|entry| &entry.bases_salt))
            .chain(
                entries
                    .flat_map(|entry| &entry.wrapped_keys)
                    .filter(|wrapped| !positions.contains(&wrapped.position))
                    .map(|wrapped| &wrapped.sealed_key),
            );
        for secret in secrets {
            ensure!(secret.len() >= 32 && !contains(&bytes, secret), "something withheld is in the copy");
        }
        Ok(())
    }

    /// The copy with zeros for what is random in every message: ids, digests, salts, keys, signatures,
    /// ciphertexts, positions and the moment of the decision. Lengths, counts and all else stay.
    fn shape(&self) -> Result<Vec<u8>> {
        let mut copy = self.copy.clone();
        let mut manifest = Manifest::decode(copy.manifest)?;
        zero([&mut manifest.message_id, &mut manifest.thread, &mut manifest.recipients_root]);
        zero(&mut manifest.leaves);
        copy.manifest = manifest.encode_to_vec().into();
        zero([&mut copy.signature]);
        let proof = copy.recipient.as_mut().context("the copy has no recipient")?;
        proof.index = 0;
        zero([&mut proof.salt, &mut proof.bases_digest, &mut proof.encapsulation]);
        zero(&mut proof.path);
        for wrapped in &mut proof.wrapped_keys {
            wrapped.position = 0;
            zero([&mut wrapped.sealed_key]);
        }
        for section in &mut copy.sections {
            section.position = 0;
            zero([&mut section.salt, &mut section.commitment, &mut section.ciphertext]);
        }
        let release = copy.release.as_mut().context("the copy has no release record")?;
        let mut record = ReleaseRecord::decode(release.record.clone())?;
        zero([&mut record.message_id, &mut record.manifest_digest]);
        record.decided_at = None;
        record.released.iter_mut().for_each(|released| released.position = 0);
        release.record = record.encode_to_vec().into();
        zero([&mut release.signature]);
        Ok(copy.encode_to_vec())
    }
}

fn zero<'a>(fields: impl IntoIterator<Item = &'a mut Bytes>) {
    for field in fields {
        *field = vec![0; field.len()].into();
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
