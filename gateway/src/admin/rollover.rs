//! The change of the domain's CA: a next one is prepared and made known, then it issues, then the former
//! one is retired. No step shuts anybody out, unless an administrator insists.

use liaison_proto::{
    admin::v1::{AuthorityRequest, AuthorityStatus, authority_step::Code as Step},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::names::AgencyAddress;
use time::OffsetDateTime;
use tracing::info;

use super::desk::{Desk, internal, shortened};
use crate::store::Act;

impl Desk {
    /// Tells how the domain's CA stands, after a step of its change if one was asked for.
    pub(super) async fn authority(
        &self,
        request: AuthorityRequest,
        by: &str,
    ) -> Result<AuthorityStatus, Refusal> {
        let step = Step::try_from(request.step).map_err(|_| {
            let message = "the step is not in this version's contracts";
            Refusal::new(ErrorCode::UnknownValue, message, "see `liaison-gateway ca --help`")
        })?;
        let _one_at_a_time = self.one_act().await?;
        let now = OffsetDateTime::now_utc();
        let store = &self.gateway.store;
        let is_alone = store.gateways().await.map_err(internal)? <= 1;
        if is_alone {
            // A step that was interrupted may have left none.
            store.set_roots(&self.authority.fingerprints()).await.map_err(internal)?;
        }
        let members = self.authority.behind(store, now).await.map_err(internal)?;
        if step == Step::Unspecified {
            return Ok(self.standing(&members));
        }
        let next = self.authority.next_step();
        if step != next {
            return Err(not_now(step, next));
        }
        let behind = self.behind(&members);
        if step != Step::Prepare && !behind.is_empty() && !request.force {
            return Err(too_early(step, &behind));
        }
        let subject = self.authority.fingerprint().to_string();
        if !is_alone {
            return Err(not_alone());
        }
        // From the next count on no other gateway starts, until the roots stand that it is to have.
        self.gateway.store.set_roots(&[]).await.map_err(internal)?;
        let taken = self.take(step, Act { at: now, actor: by, act: act(step), subject: &subject }).await;
        self.gateway.store.set_roots(&self.authority.fingerprints()).await.map_err(internal)?;
        taken?;
        if step == Step::Retire {
            // Nobody is to stay on a connection that would not be accepted any more.
            members.iter().for_each(|agency| self.gateway.sessions.cut(agency));
        }
        info!(by, step = step.as_str_name(), issuing = %self.authority.fingerprint(), "CA changed");
        let members = self.authority.behind(&self.gateway.store, now).await.map_err(internal)?;
        Ok(self.standing(&members))
    }

    /// Takes a step, unless other gateways run.
    async fn take(&self, step: Step, act: Act<'_>) -> Result<(), Refusal> {
        if self.gateway.store.gateways().await.map_err(internal)? > 1 {
            return Err(not_alone());
        }
        let now = act.at;
        self.gateway.store.record(act).await.map_err(internal)?;
        self.authority.take(step, &self.gateway.store, now).await.map_err(internal)
    }

    fn standing(&self, members: &[AgencyAddress]) -> AuthorityStatus {
        AuthorityStatus {
            issuing: self.authority.fingerprint().to_string(),
            other: self.authority.other_fingerprint().map(|root| root.to_string()).unwrap_or_default(),
            next: self.authority.next_step().into(),
            behind: self.behind(members),
        }
    }

    /// Whoever the next step would shut out: these members, and peers that have not learnt of the last one yet.
    fn behind(&self, members: &[AgencyAddress]) -> Vec<String> {
        let changes = self.authority.next_step() != Step::Prepare;
        let peers = if changes { self.peers_behind() } else { Vec::new() };
        members.iter().map(ToString::to_string).chain(peers).collect()
    }
}

fn act(step: Step) -> &'static str {
    match step {
        Step::Unspecified => "show_ca",
        Step::Prepare => "prepare_ca",
        Step::Switch => "switch_ca",
        Step::Retire => "retire_ca",
    }
}

fn not_now(step: Step, next: Step) -> Refusal {
    let message = match next {
        Step::Switch => "a next CA is prepared already",
        Step::Retire => "the former CA is still believed",
        Step::Prepare | Step::Unspecified => "there is only the one CA",
    };
    let action =
        format!("run `liaison-gateway ca {}` before `ca {}`", next.as_str_name(), step.as_str_name());
    Refusal::new(ErrorCode::TransitionNotAllowed, message, action)
}

/// Each gateway has the keys of the CAs in a folder of its own.
fn not_alone() -> Refusal {
    let message = "other gateways of this domain run, whose folders have the CA's keys as well";
    let action = "stop the others, take this step, copy ca*.pem and ca*.key from this gateway's data folder to theirs (and \
                  remove there what is not here), then start them again";
    Refusal::new(ErrorCode::TransitionNotAllowed, message, action)
}

fn too_early(step: Step, behind: &[String]) -> Refusal {
    let what = match step {
        Step::Switch => "have not learnt of the next CA yet",
        _ => "still rely on the former CA",
    };
    let message = shortened(&format!("{} {what}: {}", behind.len(), behind.join(", ")));
    let action = "wait until each agency has renewed its certificate and each peer was linked, which they do by \
                  themselves while they run; with --force those agencies are shut out until they enrol with a new \
                  token, and those peers until they accept this domain's bundle anew";
    Refusal::new(ErrorCode::TransitionNotAllowed, message, action)
}
