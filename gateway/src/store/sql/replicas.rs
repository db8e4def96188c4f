//! What the gateways on one database tell each other and have in common.

use liaison_proto::federation::v1::SignedBundle;
use liaison_trust::names::AgencyAddress;
use prost::Message;

use super::{Store, columns::decode};
use crate::{
    limits,
    store::{
        Queue, StoreError,
        engine::{Candidate, Ears, Transaction, query},
    },
};

/// What another gateway on the database did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It put something into these queues, or took it out.
    Queues(Vec<Queue>),
    /// It changed agencies, keys, policies, peers or what is revoked.
    State,
    /// It signed a new head of a log.
    Head,
    /// An agency opened a session with it.
    Session(AgencyAddress),
    /// Whatever there is: something may have been missed.
    Anything,
}

const QUEUES: &str = "queues";
const STATE: &str = "state";
const HEAD: &str = "head";
const SESSION: &str = "session";
const ALIVE: &str = "alive";

/// What the other gateways on the database tell.
pub struct Told {
    ears: Ears,
    /// Whether this is the first look: nobody listened before.
    is_first: bool,
}

/// What finds out which of the gateways on the database leads.
pub struct Lead(Candidate);

impl Transaction {
    /// Has the other gateways look at these queues.
    pub(super) async fn tell_queues<'q>(
        &mut self,
        queues: impl IntoIterator<Item = &'q Queue>,
    ) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let mut said = QUEUES.to_owned();
        for queue in queues {
            let name = queue.to_string();
            if said.len() + name.len() > limits::TOLD_BYTES {
                self.tell(&said).await?;
                said = QUEUES.to_owned();
            }
            said.push('\n');
            said.push_str(&name);
        }
        if said.len() > QUEUES.len() { self.tell(&said).await } else { Ok(()) }
    }

    /// Makes changes durable, and has the other gateways read what they hold in memory anew.
    pub(super) async fn commit_told(mut self) -> Result<(), StoreError> {
        self.tell(STATE).await?;
        self.commit().await
    }

    /// Makes a new head of a log durable, and has the other gateways take it over.
    pub(super) async fn commit_head(mut self) -> Result<(), StoreError> {
        self.tell(HEAD).await?;
        self.commit().await
    }
}

impl Told {
    /// What comes next.
    pub async fn next(&mut self) -> Heard {
        loop {
            let said = if std::mem::take(&mut self.is_first) { None } else { self.ears.hear().await };
            let Some(heard) = said.map_or(Some(Heard::Anything), |said| Heard::read(&said)) else { continue };
            return heard;
        }
    }
}

impl Heard {
    fn read(said: &str) -> Option<Self> {
        let mut lines = said.split('\n');
        let first = lines.next()?;
        match first.split_once(' ') {
            Some((SESSION, agency)) => agency.parse().ok().map(Self::Session),
            None if first == QUEUES => {
                lines.map(|name| name.parse().ok()).collect::<Option<_>>().map(Self::Queues)
            }
            None if first == STATE => Some(Self::State),
            None if first == HEAD => Some(Self::Head),
            _ => None,
        }
    }
}

impl Lead {
    /// Whether this gateway leads now. For a moment two may: one that lost its connection notices with the next call.
    pub async fn leads(&mut self) -> bool {
        self.0.leads().await
    }
}

impl Store {
    /// What the other gateways on the database tell from now on; none where there can't be others.
    ///
    /// # Errors
    /// The database failed.
    pub async fn told(&self) -> Result<Option<Told>, StoreError> {
        let ears = self.writer.ears().await?;
        Ok(ears.map(|ears| Told { ears, is_first: true }))
    }

    /// What finds out whether this gateway leads; none where there can't be others.
    pub fn lead(&self) -> Option<Lead> {
        self.writer.candidate().map(Lead)
    }

    /// How many gateways are on the database, this one included.
    ///
    /// # Errors
    /// The database failed.
    pub async fn gateways(&self) -> Result<u64, StoreError> {
        self.readers.gateways().await
    }

    /// Tells the other gateways that an agency opened a session with this one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tell_session(&self, agency: &AgencyAddress) -> Result<(), StoreError> {
        self.readers.tell(&format!("{SESSION} {agency}")).await
    }

    /// Makes these the roots of the domain's CAs, named by their digests, one behind the other. False, and they are not,
    /// if other gateways are there that have others.
    ///
    /// # Errors
    /// The database failed.
    pub async fn agree_on_roots(&self, roots: &[u8]) -> Result<bool, StoreError> {
        let mut change = self.writer.begin().await?;
        if !change.is_shared() {
            return Ok(true);
        }
        let known: Option<Vec<u8>> = query("SELECT roots FROM shared").fetch_one(&mut change).await?;
        if let Some(known) = known
            && self.gateways().await? > 1
        {
            return Ok(known == roots);
        }
        query("UPDATE shared SET roots = $1").bind(roots).execute(&mut change).await?;
        change.commit().await?;
        Ok(true)
    }

    /// The one gateway that runs has these CAs from now on. Without roots none can start beside it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_roots(&self, roots: &[u8]) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        if change.is_shared() {
            query("UPDATE shared SET roots = $1").bind(roots).execute(&mut change).await?;
        }
        change.commit().await
    }

    /// Tells the other gateways, and hears itself, that this one is there.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tell_alive(&self) -> Result<(), StoreError> {
        self.readers.tell(ALIVE).await
    }

    /// Reads the account of some queues anew, or of all.
    ///
    /// # Errors
    /// The database failed.
    pub async fn refresh_account(&self, queues: Option<&[Queue]>) -> Result<(), StoreError> {
        self.loads.refresh(&self.readers, queues).await
    }

    /// Drops what is remembered to be handed over: to one agency, or to all. Another gateway may hand it over narrower.
    pub fn forget_recent(&self, to: Option<&AgencyAddress>) {
        match to {
            Some(agency) => self.recent.forget_queue(&Queue::Agency(agency.clone())),
            None => self.recent.clear(),
        }
    }

    /// Gives the other gateways the domain's own bundle, which one of them makes.
    ///
    /// # Errors
    /// The database failed.
    pub async fn share_bundle(&self, bundle: &SignedBundle) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        if change.is_shared() {
            query("UPDATE shared SET bundle = $1").bind(bundle.encode_to_vec()).execute(&mut change).await?;
        }
        change.commit_told().await
    }

    /// The domain's own bundle as the gateway that leads made it last; none where there is only one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn shared_bundle(&self) -> Result<Option<SignedBundle>, StoreError> {
        if !self.readers.is_shared() {
            return Ok(None);
        }
        let bundle: Option<Vec<u8>> = query("SELECT bundle FROM shared").fetch_one(&self.readers).await?;
        bundle.map(decode).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let queues: Vec<Queue> =
            ["be/a", "hu be/a", "hu be/a notices"].map(|name| name.parse().unwrap()).into();
        let said = queues.iter().fold(QUEUES.to_owned(), |said, queue| format!("{said}\n{queue}"));
        assert_eq!(Heard::read(&said), Some(Heard::Queues(queues)));
        assert_eq!(Heard::read("session be/a"), Some(Heard::Session("be/a".parse().unwrap())));
        assert_eq!(Heard::read("state"), Some(Heard::State));
        assert_eq!(Heard::read("head"), Some(Heard::Head));
        assert_eq!(Heard::read("something of a newer version"), None);
    }
}
