//! By whom acknowledgements are signed: what a receipt needs beside the record, for those who verify it later.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use liaison_proto::{exchange::v1::Signer, message::v1::Refusal};
use prost::Message as _;

use super::heads::unreadable;
use crate::{
    delivery::{evidence, internal},
    gateway::Gateway,
    store::Leaf,
};

/// The key records that signed acknowledgements, under a head of the log of keys.
#[derive(Default)]
pub(super) struct Signers {
    /// The head, a signed note; empty where there are none.
    pub head: String,
    pub signers: Vec<Signer>,
    /// Indexes of those leaves whose signer is in the log of keys, but not under its head yet.
    pub early: BTreeSet<u64>,
}

impl Signers {
    /// Those of acknowledgements among leaves. A key that the directory does not have any more is left out.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn of(gateway: &Gateway, leaves: &[Leaf]) -> Result<Self, Refusal> {
        let log = &gateway.logs.keys;
        let head = log.head();
        let directory = gateway.directory.load();
        let (mut places, mut early) = (BTreeMap::new(), BTreeSet::new());
        // A few agencies sign many acknowledgements.
        let mut found = BTreeMap::new();
        for leaf in leaves {
            let signer = leaf.record.as_ref().and_then(|record| evidence::signer(record.record()));
            let Some((agency, id)) = signer else { continue };
            let agency = directory.get(&agency);
            let Some(key) = agency.and_then(|agency| agency.keys.iter().find(|key| key.id == id)) else {
                continue;
            };
            let place = match found.get(&key.id) {
                Some(place) => *place,
                None => {
                    let entry = key.signed.encode_to_vec();
                    let place =
                        gateway.store.place_in_clear(log.tree().id(), &entry).await.map_err(internal)?;
                    found.insert(key.id, place);
                    place
                }
            };
            match place {
                Some(index) if index < head.size => drop(places.insert(index, key.signed.encode_to_vec())),
                Some(_) => drop(early.insert(leaf.index)),
                None => {}
            }
        }
        let indexes: Vec<u64> = places.keys().copied().collect();
        let proofs = log.tree().inclusion(&indexes, head.size).await.map_err(unreadable)?;
        let signers = places.into_iter().zip(proofs).map(|((index, key), proof)| Signer {
            index,
            key: key.into(),
            proof: proof.into_iter().map(Bytes::from).collect(),
        });
        let head = head.note.filter(|_| !indexes.is_empty()).map(|note| note.to_string());
        Ok(Self { head: head.unwrap_or_default(), signers: signers.collect(), early })
    }
}
