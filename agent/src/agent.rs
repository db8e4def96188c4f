//! What the parts of a running agent share.

use liaison_trust::names::AgencyAddress;
use zeroize::Zeroizing;

use crate::{config::Config, directory::Directory, folder::Folder, link::Link, store::Store};

/// A running agent.
pub struct Agent {
    pub address: AgencyAddress,
    pub folder: Folder,
    pub config: Config,
    pub store: Store,
    pub link: Link,
    pub directory: Directory,
    /// The bearer token of the case API.
    pub api_token: Zeroizing<String>,
}
