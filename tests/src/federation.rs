//! Several domains that have peered, each a realm of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use liaison_demo::{Agent, Gateway, wait};
use liaison_proto::{
    case::v1::{Agency, ListAgenciesRequest, SendReferralRequest},
    message::v1::referral_state::Code as State,
};

use crate::{
    call, evidence,
    realm::{Domain, Realm},
};

/// What a federation is to be.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    pub domains: &'a [Domain],
    /// The text of the scheme that all domains have.
    pub scheme: &'a str,
    /// More files of a domain's policy folder: the domain, the path, the text.
    pub layers: &'a [(&'a str, &'a str, &'a str)],
    /// Agencies whose agents run.
    pub agencies: &'a [&'a str],
}

/// Running domains, each peered with each other one.
#[derive(Debug)]
pub struct Federation {
    realms: BTreeMap<String, Realm>,
}

impl Federation {
    /// All domains running, peered and linked, and every agency known to those of other domains.
    pub async fn start(setup: &Setup<'_>) -> Result<Self> {
        let federation = Self::linked(setup).await?;
        federation.acquainted().await?;
        Ok(federation)
    }

    /// The same, whether or not the agencies know one another.
    pub async fn linked(setup: &Setup<'_>) -> Result<Self> {
        let mut realms = Vec::new();
        for domain in setup.domains {
            let own = setup.layers.iter().filter(|(of, ..)| *of == domain.name);
            let mut files = vec![("scheme/test.cedar", setup.scheme)];
            files.extend(own.map(|(_, path, text)| (*path, *text)));
            let mut realm = Realm::prepare_domain(*domain, &files).await?;
            realm.gateway.start().await?;
            let agencies: Vec<&str> =
                setup.agencies.iter().copied().filter(|agency| domain_of(agency) == domain.name).collect();
            realm.join(&agencies).await?;
            realms.push(realm);
        }
        Self::of(realms).await
    }

    /// Domains that run already, peered and linked.
    pub async fn of(realms: Vec<Realm>) -> Result<Self> {
        let realms = realms.into_iter().map(|realm| (realm.gateway.domain.clone(), realm)).collect();
        let federation = Self { realms };
        for (number, one) in federation.realms().enumerate() {
            for other in federation.realms().skip(number + 1) {
                one.gateway.peer_with(&other.gateway).await?;
            }
        }
        federation.links().await?;
        Ok(federation)
    }

    /// Waits until every agency knows those of other domains.
    pub async fn acquainted(&self) -> Result<()> {
        for from in self.agents() {
            for to in self.agents() {
                if domain_of(&from.agency) != domain_of(&to.agency) {
                    knows(from, &to.agency).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits until every domain is linked with every other one.
    pub async fn links(&self) -> Result<()> {
        for one in self.realms() {
            for other in self.realms().filter(|other| other.gateway.domain != one.gateway.domain) {
                one.gateway.linked(&other.gateway.domain).await?;
            }
        }
        Ok(())
    }

    pub fn realm(&self, domain: &str) -> Result<&Realm> {
        self.realms.get(domain).with_context(|| format!("{domain} is not in this federation"))
    }

    pub fn realm_mut(&mut self, domain: &str) -> Result<&mut Realm> {
        self.realms.get_mut(domain).with_context(|| format!("{domain} is not in this federation"))
    }

    pub fn realms(&self) -> impl Iterator<Item = &Realm> {
        self.realms.values()
    }

    pub fn agent(&self, agency: &str) -> Result<&Agent> {
        self.realm(domain_of(agency))?.agent(agency)
    }

    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.realms().flat_map(Realm::agents)
    }

    /// Has every domain's log verified, with all that other tables state of it.
    pub async fn sound(&self) -> Result<()> {
        for realm in self.realms() {
            evidence::sound(&realm.gateway).await?;
        }
        Ok(())
    }

    /// Sends a referral as an agency; ids, in the order of the recipients.
    pub async fn send(&self, from: &str, request: SendReferralRequest) -> Result<Vec<String>> {
        let sent = call::case(self.agent(from)?)?.send_referral(request).await?.into_inner().referrals;
        Ok(sent.into_iter().map(|referral| referral.id).collect())
    }

    /// Sends a referral to one agency and waits until it is there; its id.
    pub async fn send_one(&self, from: &str, request: SendReferralRequest) -> Result<String> {
        let to = request.to.first().context("the referral goes to nobody")?.clone();
        let id = self.send(from, request).await?.into_iter().next().context("no referral was made")?;
        call::received(self.agent(&to)?, &id).await?;
        call::referral_in(self.agent(from)?, &id, State::Received).await?;
        Ok(id)
    }
}

/// What waits at a gateway for a peer, and what it accepted and has not told the end of.
pub async fn waiting_for(gateway: &Gateway, peer: &str) -> Result<(u64, u64)> {
    let shown = gateway.peer(peer).await?;
    let count = |field: &str| {
        let value = shown.get(field).with_context(|| format!("peer show has no {field}: {shown}"))?;
        // A 64-bit number is text in the protobuf JSON mapping; either is taken.
        let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        number.with_context(|| format!("{field} is no number: {value}"))
    };
    Ok((count("queued")?, count("outstanding")?))
}

/// The domain of an agency's address.
pub fn domain_of(agency: &str) -> &str {
    agency.split('/').next().unwrap_or_default()
}

/// Agencies that an agent lists, by their addresses.
pub async fn listed(agent: &Agent) -> Result<BTreeMap<String, Agency>> {
    let mut case = call::case(agent)?;
    let mut agencies = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let page = case.list_agencies(ListAgenciesRequest { page_token }).await?.into_inner();
        agencies.extend(page.agencies.into_iter().map(|agency| (agency.address.clone(), agency)));
        if page.next_page_token.is_empty() {
            return Ok(agencies);
        }
        page_token = page.next_page_token;
    }
}

/// Waits until an agent lists an agency that messages can be sealed to.
pub async fn knows(agent: &Agent, agency: &str) -> Result<Agency> {
    wait::until(&format!("{} lists {agency}", agent.agency), async || {
        listed(agent).await.ok()?.remove(agency).filter(|listed| listed.reachable)
    })
    .await
}
