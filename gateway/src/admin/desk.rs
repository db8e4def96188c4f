//! What administrators' commands do. Every act is recorded with who did it.

use std::{collections::BTreeMap, sync::Arc};

use liaison_proto::{
    admin::v1::{
        AddAgencyRequest, AgencyRequest, AgencyStatus, CreateTokenRequest, CreateTokenResponse,
        DescribeAgencyRequest, ExplainPolicyRequest, ListAgenciesResponse, LoadPolicyRequest,
        LoadPolicyResponse, StatusResponse, agency_state::Code as AgencyState,
    },
    exchange::v1::PreviewResponse,
    message::v1::{Refusal, error_code::Code as ErrorCode},
    times,
};
use liaison_trust::names::AgencyAddress;
use time::{Duration, OffsetDateTime};
use tokio::sync::{Mutex, MutexGuard};
use tracing::{error, info};

use super::agencies;
use crate::{
    authority::Authority,
    directory::Agency,
    enrolment::Token,
    exchange,
    gateway::Gateway,
    limits,
    policy::{PolicyFile, PolicySet},
    store::{Act, Addition, Queue},
};

/// States that an agency can still leave.
const ALIVE: [AgencyState; 3] = [AgencyState::Invited, AgencyState::Active, AgencyState::Suspended];

/// Does what administrators ask of a gateway.
pub(super) struct Desk {
    pub(super) gateway: Arc<Gateway>,
    pub(super) authority: Arc<Authority>,
    /// Where agents reach the gateway, for tokens.
    reachable_at: String,
    /// Acts of this gateway's administrators happen one at a time, so that what runs is what was stored last.
    pub(super) acts: Mutex<()>,
}

impl Desk {
    /// The desk of a gateway.
    pub(super) fn new(gateway: Arc<Gateway>, authority: Arc<Authority>, reachable_at: String) -> Self {
        Self { gateway, authority, reachable_at, acts: Mutex::default() }
    }

    /// The turn of an act, which sees what others did before.
    pub(super) async fn one_act(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        let turn = self.acts.lock().await;
        self.gateway.store.fresh().await.map_err(internal)?;
        Ok(turn)
    }

