//! Waiting longer each time, and never all at once.

use std::time::Duration;

use crate::limits;

/// How long to wait before the attempt after `failures` failures: doubled each time within the limits,
/// and of that a random part between a half and the whole, so that many do not come back together.
pub(crate) fn after(failures: u32) -> Duration {
    let most = limits::BACKOFF_LEAST.saturating_mul(1 << failures.min(16)).min(limits::BACKOFF_MOST);
    most.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_within_its_limits() {
        for failures in [0, 1, 5, 16, u32::MAX] {
            let wait = after(failures);
            assert!(wait >= limits::BACKOFF_LEAST / 2 && wait <= limits::BACKOFF_MOST, "{wait:?}");
        }
        assert!(after(10) >= limits::BACKOFF_MOST / 2);
    }
}
