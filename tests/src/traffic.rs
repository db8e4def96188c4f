//! Traffic to disturb, and the count of what arrived.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use liaison_demo::wait;
use liaison_proto::{
    case::v1::{ListReferralsRequest, SendReferralRequest, direction},
    message::v1::referral_state::Code as State,
};
use tonic::{Code, Request};

use crate::{
    Realm,
    call::{self, Case},
    message,
    names::{HOSPITAL, SHELTER},
};

/// Both ends reconnect with a growing pause, so draining after many crashes takes its time.
const DRAIN: Duration = Duration::from_secs(240);

/// As many referrals are sent at the least, however slow the machine.
const TRAFFIC: usize = 20;

/// Runs `disturb` while referrals go from the hospital to the shelter, one after the other, each asked
/// for until it is answered; the ids of all that were.
pub async fn under_traffic(
    case: Case,
    disturb: impl Future<Output = Result<()>>,
) -> Result<BTreeSet<String>> {
    let on = AtomicBool::new(true);
    let disturb = async {
        let result = disturb.await;
        on.store(false, Ordering::Relaxed);
        result
    };
    let (sent, disturbed) = tokio::join!(send_while(&on, case), disturb);
    disturbed?;
    sent
}

async fn send_while(on: &AtomicBool, mut case: Case) -> Result<BTreeSet<String>> {
    let mut sent = BTreeSet::new();
    for number in 0_u32.. {
        if !on.load(Ordering::Relaxed) && sent.len() >= TRAFFIC {
            break;
        }
        let request = message::small_referral(SHELTER);
        let id = send_once(&mut case, &request, &format!("traffic-{number}")).await?;
        if !sent.insert(id) {
            bail!("two referrals have the same id");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(sent)
}

/// Sends under a key, again and again until there is an answer: one referral, however often it was asked.
async fn send_once(case: &mut Case, content: &SendReferralRequest, key: &str) -> Result<String> {
    wait::until("a referral is answered", async || {
        let mut request = Request::new(content.clone());
        request.metadata_mut().insert("idempotency-key", key.parse().ok()?);
        match case.send_referral(request).await {
            Ok(answer) => {
                let id = answer.into_inner().referrals.first().map(|referral| referral.id.clone());
                Some(id.context("no referral was made"))
            }
            // The agent is down, went down while it answered, or is full for the moment.
            Err(status)
                if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
                    || status.code() == Code::ResourceExhausted =>
            {
                None
            }
            Err(status) => Some(Err(status.into())),
        }
    })
    .await?
}

/// Waits until everything sent is at the shelter, and checks that it is there once, that the hospital
/// knows it, and that nothing else is there.
pub async fn every_one_arrived_once(realm: &Realm, sent: &BTreeSet<String>) -> Result<()> {
    ensure!(sent.len() >= TRAFFIC, "only {} referrals were sent: no traffic to disturb", sent.len());
    println!("{} referrals were sent", sent.len());
    let shelter = realm.agent(SHELTER)?;
    let drained = wait::within(DRAIN, "every referral arrived", async || {
        let arrived: BTreeSet<String> = call::received_ids(shelter).await.ok()?.into_iter().collect();
        sent.is_subset(&arrived).then_some(())
    });
    if let Err(error) = drained.await {
        let arrived: BTreeSet<String> = call::received_ids(shelter).await?.into_iter().collect();
        let missing: Vec<_> = sent.difference(&arrived).take(5).collect();
        bail!("{error}: {} of {} arrived; missing are {missing:?}", arrived.len(), sent.len());
    }
    let mut arrived = call::received_ids(shelter).await?;
    arrived.sort();
    let each_once: Vec<String> = sent.iter().cloned().collect();
    ensure!(
        arrived == each_once,
        "{} arrived of {} that were sent: some twice, or unsent",
        arrived.len(),
        sent.len()
    );

    // The sender knows it of each, and its outbox is empty.
    let mut case = call::case(realm.agent(HOSPITAL)?)?;
    wait::within(DRAIN, "the sender sees every referral received", async || {
        let mut page_token = String::new();
        loop {
            let direction = direction::Code::Sent.into();
            let request =
                ListReferralsRequest { direction, page_size: 100, page_token, ..Default::default() };
            let page = case.list_referrals(request).await.ok()?.into_inner();
            if page.referrals.iter().any(|referral| referral.state() != State::Received) {
                return None;
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Some(());
            }
        }
    })
    .await?;
    let status = realm.agent(HOSPITAL)?.get("/v1/status").await?;
    ensure!(status.get("outbox").and_then(serde_json::Value::as_str) == Some("0"), "{status}");
    Ok(())
}
