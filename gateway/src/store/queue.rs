//! Where deliveries wait.

use std::{fmt, str::FromStr};

use liaison_trust::names::{AgencyAddress, Domain, NameError};

/// A queue of deliveries, in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// What waits for an agency of this domain.
    Agency(AgencyAddress),
    /// What one agency of this domain has for another domain: its messages, and notices about those that it
    /// received.
    Lane { to: Domain, of: AgencyAddress },
}

impl Queue {
    /// The other domain that it is for, where it is for one.
    pub fn peer(&self) -> Option<&Domain> {
        match self {
            Self::Agency(_) => None,
            Self::Lane { to, .. } => Some(to),
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agency(address) => write!(f, "{address}"),
            Self::Lane { to, of } => write!(f, "{to} {of}"),
        }
    }
}

impl FromStr for Queue {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once(' ') {
            Some((to, of)) => Ok(Self::Lane { to: to.parse()?, of: of.parse()? }),
            None => Ok(Self::Agency(text.parse()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["be/shelter", "hu be/shelter"] {
            assert_eq!(text.parse::<Queue>().unwrap().to_string(), text);
        }
        for text in ["", "be", "hu be", "hu  be/shelter", " be/shelter"] {
            assert!(text.parse::<Queue>().is_err(), "{text}");
        }
    }
}
