use std::collections::BTreeMap;

use super::*;
use crate::digest::Digest;

mod continuations;
mod entries;
mod histories;
mod noise;
mod notes;
mod oracle;
mod proofs;
mod receipts;
mod rfc6962;
mod succession;
mod tiles;

/// Every complete node of a log.
type Nodes = BTreeMap<Node, Digest>;

/// The nodes of a log of these entries, appended one after the other.
fn nodes<E: AsRef<[u8]>>(entries: impl IntoIterator<Item = E>) -> Nodes {
    let mut frontier = Frontier::new();
    entries.into_iter().flat_map(|entry| frontier.append(leaf_hash(entry.as_ref())).unwrap()).collect()
}

/// Different entries, as many as are asked for.
fn entries(count: u64) -> impl Iterator<Item = [u8; 8]> {
    (0..count).map(u64::to_be_bytes)
}

fn digest(hex: &str) -> Digest {
    Digest::try_from(hex::decode(hex).unwrap().as_slice()).unwrap()
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}
