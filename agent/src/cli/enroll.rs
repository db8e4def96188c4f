//! `liaison-agent enroll`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::Context;
use crate::{
    config::{HostPort, Proxy},
    enrol::{Token, Wishes, enrol},
};

/// What `enroll` is given.
#[derive(Args)]
pub(super) struct Enroll {
    /// The token that the domain's administrator sent
    #[arg(required_unless_present = "token_file", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token, so that it is not seen in the list of processes
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Where the case API listens for gRPC [default: 127.0.0.1:7410]
    #[arg(long)]
    grpc: Option<SocketAddr>,
    /// Where the case API listens for REST [default: 127.0.0.1:7411]
    #[arg(long)]
    rest: Option<SocketAddr>,
    /// The HTTP proxy on the way to the gateway, http://host:port
    #[arg(long)]
    proxy: Option<Proxy>,
    /// Where the gateway is, host:port, if not where the token says
    #[arg(long)]
    gateway: Option<HostPort>,
}

impl Enroll {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let text = match (self.token, self.token_file) {
            (Some(token), _) => Zeroizing::new(token),
            (None, Some(file)) => Zeroizing::new(
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?,
            ),
            (None, None) => anyhow::bail!("give a token or --token-file"),
        };
        let token: Token = text.parse()?;
        let wishes = Wishes { gateway: self.gateway, grpc: self.grpc, rest: self.rest, proxy: self.proxy };
        let enrolled = enrol(&context.folder, &token, wishes).await?;
        let expires = enrolled.certificate_expires.format(&Rfc3339)?;
        if context.json {
            let answer = serde_json::json!({
                "agency": enrolled.agency.to_string(),
                "certificateExpires": expires,
                "fingerprint": enrolled.fingerprint.to_string(),
            });
            println!("{answer}");
        } else {
            println!("This is now the agent of {}.", enrolled.agency);
            println!("Its certificate expires {expires} and renews itself while the agent runs.");
            println!("Fingerprint of its keys: {}", enrolled.fingerprint);
            println!("Start it: liaison-agent --data {} run", context.folder.path().display());
        }
        Ok(())
    }
}
