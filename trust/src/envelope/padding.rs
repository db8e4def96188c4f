//! Padding of a section's plaintext, so that its ciphertext tells little of its length: a length of 32
//! bits (big-endian), the plaintext, and zeros up to what Padmé gives, 256 bytes at least.
//!
//! Padmé (Nikitin et al., 2019): at most 12 % more bytes, and O(log log n) bits told of a length n.

use zeroize::Zeroizing;

use super::derive::TAG;

/// No padded plaintext is shorter, bytes.
const FLOOR: usize = 256;
/// The length in front, bytes.
const LENGTH: usize = 4;

/// The padded plaintext; none where its length does not fit 32 bits.
pub(super) fn pad(plaintext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let length = u32::try_from(plaintext.len()).ok()?.to_be_bytes();
    let total = padded_length(LENGTH.checked_add(plaintext.len())?);
    // Room for the tag as well, so that sealing in place leaves no copy behind.
    let mut padded = Zeroizing::new(Vec::with_capacity(total.checked_add(TAG)?));
    padded.extend_from_slice(&length);
    padded.extend_from_slice(plaintext);
    padded.resize(total, 0);
    Some(padded)
}

/// The plaintext of a padded one; none where it is not padded exactly as [`pad`] does.
pub(super) fn unpad(padded: &[u8]) -> Option<&[u8]> {
    let (length, rest) = padded.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (plaintext, zeros) = rest.split_at_checked(length)?;
    let exact = padded.len() == padded_length(LENGTH.checked_add(length)?);
    (exact && zeros.iter().all(|byte| *byte == 0)).then_some(plaintext)
}

/// Whether a padded plaintext can have this length.
pub(super) fn is_padded_length(length: usize) -> bool {
    length == padded_length(length)
}

/// Padmé, with a floor. Lengths here are below 2^33.
fn padded_length(length: usize) -> usize {
    if length <= FLOOR {
        return FLOOR;
    }
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1_usize << (exponent - kept)) - 1;
    (length + mask) & !mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_lengths() {
        let lengths = [(0, 256), (252, 256), (256, 256), (257, 272), (1000, 1024), (10_000, 10_240)];
        for (length, padded) in lengths {
            assert_eq!(padded_length(length), padded, "{length}");
        }
    }

    #[test]
    fn refuses_other_paddings() {
        let padded = pad(b"plain").unwrap();
        for place in 4 + 5..padded.len() {
            let mut changed = padded.clone();
            changed[place] = 1;
            assert_eq!(unpad(&changed), None);
        }
        assert_eq!(unpad(&padded[..255]), None);
        assert_eq!(unpad(&[padded.as_slice(), &[0; 8]].concat()), None);
        assert_eq!(unpad(&[]), None);
        assert_eq!(unpad(&[0xff; 300]), None);
    }

    proptest! {
        #[test]
        fn round_trip(plaintext in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let padded = pad(&plaintext).unwrap();
            prop_assert!(is_padded_length(padded.len()));
            prop_assert_eq!(unpad(&padded), Some(plaintext.as_slice()));
        }

        #[test]
        fn costs_an_eighth_at_most(length in 257..(1_usize << 33)) {
            let padded = padded_length(length);
            prop_assert!(padded >= length);
            prop_assert!(padded - length <= length / 8);
            prop_assert_eq!(padded_length(padded), padded);
            prop_assert!(padded_length(length + 1) >= padded);
        }

        #[test]
        fn unpad_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = unpad(&bytes);
        }
    }
}
