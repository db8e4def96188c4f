//! Messages as they are cut for a stream.

use prost::bytes::Bytes;

use crate::limits::CHUNK_BYTES;

/// The chunks of a message, of at most [`CHUNK_BYTES`] each, with whether it is the last: at least one.
pub fn chunks(message: Bytes) -> impl Iterator<Item = (Bytes, bool)> {
    let mut rest = Some(message);
    std::iter::from_fn(move || {
        let mut chunk = rest.take()?;
        if chunk.len() > CHUNK_BYTES {
            rest = Some(chunk.split_off(CHUNK_BYTES));
        }
        Some((chunk, rest.is_none()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_chunk_is_the_one_that_ends_the_message() {
        for (length, expected) in [
            (0, vec![0]),
            (CHUNK_BYTES, vec![CHUNK_BYTES]),
            (2 * CHUNK_BYTES + 1, vec![CHUNK_BYTES, CHUNK_BYTES, 1]),
        ] {
            let cut: Vec<_> = chunks(vec![7; length].into()).collect();
            assert_eq!(cut.iter().map(|(chunk, _)| chunk.len()).collect::<Vec<_>>(), expected);
            let lasts: Vec<_> = cut.iter().map(|(_, last)| *last).collect();
            assert!(lasts.last() == Some(&true) && lasts.iter().filter(|last| **last).count() == 1);
        }
    }
}
