//! Dishonest parties: each known attack, and what refuses it.

use super::*;
use crate::{envelope::head::Head, kem, random::System};
use liaison_proto::message::v1::{WrappedKey, data_category};

/// A recipient who passes a message on cannot make it look as if its sender had sent it further.
#[test]
fn surreptitious_forwarding() {
    let scene = Scene::new(Kem::X25519);
    let third = Agency::new("be/third", Kem::X25519);
    let copy = scene.copy();
    let mine = scene.receive(&copy).unwrap();

    // The recipient has every section's key, and wraps them for a third agency.
    let mut forwarded = copy.clone();
    let head = Head::read(&copy.manifest).unwrap();
    rewrap(&mut forwarded, &head, &scene.sender, &third, &mine);
    let verified = verify(scene.envelope(), NOW).unwrap();
    let positions: Vec<u32> = copy.sections.iter().map(|section| section.position).collect();
    let mut lie = verified.clone();
    lie.id = mine.id;
    lie.digest = mine.digest;
    lie.recipients[0].address = third.key.agency.clone();
    forwarded.release = Some(release_record(&lie, 0, &positions, &scene.gateway));
    assert_eq!(
        third.receive(&forwarded, &scene.sender, &scene.gateway).err(),
        Some(EnvelopeError::ChangedRecipients)
    );
    // Unchanged, it is not for the third agency.
    assert_eq!(
        third.receive(&copy, &scene.sender, &scene.gateway).err(),
        Some(EnvelopeError::NotForMe("be/shelter-antwerp".parse().unwrap()))
    );
}

fn rewrap(copy: &mut SealedCopy, head: &Head, sender: &Agency, to: &Agency, mine: &Received) {
    let info = derive::wrap_info(&head.digest, &head.id, &sender.key.id, &to.key.agency, &to.key.id);
    let (encapsulation, secret) =
        kem::encapsulate(Kem::X25519, &to.kem.public(), &info, &mut System).unwrap();
    let wrapped = mine.sections.iter().map(|section| WrappedKey {
        position: section.section.position,
        sealed_key: derive::wrap(&secret, &head.digest, section.section.position, &section.key)
            .unwrap()
            .into(),
    });
    let proof = copy.recipient.as_mut().unwrap();
    proof.wrapped_keys = wrapped.collect();
    proof.encapsulation = encapsulation.into();
    proof.address = to.key.agency.to_string();
    proof.key_id = to.key.id.into();
}

/// An agency that puts its own name and signature on another's message: a gateway cannot tell, the
/// recipient can, as neither the keys nor the sections open under another sender.
#[test]
fn re_signing() {
    let scene = Scene::new(Kem::XWing);
    let thief = Agency::new("be/thief", Kem::XWing);
    let mut stolen = thief.resign(&scene.envelope(), |manifest| {
        manifest.sender = thief.key.agency.to_string();
        manifest.sender_key_id = thief.key.id.into();
    });
    stolen.sender_key = Some(thief.key.signed.clone());
    let verified = verify(stolen, NOW).unwrap();
    let copy = release(&verified, 0, &SCENE, &scene.gateway);
    assert_eq!(code(scene.recipient.receive(&copy, &thief, &scene.gateway)), Some(ErrorCode::ChangedSection));
    // Nor does it pass for the sender's own.
    assert_eq!(code(scene.receive(&copy)), Some(ErrorCode::BadSignature));
}

/// One recipient knows a section's key, and with it makes another section for a second one.
#[test]
fn a_co_recipients_forgery() {
    let sender = Agency::new("be/sender", Kem::X25519);
    let (one, two) = (Agency::new("be/one", Kem::X25519), Agency::new("be/two", Kem::X25519));
    let gateway = SigningKey::generate();
    let risk = [Category::Risk];
    let alert = draft(&sender, Kind::Alert, &risk, vec![one.to(&risk), two.to(&risk)]);
    let verified = verify(sender.seal(&alert), NOW).unwrap();
    let known = one.receive(&release(&verified, 0, &risk, &gateway), &sender, &gateway).unwrap();
    let ReceivedSection { key, section, .. } = &known.sections[0];

    let mut forged = padding::pad(b"the police are the traffickers").unwrap();
    let (id, agency) = (&known.id, &known.sender);
    derive::seal_section(key, id, agency, section.position, &section.header, &mut forged).unwrap();
    let mut copy = release(&verified, 1, &risk, &gateway);
    copy.sections[0].ciphertext = forged.to_vec().into();
    // It is well made: only the leaf tells.
    assert!(open(id, agency, &copy.sections[0], key).is_ok());
    assert_eq!(
        two.receive(&copy, &sender, &gateway).err(),
        Some(EnvelopeError::ChangedSection(section.position))
    );
}

