//! Honest parties.

use proptest::prelude::*;

use super::*;

#[test]
fn a_referral_reaches_its_recipient_without_what_was_withheld() {
    for kem in [Kem::XWing, Kem::X25519] {
        let scene = Scene::new(kem);
        let verified = verify(scene.envelope(), NOW).unwrap();
        assert_eq!(verified.sender, scene.sender.key.agency);
        assert_eq!(verified.facts, scene.draft.facts);
        assert_eq!(verified.recipients[0].bases, scene.draft.recipients[0].bases);
        let copy = release(&verified, 0, &[Category::Health], &scene.gateway);
        assert_eq!(copy.sections.len(), 1);
        assert_eq!(copy.recipient.as_ref().unwrap().wrapped_keys.len(), 1);
        let received = scene.receive(&copy).unwrap();
        assert_eq!(received.id, scene.draft.message_id);
        assert_eq!(received.thread, scene.draft.thread);
        assert_eq!(received.digest, verified.digest);
        assert_eq!(opened(&received), [(Category::Health, plaintext(Category::Health).to_vec())].into());
    }
}

#[test]
fn a_copy_of_which_all_is_withheld_is_still_received() {
    let scene = Scene::new(Kem::X25519);
    let copy = release(&verify(scene.envelope(), NOW).unwrap(), 0, &[], &scene.gateway);
    assert!(opened(&scene.receive(&copy).unwrap()).is_empty());
    // It has no encapsulation, as nothing would tell if that was changed.
    let mut copy = copy;
    copy.recipient.as_mut().unwrap().encapsulation = vec![1; 32].into();
    assert_eq!(code(scene.receive(&copy)), Some(ErrorCode::BadRecipients));
}

#[test]
fn an_onward_message_has_a_head_alone_and_says_all_in_it() {
    let scene = Scene::new(Kem::X25519);
    let draft = draft(&scene.sender, Kind::Onward, &[], vec![scene.recipient.to(&[])]);
    let verified = verify(scene.sender.seal(&draft), NOW).unwrap();
    assert_eq!((verified.facts.clone(), verified.sections.len()), (None, 0));
    let received = scene.receive(&release(&verified, 0, &[], &scene.gateway)).unwrap();
    assert_eq!(received.manifest.onward, draft.onward);
    assert!(received.sections.is_empty());
    let unsaid = Draft { onward: None, ..draft };
    assert!(seal(&unsaid, &scene.sender.signing, &scene.sender.key.signed).is_err());
}

#[test]
fn a_state_message_has_a_head_alone() {
    let scene = Scene::new(Kem::X25519);
    let draft = draft(&scene.sender, Kind::State, &[], vec![scene.recipient.to(&[])]);
    let verified = verify(scene.sender.seal(&draft), NOW).unwrap();
    assert_eq!((verified.facts.clone(), verified.sections.len()), (None, 0));
    let received = scene.receive(&release(&verified, 0, &[], &scene.gateway)).unwrap();
    assert_eq!(received.manifest.state_change, draft.state_change);
    assert_eq!(received.manifest.leaves.len(), 24);
}

#[test]
fn a_known_key_is_not_proven_again_but_a_changed_one_is() {
    let scene = Scene::new(Kem::X25519);
    let known = |_: &Digest| Some(&scene.sender.key);
    assert!(verify_known(scene.envelope(), NOW, known).is_ok());
    let mut envelope = scene.envelope();
    let record = envelope.sender_key.as_mut().unwrap();
    record.signature = [0; 64].as_slice().to_vec().into();
    assert_eq!(code(verify_known(envelope, NOW, known)), Some(ErrorCode::BadSignature));
}

#[test]
fn the_largest_alert_is_taken() {
    let sender = Agency::new("be/sender", Kem::X25519);
    let recipient = Agency::new("be/recipient", Kem::X25519);
    let recipients = (0..4096)
        .map(|number| {
            let mut recipient = recipient.to(&[Category::Risk]);
            recipient.key.agency = format!("be/{number}").parse().unwrap();
            recipient
        })
        .collect();
    let mut alert = draft(&sender, Kind::Alert, &[Category::Risk], recipients);
    let verified = verify(sender.seal(&alert), NOW).unwrap();
    assert_eq!(verified.recipients.len(), 4096);
    alert.recipients.push(sender.to(&[]));
    let refused = seal(&alert, &sender.signing, &sender.key.signed).unwrap_err();
    assert!(matches!(refused, SealError::Draft(EnvelopeError::TooLarge { limit: 4096, .. })), "{refused}");
}

