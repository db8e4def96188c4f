//! Randomness that can be replayed: a test prints its seed, and takes one from `LIAISON_SEED`.

use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng};

/// A generator of random choices under the seed that was asked for, or a new one.
pub fn generator(test: &str) -> Result<StdRng> {
    let seed = match std::env::var("LIAISON_SEED") {
        Ok(text) => text.parse().with_context(|| format!("LIAISON_SEED={text} is not a number"))?,
        Err(_) => rand::random(),
    };
    println!("{test}: replay with LIAISON_SEED={seed}");
    Ok(StdRng::seed_from_u64(seed))
}
