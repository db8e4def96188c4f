//! Traffic to disturb, and the count of what arrived.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use liaison_demo::{Agent, wait};
use liaison_proto::{
    case::v1::{ListReferralsRequest, direction},
    message::v1::referral_state::Code as State,
};
use tonic::{Code, Request, Response, Status};

use crate::{
    Realm,
    call::{self, Case},
    message,
    names::{HOSPITAL, SHELTER},
};

/// Both ends reconnect with a growing pause, so draining after many crashes takes its time.
const DRAIN: Duration = Duration::from_secs(240);

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(10);

/// As many referrals are sent at the least, however slow the machine.
const TRAFFIC: usize = 20;

/// Runs `disturb` while referrals go from the hospital to the shelter, one after the other, each asked
/// for until it is answered; the ids of all that were.
pub async fn under_traffic(
    case: Case,
    disturb: impl Future<Output = Result<()>>,
) -> Result<BTreeSet<String>> {
    let (sent, ()) = under_traffic_to(SHELTER, case, disturb).await?;
    Ok(sent)
}

/// The same from whose client this is to any other agency; with the ids, what `disturb` made.
pub async fn under_traffic_to<T>(
    to: &str,
    mut case: Case,
    disturb: impl Future<Output = Result<T>>,
) -> Result<(BTreeSet<String>, T)> {
    let send = async |number| {
        let content = message::small_referral(to);
        let key = format!("traffic-{number}");
        let answer = answered(async || case.send_referral(keyed(&content, &key)?).await).await?;
        Ok(answer.referrals.first().context("no referral was made")?.id.clone())
    };
    while_sending(send, disturb).await
}

/// Runs `disturb` while messages are sent, one after the other: the ids of all that were, and what `disturb`
/// made.
pub async fn while_sending<T>(
    mut send: impl AsyncFnMut(u32) -> Result<String>,
    disturb: impl Future<Output = Result<T>>,
) -> Result<(BTreeSet<String>, T)> {
    let on = AtomicBool::new(true);
    let disturb = async {
        let result = disturb.await;
        on.store(false, Ordering::Relaxed);
        result
    };
    let send = async {
        let mut sent = BTreeSet::new();
        for number in 0.. {
            if !on.load(Ordering::Relaxed) && sent.len() >= TRAFFIC {
                break;
            }
            ensure!(sent.insert(send(number).await?), "two messages have the same id");
            tokio::time::sleep(PAUSE).await;
        }
        Ok(sent)
    };
    let (sent, disturbed) = tokio::join!(send, disturb);
    // What was disturbed tells more than who sent meanwhile.
    let disturbed = disturbed?;
    Ok((sent?, disturbed))
}

/// A request under a key: one message, however often it is asked for.
pub fn keyed<T: Clone>(content: &T, key: &str) -> Result<Request<T>, Status> {
    let mut request = Request::new(content.clone());
    let key = key.parse().map_err(|_| Status::internal("the key is no header"))?;
    request.metadata_mut().insert("idempotency-key", key);
    Ok(request)
}

/// Asks again and again until there is an answer.
pub async fn answered<T>(mut ask: impl AsyncFnMut() -> Result<Response<T>, Status>) -> Result<T> {
    wait::until("a caseworker system is answered", async || match ask().await {
        Ok(answer) => Some(Ok(answer.into_inner())),
        // The agent is down, went down while it answered, or is full for the moment.
        Err(status)
            if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
                || status.code() == Code::ResourceExhausted =>
        {
            None
        }
        Err(status) => Some(Err(status.into())),
    })
    .await?
}

/// Waits until everything sent is at the shelter, and checks that it is there once, that the hospital
/// knows it, and that nothing else is there.
pub async fn every_one_arrived_once(realm: &Realm, sent: &BTreeSet<String>) -> Result<()> {
    all_arrived_once(realm.agent(HOSPITAL)?, realm.agent(SHELTER)?, sent).await
}

/// The same for an agency that sent nothing else and another that received nothing else.
pub async fn all_arrived_once(from: &Agent, to: &Agent, sent: &BTreeSet<String>) -> Result<()> {
    ensure!(sent.len() >= TRAFFIC, "only {} referrals were sent: no traffic to disturb", sent.len());
    println!("{} referrals were sent", sent.len());
    let drained = wait::within(DRAIN, "every referral arrived", async || {
        let arrived: BTreeSet<String> = call::received_ids(to).await.ok()?.into_iter().collect();
        sent.is_subset(&arrived).then_some(())
    });
    if let Err(error) = drained.await {
        let arrived: BTreeSet<String> = call::received_ids(to).await?.into_iter().collect();
        let missing: Vec<_> = sent.difference(&arrived).take(5).collect();
        bail!("{error}: {} of {} arrived; missing are {missing:?}", arrived.len(), sent.len());
    }
    let mut arrived = call::received_ids(to).await?;
    arrived.sort();
    let each_once: Vec<String> = sent.iter().cloned().collect();
    ensure!(
        arrived == each_once,
        "{} arrived of {} that were sent: some twice, or unsent",
        arrived.len(),
        sent.len()
    );

    // The sender knows it of each, and its outbox is empty.
    let mut case = call::case(from)?;
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
    let status = from.get("/v1/status").await?;
    ensure!(status.get("outbox").and_then(serde_json::Value::as_str) == Some("0"), "{status}");
    Ok(())
}
