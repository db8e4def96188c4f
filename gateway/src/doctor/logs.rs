//! Whether the heads of the logs are signed by this gateway, the tiles lead to them, and what waits for the next head was
//! staged by this gateway: what can be told at once. The rest, `log verify` tells. And what peers' logs of keys hold in the
//! name of this domain's agencies.

use std::collections::BTreeMap;

use liaison_trust::{
    digest::{Digest, sha256},
    key_record,
    names::AgencyAddress,
};

use super::{Finding, fail, ok};
use crate::{
    config::Config,
    data::DataFolder,
    log::{LogError, log_key, verify},
    run::signing_key,
    store::{LogKind, Snapshot, Stager, StoreError},
};

const CHECK: &str = "log";
const CONFLICTS: &str = "logs abroad";
const KEYS: &str = "keys abroad";
const VERIFY: &str = "run `liaison-gateway log verify`";

pub(super) async fn examine(folder: &DataFolder, config: &Config) -> Vec<Finding> {
    // Without a key and a database there is nothing to look at, which other checks have told.
    let Ok(gateway) = signing_key(folder) else { return Vec::new() };
    let Ok(mut snapshot) = Snapshot::of(&config.database(folder)).await else { return Vec::new() };
    let stager = Stager::new(&gateway);
    let mut findings = Vec::new();
    for kind in LogKind::ALL {
        let logs = match snapshot.logs(kind).await {
            Ok(logs) => logs,
            Err(error) => {
                findings.push(fail(CHECK, error.to_string(), VERIFY));
                continue;
            }
        };
        for head in &logs {
            let finding = async {
                let key = log_key(&config.domain, kind, head.number, &gateway)?;
                let mut faults = verify::Faults::default();
                let signed = verify::examine_head(&mut snapshot, head, &key, &mut faults).await?;
                verify::examine_begun(&mut snapshot, &logs, head, key.name().as_str(), &mut faults).await?;
                verify::examine_staged(&mut snapshot, head, (&key, &stager), &mut faults).await?;
                Ok::<_, LogError>(match (faults.listed.first(), signed) {
                    (Some(fault), _) => {
                        fail(CHECK, format!("{}: {}", fault.place, fault.found), fault.action)
                    }
                    (None, Some(signed)) => {
                        ok(CHECK, format!("{}: {} leaves, root {}", key.name(), signed.size(), signed.root()))
                    }
                    (None, None) => ok(CHECK, format!("{}: no head yet", key.name())),
                })
            };
            findings.push(finding.await.unwrap_or_else(|error| fail(CHECK, error.to_string(), VERIFY)));
        }
    }
    match snapshot.conflicts().await {
        Ok(conflicts) => findings.extend(conflicts.into_iter().map(|(origin, count)| {
            fail(
                CONFLICTS,
                format!("{origin} has contradicted what was known of it, {count} times: it changed its past, or told two stories"),
                "ask the domain's administrator, and tell the others; the evidence is in the table `conflict`",
            )
        })),
        Err(error) => findings.push(fail(CHECK, error.to_string(), VERIFY)),
    }
    match foreign_keys(&mut snapshot).await {
        Ok(foreign) => findings.extend(foreign),
        Err(error) => findings.push(fail(CHECK, error.to_string(), VERIFY)),
    }
    findings
}

/// What peers have logged in the name of agencies of this domain, and this gateway still does not know: one finding for
/// each log of a peer and agency.
async fn foreign_keys(snapshot: &mut Snapshot) -> Result<Vec<Finding>, StoreError> {
    let mut found: BTreeMap<(String, AgencyAddress), (usize, u64, Digest)> = BTreeMap::new();
    for (log, index, record) in snapshot.foreign_keys().await? {
        let key = key_record::prove(&record).map_err(|_| StoreError::Corrupt("key record"))?;
        // One of after the backup that this database was restored from may have come back.
        let known = snapshot.keys_of(&key.agency.to_string()).await?;
        if known.iter().all(|known| sha256(&known.record) != key.id) {
            found.entry((log, key.agency)).or_insert((0, index, key.id)).0 += 1;
        }
    }
    let finding = |((log, agency), (count, index, id)): ((String, AgencyAddress), (usize, u64, Digest))| {
        fail(
            KEYS,
            format!(
                "{log}, a peer's log of keys, holds {count} of {agency} that this gateway did not publish, the first at \
                 {index}: {id}"
            ),
            format!(
                "ask {agency} by telephone whether the key is its own; if it is not, that domain may read in its name: tell \
                 its administrator, and suspend it with `liaison-gateway peer suspend`"
            ),
        )
    };
    Ok(found.into_iter().map(finding).collect())
}