/// A sender that wants one ciphertext to say different things to two recipients gives them different
/// keys. Each key has another commitment, and the leaf signs one.
#[test]
fn invisible_salamanders() {
    let scene = Scene::new(Kem::X25519);
    let copy = scene.copy();
    let received = scene.receive(&copy).unwrap();
    let ReceivedSection { key, section, .. } = &received.sections[0];

    // The key opens the ciphertext, but it is not the one committed to.
    let mut other = section.clone();
    let commitment = derive::commitment(&[7; 32], &received.id, section.position).unwrap();
    other.commitment = commitment.to_vec().into();
    assert!(open(&received.id, &received.sender, section, key).is_ok());
    assert_eq!(code(open(&received.id, &received.sender, &other, key)), Some(ErrorCode::ChangedSection));

    // Another key, wrapped for this recipient as it should be.
    let mut lied = received;
    lied.sections[0].key = Zeroizing::new([7; 32]);
    let mut copy = copy;
    let head = Head::read(&copy.manifest).unwrap();
    rewrap(&mut copy, &head, &scene.sender, &scene.recipient, &lied);
    assert_eq!(code(scene.receive(&copy)), Some(ErrorCode::ChangedSection));
}

/// Keys that fail at different steps fail alike, so that nobody learns which keys were tried.
#[test]
fn no_oracle_tells_at_which_step_a_section_failed() {
    let scene = Scene::new(Kem::X25519);
    let copy = scene.copy();
    let mut refusals = vec![];
    for part in 0..3 {
        let mut changed = copy.clone();
        let proof = changed.recipient.as_mut().unwrap();
        match part {
            0 => proof.encapsulation = KemKey::generate(Kem::X25519).unwrap().public().into(),
            1 => proof.encapsulation = vec![0; 32].into(),
            _ => proof.wrapped_keys[0].sealed_key = vec![0; 48].into(),
        }
        refusals.push(scene.receive(&changed).err().unwrap());
    }
    let position = copy.sections[0].position;
    assert_eq!(refusals, vec![EnvelopeError::ChangedSection(position); 3]);
}

/// A signature for one purpose serves no other.
#[test]
fn cross_protocol_signatures() {
    let scene = Scene::new(Kem::X25519);
    let envelope = scene.envelope();
    for label in
        ["key-record/v1", "acceptance/v1", "notice/v1", "release-record/v1", "acknowledgement/v1", ""]
    {
        let signature = scene.sender.signing.sign(label, &envelope.manifest).to_vec().into();
        let envelope = Envelope { signature, ..envelope.clone() };
        assert_eq!(code(verify(envelope, NOW)), Some(ErrorCode::BadSignature), "{label}");
    }
    // A release record by an agency, or one signed as an acknowledgement, is none.
    let mut copy = scene.copy();
    let release = copy.release.as_mut().unwrap();
    release.signature = scene.sender.signing.sign("release-record/v1", &release.record).to_vec().into();
    assert_eq!(scene.receive(&copy).err(), Some(EnvelopeError::ReleaseSignature));
    let release = copy.release.as_mut().unwrap();
    release.signature = scene.gateway.sign("acknowledgement/v1", &release.record).to_vec().into();
    assert_eq!(scene.receive(&copy).err(), Some(EnvelopeError::ReleaseSignature));
}

