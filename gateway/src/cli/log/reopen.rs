//! `log reopen`

use serde_json::json;
use time::OffsetDateTime;

use super::{super::Failure, Output};
use crate::{
    config::Config,
    data::DataFolder,
    log::reopen::{Reopened, reopen},
    run::signing_key,
    store::{Act, Company, Store},
};

pub(super) async fn execute(folder: &DataFolder, output: Output) -> anyhow::Result<()> {
    let config = Config::load(&folder.config())?;
    let _alone = folder.lock()?;
    let signing = signing_key(folder)?;
    let store = Store::open(&config.database(folder), Company::None, config.limits.queue(), &signing).await?;
    let act = Act {
        at: OffsetDateTime::now_utc(),
        actor: "log reopen",
        act: "reopen_log",
        subject: config.domain.as_str(),
    };
    let reopened = reopen(folder, (&store, &config.domain, &signing), act).await;
    store.close().await;
    let reopened = reopened?;
    if reopened.is_empty() {
        let message = "the database holds every head that is known: there is nothing to open anew";
        return Err(Failure::failed("nothing_to_reopen", message, "run the gateway as it is").into());
    }
    let told = |log: &Reopened| {
        let (origin, size) = &log.before;
        json!({"origin": log.origin, "before": {"origin": origin, "size": size}})
    };
    output.print(&json!({"logs": reopened.iter().map(told).collect::<Vec<_>>()}), || {
        let line = |log: &Reopened| {
            let (origin, size) = &log.before;
            format!("{} takes the place of {origin}, of which {size} leaves were signed", log.origin)
        };
        let mut lines: Vec<_> = reopened.iter().map(line).collect();
        lines.push("Run the gateway: agents offer again what no recipient has signed for.".to_owned());
        lines.join("\n")
    })?;
    Ok(())
}
