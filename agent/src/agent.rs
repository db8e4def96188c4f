//! What the parts of a running agent share, and what keeps going while it runs.

use std::{path::PathBuf, sync::Arc};

use liaison_trust::{names::AgencyAddress, tls::SetupError};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    certificate::{Credentials, CredentialsError},
    config::{Config, ConfigError},
    custody::{Custody, CustodyError},
    directory::Directory,
    folder::{self, Folder, FolderError},
    limits,
    link::{self, Link},
    log,
    store::{Store, StoreError},
};

/// An agent.
pub struct Agent {
    pub address: AgencyAddress,
    pub folder: Folder,
    pub config: Config,
    pub custody: Arc<Custody>,
    pub store: Store,
    pub link: Link,
    pub directory: Directory,
    /// The bearer token of the case API.
    pub api_token: Zeroizing<String>,
}

/// Why an agent can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] FolderError),
    /// Whoever showed nothing would be let in.
    #[error("{} is empty; restore the folder from its backup, or write 64 random hexadecimal digits into it", .0.display())]
    NoToken(PathBuf),
    #[error(transparent)]
    Custody(#[from] CustodyError),
    #[error("this agent's certificate is unusable: {0}; enrol again with a new token")]
    Credentials(#[from] CredentialsError),
    #[error("this agent's certificate is unusable: {0}; enrol again with a new token")]
    Tls(#[from] SetupError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Agent {
    /// Opens the agent of a data folder that `enroll` made.
    pub async fn open(folder: Folder) -> Result<Self, OpenError> {
        let config = Config::load(&folder)?;
        let address = config.agency.clone();
        let custody = Arc::new(Custody::open(&folder, &address)?);
        let api_token = Zeroizing::new(folder::read_text(&folder.api_token())?.trim().to_owned());
        if api_token.is_empty() {
            return Err(OpenError::NoToken(folder.api_token()));
        }
        let store = Store::open(&folder.database(), custody.vault(), address.clone()).await?;
        let credentials = Credentials::load(&folder, &config)?;
        let link = Link::new(folder.clone(), config.clone(), credentials)?;
        let directory = Directory::new(link.clone(), store.clone());
        Ok(Self { address, folder, config, custody, store, link, directory, api_token })
    }

    /// Keeps the connection, watches the log and erases what is due, until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        tokio::join!(link::keep(self, stop), log::keep(self, stop), self.sweep(stop));
    }

    async fn sweep(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let now = OffsetDateTime::now_utc();
            match self.store.expire_outbox(now).await {
                Ok(0) => {}
                Ok(count) => tracing::warn!(count, "messages expired in the outbox"),
                Err(error) => tracing::error!(%error, "the outbox could not be swept"),
            }
            match self.store.erase_due(now).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "sections erased at the end of their retention"),
                Err(error) => tracing::error!(%error, "what is due could not be erased"),
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(limits::SWEEP)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Domain;

    #[tokio::test]
    async fn an_empty_api_token_lets_nobody_in() {
        let (_dir, agent) = Domain::new().agent("shelter").await;
        std::fs::write(agent.folder.api_token(), "\n").unwrap();
        let opened = Agent::open(agent.folder.clone()).await;
        assert!(matches!(opened.err(), Some(OpenError::NoToken(_))));
    }
}
