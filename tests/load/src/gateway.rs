//! A gateway alone: sealed messages come over agents' sessions, are decided, stored and delivered, and their
//! recipients acknowledge them.

pub(crate) mod crowd;
mod seed;
pub(crate) mod session;
pub(crate) mod stock;

use std::{path::Path, sync::Arc};

use anyhow::Result;
use futures_util::future::LocalBoxFuture;
use liaison_demo::{Gateway, Member, Programs};
use liaison_tests::{insider::Insider, policies, postgres::Server};
use tokio::task::JoinSet;

use self::{
    session::Session,
    stock::{Cast, Haste, Stock},
};
use crate::{
    limits,
    round::{Load, Outcome, Pace, Round},
    system::System,
    usage::Watched,
};

/// Policies in the active set, where nothing else is said.
pub(crate) const POLICIES: usize = 100;
/// The agency that never connects.
const ABSENT: &str = "be/load-absent";

/// A gateway with its agencies, one for each connection. Each sends to the next.
pub(crate) struct GatewayAlone {
    gateway: Gateway,
    cast: Cast,
    /// What each agency is to send.
    stock: Vec<Stock>,
    /// Where it keeps what it has, if not in a file. After the gateway, so that it ends after it.
    server: Option<Server>,
}

impl GatewayAlone {
    pub(crate) async fn start(programs: &Programs, folder: &Path, connections: usize) -> Result<Self> {
        Self::under(programs, folder, connections, POLICIES).await
    }

    /// The same under so many policies.
    pub(crate) async fn under(
        programs: &Programs,
        folder: &Path,
        connections: usize,
        policies: usize,
    ) -> Result<Self> {
        Self::on(start(programs, folder, policies, None).await?, connections, None).await
    }

    /// The same on PostgreSQL, whose server is under the same folder.
    pub(crate) async fn on_postgres(programs: &Programs, folder: &Path, connections: usize) -> Result<Self> {
        let server = Server::start_in(folder).await?;
        let gateway = start(programs, folder, POLICIES, Some(&server)).await?;
        Self::on(gateway, connections, Some(server)).await
    }

    async fn on(gateway: Gateway, connections: usize, server: Option<Server>) -> Result<Self> {
        let mut agencies = Vec::new();
        for number in 0..connections {
            let address = format!("be/load-{number}");
            join(&gateway, &address).await?;
            agencies.push(Arc::new(Insider::enrol(&gateway, &address).await?));
        }
        Ok(Self { gateway, cast: Cast { agencies, absent: None }, stock: Vec::new(), server })
    }

    /// What it sends is mixed from now on.
    pub(crate) async fn mix(&mut self) -> Result<()> {
        join(&self.gateway, ABSENT).await?;
        self.cast.absent = Some(Arc::new(Insider::enrol(&self.gateway, ABSENT).await?));
        Ok(())
    }

    /// Who sends to whom.
    pub(crate) fn cast(&self) -> Cast {
        self.cast.clone()
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Ends it as an administrator would.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.gateway.stop().await
    }

    /// Starts it again.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        self.gateway.start().await
    }

    /// Gives it so many messages that were acknowledged before. It has to have carried some already, and does not run
    /// meanwhile.
    pub(crate) async fn seed(&mut self, messages: u64) -> Result<()> {
        self.gateway.stop().await?;
        seed::seed(&self.gateway.data, &self.cast, messages).await?;
        self.gateway.start().await
    }

    /// Its processes and folders.
    pub(crate) fn watched(&self) -> Result<Watched> {
        let mut watched = watched(&self.gateway)?;
        if let Some(server) = &self.server {
            watched.processes.extend(server.pid().map(|pid| ("postgres".to_owned(), pid)));
            watched.folders.push(server.data());
        }
        Ok(watched)
    }

    /// So many rounds in a closed loop, after one that warms up.
    pub(crate) async fn closed(&mut self, load: &Load, rounds: usize) -> Result<Vec<Outcome>> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let warm_up = std::iter::once(limits::WARM_UP);
        for lasts in warm_up.chain(std::iter::repeat_n(limits::ROUND, rounds)) {
            let load = Load { pace: Pace::Closed, lasts, ..*load };
            self.prepare(load.messages(outcomes.last().map(Outcome::rate))).await?;
            outcomes.push(self.round(&load).await?);
        }
        Ok(outcomes.split_off(1))
    }

    /// What the next round sends.
    pub(crate) fn fill(&mut self, stock: Vec<Stock>) {
        self.stock = stock;
    }

    async fn drive(&mut self, load: &Load) -> Result<Outcome> {
        let mut sessions = Vec::new();
        for agency in &self.cast.agencies {
            sessions.push(Session::open(agency).await?);
        }
        let round = Round::start(load, self.watched()?)?;
        let flights: Vec<_> = sessions.iter().map(|_| session::Flights::default()).collect();
        let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
        let count = sessions.len();
        for ((connection, session), stock) in sessions.into_iter().enumerate().zip(self.stock.drain(..)) {
            let of = |agency: usize| flights.get(agency % count).cloned().unwrap_or_default();
            let (send, receive) = session.drive(
                Arc::clone(&round),
                connection,
                stock,
                of(connection),
                of(connection + count - 1),
            );
            senders.spawn(send);
            receivers.spawn(receive);
        }
        round.run(senders, receivers).await?;
        round.outcome()
    }
}

