//! A domain on a host of its own in a [`Net`], with its gateway and agents.

use std::{collections::BTreeMap, fs};

use anyhow::{Result, ensure};
use liaison_demo::{Agent, Gateway, Programs};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    federation::waiting_for,
    net::{Host, Net, Window},
    policies,
    realm::Domain,
};

/// A running domain. What runs goes before its host does.
#[derive(Debug)]
pub struct NetDomain {
    pub gateway: Gateway,
    agents: BTreeMap<String, Agent>,
    windows: Vec<Window>,
    pub host: Host,
    folder: TempDir,
}

impl NetDomain {
    /// A domain under one scheme policy, with these agencies' agents running and connected.
    pub async fn start(net: &Net, domain: Domain, scheme: &str, agencies: &[&str]) -> Result<Self> {
        let host = net.host()?;
        let mut folder = TempDir::with_prefix("liaison-test-")?;
        if std::env::var_os("LIAISON_TESTS_KEEP").is_some() {
            folder.disable_cleanup(true);
            println!("kept: {}", folder.path().display());
        }
        let own = Programs::beside_this_one()?;
        let programs = Programs {
            gateway: host.program(&own.gateway, folder.path())?,
            agent: host.program(&own.agent, folder.path())?,
        };
        let policies = policies::write_scheme(&folder.path().join("policies"), scheme)?;
        let gateway = Gateway::create(&programs, folder.path(), domain.name, &policies).await?;
        // Agents reach it on the host's loopback, peers on its address.
        let outside = format!("{}:{}", host.address, gateway.federation().port());
        let config = fs::read_to_string(gateway.config())?;
        let inside = gateway.federation().to_string();
        ensure!(config.contains(&inside), "the configuration does not say where peers connect:\n{config}");
        fs::write(gateway.config(), config.replace(&inside, &outside))?;
        let windows = vec![host.open(gateway.metrics()).await?];
        let mut started = Self { gateway, agents: BTreeMap::new(), windows, host, folder };
        started.gateway.start().await?;
        for member in domain.members {
            started.gateway.add(member).await?;
        }
        for agency in agencies {
            started.join(agency).await?;
        }
        Ok(started)
    }

    async fn join(&mut self, agency: &str) -> Result<()> {
        let mut agent = Agent::enrol(&self.gateway, self.folder.path(), agency).await?;
        self.windows.push(self.host.open(agent.rest()).await?);
        self.windows.push(self.host.open(agent.grpc()).await?);
        agent.start().await?;
        agent.connected().await?;
        self.agents.insert(agency.to_owned(), agent);
        Ok(())
    }

    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// What waits here for a peer, and what it accepted and has not told the end of.
    pub async fn waiting_for(&self, peer: &str) -> Result<(u64, u64)> {
        waiting_for(&self.gateway, peer).await
    }

    /// Whether a link to a peer stands.
    pub async fn is_linked(&self, peer: &str) -> Result<bool> {
        Ok(self.gateway.peer(peer).await?.get("linked") == Some(&Value::Bool(true)))
    }
}
