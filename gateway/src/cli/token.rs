//! `token`: what lets an agency's agent enrol.

use clap::{Args, Subcommand};
use liaison_proto::admin::v1::CreateTokenRequest;
use liaison_trust::names::AgencyAddress;
use serde_json::json;

use super::{
    output::{Output, moment},
    refused,
};
use crate::{admin::connect, data::DataFolder, limits};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token with which one agent of this agency can enrol, once. It is shown now and never
    /// again: hand it to the agency's IT by a way that you trust
    Create(Create),
}

/// A new token.
#[derive(Debug, Args)]
pub struct Create {
    /// The agency's address, such as be/shelter-antwerp
    #[arg(value_name = "ADDRESS")]
    agency: AgencyAddress,
    /// How long it can be used, hours
    #[arg(long, default_value_t = limits::TOKEN_HOURS, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TOKEN_HOURS_MAX)))]
    hours: u32,
}

pub(super) async fn execute(folder: &DataFolder, command: Command, output: Output) -> anyhow::Result<()> {
    let Command::Create(Create { agency, hours }) = command;
    let mut gateway = connect(folder).await?;
    let request = CreateTokenRequest { agency: agency.to_string(), hours };
    let answer = gateway.create_token(request).await.map_err(refused)?.into_inner();
    let json = json!({
        "token": answer.token,
        "agency": agency.to_string(),
        "expires": moment(answer.expires.as_ref()),
    });
    output.print(&json, || answer.token)?;
    Ok(())
}
