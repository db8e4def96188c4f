//! A domain with its agencies, running, in a folder that goes with it.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use liaison_demo::{Agent, Gateway, Member, Programs};
use tempfile::TempDir;

use crate::policies;

/// Agencies that most tests need.
pub mod names {
    pub const HOSPITAL: &str = "be/hospital-ghent";
    pub const SHELTER: &str = "be/shelter-antwerp";
    pub const POLICE: &str = "be/police-federal";
    pub const BORDER: &str = "be/border-zaventem";
}
use names::{BORDER, HOSPITAL, POLICE, SHELTER};

const MEMBERS: [Member<'static>; 4] = [
    Member {
        address: HOSPITAL,
        name: "Hospital",
        country: "be",
        sectors: &["HealthServiceOrganisation"],
        groups: &[],
    },
    Member { address: SHELTER, name: "Shelter", country: "be", sectors: &["NGO"], groups: &["network"] },
    Member {
        address: POLICE,
        name: "Police",
        country: "be",
        sectors: &["LawEnforcement"],
        groups: &["network"],
    },
    Member { address: BORDER, name: "Border", country: "nl", sectors: &["BorderManagement"], groups: &[] },
];

/// A running domain.
#[derive(Debug)]
pub struct Realm {
    pub gateway: Gateway,
    agents: BTreeMap<String, Agent>,
    folder: TempDir,
}

impl Realm {
    /// A gateway under one scheme policy, with all members known and these agencies' agents running and
    /// connected.
    pub async fn start(scheme: &str, agencies: &[&str]) -> Result<Self> {
        let mut realm = Self::prepare(scheme).await?;
        realm.gateway.start().await?;
        realm.join(agencies).await?;
        Ok(realm)
    }

    /// The gateway made and not yet running, so that a test can change its configuration first.
    pub async fn prepare(scheme: &str) -> Result<Self> {
        let programs = Programs::beside_this_one()?;
        let mut folder = TempDir::with_prefix("liaison-test-")?;
        if std::env::var_os("LIAISON_TESTS_KEEP").is_some() {
            folder.disable_cleanup(true);
            println!("kept: {}", folder.path().display());
        }
        let policies = policies::write_scheme(&folder.path().join("policies"), scheme)?;
        let gateway = Gateway::create(&programs, folder.path(), "be", &policies).await?;
        Ok(Self { gateway, agents: BTreeMap::new(), folder })
    }

    /// Makes all members known to a running gateway, and enrols, starts and connects some agents.
    pub async fn join(&mut self, agencies: &[&str]) -> Result<()> {
        for member in &MEMBERS {
            self.gateway.add(member).await?;
        }
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

    /// Makes another scheme the active one.
    pub async fn load_scheme(&self, scheme: &str) -> Result<()> {
        let folder = policies::write_scheme(&self.folder.path().join("other-policies"), scheme)?;
        self.gateway.load_policies(&folder).await
    }

    /// The gateway's log so far.
    pub fn gateway_log(&self) -> String {
        std::fs::read_to_string(&self.gateway.log).unwrap_or_default()
    }
}
