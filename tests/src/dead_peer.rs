//! Whether traffic between two agencies of a domain slows down while a peer of it is dead: measured, not judged.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{
    Agent,
    wait::{self, PATIENCE},
};
use liaison_proto::case::v1::GetReferralRequest;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Federation, Realm, call,
    federation::{Setup, waiting_for},
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
};

/// Between two referrals to the dead peer, so that its queue grows and their sender leaves the machine alone.
const TO_THE_DEAD: Duration = Duration::from_millis(50);
/// Between two looks at whether a referral has arrived.
const LOOK: Duration = Duration::from_millis(2);

/// How long the same local traffic took in each round.
#[derive(Debug)]
pub struct Measured {
    /// In a domain without any peer.
    pub alone: Vec<Duration>,
    /// In a domain whose only peer is dead.
    pub beside: Vec<Duration>,
    /// Messages that wait for the dead peer in the end.
    pub queued: u64,
}

impl Measured {
    /// How many times as long it takes beside a dead peer, by the medians.
    pub fn ratio(&self) -> f64 {
        median(&self.beside).as_secs_f64() / median(&self.alone).as_secs_f64()
    }

    pub fn to_json(&self) -> Value {
        let milliseconds = |times: &[Duration]| median(times).as_secs_f64() * 1e3;
        json!({
            "ratio": self.ratio(),
            "alone_ms": milliseconds(&self.alone),
            "beside_ms": milliseconds(&self.beside),
            "rounds": self.alone.len(),
            "queued": self.queued,
        })
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Sends so many referrals from one agency to another in each round, once in either domain. The rounds
/// alternate, so that whatever else the machine does falls on both alike.
pub async fn measure(rounds: usize, messages: usize) -> Result<Measured> {
    ensure!(rounds > 0 && messages > 0, "no rounds and no messages measure nothing");
    let single = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let agencies = [HOSPITAL, SHELTER, POLICE, SHELTER_HU];
    let setup = Setup { domains: &[BE, HU], scheme: policies::OPEN, layers: &[], agencies: &agencies };
    let mut federation = Federation::start(&setup).await?;
    federation.realm_mut("hu")?.gateway.kill()?;
    let peered = federation.realm("be")?;
    // The first ones meet and fetch keys.
    local_traffic(&single, 1).await?;
    local_traffic(peered, 1).await?;
    let mut measured = Measured { alone: Vec::new(), beside: Vec::new(), queued: 0 };
    for _ in 0..rounds {
        measured.alone.push(local_traffic(&single, messages).await?);
        measured.beside.push(beside_the_dead(peered, messages).await?);
    }
    // What was sent last may still be on its way to the queue.
    measured.queued = wait::until("something waits for the dead peer", async || {
        let (queued, _) = waiting_for(&peered.gateway, "hu").await.ok()?;
        (queued > 0).then_some(queued)
    })
    .await?;
    Ok(measured)
}

/// From the first call until the recipient has all of them.
async fn local_traffic(realm: &Realm, messages: usize) -> Result<Duration> {
    let mut case = call::case(realm.agent(HOSPITAL)?)?;
    let start = Instant::now();
    let mut ids = BTreeSet::new();
    for _ in 0..messages {
        let sent = case.send_referral(message::small_referral(SHELTER)).await?.into_inner().referrals;
        ids.extend(sent.into_iter().map(|referral| referral.id));
    }
    let mut theirs = call::case(realm.agent(SHELTER)?)?;
    for id in ids {
        let request = GetReferralRequest { id };
        let arrived = async {
            while theirs.get_referral(request.clone()).await.is_err() {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, arrived).await.with_context(|| format!("{} did not arrive", request.id))?;
    }
    Ok(start.elapsed())
}

/// The same while messages for the dead peer come in.
async fn beside_the_dead(realm: &Realm, messages: usize) -> Result<Duration> {
    let on = AtomicBool::new(true);
    let local = async {
        let took = local_traffic(realm, messages).await;
        on.store(false, Ordering::Relaxed);
        took
    };
    let (took, sent) = tokio::join!(local, send_to_the_dead(&on, realm.agent(POLICE)?));
    sent?;
    took
}

async fn send_to_the_dead(on: &AtomicBool, from: &Agent) -> Result<()> {
    let mut case = call::case(from)?;
    while on.load(Ordering::Relaxed) {
        case.send_referral(message::small_referral(SHELTER_HU)).await?;
        sleep(TO_THE_DEAD).await;
    }
    Ok(())
}
