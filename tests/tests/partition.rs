//! Domains on hosts of their own send to one another while their network parts or is slow and their gateways hang,
//! crawl and die: nothing is lost, nothing comes twice, and senders see where each message stands.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use liaison_demo::{Agent, wait};
use liaison_proto::{
    case::v1::{GetReferralRequest, SendReferralRequest},
    message::v1::Narrative,
};
use liaison_tests::{
    call, evidence,
    federation::{domain_of, knows},
    message,
    names::{HOSPITAL, SHELTER_FR, SHELTER_HU},
    net::Net,
    net_domain::NetDomain,
    policies,
    realm::{BE, FR, HU},
    seed,
};
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request};

/// Longer than a gateway needs to notice that a link is dead.
const PARTED: Duration = Duration::from_secs(18);
const HANGS: Duration = Duration::from_secs(20);
const CRAWLS: Duration = Duration::from_secs(8);
const KILLS: usize = 6;
/// Within what time everything that waited is delivered after the last trouble.
const DRAIN: Duration = Duration::from_secs(60);
/// Between two messages of one sender to one recipient.
const PAUSE: Duration = Duration::from_millis(250);
/// As many messages are sent at the least.
const TRAFFIC: usize = 200;

/// What slow lines let pass in a second, the messages that are sent each way over one, and the bytes of one more,
/// which may take so long.
const SLOW_KBIT: u32 = 96;
const VERY_SLOW_KBIT: u32 = 32;
const LONGEST: Duration = Duration::from_secs(240);
const SLOW_MESSAGES: u32 = 20;
const LONG: usize = 90_000;

/// A message that was sent.
#[derive(Debug, Clone)]
struct Sent {
    id: String,
    from: String,
    to: String,
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_comes_twice_whatever_breaks() -> Result<()> {
    let mut random = seed::generator("partitions")?;
    let net = Net::new()?;
    let mut domains = vec![
        NetDomain::start(&net, BE, policies::OPEN, &[HOSPITAL]).await?,
        NetDomain::start(&net, HU, policies::OPEN, &[SHELTER_HU]).await?,
        NetDomain::start(&net, FR, policies::OPEN, &[SHELTER_FR]).await?,
    ];
    // What sends needs the agents alone, and what breaks needs the domains.
    let cases = peered(&domains).await?;

    let (on, sent) = (AtomicBool::new(true), Mutex::new(Vec::new()));
    let trouble = async {
        let result = trouble(&mut domains, &mut random).await;
        on.store(false, Ordering::Relaxed);
        result
    };
    let (troubled, sending, watching) =
        tokio::join!(trouble, send_all(&cases, &on, &sent), watch(&cases, &on, &sent));
    troubled?;
    sending?;
    let watched = watching?;
    let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} messages were sent, {watched} times one was looked at", sent.len());
    ensure!(sent.len() >= TRAFFIC, "only {} messages: no traffic to disturb", sent.len());

    all_are_at_their_ends(&domains, &sent).await
}

#[tokio::test]
async fn a_slow_line_delays_and_loses_nothing() -> Result<()> {
    over_a_line_of(SLOW_KBIT).await
}

/// One on which a single message takes half a minute.
#[tokio::test]
async fn a_very_slow_line_delays_and_loses_nothing() -> Result<()> {
    over_a_line_of(VERY_SLOW_KBIT).await
}

/// A gateway starts, links and both send over a line that has less room than there are messages.
async fn over_a_line_of(kbit: u32) -> Result<()> {
    let net = Net::new()?;
    let mut domains = vec![
        NetDomain::start(&net, BE, policies::OPEN, &[HOSPITAL]).await?,
        NetDomain::start(&net, HU, policies::OPEN, &[SHELTER_HU]).await?,
    ];
    let cases = peered(&domains).await?;
    let (on, sent) = (AtomicBool::new(true), Mutex::new(Vec::new()));
    let slow = async {
        let result = slow_line(kbit, &mut domains, &cases, &sent).await;
        on.store(false, Ordering::Relaxed);
        result
    };
    let (slow, watching) = tokio::join!(slow, watch(&cases, &on, &sent));
    slow?;
    let watched = watching?;
    let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} messages were sent, {watched} times one was looked at", sent.len());
    all_are_at_their_ends(&domains, &sent).await
}

