//! `liaison-agent enroll`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::{Context, say};
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
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the case API listens for gRPC [default: 127.0.0.1:7410]
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<SocketAddr>,
    /// Where the case API listens for REST [default: 127.0.0.1:7411]
    #[arg(long, value_name = "ADDRESS")]
    rest: Option<SocketAddr>,
    /// The HTTP proxy on the way to the gateway, http://host:port
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,
    /// Where the gateway is, host:port, if not where the token says
    #[arg(long, value_name = "HOST:PORT")]
    gateway: Option<HostPort>,
}

impl Enroll {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let text = match (self.token, self.token_file) {
            (Some(token), _) => Zeroizing::new(token),
            (None, Some(file)) => Zeroizing::new(std::fs::read_to_string(&file).with_context(|| {
                format!("can't read the token file {}; give the right one", file.display())
            })?),
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
            say(answer)?;
        } else {
            say(format_args!("This is now the agent of {}.", enrolled.agency))?;
            say(format_args!("Its certificate expires {expires} and renews itself while the agent runs."))?;
            say(format_args!("Fingerprint of its keys: {}", enrolled.fingerprint))?;
            say(format_args!("Start it: liaison-agent --data {} run", context.folder.path().display()))?;
        }
        Ok(())
    }
}
