//! Erasing records of the log where the law demands it. The tree keeps what it committed to.

use liaison_proto::{
    admin::v1::{EraseRecordsRequest, EraseRecordsResponse},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::log::log_number;
use time::OffsetDateTime;
use tracing::info;

use super::desk::{Desk, internal};
use crate::{
    limits,
    log::{ERASE, subject},
    store::{Act, Erasure, LogId},
};

impl Desk {
    /// Erases records of leaves about messages, all of them or none; each in an act of its own.
    pub(super) async fn erase(
        &self,
        request: EraseRecordsRequest,
        by: &str,
    ) -> Result<EraseRecordsResponse, Refusal> {
        let EraseRecordsRequest { indexes, log } = request;
        if indexes.is_empty() || indexes.len() > limits::LOG_ERASED {
            let message = format!("name 1 to {} leaves, not {}", limits::LOG_ERASED, indexes.len());
            return Err(Refusal::new(ErrorCode::Malformed, message, "see `liaison-gateway log show`"));
        }
        let _one_at_a_time = self.one_act().await?;
        let (log, size, origin) = self.log_of_evidence(&log).await?;
        let origin = origin.as_str();
        if let Some(index) = indexes.iter().find(|index| **index >= size) {
            return Err(Refusal::new(
                ErrorCode::UnknownMessage,
                format!("{origin} has no leaf {index} under its head of {size} leaves"),
                "look its index up with `liaison-gateway log show`; a new leaf is there within a second",
            ));
        }
        let subjects: Vec<_> = indexes.iter().map(|index| (*index, subject(origin, *index))).collect();
        let now = OffsetDateTime::now_utc();
        let act = |subject| Act { at: now, actor: by, act: ERASE, subject };
        let acts: Vec<_> = subjects.iter().map(|(index, subject)| (*index, act(subject))).collect();
        match self.gateway.store.erase_records(log, &acts).await.map_err(internal)? {
            Erasure::Done(erased) => {
                info!(by, records = erased.len(), "records of the log erased");
                Ok(EraseRecordsResponse { erased })
            }
            Erasure::UnderWay(index, until) => Err(Refusal::new(
                ErrorCode::TransitionNotAllowed,
                format!(
                    "leaf {index} of {origin} is about a message that is still on its way, until {} at the latest",
                    until.date()
                ),
                "erase it once all of its recipients have it or it has returned, as `liaison-gateway log show --message` \
                 tells; nothing was erased",
            )),
            Erasure::NoMessage(index) => Err(Refusal::new(
                ErrorCode::TransitionNotAllowed,
                format!("leaf {index} of {origin} is an act, about no message: it holds nothing of a person"),
                "name leaves about messages alone; nothing was erased",
            )),
        }
    }

    /// A log of evidence by its origin, the newest where that is empty; with the leaves under its head.
    async fn log_of_evidence(&self, origin: &str) -> Result<(LogId, u64, String), Refusal> {
        let newest = &self.gateway.logs.evidence;
        let own = newest.signer().key().name().as_str();
        let named = if origin.is_empty() { own } else { origin };
        let number = log_number(own).zip(log_number(named));
        let number = number.filter(|((own, _), (of, _))| own == of).map(|(_, (_, number))| number);
        let found = match number {
            Some(number) => newest.numbered(number).await.map_err(internal)?,
            None => None,
        };
        let (tree, head) = found.ok_or_else(|| {
            let message = format!("{origin} is no log of evidence that this gateway holds");
            Refusal::new(ErrorCode::UnknownMessage, message, "see `liaison-gateway log head --log`")
        })?;
        Ok((tree.id(), head.size, named.to_owned()))
    }
}
