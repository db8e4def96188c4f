//! Previews across a border: asked too often they are refused, and nothing of them stays anywhere.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Agent, Gateway, port::Port, wait};
use liaison_proto::{
    case::v1::{PreviewRequest, preview_request::Message},
    exchange::v1::{MessageHead, PreviewRecipient, PreviewRequest as Question},
    federation::v1::{PreviewRequest as Asked, federation_service_client::FederationServiceClient},
    message::v1::{
        Audience, Facts, Refusal, error_code::Code as ErrorCode, kind::Code as Kind,
        purpose::Code as Purpose, verdict::Code as Verdict,
    },
};
use liaison_tests::{
    Federation, Realm, call,
    federation::{Setup, knows},
    insider::Insider,
    message,
    names::{POLICE_HU, SHELTER, SHELTER_HU},
    policies,
    python::database,
    realm::{BE, HU},
    scene::{Scene, accepted},
};
use tokio::{task::JoinSet, time::sleep};
use tonic::transport::Channel;

/// Previews that one peer may ask for in a second.
const A_SECOND: u64 = 20;
/// Previews that the peer asks for at once, again and again.
const AT_ONCE: usize = 50;
/// Callers of one agency that asks without end.
const CALLERS: usize = 8;
/// Between two previews of an agency that asks for what it may: five in a second.
const BETWEEN: Duration = Duration::from_millis(250);
/// As often everybody else does meanwhile what is theirs to do.
const ROUNDS: usize = 20;
/// A database that is the same for so long has nothing more to come.
const QUIET: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_peer_that_asks_too_often_is_refused_and_nobody_else() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let hu = scene.neighbour(policies::OPEN).await?;
    let mut link = scene.hostile.link().await?;
    let channel = scene.hostile.connect().await?;

    let (on, began) = (Cell::new(true), Instant::now());
    let flood = async {
        let (mut answered, mut refused) = (0, 0);
        while on.get() || refused == 0 {
            let mut asking = JoinSet::new();
            for _ in 0..AT_ONCE {
                asking.spawn(preview(channel.clone(), scene.hostile.preview(SHELTER)));
            }
            while let Some(answer) = asking.join_next().await {
                let Err(refusal) = answer? else {
                    answered += 1;
                    continue;
                };
                ensure!(refusal.code() == ErrorCode::RateLimited, "{refusal}");
                ensure!(refusal.retry_after_ms > 0 && !refusal.action.is_empty(), "{refusal:?}");
                refused += 1;
            }
            // The second that was counted first may have begun before, and the last one ends later.
            let most = A_SECOND * (began.elapsed().as_secs() + 2);
            ensure!(answered <= most, "{answered} were answered where {most} may be");
        }
        println!("{answered} previews were answered, {refused} refused");
        Ok(())
    };
    let others = async {
        for _ in 0..ROUNDS {
            scene.local().await?;
            // An honest peer is asked and asks as ever, and this one may send what it may.
            by_be(hu.agent(SHELTER_HU)?, Message::Referral(message::small_referral(SHELTER))).await?;
            accepted(link.forward(&scene.honest()?).await?)?;
            sleep(BETWEEN).await;
        }
        anyhow::Ok(())
    };
    let others = async {
        let outcome = others.await;
        on.set(false);
        outcome
    };
    let (flooded, others) = tokio::join!(flood, others);
    flooded?;
    others?;

    wait::until("the peer is answered again", async || {
        preview(channel.clone(), scene.hostile.preview(SHELTER)).await.ok()
    })
    .await?;
    scene.harmless(&mut link).await
}

/// One agency that asks without end leaves to the others of its domain what they may ask.
#[tokio::test]
async fn no_agency_uses_up_what_its_domain_may_ask() -> Result<()> {
    let setup =
        Setup { domains: &[BE, HU], scheme: policies::OPEN, layers: &[], agencies: &[SHELTER, SHELTER_HU] };
    let federation = Federation::start(&setup).await?;
    let greedy = Insider::enrol(&federation.realm("hu")?.gateway, POLICE_HU).await?;
    let head = MessageHead {
        kind: Kind::Referral.into(),
        facts: Some(Facts { purpose: Purpose::VictimSupport.into(), ..Facts::default() }),
        ..MessageHead::default()
    };
    let recipient = PreviewRecipient { address: SHELTER.to_owned(), bases: Vec::new() };
    let question = Question { head: Some(head), recipients: vec![recipient] };
    let mut asking = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut exchange, question) = (greedy.exchange().await?, question.clone());
        asking.spawn(async move {
            loop {
                // What it is answered is not what this is about.
                let _ = exchange.preview(question.clone()).await;
            }
        });
    }
    for _ in 0..ROUNDS {
        let asked = Message::Referral(message::small_referral(SHELTER));
        by_be(federation.agent(SHELTER_HU)?, asked).await?;
        sleep(BETWEEN).await;
    }
    asking.shutdown().await;
    Ok(())
}

