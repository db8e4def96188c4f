//! A peer that was accepted and is hostile: whatever it sends against the rules is refused, named in the log and
//! in a metric, and harmless.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    exchange::v1::Agency,
    federation::v1::{DirectoryPage, Forward},
    message::v1::{
        Facts, Manifest, Notice, Refusal, ReleaseRecord, data_category::Code as Category,
        error_code::Code as ErrorCode, kem::Code as Kem, kind::Code as Kind, purpose::Code as Purpose,
        referral_state::Code as State, urgency::Code as Urgency,
    },
};
use liaison_tests::{
    call,
    hostile::{Answer, DOMAIN, Hostile, violations},
    names::{HOSPITAL, SHELTER},
    outsider::{CATEGORIES, Forwarder, Outsider},
    policies,
    scene::{Scene, accepted, refused},
};
use liaison_trust::{
    digest::Digest,
    envelope::Verified,
    key_record,
    keys::{KemKey, SigningKey},
    statement,
};
use prost::Message;
use time::OffsetDateTime;

/// Field 1000, a varint.
const UNKNOWN_FIELD: [u8; 3] = [0xc0, 0x3e, 0x01];

#[tokio::test]
async fn agencies_that_are_not_its_own_to_list() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    let listed = |agency: Agency| scene.hostile.page(vec![agency]);
    let own = || scene.hostile.shelter.described(DOMAIN);
    let of = |address: &str| anyhow::Ok(Outsider::new(address)?.described(DOMAIN));
    let now = OffsetDateTime::now_utc();
    // A second record that another key than the first's signed for.
    let other = Outsider::new("xx/shelter")?;
    let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::X25519)?);
    let until = now + time::Duration::days(20);
    let next = key_record::next(&other.record, &other.signing, &signing, &kem, now, until)?;
    let broken = Agency { keys: vec![scene.hostile.shelter.record.clone(), next], ..own() };
    let theirs = Agency { keys: vec![other.record], address: "xx/clinic".to_owned(), ..own() };
    let attacks: Vec<(&str, DirectoryPage)> = vec![
        ("an agency of this domain", listed(of(HOSPITAL)?)),
        ("an agency of a third domain", listed(of("hu/shelter")?)),
        ("a country that is none", listed(scene.hostile.shelter.described("Narnia"))),
        ("no sector", listed(Agency { sectors: Vec::new(), ..own() })),
        ("an agency twice", scene.hostile.page(vec![own(), own()])),
        ("another domain's page", DirectoryPage { domain: "hu".to_owned(), ..listed(own()) }),
        ("a page for another peer", DirectoryPage { peer: "hu".to_owned(), ..listed(own()) }),
        (
            "another domain's agency withdrawn",
            DirectoryPage { withdrawn: vec![SHELTER.to_owned()], ..listed(own()) },
        ),
    ];
    let signed: Vec<_> =
        attacks.iter().map(|(what, page)| (*what, statement::sign(page, &scene.hostile.signing))).collect();
    let not_signed = statement::sign(&listed(own()), &SigningKey::generate());
    let honest = statement::sign(&listed(own()), &scene.hostile.signing);
    let renamed = Agency { keys: vec![Outsider::new("xx/shelter")?.record], ..own() };
    let third = Outsider::new("xx/third")?.described(DOMAIN);

    for (what, page) in signed {
        let answer = link.directory(page).await?;
        scene.violation(what, answer, ErrorCode::PeerViolation).await?;
    }
    let answer = link.directory(not_signed).await?;
    scene.violation("a page that it did not sign", answer, ErrorCode::BadSignature).await?;
    // Keys that do not hold concern their agency alone: it can't be addressed, the others of the page can.
    for (what, address, odd) in [
        ("a key chain that is broken", "xx/shelter", broken),
        ("another agency's keys", "xx/clinic", theirs),
        ("other keys than it said before", "xx/shelter", renamed),
    ] {
        let answer = link.directory(honest.clone()).await?;
        ensure!(matches!(answer, Answer::Done), "an honest page: {answer:?}");
        ensure!(scene.lists("xx/shelter").await?, "an honest page was not taken");
        let page = statement::sign(&scene.hostile.page(vec![odd, third.clone()]), &scene.hostile.signing);
        let answer = link.directory(page).await?;
        ensure!(matches!(answer, Answer::Done), "{what}: {answer:?}");
        scene.counted(what, ErrorCode::UnknownKey).await?;
        ensure!(!scene.lists(address).await?, "{what}: {address} can be addressed");
        ensure!(scene.lists("xx/third").await?, "{what}: another agency was left out with it");
    }
    // Its bundle may have named a country until a moment ago: an agency of one that was not confirmed is left out.
    let page = scene.hostile.page(vec![Outsider::new("xx/fourth")?.described("be")]);
    let answer = link.directory(statement::sign(&page, &scene.hostile.signing)).await?;
    ensure!(matches!(answer, Answer::Done), "a country that is not confirmed: {answer:?}");
    ensure!(
        !scene.lists("xx/fourth").await?,
        "an agency of a country that was not confirmed can be addressed"
    );
    // Of all that, be's own hospital still has its own keys, and is there.
    scene.harmless(&mut link).await
}

