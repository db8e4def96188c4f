//! `liaison-agent keys`

use clap::{Args, Subcommand};
use liaison_proto::{
    case::v1::{AgencyKeys, ConfirmKeysRequest, ListKeysRequest, agency_keys::Code as State},
    json,
    limits::CASE_PAGE,
};

use super::{Context, client, say, table};

/// List other agencies' keys as the domain's log has them, or confirm an agency's fingerprint.
#[derive(Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Go by the keys of an agency that have this fingerprint, and send what waits for it: only after comparing it with
    /// the agency, such as by telephone
    Confirm {
        /// The agency's address.
        agency: String,
        /// As the agency read it out, 64 hexadecimal digits; spaces do not count.
        #[arg(num_args = 1.., required = true)]
        fingerprint: Vec<String>,
    },
}

impl Keys {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut client = client::connect(&context.folder).await?;
        let keys = match self.command {
            Some(Command::Confirm { agency, fingerprint }) => {
                let request = ConfirmKeysRequest { agency, fingerprint: fingerprint.concat() };
                let confirmed =
                    client.confirm_keys(request).await.map_err(|status| client::refused(&status))?;
                vec![confirmed.into_inner()]
            }
            None => all(&mut client).await?,
        };
        if context.json {
            let keys = keys.iter().map(json::to_value).collect::<Result<Vec<_>, _>>()?;
            say(serde_json::Value::from(keys))?;
            return Ok(());
        }
        let rows: Vec<_> = keys.iter().flat_map(rows).collect();
        table::print(["AGENCY", "STATE", "RECORDS", "FINGERPRINT"], &rows)?;
        Ok(())
    }
}

async fn all(client: &mut client::Client) -> anyhow::Result<Vec<AgencyKeys>> {
    let (mut keys, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = client.list_keys(ListKeysRequest { page_size: CASE_PAGE, page_token }).await;
        let page = page.map_err(|status| client::refused(&status))?.into_inner();
        keys.extend(page.keys);
        if page.next_page_token.is_empty() {
            return Ok(keys);
        }
        page_token = page.next_page_token;
    }
}

/// A row for the keys that this agent goes by, and one for each other fingerprint that the log holds.
fn rows(keys: &AgencyKeys) -> Vec<[String; 4]> {
    let row = |state: &str, records: String, fingerprint: &str| {
        [keys.agency.clone(), state.to_owned(), records, fingerprint.to_owned()]
    };
    let other = if keys.state() == State::Broken { "other" } else { "set aside" };
    let own = row(keys.state().as_str_name(), keys.records.to_string(), &keys.fingerprint);
    std::iter::once(own).chain(keys.others.iter().map(|id| row(other, String::new(), id))).collect()
}
