//! The whole road: from one agency's case API over its agent, the gateway and another agent to that one's case API.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use futures_util::future::LocalBoxFuture;
use liaison_demo::{Agent, Gateway, Programs, wait};
use liaison_proto::{
    case::v1::{
        GetReferralRequest, ListReferralsRequest, Referral, SendReferralRequest, direction, disclosure,
    },
    message::v1::referral_state::Code as State,
};
use liaison_tests::call::{self, Case};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::Code;

use crate::{
    gateway, limits, message,
    round::{Load, Outcome, Round},
    system::System,
    usage::Watched,
};

const SENDER: &str = "be/load-sender";
const RECIPIENT: &str = "be/load-recipient";

/// A gateway and two agents.
pub(crate) struct Road {
    gateway: Gateway,
    sender: Agent,
    recipient: Agent,
}

/// A message that the sender's agent has answered for.
struct Sent {
    connection: usize,
    id: String,
    since: Instant,
}

impl Road {
    pub(crate) async fn start(programs: &Programs, folder: &Path) -> Result<Self> {
        let gateway = gateway::start(programs, folder, gateway::POLICIES, None).await?;
        let mut agents = Vec::new();
        for agency in [SENDER, RECIPIENT] {
            gateway::join(&gateway, agency).await?;
            let mut agent = Agent::enrol(&gateway, folder, agency).await?;
            agent.start().await?;
            agent.connected().await?;
            agents.push(agent);
        }
        let recipient = agents.pop().context("two agents were started")?;
        let sender = agents.pop().context("two agents were started")?;
        let road = Self { gateway, sender, recipient };
        // The first one goes when both keys are in the log.
        let sent = call::case(&road.sender)?.send_referral(message::referral(RECIPIENT)?).await?.into_inner();
        call::received(&road.recipient, &sent.referrals.first().context("no referral was made")?.id).await?;
        Ok(road)
    }

    fn watched(&self) -> Result<Watched> {
        let mut watched = gateway::watched(&self.gateway)?;
        for (name, agent) in [("sender", &self.sender), ("recipient", &self.recipient)] {
            watched.processes.push((name.to_owned(), agent.pid().context("the agent does not run")?));
            watched.folders.push(agent.data.clone());
        }
        Ok(watched)
    }

    async fn drive(&self, load: &Load) -> Result<Outcome> {
        let request = message::referral(RECIPIENT)?;
        let (sent, arriving) = mpsc::channel(load.connections() * load.in_flight());
        let arriving = Arc::new(Mutex::new(arriving));
        let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
        let round = Round::start(load, self.watched()?)?;
        for connection in 0..load.connections() {
            let case = call::case(&self.sender)?;
            senders.spawn(send(Arc::clone(&round), connection, case, request.clone(), sent.clone()));
        }
        for _ in 0..limits::READERS.min(load.connections()) {
            let case = call::case(&self.recipient)?;
            receivers.spawn(receive(Arc::clone(&round), case, Arc::clone(&arriving)));
        }
        round.run(senders, receivers).await?;
        self.settled().await?;
        round.outcome()
    }

    /// Waits until the sender knows of what it sent last that it was received, so that nothing is left to do.
    async fn settled(&self) -> Result<()> {
        let mut case = call::case(&self.sender)?;
        wait::within(limits::DRAIN, "the sender knows that all was received", async || {
            let direction = direction::Code::Sent.into();
            let list = ListReferralsRequest { direction, page_size: 1, ..ListReferralsRequest::default() };
            let last = case.list_referrals(list).await.ok()?.into_inner().referrals.pop()?;
            (last.state() == State::Received).then_some(())
        })
        .await
    }
}

/// A caseworker system that sends one referral after the other.
async fn send(
    round: Arc<Round>,
    connection: usize,
    mut case: Case,
    request: SendReferralRequest,
    sent: mpsc::Sender<Sent>,
) -> Result<()> {
    for number in 0.. {
        let Some(due) = round.turn(connection, number).await else { break };
        let answer = case.send_referral(request.clone()).await?.into_inner();
        round.accepted(due);
        let since = if round.is_open() { due } else { Instant::now() };
        let id = answer.referrals.into_iter().next().context("no referral was made")?.id;
        sent.send(Sent { connection, id, since }).await?;
    }
    Ok(())
}

/// A caseworker system that asks for what must come, in the order in which it was sent, until it can be read.
async fn receive(
    round: Arc<Round>,
    mut case: Case,
    arriving: Arc<Mutex<mpsc::Receiver<Sent>>>,
) -> Result<()> {
    loop {
        let sent = arriving.lock().await.recv().await.context("nothing more is sent")?;
        let referral = loop {
            match case.get_referral(GetReferralRequest { id: sent.id.clone() }).await {
                Ok(referral) => break referral.into_inner(),
                Err(status) if status.code() == Code::NotFound => sleep(limits::LOOK).await,
                Err(status) => return Err(status.into()),
            }
        };
        round.delivered(sent.since);
        anyhow::ensure!(
            released(&referral) == message::SECTIONS.len(),
            "sections of {} can't be read",
            sent.id
        );
        round.done(sent.connection);
    }
}

fn released(referral: &Referral) -> usize {
    let released: i32 = disclosure::Code::Released.into();
    referral
        .sections
        .values()
        .filter(|section| section.disclosure == released && section.content.is_some())
        .count()
}

impl System for Road {
    fn prepare(&mut self, _messages: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn round<'a>(&'a mut self, load: &'a Load) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(self.drive(load))
    }
}
