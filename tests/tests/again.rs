//! Messages that are offered again: the first answer holds, whatever came between.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    exchange::v1::Agency,
    federation::v1::{Bundle, Forward},
    limits,
    message::v1::{
        Refusal, data_category::Code as Category, error_code::Code as ErrorCode, kind::Code as Kind,
        referral_state::Code as State,
    },
    times,
};
use liaison_tests::{
    Realm, call,
    called::Called,
    hostile::{Answer, DOMAIN, Hostile},
    insider::Insider,
    message,
    names::{BORDER, HOSPITAL, SHELTER},
    policies,
    python::Stalled,
    realm::BE,
    scene::{Scene, accepted, refused},
};
use liaison_trust::digest::Digest;
use prost::Message;
use time::OffsetDateTime;

/// In which what was sent has reached the writer of the gateway.
const A_MOMENT: Duration = Duration::from_millis(500);
/// Messages that are offered several times at once, and how often.
const MESSAGES: usize = 20;
const OFFERS: usize = 16;

#[tokio::test]
async fn what_was_accepted_is_answered_whatever_changed_since() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let hostile = &scene.hostile;
    let mut link = hostile.link().await?;
    let (forward, other) = (scene.honest()?, scene.honest()?);
    let first = accepted(link.forward(&forward).await?)?;
    let now = || anyhow::Ok(hostile.bundle(u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?));
    let long_ago = OffsetDateTime::now_utc() - limits::BUNDLE_AGE - Duration::from_secs(60);
    let countries = vec![DOMAIN.to_owned(), "yy".to_owned()];
    for (what, code, country, bundle) in [
        ("a country to be confirmed", ErrorCode::Suspended, "yy", Bundle { countries, ..now()? }),
        (
            "another scheme",
            ErrorCode::SchemeMismatch,
            DOMAIN,
            Bundle { scheme_hash: Digest([9; 32]).into(), ..now()? },
        ),
        (
            "an old bundle",
            ErrorCode::StaleBundle,
            DOMAIN,
            Bundle { issued: Some(times::to_wire(long_ago)), ..now()? },
        ),
    ] {
        let answer = link.renew(hostile.sign(&bundle)).await?;
        ensure!(matches!(answer, Answer::Done), "{what}: {answer:?}");
        let of = |forward: &Forward| {
            let sender = forward.sender.clone();
            let sender = sender.map(|sender| Agency { country: country.to_owned(), ..sender });
            Forward { sender, ..forward.clone() }
        };
        refused(what, link.forward(&of(&other)).await?, code)?;
        let again = accepted(link.forward(&of(&forward)).await?).context(what)?;
        ensure!(again == first, "{what}: another acceptance");
    }
    Ok(())
}

/// What was accepted is answered with its acceptance, also when what waits has filled the queue meanwhile.
#[tokio::test]
async fn what_was_accepted_is_answered_though_the_queue_is_full() -> Result<()> {
    let mut be = Realm::prepare_domain(BE, &[("scheme/test.cedar", policies::OPEN)]).await?;
    be.gateway.configure("[limits]\nqueue_deliveries = 2")?;
    be.gateway.start().await?;
    be.join(&[HOSPITAL, SHELTER]).await?;
    let hostile = Hostile::accepted_by(&be.gateway, Port::free()?.address).await?;
    let key = Insider::enrol(&be.gateway, BORDER).await?.key_of(SHELTER).await?;
    be.agent_mut(SHELTER)?.stop().await?;
    let mut link = hostile.link().await?;
    let forward = || {
        let now = OffsetDateTime::now_utc();
        hostile.forward_of(&hostile.shelter.draft(Kind::Referral, std::slice::from_ref(&key), now))
    };
    let first = forward()?;
    let answer = accepted(link.forward(&first).await?)?;
    accepted(link.forward(&forward()?).await?)?;
    refused("a third", link.forward(&forward()?).await?, ErrorCode::QueueFull)?;
    let again = accepted(hostile.link().await?.forward(&first).await?)?;
    ensure!(answer == again, "another acceptance: {again:?}");
    Ok(())
}

