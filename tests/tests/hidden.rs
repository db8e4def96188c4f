//! Agencies that policy hides from another domain: they can't be addressed from there, and what they send and
//! take is believed all the same.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    case::v1::UpdateReferralRequest,
    exchange::v1::Agency,
    federation::v1::{Forward, federation_service_client::FederationServiceClient},
    message::v1::{
        Acceptance, Acceptances, Acknowledgement, Notice, RecipientDecision, Rule, SignedKeyRecord,
        StateChange, error_code::Code as ErrorCode, kind::Code as Kind, notice,
        referral_state::Code as State, verdict::Code as Verdict,
    },
    times,
};
use liaison_tests::{
    call,
    hostile::{Answer, DOMAIN, Link},
    liar::{Liar, Lie},
    message,
    names::{HOSPITAL, SHELTER},
    outsider::{CATEGORIES, Outsider},
    policies,
    scene::{Scene, accepted},
};
use liaison_trust::{digest::sha256, statement};
use prost::Message;
use time::OffsetDateTime;

fn hiding(agency: &str) -> String {
    let resource = format!(r#"resource == Agency::"{agency}""#);
    let hidden = policies::forbid("hidden", r#"action == Action::"discover""#, &resource);
    format!("{}\n{hidden}", policies::OPEN)
}

/// A peer that knows the address of an agency that it may not know of learns no more than of one that is not there.
#[tokio::test]
async fn whom_policy_hides_a_peer_can_not_address() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(&hiding(SHELTER), port.address).await?;
    let mut link = scene.hostile.link().await?;
    let draft = scene.draft();
    let hidden = only(accepted(link.forward(&scene.hostile.forward_of(&draft)?).await?)?)?;
    let nobody = Outsider::new("be/nobody")?.key()?;
    let to_nobody = scene.hostile.shelter.draft(Kind::Referral, &[nobody], OffsetDateTime::now_utc());
    let absent = only(accepted(link.forward(&scene.hostile.forward_of(&to_nobody)?).await?)?)?;
    ensure!(hidden.verdict() == Verdict::Withheld, "{hidden:?}");
    ensure!(rule(&hidden, SHELTER)?.rule == "none:member", "{hidden:?}");
    ensure!(rule(&hidden, SHELTER)? == rule(&absent, "be/nobody")?, "the two answers differ");
    ensure!(scene.deliveries(&draft).await? == 0, "it was delivered");

    let [hidden, absent] = [preview(&scene, SHELTER).await?, preview(&scene, "be/nobody").await?];
    ensure!(rule(&hidden, SHELTER)? == rule(&absent, "be/nobody")?, "a preview tells them apart");
    let seen = preview(&scene, HOSPITAL).await?;
    ensure!(seen.verdict() == Verdict::Released, "{seen:?}");
    scene.local().await
}

/// Two changes of its keys between two messages, of which no directory tells.
#[tokio::test]
async fn a_hidden_agency_changes_its_keys() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut liar = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Honest).await?;
    let mut link = scene.hostile.link().await?;
    let first = Outsider::new("xx/hidden")?;
    let mut records = vec![first.record.clone()];
    let id = refers(&scene, &mut link, &first, &records).await?;
    let (second, told) = first.next(&records)?;
    let (third, told) = second.next(&told)?;
    records = told;
    // Without those between, nobody can tell that it is the same agency.
    let draft = third.draft(Kind::Referral, std::slice::from_ref(&scene.shelter), OffsetDateTime::now_utc());
    let gap = Agency { keys: Vec::new(), ..third.described(DOMAIN) };
    let forward = scene.hostile.forwarder().forward(&third.verified(&draft)?, gap, &[]);
    ensure!(matches!(link.forward(&forward).await?, Answer::Refused(_)), "a key from nowhere is taken");
    refers(&scene, &mut link, &third, &records).await?;

    // It changes them once more, and signs for what it is sent with the newest.
    let (fourth, told) = third.next(&records)?;
    let (fourth, told) = fourth.next(&told)?;
    let shelter = scene.realm.agent(SHELTER)?;
    let accept =
        UpdateReferralRequest { id: id.clone(), state: State::Accepted.into(), ..Default::default() };
    call::case(shelter)?.update_referral(accept).await?;
    let state = liar.forwarded().await.context("the answer does not come")?;
    ensure!(state.sender.as_ref().is_some_and(|sender| sender.keys.is_empty()), "a listed agency sends keys");
    let without = scene.hostile.sign_notice(&acknowledged(&fourth, &state, Vec::new())?);
    let early = link.notice(without).await?;
    let Answer::Refused(refusal) = early else { anyhow::bail!("an unknown key is believed: {early:?}") };
    ensure!(refusal.retry_after_ms > 0, "{refusal}");
    let answer = link.notice(scene.hostile.sign_notice(&acknowledged(&fourth, &state, told)?)).await?;
    ensure!(matches!(answer, Answer::Done), "{answer:?}");
    ensure!(!scene.lists("xx/hidden").await?, "it was revealed");
    Ok(())
}

