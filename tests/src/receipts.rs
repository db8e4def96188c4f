//! Receipts as agencies keep them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Agent, wait};
use liaison_proto::{
    case::v1::{
        GetStatusRequest, ListReceiptsRequest, LogAlarm, LogStatus, Receipt, receipt_event::Code as Event,
    },
    limits::CASE_PAGE,
};

use crate::call;

/// Receipts come within this time of their event.
pub const IN_TIME: Duration = Duration::from_secs(5);

/// The receipts that an agency has of a message.
pub async fn of(agent: &Agent, id: &str) -> Result<Vec<Receipt>> {
    let mut case = call::case(agent)?;
    let (mut receipts, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListReceiptsRequest { id: id.to_owned(), page_size: CASE_PAGE, page_token };
        let page = case.list_receipts(request).await?.into_inner();
        receipts.extend(page.receipts);
        if page.next_page_token.is_empty() {
            return Ok(receipts);
        }
        page_token = page.next_page_token;
    }
}

/// Waits until an agency has the receipts of these events of a message, in the order of the log.
pub async fn come(agent: &Agent, id: &str, events: &[Event], limit: Duration) -> Result<Vec<Receipt>> {
    let mut last = Vec::new();
    wait::within(limit, &format!("{} has the receipts of {id}", agent.agency), async || {
        let receipts = of(agent, id).await.ok()?;
        last = receipts.iter().map(Receipt::event).collect();
        (last == events).then_some(receipts)
    })
    .await
    .with_context(|| format!("it has those of {last:?} instead of {events:?}"))
}

/// What an agency knows of the log.
pub async fn log(agent: &Agent) -> Result<LogStatus> {
    let status = call::case(agent)?.get_status(GetStatusRequest {}).await?.into_inner();
    status.log.context("the status tells nothing of the log")
}

/// Waits until an agency has raised an alarm.
pub async fn alarm(agent: &Agent) -> Result<LogAlarm> {
    wait::until(&format!("{} raises an alarm", agent.agency), async || {
        log(agent).await.ok()?.alarms.into_iter().next()
    })
    .await
}

/// Waits until nothing is due at an agency any more, and checks that it raised no alarm.
pub async fn complete(agent: &Agent) -> Result<LogStatus> {
    let status = wait::until(&format!("{} has all its receipts", agent.agency), async || {
        log(agent).await.ok().filter(|log| log.due == 0)
    })
    .await?;
    ensure!(status.alarms.is_empty(), "{} raised alarms: {:?}", agent.agency, status.alarms);
    Ok(status)
}

/// Writes receipts into files of a folder.
pub fn write(folder: &Path, receipts: &[Receipt]) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let file = |receipt: &Receipt| {
        let name = format!("{}-{}.tlog-proof", receipt.log.replace('/', "-"), receipt.index);
        let path = folder.join(name);
        fs::write(&path, &receipt.file)?;
        Ok(path)
    };
    receipts.iter().map(file).collect()
}