#[test]
fn swapped_sections() {
    let scene = Scene::new(Kem::X25519);
    let mut envelope = scene.envelope();
    let [one, two] = envelope.sections.as_mut_slice() else { panic!("two sections") };
    std::mem::swap(&mut one.position, &mut two.position);
    assert_eq!(code(verify(envelope, NOW)), Some(ErrorCode::ChangedSection));

    let mut copy = scene.copy();
    let [one, two] = copy.sections.as_mut_slice() else { panic!("two sections") };
    std::mem::swap(&mut one.ciphertext, &mut two.ciphertext);
    assert_eq!(code(scene.receive(&copy)), Some(ErrorCode::ChangedSection));
}

#[test]
fn changed_sections() {
    let scene = Scene::new(Kem::X25519);
    let flip = |bytes: &mut bytes::Bytes| {
        let mut changed = bytes.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        *bytes = changed.into();
    };
    for part in 0..4 {
        let (mut envelope, mut copy) = (scene.envelope(), scene.copy());
        for section in [&mut envelope.sections[0], &mut copy.sections[0]] {
            flip(match part {
                0 => &mut section.header,
                1 => &mut section.salt,
                2 => &mut section.commitment,
                _ => &mut section.ciphertext,
            });
        }
        assert_eq!(code(verify(envelope, NOW)), Some(ErrorCode::ChangedSection), "{part}");
        assert_eq!(code(scene.receive(&copy)), Some(ErrorCode::ChangedSection), "{part}");
    }
}

/// A section of another message by the same sender has another id in its leaf.
#[test]
fn a_section_of_another_message() {
    let scene = Scene::new(Kem::X25519);
    let (mut envelope, other) = (scene.envelope(), scene.envelope());
    envelope.sections[0] = other.sections[0].clone();
    assert_eq!(code(verify(envelope, NOW)), Some(ErrorCode::ChangedSection));
}

#[test]
fn stripped_sections() {
    let scene = Scene::new(Kem::X25519);
    // On the way to the gateway: a basis without a section tells.
    let mut envelope = scene.envelope();
    envelope.sections.pop();
    assert_eq!(code(verify(envelope.clone(), NOW)), Some(ErrorCode::BadRecipients));
    // Even where the wrapped key is gone as well.
    let left = envelope.sections[0].position;
    envelope.recipients[0].wrapped_keys.retain(|wrapped| wrapped.position == left);
    assert_eq!(code(verify(envelope, NOW)), Some(ErrorCode::BadRecipients));
    // On the way from it: the release record tells.
    let mut copy = scene.copy();
    let position = copy.sections.pop().unwrap().position;
    copy.recipient.as_mut().unwrap().wrapped_keys.retain(|wrapped| wrapped.position != position);
    assert_eq!(scene.receive(&copy).err(), Some(EnvelopeError::OtherRelease("sections")));
    // And a key without its section, or a section without its key.
    let mut copy = scene.copy();
    copy.recipient.as_mut().unwrap().wrapped_keys.pop();
    assert_eq!(code(scene.receive(&copy)), Some(ErrorCode::BadRecipients));
}

#[test]
fn foreign_signatures() {
    let scene = Scene::new(Kem::X25519);
    let thief = Agency::new("be/thief", Kem::X25519);
    // Signed by a stranger under the sender's name and key record.
    let forged = thief.resign(&scene.envelope(), |_| ());
    assert_eq!(code(verify(forged.clone(), NOW)), Some(ErrorCode::BadSignature));
    // With the stranger's key record.
    let with_record = Envelope { sender_key: Some(thief.key.signed.clone()), ..forged };
    assert_eq!(code(verify(with_record.clone(), NOW)), Some(ErrorCode::SenderMismatch));
    // That record claims the sender's address: it is another key than the manifest names.
    let impostor = Agency::new("be/police-antwerp", Kem::X25519);
    let forged = impostor.resign(&scene.envelope(), |_| ());
    let forged = Envelope { sender_key: Some(impostor.key.signed.clone()), ..forged };
    assert_eq!(
        verify(forged.clone(), NOW).err(),
        Some(EnvelopeError::OtherSenderKey(scene.sender.key.agency.clone()))
    );
    // Named in the manifest as well, it passes here, but not by a directory nor by a pin.
    let named = impostor.resign(&forged, |manifest| manifest.sender_key_id = impostor.key.id.into());
    let verified = verify(named, NOW).unwrap();
    assert_ne!(verified.sender_key.id, scene.sender.key.id);
    let copy = release(&verified, 0, &SCENE, &scene.gateway);
    assert_eq!(
        scene.receive(&copy).err(),
        Some(EnvelopeError::OtherSenderKey(scene.sender.key.agency.clone()))
    );
}

