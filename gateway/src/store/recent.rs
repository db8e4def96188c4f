//! What was committed a moment ago and waits for a session that is there: so that it is handed over without being read
//! from the database again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use liaison_proto::message::v1::error_code::Code as ErrorCode;
use liaison_trust::names::AgencyAddress;

use super::{DeliveryId, Head, Item, NewCopy, NewMessage, Queued, QueuedCopy};
use crate::limits;

/// The newest deliveries, as far as there is room for them. The database has them all, and their order.
#[derive(Clone, Default)]
pub(super) struct Recent(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    queued: BTreeMap<DeliveryId, (Queued, u64)>,
    bytes: u64,
}

impl Recent {
    /// Keeps deliveries with how many bytes they have; the oldest make room.
    pub(super) fn keep(&self, queued: impl IntoIterator<Item = (Queued, u64)>) {
        let mut kept = self.lock();
        for (queued, bytes) in queued {
            kept.bytes += bytes;
            kept.queued.insert(queued.id, (queued, bytes));
        }
        while kept.bytes > limits::RECENT_BYTES
            && let Some((_, (_, bytes))) = kept.queued.pop_first()
        {
            kept.bytes -= bytes;
        }
    }

    /// Takes those of these deliveries that are kept, up to the first that is not.
    pub(super) fn take(&self, ids: &[DeliveryId]) -> Vec<Queued> {
        let mut kept = self.lock();
        ids.iter().map_while(|id| kept.remove(*id)).collect()
    }

    /// Drops deliveries that have left their queue.
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

    /// Drops the copies for an agency, which another gateway hands over from now on.
    pub(super) fn forget_copies(&self, agency: &AgencyAddress) {
        let mut kept = self.lock();
        let is_for =
            |queued: &Queued| matches!(&queued.item, Item::Copy(copy) if copy.head.recipient == *agency);
        let copies = kept.queued.values().filter(|(queued, _)| is_for(queued));
        let copies: Vec<_> = copies.map(|(queued, _)| queued.id).collect();
        for id in copies {
            kept.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, id: DeliveryId) -> Option<Queued> {
        let (queued, bytes) = self.queued.remove(&id)?;
        self.bytes -= bytes;
        Some(queued)
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
