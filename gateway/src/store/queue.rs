//! Where deliveries wait.

use std::{fmt, str::FromStr};

use liaison_trust::names::{AgencyAddress, Domain, NameError};

/// What the name of a queue of notices ends with.
const NOTICES: &str = "notices";

/// A queue of deliveries, in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// What waits for an agency of this domain; of another domain, what its gateway accepted for it and has not told
    /// the end of.
    Agency(AgencyAddress),
    /// Messages of one agency of this domain for another domain.
    Lane { to: Domain, of: AgencyAddress },
    /// Notices for another domain about what one agency of this domain received: a queue of their own, for they
    /// can go where messages can't.
    Notices { to: Domain, of: AgencyAddress },
}

impl Queue {
    /// The other domain that it is for, where it is for one.
    pub fn peer(&self) -> Option<&Domain> {
        match self {
            Self::Agency(_) => None,
            Self::Lane { to, .. } | Self::Notices { to, .. } => Some(to),
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agency(address) => write!(f, "{address}"),
            Self::Lane { to, of } => write!(f, "{to} {of}"),
            Self::Notices { to, of } => write!(f, "{to} {of} {NOTICES}"),
        }
    }
}

impl FromStr for Queue {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((to, of)) = text.split_once(' ') else { return Ok(Self::Agency(text.parse()?)) };
        let to = to.parse()?;
        match of.split_once(' ') {
            Some((of, NOTICES)) => Ok(Self::Notices { to, of: of.parse()? }),
            _ => Ok(Self::Lane { to, of: of.parse()? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["be/shelter", "hu be/shelter", "hu be/shelter notices"] {
            assert_eq!(text.parse::<Queue>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "be",
            "hu be",
            "hu  be/shelter",
            " be/shelter",
            "hu be/shelter other",
            "hu be/shelter notices ",
        ] {
            assert!(text.parse::<Queue>().is_err(), "{text}");
        }
    }
}
