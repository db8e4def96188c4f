//! What was received goes onward as a new message, and only as its originator lets it.

use anyhow::{Context, Result, bail};
use liaison_demo::{Agent, wait};
use liaison_proto::{
    case::v1::{
        AnswerOnwardRequestRequest, ListOnwardRequestsRequest, OnwardRequest, ReferOnwardRequest,
        ReferOnwardResponse, SendReferralRequest, direction, disclosure::Code as Disclosed,
        refer_onward_response::Outcome,
    },
    message::v1::{
        Handling, data_category::Code as Category, error_code::Code as ErrorCode, onward_step::Code as Step,
        police_handling::Code as Police, purpose::Code as Purpose, referral_state::Code as State,
    },
};
use liaison_tests::{
    Federation, call, message,
    names::{HEALTH_HU, HOSPITAL, POLICE, SHELTER_HU},
    policies,
};

/// Received by a shelter abroad, and to go to a health service there.
const CATEGORIES: [Category; 3] = [Category::ServiceRequest, Category::Health, Category::Consent];

#[tokio::test]
async fn what_needs_permission_waits_for_the_originator() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU, HEALTH_HU]).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let id = handed_over(hospital, shelter, Police::H2).await?;

    let Outcome::Request(asked) = onward(shelter, &id, HEALTH_HU).await? else { bail!("sent unasked") };
    assert_eq!((asked.step(), asked.direction()), (Step::Asked, direction::Code::Sent));
    assert_eq!(
        (asked.from.as_str(), asked.originator.as_str(), asked.to.as_str()),
        (SHELTER_HU, HOSPITAL, HEALTH_HU)
    );
    let question = request(hospital, direction::Code::Received, Step::Asked).await?;
    assert_eq!((&question.referral, question.to.as_str()), (&id, HEALTH_HU));
    // Asked again it is the same question, and nothing goes meanwhile.
    let Outcome::Request(again) = onward(shelter, &id, HEALTH_HU).await? else { bail!("sent unasked") };
    assert_eq!(again.id, asked.id);
    assert!(call::received_ids(federation.agent(HEALTH_HU)?).await?.is_empty());

    answer(hospital, &question.id, Step::Granted).await?;
    request(shelter, direction::Code::Sent, Step::Granted).await?;
    let Outcome::Referral(sent) = onward(shelter, &id, HEALTH_HU).await? else {
        bail!("granted and not sent")
    };
    assert_eq!(sent.onward_of, id);
    let received = call::received(federation.agent(HEALTH_HU)?, &sent.id).await?;
    assert_eq!((received.from.as_str(), received.onward_of.as_str()), (SHELTER_HU, ""));
    assert_eq!(received.handling.map(|handling| handling.police()), Some(Police::H2), "handling goes along");
    let first = call::referral(shelter, &id).await?;
    assert_ne!(received.thread, first.thread, "a new referral has a thread of its own");
    let health = received.sections.get("health").context("health is not told of")?;
    assert_eq!(health.disclosure(), Disclosed::Released);
    call::referral_in(shelter, &sent.id, State::Received).await?;
    Ok(())
}

#[tokio::test]
async fn what_the_originator_denies_stays() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU, HEALTH_HU]).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let id = handed_over(hospital, shelter, Police::H2).await?;
    let Outcome::Request(_) = onward(shelter, &id, HEALTH_HU).await? else { bail!("sent unasked") };
    let question = request(hospital, direction::Code::Received, Step::Asked).await?;
    answer(hospital, &question.id, Step::Denied).await?;
    request(shelter, direction::Code::Sent, Step::Denied).await?;
    assert_eq!(refused_onward(shelter, &id, HEALTH_HU).await?, ErrorCode::OnwardForbidden);
    assert!(call::received_ids(federation.agent(HEALTH_HU)?).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_needs_no_permission_goes_back_over_the_border() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, POLICE, SHELTER_HU]).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let id = handed_over(hospital, shelter, Police::H1).await?;
    let Outcome::Referral(sent) = onward(shelter, &id, POLICE).await? else { bail!("it was asked for") };
    let received = call::received(federation.agent(POLICE)?, &sent.id).await?;
    assert_eq!(received.from, SHELTER_HU, "it comes from who refers, not from where it came");
    let seen = call::referral_in(shelter, &sent.id, State::Received).await?;
    let domains: Vec<&str> = seen.parts.iter().map(|part| part.domain.as_str()).collect();
    assert_eq!(domains, ["hu", "be"]);
    Ok(())
}

#[tokio::test]
async fn what_policy_keeps_from_going_onward_stays() -> Result<()> {
    let closed = policies::OPEN.replace(r#"Action::"onward_share", "#, "");
    let federation = Federation::start(&closed, &[HOSPITAL, SHELTER_HU, HEALTH_HU]).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let id = handed_over(hospital, shelter, Police::H1).await?;
    assert_eq!(refused_onward(shelter, &id, HEALTH_HU).await?, ErrorCode::OnwardForbidden);
    assert!(call::received_ids(federation.agent(HEALTH_HU)?).await?.is_empty());
    Ok(())
}

/// A referral of these categories, at its recipient; its id.
async fn handed_over(from: &Agent, to: &Agent, police: Police) -> Result<String> {
    let handling = Handling { police: police.into(), ..Handling::default() };
    let request = SendReferralRequest { handling: Some(handling), ..message::small_referral(&to.agency) };
    let id = call::send(from, request).await?;
    call::received(to, &id).await?;
    Ok(id)
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
