//! What a gateway refuses of a message that its sender did sign so.

use bytes::Bytes;
use liaison_proto::message::v1::{Audience, SectionHeader};

use super::*;
use crate::envelope::derive;

/// Signs a changed manifest, and gives the code with which a gateway refuses it.
fn manifest(kind: Kind, change: impl FnOnce(&mut Manifest)) -> Option<ErrorCode> {
    let (sender, envelope) = sealed(kind);
    code(verify(sender.resign(&envelope, change), NOW))
}

fn envelope(kind: Kind, change: impl FnOnce(&mut Envelope)) -> Option<ErrorCode> {
    let (_, mut envelope) = sealed(kind);
    change(&mut envelope);
    code(verify(envelope, NOW))
}

fn sealed(kind: Kind) -> (Agency, Envelope) {
    let (sender, recipient) = (Agency::new("be/a", Kem::X25519), Agency::new("be/b", Kem::X25519));
    let categories: &[Category] = match kind {
        Kind::State | Kind::Onward => &[],
        _ => &[Category::Risk, Category::Narrative],
    };
    let draft = draft(&sender, kind, categories, vec![recipient.to(categories)]);
    let envelope = sender.seal(&draft);
    (sender, envelope)
}

#[test]
fn what_is_well_made_is_taken() {
    for kind in [Kind::Referral, Kind::Alert, Kind::State, Kind::Onward] {
        assert_eq!(manifest(kind, |_| ()), None);
        assert_eq!(envelope(kind, |_| ()), None);
    }
}

#[test]
fn versions_and_unknown_values() {
    use Kind::Referral;
    assert_eq!(manifest(Referral, |m| m.version = 2), Some(ErrorCode::Unsupported));
    assert_eq!(manifest(Referral, |m| m.suite = 0), Some(ErrorCode::Unsupported));
    assert_eq!(manifest(Referral, |m| m.suite = 99), Some(ErrorCode::UnknownValue));
    assert_eq!(manifest(Referral, |m| m.urgency = 99), Some(ErrorCode::UnknownValue));
    assert_eq!(manifest(Referral, |m| m.kind = 99), Some(ErrorCode::UnknownValue));
    let (sender, envelope) = sealed(Referral);
    // Field 100, a varint.
    let more = [envelope.manifest.as_ref(), &[0xa0, 0x06, 0x01]].concat();
    assert_eq!(code(verify(sender.sign_bytes(&envelope, more), NOW)), Some(ErrorCode::UnknownValue));
    let cut = envelope.manifest[..envelope.manifest.len() - 1].to_vec();
    assert_eq!(code(verify(sender.sign_bytes(&envelope, cut), NOW)), Some(ErrorCode::Malformed));
}

