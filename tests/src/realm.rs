//! A domain with its agencies, running, in a folder that goes with it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, Result};
use liaison_demo::{Agent, Gateway, Programs};
use tempfile::TempDir;

use crate::{names::members, policies};

/// A running domain.
#[derive(Debug)]
pub struct Realm {
    pub gateway: Gateway,
    agents: BTreeMap<String, Agent>,
    folder: Arc<TempDir>,
}

impl Realm {
    /// A gateway of `be` under one scheme policy, with all members known and these agencies' agents running
    /// and connected.
    pub async fn start(scheme: &str, agencies: &[&str]) -> Result<Self> {
        let mut realm = Self::prepare(scheme).await?;
        realm.gateway.start().await?;
        realm.join(agencies).await?;
        Ok(realm)
    }

    /// The gateway made and not yet running, so that a test can change its configuration first.
    pub async fn prepare(scheme: &str) -> Result<Self> {
        let programs = Programs::beside_this_one()?;
        Self::prepare_in(&programs, folder()?, "be", &[(policies::SCHEME, scheme)]).await
    }

    /// The gateway of any domain in a folder that it may share, under policies given by their paths.
    pub(crate) async fn prepare_in(
        programs: &Programs,
        folder: Arc<TempDir>,
        domain: &str,
        files: &[(&str, &str)],
    ) -> Result<Self> {
        let policies = policies::write(&folder.path().join(format!("policies-{domain}")), files)?;
        let gateway = Gateway::create(programs, folder.path(), domain, &policies).await?;
        Ok(Self { gateway, agents: BTreeMap::new(), folder })
    }

    /// Makes all members known to a running gateway, and enrols, starts and connects some agents.
    pub async fn join(&mut self, agencies: &[&str]) -> Result<()> {
        self.add_members().await?;
        self.enrol(agencies).await
    }

    /// Makes all members of the domain known to a running gateway.
    pub(crate) async fn add_members(&self) -> Result<()> {
        for member in members(&self.gateway.domain) {
            self.gateway.add(member).await?;
        }
        Ok(())
    }

    /// Enrols, starts and connects agents of members.
    pub(crate) async fn enrol(&mut self, agencies: &[&str]) -> Result<()> {
        for agency in agencies {
            let mut agent = Agent::enrol(&self.gateway, self.folder.path(), agency).await?;
            agent.start().await?;
            self.agents.insert((*agency).to_owned(), agent);
        }
        for agent in self.agents.values() {
            agent.connected().await?;
        }
        Ok(())
    }

    pub fn agent(&self, agency: &str) -> Result<&Agent> {
        self.agents.get(agency).with_context(|| format!("{agency} did not join"))
    }

    pub fn agent_mut(&mut self, agency: &str) -> Result<&mut Agent> {
        self.agents.get_mut(agency).with_context(|| format!("{agency} did not join"))
    }

    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// Where everything of this realm lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes another scheme the active one, without any other layer.
    pub async fn load_scheme(&self, scheme: &str) -> Result<()> {
        self.load(&[(policies::SCHEME, scheme)]).await
    }

    /// Makes other policies the active ones, given by their paths.
    pub async fn load(&self, files: &[(&str, &str)]) -> Result<()> {
        let folder = self.folder.path().join(format!("other-policies-{}", self.gateway.domain));
        self.gateway.load_policies(&policies::write(&folder, files)?).await
    }

    /// The gateway's log so far.
    pub fn gateway_log(&self) -> String {
        std::fs::read_to_string(&self.gateway.log).unwrap_or_default()
    }
}

/// A new folder for everything of a test; kept if `LIAISON_TESTS_KEEP` is set.
pub(crate) fn folder() -> Result<Arc<TempDir>> {
    let mut folder = TempDir::with_prefix("liaison-test-")?;
    if std::env::var_os("LIAISON_TESTS_KEEP").is_some() {
        folder.disable_cleanup(true);
        println!("kept: {}", folder.path().display());
    }
    Ok(Arc::new(folder))
}