#[test]
fn swapped_wraps() {
    let scene = Scene::new(Kem::X25519);
    let mut copy = scene.copy();
    let [one, two] = copy.recipient.as_mut().unwrap().wrapped_keys.as_mut_slice() else { panic!("two keys") };
    std::mem::swap(&mut one.sealed_key, &mut two.sealed_key);
    assert_eq!(code(scene.receive(&copy)), Some(ErrorCode::ChangedSection));

    // Between two recipients of an alert.
    let (one, two) = (Agency::new("be/one", Kem::X25519), Agency::new("be/two", Kem::X25519));
    let risk = [Category::Risk];
    let alert = draft(&scene.sender, Kind::Alert, &risk, vec![one.to(&risk), two.to(&risk)]);
    let mut envelope = scene.sender.seal(&alert);
    let [a, b] = envelope.recipients.as_mut_slice() else { panic!("two recipients") };
    std::mem::swap(&mut a.wrapped_keys, &mut b.wrapped_keys);
    std::mem::swap(&mut a.encapsulation, &mut b.encapsulation);
    let copy = release(&verify(envelope, NOW).unwrap(), 0, &risk, &scene.gateway);
    assert_eq!(code(one.receive(&copy, &scene.sender, &scene.gateway)), Some(ErrorCode::ChangedSection));
}

#[test]
fn added_removed_and_changed_recipients() {
    let sender = Agency::new("be/sender", Kem::X25519);
    let (one, two) = (Agency::new("be/one", Kem::X25519), Agency::new("be/two", Kem::X25519));
    let risk = [Category::Risk];
    let alert = draft(&sender, Kind::Alert, &risk, vec![one.to(&risk), two.to(&risk)]);
    let envelope = sender.seal(&alert);
    let changed = |change: &dyn Fn(&mut Envelope)| {
        let mut changed = envelope.clone();
        change(&mut changed);
        verify(changed, NOW).err()
    };
    let refused = Some(EnvelopeError::ChangedRecipients);
    assert_eq!(changed(&|_| ()), None);
    assert_eq!(changed(&|envelope| drop(envelope.recipients.pop())), refused);
    let added = |envelope: &mut Envelope| {
        let mut entry = envelope.recipients[0].clone();
        (entry.address, entry.index) = ("be/three".into(), entry.index ^ 1);
        envelope.recipients.push(entry);
    };
    assert_eq!(changed(&added), refused);
    assert_eq!(changed(&|envelope| envelope.recipients[0].address = "be/three".into()), refused);
    assert_eq!(changed(&|envelope| envelope.recipients[0].index ^= 2), refused);
    assert_eq!(changed(&|envelope| envelope.recipients[0].key_id = vec![0; 32].into()), refused);
    assert_eq!(changed(&|envelope| envelope.recipients[0].salt = vec![0; 32].into()), refused);
    assert_eq!(changed(&|envelope| envelope.recipients[0].bases_salt = vec![0; 32].into()), refused);
    assert_eq!(changed(&|envelope| envelope.tree_seed = vec![0; 32].into()), refused);
    // A better basis than the sender claimed.
    let basis = i32::from(Basis::LegalObligation);
    assert_eq!(changed(&|envelope| envelope.recipients[0].bases[0].basis = basis), refused);
}