/// A chain of keys has an end, however it is told in parts.
#[tokio::test]
async fn key_records_are_bounded() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    let mut agency = Outsider::new("xx/hidden")?;
    let mut records = vec![agency.record.clone()];
    let mut answer = None;
    for _ in 0..6 {
        for _ in 0..99 {
            let (next, told) = agency.next(&records)?;
            (agency, records) = (next, told);
        }
        let draft =
            agency.draft(Kind::Referral, std::slice::from_ref(&scene.shelter), OffsetDateTime::now_utc());
        let described = agency.described(DOMAIN);
        let forward =
            scene.hostile.forwarder().forward(&agency.verified(&draft)?, described.clone(), &CATEGORIES);
        let keys = records.get(records.len() - 100..).unwrap_or_default().to_vec();
        let sender = Some(Agency { keys, ..described });
        answer = Some(link.forward(&Forward { sender, ..forward }).await?);
    }
    let answer = answer.context("nothing was sent")?;
    scene.violation("more key records than an agency has", answer, ErrorCode::UnknownKey).await?;
    scene.harmless(&mut link).await
}

/// An agency of `be` that the peer may not know of sends its key records along.
#[tokio::test]
async fn a_hidden_agency_is_described_with_its_keys() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(&hiding(HOSPITAL), port.address).await?;
    let mut liar = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Honest).await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    wait::until("the peer's shelter is listed", async || scene.lists("xx/shelter").await.ok()?.then_some(()))
        .await?;
    scene.send(message::small_referral("xx/shelter")).await?;
    let forward = liar.forwarded().await.context("nothing was forwarded")?;
    let sender = forward.sender.context("no sender is described")?;
    ensure!(sender.keys.first() == forward.sender_key.as_ref(), "its key records do not come along");
    Ok(())
}

/// The agency refers to be's shelter, which receives it; the referral's id.
async fn refers(
    scene: &Scene,
    link: &mut Link,
    agency: &Outsider,
    keys: &[SignedKeyRecord],
) -> Result<String> {
    let draft = agency.draft(Kind::Referral, std::slice::from_ref(&scene.shelter), OffsetDateTime::now_utc());
    let described = agency.described(DOMAIN);
    let forward =
        scene.hostile.forwarder().forward(&agency.verified(&draft)?, described.clone(), &CATEGORIES);
    let sender = Some(Agency { keys: keys.to_vec(), ..described });
    accepted(link.forward(&Forward { sender, ..forward }).await?)?;
    let id = draft.message_id.to_string();
    call::received(scene.realm.agent(SHELTER)?, &id).await?;
    Ok(id)
}

/// The notice of the agency's gateway that the agency has a message, with these key records.
fn acknowledged(agency: &Outsider, forward: &Forward, keys: Vec<SignedKeyRecord>) -> Result<Notice> {
    let manifest = liaison_proto::message::v1::Manifest::decode(forward.manifest.clone())?;
    let digest = Bytes::from(sha256(&forward.manifest));
    let at = Some(times::to_wire(OffsetDateTime::now_utc()));
    let word = Acknowledgement {
        message_id: manifest.message_id.clone(),
        manifest_digest: digest.clone(),
        recipient: agency.address.to_string(),
        key_id: agency.key()?.id.into(),
        received_at: at,
        log_head: Vec::new().into(),
        keys_head: Vec::new().into(),
        thread_state: Some(StateChange { state: State::Accepted.into(), ..StateChange::default() }),
    };
    Ok(Notice {
        message_id: manifest.message_id,
        manifest_digest: digest,
        recipient: agency.address.to_string(),
        at,
        event: Some(notice::Event::Acknowledged(statement::sign(&word, &agency.signing))),
        recipient_keys: keys,
        ..Notice::default()
    })
}

/// What the gateway says of a peer's preview for this one.
async fn preview(scene: &Scene, recipient: &str) -> Result<RecipientDecision> {
    let mut client = FederationServiceClient::new(scene.hostile.connect().await?);
    let answer = client.preview(scene.hostile.preview(recipient)).await?.into_inner();
    answer.decisions.into_iter().next().context("no decision")
}

/// The decision for the one recipient that a message has.
fn only(acceptances: Acceptances) -> Result<RecipientDecision> {
    let signed = acceptances.acceptances.into_iter().next().context("no acceptance")?;
    let acceptance = Acceptance::decode(signed.acceptance)?;
    acceptance.decisions.into_iter().next().context("no decision")
}

/// The rule of a decision about this agency, without its name.
fn rule(decision: &RecipientDecision, of: &str) -> Result<Rule> {
    let rule = decision.rule.clone().context("no rule is told")?;
    Ok(Rule { explain: rule.explain.replace(of, "AGENCY"), ..rule })
}
