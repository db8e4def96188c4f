//! Randomness: one source for production, given as a parameter so that test vectors can be made again.

use std::convert::Infallible;

use hpke::rand_core::{CryptoRng, TryCryptoRng, TryRng};
use zeroize::Zeroizing;

/// The operating system's randomness, through aws-lc.
pub(crate) struct System;

impl TryRng for System {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    #[allow(clippy::expect_used, reason = "without randomness nothing can be sealed; aws-lc aborts itself")]
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        aws_lc_rs::rand::fill(bytes).expect("the operating system gives randomness");
        Ok(())
    }
}

impl TryCryptoRng for System {}

/// A random secret, written in place, so that no copy of it stays on the stack.
pub(crate) fn secret(random: &mut impl CryptoRng) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    random.fill_bytes(secret.as_mut_slice());
    secret
}

/// Random bytes that are no secret.
pub(crate) fn bytes<const N: usize>(random: &mut impl CryptoRng) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill_bytes(&mut bytes);
    bytes
}

/// `count` distinct numbers below `among`, chosen and ordered at random (Fisher and Yates).
pub(crate) fn choose(count: usize, among: usize, random: &mut impl CryptoRng) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..).take(among).collect();
    for place in 0..count.min(among) {
        let left = among - place;
        // 64 random bits modulo at most 4,096: the bias is below 2^-52.
        let step = usize::try_from(random.next_u64() % left as u64).unwrap_or(0);
        numbers.swap(place, place + step);
    }
    numbers.truncate(count);
    numbers
}
