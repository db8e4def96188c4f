//! Randomness: one source for production, given as a parameter so that test vectors can be made again.

use std::convert::Infallible;

use hpke::rand_core::{CryptoRng, TryCryptoRng, TryRng};

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

/// Random bytes.
pub(crate) fn bytes<const N: usize>(random: &mut impl CryptoRng) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill_bytes(&mut bytes);
    bytes
}

/// `items` in random order (Fisher and Yates).
pub(crate) fn shuffled<T>(mut items: Vec<T>, random: &mut impl CryptoRng) -> Vec<T> {
    for last in (1..items.len()).rev() {
        // 64 random bits modulo at most 4,096: the bias is below 2^-52.
        let other = random.next_u64() % (last as u64 + 1);
        items.swap(last, usize::try_from(other).unwrap_or(last));
    }
    items
}
