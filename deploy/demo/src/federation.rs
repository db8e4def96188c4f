//! The domains and agencies of a demonstration, running.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};
use liaison_demo::{Agent, Gateway, Programs, policies, wait};
use serde_json::{Value, json};

use crate::{cast::Domain, ground::RECORD};

/// Everything that was started; it ends with this.
pub(crate) struct Federation {
    gateways: Vec<Gateway>,
    agents: BTreeMap<String, Agent>,
}

impl Federation {
    /// Starts every domain's gateway, makes its agencies members, enrols and starts their agents, peers the
    /// domains, and waits until everybody knows everybody.
    pub(crate) async fn start(programs: &Programs, folder: &Path, domains: &[Domain]) -> Result<Self> {
        let mut gateways = Vec::new();
        let mut agents = BTreeMap::new();
        for domain in domains {
            let policies =
                policies::assemble(domain.name, &folder.join(format!("policies-{}", domain.name)))?;
            let mut gateway = Gateway::create(programs, folder, domain.name, &policies).await?;
            gateway.start().await?;
            for member in domain.agencies {
                gateway.add(member).await?;
                let mut agent = Agent::enrol(&gateway, folder, member.address).await?;
                agent.start().await?;
                agents.insert(member.address.to_owned(), agent);
            }
            gateways.push(gateway);
        }
        for agent in agents.values() {
            agent.connected().await?;
        }
        let federation = Self { gateways, agents };
        federation.peer().await?;
        Ok(federation)
    }

    /// Peers every domain with every other, and waits until each agency can address all agencies.
    async fn peer(&self) -> Result<()> {
        for (number, one) in self.gateways.iter().enumerate() {
            for other in self.gateways.iter().skip(number + 1) {
                one.peer_with(other).await?;
                one.linked(&other.domain).await?;
            }
        }
        for agent in self.agents() {
            wait::until(&format!("{} knows all agencies", agent.agency), async || {
                let listed = agent.get("/v1/agencies").await.ok()?;
                let reachable: BTreeSet<&str> = listed
                    .get("agencies")?
                    .as_array()?
                    .iter()
                    .filter(|agency| agency.get("reachable") == Some(&Value::Bool(true)))
                    .filter_map(|agency| agency.get("address")?.as_str())
                    .collect();
                let others = self.agents.keys().filter(|address| **address != agent.agency);
                others.into_iter().all(|address| reachable.contains(address.as_str())).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// The agent of an agency.
    pub(crate) fn agent(&self, address: &str) -> Result<&Agent> {
        self.agents.get(address).with_context(|| format!("{address} does not play"))
    }

    /// All agents, in the order of their agencies' addresses.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// Writes what runs where, for scripts. It holds API tokens, so only its owner may read it.
    pub(crate) fn write_record(&self, folder: &Path) -> Result<()> {
        let gateways: Vec<_> = self
            .gateways
            .iter()
            .map(|gateway| {
                json!({
                    "domain": gateway.domain,
                    "exchange": gateway.exchange().to_string(),
                    "federation": gateway.federation().to_string(),
                    "console": null,
                    "metrics": gateway.metrics().to_string(),
                    "config": gateway.config(),
                    "data": gateway.data,
                    "log": gateway.log,
                    "pid": gateway.pid(),
                    "console_login": null,
                })
            })
            .collect();
        let agencies = self
            .agents
            .values()
            .map(|agent| {
                Ok(json!({
                    "address": agent.agency,
                    "grpc": agent.grpc().to_string(),
                    "rest": agent.rest().to_string(),
                    "token": agent.api_token()?,
                    "config": agent.config(),
                    "data": agent.data,
                    "log": agent.log,
                    "pid": agent.pid(),
                }))
            })
            .collect::<Result<Vec<_>>>()?;
        let record = json!({ "gateways": gateways, "agencies": agencies });
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(folder.join(RECORD))?;
        serde_json::to_writer_pretty(file, &record)?;
        Ok(())
    }

    /// Says what runs, and how to try it.
    pub(crate) fn tell(&self, folder: &Path) {
        println!("\nAll of it runs until you press Ctrl-C:\n");
        for gateway in &self.gateways {
            println!(
                "  gateway {:20} metrics http://{}/metrics   peers connect to {}",
                gateway.domain,
                gateway.metrics(),
                gateway.federation()
            );
        }
        for agent in self.agents() {
            println!(
                "  agent   {:20} http://{}/openapi.json   gRPC {}",
                agent.agency,
                agent.rest(),
                agent.grpc()
            );
        }
        println!("\nAddresses, API tokens, folders, logs: {}", folder.join(RECORD).display());
        if let Some(agent) = self.agents().next() {
            println!(
                "Try: curl -H \"authorization: Bearer $(cat {}/api-token)\" -H 'liaison-actor: me' http://{}/v1/agencies",
                agent.data.display(),
                agent.rest()
            );
        }
    }
}