    /// The turn of an act that cuts somebody off, for which nothing has to be known.
    pub(super) async fn one_cut(&self) -> MutexGuard<'_, ()> {
        let turn = self.acts.lock().await;
        self.look().await;
        turn
    }

    /// Takes over what other gateways of the domain changed, as far as that can be done.
    pub(super) async fn look(&self) {
        if let Err(fault) = self.gateway.store.fresh().await {
            error!(error = &fault as &dyn std::error::Error, "an administrator goes by what is known here");
        }
    }

    pub(super) async fn add(&self, request: AddAgencyRequest, by: &str) -> Result<AgencyStatus, Refusal> {
        let agency = agencies::parse(request, &self.gateway.domain)?;
        let _one_at_a_time = self.one_act().await?;
        let address = agency.address.to_string();
        let act = Act { at: OffsetDateTime::now_utc(), actor: by, act: "add_agency", subject: &address };
        match self.gateway.store.add_agency(&agency, act).await.map_err(internal)? {
            Addition::Added => {}
            Addition::Taken => {
                return Err(Refusal::new(
                    ErrorCode::IdReused,
                    format!("{address} is an agency already"),
                    "choose another name, or use the agency that is there",
                ));
            }
            Addition::Revoked => {
                return Err(Refusal::new(
                    ErrorCode::Revoked,
                    format!("{address} was an agency whose membership was ended for good"),
                    "choose another name: an address is never given out again",
                ));
            }
            Addition::Full => {
                return Err(Refusal::new(
                    ErrorCode::QueueFull,
                    format!("the domain has {} agencies, as many as it may", limits::AGENCIES),
                    "make another domain",
                ));
            }
        }
        self.gateway.update(agency.clone());
        info!(agency = %address, by, "agency added");
        self.show(&agency.address).await
    }

    pub(super) async fn suspend(&self, request: AgencyRequest, by: &str) -> Result<AgencyStatus, Refusal> {
        let _one_at_a_time = self.one_cut().await;
        let agency = self.agency(&request.address)?;
        match agency.state {
            AgencyState::Suspended => {}
            AgencyState::Active | AgencyState::Invited => {
                self.set_state(&agency, AgencyState::Suspended, "suspend_agency", by).await?;
                self.gateway.sessions.cut(&agency.address);
            }
            AgencyState::Revoked | AgencyState::Unspecified => return Err(not_in_state(&agency)),
        }
        self.show(&agency.address).await
    }

    pub(super) async fn resume(&self, request: AgencyRequest, by: &str) -> Result<AgencyStatus, Refusal> {
        let _one_at_a_time = self.one_act().await?;
        let agency = self.agency(&request.address)?;
        match agency.state {
            AgencyState::Suspended => {
                // One that never enrolled, or so long ago that its certificates are forgotten, has to.
                let enrolled = self.latest_certificate(&agency.address).await?.is_some();
                let state = if enrolled { AgencyState::Active } else { AgencyState::Invited };
                self.set_state(&agency, state, "resume_agency", by).await?;
            }
            AgencyState::Active | AgencyState::Invited => {}
            AgencyState::Revoked | AgencyState::Unspecified => return Err(not_in_state(&agency)),
        }
        self.show(&agency.address).await
    }

    async fn set_state(
        &self,
        agency: &Agency,
        state: AgencyState,
        act: &'static str,
        by: &str,
    ) -> Result<(), Refusal> {
        let address = agency.address.to_string();
        let act = Act { at: OffsetDateTime::now_utc(), actor: by, act, subject: &address };
        if !self.gateway.store.set_agency_state(&agency.address, state, act).await.map_err(internal)? {
            return Err(not_in_state(&Agency { state: AgencyState::Revoked, ..Agency::clone(agency) }));
        }
        self.gateway.set_state(&agency.address, &ALIVE, state);
        info!(agency = %address, by, state = state.as_str_name(), "agency's state changed");
        Ok(())
    }

    pub(super) async fn describe(
        &self,
        request: DescribeAgencyRequest,
        by: &str,
    ) -> Result<AgencyStatus, Refusal> {
        let services = agencies::services(request.services.unwrap_or_default())?;
        let _one_at_a_time = self.one_act().await?;
        let agency = self.agency(&request.address)?;
        if !ALIVE.contains(&agency.state) {
            return Err(not_in_state(&agency));
        }
        let address = agency.address.to_string();
        let act = Act { at: OffsetDateTime::now_utc(), actor: by, act: "describe_agency", subject: &address };
        self.gateway.store.set_services(&agency.address, &services, act).await.map_err(internal)?;
        self.gateway.change(&agency.address, |agency| agency.services = services.clone());
        info!(agency = %address, by, "agency's services described");
        self.show(&agency.address).await
    }

    /// Revokes: outside the database first, so that no crash and no restore lets the agency in again;
    /// then in what runs, even if that failed, so that a full disk doesn't either; then in the database.
    pub(super) async fn revoke(&self, request: AgencyRequest, by: &str) -> Result<AgencyStatus, Refusal> {
        let _one_at_a_time = self.one_cut().await;
        let gateway = &self.gateway;
        let agency = self.agency(&request.address)?.address.clone();
        let address = agency.to_string();
        let now = OffsetDateTime::now_utc();
        let certificates =
            gateway.store.certificates(&agency, now - limits::RENEWAL_GRACE).await.map_err(internal)?;
        let remembered = self.authority.remember(Some(&agency), certificates, now).await;
        gateway.set_state(&agency, &ALIVE, AgencyState::Revoked);
        gateway.sessions.cut(&agency);
        remembered.map_err(internal)?;
        let act = Act { at: now, actor: by, act: "revoke_agency", subject: &address };
        gateway.store.revoke_agency(&agency, act).await.map_err(internal)?;
        gateway.sweep.notify_one();
        self.authority.publish(&gateway.store, now).await.map_err(internal)?;
        info!(agency = %address, by, "agency revoked");
        self.show(&agency).await
    }

    pub(super) async fn token(
        &self,
        request: CreateTokenRequest,
        by: &str,
    ) -> Result<CreateTokenResponse, Refusal> {
        let gateway = &self.gateway;
        let agency = self.agency(&request.agency)?;
        if !matches!(agency.state, AgencyState::Invited | AgencyState::Active) {
            return Err(not_in_state(&agency));
        }
        let hours = if request.hours == 0 { limits::TOKEN_HOURS } else { request.hours };
        if hours > limits::TOKEN_HOURS_MAX {
            let message = format!("a token can be usable for {} hours at most", limits::TOKEN_HOURS_MAX);
            return Err(Refusal::new(ErrorCode::Malformed, message, "ask for fewer hours"));
        }
        let now = OffsetDateTime::now_utc();
        let expires = now + Duration::hours(hours.into());
        let reachable_at = self.reachable_at.clone();
        let token = Token::generate(agency.address.clone(), reachable_at, self.authority.fingerprint())
            .map_err(internal)?;
        let act = Act { at: now, actor: by, act: "create_token", subject: &request.agency };
        let kept = gateway.store.add_token(&token.digest(), &agency.address, expires, act).await;
        if !kept.map_err(internal)? {
            let message =
                format!("{} has {} unused tokens already", agency.address, limits::TOKENS_PER_AGENCY);
            return Err(Refusal::new(
                ErrorCode::RateLimited,
                message,
                "use one of them, or wait until they expire",
            ));
        }
        info!(agency = %agency.address, by, "token created");
        Ok(CreateTokenResponse { token: token.to_text().to_string(), expires: Some(times::to_wire(expires)) })
    }

    pub(super) async fn load(
        &self,
        request: LoadPolicyRequest,
        by: &str,
    ) -> Result<LoadPolicyResponse, Refusal> {
        let files: Vec<_> = request.files.iter().cloned().map(PolicyFile::from).collect();
        // Checking a large set takes long enough to hold up others on this thread.
        let set = tokio::task::spawn_blocking(move || PolicySet::load(&files)).await.map_err(internal)?;
        let set = set.map_err(|fault| {
            let action = "put that right and load the folder again; the active set is unchanged";
            Refusal::new(ErrorCode::Malformed, shortened(&fault.to_string()), action)
        })?;
        let hash = set.hash();
        let (policies, tests) = (count(set.policies()), count(set.tests()));
        let subject = hash.to_string();
        let act = Act { at: OffsetDateTime::now_utc(), actor: by, act: "load_policy", subject: &subject };
        let _one_at_a_time = self.one_act().await?;
        self.gateway.store.activate_policy(&hash, &request, act).await.map_err(internal)?;
        self.gateway.activate(set);
        info!(%hash, policies, tests, by, "policy set activated");
        Ok(LoadPolicyResponse { policy_hash: hash.into(), policies, tests })
    }

    pub(super) async fn explain(&self, request: ExplainPolicyRequest) -> Result<PreviewResponse, Refusal> {
        let sender = self.agency(&request.sender)?;
        exchange::preview(&self.gateway, &sender, request.preview.unwrap_or_default()).await
    }

    /// An agency as it is now.
    pub(super) async fn show(&self, address: &AgencyAddress) -> Result<AgencyStatus, Refusal> {
        let directory = self.gateway.directory.load();
        let agency = directory.get(address).ok_or_else(|| unknown(&address.to_string()))?;
        Ok(self.status_of(agency, self.latest_certificate(address).await?))
    }

    /// When an agency's latest certificate ends.
    async fn latest_certificate(&self, address: &AgencyAddress) -> Result<Option<OffsetDateTime>, Refusal> {
        let certificates = self.gateway.store.certificates(address, OffsetDateTime::UNIX_EPOCH).await;
        Ok(certificates.map_err(internal)?.pop().map(|latest| latest.not_after))
    }

    fn status_of(&self, agency: &Agency, certificate_expires: Option<OffsetDateTime>) -> AgencyStatus {
        AgencyStatus {
            address: agency.address.to_string(),
            name: agency.name.clone(),
            country: agency.country.clone(),
            sectors: agency.sectors.iter().map(|sector| (*sector).into()).collect(),
            groups: agency.groups.clone(),
            state: agency.state.into(),
            connected: self.gateway.sessions.is_connected(&agency.address),
            queued: self.gateway.store.load(&Queue::Agency(agency.address.clone())).deliveries,
            certificate_expires: certificate_expires.map(times::to_wire),
            key_records: count(agency.keys.len()),
            services: Some(agency.services.clone()),
        }
    }

    /// The agency at an address.
    pub(super) fn agency(&self, address: &str) -> Result<Arc<Agency>, Refusal> {
        let parsed = address.parse().ok();
        parsed
            .filter(|address: &AgencyAddress| *address.domain() == self.gateway.domain)
            .and_then(|address| self.gateway.directory.load().get(&address).cloned())
            .ok_or_else(|| unknown(address))
    }

    /// All agencies as they are now.
    pub(super) async fn list(&self) -> Result<ListAgenciesResponse, Refusal> {
        self.look().await;
        let latest = self.gateway.store.latest_certificates().await.map_err(internal)?;
        let latest: BTreeMap<_, _> = latest.into_iter().collect();
        let directory = self.gateway.directory.load();
        let show = |agency: &Arc<Agency>| self.status_of(agency, latest.get(&agency.address).copied());
        Ok(ListAgenciesResponse { agencies: directory.of(&self.gateway.domain).map(show).collect() })
    }

    /// The gateway as it is now.
    pub(super) async fn status(&self) -> StatusResponse {
        self.look().await;
        let gateway = &self.gateway;
        let directory = gateway.directory.load();
        StatusResponse {
            domain: gateway.domain.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy_hash: gateway.policy.load().hash().into(),
            agencies: count(directory.of(&gateway.domain).count()),
            sessions: count(gateway.sessions.count()),
            queued: gateway.queued(),
            certificate_expires: Some(times::to_wire(self.authority.own_not_after())),
            now: Some(times::to_wire(OffsetDateTime::now_utc())),
        }
    }
}

fn unknown(address: &str) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownRecipient,
        format!("{address} is no agency of this domain"),
        "see `liaison-gateway agency list`, or add it with `liaison-gateway agency add`",
    )
}

fn not_in_state(agency: &Agency) -> Refusal {
    let message = format!("{} is {}", agency.address, agency.state.as_str_name());
    let action = match agency.state {
        AgencyState::Revoked => "a membership that was ended stays so; add a new agency at another address",
        AgencyState::Suspended => "resume it first",
        _ => "nothing is to be done: it is not suspended",
    };
    Refusal::new(ErrorCode::TransitionNotAllowed, message, action)
}

/// Fits a text into the trailers of an answer.
pub(super) fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(limits::FAULT_BYTES);
    match text.get(..end) {
        Some(head) if end < text.len() => format!("{head}\n(and more: `policy check` lists all)"),
        _ => text.to_owned(),
    }
}

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn internal(fault: impl std::error::Error + 'static) -> Refusal {
    error!(fault = &fault as &dyn std::error::Error, "an administrator's command failed");
    Refusal::internal()
}