impl System for GatewayAlone {
    fn prepare(&mut self, messages: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let each = messages.clamp(1, limits::STOCK).div_ceil(self.cast.agencies.len() as u64);
            self.stock = self.cast().seal(each, Haste::Now).await?;
            Ok(())
        })
    }

    fn round<'a>(&'a mut self, load: &'a Load) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(self.drive(load))
    }
}

/// A running gateway in a folder of its own, under so many policies.
pub(crate) async fn start(
    programs: &Programs,
    folder: &Path,
    policies: usize,
    server: Option<&Server>,
) -> Result<Gateway> {
    let files = scheme(policies);
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let set = policies::write(&folder.join("policies"), &files)?;
    let mut gateway = match server {
        None => Gateway::create(programs, folder, "be", &set).await?,
        Some(server) => {
            let database = server.database("be").await?;
            Gateway::create_with(programs, folder, "be", &set, &["--database", &database]).await?
        }
    };
    gateway.start().await?;
    Ok(gateway)
}

/// Makes an agency a member.
pub(crate) async fn join(gateway: &Gateway, address: &str) -> Result<()> {
    let member = Member {
        address,
        name: "Agency under load",
        country: "be",
        sectors: &["NGO"],
        groups: &["network"],
        services: &[],
        languages: &[],
        ages: &[],
    };
    gateway.add(&member).await
}

pub(crate) fn watched(gateway: &Gateway) -> Result<Watched> {
    let pid = anyhow::Context::context(gateway.pid(), "the gateway does not run")?;
    Ok(Watched { processes: vec![("gateway".to_owned(), pid)], folders: vec![gateway.data.clone()] })
}

/// Policies that let everything through, and others, so many in all, that are asked each time and do not apply: the
/// files of a policy folder.
fn scheme(count: usize) -> Vec<(String, String)> {
    let open = policies::OPEN.matches("permit(").count();
    let others = (open..count).map(|number| {
        let (action, resource) = match number % 4 {
            0 => (r#"action == Action::"submit""#, r#"resource in Group::"closed""#.to_owned()),
            1 => (r#"action == Action::"receive""#, r#"resource in Sector::"Employment""#.to_owned()),
            2 => (r#"action in Action::"share_all""#, r#"resource in Country::"fr""#.to_owned()),
            _ => (
                r#"action in Action::"share_identifying""#,
                format!(r#"resource == Agency::"be/none-{number}""#),
            ),
        };
        policies::forbid(&format!("load-{number}"), action, &resource)
    });
    let all: Vec<String> = std::iter::once(policies::OPEN.to_owned()).chain(others).collect();
    let file = |(number, part): (usize, &[String])| (format!("scheme/load-{number}.cedar"), part.join("\n"));
    all.chunks(limits::POLICIES_OF_A_FILE).enumerate().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_has_as_many_policies_as_it_says() {
        for count in [limits::FEW_POLICIES, POLICIES, limits::MANY_POLICIES] {
            let all: String = scheme(count).into_iter().map(|(_, text)| text).collect();
            assert_eq!(all.matches("@id(").count(), count);
            assert_eq!(all.matches("permit(").count() + all.matches("forbid(").count(), count);
        }
    }
}
