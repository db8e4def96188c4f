//! What the parties are called: domains, agency addresses, and the SPIFFE ids of their certificates.

use std::{fmt, str::FromStr};

use liaison_proto::limits::{AGENCY_NAME_CHARS, DOMAIN_NAME_CHARS};

/// One gateway's realm, such as `be`: 1 to 63 characters `[a-z0-9-]`, the first a letter, the last no
/// hyphen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

/// An agency's address, such as `be/shelter-antwerp`: its domain, and a name of 1 to 64 characters
/// `[a-z0-9-]`, the first a letter or a digit, the last no hyphen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgencyAddress {
    domain: Domain,
    name: String,
}

/// Who a certificate is for: the URI in its subject alternative name (SPIFFE-ID).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpiffeId {
    /// `spiffe://<domain>/gateway`
    Gateway(Domain),
    /// `spiffe://<domain>/agency/<name>`
    Agency(AgencyAddress),
}

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a [`Domain`].
    #[error(
        "a domain has 1 to {DOMAIN_NAME_CHARS} characters of a-z, 0-9 and '-', starts with a letter and does not end in '-'"
    )]
    Domain,
    /// No [`AgencyAddress`]: nothing separates domain and name.
    #[error("an agency address is written <domain>/<name>")]
    Address,
    /// The name in an address is not one.
    #[error(
        "an agency's name has 1 to {AGENCY_NAME_CHARS} characters of a-z, 0-9 and '-', and neither starts nor ends with '-'"
    )]
    Agency,
    /// Not a [`SpiffeId`] of this project.
    #[error("a SPIFFE id is written spiffe://<domain>/gateway or spiffe://<domain>/agency/<name>")]
    SpiffeId,
}

impl Domain {
    /// The domain as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AgencyAddress {
    /// The domain whose gateway the agency is at.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The agency's name inside its domain.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl SpiffeId {
    /// The domain whose authority certifies this id.
    pub fn domain(&self) -> &Domain {
        match self {
            Self::Gateway(domain) => domain,
            Self::Agency(address) => address.domain(),
        }
    }
}

impl FromStr for Domain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let valid = is_label(text, DOMAIN_NAME_CHARS) && text.starts_with(|c: char| c.is_ascii_lowercase());
        valid.then(|| Self(text.to_owned())).ok_or(NameError::Domain)
    }
}

impl FromStr for AgencyAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (domain, name) = text.split_once('/').ok_or(NameError::Address)?;
        let domain = domain.parse()?;
        if !is_label(name, AGENCY_NAME_CHARS) {
            return Err(NameError::Agency);
        }
        Ok(Self { domain, name: name.to_owned() })
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (domain, path) = text
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(NameError::SpiffeId)?;
        let domain = domain.parse()?;
        match path.strip_prefix("agency/") {
            Some(name) if is_label(name, AGENCY_NAME_CHARS) => {
                Ok(Self::Agency(AgencyAddress { domain, name: name.to_owned() }))
            }
            Some(_) => Err(NameError::Agency),
            None if path == "gateway" => Ok(Self::Gateway(domain)),
            None => Err(NameError::SpiffeId),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AgencyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.name)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(domain) => write!(f, "spiffe://{domain}/gateway"),
            Self::Agency(address) => write!(f, "spiffe://{}/agency/{}", address.domain, address.name),
        }
    }
}

/// Whether a text is 1 to `longest` characters `[a-z0-9-]`, the first and the last no hyphen.
pub(crate) fn is_label(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["be/shelter-antwerp", "b/1", &format!("{}/{}", "d".repeat(63), "9".repeat(64))] {
            assert_eq!(text.parse::<AgencyAddress>().unwrap().to_string(), text);
        }
        for text in ["spiffe://be/gateway", "spiffe://be/agency/gateway"] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_what_is_wrong() {
        for text in ["", "1be", "-be", "be-", "BE", "b.e", "b\u{e9}", &"d".repeat(64)] {
            assert_eq!(text.parse::<Domain>(), Err(NameError::Domain), "{text}");
        }
        assert_eq!("be".parse::<AgencyAddress>(), Err(NameError::Address));
        assert_eq!("/x".parse::<AgencyAddress>(), Err(NameError::Domain));
        for text in ["be/", "be/a/b", "be/A", "be/-a", "be/a-", "be/a ", &format!("be/{}", "a".repeat(65))] {
            assert_eq!(text.parse::<AgencyAddress>(), Err(NameError::Agency), "{text}");
        }
        for text in
            ["be/gateway", "https://be/gateway", "spiffe://be", "spiffe://be/gateway/", "spiffe://be/x"]
        {
            assert_eq!(text.parse::<SpiffeId>(), Err(NameError::SpiffeId), "{text}");
        }
        assert_eq!("spiffe://be/agency/".parse::<SpiffeId>(), Err(NameError::Agency));
        assert_eq!("spiffe:///gateway".parse::<SpiffeId>(), Err(NameError::Domain));
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = text.parse::<Domain>();
            let _ = text.parse::<AgencyAddress>();
            let _ = text.parse::<SpiffeId>();
        }
    }
}
