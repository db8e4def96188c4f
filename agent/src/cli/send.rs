//! `liaison-agent send FILE`

use std::{io::Read, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use liaison_proto::{
    case::v1::{PreviewRequest, Referral, SendAlertResponse, SendReferralResponse, preview_request::Message},
    json, limits as wire,
    message::v1::referral_state::Code as State,
};
use tonic::Request;

use super::{Context, client, say, table};
use crate::case::caller::IDEMPOTENCY_KEY;

/// Send a referral or an alert that stands in a JSON file.
#[derive(Args)]
pub(super) struct Send {
    /// A file that holds {"referral": {..}} or {"alert": {..}}, as the REST API takes them; - for the
    /// standard input.
    file: PathBuf,
    /// Lets the command be repeated: the same key with the same file sends once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Send {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        // A preview takes exactly what this command takes.
        let message = json::from_slice::<PreviewRequest>(&self.read()?)?.message.context(
            "the file holds neither a referral nor an alert; write {\"referral\": {..}} or {\"alert\": {..}}",
        )?;
        let mut client = client::connect(&context.folder).await?;
        match message {
            Message::Referral(referral) => {
                let answer = client.send_referral(self.request(referral)?).await;
                let answer = answer.map_err(|status| client::refused(&status))?.into_inner();
                show_referrals(context, &answer)
            }
            Message::Alert(alert) => {
                let answer = client.send_alert(self.request(alert)?).await;
                let answer = answer.map_err(|status| client::refused(&status))?.into_inner();
                show_alert(context, &answer)
            }
        }
    }

    fn read(&self) -> anyhow::Result<Vec<u8>> {
        let name = || self.file.display().to_string();
        let source: Box<dyn Read> = if self.file.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(
                std::fs::File::open(&self.file)
                    .with_context(|| format!("can't read {}; give the right file", name()))?,
            )
        };
        let most = wire::CASE_REQUEST_BYTES;
        let mut text = Vec::new();
        source.take(most as u64 + 1).read_to_end(&mut text).with_context(name)?;
        anyhow::ensure!(text.len() <= most, "the file is larger than {most} bytes");
        Ok(text)
    }

    fn request<M>(&self, message: M) -> anyhow::Result<Request<M>> {
        let mut request = Request::new(message);
        if let Some(key) = &self.idempotency_key {
            let key = key.parse().context("an idempotency key is ASCII text")?;
            request.metadata_mut().insert(IDEMPOTENCY_KEY, key);
        }
        Ok(request)
    }
}

fn show_referrals(context: &Context, answer: &SendReferralResponse) -> anyhow::Result<()> {
    if context.json {
        say(json::to_value(answer)?)?;
        return Ok(());
    }
    let row = |referral: &Referral| {
        [referral.id.clone(), referral.to.clone(), referral.state().as_str_name().to_owned()]
    };
    table::print(["ID", "TO", "STATE"], &answer.referrals.iter().map(row).collect::<Vec<_>>())?;
    Ok(())
}

fn show_alert(context: &Context, answer: &SendAlertResponse) -> anyhow::Result<()> {
    if context.json {
        say(json::to_value(answer)?)?;
        return Ok(());
    }
    let alert = answer.alert.clone().unwrap_or_default();
    say(alert.id)?;
    let rows: Vec<_> = alert
        .deliveries
        .iter()
        .map(|delivery| {
            let rule = delivery.decision.as_ref().and_then(|decision| decision.rule.as_ref());
            let why = rule.filter(|_| delivery.state() == State::Refused);
            let why = why.map(|rule| format!("{}: {}", rule.rule, rule.explain)).unwrap_or_default();
            [delivery.agency.clone(), delivery.state().as_str_name().to_owned(), why]
        })
        .collect();
    table::print(["TO", "STATE", "WHY"], &rows)?;
    Ok(())
}
