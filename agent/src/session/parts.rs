//! Deliveries come in parts, those of several mixed.

use std::collections::HashMap;

use bytes::Bytes;
use liaison_proto::exchange::v1::DeliveryChunk;

use super::SessionError;
use crate::limits;

/// Deliveries of which not all parts have come.
#[derive(Default)]
pub(super) struct Parts {
    by_attempt: HashMap<Bytes, Vec<u8>>,
    bytes: usize,
}

impl Parts {
    /// Adds a part; gives the delivery when it was the last.
    pub(super) fn add(&mut self, chunk: DeliveryChunk) -> Result<Option<(Bytes, Vec<u8>)>, SessionError> {
        if chunk.attempt.len() != 16 {
            return Err(SessionError::Protocol("an attempt that is not 16 bytes"));
        }
        self.bytes += chunk.data.len();
        if self.bytes > limits::DELIVERIES_BYTES {
            return Err(SessionError::Protocol("too many unfinished deliveries at once"));
        }
        let whole = self.by_attempt.entry(chunk.attempt.clone()).or_default();
        whole.extend_from_slice(&chunk.data);
        if !chunk.last {
            return Ok(None);
        }
        let whole = self.by_attempt.remove(&chunk.attempt).unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(whole.len());
        Ok(Some((chunk.attempt, whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(attempt: &'static [u8], data: &'static [u8], last: bool) -> DeliveryChunk {
        DeliveryChunk { attempt: attempt.into(), data: data.into(), last }
    }

    #[test]
    fn parts_of_several_deliveries_are_put_together() {
        let (a, b) = (&[1; 16], &[2; 16]);
        let mut parts = Parts::default();
        assert!(parts.add(chunk(a, b"on", false)).unwrap().is_none());
        assert!(parts.add(chunk(b, b"tw", false)).unwrap().is_none());
        assert_eq!(parts.add(chunk(a, b"e", true)).unwrap().unwrap().1, b"one");
        assert_eq!(parts.add(chunk(b, b"o", true)).unwrap().unwrap().1, b"two");
        assert_eq!(parts.bytes, 0);
    }

    #[test]
    fn a_flood_of_parts_ends_the_session() {
        static MEGABYTE: [u8; 1 << 20] = [0; 1 << 20];
        let mut parts = Parts::default();
        for _ in 0..limits::DELIVERIES_BYTES >> 20 {
            assert!(parts.add(chunk(&[1; 16], &MEGABYTE, false)).unwrap().is_none());
        }
        assert!(matches!(parts.add(chunk(&[1; 16], b"x", false)), Err(SessionError::Protocol(_))));
        assert!(matches!(Parts::default().add(chunk(b"short", b"x", true)), Err(SessionError::Protocol(_))));
    }
}