#[tokio::test]
async fn senders_and_recipients_that_are_not_its_own() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    for name in [HOSPITAL, "hu/shelter"] {
        // Its own keys under another's name, told of as such and as its own agency.
        let forged = Outsider::new(name)?;
        let draft =
            forged.draft(Kind::Referral, std::slice::from_ref(&scene.shelter), OffsetDateTime::now_utc());
        let message = forged.verified(&draft)?;
        for described in [forged.described(DOMAIN), scene.hostile.shelter.described(DOMAIN)] {
            let forward = scene.hostile.forwarder().forward(&message, described, &CATEGORIES);
            let answer = link.forward(&forward).await?;
            scene.violation("a forged sender", answer, ErrorCode::PeerViolation).await?;
        }
        ensure!(scene.deliveries(&draft).await? == 0, "delivered in the name of {name}");
    }
    let honest = scene.honest()?;
    let clinic = Some(scene.hostile.clinic.described(DOMAIN));
    let answer = link.forward(&Forward { sender: clinic, ..honest.clone() }).await?;
    scene.violation("another agency described", answer, ErrorCode::PeerViolation).await?;
    let elsewhere = Some(Agency { keys: Vec::new(), ..scene.hostile.shelter.described("be") });
    let answer = link.forward(&Forward { sender: elsewhere, ..honest.clone() }).await?;
    refused("a sender of a country that was not confirmed", answer, ErrorCode::Suspended)?;
    let answer = link.forward(&Forward { sender: None, ..honest.clone() }).await?;
    scene.violation("no sender", answer, ErrorCode::PeerViolation).await?;
    let answer = link.forward(&Forward { sender_key: None, ..honest }).await?;
    scene.violation("no key of the sender", answer, ErrorCode::MissingField).await?;

    // Nothing transits, neither to a third domain nor back.
    for name in ["hu/shelter", "xx/clinic"] {
        let to = Outsider::new(name)?.key()?;
        let draft = scene.hostile.shelter.draft(Kind::Referral, &[to], OffsetDateTime::now_utc());
        let answer = link.forward(&scene.hostile.forward_of(&draft)?).await?;
        scene.violation("a recipient of another domain", answer, ErrorCode::PeerViolation).await?;
    }

    // Once its keys are known, no other key speaks for an agency.
    let page = scene.hostile.page(vec![scene.hostile.shelter.described(DOMAIN)]);
    let answer = link.directory(statement::sign(&page, &scene.hostile.signing)).await?;
    ensure!(matches!(answer, Answer::Done), "an honest page: {answer:?}");
    let other = Outsider::new("xx/shelter")?;
    let draft = other.draft(Kind::Referral, std::slice::from_ref(&scene.shelter), OffsetDateTime::now_utc());
    let forward = scene.hostile.forward(&other.verified(&draft)?);
    let answer = link.forward(&forward).await?;
    scene.violation("a key that does not continue the known ones", answer, ErrorCode::UnknownKey).await?;
    scene.harmless(&mut link).await
}

