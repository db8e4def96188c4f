//! Every service of the contracts is served where it belongs, and tells of itself by reflection and
//! health.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use liaison_proto::POOL;
use liaison_tests::{Realm, call, insider, names::HOSPITAL, policies};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

#[tokio::test]
async fn every_service_answers_reflection_and_health() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL]).await?;
    let trust = insider::trust(&realm.gateway)?;
    let mut served = BTreeSet::new();
    for channel in [
        insider::connect(realm.gateway.exchange(), &trust, None).await?,
        insider::connect(realm.gateway.federation(), &trust, None).await?,
        call::admin(&realm.gateway).await?,
        call::plain(realm.agent(HOSPITAL)?)?,
    ] {
        for service in services(&channel).await? {
            if !service.starts_with("liaison.") {
                continue;
            }
            let request = HealthCheckRequest { service: service.clone() };
            let health = HealthClient::new(channel.clone()).check(request).await;
            let health = health.with_context(|| format!("the health of {service}"))?.into_inner();
            assert_eq!(health.status(), ServingStatus::Serving, "{service}");
            served.insert(service);
        }
    }
    let contracts: BTreeSet<String> = POOL.services().map(|service| service.full_name().to_owned()).collect();
    assert_eq!(served, contracts);
    Ok(())
}

async fn services(channel: &Channel) -> Result<Vec<String>> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::once(request))
        .await?
        .into_inner();
    let answer = answers.message().await?.context("no answer")?;
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => bail!("not a list of services: {other:?}"),
    }
}
