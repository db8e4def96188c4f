//! Whether the heads of the logs are signed by this gateway, the tiles lead to them, and what waits for the next head was
//! staged by this gateway: what can be told at once. The rest, `log verify` tells.

use liaison_trust::names::Domain;

use super::{Finding, fail, ok};
use crate::{
    data::DataFolder,
    log::{LogError, log_key, verify},
    run::signing_key,
    store::{LogKind, Snapshot, Stager},
};

const CHECK: &str = "log";
const VERIFY: &str = "run `liaison-gateway log verify`";

pub(super) async fn examine(folder: &DataFolder, domain: &Domain) -> Vec<Finding> {
    // Without a key and a database there is nothing to look at, which other checks have told.
    let Ok(gateway) = signing_key(folder) else { return Vec::new() };
    let Ok(mut snapshot) = Snapshot::of(&folder.database()).await else { return Vec::new() };
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
        for head in logs {
            let finding = async {
                let key = log_key(domain, kind, head.number, &gateway)?;
                let mut faults = verify::Faults::default();
                let signed = verify::examine_head(&mut snapshot, &head, &key, &mut faults).await?;
                verify::examine_staged(&mut snapshot, &head, (&key, &stager), &mut faults).await?;
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
    findings
}
