//! `agency`: the domain's agencies.

use std::fmt::Write;

use clap::{Args, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser};
use liaison_proto::{
    admin::v1::{AddAgencyRequest, AgencyRequest, AgencyStatus, DescribeAgencyRequest, ListAgenciesRequest},
    exchange::v1::Services,
    message::v1::{age_band::Code as AgeBand, sector::Code as Sector, service_type::Code as ServiceType},
};
use liaison_trust::names::AgencyAddress;
use serde_json::{Value, json};

use super::{
    output::{Output, moment, table},
    refused,
};
use crate::{admin::connect, data::DataFolder};

/// What to do with agencies.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add an agency; `token create` then lets its agent enrol
    Add(Add),
    /// List all agencies, and which are connected to this gateway
    List,
    /// Show one agency
    Show(Address),
    /// Say what an agency offers, in place of what was said before; nothing at all clears it
    Describe(Describe),
    /// Stop an agency's traffic at once, until it is resumed; its queue is kept
    Suspend(Address),
    /// Let a suspended agency's traffic flow again
    Resume(Address),
    /// End an agency's membership for good: its certificates are revoked, its connections closed and
    /// what waits for it goes back to the senders
    Revoke(Address),
}

/// A new agency.
#[derive(Debug, Args)]
pub struct Add {
    /// Its address, such as be/shelter-antwerp
    #[arg(value_name = "ADDRESS")]
    address: AgencyAddress,
    /// Its name, for people
    #[arg(long)]
    name: String,
    /// Its country, ISO 3166-1 alpha-2, such as be
    #[arg(long, value_name = "CC")]
    country: String,
    /// A sector that it works in; repeat for several
    #[arg(long = "sector", required = true, value_name = "SECTOR", value_parser = sector())]
    sectors: Vec<Sector>,
    /// A named group that it belongs to; repeat for several
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    offers: Offers,
}

/// What an agency is said to offer.
#[derive(Debug, Args)]
pub struct Describe {
    /// Its address, such as be/shelter-antwerp
    #[arg(value_name = "ADDRESS")]
    address: AgencyAddress,
    #[command(flatten)]
    offers: Offers,
}

/// What an agency offers to those who are referred to it.
#[derive(Debug, Args)]
pub struct Offers {
    /// A service that it offers; repeat for several
    #[arg(long = "service", value_name = "TYPE", value_parser = service())]
    services: Vec<ServiceType>,
    /// A language that people can be served in, ISO 639, such as hu; repeat for several
    #[arg(long = "language", value_name = "LANGUAGE")]
    languages: Vec<String>,
    /// An age that it serves; repeat for several, none for all ages
    #[arg(long = "age", value_name = "BAND", value_parser = age())]
    ages: Vec<AgeBand>,
}

impl From<Offers> for Services {
    fn from(Offers { services, languages, ages }: Offers) -> Self {
        Self {
            types: services.into_iter().map(i32::from).collect(),
            languages,
            ages: ages.into_iter().map(i32::from).collect(),
        }
    }
}

/// One agency.
#[derive(Debug, Args)]
pub struct Address {
    /// Its address, such as be/shelter-antwerp
    #[arg(value_name = "ADDRESS")]
    address: AgencyAddress,
}

impl From<Address> for AgencyRequest {
    fn from(Address { address }: Address) -> Self {
        Self { address: address.to_string() }
    }
}

/// Reads a sector by its name in the contracts, and lists the names in the help.
fn sector() -> impl TypedValueParser<Value = Sector> {
    let known = (1..).map_while(|number| Sector::try_from(number).ok());
    PossibleValuesParser::new(known.map(|sector| sector.as_str_name()))
        .try_map(|name| Sector::from_str_name(&name).ok_or("unknown sector"))
}

/// The same for the types of services.
fn service() -> impl TypedValueParser<Value = ServiceType> {
    let known = (1..).map_while(|number| ServiceType::try_from(number).ok());
    PossibleValuesParser::new(known.map(|service| service.as_str_name()))
        .try_map(|name| ServiceType::from_str_name(&name).ok_or("unknown service"))
}

/// The same for ages.
fn age() -> impl TypedValueParser<Value = AgeBand> {
    let known = (1..).map_while(|number| AgeBand::try_from(number).ok());
    PossibleValuesParser::new(known.map(|age| age.as_str_name()))
        .try_map(|name| AgeBand::from_str_name(&name).ok_or("unknown age"))
}