#[test]
fn what_a_gateway_would_refuse_is_not_sealed() {
    let Scene { sender, recipient, draft: mut referral, .. } = Scene::new(Kem::X25519);
    let refused = |draft: &Draft| seal(draft, &sender.signing, &sender.key.signed).unwrap_err();
    let stranger = SigningKey::generate();
    assert_eq!(
        seal(&referral, &stranger, &sender.key.signed).unwrap_err(),
        SealError::NotTheSender(sender.key.agency.clone())
    );
    assert_eq!(
        seal(&referral, &recipient.signing, &recipient.key.signed).unwrap_err(),
        SealError::NotTheSender(sender.key.agency.clone())
    );

    referral.recipients = vec![recipient.to(&[Category::Narrative])];
    assert_eq!(
        refused(&referral),
        SealError::BasisWithoutSection {
            recipient: recipient.key.agency.clone(),
            category: Category::Narrative
        }
    );
    referral.recipients = vec![sender.to(&[])];
    assert_eq!(refused(&referral), EnvelopeError::ToOneself(sender.key.agency.clone()).into());
    referral.recipients = vec![];
    assert_eq!(refused(&referral), EnvelopeError::Recipients("there are none").into());
    let mut weak = recipient.to(&[]);
    weak.key.kem_key = vec![0; 32].into();
    referral.recipients = vec![weak];
    assert_eq!(refused(&referral), SealError::RecipientKey(recipient.key.agency.clone()));
    referral.recipients = vec![recipient.to(&[])];
    referral.expires = NOW + Duration::days(31);
    assert_eq!(refused(&referral), EnvelopeError::Lifetime.into());
}

/// Categories that an alert on a missing minor may hold.
const ALERT: [Category; 7] = [
    Category::Risk,
    Category::Identity,
    Category::Demographic,
    Category::Minor,
    Category::Location,
    Category::Contact,
    Category::Narrative,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn each_recipient_opens_what_a_basis_covers_and_a_gateway_releases(
        contents in proptest::collection::btree_map(
            proptest::sample::select(ALERT.to_vec()),
            proptest::collection::vec(any::<u8>(), 0..2000),
            1..ALERT.len(),
        ),
        recipients in proptest::collection::vec((any::<bool>(), any::<u8>(), any::<u8>()), 1..6),
    ) {
        let chosen = |bits: u8| -> Vec<Category> {
            let bit = |(place, category): (usize, &Category)| {
                (bits >> place & 1 == 1 && contents.contains_key(category)).then_some(*category)
            };
            ALERT.iter().enumerate().filter_map(bit).collect()
        };
        let gateway = SigningKey::generate();
        let sender = Agency::new("be/sender", Kem::XWing);
        let agencies: Vec<Agency> = recipients
            .iter()
            .enumerate()
            .map(|(number, (x_wing, ..))| {
                Agency::new(&format!("be/{number}"), if *x_wing { Kem::XWing } else { Kem::X25519 })
            })
            .collect();
        let to = agencies.iter().zip(&recipients).map(|(agency, (_, bases, _))| agency.to(&chosen(*bases)));
        let mut alert = draft(&sender, Kind::Alert, &[], to.collect());
        alert.sections =
            contents.iter().map(|(category, text)| (*category, Zeroizing::new(text.clone()))).collect();

        let verified = verify(sender.seal(&alert), NOW).unwrap();
        for (place, (agency, (_, bases, released))) in agencies.iter().zip(&recipients).enumerate() {
            let due = chosen(bases & released);
            let copy = release(&verified, place, &due, &gateway);
            let received = agency.receive(&copy, &sender, &gateway).unwrap();
            let expected = due.iter().map(|category| (*category, contents[category].clone())).collect();
            prop_assert_eq!(opened(&received), expected);
        }
    }
}