/// A gateway cannot give a recipient what the sender had no basis for: there is no key.
#[test]
fn without_a_basis_there_is_no_key() {
    let scene = Scene::new(Kem::X25519);
    let draft =
        draft(&scene.sender, Kind::Referral, &SCENE, vec![scene.recipient.to(&[Category::ServiceRequest])]);
    let mut envelope = scene.sender.seal(&draft);
    let verified = verify(envelope.clone(), NOW).unwrap();
    let copy = release(&verified, 0, &SCENE, &scene.gateway);
    assert_eq!(code(scene.receive(&copy)), Some(ErrorCode::BadRecipients));
    // A key added on the way is refused at the gateway.
    let held = envelope.recipients[0].wrapped_keys[0].position;
    let other = verified.sections.iter().map(|it| it.section.position).find(|it| *it != held).unwrap();
    let sealed_key = vec![0; 48].into();
    envelope.recipients[0].wrapped_keys.push(WrappedKey { position: other, sealed_key });
    assert_eq!(code(verify(envelope, NOW)), Some(ErrorCode::BadRecipients));
}

#[test]
fn stale_and_future_messages() {
    let scene = Scene::new(Kem::X25519);
    let (envelope, copy) = (scene.envelope(), scene.copy());
    let at = |now: OffsetDateTime| {
        let kem = |_: &Digest| Some(&scene.recipient.kem);
        let (me, gateway) = (&scene.recipient.key.agency, scene.gateway.public());
        let received = receive(&copy, me, kem, &scene.sender.key, &gateway, now);
        (code(verify(envelope.clone(), now)), code(received))
    };
    let (created, expires) = (scene.draft.created, scene.draft.expires);
    let both = |code| (Some(code), Some(code));
    assert_eq!(at(created - Duration::minutes(5)), (None, None));
    assert_eq!(at(created - Duration::seconds(301)), both(ErrorCode::ClockSkew));
    assert_eq!(at(expires - Duration::seconds(1)), (None, None));
    assert_eq!(at(expires), both(ErrorCode::Expired));
}

/// A release record of another message, recipient or gateway.
#[test]
fn foreign_releases() {
    let scene = Scene::new(Kem::X25519);
    let copy = scene.copy();
    let other = SealedCopy { release: scene.copy().release, ..copy.clone() };
    assert_eq!(scene.receive(&other).err(), Some(EnvelopeError::OtherRelease("message")));
    assert_eq!(
        scene.recipient.receive(&copy, &scene.sender, &SigningKey::generate()).err(),
        Some(EnvelopeError::ReleaseSignature)
    );
    let none = SealedCopy { release: None, ..copy.clone() };
    assert_eq!(code(scene.receive(&none)), Some(ErrorCode::MissingField));

    let mut verified = verify(scene.envelope(), NOW).unwrap();
    let mut mine = release(&verified, 0, &SCENE, &scene.gateway);
    verified.recipients[0].address = "be/other".parse().unwrap();
    let positions: Vec<u32> = mine.sections.iter().map(|section| section.position).collect();
    mine.release = Some(release_record(&verified, 0, &positions, &scene.gateway));
    assert_eq!(scene.receive(&mine).err(), Some(EnvelopeError::OtherRelease("recipient")));
}

#[test]
fn a_key_that_is_not_mine_opens_nothing() {
    let scene = Scene::new(Kem::XWing);
    let (copy, stranger) = (scene.copy(), KemKey::generate(Kem::XWing).unwrap());
    let (me, gateway) = (&scene.recipient.key.agency, scene.gateway.public());
    let with = |key| receive(&copy, me, |_| key, &scene.sender.key, &gateway, NOW).err();
    assert_eq!(with(None), Some(EnvelopeError::UnknownKey(scene.recipient.key.id)));
    assert_eq!(with(Some(&stranger)).map(|error| error.code()), Some(ErrorCode::ChangedSection));
    let other_kem = KemKey::generate(Kem::X25519).unwrap();
    assert_eq!(with(Some(&other_kem)).map(|error| error.code()), Some(ErrorCode::ChangedSection));
}

/// No error names anything that a section holds.
#[test]
fn an_error_tells_no_content() {
    let scene = Scene::new(Kem::X25519);
    let mut copy = scene.copy();
    copy.sections[0].ciphertext = plaintext(data_category::Code::Health).to_vec().into();
    let refusal = liaison_proto::message::v1::Refusal::from(scene.receive(&copy).err().unwrap());
    assert!(!format!("{refusal:?}").contains("known of"));
}
