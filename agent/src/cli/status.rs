//! `liaison-agent status`

use clap::Args;
use liaison_proto::{case::v1::GetStatusRequest, json};

use super::{Context, client, inbox::moment, say};

/// Say how the running agent stands; fails while it is not connected to its gateway.
#[derive(Args)]
pub(super) struct Status {}

impl Status {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut client = client::connect(&context.folder).await?;
        let status = client.get_status(GetStatusRequest {}).await;
        let status = status.map_err(|status| client::refused(&status))?.into_inner();
        if context.json {
            say(json::to_value(&status)?)?;
        } else {
            let connected = if status.connected { "yes" } else { "no" };
            say(format_args!("agency               {}", status.agency))?;
            say(format_args!("version              {}", status.version))?;
            say(format_args!("connected            {connected}"))?;
            say(format_args!("certificate expires  {}", moment(status.certificate_expires.as_ref())))?;
            say(format_args!("outbox               {}", status.outbox))?;
            say(format_args!("received referrals   {}", status.received_referrals))?;
            say(format_args!("received alerts      {}", status.received_alerts))?;
            let log = status.log.unwrap_or_default();
            say(format_args!("log of evidence      {} with {} leaves {}", log.origin, log.size, log.root))?;
            say(format_args!("receipts to come     {}", log.due))?;
            for alarm in &log.alarms {
                let kind = alarm.kind().as_str_name();
                say(format_args!(
                    "alarm of the log     {} {kind}: {}",
                    moment(alarm.at.as_ref()),
                    alarm.detail
                ))?;
            }
        }
        anyhow::ensure!(status.connected, "{}", status.problem);
        Ok(())
    }
}
