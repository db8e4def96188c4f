//! Traffic between all domains to disturb, what its senders see meanwhile, and the count of what arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use liaison_demo::{Agent, wait};
use liaison_proto::message::v1::referral_state::Code as State;
use rand::RngExt;
use tokio::{
    task::{JoinSet, LocalSet},
    time::Instant,
};

use crate::{
    Federation, call,
    call::Case,
    message,
    names::domain_of,
    traffic::{AT_LEAST, send_once},
};

/// In which nothing may wait any more once everything is whole again.
pub const DRAIN: Duration = Duration::from_secs(60);
/// Between two referrals of one sender to one recipient.
const PAUSE: Duration = Duration::from_millis(150);

/// What was sent, from whom to whom.
pub type Sent = BTreeMap<(String, String), BTreeSet<String>>;

/// Runs `disturb` while referrals go from every agency to every agency of another domain. Each sender looks
/// all the while where its referrals are: it always gets an answer, and none ever goes backwards.
pub async fn while_all_send(
    federation: &mut Federation,
    disturb: impl AsyncFnOnce(&mut Federation) -> Result<()>,
) -> Result<Sent> {
    LocalSet::new().run_until(all_send(federation, disturb)).await
}

async fn all_send(
    federation: &mut Federation,
    disturb: impl AsyncFnOnce(&mut Federation) -> Result<()>,
) -> Result<Sent> {
    let on = Arc::new(AtomicBool::new(true));
    let mut flows = JoinSet::new();
    for from in federation.agents() {
        for to in federation.agents().filter(|to| domain_of(&to.agency) != domain_of(&from.agency)) {
            let flow = Flow {
                from: from.agency.clone(),
                to: to.agency.clone(),
                case: call::case(from)?,
                seen: BTreeMap::new(),
            };
            flows.spawn_local(flow.run(Arc::clone(&on)));
        }
    }
    let disturbed = disturb(federation).await;
    on.store(false, Ordering::Relaxed);
    let mut sent = Sent::new();
    while let Some(flow) = flows.join_next().await {
        let flow = flow??;
        ensure!(!flow.seen.is_empty(), "{} sent nothing to {}", flow.from, flow.to);
        sent.insert((flow.from, flow.to), flow.seen.into_keys().collect());
    }
    disturbed?;
    Ok(sent)
}

/// Referrals from one agency to another, each with how far it was last seen.
struct Flow {
    from: String,
    to: String,
    case: Case,
    seen: BTreeMap<String, usize>,
}

impl Flow {
    async fn run(mut self, on: Arc<AtomicBool>) -> Result<Self> {
        for number in 0_usize.. {
            if !on.load(Ordering::Relaxed) && number >= AT_LEAST {
                break;
            }
            let key = format!("{}-{number}", self.to);
            let id = send_once(&mut self.case, &message::small_referral(&self.to), &key).await?;
            ensure!(self.seen.insert(id, 0).is_none(), "two referrals have the same id");
            self.look().await?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self)
    }

    /// Looks at one of those that are on their way.
    async fn look(&mut self) -> Result<()> {
        let road = [self.from.as_str(), domain_of(&self.from), domain_of(&self.to), self.to.as_str()];
        let chosen = rand::rng().random_range(0..self.seen.len());
        let (id, last) = self.seen.iter_mut().nth(chosen).context("nothing was sent")?;
        let request = liaison_proto::case::v1::GetReferralRequest { id: id.clone() };
        let seen = self.case.get_referral(request).await?.into_inner();
        let at = road.iter().position(|holder| *holder == seen.at);
        let at = at.with_context(|| format!("{id} is said to be at {:?}, off its road {road:?}", seen.at))?;
        ensure!(at >= *last, "{id} went back from {:?} to {:?}", road.get(*last), seen.at);
        ensure!(
            !matches!(seen.state(), State::Refused | State::Expired),
            "{id} from {} to {} ended as {}: {:?}",
            self.from,
            self.to,
            seen.state().as_str_name(),
            seen.refusal
        );
        *last = at;
        Ok(())
    }
}

/// Waits until everything arrived and nothing waits anywhere, and checks that each referral is at its recipient
/// once, that nothing else is there, and that every sender sees its own received.
pub async fn all_arrived_once(federation: &Federation, sent: &Sent) -> Result<()> {
    let start = Instant::now();
    federation.linked().await?;
    println!("{} referrals were sent", sent.values().map(BTreeSet::len).sum::<usize>());
    for domain in federation.domains() {
        for peer in federation.domains().filter(|peer| *peer != domain) {
            drained(federation, domain, peer, start).await?;
        }
    }
    println!("nothing waited any more after {} ms", start.elapsed().as_millis());
    for agent in federation.agents() {
        arrived_once(agent, sent).await?;
    }
    for ((from, to), ids) in sent {
        let sender = federation.agent(from)?;
        for id in ids {
            let seen = call::referral_in(sender, id, State::Received).await?;
            ensure!(seen.at == *to, "{id} was received by {to} and is said to be at {}", seen.at);
        }
    }
    Ok(())
}

async fn drained(federation: &Federation, domain: &str, peer: &str, start: Instant) -> Result<()> {
    let mut last = None;
    let limit = DRAIN.saturating_sub(start.elapsed());
    wait::within(limit, &format!("nothing waits at {domain} for {peer}"), async || {
        last = Some(federation.waiting(domain, peer).await);
        matches!(last, Some(Ok((0, 0)))).then_some(())
    })
    .await
    .with_context(|| format!("queued and outstanding were last {last:?}"))
}

async fn arrived_once(recipient: &Agent, sent: &Sent) -> Result<()> {
    let to_it = sent.iter().filter(|((_, to), _)| *to == recipient.agency);
    let expected: BTreeSet<String> = to_it.flat_map(|(_, ids)| ids.iter().cloned()).collect();
    let arrived = call::received_ids(recipient).await?;
    let once: BTreeSet<String> = arrived.iter().cloned().collect();
    ensure!(once.len() == arrived.len(), "{} has some referrals twice", recipient.agency);
    let missing: Vec<_> = expected.difference(&once).take(5).collect();
    let unsent: Vec<_> = once.difference(&expected).take(5).collect();
    if !missing.is_empty() || !unsent.is_empty() {
        bail!(
            "{} of {} at {}: missing {missing:?}, never sent {unsent:?}",
            once.len(),
            expected.len(),
            recipient.agency
        );
    }
    Ok(())
}