#[tokio::test]
async fn replays_and_reordering() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    let draft = scene.draft();
    let state = scene.hostile.shelter.cancellation(&draft, &scene.shelter, OffsetDateTime::now_utc());
    let state = scene.hostile.forward_of(&state)?;
    let answer = link.forward(&state).await?;
    let Answer::Refused(refusal) = answer else { bail!("a state before its referral: {answer:?}") };
    ensure!(refusal.code() == ErrorCode::NotAParty, "{refusal:?}");

    let forward = scene.hostile.forward_of(&draft)?;
    let first = accepted(link.forward(&forward).await?)?;
    let again = accepted(link.forward(&forward).await?)?;
    ensure!(first == again, "a replay gets another acceptance");
    let mut on_another = scene.hostile.link().await?;
    ensure!(accepted(on_another.forward(&forward).await?)? == first, "a replay on another link");
    let mut link = on_another;
    call::received(scene.realm.agent(SHELTER)?, &draft.message_id.to_string()).await?;
    // The same id for what is sealed anew.
    let answer = link.forward(&scene.hostile.forward_of(&draft)?).await?;
    scene.violation("an id used again", answer, ErrorCode::IdReused).await?;

    let cancelled = accepted(link.forward(&state).await?)?;
    let shelter = scene.realm.agent(SHELTER)?;
    call::referral_in(shelter, &draft.message_id.to_string(), State::Cancelled).await?;
    ensure!(accepted(link.forward(&state).await?)? == cancelled, "a replayed state");
    ensure!(accepted(link.forward(&forward).await?)? == first, "a replay after the end");
    ensure!(scene.deliveries(&draft).await? == 1, "delivered again");
    scene.harmless(&mut link).await
}

#[tokio::test]
async fn messages_that_are_not_as_signed_or_not_as_released() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    for (what, code, attack) in attacks() {
        let message = scene.hostile.shelter.verified(&scene.draft())?;
        let mut forward = scene.hostile.forward(&message);
        attack(&scene.hostile, &message, &mut forward).context(what)?;
        let answer = link.forward(&forward).await?;
        scene.violation(what, answer, code).await?;
    }

    // It has another scheme: no violation, but nothing crosses.
    let message = scene.hostile.shelter.verified(&scene.draft())?;
    let forwarder = Forwarder { scheme: Digest([9; 32]), ..scene.hostile.forwarder() };
    let forward = forwarder.forward(&message, scene.hostile.shelter.described(DOMAIN), &CATEGORIES);
    let refusal = refused("another scheme", link.forward(&forward).await?, ErrorCode::SchemeMismatch)?;
    ensure!(refusal.retry_after_ms > 0, "a mended scheme lets it pass later: {refusal}");
    ensure!(call::received_ids(scene.realm.agent(SHELTER)?).await?.is_empty(), "something was delivered");
    scene.harmless(&mut link).await
}

type Attack = fn(&Hostile, &Verified, &mut Forward) -> Result<()>;

