//! Puts the chunks of messages on a stream together, within bounds on their number and their bytes.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use liaison_proto::{
    limits::{CHUNK_BYTES, SESSION_WINDOW},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// The messages on a stream whose last chunk has not come yet.
pub(crate) struct Assembly {
    /// The longest message, bytes.
    longest: usize,
    parts: HashMap<u64, Part>,
    /// Room on this stream and on all streams, KiB.
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// A message as far as it has come.
enum Part {
    Growing(BytesMut, Room),
    /// Answered already: what still comes of it is passed over.
    Refused,
}

/// Memory that a message takes, given back when dropped.
pub(crate) struct Room {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

/// What a chunk made of its message.
pub(crate) enum Step {
    Waits,
    Whole { bytes: Bytes, room: Room },
    Refused(Refusal),
}

impl Assembly {
    /// One that shares `all` with the other streams.
    pub(crate) fn new(all: Arc<Semaphore>, longest: usize) -> Self {
        Self {
            longest,
            parts: HashMap::new(),
            own: Arc::new(Semaphore::new(limits::SESSION_BYTES >> 10)),
            all,
        }
    }

    /// Adds a chunk to the message of this number.
    ///
    /// # Errors
    /// The other side doesn't keep to the protocol, and the stream ends.
    pub(crate) fn add(&mut self, number: u64, data: Bytes, last: bool) -> Result<Step, Refusal> {
        let is_new = !self.parts.contains_key(&number);
        if is_new && self.parts.len() >= SESSION_WINDOW as usize {
            return Err(Refusal::new(
                ErrorCode::Malformed,
                "more is under way on the stream than its window",
                "keep to the window that the welcome gave",
            ));
        }
        let (part, step) = match self.parts.remove(&number) {
            Some(Part::Refused) => (Part::Refused, Step::Waits),
            Some(Part::Growing(before, room)) => match self.grow(before, room, &data) {
                Ok((bytes, room)) if last => return Ok(Step::Whole { bytes: bytes.freeze(), room }),
                Ok((bytes, room)) => (Part::Growing(bytes, room), Step::Waits),
                Err(refusal) => (Part::Refused, Step::Refused(refusal)),
            },
            // The one copy of a message, whose parts are references into it from here on: the chunk may be a small part of
            // a buffer that would live as long.
            None => match self.take(data.len()) {
                Ok(room) if last => return Ok(Step::Whole { bytes: Bytes::copy_from_slice(&data), room }),
                Ok(room) => (Part::Growing(BytesMut::from(data.as_ref()), room), Step::Waits),
                Err(refusal) => (Part::Refused, Step::Refused(refusal)),
            },
        };
        if !last {
            self.parts.insert(number, part);
        }
        Ok(step)
    }

    fn grow(&self, mut bytes: BytesMut, mut room: Room, chunk: &[u8]) -> Result<(BytesMut, Room), Refusal> {
        if bytes.len() + chunk.len() > self.longest {
            return Err(too_large("a message", self.longest));
        }
        let more = self.take(chunk.len())?;
        room.own.merge(more.own);
        room.all.merge(more.all);
        bytes.extend_from_slice(chunk);
        Ok((bytes, room))
    }

