//! What changes while traffic flows: certificates, members, policies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liaison_demo::{Agent, wait};
use liaison_proto::{
    case::v1::disclosure::Code as Disclosed,
    message::v1::{
        data_category::Code as Category, error_code::Code as ErrorCode, referral_state::Code as State,
        verdict,
    },
};
use liaison_tests::{
    Realm, call,
    insider::{self, Answer, Insider},
    message,
    names::{HOSPITAL, POLICE, SHELTER},
    policies,
    traffic::{every_one_arrived_once, under_traffic},
};
use liaison_trust::tls::{Fault, TlsError};
use serde_json::Value;

/// In which a revoked party has to be cut off.
const CUT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn certificates_are_renewed_under_traffic() -> Result<()> {
    let mut realm = Realm::prepare(policies::OPEN).await?;
    realm.gateway.configure("[limits]\ncertificate_seconds = 15")?;
    realm.gateway.start().await?;
    realm.join(&[HOSPITAL, SHELTER]).await?;
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        for agency in [HOSPITAL, SHELTER] {
            // Twice, so that a renewed certificate renews as well.
            for _ in 0..2 {
                let before = expiry(&realm, agency).await?;
                wait::until(&format!("{agency} has a new certificate"), async || {
                    expiry(&realm, agency).await.ok().filter(|after| *after > before)
                })
                .await?;
            }
        }
        Ok(())
    })
    .await?;
    every_one_arrived_once(&realm, &sent).await
}

/// When an agency's newest certificate ends, as the gateway knows it.
async fn expiry(realm: &Realm, agency: &str) -> Result<String> {
    let shown: Value =
        serde_json::from_str(&realm.gateway.command(&["--json", "agency", "show", agency]).await?)?;
    let expires = shown.get("certificate_expires").and_then(Value::as_str);
    Ok(expires.with_context(|| format!("no expiry in {shown}"))?.to_owned())
}

#[tokio::test]
async fn a_revoked_agency_is_cut_off_at_once() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, POLICE]).await?;
    let shelter = Insider::enrol(&realm.gateway, SHELTER).await?;
    let mut live = shelter.session().await?;
    let sent = send_small(realm.agent(HOSPITAL)?, SHELTER).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &sent, State::Requested).await?;

    realm.gateway.command(&["agency", "revoke", SHELTER]).await?;
    tokio::time::timeout(CUT, live.ended()).await.context("the live session goes on")??;
    match insider::connect(realm.gateway.exchange(), &shelter.trust, Some(&shelter.identity)).await {
        Err(TlsError::Ours(Fault::Revoked)) => {}
        Err(other) => return Err(other.into()),
        Ok(_) => anyhow::bail!("a revoked certificate is admitted"),
    }
    // What was on its way to it comes back to its sender with the reason, and nothing new is taken.
    let seen = call::referral_in(realm.agent(HOSPITAL)?, &sent, State::Refused).await?;
    assert_eq!(seen.refusal.map(|refusal| refusal.code()), Some(ErrorCode::Revoked));
    let mut case = call::case(realm.agent(HOSPITAL)?)?;
    match case.send_referral(message::small_referral(SHELTER)).await {
        // The agent may still know the agency from before; the gateway then refuses.
        Ok(answer) => {
            let id = answer.into_inner().referrals.first().context("no referral was made")?.id.clone();
            call::referral_in(realm.agent(HOSPITAL)?, &id, State::Refused).await?;
        }
        Err(status) => {
            assert_eq!(call::refused::<()>(Err(status)), Some(ErrorCode::UnknownRecipient));
        }
    }

    // An agent says what happened to it, and what to do.
    realm.gateway.command(&["agency", "revoke", POLICE]).await?;
    let police = realm.agent(POLICE)?;
    wait::within(CUT, "the police's agent knows that it is cut off", async || {
        let status = police.get("/v1/status").await.ok()?;
        (status.get("connected") == Some(&Value::Bool(false))).then_some(())
    })
    .await?;
    let problem = wait::until("the agent says why", async || {
        let status = police.get("/v1/status").await.ok()?;
        let problem = status.get("problem").and_then(Value::as_str)?.to_owned();
        problem.contains("revoked").then_some(problem)
    });
    problem.await?;
    let doctor = police.attempt(&["doctor"]).await?;
    assert_eq!(doctor.status.code(), Some(1), "{doctor:?}");

    // It survives a restart of the gateway.
    let mut realm = realm;
    realm.gateway.kill()?;
    realm.gateway.start().await?;
    match insider::connect(realm.gateway.exchange(), &shelter.trust, Some(&shelter.identity)).await {
        Err(TlsError::Ours(Fault::Revoked)) => Ok(()),
        Err(other) => Err(other.into()),
        Ok(_) => anyhow::bail!("a revoked certificate is admitted after a restart"),
    }
}

