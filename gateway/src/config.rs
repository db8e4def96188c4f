//! `gateway.toml`: what an administrator decides about one gateway.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
};

use liaison_trust::names::Domain;
use serde::{Deserialize, Serialize};

use crate::{
    data::DataFolder,
    limits,
    store::{Database, NoDatabase, QueueBound},
};

/// The settings of one gateway. A key that is not listed here is an error, so that a misspelt one
/// can't be passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The domain that this gateway serves.
    #[serde(with = "text")]
    pub domain: Domain,
    /// Where agents connect.
    pub exchange: SocketAddr,
    /// Where the gateways of other domains connect; without it, this domain has no peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<SocketAddr>,
    /// Where `/metrics`, `/livez` and `/readyz` are answered, in plain HTTP.
    pub metrics: SocketAddr,
    /// Host names and IP addresses by which agents reach the gateway; the first goes into tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<HostName>,
    /// The PostgreSQL database that holds everything; without it, that is a file in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseUrl>,
    /// What may be tuned, with sound defaults.
    #[serde(default, skip_serializing_if = "Limits::are_default")]
    pub limits: Limits,
}

/// The `[limits]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How long the certificates of agencies and of the gateway itself are valid, seconds.
    pub certificate_seconds: u32,
    /// How many deliveries may wait for one agency.
    pub queue_deliveries: u64,
    /// How many bytes may wait for one agency.
    pub queue_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            certificate_seconds: limits::CERTIFICATE_SECONDS,
            queue_deliveries: limits::QUEUE_DELIVERIES,
            queue_bytes: limits::QUEUE_BYTES,
        }
    }
}

impl Limits {
    fn are_default(&self) -> bool {
        *self == Self::default()
    }

    /// The bound of every agency's queue.
    pub fn queue(&self) -> QueueBound {
        QueueBound { deliveries: self.queue_deliveries, bytes: self.queue_bytes }
    }

    /// Each limit by its name, with its value and the least and the most that it may be.
    fn ranges(&self) -> [(&'static str, u64, RangeInclusive<u64>); 3] {
        [
            (
                "certificate_seconds",
                self.certificate_seconds.into(),
                limits::CERTIFICATE_SECONDS_MIN.into()..=limits::CERTIFICATE_SECONDS_MAX.into(),
            ),
            ("queue_deliveries", self.queue_deliveries, 1..=limits::QUEUE_DELIVERIES_MAX),
            ("queue_bytes", self.queue_bytes, 1..=limits::QUEUE_BYTES_MAX),
        ]
    }
}

/// The URL of a PostgreSQL database, as libpq takes it. It may hold a password, and is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseUrl(String);

/// A DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Why `gateway.toml` is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "{path} can't be read ({source}); make a gateway with `liaison-gateway init`, or name its folder with --data"
    )]
    Unreadable { path: String, source: std::io::Error },
    #[error("{path}, line {line}: {fault}; correct that line")]
    Wrong { path: String, line: usize, fault: String },
    #[error("{path}: limits.{name} is {value}, outside {min} to {max}; put a value between them")]
    OutOfRange { path: String, name: &'static str, value: u64, min: u64, max: u64 },
    #[error(
        "{path}: {address} is no address that others can connect to; add the gateway's host name to `names`"
    )]
    Nameless { path: String, address: SocketAddr },
}

/// Why a text is not a host name.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither a DNS name nor an IP address")]
pub struct HostNameError(String);

