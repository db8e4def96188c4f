//! `liaison-agent inbox`

use clap::Args;
use liaison_proto::{
    case::v1::{
        Alert, GetAlertRequest, GetReferralRequest, ListAlertsRequest, ListReferralsRequest, Referral,
        direction::Code as Direction,
    },
    json,
    message::v1::status::Code as Status,
    times,
};
use prost_types::Timestamp;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;

use super::{Context, client, say, table};

/// List what was received, newest first, or show one message with its sections.
#[derive(Args)]
pub(super) struct Inbox {
    /// The id of a referral or an alert: shows it whole, as JSON.
    id: Option<String>,
    /// List exercises instead of real traffic.
    #[arg(long)]
    exercise: bool,
    /// Entries of each kind, 1 to 100.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
}

impl Inbox {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut client = client::connect(&context.folder).await?;
        match &self.id {
            Some(id) => show(&mut client, id).await,
            None => self.list(context, &mut client).await,
        }
    }

    async fn list(&self, context: &Context, client: &mut client::Client) -> anyhow::Result<()> {
        let status = if self.exercise { Status::Exercise } else { Status::Actual };
        let referrals = ListReferralsRequest {
            direction: Direction::Received.into(),
            status: status.into(),
            page_size: self.limit,
            page_token: String::new(),
        };
        let referrals = client.list_referrals(referrals).await.map_err(|status| client::refused(&status))?;
        let alerts = ListAlertsRequest {
            direction: Direction::Received.into(),
            status: status.into(),
            page_size: self.limit,
            page_token: String::new(),
        };
        let alerts = client.list_alerts(alerts).await.map_err(|status| client::refused(&status))?;
        let (referrals, alerts) = (referrals.into_inner().referrals, alerts.into_inner().alerts);
        if context.json {
            let referrals = referrals.iter().map(json::to_value).collect::<Result<Vec<_>, _>>()?;
            let alerts = alerts.iter().map(json::to_value).collect::<Result<Vec<_>, _>>()?;
            say(serde_json::json!({ "referrals": referrals, "alerts": alerts }))?;
            return Ok(());
        }
        let rows: Vec<_> = referrals.iter().map(referral_row).chain(alerts.iter().map(alert_row)).collect();
        table::print(["RECEIVED", "KIND", "FROM", "STATE", "URGENCY", "ID"], &rows)?;
        Ok(())
    }
}

async fn show(client: &mut client::Client, id: &str) -> anyhow::Result<()> {
    let referral = client.get_referral(GetReferralRequest { id: id.to_owned() }).await;
    let shown: Value = match referral {
        Ok(referral) => json::to_value(referral.get_ref())?,
        Err(status) if status.code() == tonic::Code::NotFound => {
            let alert = client.get_alert(GetAlertRequest { id: id.to_owned() }).await;
            json::to_value(alert.map_err(|status| client::refused(&status))?.get_ref())?
        }
        Err(status) => return Err(client::refused(&status)),
    };
    say(format_args!("{shown:#}"))?;
    Ok(())
}

fn referral_row(referral: &Referral) -> [String; 6] {
    [
        moment(referral.created.as_ref()),
        "referral".to_owned(),
        referral.from.clone(),
        referral.state().as_str_name().to_owned(),
        referral.urgency().as_str_name().to_owned(),
        referral.id.clone(),
    ]
}

fn alert_row(alert: &Alert) -> [String; 6] {
    [
        moment(alert.created.as_ref()),
        alert.kind().as_str_name().to_owned(),
        alert.from.clone(),
        String::new(),
        alert.urgency().as_str_name().to_owned(),
        alert.id.clone(),
    ]
}

pub(super) fn moment(at: Option<&Timestamp>) -> String {
    let at = at.and_then(times::from_wire).and_then(|at| at.replace_nanosecond(0).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
