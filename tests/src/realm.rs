//! A domain with its agencies, running, in a folder that goes with it.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use liaison_demo::{Agent, Gateway, Member, Programs};
use tempfile::TempDir;

use crate::policies;

/// Agencies of the tests.
pub mod names {
    pub const HOSPITAL: &str = "be/hospital-ghent";
    pub const SHELTER: &str = "be/shelter-antwerp";
    pub const POLICE: &str = "be/police-federal";
    pub const BORDER: &str = "be/border-zaventem";
    pub const SHELTER_HU: &str = "hu/shelter-budapest";
    pub const HEALTH_HU: &str = "hu/health-pest";
    pub const POLICE_HU: &str = "hu/police-orfk";
    pub const SHELTER_FR: &str = "fr/shelter-paris";
}
use names::{BORDER, HEALTH_HU, HOSPITAL, POLICE, POLICE_HU, SHELTER, SHELTER_FR, SHELTER_HU};

/// A domain of the tests with the agencies that it knows.
#[derive(Debug, Clone, Copy)]
pub struct Domain {
    pub name: &'static str,
    pub members: &'static [Member<'static>],
}

/// The domain that a test of one domain has.
pub const BE: Domain = Domain {
    name: "be",
    members: &[
        Member {
            address: HOSPITAL,
            name: "Hospital",
            country: "be",
            sectors: &["HealthServiceOrganisation"],
            groups: &[],
            services: &[],
            languages: &[],
            ages: &[],
        },
        Member {
            address: SHELTER,
            name: "Shelter",
            country: "be",
            sectors: &["NGO"],
            groups: &["network"],
            services: &[],
            languages: &[],
            ages: &[],
        },
        Member {
            address: POLICE,
            name: "Police",
            country: "be",
            sectors: &["LawEnforcement"],
            groups: &["network"],
            services: &[],
            languages: &[],
            ages: &[],
        },
        Member {
            address: BORDER,
            name: "Border",
            country: "nl",
            sectors: &["BorderManagement"],
            groups: &[],
            services: &[],
            languages: &[],
            ages: &[],
        },
    ],
};

/// A second one.
pub const HU: Domain = Domain {
    name: "hu",
    members: &[
        Member {
            address: SHELTER_HU,
            name: "Shelter Budapest",
            country: "hu",
            sectors: &["NGO"],
            groups: &[],
            services: &["safehouse", "return"],
            languages: &["hu", "en"],
            ages: &["from_18_to_24"],
        },
        Member {
            address: HEALTH_HU,
            name: "Health Service of Pest",
            country: "hu",
            sectors: &["HealthServiceOrganisation"],
            groups: &[],
            services: &[],
            languages: &[],
            ages: &[],
        },
        Member {
            address: POLICE_HU,
            name: "Hungarian Police",
            country: "hu",
            sectors: &["LawEnforcement"],
            groups: &["hidden"],
            services: &[],
            languages: &[],
            ages: &[],
        },
    ],
};

/// A third one.
pub const FR: Domain = Domain {
    name: "fr",
    members: &[Member {
        address: SHELTER_FR,
        name: "Shelter Paris",
        country: "fr",
        sectors: &["NGO"],
        groups: &[],
        services: &[],
        languages: &[],
        ages: &[],
    }],
};

/// A running domain.
#[derive(Debug)]
pub struct Realm {
    pub gateway: Gateway,
    members: &'static [Member<'static>],
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
        Self::prepare_domain(BE, &[("scheme/test.cedar", scheme)]).await
    }

    /// The same for any domain, with the files of its policy folder.
    pub async fn prepare_domain(domain: Domain, policies: &[(&str, &str)]) -> Result<Self> {
        Self::prepare_with(domain, policies, &[]).await
    }

    /// The same with more arguments of the gateway's `init`.
    pub async fn prepare_with(domain: Domain, policies: &[(&str, &str)], init: &[&str]) -> Result<Self> {
        let programs = Programs::beside_this_one()?;
        let mut folder = TempDir::with_prefix("liaison-test-")?;
        if std::env::var_os("LIAISON_TESTS_KEEP").is_some() {
            folder.disable_cleanup(true);
            println!("kept: {}", folder.path().display());
        }
        let policies = policies::write(&folder.path().join("policies"), policies)?;
        let gateway = Gateway::create_with(&programs, folder.path(), domain.name, &policies, init).await?;
        Ok(Self { gateway, members: domain.members, agents: BTreeMap::new(), folder })
    }

    /// Makes all members known to a running gateway, and enrols, starts and connects some agents.
    pub async fn join(&mut self, agencies: &[&str]) -> Result<()> {
        for member in self.members {
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

    /// Makes another scheme the active one, without any other layer.
    pub async fn load_scheme(&self, scheme: &str) -> Result<()> {
        self.load(&[("scheme/test.cedar", scheme)]).await
    }

    /// Makes other policies the active ones.
    pub async fn load(&self, policies: &[(&str, &str)]) -> Result<()> {
        let folder = policies::write(&self.folder.path().join("other-policies"), policies)?;
        self.gateway.load_policies(&folder).await
    }

    /// The gateway's log so far.
    pub fn gateway_log(&self) -> String {
        std::fs::read_to_string(&self.gateway.log).unwrap_or_default()
    }
}
