//! One agency's messages for a peer don't hold up another's.

use anyhow::{Context, Result, ensure};
use liaison_demo::wait;
use liaison_tests::{
    Federation, call,
    federation::{Setup, waiting_for},
    message,
    names::{HOSPITAL, POLICE, SHELTER_HU},
    policies,
    realm::{BE, HU},
};

/// What one agency sends before the other sends once: more than a link has under way at a time.
const MANY: u64 = 300;

#[tokio::test]
async fn who_sends_one_message_does_not_wait_for_who_sends_many() -> Result<()> {
    let agencies = [HOSPITAL, POLICE, SHELTER_HU];
    let setup = Setup { domains: &[BE, HU], scheme: policies::OPEN, layers: &[], agencies: &agencies };
    let mut federation = Federation::start(&setup).await?;
    federation.realm_mut("hu")?.gateway.stop().await?;
    let mut hospital = call::case(federation.agent(HOSPITAL)?)?;
    for _ in 0..MANY {
        hospital.send_referral(message::small_referral(SHELTER_HU)).await?;
    }
    waits(&federation, MANY).await?;
    let sent = federation.send(POLICE, message::small_referral(SHELTER_HU)).await?;
    let last = sent.first().context("no referral was made")?;
    waits(&federation, MANY + 1).await?;

    federation.realm_mut("hu")?.gateway.start().await?;
    let shelter = federation.agent(SHELTER_HU)?;
    let newest_first = wait::until("all have arrived", async || {
        let ids = call::received_ids(shelter).await.ok()?;
        (ids.len() as u64 > MANY).then_some(ids)
    })
    .await?;
    let before = newest_first.iter().rev().position(|id| id == last);
    let before = before.context("the one message is not among them")? as u64;
    println!("{before} of {MANY} arrived before the one that was sent after them");
    ensure!(before < MANY / 2, "it had to wait for {before} of {MANY}");
    Ok(())
}

/// Waits until so many messages wait for `hu`.
async fn waits(federation: &Federation, messages: u64) -> Result<()> {
    let be = &federation.realm("be")?.gateway;
    wait::until(&format!("{messages} messages wait for hu"), async || {
        (waiting_for(be, "hu").await.ok()?.0 == messages).then_some(())
    })
    .await
}
