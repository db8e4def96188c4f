//! `agent.toml`: what agency IT may set. Everything else has one right value.

use std::{fmt, net::SocketAddr, str::FromStr};

use liaison_trust::names::AgencyAddress;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::folder::{self, Folder, FolderError};

/// The agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The agency that this agent serves.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub agency: AgencyAddress,
    /// Where the gateway listens, `host:port`.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub gateway: HostPort,
    /// Where the case API listens for gRPC: a loopback address.
    #[serde(deserialize_with = "loopback")]
    pub grpc: SocketAddr,
    /// Where the case API listens for REST: a loopback address.
    #[serde(deserialize_with = "loopback")]
    pub rest: SocketAddr,
    /// The HTTP proxy on the way to the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "as_some_text", deserialize_with = "from_some_text")]
    pub proxy: Option<Proxy>,
}

/// A host name or address with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

/// An HTTP proxy that takes CONNECT without credentials: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy(pub HostPort);

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{0:?} is not host:port")]
    HostPort(String),
    // Not quoted: it may hold a password.
    #[error("a proxy is given as http://host:port, without a user name and password")]
    Proxy,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "this folder has no agent yet ({0}); run `liaison-agent enroll` with the token that the domain's administrator sent"
    )]
    NotEnrolled(FolderError),
    #[error(transparent)]
    File(FolderError),
    #[error("{path}: {source}")]
    Syntax { path: String, source: Box<toml::de::Error> },
}

impl Config {
    /// Reads `agent.toml`.
    pub fn load(folder: &Folder) -> Result<Self, ConfigError> {
        let path = folder.config();
        let text = folder::read_text(&path).map_err(|error| {
            if error.is_missing() { ConfigError::NotEnrolled(error) } else { ConfigError::File(error) }
        })?;
        toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.display().to_string(),
            source: Box::new(source),
        })
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::HostPort(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None => host.to_owned(),
        };
        let named = !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if named || host.parse::<std::net::Ipv6Addr>().is_ok() && text.starts_with('[') {
            Ok(Self { host, port })
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Proxy {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix("http://").ok_or(AddressError::Proxy)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        Ok(Self(rest.parse().map_err(|_| AddressError::Proxy)?))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn as_some_text<T: fmt::Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn from_some_text<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    from_text(deserializer).map(Some)
}

fn loopback<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let at = SocketAddr::deserialize(deserializer)?;
    if at.ip().is_loopback() {
        Ok(at)
    } else {
        Err(D::Error::custom(format!(
            "{at} is not a loopback address; the case API speaks to systems on the same host alone"
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> Config {
        Config {
            agency: "be/shelter-antwerp".parse().unwrap(),
            gateway: "gateway.example:7400".parse().unwrap(),
            grpc: "127.0.0.1:7410".parse().unwrap(),
            rest: "[::1]:7411".parse().unwrap(),
            proxy: Some("http://[::1]:3128".parse().unwrap()),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = toml::to_string(&config()).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config());
    }

    #[test]
    fn what_is_not_known_or_not_loopback_is_refused() {
        let text = toml::to_string(&config()).unwrap();
        let unknown = toml::from_str::<Config>(&format!("colour = \"red\"\n{text}")).unwrap_err();
        assert!(unknown.to_string().contains("unknown field `colour`"), "{unknown}");
        let open = toml::from_str::<Config>(&text.replace("127.0.0.1:7410", "0.0.0.0:7410")).unwrap_err();
        assert!(open.to_string().contains("not a loopback address"), "{open}");
    }

    #[test]
    fn a_proxy_with_a_password_is_refused_without_showing_it() {
        let error = "http://me:secret@proxy:3128".parse::<Proxy>().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_folder_without_a_config_says_to_enroll() {
        let folder = tempfile::tempdir().unwrap();
        let error = Config::load(&Folder::new(folder.path())).unwrap_err();
        assert!(matches!(error, ConfigError::NotEnrolled(_)));
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_that_prints_the_same_or_an_error(text in "\\PC{0,40}") {
            if let Ok(at) = text.parse::<HostPort>() {
                prop_assert_eq!(at.to_string().parse::<HostPort>().unwrap(), at);
            }
            if let Ok(proxy) = format!("http://{text}").parse::<Proxy>() {
                prop_assert_eq!(proxy.to_string().parse::<Proxy>().unwrap(), proxy);
            }
        }
    }
}
