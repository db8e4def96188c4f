//! What was received from another domain goes onward only as its originator and every policy let it.

use anyhow::{Context, Result, bail};
use liaison_demo::{Agent, wait};
use liaison_proto::{
    case::v1::{
        AnswerOnwardRequestRequest, ListOnwardRequestsRequest, OnwardRequest, ReferOnwardRequest,
        ReferOnwardResponse, SendReferralRequest, direction, refer_onward_response::Outcome,
    },
    message::v1::{
        Handling, data_category::Code as Category, error_code::Code as ErrorCode, onward_step::Code as Step,
        police_handling::Code as Police, purpose::Code as Purpose, referral_state::Code as State,
    },
};
use liaison_tests::{
    Federation, call,
    federation::Setup,
    message,
    names::{HEALTH_HU, HOSPITAL, POLICE, SHELTER_HU},
    policies,
    realm::{BE, HU},
};

/// Received by a shelter abroad, and to go to a health service there.
const CATEGORIES: [Category; 3] = [Category::ServiceRequest, Category::Health, Category::Consent];

#[tokio::test]
async fn what_the_originator_denies_stays() -> Result<()> {
    let federation = start(policies::OPEN, &[HOSPITAL, SHELTER_HU, HEALTH_HU]).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let id = handed_over(&federation, Police::H2).await?;
    let Outcome::Request(asked) = onward(shelter, &id, HEALTH_HU).await? else { bail!("sent unasked") };
    // Asked again it is the same question.
    let Outcome::Request(again) = onward(shelter, &id, HEALTH_HU).await? else { bail!("sent unasked") };
    assert_eq!(again.id, asked.id);
    let question = request(hospital, direction::Code::Received, Step::Asked).await?;
    answer(hospital, &question.id, Step::Denied).await?;
    request(shelter, direction::Code::Sent, Step::Denied).await?;
    assert_eq!(refused_onward(shelter, &id, HEALTH_HU).await?, ErrorCode::OnwardForbidden);
    assert!(call::received_ids(federation.agent(HEALTH_HU)?).await?.is_empty());
    federation.sound().await
}

#[tokio::test]
async fn what_needs_no_permission_goes_back_over_the_border() -> Result<()> {
    let federation = start(policies::OPEN, &[HOSPITAL, POLICE, SHELTER_HU]).await?;
    let shelter = federation.agent(SHELTER_HU)?;
    let id = handed_over(&federation, Police::H1).await?;
    let Outcome::Referral(sent) = onward(shelter, &id, POLICE).await? else { bail!("it was asked for") };
    let received = call::received(federation.agent(POLICE)?, &sent.id).await?;
    assert_eq!(received.from, SHELTER_HU, "it comes from who refers, not from where it came");
    let seen = call::referral_in(shelter, &sent.id, State::Received).await?;
    let domains: Vec<&str> = seen.parts.iter().map(|part| part.domain.as_str()).collect();
    assert_eq!(domains, ["hu", "be"]);
    federation.sound().await
}

#[tokio::test]
async fn what_policy_keeps_from_going_onward_stays() -> Result<()> {
    let closed = policies::OPEN.replace(r#"Action::"onward_share", "#, "");
    let federation = start(&closed, &[HOSPITAL, SHELTER_HU, HEALTH_HU]).await?;
    let shelter = federation.agent(SHELTER_HU)?;
    let id = handed_over(&federation, Police::H1).await?;
    assert_eq!(refused_onward(shelter, &id, HEALTH_HU).await?, ErrorCode::OnwardForbidden);
    assert!(call::received_ids(federation.agent(HEALTH_HU)?).await?.is_empty());
    federation.sound().await
}

async fn start(scheme: &str, agencies: &[&str]) -> Result<Federation> {
    Federation::start(&Setup { domains: &[BE, HU], scheme, layers: &[], agencies }).await
}

/// A referral of these categories, at its recipient; its id.
async fn handed_over(federation: &Federation, police: Police) -> Result<String> {
    let handling = Handling { police: police.into(), ..Handling::default() };
    let request = SendReferralRequest { handling: Some(handling), ..message::small_referral(SHELTER_HU) };
    federation.send_one(HOSPITAL, request).await
}

fn request_for(id: &str, to: &str) -> ReferOnwardRequest {
    ReferOnwardRequest {
        id: id.to_owned(),
        to: to.to_owned(),
        categories: CATEGORIES.map(i32::from).to_vec(),
        purpose: Purpose::VictimSupport.into(),
        consent: Some(message::consent(&[to], &CATEGORIES)),
        ..ReferOnwardRequest::default()
    }
}

async fn onward(agent: &Agent, id: &str, to: &str) -> Result<Outcome> {
    let ReferOnwardResponse { outcome } =
        call::case(agent)?.refer_onward(request_for(id, to)).await?.into_inner();
    outcome.context("an empty answer")
}

async fn refused_onward(agent: &Agent, id: &str, to: &str) -> Result<ErrorCode> {
    call::refused(call::case(agent)?.refer_onward(request_for(id, to)).await).context("it was not refused")
}

/// Waits until an agency sees its only request at a step.
async fn request(agent: &Agent, direction: direction::Code, step: Step) -> Result<OnwardRequest> {
    let mut case = call::case(agent)?;
    wait::until(&format!("{} sees the request {}", agent.agency, step.as_str_name()), async || {
        let list = ListOnwardRequestsRequest { direction: direction.into(), ..Default::default() };
        let listed = case.list_onward_requests(list).await.ok()?.into_inner().requests;
        listed.into_iter().next().filter(|request| request.step() == step)
    })
    .await
}

async fn answer(agent: &Agent, id: &str, step: Step) -> Result<()> {
    let answer = AnswerOnwardRequestRequest { id: id.to_owned(), step: step.into() };
    call::case(agent)?.answer_onward_request(answer).await?;
    Ok(())
}
