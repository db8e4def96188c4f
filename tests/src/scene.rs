//! A real domain with a hostile peer, and what every attack on it has to show.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use liaison_demo::wait;
use liaison_proto::{
    case::v1::SendReferralRequest,
    exchange::v1::ListAgenciesRequest,
    federation::v1::Forward,
    message::v1::{Acceptances, Refusal, error_code::Code as ErrorCode, kind::Code as Kind},
};
use liaison_trust::{envelope::Draft, key_record::ProvenKey, statement};
use time::OffsetDateTime;

use crate::{
    Realm, call,
    federation::knows,
    hostile::{Answer, DOMAIN, Hostile, Link, violations},
    insider::Insider,
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    realm::HU,
};

/// The domain `be`, of which the hospital and the shelter run, and its peer `xx`.
pub struct Scene {
    pub realm: Realm,
    pub hostile: Hostile,
    /// An agency of `be` that asks the gateway what an agent doesn't show.
    police: Insider,
    /// The key of the shelter, which is what `xx` sends to.
    pub shelter: ProvenKey,
    /// Of each kind, how many violations were counted.
    counted: BTreeMap<&'static str, u64>,
}

impl Scene {
    /// Under one scheme policy; `xx` says that it takes links at `listens`.
    pub async fn start(scheme: &str, listens: SocketAddr) -> Result<Self> {
        Self::start_after(Duration::ZERO, scheme, listens).await
    }

    /// The same with a peer that was accepted by a bundle that was made so long ago.
    pub async fn start_after(age: Duration, scheme: &str, listens: SocketAddr) -> Result<Self> {
        let realm = Realm::start(scheme, &[HOSPITAL, SHELTER]).await?;
        let hostile = Hostile::accepted_after(age, &realm.gateway, listens).await?;
        let police = Insider::enrol(&realm.gateway, POLICE).await?;
        let shelter = police.key_of(SHELTER).await?;
        Ok(Self { realm, hostile, police, shelter, counted: BTreeMap::new() })
    }

    /// An honest peer of `be` under the same scheme, `hu`: its shelter runs and knows the agencies of `be`.
    pub async fn neighbour(&self, scheme: &str) -> Result<Realm> {
        let mut hu = Realm::prepare_domain(HU, &[("scheme/test.cedar", scheme)]).await?;
        hu.gateway.start().await?;
        hu.join(&[SHELTER_HU]).await?;
        hu.gateway.peer_with(&self.realm.gateway).await?;
        hu.gateway.linked(&self.realm.gateway.domain).await?;
        for agency in [HOSPITAL, SHELTER] {
            knows(hu.agent(SHELTER_HU)?, agency).await?;
        }
        Ok(hu)
    }

    /// Makes the peer's shelter known, so that it can be addressed.
    pub async fn list(&self, link: &mut Link) -> Result<()> {
        let page = self.hostile.page(vec![self.hostile.shelter.described(DOMAIN)]);
        let answer = link.directory(statement::sign(&page, &self.hostile.signing)).await?;
        ensure!(matches!(answer, Answer::Done), "an honest page: {answer:?}");
        Ok(())
    }

    /// Waits until the hospital sees its referral held by this one.
    pub async fn holder(&self, id: &str, at: &str) -> Result<()> {
        let hospital = self.realm.agent(HOSPITAL)?;
        wait::until(&format!("{id} is at {at}"), async || {
            (call::referral(hospital, id).await.ok()?.at == at).then_some(())
        })
        .await
    }

    /// What the gateway has in memory, KiB.
    pub fn memory(&self) -> Result<u64> {
        self.measured("VmRSS:")
    }

    /// The most that it ever had.
    pub fn most_memory(&self) -> Result<u64> {
        self.measured("VmHWM:")
    }

