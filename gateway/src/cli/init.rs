//! `init`: a domain from nothing.

use std::{
    fs::{self, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use clap::Args;
use liaison_proto::admin::v1::LoadPolicyRequest;
use liaison_trust::{ca::Authority, digest::sha256, keys::SigningKey, names::Domain};
use serde_json::json;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{Failure, output::Output};
use crate::{
    config::{Config, DatabaseUrl, HostName, Limits},
    data::{DataFolder, PRIVATE_FOLDER, make_private_folder, write_private},
    policy::{self, PolicyFile, PolicySet},
    store::{Act, Company, Database, NoDatabase, Store},
};

/// Where gateways of other domains connect unless said otherwise.
const FEDERATION_PORT: u16 = 7402;

/// A new domain.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The domain's name, such as be: the first part of its agencies' addresses
    #[arg(long, value_name = "NAME")]
    domain: Domain,
    /// Where agents connect
    #[arg(long, default_value = "127.0.0.1:7400", value_name = "ADDRESS")]
    exchange: SocketAddr,
    /// Where the gateways of other domains connect; port 7402 beside the exchange unless said otherwise
    #[arg(long, value_name = "ADDRESS")]
    federation: Option<SocketAddr>,
    /// Where /metrics, /livez and /readyz are answered, in plain HTTP
    #[arg(long, default_value = "127.0.0.1:7401", value_name = "ADDRESS")]
    metrics: SocketAddr,
    /// A host name or IP address by which agents reach the gateway; repeat for several, the first goes
    /// into tokens
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<HostName>,
    /// A PostgreSQL database that holds everything, in place of a file in the data folder: postgres://USER@HOST:PORT/NAME
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// A folder of policies to start with, in place of the starter policies
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
}

pub(super) async fn execute(folder: &DataFolder, arguments: Arguments, output: Output) -> anyhow::Result<()> {
    let federation =
        arguments.federation.unwrap_or_else(|| SocketAddr::new(arguments.exchange.ip(), FEDERATION_PORT));
    let everywhere =
        [arguments.exchange, federation].into_iter().find(|address| address.ip().is_unspecified());
    if let Some(address) = everywhere
        && arguments.names.is_empty()
    {
        return Err(Failure::wrong_use(
            format!("{address} listens everywhere, but tells others nowhere to connect"),
            "name the gateway's host with --name",
        )
        .into());
    }
    let files = match &arguments.policies {
        Some(policies) => policy::read_folder(policies)?,
        None => policy::starter(),
    };
    let set = PolicySet::load(&files)?;
    let config = Config {
        domain: arguments.domain,
        exchange: arguments.exchange,
        federation: Some(federation),
        metrics: arguments.metrics,
        names: arguments.names,
        database: arguments
            .database
            .map(|url| DatabaseUrl::try_from(url).map_err(no_database))
            .transpose()?,
        limits: Limits::default(),
    };

    claim(folder)?;
    let authority = match make(folder, &config, files, &set).await {
        Ok(authority) => authority,
        Err(error) => {
            // Nothing was there before, so nothing but this attempt is lost.
            _ = fs::remove_dir_all(folder.path());
            return Err(error);
        }
    };
    let fingerprint = sha256(authority.certificate_der());
    let json = json!({
        "domain": config.domain.to_string(),
        "data": folder.path(),
        "ca": fingerprint.to_string(),
        "exchange": config.exchange,
        "federation": config.federation,
        "metrics": config.metrics,
        "policy": {"hash": set.hash().to_string(), "policies": set.policies(), "tests": set.tests()},
    });
    output.print(&json, || next_steps(folder, &config, &fingerprint.to_string()))?;
    Ok(())
}

/// A refusal that does not repeat what was said, which may hold a password.
pub(super) fn no_database(error: NoDatabase) -> Failure {
    Failure::wrong_use(error.to_string(), "give --database such a URL")
}

/// Makes the data folder, or takes an empty one as a package or a volume leaves it.
fn claim(folder: &DataFolder) -> anyhow::Result<()> {
    let path = folder.path();
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(true) => return Ok(fs::set_permissions(path, Permissions::from_mode(PRIVATE_FOLDER))?),
        _ => {
            let action =
                "choose another folder with --data; a gateway that is there already starts with `run`";
            return Err(Failure::failed("exists", format!("{} exists", path.display()), action).into());
        }
    }
    Ok(make_private_folder(path)?)
}

async fn make(
    folder: &DataFolder,
    config: &Config,
    files: Vec<PolicyFile>,
    set: &PolicySet,
) -> anyhow::Result<Authority> {
    let authority = Authority::create(&config.domain)?;
    write_private(&folder.ca_certificate(), authority.certificate_pem().as_bytes())?;
    write_private(&folder.ca_key(), authority.key_pem().as_bytes())?;
    let signing = SigningKey::generate();
    let seed = Zeroizing::new(hex::encode(*signing.seed()) + "\n");
    write_private(&folder.signing_key(), seed.as_bytes())?;

    make_private_folder(&folder.policies())?;
    for file in &files {
        let path = folder.policies().join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_private(&path, file.text.as_bytes())?;
    }
    let database = config.database(folder);
    if database.exists().await? {
        let action = "give it a database of its own, which `createdb` makes";
        return Err(Failure::failed("exists", format!("{database} is a gateway's"), action).into());
    }
    if let Database::Sqlite(file) = &database {
        // SQLite gives the files beside the database the mode of the database.
        write_private(file, &[])?;
    }
    let store = Store::open(&database, Company::None, config.limits.queue(), &signing).await?;
    let hash = set.hash();
    let subject = hash.to_string();
    let act = Act { at: OffsetDateTime::now_utc(), actor: "init", act: "load_policy", subject: &subject };
    let request = LoadPolicyRequest { files: files.into_iter().map(Into::into).collect() };
    store.activate_policy(&hash, &request, act).await?;
    store.close().await;
    // Last, so that a folder with a configuration is a whole one.
    write_private(&folder.config(), config.to_toml()?.as_bytes())?;
    Ok(authority)
}

fn next_steps(folder: &DataFolder, config: &Config, fingerprint: &str) -> String {
    let (data, domain) = (folder.path().display(), &config.domain);
    format!(
        "The domain {domain} is ready in {data}.\n\
         Its CA has the fingerprint {fingerprint}.\n\
         Keep a backup of ca.key and signing.key in a safe place: whoever has them can speak for {domain}.\n\n\
         Next:\n  \
         1. Run the gateway:       liaison-gateway --data {data} run\n  \
         2. Add an agency:         liaison-gateway --data {data} agency add {domain}/NAME --name 'Its name' --country CC --sector NGO\n  \
         3. Make it a token:       liaison-gateway --data {data} token create {domain}/NAME\n  \
         4. Send its IT the token: they run `liaison-agent enroll TOKEN`\n  \
         5. Write your policies in {data}/policies, then: liaison-gateway --data {data} policy load {data}/policies"
    )
}