/// Until those that take longest have arrived.
async fn slow_line(
    kbit: u32,
    domains: &mut [NetDomain],
    cases: &[(String, call::Case)],
    sent: &Mutex<Vec<Sent>>,
) -> Result<()> {
    let [be, hu] = domains else { bail!("two domains") };
    hu.gateway.kill()?;
    hu.host.slow(kbit)?;
    let mut long = Vec::new();
    for number in 0..=SLOW_MESSAGES {
        long.clear();
        for (from, case) in cases {
            for (to, _) in cases.iter().filter(|(to, _)| to != from) {
                let mut request = message::small_referral(to);
                if let Some(content) = request.content.as_mut().filter(|_| number == SLOW_MESSAGES) {
                    content.narrative = Some(Narrative { text: "x".repeat(LONG) });
                }
                let id = send(case.clone(), &request, &format!("{number}-{to}")).await?;
                long.push(Sent { id, from: from.clone(), to: to.clone() });
            }
        }
        sent.lock().unwrap_or_else(PoisonError::into_inner).extend(long.iter().cloned());
    }
    hu.gateway.start().await?;
    wait::until("be and hu are linked", async || be.is_linked("hu").await.ok()?.then_some(())).await?;
    let began = Instant::now();
    for message in &long {
        let to = hu.agents().chain(be.agents()).find(|agent| agent.agency == message.to);
        let to = to.context("no such agent")?;
        wait::within(LONGEST, "the longest messages arrive", async || {
            call::referral(to, &message.id).await.ok()
        })
        .await?;
    }
    // All the small ones came before, so that this is much less than it takes.
    let least = Duration::from_millis(LONG as u64 * 8 / u64::from(kbit));
    ensure!(began.elapsed() >= least, "all took {:?}: the line is fast", began.elapsed());
    Ok(())
}

/// Peers all domains with one another; every agency, which then knows all others, with a client of its agent.
async fn peered(domains: &[NetDomain]) -> Result<Vec<(String, call::Case)>> {
    for (number, one) in domains.iter().enumerate() {
        for other in domains.iter().skip(number + 1) {
            one.gateway.peer_with(&other.gateway).await?;
        }
    }
    let cases = cases(domains)?;
    for (one, _) in &cases {
        for (other, _) in cases.iter().filter(|(other, _)| other != one) {
            let agent = domains.iter().flat_map(NetDomain::agents).find(|agent| agent.agency == *one);
            knows(agent.context("no agent")?, other).await?;
        }
    }
    Ok(cases)
}

/// Waits until nothing is under way, and checks that each message arrived once and that its sender sees it.
async fn all_are_at_their_ends(domains: &[NetDomain], sent: &[Sent]) -> Result<()> {
    drained(domains).await?;
    each_arrived_once(domains, sent).await?;
    let agents: BTreeMap<&str, &Agent> = by_agency(domains);
    for message in sent {
        let from = agents.get(message.from.as_str()).context("no such agent")?;
        wait::within(DRAIN, &format!("{} sees {} at {}", message.from, message.id, message.to), async || {
            (call::referral(from, &message.id).await.ok()?.at == message.to).then_some(())
        })
        .await?;
    }
    for domain in domains {
        evidence::sound(&domain.gateway).await?;
    }
    Ok(())
}

/// All that breaks, one after the other; it is whole again at the end.
async fn trouble(domains: &mut [NetDomain], random: &mut StdRng) -> Result<()> {
    let [be, hu, fr] = domains else { bail!("three domains") };
    sleep(Duration::from_secs(2)).await;

    // Whole: hu is gone, and the two others go on.
    hu.host.cut()?;
    let before = arrived(fr).await?;
    sleep(PARTED).await;
    ensure!(be.waiting_for("hu").await?.0 > 0, "nothing waits for a domain that is cut off");
    wait::until("be knows that the link to hu is dead", async || {
        (!be.is_linked("hu").await.ok()?).then_some(())
    })
    .await?;
    ensure!(arrived(fr).await? > before, "a dead peer holds up another");
    hu.host.join()?;
    wait::until("be and hu are linked again", async || be.is_linked("hu").await.ok()?.then_some(())).await?;

    // One way: nothing of be reaches fr, all of fr reaches be.
    be.host.mute_towards(&fr.host)?;
    sleep(PARTED).await;
    ensure!(be.waiting_for("fr").await?.0 > 0, "nothing waits though nothing can leave");
    be.host.unmute_towards(&fr.host)?;
    wait::until("be and fr are linked again", async || be.is_linked("fr").await.ok()?.then_some(())).await?;

    // One hangs.
    fr.gateway.freeze().await?;
    let before = arrived(hu).await?;
    sleep(HANGS).await;
    ensure!(arrived(hu).await? > before, "a peer that hangs holds up another");
    fr.gateway.thaw().await?;

    // One crawls.
    let end = Instant::now() + CRAWLS;
    while Instant::now() < end {
        be.gateway.freeze().await?;
        sleep(Duration::from_millis(200)).await;
        be.gateway.thaw().await?;
        sleep(Duration::from_millis(50)).await;
    }

    // Some die.
    for _ in 0..KILLS {
        sleep(Duration::from_millis(random.random_range(100..1_500))).await;
        let victim = match random.random_range(0..3) {
            0 => &mut *be,
            1 => &mut *hu,
            _ => &mut *fr,
        };
        victim.gateway.kill()?;
        victim.gateway.start().await?;
    }
    Ok(())
}

