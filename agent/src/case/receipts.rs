//! What the case API tells of the domain's log of evidence.

use liaison_proto::{
    case::v1::{ListReceiptsRequest, ListReceiptsResponse, LogAlarm, LogStatus, Receipt},
    limits::CASE_PAGE,
    message::v1::{Refusal, error_code::Code as ErrorCode},
    times,
};
use liaison_trust::log::{Checkpoint, Note};

use super::parse;
use crate::{agent::Agent, store::KeptReceipt};

/// A page of the receipts of a message, sent or received.
pub(super) async fn list(
    agent: &Agent,
    request: ListReceiptsRequest,
) -> Result<ListReceiptsResponse, Refusal> {
    let (id, after, size) = parse::receipts_page(&request)?;
    if agent.store.message(id).await?.is_none() {
        return Err(Refusal::new(
            ErrorCode::UnknownMessage,
            "this agent has no message of this id",
            "give the id that the agent answered with, or list what there is",
        ));
    }
    // One more than is shown tells whether there is a next page.
    let mut receipts = agent.store.receipts(id, after, size + 1).await?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = receipts.len() > size;
    receipts.truncate(size);
    let last = receipts.last().filter(|_| more);
    let next_page_token = last.map(|last| format!("{}:{}", last.log, last.index)).unwrap_or_default();
    Ok(ListReceiptsResponse { receipts: receipts.into_iter().map(receipt).collect(), next_page_token })
}

/// What this agent knows of the log.
pub(super) async fn status(agent: &Agent) -> Result<LogStatus, Refusal> {
    let head = agent.store.log_head().await?;
    let head = head.and_then(|note| Note::parse(note.as_bytes()).ok()?.text().parse::<Checkpoint>().ok());
    let alarms = agent.store.alarms(CASE_PAGE).await?;
    let alarms = alarms.into_iter().map(|alarm| LogAlarm {
        kind: alarm.kind.into(),
        at: Some(times::to_wire(alarm.at)),
        detail: alarm.detail,
    });
    Ok(LogStatus {
        origin: head.as_ref().map(|head| head.origin().to_owned()).unwrap_or_default(),
        size: head.as_ref().map(Checkpoint::size).unwrap_or_default(),
        root: head.map(|head| head.root().to_string()).unwrap_or_default(),
        due: agent.store.receipts_to_come().await?,
        alarms: alarms.collect(),
    })
}

fn receipt(kept: KeptReceipt) -> Receipt {
    Receipt {
        event: kept.event.into(),
        at: Some(times::to_wire(kept.at)),
        recipient: kept.agency,
        log: kept.log,
        index: kept.index,
        file: kept.file,
    }
}
