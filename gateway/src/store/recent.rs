//! The ends of queues: what was committed a moment ago and waits for a session that is there, so that it is handed over
//! without being read from the database again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use liaison_proto::message::v1::error_code::Code as ErrorCode;

use super::{DeliveryId, Head, Item, NewCopy, NewMessage, Queue, Queued, QueuedCopy};
use crate::limits;

/// The newest deliveries, as far as there is room for them. The database has them all, and their order.
#[derive(Clone, Default)]
pub(super) struct Recent(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    ends: HashMap<Queue, End>,
    /// The queues of those that are kept, the oldest first, and how many bytes they have.
    queues: BTreeMap<DeliveryId, (Queue, u64)>,
    bytes: u64,
}

/// The end of a queue.
struct End {
    kept: BTreeMap<DeliveryId, Queued>,
    /// The last delivery that the queue may hold and that is not kept.
    last_unkept: DeliveryId,
}

/// What was put into a queue, and how many bytes it has; whether it is kept in memory.
pub(super) struct Added<'a> {
    pub(super) id: DeliveryId,
    pub(super) queue: &'a Queue,
    pub(super) kept: Option<Queued>,
    pub(super) bytes: u64,
}

impl Recent {
    /// Takes note of what was put into queues, in its order; of what is kept the oldest makes room.
    pub(super) fn add<'a>(&self, added: impl IntoIterator<Item = Added<'a>>) {
        let mut kept = self.lock();
        for Added { id, queue, kept: queued, bytes } in added {
            // Of a queue that nothing is known of, nothing before this.
            let end = kept
                .ends
                .entry(queue.clone())
                .or_insert_with(|| End { kept: BTreeMap::new(), last_unkept: id.before() });
            let Some(queued) = queued else {
                end.last_unkept = id;
                continue;
            };
            end.kept.insert(id, queued);
            kept.queues.insert(id, (queue.clone(), bytes));
            kept.bytes += bytes;
        }
        while kept.bytes > limits::RECENT_BYTES
            && let Some(oldest) = kept.queues.keys().next().copied()
        {
            kept.remove(oldest);
        }
    }

    /// Takes the next of a queue behind a delivery; none where the database is to be asked.
    pub(super) fn next(&self, queue: &Queue, after: DeliveryId, most: usize) -> Option<Vec<Queued>> {
        let mut kept = self.lock();
        let end = kept.ends.get(queue).filter(|end| after >= end.last_unkept)?;
        let next: Vec<_> = end.kept.keys().copied().filter(|id| *id > after).take(most).collect();
        Some(next.into_iter().filter_map(|id| kept.remove(id)).collect())
    }

    /// Takes those of these deliveries that are kept, up to the first that is not.
    pub(super) fn take(&self, ids: &[DeliveryId]) -> Vec<Queued> {
        let mut kept = self.lock();
        ids.iter().map_while(|id| kept.remove(*id)).collect()
    }

    /// Drops deliveries that are not any more what they were, or have left their queue.
    pub(super) fn forget(&self, ids: impl IntoIterator<Item = DeliveryId>) {
        let mut kept = self.lock();
        for id in ids {
            kept.remove(id);
        }
    }

    /// Drops everything.
    pub(super) fn clear(&self) {
        *self.lock() = Kept::default();
    }

    /// Drops what is kept of a queue, which another gateway hands over from now on.
    pub(super) fn forget_queue(&self, queue: &Queue) {
        let mut kept = self.lock();
        let ids = kept.ends.get(queue).map(|end| end.kept.keys().copied().collect::<Vec<_>>());
        for id in ids.unwrap_or_default() {
            kept.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, id: DeliveryId) -> Option<Queued> {
        let (queue, bytes) = self.queues.remove(&id)?;
        self.bytes -= bytes;
        let end = self.ends.get_mut(&queue)?;
        end.last_unkept = end.last_unkept.max(id);
        end.kept.remove(&id)
    }
}

/// A copy of a message that has been stored with the leaf of its hand-over, as the database would show it.
pub(super) fn copy(id: DeliveryId, message: &NewMessage, copy: &NewCopy) -> Queued {
    let head = Head {
        delivery: id,
        recipient: copy.recipient.clone(),
        sender: message.sender.clone(),
        message: message.id,
        digest: message.digest,
        expires: message.expires,
        offered: false,
        handed_over: true,
        accepted: false,
        waiting: (ErrorCode::Unspecified, 0),
    };
    let copy = QueuedCopy {
        head,
        content: message.content.clone(),
        proof: copy.proof.clone(),
        bases_salt: copy.bases_salt.clone(),
        released: copy.released.clone(),
        from_memory: true,
    };
    Queued { id, item: Item::Copy(Box::new(copy)) }
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::SignedNotice;

    use super::*;

    fn queue(of: &str) -> Queue {
        of.parse().unwrap()
    }

    /// Puts these into a queue; of each whether it is kept.
    fn add(recent: &Recent, queue: &Queue, ids: &[(i64, bool)], bytes: u64) {
        let added = ids.iter().map(|(id, is_kept)| {
            let (id, item) = (DeliveryId(*id), Item::Notice(SignedNotice::default()));
            Added { id, queue, kept: is_kept.then_some(Queued { id, item }), bytes }
        });
        recent.add(added);
    }

    fn next(recent: &Recent, queue: &Queue, after: i64) -> Option<Vec<i64>> {
        let next = recent.next(queue, DeliveryId(after), 2)?;
        Some(next.iter().map(|queued| queued.id.0).collect())
    }

    #[test]
    fn knows_the_end_of_a_queue_and_nothing_before_it() {
        let (recent, queue, other) = (Recent::default(), queue("be/shelter"), queue("be/police"));
        assert_eq!(next(&recent, &queue, 0), None, "of a queue into which nothing came");
        add(&recent, &queue, &[(7, true), (9, true), (10, true)], 1);
        assert_eq!(next(&recent, &queue, 5), None, "a delivery before the first may wait");
        assert_eq!(next(&recent, &queue, 6), Some(vec![7, 9]));
        assert_eq!(next(&recent, &queue, 9), Some(vec![10]));
        assert_eq!(next(&recent, &queue, 10), Some(vec![]), "that nothing waits");
        assert_eq!(next(&recent, &queue, 6), None, "for another session, what was taken");
        assert_eq!(next(&recent, &other, 10), None, "another queue");
    }

    #[test]
    fn what_is_not_kept_is_asked_for() {
        let (recent, queue) = (Recent::default(), queue("be/shelter"));
        add(&recent, &queue, &[(1, true), (2, false), (3, true)], 1);
        assert_eq!(next(&recent, &queue, 0), None);
        assert_eq!(next(&recent, &queue, 2), Some(vec![3]));
        add(&recent, &queue, &[(4, true), (5, true)], 1);
        recent.forget([DeliveryId(4)]);
        assert_eq!(next(&recent, &queue, 3), None, "one that was narrowed");
        assert_eq!(next(&recent, &queue, 4), Some(vec![5]));
        recent.clear();
        assert_eq!(next(&recent, &queue, 5), None);
    }

    #[test]
    fn the_oldest_makes_room() {
        let (recent, first, second) = (Recent::default(), queue("be/shelter"), queue("be/police"));
        add(&recent, &first, &[(1, true)], limits::RECENT_BYTES);
        add(&recent, &second, &[(2, true)], 1);
        assert_eq!(next(&recent, &first, 0), None);
        assert_eq!(next(&recent, &second, 1), Some(vec![2]));
    }
}