pub(super) async fn execute(folder: &DataFolder, command: Command, output: Output) -> anyhow::Result<()> {
    let mut gateway = connect(folder).await?;
    let answer = match command {
        Command::List => {
            let agencies =
                gateway.list_agencies(ListAgenciesRequest {}).await.map_err(refused)?.into_inner().agencies;
            let json = json!({"agencies": agencies.iter().map(to_json).collect::<Vec<_>>()});
            output.print(&json, || list(&agencies))?;
            return Ok(());
        }
        Command::Add(add) => {
            let request = AddAgencyRequest {
                address: add.address.to_string(),
                name: add.name,
                country: add.country,
                sectors: add.sectors.into_iter().map(i32::from).collect(),
                groups: add.groups,
                services: Some(add.offers.into()),
            };
            gateway.add_agency(request).await
        }
        Command::Describe(Describe { address, offers }) => {
            let request =
                DescribeAgencyRequest { address: address.to_string(), services: Some(offers.into()) };
            gateway.describe_agency(request).await
        }
        Command::Show(address) => gateway.show_agency(AgencyRequest::from(address)).await,
        Command::Suspend(address) => gateway.suspend_agency(AgencyRequest::from(address)).await,
        Command::Resume(address) => gateway.resume_agency(AgencyRequest::from(address)).await,
        Command::Revoke(address) => gateway.revoke_agency(AgencyRequest::from(address)).await,
    };
    let agency = answer.map_err(refused)?.into_inner();
    output.print(&to_json(&agency), || show(&agency))?;
    Ok(())
}

fn list(agencies: &[AgencyStatus]) -> String {
    if agencies.is_empty() {
        return "no agencies yet; add one with `liaison-gateway agency add`".to_owned();
    }
    let row = |agency: &AgencyStatus| {
        [
            agency.address.clone(),
            agency.state().as_str_name().to_owned(),
            if agency.connected { "yes" } else { "no" }.to_owned(),
            agency.queued.to_string(),
            agency.country.clone(),
            sectors(agency).join(","),
            agency.name.clone(),
        ]
    };
    table(
        ["ADDRESS", "STATE", "CONNECTED", "QUEUED", "COUNTRY", "SECTORS", "NAME"],
        &agencies.iter().map(row).collect::<Vec<_>>(),
    )
}

fn show(agency: &AgencyStatus) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| _ = writeln!(text, "{what:<20} {value}");
    line("address", &agency.address);
    line("name", &agency.name);
    line("state", agency.state().as_str_name());
    line("country", &agency.country);
    line("sectors", &sectors(agency).join(", "));
    line("groups", &agency.groups.join(", "));
    line("services", &services(agency).join(", "));
    line("languages", &languages(agency).join(", "));
    line("ages", &ages(agency).join(", "));
    line("connected", if agency.connected { "yes" } else { "no" });
    line("queued", &agency.queued.to_string());
    line("key records", &agency.key_records.to_string());
    line(
        "certificate expires",
        moment(agency.certificate_expires.as_ref()).as_deref().unwrap_or("none issued"),
    );
    text
}

fn to_json(agency: &AgencyStatus) -> Value {
    json!({
        "address": agency.address,
        "name": agency.name,
        "state": agency.state().as_str_name(),
        "country": agency.country,
        "sectors": sectors(agency),
        "groups": agency.groups,
        "services": services(agency),
        "languages": languages(agency),
        "ages": ages(agency),
        "connected": agency.connected,
        "queued": agency.queued,
        "key_records": agency.key_records,
        "certificate_expires": moment(agency.certificate_expires.as_ref()),
    })
}

fn sectors(agency: &AgencyStatus) -> Vec<&'static str> {
    agency.sectors().map(|sector| sector.as_str_name()).collect()
}

fn services(agency: &AgencyStatus) -> Vec<&'static str> {
    agency.services.iter().flat_map(Services::types).map(|service| service.as_str_name()).collect()
}

fn languages(agency: &AgencyStatus) -> &[String] {
    agency.services.as_ref().map_or(&[], |services| &services.languages)
}

fn ages(agency: &AgencyStatus) -> Vec<&'static str> {
    agency.services.iter().flat_map(Services::ages).map(|age| age.as_str_name()).collect()
}