    /// Room for a chunk, without waiting: whoever waited here would hold what others wait for.
    fn take(&self, bytes: usize) -> Result<Room, Refusal> {
        if bytes > CHUNK_BYTES {
            return Err(too_large("a chunk", CHUNK_BYTES));
        }
        let take = |room: &Arc<Semaphore>| {
            let kib = u32::try_from(bytes.div_ceil(1 << 10)).map_err(|_| no_room())?;
            Arc::clone(room).try_acquire_many_owned(kib).map_err(|_| no_room())
        };
        Ok(Room { own: take(&self.own)?, all: take(&self.all)? })
    }
}

fn too_large(what: &str, limit: usize) -> Refusal {
    Refusal::new(
        ErrorCode::TooLarge,
        format!("{what} has more than {limit} bytes"),
        "send less in one message",
    )
}

fn no_room() -> Refusal {
    Refusal::new(
        ErrorCode::RateLimited,
        "too many bytes of messages are under way",
        "wait for answers before sending more",
    )
    .retry_after(limits::SUBMISSION_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = 8 << 20;

    /// Adds a chunk.
    fn add(assembly: &mut Assembly, number: u64, data: &'static [u8], last: bool) -> Result<Step, Refusal> {
        assembly.add(number, Bytes::from_static(data), last)
    }

    fn assembly() -> Assembly {
        Assembly::new(Arc::new(Semaphore::new(limits::SUBMISSION_BYTES >> 10)), LONGEST)
    }

    fn refused(step: Step) -> ErrorCode {
        match step {
            Step::Refused(refusal) => refusal.code(),
            Step::Waits | Step::Whole { .. } => panic!("not refused"),
        }
    }

    #[test]
    fn chunks_of_several_interleave() {
        let mut assembly = assembly();
        assert!(matches!(add(&mut assembly, 1, b"ab", false), Ok(Step::Waits)));
        assert!(matches!(add(&mut assembly, 2, b"x", false), Ok(Step::Waits)));
        let Ok(Step::Whole { bytes, .. }) = add(&mut assembly, 1, b"cd", true) else { panic!("not whole") };
        assert_eq!(bytes, "abcd");
        let Ok(Step::Whole { bytes, .. }) = add(&mut assembly, 2, b"y", true) else { panic!("not whole") };
        assert_eq!(bytes, "xy");
    }

    #[test]
    fn too_much_is_refused_once_and_the_rest_passed_over() {
        let mut assembly = assembly();
        let mut last = None;
        for _ in 0..=LONGEST / CHUNK_BYTES {
            let data = Bytes::from(vec![0; CHUNK_BYTES]);
            last = Some(assembly.add(1, data, false).unwrap());
        }
        assert_eq!(refused(last.unwrap()), ErrorCode::TooLarge);
        assert!(matches!(add(&mut assembly, 1, b"rest", true), Ok(Step::Waits)));
        assert!(matches!(add(&mut assembly, 1, b"new", true), Ok(Step::Whole { .. })));

        let large = Bytes::from(vec![0; CHUNK_BYTES + 1]);
        let step = assembly.add(2, large, true).unwrap();
        assert_eq!(refused(step), ErrorCode::TooLarge);
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let mut assembly = Assembly::new(Arc::new(Semaphore::new(1)), LONGEST);
        let Ok(Step::Whole { room, .. }) = add(&mut assembly, 1, b"a", true) else { panic!("not whole") };
        let step = add(&mut assembly, 2, b"b", true).unwrap();
        assert_eq!(refused(step), ErrorCode::RateLimited);
        drop(room);
        assert!(matches!(add(&mut assembly, 2, b"b", true), Ok(Step::Whole { .. })));
    }

    #[test]
    fn chunks_of_nothing_take_nothing() {
        let mut assembly = assembly();
        for _ in 0..100_000 {
            assert!(matches!(add(&mut assembly, 1, b"", false), Ok(Step::Waits)));
        }
        let Some(Part::Growing(bytes, _)) = assembly.parts.get(&1) else { panic!("not growing") };
        assert_eq!(bytes.capacity(), 0);
    }

    #[test]
    fn a_chunk_does_not_keep_the_buffer_that_it_came_in() {
        let mut assembly = assembly();
        let buffer = Bytes::from(vec![7; CHUNK_BYTES]);
        let data = buffer.slice(..1);
        assembly.add(1, data, false).unwrap();
        assert!(buffer.is_unique());
    }

    #[test]
    fn the_number_of_unfinished_ones_is_bounded() {
        let mut assembly = assembly();
        for submission in 0..u64::from(SESSION_WINDOW) {
            add(&mut assembly, submission, b"", false).unwrap();
        }
        assert!(add(&mut assembly, u64::MAX, b"", false).is_err());
    }
}
