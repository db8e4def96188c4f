//! The log of keys as the ground on which an agency's keys are pinned and sealed to, and the word of a person where it
//! holds more than one chain.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use liaison_proto::{
    case::v1::log_alarm::Code as Kind,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{digest::Digest, key_record::ProvenKey, names::AgencyAddress};

use super::{Directory, chain::Standing, standing};
use crate::{
    limits,
    log::{self, Alarm, Failed},
};

impl Directory {
    /// Replays the domain's log of keys to its newest head.
    pub(crate) async fn replay(&self) -> Result<(), Failed> {
        let _alone = self.0.replaying.lock().await;
        // Nobody is sealed to meanwhile by what was found before: the log may turn out to be another.
        self.cache().clear();
        let known = self.0.store.key_log().await?.map(|log| log.frontier);
        let replayed = log::keys::replay(&self.0.link, &self.0.store).await;
        if self.0.store.key_log().await?.map(|log| log.frontier) != known {
            // What was found of an agency was found before others had seen what the log says of it now.
            self.cache().clear();
        }
        replayed
    }

    /// What the log holds of an agency, as seen from its pin, and whether it is pinned.
    pub(crate) async fn logged(&self, agency: &AgencyAddress) -> Result<(Standing, bool), Refusal> {
        let pin = self.0.store.keys(agency).await?.first().map(|key| key.id);
        Ok((standing(pin, &self.0.store.logged_keys(agency).await?), pin.is_some()))
    }

    /// Whether these keys of an agency may be pinned and sealed to: the log holds them, and no others beside them.
    ///
    /// # Errors
    /// `unknown_key` where the log does not hold them yet, `key_chain_broken` where they are not to be used.
    pub(crate) async fn vouch(&self, agency: &AgencyAddress, keys: &[ProvenKey]) -> Result<(), Refusal> {
        let first = match self.0.store.keys(agency).await?.first() {
            Some(pin) => Some(pin.id),
            None => keys.first().map(|key| key.id),
        };
        let mut logged = self.0.store.logged_keys(agency).await?;
        let missing = |logged: &[crate::store::LoggedKey]| {
            keys.iter().find(|key| logged.iter().all(|logged| logged.key.id != key.id)).cloned()
        };
        if missing(&logged).is_some() {
            self.replay().await?;
            logged = self.0.store.logged_keys(agency).await?;
        }
        if let Some(key) = missing(&logged) {
            return Err(self.unlogged(&key).await?);
        }
        self.0
            .unlogged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| keys.iter().all(|key| key.id != *id));
        let standing = standing(first, &logged);
        if standing.is_broken() {
            return Err(Refusal::new(
                ErrorCode::KeyChainBroken,
                format!("the log of keys holds keys of {agency} that do not go on from those known here"),
                format!(
                    "ask {agency} for its fingerprint by telephone, then run `liaison-agent keys confirm {agency} \
                     FINGERPRINT`; `liaison-agent keys` lists those in the log; tell the gateway's administrator"
                ),
            ));
        }
        Ok(())
    }

    /// A person has compared an agency's fingerprint with the agency: its keys are those of the chain that begins with it.
    ///
    /// # Errors
    /// The log holds no such chain, or the store failed.
    pub(crate) async fn confirm(
        &self,
        agency: &AgencyAddress,
        fingerprint: Digest,
        actor: &str,
    ) -> Result<(), Refusal> {
        let logged = self.0.store.logged_keys(agency).await?;
        let standing = standing(Some(fingerprint), &logged);
        if standing.chain.first().is_none_or(|first| first.id != fingerprint) {
            return Err(Refusal::new(
                ErrorCode::UnknownKey,
                format!("the log of keys holds no keys of {agency} with the fingerprint {fingerprint}"),
                "compare it digit by digit; if the agency insists on it, tell the gateway's administrator: what the \
                 gateway hands out is not the agency's",
            ));
        }
        let others: Vec<Digest> = standing.strays.iter().map(|(key, _)| key.id).collect();
        self.0.store.confirm_keys(agency, &standing.chain, &others, actor).await?;
        self.cache().remove(agency);
        Ok(())
    }

    /// What is said of a key that the gateway hands out and the log does not hold: for some time that it is to come, then
    /// that it is none.
    async fn unlogged(&self, key: &ProvenKey) -> Result<Refusal, Refusal> {
        let since = {
            let mut unlogged = self.0.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
            if unlogged.len() >= limits::DIRECTORY_AGENCIES {
                unlogged.clear();
            }
            *unlogged.entry(key.id).or_insert_with(Instant::now)
        };
        let (agency, id) = (&key.agency, &key.id);
        if since.elapsed() < limits::KEY_LOGGED {
            return Ok(Refusal::new(
                ErrorCode::UnknownKey,
                format!("the log of keys does not hold the key {id} of {agency} yet"),
                "nothing: what is sent waits for it",
            )
            .retry_after(Duration::from_secs(1)));
        }
        let detail =
            format!("the gateway hands out the key {id} of {agency}, which its log of keys does not hold");
        let alarm = Alarm {
            kind: Kind::UnloggedKey,
            subject: format!("{agency} {id}"),
            detail: detail.clone(),
            held: self.0.store.key_log().await?.map(|log| log.note).unwrap_or_default(),
            shown: log::keys::evidence(&key.signed),
        };
        log::raise(&self.0.store, &alarm).await?;
        Ok(Refusal::new(
            ErrorCode::KeyChainBroken,
            detail,
            "send nothing to this agency by another key either, and tell the gateway's administrator: somebody may read \
             in its name",
        ))
    }
}