fn attacks() -> Vec<(&'static str, ErrorCode, Attack)> {
    vec![
        ("a changed manifest", ErrorCode::BadSignature, |_, _, forward| {
            let mut head = Manifest::decode(forward.manifest.clone())?;
            head.urgency = Urgency::Past.into();
            forward.manifest = head.encode_to_vec().into();
            Ok(())
        }),
        ("a manifest signed again by another agency", ErrorCode::BadSignature, |hostile, _, forward| {
            let signature = hostile.clinic.signing.sign("manifest/v1", &forward.manifest);
            forward.signature = Bytes::copy_from_slice(&signature);
            Ok(())
        }),
        ("a manifest with another agency's key", ErrorCode::SenderMismatch, |hostile, _, forward| {
            let signature = hostile.clinic.signing.sign("manifest/v1", &forward.manifest);
            forward.signature = Bytes::copy_from_slice(&signature);
            forward.sender_key = Some(hostile.clinic.record.clone());
            Ok(())
        }),
        ("a section stripped", ErrorCode::PeerViolation, |_, _, forward| {
            forward.sections.pop().context("no section").map(drop)
        }),
        ("sections swapped", ErrorCode::ChangedSection, |_, _, forward| {
            if let [one, other] = forward.sections.as_mut_slice() {
                std::mem::swap(&mut one.ciphertext, &mut other.ciphertext);
            }
            Ok(())
        }),
        ("a section changed", ErrorCode::ChangedSection, |_, _, forward| {
            let section = forward.sections.first_mut().context("no section")?;
            section.ciphertext = section.ciphertext.iter().map(|byte| !byte).collect();
            Ok(())
        }),
        ("a section added to its record", ErrorCode::PeerViolation, |hostile, message, forward| {
            let described = hostile.shelter.described(DOMAIN);
            let less = hostile.forwarder().forward(message, described, &[Category::ServiceRequest]);
            *forward = Forward { sections: std::mem::take(&mut forward.sections), ..less };
            Ok(())
        }),
        ("a key added to its record", ErrorCode::PeerViolation, |hostile, message, forward| {
            let described = hostile.shelter.described(DOMAIN);
            let less = hostile.forwarder().forward(message, described, &[Category::ServiceRequest]);
            let release = less.recipients.into_iter().next().and_then(|recipient| recipient.release);
            forward.recipients.first_mut().context("no recipient")?.release = release;
            Ok(())
        }),
        ("no release record", ErrorCode::BadSignature, |_, _, forward| {
            forward.recipients.first_mut().context("no recipient")?.release = None;
            Ok(())
        }),
        ("a release record of another key", ErrorCode::BadSignature, |hostile, message, forward| {
            let signing = SigningKey::generate();
            let other = Forwarder { signing: &signing, scheme: hostile.scheme };
            *forward = other.forward(message, hostile.shelter.described(DOMAIN), &CATEGORIES);
            Ok(())
        }),
        ("a release record of another message", ErrorCode::PeerViolation, |hostile, message, forward| {
            let recipient = message.recipients.first().context("no recipient")?;
            let positions: Vec<u32> =
                message.sections.iter().map(|section| section.section.position).collect();
            let record = hostile.forwarder().record(message, recipient, &positions);
            let record = ReleaseRecord { manifest_digest: Digest([9; 32]).into(), ..record };
            let entry = forward.recipients.first_mut().context("no recipient")?;
            entry.release = Some(statement::sign(&record, &hostile.signing));
            Ok(())
        }),
        ("other facts", ErrorCode::ChangedSection, |_, _, forward| {
            let facts = Facts { purpose: Purpose::CriminalInvestigation.into(), ..Facts::default() };
            forward.facts = facts.encode_to_vec().into();
            Ok(())
        }),
        ("no facts", ErrorCode::MissingField, |_, _, forward| {
            (forward.facts, forward.facts_salt, forward.facts_position) = (Bytes::new(), Bytes::new(), 0);
            Ok(())
        }),
        ("another recipient", ErrorCode::BadRecipients, |_, _, forward| {
            let entry = forward.recipients.first_mut().context("no recipient")?;
            entry.proof.as_mut().context("no proof")?.address = HOSPITAL.to_owned();
            Ok(())
        }),
        ("a basis taken away", ErrorCode::BadRecipients, |_, _, forward| {
            let entry = forward.recipients.first_mut().context("no recipient")?;
            entry.bases.as_mut().context("no bases")?.bases.pop();
            Ok(())
        }),
        ("a recipient twice", ErrorCode::BadRecipients, |_, _, forward| {
            let entry = forward.recipients.first().context("no recipient")?.clone();
            forward.recipients.push(entry);
            Ok(())
        }),
        ("no recipient", ErrorCode::BadRecipients, |_, _, forward| {
            forward.recipients.clear();
            Ok(())
        }),
    ]
}

#[tokio::test]
async fn what_the_scheme_forbids() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(&policies::without_health_for(SHELTER), port.address).await?;
    let mut link = scene.hostile.link().await?;
    let draft = scene.draft();
    let message = scene.hostile.shelter.verified(&draft)?;
    let answer = link.forward(&scene.hostile.forward(&message)).await?;
    let refusal = scene.violation("a forbidden section", answer, ErrorCode::PeerViolation).await?;
    ensure!(refusal.message.contains("no-health-there"), "it does not name the rule: {refusal}");
    ensure!(scene.deliveries(&draft).await? == 0, "delivered");
    // Without what is forbidden, the same message passes.
    let described = scene.hostile.shelter.described(DOMAIN);
    let less = scene.hostile.forwarder().forward(&message, described, &[Category::ServiceRequest]);
    accepted(link.forward(&less).await?)?;
    let received = call::received(scene.realm.agent(SHELTER)?, &draft.message_id.to_string()).await?;
    let has = |category: &str| received.sections.get(category).is_some_and(|it| it.content.is_some());
    ensure!(has("service_request") && !has("health"), "other sections came: {:?}", received.sections.keys());
    scene.local().await
}