/// Every agency with a client of its agent, which reconnects by itself.
fn cases(domains: &[NetDomain]) -> Result<Vec<(String, call::Case)>> {
    let agents = domains.iter().flat_map(NetDomain::agents);
    agents.map(|agent| Ok((agent.agency.clone(), call::case(agent)?))).collect()
}

fn by_agency(domains: &[NetDomain]) -> BTreeMap<&str, &Agent> {
    let agents = domains.iter().flat_map(NetDomain::agents);
    agents.map(|agent| (agent.agency.as_str(), agent)).collect()
}

/// Every agency sends to every other, until all is over.
async fn send_all(cases: &[(String, call::Case)], on: &AtomicBool, sent: &Mutex<Vec<Sent>>) -> Result<()> {
    for number in 0_u32.. {
        if !on.load(Ordering::Relaxed) {
            break;
        }
        for (from, case) in cases {
            for (to, _) in cases.iter().filter(|(to, _)| to != from) {
                let content = message::small_referral(to);
                let id = send(case.clone(), &content, &format!("{number}-{to}")).await?;
                let message = Sent { id, from: from.clone(), to: to.clone() };
                sent.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Sends under a key until there is an answer: one referral, however often it was asked.
async fn send(mut case: call::Case, content: &SendReferralRequest, key: &str) -> Result<String> {
    wait::until("a referral is answered", async || {
        let mut request = Request::new(content.clone());
        request.metadata_mut().insert("idempotency-key", key.parse().ok()?);
        match case.send_referral(request).await {
            Ok(answer) => {
                let id = answer.into_inner().referrals.first().map(|referral| referral.id.clone());
                Some(id.context("no referral was made"))
            }
            Err(status) if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) => None,
            Err(status) => Some(Err(status.into())),
        }
    })
    .await?
}

/// Looks again and again where messages stand: there is always an answer, and it is a place on their road.
async fn watch(cases: &[(String, call::Case)], on: &AtomicBool, sent: &Mutex<Vec<Sent>>) -> Result<usize> {
    let mut watched = 0;
    while on.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(20)).await;
        let some = {
            let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = sent.len().min(60);
            let back = if newest == 0 { 0 } else { rand::random_range(0..newest) };
            sent.iter().rev().nth(back).cloned()
        };
        let Some(message) = some else { continue };
        let case = cases.iter().find(|(agency, _)| *agency == message.from).context("no such agency")?;
        let request = GetReferralRequest { id: message.id.clone() };
        let seen = case.1.clone().get_referral(request).await?.into_inner();
        let road =
            [message.from.as_str(), domain_of(&message.from), domain_of(&message.to), message.to.as_str()];
        ensure!(road.contains(&seen.at.as_str()), "{message:?} is at {:?}", seen.at);
        watched += 1;
    }
    Ok(watched)
}

/// How much the agencies of a domain have received.
async fn arrived(domain: &NetDomain) -> Result<usize> {
    let mut count = 0;
    for agent in domain.agents() {
        count += call::received_ids(agent).await?.len();
    }
    Ok(count)
}

/// Waits until nothing waits for any peer any more.
async fn drained(domains: &[NetDomain]) -> Result<()> {
    let end = Instant::now() + DRAIN;
    for one in domains {
        for other in domains.iter().filter(|other| other.gateway.domain != one.gateway.domain) {
            let (at, peer) = (&one.gateway.domain, &other.gateway.domain);
            let mut last = (0, 0);
            let left = end.saturating_duration_since(Instant::now());
            wait::within(left, &format!("nothing waits at {at} for {peer}"), async || {
                last = one.waiting_for(peer).await.ok()?;
                (last == (0, 0)).then_some(())
            })
            .await
            .with_context(|| format!("queued and outstanding were last {last:?}"))?;
        }
    }
    Ok(())
}

/// Checks that every agency received what was sent to it, each message once, and nothing else.
async fn each_arrived_once(domains: &[NetDomain], sent: &[Sent]) -> Result<()> {
    for (agency, agent) in by_agency(domains) {
        let mut expected: Vec<&str> =
            sent.iter().filter(|message| message.to == agency).map(|message| message.id.as_str()).collect();
        expected.sort_unstable();
        wait::within(DRAIN, &format!("{agency} has all that was sent to it"), async || {
            (call::received_ids(agent).await.ok()?.len() >= expected.len()).then_some(())
        })
        .await?;
        let mut arrived = call::received_ids(agent).await?;
        arrived.sort_unstable();
        ensure!(
            arrived == expected,
            "{agency}: {} of {} arrived, or some twice",
            arrived.len(),
            expected.len()
        );
    }
    Ok(())
}
