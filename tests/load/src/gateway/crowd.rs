//! Many agencies with genuine keys and certificates.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use liaison_demo::Gateway;
use liaison_proto::{
    admin::v1::{AddAgencyRequest, CreateTokenRequest, admin_service_client::AdminServiceClient},
    message::v1::sector::Code as Sector,
};
use liaison_tests::{call, insider::Insider};
use tonic::transport::Channel;

use crate::limits;

/// Makes so many agencies members and enrols them, at once over one connection to the gateway's administration.
pub(crate) async fn enrol(gateway: &Gateway, count: usize) -> Result<Vec<Insider>> {
    let admin = AdminServiceClient::new(call::admin(gateway).await?);
    let all = stream::iter(0..count).map(|number| one(gateway, admin.clone(), number));
    all.buffered(limits::ENROLLING).try_collect().await
}

async fn one(gateway: &Gateway, mut admin: AdminServiceClient<Channel>, number: usize) -> Result<Insider> {
    let address = format!("be/crowd-{number}");
    let agency = AddAgencyRequest {
        address: address.clone(),
        name: "Agency of the crowd".to_owned(),
        country: "be".to_owned(),
        sectors: vec![Sector::Ngo.into()],
        groups: vec!["network".to_owned()],
        services: None,
    };
    admin.add_agency(agency).await?;
    let token = CreateTokenRequest { agency: address.clone(), hours: 0 };
    let token = admin.create_token(token).await?.into_inner().token;
    // A gateway takes only so many attempts from one address.
    let network = u8::try_from(number / limits::ENROLLED_FROM_ONE).context("too many agencies")?;
    Insider::enrol_with(gateway, &address, token, Ipv4Addr::new(127, 0, 1, network)).await
}
