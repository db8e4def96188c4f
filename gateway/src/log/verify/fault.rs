//! What is wrong with a log or with what it vouches for.

use crate::limits;

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is, in one word for programs.
    pub code: &'static str,
    /// Where it is, such as `be/log/1, leaf 5`.
    pub place: String,
    /// What was found, and what it means.
    pub found: String,
    /// What to do.
    pub action: &'static str,
}

/// Faults, so many at most; the rest is counted.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub listed: Vec<Fault>,
    pub count: u64,
}

/// Where the database was changed: nothing in it can put that right.
pub(super) const CHANGED: &str = "stop the gateway, keep a copy of its data folder as evidence, find out who had access to \
     it, and restore the newest backup of which this command finds no fault";
/// Where tiles alone were changed.
pub(super) const TILES: &str = "stop the gateway, keep a copy of its data folder as evidence, and restore the newest \
     backup of which this command finds no fault; the records themselves are whole, their receipts still hold";
/// Where the head is not what this gateway signs.
pub(super) const HEAD: &str = "make sure that signing.key and gateway.toml are this domain's; if they are, somebody put \
     another head in: keep a copy of the data folder as evidence and restore a backup";

impl Faults {
    pub(super) fn add(
        &mut self,
        code: &'static str,
        place: impl Into<String>,
        found: impl Into<String>,
        action: &'static str,
    ) {
        self.count += 1;
        if self.listed.len() < limits::LOG_FAULTS {
            self.listed.push(Fault { code, place: place.into(), found: found.into(), action });
        }
    }
}