#[test]
fn shapes_of_a_manifest() {
    use Kind::Referral;
    let malformed = Some(ErrorCode::Malformed);
    assert_eq!(manifest(Referral, |m| drop(m.leaves.pop())), malformed);
    assert_eq!(manifest(Referral, |m| m.leaves.clear()), malformed);
    assert_eq!(manifest(Referral, |m| m.leaves[0] = Bytes::from_static(&[0; 31])), malformed);
    let many = |m: &mut Manifest| m.leaves = vec![Bytes::from_static(&[0; 32]); 120];
    assert_eq!(manifest(Referral, many), Some(ErrorCode::TooLarge));
    assert_eq!(manifest(Referral, |m| m.recipients_root = Bytes::new()), malformed);
    assert_eq!(manifest(Referral, |m| m.sender_key_id = Bytes::new()), malformed);
    assert_eq!(manifest(Referral, |m| m.sender = "be/A".into()), malformed);
    // A UUIDv4, fifteen bytes, and another variant.
    let v4 = Bytes::from_static(&[0xf0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    let variant = Bytes::from_static(&[0xf0, 0, 0, 0, 0, 0, 0x70, 0, 0xf0, 0, 0, 0, 0, 0, 0, 0]);
    for id in [v4, Bytes::from_static(&[0; 15]), variant] {
        assert_eq!(manifest(Referral, |m| m.message_id = id.clone()), malformed);
        assert_eq!(manifest(Referral, |m| m.thread = id), malformed);
    }
    assert_eq!(manifest(Referral, |m| m.created = None), malformed);
    assert_eq!(manifest(Referral, |m| m.expires.as_mut().unwrap().nanos = -1), malformed);
    assert_eq!(manifest(Referral, |m| m.expires = m.created), malformed);
    let month = |seconds: i64| {
        move |m: &mut Manifest| {
            m.expires.as_mut().unwrap().seconds = m.created.unwrap().seconds + 30 * 86_400 + seconds;
        }
    };
    assert_eq!(manifest(Referral, month(0)), None);
    assert_eq!(manifest(Referral, month(1)), malformed);
    assert_eq!(manifest(Referral, |m| m.status = 0), Some(ErrorCode::MissingField));
}

#[test]
fn rules_of_kinds() {
    use Kind::{Alert, Referral, State};
    let malformed = Some(ErrorCode::Malformed);
    let alert = |m: &mut Manifest| m.alert_kind = AlertKind::MissingMinor.into();
    assert_eq!(manifest(Referral, |m| m.kind = 0), Some(ErrorCode::MissingField));
    assert_eq!(manifest(Referral, alert), malformed);
    assert_eq!(manifest(State, alert), malformed);
    assert_eq!(manifest(Alert, |m| m.alert_kind = 0), malformed);
    // Narrative is not for an alert on a health risk.
    assert_eq!(manifest(Alert, |m| m.alert_kind = AlertKind::HealthRisk.into()), malformed);
    let change = |state: i32, reason, outcome| {
        move |m: &mut Manifest| m.state_change = Some(StateChange { state, reason, outcome })
    };
    assert_eq!(manifest(Referral, change(State as i32, 0, 0)), malformed);
    assert_eq!(manifest(State, |m| m.state_change = None), malformed);
    assert_eq!(manifest(State, change(0, 0, 0)), Some(ErrorCode::MissingField));
    use liaison_proto::message::v1::referral_state::Code as To;
    assert_eq!(manifest(State, change(To::Rejected.into(), 2, 0)), None);
    assert_eq!(manifest(State, change(To::Accepted.into(), 2, 0)), malformed);
    assert_eq!(manifest(State, change(To::Completed.into(), 0, 2)), None);
    assert_eq!(manifest(State, change(To::Rejected.into(), 0, 2)), malformed);
    for other in [Referral, Alert, State] {
        assert_eq!(manifest(other, |m| m.onward = Some(onward())), malformed, "{other:?}");
    }
    // A message that turns into a state message keeps what such a one must not have.
    let turn = |m: &mut Manifest| {
        m.kind = State.into();
        change(To::Accepted.into(), 0, 0)(m);
    };
    assert_eq!(manifest(Referral, turn), malformed);
    let back = |m: &mut Manifest| {
        m.kind = Referral.into();
        m.state_change = None;
    };
    assert_eq!(manifest(State, back), Some(ErrorCode::MissingField));
    // An alert to two that turns into a referral.
    let (sender, one, two) = (
        Agency::new("be/a", Kem::X25519),
        Agency::new("be/b", Kem::X25519),
        Agency::new("be/c", Kem::X25519),
    );
    let to_two = sender.seal(&draft(&sender, Alert, &[], vec![one.to(&[]), two.to(&[])]));
    let turned = sender.resign(&to_two, |m| (m.kind, m.alert_kind) = (Referral.into(), 0));
    assert_eq!(code(verify(turned, NOW)), Some(ErrorCode::BadRecipients));
}

#[test]
fn onward_requests() {
    let malformed = Some(ErrorCode::Malformed);
    let asked =
        |change: fn(&mut OnwardRequest)| manifest(Kind::Onward, |m| change(m.onward.as_mut().unwrap()));
    assert_eq!(manifest(Kind::Onward, |m| m.onward = None), malformed);
    for step in [OnwardStep::Granted, OnwardStep::Denied] {
        assert_eq!(manifest(Kind::Onward, |m| m.onward.as_mut().unwrap().step = step.into()), None);
    }
    assert_eq!(asked(|said| said.step = 0), Some(ErrorCode::MissingField));
    assert_eq!(asked(|said| said.step = 99), Some(ErrorCode::UnknownValue));
    assert_eq!(asked(|said| said.request = Bytes::new()), malformed);
    assert_eq!(asked(|said| said.request = Bytes::from_static(&[0; 16])), malformed);
    assert_eq!(asked(|said| said.to = "clinic".into()), malformed);
    assert_eq!(asked(|said| said.to = "be/A".into()), malformed);
    assert_eq!(asked(|said| said.purpose = 99), Some(ErrorCode::UnknownValue));
    assert_eq!(asked(|said| said.categories.clear()), malformed);
    assert_eq!(asked(|said| said.categories.reverse()), malformed);
    assert_eq!(asked(|said| said.categories = vec![8, 8]), malformed);
    assert_eq!(asked(|said| said.categories = vec![0, 8]), malformed);
    assert_eq!(asked(|said| said.categories = vec![8, 99]), Some(ErrorCode::UnknownValue));
    let change = |m: &mut Manifest| {
        m.state_change = Some(StateChange { state: State::Accepted.into(), reason: 0, outcome: 0 });
    };
    assert_eq!(manifest(Kind::Onward, change), malformed);
    assert_eq!(manifest(Kind::Onward, |m| m.alert_kind = AlertKind::MissingMinor.into()), malformed);
    // A referral that turns into an onward message keeps its facts and its sections.
    let turn = |m: &mut Manifest| (m.kind, m.onward) = (Kind::Onward.into(), Some(onward()));
    assert_eq!(manifest(Kind::Referral, turn), malformed);
    let back = |m: &mut Manifest| (m.kind, m.onward) = (Kind::Referral.into(), None);
    assert_eq!(manifest(Kind::Onward, back), Some(ErrorCode::MissingField));
}

#[test]
fn facts() {
    use Kind::{Referral, State};
    let changed = Some(ErrorCode::ChangedSection);
    let none = |e: &mut Envelope| {
        (e.facts, e.facts_salt, e.facts_position) = (Bytes::new(), Bytes::new(), 0);
    };
    assert_eq!(envelope(Referral, none), Some(ErrorCode::MissingField));
    assert_eq!(
        envelope(Referral, |e| e.facts = Facts { minor: true, ..Facts::default() }.encode_to_vec().into()),
        changed
    );
    assert_eq!(envelope(Referral, |e| e.facts_salt = vec![0; 32].into()), changed);
    assert_eq!(envelope(Referral, |e| e.facts_salt = vec![0; 31].into()), Some(ErrorCode::Malformed));
    assert_eq!(envelope(Referral, |e| e.facts_position = 95), changed);
    assert_eq!(envelope(State, |e| e.facts_salt = vec![0; 32].into()), changed);

    let signed = |facts: Vec<u8>| {
        let (sender, mut envelope) = sealed(Referral);
        envelope.facts = facts.into();
        let signed = sender.resign(&envelope, |m| {
            let id = Uuid::from_slice(&m.message_id).unwrap();
            let leaf = derive::facts_leaf(&id, &envelope.facts_salt, &envelope.facts);
            m.leaves[envelope.facts_position as usize] = leaf.into();
        });
        code(verify(signed, NOW))
    };
    let audience = |audience| signed(Facts { audience: Some(audience), ..Facts::default() }.encode_to_vec());
    assert_eq!(signed(vec![]), None);
    // Field 100; an unknown purpose.
    assert_eq!(signed(vec![0xa0, 0x06, 0x01]), Some(ErrorCode::UnknownValue));
    assert_eq!(signed(vec![0x08, 0x63]), Some(ErrorCode::UnknownValue));
    let (good, words) = (|text: &str| vec![text.to_owned()], vec!["her name is Anna".to_owned()]);
    let malformed = Some(ErrorCode::Malformed);
    assert_eq!(
        audience(Audience {
            countries: good("be"),
            groups: good("eu-hotlines"),
            agencies: good("hu/police"),
            sectors: vec![1]
        }),
        None
    );
    assert_eq!(audience(Audience { countries: words.clone(), ..Audience::default() }), malformed);
    assert_eq!(audience(Audience { groups: words.clone(), ..Audience::default() }), malformed);
    assert_eq!(audience(Audience { agencies: words, ..Audience::default() }), malformed);
}

#[test]
fn sections() {
    let signed = |change: &dyn Fn(&mut Envelope)| {
        let (sender, mut envelope) = sealed(Kind::Referral);
        change(&mut envelope);
        let signed = sender.resign(&envelope, |m| {
            let id = Uuid::from_slice(&m.message_id).unwrap();
            for section in &envelope.sections {
                m.leaves[section.position as usize] = derive::section_leaf(&id, section).into();
            }
        });
        code(verify(signed, NOW))
    };
    let header = |category: i32, schema_version| {
        let header: Bytes = SectionHeader { category, schema_version }.encode_to_vec().into();
        move |e: &mut Envelope| e.sections[0].header = header.clone()
    };
    let malformed = Some(ErrorCode::Malformed);
    assert_eq!(signed(&|_| ()), None);
    assert_eq!(signed(&header(99, 1)), Some(ErrorCode::UnknownValue));
    assert_eq!(signed(&header(0, 1)), Some(ErrorCode::MissingField));
    assert_eq!(signed(&header(Category::Risk.into(), 2)), Some(ErrorCode::Unsupported));
    assert_eq!(signed(&|e| e.sections[0].header = e.sections[1].header.clone()), malformed);
    assert_eq!(signed(&|e| e.sections[0].salt = Bytes::new()), malformed);
    assert_eq!(signed(&|e| e.sections[0].commitment = Bytes::new()), malformed);
    for length in [0, 15, 16, 255 + 16, 257 + 16] {
        assert_eq!(signed(&|e| e.sections[0].ciphertext = vec![0; length].into()), malformed, "{length}");
    }
    assert_eq!(envelope(Kind::Referral, |e| e.sections[0].position = 96), Some(ErrorCode::ChangedSection));
    assert_eq!(envelope(Kind::Referral, |e| e.sections.push(e.sections[0].clone())), malformed);
    let large = |e: &mut Envelope| e.sections[0].ciphertext = vec![0; 4 << 20].into();
    assert_eq!(envelope(Kind::Referral, large), Some(ErrorCode::TooLarge));
}

#[test]
fn recipients() {
    use Kind::{Alert, Referral};
    let bad = Some(ErrorCode::BadRecipients);
    assert_eq!(envelope(Referral, |e| e.recipients.clear()), bad);
    assert_eq!(envelope(Alert, |e| e.recipients.clear()), bad);
    assert_eq!(envelope(Alert, |e| e.recipients.push(e.recipients[0].clone())), bad);
    let twin = |e: &mut Envelope| {
        let mut twin = e.recipients[0].clone();
        twin.address = "be/c".into();
        e.recipients.push(twin);
    };
    assert_eq!(envelope(Alert, twin), bad);
    let many = |e: &mut Envelope| e.recipients = vec![Default::default(); 4097];
    assert_eq!(envelope(Alert, many), Some(ErrorCode::TooLarge));
    assert_eq!(envelope(Alert, |e| e.recipients[0].address = "be/a".into()), Some(ErrorCode::ToOneself));
    assert_eq!(envelope(Alert, |e| e.recipients[0].address = "somebody".into()), Some(ErrorCode::Malformed));
    assert_eq!(envelope(Alert, |e| e.recipients[0].key_id = Bytes::new()), Some(ErrorCode::Malformed));
    assert_eq!(envelope(Alert, |e| e.tree_seed = Bytes::new()), Some(ErrorCode::Malformed));
    assert_eq!(envelope(Alert, |e| e.recipients[0].index = 4096), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].salt = Bytes::new()), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].bases_salt = Bytes::new()), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].encapsulation = vec![0; 33].into()), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].bases.reverse()), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].bases[0].basis = 0), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].bases[0].category = 0), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].bases[0].basis = 99), Some(ErrorCode::UnknownValue));
    assert_eq!(envelope(Alert, |e| e.recipients[0].bases[0].category = 99), Some(ErrorCode::UnknownValue));
    assert_eq!(envelope(Alert, |e| e.recipients[0].bases.truncate(1)), bad);
    assert_eq!(envelope(Alert, |e| drop(e.recipients[0].wrapped_keys.pop())), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].wrapped_keys[0].position = 95), bad);
    assert_eq!(envelope(Alert, |e| e.recipients[0].wrapped_keys[0].sealed_key = vec![0; 47].into()), bad);
    let double = |e: &mut Envelope| {
        let wrapped = e.recipients[0].wrapped_keys[0].clone();
        e.recipients[0].wrapped_keys.push(wrapped);
    };
    assert_eq!(envelope(Alert, double), bad);
}

#[test]
fn the_senders_key() {
    use Kind::Referral;
    assert_eq!(envelope(Referral, |e| e.sender_key = None), Some(ErrorCode::MissingField));
    let unproven = |e: &mut Envelope| e.sender_key.as_mut().unwrap().signature = vec![0; 64].into();
    assert_eq!(envelope(Referral, unproven), Some(ErrorCode::BadSignature));
    // The key of Agency::new was valid from ten days ago.
    let early = |m: &mut Manifest| m.created.as_mut().unwrap().seconds -= 11 * 86_400;
    assert_eq!(manifest(Referral, early), Some(ErrorCode::UnknownKey));
}