/// The same referral, which opens a thread, many times at once.
#[tokio::test]
async fn offers_at_once_get_one_answer() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    for _ in 0..MESSAGES {
        let forward = scene.honest()?.encode_to_vec();
        for _ in 0..OFFERS {
            link.send_bytes(&forward).await?;
        }
        let mut first = None;
        for _ in 0..OFFERS {
            let (_, answer) = link.next_answer().await?;
            let answer = accepted(answer)?;
            ensure!(*first.get_or_insert(answer.clone()) == answer, "another acceptance");
        }
    }
    Ok(())
}

/// Of whom the offer that came first says nothing, nothing was decided: that is no word about a full queue.
#[tokio::test]
async fn an_offer_that_another_overtakes_is_to_be_made_again() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let hostile = &scene.hostile;
    let mut link = hostile.link().await?;
    scene.list(&mut link).await?;
    let hospital = Insider::enrol(&scene.realm.gateway, BORDER).await?.key_of(HOSPITAL).await?;
    let draft = hostile.shelter.draft(Kind::Alert, &[], OffsetDateTime::now_utc());
    let draft = message::health_alert(draft, &[scene.shelter.clone(), hospital]);
    let verified = hostile.shelter.verified(&draft)?;
    let described = hostile.shelter.described(DOMAIN);
    let both = hostile.forwarder().forward(&verified, described, &[Category::Risk]);
    let one = Forward { recipients: both.recipients.iter().take(1).cloned().collect(), ..both.clone() };

    let stalled = Stalled::begin(&scene.realm.gateway)?;
    let of_one = link.send_bytes(&one.encode_to_vec()).await?;
    tokio::time::sleep(A_MOMENT).await;
    link.send_bytes(&both.encode_to_vec()).await?;
    tokio::time::sleep(A_MOMENT).await;
    drop(stalled);
    for _ in 0..2 {
        match link.next_answer().await? {
            (number, answer) if number == of_one => {
                ensure!(accepted(answer)?.acceptances.len() == 1, "not accepted for one");
            }
            (_, answer) => {
                let refusal = refused("overtaken", answer, ErrorCode::RateLimited)?;
                ensure!(refusal.retry_after_ms > 0, "it does not say when to offer it again: {refusal}");
            }
        }
    }
    let again = accepted(link.forward(&both).await?)?;
    ensure!(again.acceptances.len() == 2, "not accepted for both: {again:?}");
    Ok(())
}

/// That a peer had not taken it is written down only after the message was offered over the next link: the peer may
/// have it from then on.
#[tokio::test]
async fn an_offer_outlives_the_word_on_the_one_before() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let (gateway, hostile) = (&scene.realm.gateway, &scene.hostile);
    scene.list(&mut hostile.link().await?).await?;
    let bundle = hostile.bundle(u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?);
    let bundle = hostile.sign(&bundle);
    let mut called = Called::start(&scene).await?;
    let mut link = called.linked_by(bundle.clone()).await?;
    let page = link.page().await?;
    link.done(page).await?;
    let id = scene.send(message::small_referral("xx/shelter")).await?;
    let offered = link.forward().await?;
    let stalled = Stalled::begin(gateway)?;
    let full = Refusal::new(ErrorCode::QueueFull, "the queue is full", "offer it again later");
    link.refuse(offered, full.retry_after(A_MOMENT)).await?;
    tokio::time::sleep(A_MOMENT).await;
    drop(link);
    let mut link = called.linked_by(bundle).await?;
    let page = link.page().await?;
    link.done(page).await?;
    // Before or after the writer goes on.
    let early = tokio::time::timeout(A_MOMENT, link.forward()).await;
    drop(stalled);
    let hospital = scene.realm.agent(HOSPITAL)?;
    wait::until("the sender is told that the queue was full", async || {
        let seen = call::referral(hospital, &id).await.ok()?;
        let told = seen.parts.iter().find_map(|part| part.unknown.clone())?;
        (told.code() == ErrorCode::QueueFull).then_some(())
    })
    .await?;
    if early.is_err() {
        link.forward().await?;
    }
    gateway.command(&["peer", "remove", DOMAIN]).await?;
    let seen = call::referral_in(hospital, &id, State::Refused).await?;
    let told = seen.refusal.context("no reason is told")?;
    ensure!(told.message.contains("may have"), "{told}");
    Ok(())
}