#[tokio::test]
async fn what_this_version_does_not_know() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    let sign_again = |hostile: &Hostile, forward: Forward, manifest: Vec<u8>| {
        let signature = Bytes::copy_from_slice(&hostile.shelter.signing.sign("manifest/v1", &manifest));
        Forward { manifest: manifest.into(), signature, ..forward }.encode_to_vec()
    };
    let honest = scene.honest()?;
    let mut attacks = vec![
        ("a field of a forward", [honest.encode_to_vec().as_slice(), &UNKNOWN_FIELD].concat()),
        (
            "a field of a manifest",
            sign_again(&scene.hostile, honest.clone(), [honest.manifest.as_ref(), &UNKNOWN_FIELD].concat()),
        ),
    ];
    let mut head = Manifest::decode(honest.manifest.clone())?;
    head.urgency = 77;
    attacks.push(("a value in a manifest", sign_again(&scene.hostile, honest.clone(), head.encode_to_vec())));
    let mut described = scene.hostile.shelter.described(DOMAIN);
    described.sectors.push(77);
    let unknown = Forward { sender: Some(described.clone()), ..honest.clone() };
    attacks.push(("a value in a forward", unknown.encode_to_vec()));
    for (what, bytes) in attacks {
        let answer = link.forward_bytes(&bytes).await?;
        says_what_to_upgrade(&scene.violation(what, answer, ErrorCode::UnknownValue).await?)?;
    }
    let mut unknown = honest;
    let entry = unknown.recipients.first_mut().context("no recipient")?;
    let release = entry.release.as_mut().context("no release")?;
    release.record = [release.record.as_ref(), &UNKNOWN_FIELD].concat().into();
    let signature = scene.hostile.signing.sign("release-record/v1", &release.record);
    release.signature = Bytes::copy_from_slice(&signature);
    let answer = link.forward(&unknown).await?;
    let refusal = scene.violation("a field of a record", answer, ErrorCode::UnknownValue).await?;
    says_what_to_upgrade(&refusal)?;

    let page = scene.hostile.page(vec![described]);
    let answer = link.directory(statement::sign(&page, &scene.hostile.signing)).await?;
    let refusal = scene.violation("a value in a page", answer, ErrorCode::UnknownValue).await?;
    says_what_to_upgrade(&refusal)?;
    let mut page = statement::sign(&scene.hostile.page(Vec::new()), &scene.hostile.signing);
    page.page = [page.page.as_ref(), &UNKNOWN_FIELD].concat().into();
    page.signature = Bytes::copy_from_slice(&scene.hostile.signing.sign("directory/v1", &page.page));
    let answer = link.directory(page).await?;
    says_what_to_upgrade(&scene.violation("a field of a page", answer, ErrorCode::UnknownValue).await?)?;

    // A notice waits for the upgrade: that is no violation.
    let counted = violations(&scene.realm.gateway, ErrorCode::UnknownValue.as_str_name()).await?;
    let mut notice = scene.hostile.sign_notice(&Notice::default());
    notice.notice = Bytes::from_static(&UNKNOWN_FIELD);
    notice.signature = Bytes::copy_from_slice(&scene.hostile.signing.sign("notice/v1", &notice.notice));
    let refusal = refused("a field of a notice", link.notice(notice).await?, ErrorCode::UnknownValue)?;
    ensure!(refusal.retry_after_ms > 0, "it is not to be sent again: {refusal}");
    let after = violations(&scene.realm.gateway, ErrorCode::UnknownValue.as_str_name()).await?;
    ensure!(after == counted, "it counts as a violation");

    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
    let mut bundle = scene.hostile.sign(&scene.hostile.bundle(now));
    bundle.bundle = [bundle.bundle.as_ref(), &UNKNOWN_FIELD].concat().into();
    bundle.signature = Bytes::copy_from_slice(&scene.hostile.signing.sign("bundle/v1", &bundle.bundle));
    let answer = link.renew(bundle).await?;
    says_what_to_upgrade(&scene.violation("a field of a bundle", answer, ErrorCode::UnknownValue).await?)?;
    scene.harmless(&mut link).await
}

fn says_what_to_upgrade(refusal: &Refusal) -> Result<()> {
    ensure!(refusal.action.contains("upgrade"), "it does not say which side to upgrade: {refusal:?}");
    Ok(())
}

/// The link of a peer that was refused is one that the peer can open again.
#[tokio::test]
async fn a_peer_that_mends_its_ways_is_heard() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    let answer = link.forward_bytes(&[0xff; 64]).await?;
    scene.violation("garbage", answer, ErrorCode::Malformed).await?;
    drop(link);
    let status = scene.realm.gateway.command(&["peer", "show", DOMAIN, "--json"]).await?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(status.to_string().contains("violations"), "peer show says nothing of violations: {status}");
    let mut link = scene.hostile.link().await?;
    scene.harmless(&mut link).await?;
    wait::until("the shelter has nothing of the garbage", async || {
        (call::received_ids(scene.realm.agent(SHELTER).ok()?).await.ok()?.len() == 2).then_some(())
    })
    .await
}