    fn measured(&self, what: &str) -> Result<u64> {
        let pid = self.realm.gateway.pid().context("the gateway does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        Ok(line.with_context(|| format!("no {what}"))?.trim().trim_end_matches(" kB").parse()?)
    }

    /// A referral of the peer's shelter to that of `be`.
    pub fn draft(&self) -> Draft {
        self.hostile.shelter.draft(
            Kind::Referral,
            std::slice::from_ref(&self.shelter),
            OffsetDateTime::now_utc(),
        )
    }

    /// The same as an honest gateway forwards it.
    pub fn honest(&self) -> Result<Forward> {
        self.hostile.forward_of(&self.draft())
    }

    /// Checks that an answer is a refusal with this code, and that the gateway's log and metrics name the peer for
    /// it.
    pub async fn violation(&mut self, what: &str, answer: Answer, code: ErrorCode) -> Result<Refusal> {
        let refusal = refused(what, answer, code)?;
        self.counted(what, code).await?;
        Ok(refusal)
    }

    /// Checks that one more violation of this kind was counted, and that the log names it.
    pub async fn counted(&mut self, what: &str, code: ErrorCode) -> Result<()> {
        let kind = code.as_str_name();
        let count = violations(&self.realm.gateway, kind).await?;
        let before = self.counted.insert(kind, count).unwrap_or_default();
        ensure!(count > before, "{what}: no metric tells of {kind}");
        let log = self.realm.gateway_log();
        let told = log.lines().filter(|line| {
            line.contains("a peer keeps to no rule") && line.contains("xx") && line.contains(kind)
        });
        ensure!(u64::try_from(told.count())? >= count, "{what}: the log does not tell of {kind}");
        Ok(())
    }

    /// Checks that a local referral goes through, and an honest one of the peer.
    pub async fn harmless(&self, link: &mut Link) -> Result<()> {
        self.local().await?;
        let draft = self.draft();
        accepted(link.forward(&self.hostile.forward_of(&draft)?).await?)?;
        call::received(self.realm.agent(SHELTER)?, &draft.message_id.to_string()).await?;
        Ok(())
    }

    /// Checks that a referral between two agencies of `be` goes through.
    pub async fn local(&self) -> Result<()> {
        let id = self.send(message::small_referral(SHELTER)).await?;
        call::received(self.realm.agent(SHELTER)?, &id).await.map(drop)
    }

    /// Whether the gateway lets its agencies address an agency.
    pub async fn lists(&self, address: &str) -> Result<bool> {
        let request = ListAgenciesRequest { addresses: vec![address.to_owned()], ..Default::default() };
        let listed = self.police.exchange().await?.list_agencies(request).await?.into_inner();
        Ok(!listed.agencies.is_empty())
    }

    /// Sends a referral of the hospital; its id.
    pub async fn send(&self, request: SendReferralRequest) -> Result<String> {
        call::send(self.realm.agent(HOSPITAL)?, request).await
    }

    /// How often the shelter was delivered a message.
    pub async fn deliveries(&self, draft: &Draft) -> Result<usize> {
        let id = draft.message_id.to_string();
        let ids = call::received_ids(self.realm.agent(SHELTER)?).await?;
        Ok(ids.into_iter().filter(|received| *received == id).count())
    }
}

/// The refusal that an answer is, which has to have this code.
pub fn refused(what: &str, answer: Answer, code: ErrorCode) -> Result<Refusal> {
    match answer {
        Answer::Refused(refusal) | Answer::Ended(refusal) if refusal.code() == code => Ok(*refusal),
        Answer::Refused(refusal) | Answer::Ended(refusal) => {
            bail!("{what}: {} instead of {}: {refusal}", refusal.code().as_str_name(), code.as_str_name())
        }
        answer => bail!("{what}: {answer:?} instead of {}", code.as_str_name()),
    }
}

/// The acceptances that an answer is.
pub fn accepted(answer: Answer) -> Result<Acceptances> {
    match answer {
        Answer::Accepted(acceptances) => Ok(acceptances),
        answer => bail!("not accepted: {answer:?}"),
    }
}
