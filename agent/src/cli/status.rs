//! `liaison-agent status`

use clap::Args;
use liaison_proto::{case::v1::GetStatusRequest, json};

use super::{Context, client, inbox::moment};

/// Say how the running agent stands; fails while it is not connected to its gateway.
#[derive(Args)]
pub(super) struct Status {}

impl Status {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut client = client::connect(&context.folder).await?;
        let status = client.get_status(GetStatusRequest {}).await;
        let status = status.map_err(|status| client::refused(&status))?.into_inner();
        if context.json {
            println!("{}", json::to_value(&status)?);
        } else {
            println!("agency               {}", status.agency);
            println!("version              {}", status.version);
            println!("connected            {}", if status.connected { "yes" } else { "no" });
            println!("certificate expires  {}", moment(status.certificate_expires.as_ref()));
            println!("outbox               {}", status.outbox);
            println!("received referrals   {}", status.received_referrals);
            println!("received alerts      {}", status.received_alerts);
        }
        anyhow::ensure!(status.connected, "{}", status.problem);
        Ok(())
    }
}