impl Config {
    /// Where everything is kept.
    pub fn database(&self, folder: &DataFolder) -> Database {
        let url = self.database.as_ref();
        // It was read before it was taken.
        url.and_then(|DatabaseUrl(url)| url.parse().ok()).unwrap_or_else(|| folder.database().into())
    }

    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.display().to_string(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a configuration; `path` is what errors call it.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        let config: Self = match toml::from_str(text) {
            Ok(config) => config,
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
                return Err(ConfigError::Wrong { path, line, fault: error.message().to_owned() });
            }
        };
        for (name, value, range) in config.limits.ranges() {
            if !range.contains(&value) {
                let (min, max) = range.into_inner();
                return Err(ConfigError::OutOfRange { path, name, value, min, max });
            }
        }
        let listeners = std::iter::once(config.exchange).chain(config.federation);
        if let Some(address) = listeners.into_iter().find(|address| address.ip().is_unspecified())
            && config.names.is_empty()
        {
            return Err(ConfigError::Nameless { path, address });
        }
        Ok(config)
    }

    /// The configuration as `gateway.toml` holds it.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        Ok(format!(
            "# Settings of this gateway; restart it after a change. `liaison-gateway doctor` checks them.\n{}",
            toml::to_string(self)?
        ))
    }

    /// Where agents reach the gateway, `host:port`: what tokens carry.
    pub fn reachable_at(&self) -> String {
        self.names
            .first()
            .map_or_else(|| self.exchange.to_string(), |name| name.with_port(self.exchange.port()))
    }

    /// Where the gateways of other domains reach this one, `host:port` each: what stands in its bundle.
    pub fn federation_addresses(&self) -> Vec<String> {
        let Some(federation) = self.federation else { return Vec::new() };
        if !federation.ip().is_unspecified() {
            return vec![federation.to_string()];
        }
        let names = self.names.iter().map(|name| name.with_port(federation.port()));
        names.take(liaison_proto::limits::BUNDLE_ADDRESSES).collect()
    }

    /// The names that the gateway's certificate carries, for clients that check the host name.
    pub fn certificate_names(&self) -> Vec<String> {
        let mut names = vec!["localhost".to_owned()];
        if !self.exchange.ip().is_unspecified() {
            names.push(self.exchange.ip().to_string());
        }
        names.extend(self.names.iter().map(|name| name.0.clone()));
        names.sort();
        names.dedup();
        names
    }
}

impl HostName {
    fn with_port(&self, port: u16) -> String {
        let Self(name) = self;
        if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
    }
}

impl std::str::FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_dns = text.len() <= 253 && text.split('.').all(label);
        if text.parse::<IpAddr>().is_ok() || is_dns {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(HostNameError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = NoDatabase;

    fn try_from(url: String) -> Result<Self, NoDatabase> {
        url.parse::<Database>().map(|_| Self(url))
    }
}

impl From<DatabaseUrl> for String {
    fn from(DatabaseUrl(url): DatabaseUrl) -> Self {
        url
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(..)")
    }
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

/// Reads and writes a domain as its text.
mod text {
    use liaison_trust::names::Domain;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(domain: &Domain, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(domain)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Domain, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "domain = \"be\"\nexchange = \"127.0.0.1:7400\"\nmetrics = \"127.0.0.1:7401\"\n";

    #[test]
    fn written_and_read_again() {
        let config = Config::parse("gateway.toml", GOOD).unwrap();
        assert_eq!(config.reachable_at(), "127.0.0.1:7400");
        assert_eq!(config.certificate_names(), ["127.0.0.1", "localhost"]);
        let text = config.to_toml().unwrap();
        assert_eq!(Config::parse("gateway.toml", &text).unwrap(), config);

        let named = Config { names: vec!["gateway.example".parse().unwrap()], ..config };
        let text = named.to_toml().unwrap();
        assert_eq!(Config::parse("gateway.toml", &text).unwrap().reachable_at(), "gateway.example:7400");
    }

    #[test]
    fn a_fault_names_its_line() {
        let fault = |text: &str| Config::parse("gateway.toml", text).unwrap_err().to_string();
        let unknown = fault(&format!("{GOOD}exchagne = 3\n"));
        assert!(unknown.starts_with("gateway.toml, line 4: unknown field `exchagne`"), "{unknown}");
        let address = fault(&GOOD.replace("127.0.0.1:7401", "nowhere"));
        assert!(address.starts_with("gateway.toml, line 3: "), "{address}");
        let domain = fault(&GOOD.replace("be", "Be!"));
        assert!(domain.starts_with("gateway.toml, line 1: "), "{domain}");
        let names = fault(&format!("{GOOD}names = [\"a b\"]\n"));
        assert!(names.contains("line 4: `a b` is neither"), "{names}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for limit in ["certificate_seconds", "queue_deliveries", "queue_bytes"] {
            let zero = format!("{GOOD}[limits]\n{limit} = 0\n");
            let refused = Config::parse("gateway.toml", &zero);
            assert!(
                matches!(&refused, Err(ConfigError::OutOfRange { name, value: 0, .. }) if *name == limit),
                "{refused:?}"
            );
        }
        let anywhere = GOOD.replace("127.0.0.1:7400", "0.0.0.0:7400");
        assert!(matches!(Config::parse("gateway.toml", &anywhere), Err(ConfigError::Nameless { .. })));
    }
}
