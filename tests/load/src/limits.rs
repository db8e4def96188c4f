//! Every limit of a run, with its unit.

use std::{ops::RangeInclusive, time::Duration};

/// How long each system is measured, seconds.
pub(crate) const SECONDS: RangeInclusive<i64> = 1..=3_600;
/// Connections to each system.
pub(crate) const CONNECTIONS: RangeInclusive<i64> = 2..=64;
/// Messages under way on one connection.
pub(crate) const IN_FLIGHT: RangeInclusive<i64> = 1..=64;
/// Messages offered in a second to each system, where a rate is given.
pub(crate) const RATE: RangeInclusive<i64> = 1..=1_000_000;
/// How long a soak lasts, minutes: one warms up.
pub(crate) const MINUTES: RangeInclusive<i64> = 2..=10_080;

/// Systems take turns in rounds of about this length, and there are at most so many.
pub(crate) const ROUND: Duration = Duration::from_secs(2);
pub(crate) const ROUNDS: u32 = 15;
/// The round that warms a system up and does not count.
pub(crate) const WARM_UP: Duration = Duration::from_millis(700);
/// Rounds in which the most is measured that a gateway does, before a soak.
pub(crate) const MAXIMUM_ROUNDS: usize = 10;
/// The part of a soak that is told at once.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// How long what is under way at a round's end has to finish.
pub(crate) const DRAIN: Duration = Duration::from_secs(60);
/// How long a system may take until it can be used.
pub(crate) const START: Duration = Duration::from_secs(60);
/// Messages sealed beforehand for one round.
pub(crate) const STOCK: u64 = 100_000;
/// Those of the round that warms up, and of any other at the least.
pub(crate) const FIRST_STOCK: u64 = 2_000;
/// The pause before each message that goes alone.
pub(crate) const REST: Duration = Duration::from_millis(20);
/// Those who look for messages at the recipient, each for the next one; and the time between two looks. More would load
/// the agent with asking.
pub(crate) const READERS: usize = 2;
pub(crate) const LOOK: Duration = Duration::from_millis(2);
/// Latencies that are told apart, microseconds: a longer one counts as the longest.
pub(crate) const LONGEST: u64 = 600_000_000;

/// Agencies that are enrolled at once, and from one address of the loopback, of which a gateway takes 300 attempts a minute.
pub(crate) const ENROLLING: usize = 16;
pub(crate) const ENROLLED_FROM_ONE: usize = 250;
/// Agencies of a crowd.
pub(crate) const CROWD: RangeInclusive<i64> = 2..=9_900;
/// Sessions that are opened at once.
pub(crate) const OPENING: usize = 64;
/// How long a gateway is left alone until its memory is looked at.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);
/// Alerts of each kind, and how long one may take.
pub(crate) const ALERTS: usize = 5;
pub(crate) const ALERT: Duration = Duration::from_secs(120);
/// Files that a process may have open beside its sessions' connections.
pub(crate) const OTHER_FILES: u64 = 500;

/// Rounds of two gateways that are compared, and how often each is started.
pub(crate) const TURNS: usize = 20;
pub(crate) const STARTS: usize = 5;
/// Many agencies and policies, and few policies.
pub(crate) const MANY_AGENCIES: usize = 5_000;
pub(crate) const MANY_POLICIES: usize = 10_000;
pub(crate) const FEW_POLICIES: usize = 10;
/// Policies of one file of a policy folder.
pub(crate) const POLICIES_OF_A_FILE: usize = 500;

/// Messages that are seeded, bytes that each takes on disk at the most, and in how long they would have come.
pub(crate) const SEEDED: RangeInclusive<u64> = 1_000..=100_000_000;
pub(crate) const SEEDED_BYTES: u64 = 3 << 10;
pub(crate) const SEEDED_DURING: Duration = Duration::from_secs(6 * 3600);
/// Messages whose rows are put into the database at once.
pub(crate) const SEEDED_AT_ONCE: usize = 256;
/// Of so many acknowledgements between two agencies one shows heads of the logs: at the rates that are measured here, a new
/// head comes with fewer.
pub(crate) const HEAD_OF: usize = 32;
