//! Whether a gateway with many messages behind it carries as much as one with none.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Args, value_parser};
use liaison_demo::Programs;
use serde_json::json;

use crate::{
    gateway::GatewayAlone,
    limits,
    round::Load,
    system::Ground,
    turns::{self, Side},
};

/// How many.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Messages that were acknowledged before
    #[arg(long, default_value_t = 10_000_000, value_parser = value_parser!(u64).range(limits::SEEDED))]
    messages: u64,
}

/// Runs it and prints what it came to.
pub(crate) async fn run(options: &Options, load: Load, json: bool) -> Result<()> {
    let (programs, ground) = (Programs::beside_this_one()?, Ground::new()?);
    let folder = ground.folder("empty")?;
    let disk = rustix::fs::statvfs(&folder)?;
    let (free, needed) = (disk.f_bavail * disk.f_frsize, options.messages * limits::SEEDED_BYTES);
    ensure!(free > needed, "{needed} bytes of disk are needed and {free} are free: lower --messages");
    let mut empty = GatewayAlone::start(&programs, &folder, load.connections).await?;
    let mut grown = GatewayAlone::start(&programs, &ground.folder("grown")?, load.connections).await?;
    for gateway in [&mut empty, &mut grown] {
        gateway.closed(&load, 1).await?;
    }
    let since = Instant::now();
    grown.seed(options.messages).await?;
    let about = json!({
        "messages": options.messages,
        "seeded_in_s": since.elapsed().as_secs(),
        "disk_bytes": grown.watched()?.used()?.disk,
    });
    eprintln!("{about}");
    let (empty, grown) = (Side::new("gateway_empty", empty), Side::new("gateway_grown", grown));
    turns::tell((empty, grown), about, &load, json).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::Pace;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_seeded_is_what_a_gateway_would_have_kept() {
        let (programs, folder) = (Programs::beside_this_one().unwrap(), tempfile::tempdir().unwrap());
        let load = Load { pace: Pace::Closed, connections: 2, in_flight: 4, lasts: limits::WARM_UP };
        let mut gateway = GatewayAlone::start(&programs, folder.path(), 2).await.unwrap();
        gateway.closed(&load, 0).await.unwrap();
        gateway.seed(10_000).await.unwrap();
        // It carries on from there.
        gateway.closed(&load, 0).await.unwrap();
        gateway.stop().await.unwrap();
        let told = gateway.gateway().command(&["--json", "log", "verify"]).await.unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert!(told["messages"].as_u64().unwrap() > 10_000, "{told}");
    }
}
