//! A bound on what callers without a certificate may try, so that tokens can't be guessed at and
//! certificate requests cost no one else their turn.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use liaison_proto::message::v1::{Refusal, error_code::Code as ErrorCode};

use crate::limits;

/// Attempts of the running minute, by source. A source is an IPv4 address or an IPv6 /64. When there
/// are more sources than are told apart, all new ones share one count.
#[derive(Debug)]
pub struct Attempts {
    minute: Mutex<Minute>,
}

#[derive(Debug)]
struct Minute {
    began: Instant,
    by_source: HashMap<Option<IpAddr>, u32>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { minute: Mutex::new(Minute { began: Instant::now(), by_source: HashMap::new() }) }
    }
}

impl Attempts {
    /// Counts an attempt, or refuses it.
    ///
    /// # Errors
    /// `rate_limited`, with how long to wait.
    pub fn admit(&self, source: Option<IpAddr>, now: Instant) -> Result<(), Refusal> {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(minute.began) >= limits::ATTEMPTS_WINDOW {
            *minute = Minute { began: now, by_source: HashMap::new() };
        }
        let source = source.map(network);
        let is_full = minute.by_source.len() >= limits::ATTEMPT_SOURCES;
        let source = if is_full && !minute.by_source.contains_key(&source) { None } else { source };
        let left = limits::ATTEMPTS_WINDOW.saturating_sub(now.duration_since(minute.began));
        let attempts = minute.by_source.entry(source).or_default();
        if *attempts >= limits::ATTEMPTS {
            let message = "too many attempts to enrol from your network in this minute";
            return Err(
                Refusal::new(ErrorCode::RateLimited, message, "wait, then try again").retry_after(left)
            );
        }
        *attempts += 1;
        Ok(())
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_is_bounded_and_no_other() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let (one, other) = ("2001:db8::1".parse().ok(), "2001:db8:0:1::1".parse().ok());
        for _ in 0..limits::ATTEMPTS {
            attempts.admit(one, start).unwrap();
        }
        let refusal = attempts.admit("2001:db8::2".parse().ok(), start).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::RateLimited);
        assert!(refusal.retry_after_ms > 0);
        attempts.admit(other, start).unwrap();
        attempts.admit(one, start + limits::ATTEMPTS_WINDOW).unwrap();
    }

    #[test]
    fn many_sources_share_one_count_past_the_bound() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let sources = u32::try_from(limits::ATTEMPT_SOURCES).unwrap();
        for source in 0..sources {
            attempts.admit(Some(IpAddr::V4(source.into())), start).unwrap();
        }
        let new = |source: u32| Some(IpAddr::V4((sources + source).into()));
        for source in 0..limits::ATTEMPTS {
            attempts.admit(new(source), start).unwrap();
        }
        assert_eq!(attempts.admit(new(limits::ATTEMPTS), start).unwrap_err().code(), ErrorCode::RateLimited);
        assert!(attempts.minute.lock().unwrap().by_source.len() <= limits::ATTEMPT_SOURCES + 1);
    }
}
