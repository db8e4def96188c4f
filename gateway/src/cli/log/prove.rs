//! `log prove`

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Context;
use clap::Args;
use liaison_proto::message::v1::SignedKeyRecord;
use liaison_trust::{
    digest::sha256,
    log::{
        Continuation, Node, Receipt, Signer, Tile, TileHashes, consistency, consistency_nodes, inclusion,
        inclusion_nodes, root, root_nodes,
    },
};
use prost::Message as _;
use serde_json::json;
use uuid::Uuid;

use super::{super::Failure, Log, Logs, Output, Which, file_name, nothing};
use crate::{delivery::evidence, limits, store::LogKind};

/// What to prove.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Indexes of leaves to make receipts of (C2SP tlog-proof); erased ones have none
    #[arg(value_name = "INDEX", required_unless_present_any = ["message", "from"], conflicts_with_all = ["message", "from"])]
    indexes: Vec<u64>,
    /// All leaves about this message
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    message: Option<Uuid>,
    /// Prove that the log only grew since it had this many leaves
    #[arg(long, value_name = "SIZE")]
    from: Option<u64>,
    #[command(flatten)]
    which: Which,
    /// Write files into this folder instead of printing: `<origin>-<index>.tlog-proof`, `<origin>-<from>-<to>.tlog-consistency`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) async fn execute(logs: &mut Logs, arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    if let Some(from) = arguments.from {
        let log = logs.one(&arguments.which).await?;
        let proof = continuation(logs, &log, from).await?;
        let size = log.signed()?.1.size();
        let name = format!("{}-{from}-{size}.tlog-consistency", file_name(log.key.name().as_str()).display());
        return write(&[(&log, None, name, proof.to_string())], "proof", arguments, output);
    }
    let (looked, wanted) = match arguments.message {
        Some(message) => {
            let looked = logs.searched(&arguments.which).await?;
            let mut rows = logs.about(&looked, &BTreeSet::from([message.as_bytes().to_vec()])).await?;
            rows.retain(|(place, row)| {
                row.record.is_some() && looked.get(*place).is_some_and(|log| row.index() < log.size())
            });
            if rows.is_empty() {
                return Err(nothing(&format!("the message {message}"), looked.len()).into());
            }
            (looked, rows.iter().map(|(place, row)| (*place, row.index())).collect())
        }
        None => {
            let log = logs.one(&arguments.which).await?;
            (vec![log], arguments.indexes.iter().map(|index| (0, *index)).collect::<Vec<_>>())
        }
    };
    if wanted.len() > limits::LOG_SHOWN as usize {
        return Err(Failure::wrong_use("too many leaves at once", "ask for fewer").into());
    }
    let mut made = Vec::new();
    for (place, index) in wanted {
        let Some(log) = looked.get(place) else { continue };
        let name = format!("{}-{index}.tlog-proof", file_name(log.key.name().as_str()).display());
        let receipt = receipt(logs, log, index).await?;
        let signer = signer(logs, &receipt).await?;
        made.push((log, Some(index), name, Receipt { signer, ..receipt }.to_string()));
    }
    if made.len() > 1 && arguments.out.is_none() && !output.json {
        let action = "name a folder with --out, or ask for --json";
        return Err(Failure::wrong_use("several receipts don't go into one text", action).into());
    }
    write(&made, "receipt", arguments, output)
}

/// The receipt of a leaf, verified.
async fn receipt(logs: &mut Logs, log: &Log, index: u64) -> anyhow::Result<Receipt> {
    let (note, checkpoint) = log.over(index)?;
    let size = checkpoint.size();
    let row = logs.snapshot.leaves(log.head.log, index, 1).await?.pop().filter(|row| row.index() == index);
    let row =
        row.filter(|_| index < size).ok_or_else(|| nothing(&format!("a leaf {index} under its head"), 1))?;
    let record = row.salted().ok_or_else(|| without_record(log, index))?;
    let hashes = hashes(logs, log, inclusion_nodes(index, size)?, size).await?;
    let proof = inclusion(index, size, |node| hashes.hash(node))?;
    let receipt = Receipt { record, index, proof, checkpoint: note.clone(), signer: None };
    receipt
        .verify(&log.key)
        .map_err(|error| Failure::failed("log_damaged", error.to_string(), super::VERIFY))?;
    Ok(receipt)
}

