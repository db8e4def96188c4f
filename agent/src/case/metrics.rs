//! What machines watch of an agent, in the text format of Prometheus: numbers of its status, and no message's.

use std::fmt::Write as _;

use liaison_proto::case::v1::{StatusResponse, log_alarm::Code as Alarm};

/// Every kind of alarm.
const ALARMS: [Alarm; 7] = [
    Alarm::Inconsistent,
    Alarm::WrongKey,
    Alarm::MissingRecord,
    Alarm::WrongRecord,
    Alarm::NewLog,
    Alarm::ForeignKey,
    Alarm::UnloggedKey,
];

/// The metrics of an agent whose status this is.
pub(super) fn text(status: &StatusResponse) -> String {
    let log = status.log.clone().unwrap_or_default();
    let expires = status.certificate_expires.map_or(0, |at| at.seconds);
    let mut text = String::new();
    for (name, help, value) in [
        ("connected", "Whether the gateway is connected: 1 or 0.", i64::from(status.connected)),
        ("certificate_expires_seconds", "When the certificate ends, seconds since 1970.", expires),
        ("outbox", "Messages that the gateway has not accepted.", number(status.outbox)),
        ("receipts_due", "Receipts that are to come yet.", number(log.due)),
        ("log_leaves", "Leaves under the highest head of the domain's log that was seen.", number(log.size)),
    ] {
        _ = write!(text, "# HELP liaison_agent_{name} {help}\n# TYPE liaison_agent_{name} gauge\n");
        _ = writeln!(text, "liaison_agent_{name} {value}");
    }
    text.push_str(
        "# HELP liaison_agent_log_alarms What an honest log does not do; 100 of all kinds at most.\n",
    );
    text.push_str("# TYPE liaison_agent_log_alarms gauge\n");
    for kind in ALARMS {
        let count = log.alarms.iter().filter(|alarm| alarm.kind() == kind).count();
        _ = writeln!(text, "liaison_agent_log_alarms{{kind=\"{}\"}} {count}", kind.as_str_name());
    }
    text
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use liaison_proto::case::v1::{LogAlarm, LogStatus};

    use super::*;

    #[test]
    fn every_alarm_is_counted_by_its_kind() {
        let alarm = |kind: Alarm| LogAlarm { kind: kind.into(), ..LogAlarm::default() };
        let alarms = vec![alarm(Alarm::NewLog), alarm(Alarm::Inconsistent), alarm(Alarm::NewLog)];
        let log = LogStatus { size: 7, alarms, ..LogStatus::default() };
        let status =
            StatusResponse { connected: true, outbox: 3, log: Some(log), ..StatusResponse::default() };
        let text = text(&status);
        for line in [
            "liaison_agent_connected 1",
            "liaison_agent_outbox 3",
            "liaison_agent_log_leaves 7",
            "liaison_agent_log_alarms{kind=\"new_log\"} 2",
            "liaison_agent_log_alarms{kind=\"inconsistent\"} 1",
            "liaison_agent_log_alarms{kind=\"wrong_key\"} 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        // A kind that is added to the contract is to be counted as well.
        assert!(Alarm::try_from(ALARMS.len() as i32 + 1).is_err(), "an alarm that no metric counts");
    }
}
