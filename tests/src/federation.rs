//! Several domains that are peers of one another, running.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use liaison_demo::{Agent, Gateway, Net, Programs, wait};
use serde_json::Value;

use crate::{
    Realm, call,
    names::{REFUGE_HU, domain_of},
    policies, realm,
};

/// A layer that one domain adds to the scheme.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    pub domain: &'a str,
    /// Inside the policy folder, such as `country/be/law.cedar`.
    pub path: &'a str,
    pub text: &'a str,
}

/// Running domains, each two of them peers and linked, under one scheme.
#[derive(Debug)]
pub struct Federation {
    // Dropped before the net that its processes run on.
    realms: BTreeMap<String, Realm>,
    /// With a host for each domain, of its name; none where all of them are on this machine's loopback.
    pub net: Option<Net>,
}

impl Federation {
    /// The domains of these agencies, with the agencies' agents running, connected and known to one another.
    pub async fn start(scheme: &str, agencies: &[&str]) -> Result<Self> {
        Self::start_under(scheme, &[], agencies).await
    }

    /// The same with more layers than the scheme.
    pub async fn start_under(scheme: &str, layers: &[Layer<'_>], agencies: &[&str]) -> Result<Self> {
        Self::assemble(scheme, layers, agencies, None).await
    }

    /// The same with each domain on a host of its own.
    pub async fn start_apart(scheme: &str, agencies: &[&str]) -> Result<Self> {
        let names: Vec<&str> = domains(agencies).into_iter().collect();
        Self::assemble(scheme, &[], agencies, Some(Net::new(&names)?)).await
    }

    async fn assemble(
        scheme: &str,
        layers: &[Layer<'_>],
        agencies: &[&str],
        net: Option<Net>,
    ) -> Result<Self> {
        let federation = Self::prepare(scheme, layers, agencies, net).await?;
        federation.peer().await?;
        federation.enrolled(agencies).await
    }

    /// The domains running, with their members, and not yet peers.
    pub async fn prepare(
        scheme: &str,
        layers: &[Layer<'_>],
        agencies: &[&str],
        net: Option<Net>,
    ) -> Result<Self> {
        let programs = Programs::beside_this_one()?;
        let folder = realm::folder()?;
        let mut realms = BTreeMap::new();
        for domain in domains(agencies) {
            let programs = match &net {
                Some(net) => programs.on(net.host(domain)?),
                None => programs.clone(),
            };
            let own = layers.iter().filter(|layer| layer.domain == domain);
            let mut files = vec![(policies::SCHEME, scheme)];
            files.extend(own.map(|layer| (layer.path, layer.text)));
            let mut realm = Realm::prepare_in(&programs, Arc::clone(&folder), domain, &files).await?;
            realm.gateway.start().await?;
            realm.add_members().await?;
            realms.insert(domain.to_owned(), realm);
        }
        Ok(Self { realms, net })
    }

    /// Peers each domain with every other one and waits until they are linked.
    pub async fn peer(&self) -> Result<()> {
        let gateways: Vec<&Gateway> = self.realms.values().map(|realm| &realm.gateway).collect();
        for (number, gateway) in gateways.iter().enumerate() {
            for other in gateways.iter().skip(number + 1) {
                gateway.peer_with(other).await?;
            }
        }
        self.linked().await
    }

    /// Enrols and starts agents, and waits until they know one another.
    async fn enrolled(mut self, agencies: &[&str]) -> Result<Self> {
        for (domain, realm) in &mut self.realms {
            let own: Vec<&str> =
                agencies.iter().copied().filter(|agency| domain_of(agency) == domain).collect();
            realm.enrol(&own).await?;
        }
        self.acquainted().await?;
        Ok(self)
    }

    /// Waits until each two domains are linked both ways.
    pub async fn linked(&self) -> Result<()> {
        for (domain, realm) in &self.realms {
            for other in self.realms.keys().filter(|other| *other != domain) {
                realm.gateway.linked(other).await?;
            }
        }
        Ok(())
    }

    /// Waits until every agency can send to every other one; nobody abroad knows of the hidden one.
    async fn acquainted(&self) -> Result<()> {
        for agent in self.agents() {
            let others = self.agents().map(|other| other.agency.as_str());
            let others: Vec<&str> =
                others.filter(|other| *other != agent.agency && *other != REFUGE_HU).collect();
            wait::until(&format!("{} knows all others", agent.agency), async || {
                let known = call::reachable(agent).await.ok()?;
                others.iter().all(|other| known.contains_key(*other)).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// A domain.
    pub fn realm(&self, domain: &str) -> Result<&Realm> {
        self.realms.get(domain).with_context(|| format!("{domain} does not take part"))
    }

    pub fn realm_mut(&mut self, domain: &str) -> Result<&mut Realm> {
        self.realms.get_mut(domain).with_context(|| format!("{domain} does not take part"))
    }

    /// All domains' names.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.realms.keys().map(String::as_str)
    }

    pub fn gateway(&self, domain: &str) -> Result<&Gateway> {
        Ok(&self.realm(domain)?.gateway)
    }

    pub fn gateway_mut(&mut self, domain: &str) -> Result<&mut Gateway> {
        Ok(&mut self.realm_mut(domain)?.gateway)
    }

    /// The agent of an agency of any domain.
    pub fn agent(&self, agency: &str) -> Result<&Agent> {
        self.realm(domain_of(agency))?.agent(agency)
    }

    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.realms.values().flat_map(Realm::agents)
    }

    /// The net that the domains are apart on.
    pub fn net(&self) -> Result<&Net> {
        self.net.as_ref().context("the domains are on one host")
    }

    /// What waits at a domain for another: copies and notices that are queued, and messages whose end it has
    /// not been told.
    pub async fn waiting(&self, at: &str, peer: &str) -> Result<(u64, u64)> {
        let shown = self.gateway(at)?.peer(peer).await?;
        let count = |field: &str| {
            let number = shown.get(field).and_then(Value::as_u64);
            number.with_context(|| format!("peer show tells no {field}: {shown}"))
        };
        Ok((count("queued")?, count("outstanding")?))
    }
}

fn domains<'a>(agencies: &[&'a str]) -> BTreeSet<&'a str> {
    agencies.iter().map(|agency| domain_of(agency)).collect()
}