/// A leaf of which there is no receipt.
fn without_record(log: &Log, index: u64) -> Failure {
    let origin = log.key.name();
    if log.kind == LogKind::Keys {
        let message = format!(
            "leaf {index} of {origin} is a key record in clear: a receipt is of a salted record alone"
        );
        let action = format!(
            "see it with `liaison-gateway log show --log {origin} --from {index}`; `log export` writes it with the tiles \
             that prove it"
        );
        return Failure::failed("in_clear", message, action);
    }
    let message = format!("the record of leaf {index} was erased: there is no receipt of it any more");
    Failure::failed("erased", message, "ask an agency that kept its receipt")
}

/// Where the record of a receipt is an acknowledgement, the key that signed it, as far as the log of keys holds it.
async fn signer(logs: &mut Logs, receipt: &Receipt) -> anyhow::Result<Option<Signer>> {
    let Some((agency, id)) = evidence::signer(receipt.record.record()) else { return Ok(None) };
    let keys = logs.snapshot.keys_of(&agency.to_string()).await?;
    let Some(key) = keys.iter().find(|key| sha256(&key.record) == id).map(SignedKeyRecord::encode_to_vec)
    else {
        return Ok(None);
    };
    let named = Which { log: Some(format!("{}/{}", logs.domain, LogKind::Keys.name())) };
    let log = logs.one(&named).await?;
    let Some(index) = logs.snapshot.place_in_clear(log.head.log, &key).await? else { return Ok(None) };
    let (note, size) = log.over(index).map(|(note, head)| (note.clone(), head.size()))?;
    if index >= size {
        return Ok(None);
    }
    let hashes = hashes(logs, &log, inclusion_nodes(index, size)?, size).await?;
    let proof = inclusion(index, size, |node| hashes.hash(node))?;
    Ok(Some(Signer { key, index, proof, checkpoint: note }))
}

/// The proof that the log of now continues the one of so many leaves, verified.
async fn continuation(logs: &mut Logs, log: &Log, old: u64) -> anyhow::Result<Continuation> {
    let (note, checkpoint) = log.signed()?;
    let size = checkpoint.size();
    if old > size {
        let message = format!("{} has {size} leaves under its head, fewer than {old}", log.key.name());
        let action = "ask from a smaller size; if a head of more leaves was ever signed, the log was rolled back: \
                      keep that head as evidence";
        return Err(Failure::failed("rolled_back", message, action).into());
    }
    let nodes = [consistency_nodes(old, size)?, root_nodes(old)].concat();
    let hashes = hashes(logs, log, nodes, size).await?;
    let proof = Continuation {
        old,
        old_root: root(old, |node| hashes.hash(node))?,
        proof: consistency(old, size, |node| hashes.hash(node))?,
        checkpoint: note.clone(),
    };
    proof
        .verify(&log.key)
        .map_err(|error| Failure::failed("log_damaged", error.to_string(), super::VERIFY))?;
    Ok(proof)
}

async fn hashes(logs: &mut Logs, log: &Log, nodes: Vec<Node>, size: u64) -> anyhow::Result<TileHashes> {
    let tiles: BTreeSet<Tile> = nodes.into_iter().filter_map(|node| Tile::holding(node, size)).collect();
    Ok(logs.snapshot.tiles(log.head.log, tiles).await?)
}

fn write(
    made: &[(&Log, Option<u64>, String, String)],
    what: &str,
    arguments: &Arguments,
    output: Output,
) -> anyhow::Result<()> {
    let mut files = Vec::new();
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        for (_, _, name, text) in made {
            let file = folder.join(name);
            crate::data::write_private(&file, text.as_bytes())?;
            files.push(file);
        }
    }
    let told = made.iter().enumerate().map(|(place, (log, index, _, text))| {
        json!({"log": log.key.name().as_str(), "index": index, "file": files.get(place), what: text})
    });
    output.print(&json!({"proofs": told.collect::<Vec<_>>()}), || {
        if arguments.out.is_some() {
            files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join("\n")
        } else {
            made.iter().map(|(_, _, _, text)| text.as_str()).collect()
        }
    })?;
    Ok(())
}