#[tokio::test]
async fn policies_are_reloaded_under_traffic() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let tight = policies::without_health();
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        for _ in 0..10 {
            realm.load_scheme(&tight).await?;
            realm.load_scheme(policies::OPEN).await?;
        }
        // One that is broken changes nothing, whatever is wrong with it.
        for broken in [
            "permit(",
            "permit(principal, action, resource);",
            "@id(\"x\") permit(principal, action == Action::\"fly\", resource);",
        ] {
            ensure!(realm.load_scheme(broken).await.is_err(), "loaded: {broken}");
        }
        Ok(())
    })
    .await?;
    every_one_arrived_once(&realm, &sent).await?;
    // It is still the open set that is active: health passes.
    let id = send_small(realm.agent(HOSPITAL)?, SHELTER).await?;
    let received = call::received(realm.agent(SHELTER)?, &id).await?;
    let health = received.sections.get("health").map(|section| section.disclosure());
    assert_eq!(health, Some(Disclosed::Released));
    liaison_tests::evidence::sound(&realm.gateway).await.map(drop)
}

#[tokio::test]
async fn a_policy_tightened_between_acceptance_and_hand_over_wins() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE]).await?;
    for agency in [SHELTER, POLICE] {
        realm.agent_mut(agency)?.stop().await?;
    }
    let to_shelter = send_small(realm.agent(HOSPITAL)?, SHELTER).await?;
    let to_police = send_small(realm.agent(HOSPITAL)?, POLICE).await?;
    for id in [&to_shelter, &to_police] {
        call::referral_in(realm.agent(HOSPITAL)?, id, State::Requested).await?;
    }
    // No health for anybody any more, and nothing at all for the police.
    let nothing = policies::forbid(
        "nothing-there",
        r#"action == Action::"receive""#,
        r#"resource == Agency::"be/police-federal""#,
    );
    realm.load_scheme(&format!("{}\n{nothing}", policies::without_health())).await?;
    for agency in [SHELTER, POLICE] {
        realm.agent_mut(agency)?.start().await?;
        realm.agent(agency)?.connected().await?;
    }
    let received = call::received(realm.agent(SHELTER)?, &to_shelter).await?;
    let told = |category: &str| received.sections.get(category).map(|section| section.disclosure());
    assert_eq!(told("health"), Some(Disclosed::Withheld));
    assert_eq!(told("service_request"), Some(Disclosed::Released));

    // The sender is told what changed, and by which rule.
    let hospital = realm.agent(HOSPITAL)?;
    let decision = wait::until("the sender sees the narrower decision", async || {
        let decision = call::referral(hospital, &to_shelter).await.ok()?.decision?;
        let health = decision.categories.into_iter().find(|one| one.category() == Category::Health)?;
        (health.verdict() == verdict::Code::Withheld).then_some(health)
    })
    .await?;
    assert_eq!(decision.rule.map(|rule| rule.rule), Some("no-health".to_owned()));
    let refused = call::referral_in(hospital, &to_police, State::Refused).await?;
    let rule = refused.refusal.and_then(|refusal| refusal.rule).map(|rule| rule.rule);
    assert_eq!(rule, Some("nothing-there".to_owned()));
    assert!(call::received_ids(realm.agent(POLICE)?).await?.is_empty());
    liaison_tests::evidence::sound(&realm.gateway).await.map(drop)
}

/// A policy that opens later does not release what was withheld when the message was accepted.
#[tokio::test]
async fn a_policy_loosened_later_releases_nothing_more() -> Result<()> {
    let realm = Realm::start(&policies::without_health(), &[]).await?;
    let hospital = Insider::enrol(&realm.gateway, HOSPITAL).await?;
    let shelter = Insider::enrol(&realm.gateway, SHELTER).await?;
    let envelope = hospital.seal(&hospital.draft(&hospital.key_of(SHELTER).await?))?;
    let answer = hospital.session().await?.submit(&envelope).await?;
    ensure!(matches!(answer, Answer::Accepted(_)), "{answer:?}");
    realm.load_scheme(policies::OPEN).await?;
    let (_, delivery) = shelter.session().await?.delivery().await?;
    let Some(liaison_proto::exchange::v1::delivery::Content::Copy(copy)) = delivery.content else {
        anyhow::bail!("no copy");
    };
    assert_eq!(copy.sections.len(), 1, "the section that was withheld is gone for good");
    liaison_tests::evidence::sound(&realm.gateway).await.map(drop)
}

async fn send_small(from: &Agent, to: &str) -> Result<String> {
    let sent = call::case(from)?.send_referral(message::small_referral(to)).await?.into_inner().referrals;
    Ok(sent.first().context("no referral was made")?.id.clone())
}