/// Asks as a gateway what the shelter would get: all of it.
async fn preview(channel: Channel, request: Asked) -> Result<(), Refusal> {
    let answer = FederationServiceClient::new(channel).preview(request).await;
    let answer = answer.map_err(|status| Refusal::from(&status))?.into_inner();
    match answer.decisions.as_slice() {
        [decision] if decision.recipient == SHELTER && decision.verdict() == Verdict::Released => Ok(()),
        other => Err(Refusal::new(ErrorCode::Internal, format!("not what is decided: {other:?}"), "none")),
    }
}

/// Asks as an agency what would become of a message, and checks that `be` had its say.
async fn by_be(agent: &Agent, message: Message) -> Result<()> {
    let question = PreviewRequest { message: Some(message) };
    let preview = call::case(agent)?.preview(question).await?.into_inner();
    let part = preview.parts.iter().find(|part| part.domain == "be");
    let part = part.with_context(|| format!("be was not asked: {preview:?}"))?;
    ensure!(part.decision.is_some(), "be has no say: {part:?}");
    Ok(())
}

/// Who asks is hidden from the other domain, which so hears of it for the first time.
#[tokio::test]
async fn a_preview_leaves_nothing_behind() -> Result<()> {
    let hiding = policies::hiding("hidden");
    let agencies = [SHELTER, POLICE_HU];
    let setup = Setup { domains: &[BE, HU], scheme: &hiding, layers: &[], agencies: &agencies };
    let federation = Federation::linked(&setup).await?;
    let police = federation.agent(POLICE_HU)?;
    knows(police, SHELTER).await?;
    let realms: Vec<&Realm> = federation.realms().collect();
    let mut before = Vec::new();
    for realm in &realms {
        before.push((settled(&realm.gateway).await?, realm.gateway_log()));
    }

    let audience = Audience { agencies: vec![SHELTER.to_owned()], ..Audience::default() };
    for message in [
        Message::Referral(message::small_referral(SHELTER)),
        Message::Referral(message::referral(&[SHELTER], &message::Words::fresh())),
        Message::Alert(message::pattern_alert(audience)),
    ] {
        by_be(police, message).await?;
    }
    for (realm, (rows, log)) in realms.iter().zip(&before) {
        let domain = &realm.gateway.domain;
        let after = database(&realm.gateway).await?;
        let new: Vec<&str> = after.lines().filter(|row| !rows.lines().any(|old| old == *row)).collect();
        ensure!(after == *rows, "the database of {domain} changed; new are {new:?}");
        let now = realm.gateway_log();
        let told = now.strip_prefix(log.as_str()).context("a log only grows")?;
        let names = [SHELTER, POLICE_HU, "preview"];
        ensure!(!names.iter().any(|name| told.contains(name)), "the log of {domain} tells of it:\n{told}");
    }

    // What is sent is found, in both.
    federation.send_one(POLICE_HU, message::small_referral(SHELTER)).await?;
    for (realm, (rows, _)) in realms.iter().zip(&before) {
        ensure!(database(&realm.gateway).await? != *rows, "nothing is found in {}", realm.gateway.domain);
    }
    Ok(())
}

/// What stands in a gateway's database once nothing is under way there.
async fn settled(gateway: &Gateway) -> Result<String> {
    let (mut last, mut since) = (String::new(), Instant::now());
    wait::until(&format!("nothing is under way at {}", gateway.domain), async || {
        let now = match database(gateway).await {
            Ok(now) => now,
            Err(error) => return Some(Err(error)),
        };
        if now != last {
            (last, since) = (now, Instant::now());
            return None;
        }
        (since.elapsed() >= QUIET).then(|| Ok(last.clone()))
    })
    .await?
}
