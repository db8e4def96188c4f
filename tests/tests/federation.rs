//! Two domains that have peered, and a third: what crosses the border, what each side keeps, who sees whom.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use liaison_demo::wait;
use liaison_proto::{
    case::v1::{
        AnswerOnwardRequestRequest, GetAlertRequest, ListOnwardRequestsRequest, ListReferralsRequest,
        PreviewRequest, PreviewResponse, ReferOnwardRequest, SendReferralRequest, UpdateReferralRequest,
        direction, disclosure::Code as Disclosed, preview_request, refer_onward_response::Outcome,
    },
    message::v1::{
        Audience, DomainDecision, Handling, RecipientDecision, age_band, data_category::Code as Category,
        error_code::Code as ErrorCode, onward_step::Code as Step, outcome, police_handling,
        purpose::Code as Purpose, referral_state::Code as State, service_type, status::Code as Exercise,
        verdict,
    },
};
use liaison_tests::{
    Federation, call,
    federation::{Setup, knows, listed},
    message::{self, Words},
    names::{HEALTH_HU, HOSPITAL, POLICE, POLICE_HU, SHELTER, SHELTER_FR, SHELTER_HU},
    policies,
    realm::{BE, Domain, FR, HU},
};

const BOTH: [Domain; 2] = [BE, HU];
/// In which an agency that is suspended has to vanish in another domain.
const GONE: Duration = Duration::from_secs(5);

/// Both domains without any rule against anything.
fn open<'a>(agencies: &'a [&'a str]) -> Setup<'a> {
    Setup { domains: &BOTH, scheme: policies::OPEN, layers: &[], agencies }
}

fn change(id: &str, state: State) -> UpdateReferralRequest {
    UpdateReferralRequest { id: id.to_owned(), state: state.into(), ..Default::default() }
}

#[tokio::test]
async fn a_referral_goes_its_whole_road_abroad() -> Result<()> {
    let federation = Federation::start(&open(&[SHELTER, SHELTER_HU])).await?;
    let (from, to) = (federation.agent(SHELTER)?, federation.agent(SHELTER_HU)?);
    let words = Words::fresh();
    let id = federation.send_one(SHELTER, message::referral(&[SHELTER_HU], &words)).await?;
    let received = call::referral(to, &id).await?;
    assert_eq!((received.from.as_str(), received.to.as_str()), (SHELTER, SHELTER_HU));
    for category in message::referral_categories() {
        let name = category.as_str_name();
        let section = received.sections.get(name).with_context(|| format!("{name} is not told of"))?;
        assert_eq!(section.disclosure(), Disclosed::Released, "{name}");
    }
    let text = message::to_json(&received)?.to_string();
    assert!(text.contains(&words.of(Category::Health)), "it arrived changed");
    let sent = call::referral(from, &id).await?;
    assert_eq!(sent.at, SHELTER_HU);

    for state in [State::Accepted, State::InProgress, State::Completed] {
        let mut change = change(&id, state);
        if state == State::Completed {
            change.set_outcome(outcome::Code::ServiceProvided);
        }
        call::case(to)?.update_referral(change).await?;
        call::referral_in(from, &id, state).await?;
    }
    let seen = call::referral(from, &id).await?;
    let last = seen.history.last().context("no history")?;
    assert_eq!((last.outcome(), last.by.as_str()), (outcome::Code::ServiceProvided, SHELTER_HU));
    federation.sound().await
}

#[tokio::test]
async fn a_requester_cancels_abroad() -> Result<()> {
    let federation = Federation::start(&open(&[SHELTER, SHELTER_HU])).await?;
    let id = federation.send_one(SHELTER, message::small_referral(SHELTER_HU)).await?;
    call::case(federation.agent(SHELTER)?)?.update_referral(change(&id, State::Cancelled)).await?;
    for agency in [SHELTER, SHELTER_HU] {
        let seen = call::referral_in(federation.agent(agency)?, &id, State::Cancelled).await?;
        assert!(!seen.cancel_pending, "at {agency}");
    }
    federation.sound().await
}

/// The sender's country withholds one category, the recipient's another, and the preview knew both.
#[tokio::test]
async fn each_country_withholds_by_its_own_law() -> Result<()> {
    let be = policies::layer_without("be-secrecy", "criminal_proceedings");
    let hu = policies::layer_without("hu-secrecy", "migration");
    let federation = Federation::start(&Setup {
        layers: &[("be", "country/be/law.cedar", &be), ("hu", "country/hu/law.cedar", &hu)],
        ..open(&[SHELTER, SHELTER_HU])
    })
    .await?;
    let sender = federation.agent(SHELTER)?;
    let request = message::referral(&[SHELTER_HU], &Words::fresh());
    let preview = preview(&federation, &request).await?;
    let id = federation.send_one(SHELTER, request).await?;
    let seen = wait::until("the sender knows what both domains decided", async || {
        let seen = call::referral(sender, &id).await.ok()?;
        (seen.parts.len() == 2).then_some(seen)
    })
    .await?;

    let decision = seen.decision.context("no decision is told")?;
    assert_eq!(
        against(&decision),
        [
            ("criminal_proceedings".to_owned(), "country/be".to_owned(), "be-secrecy".to_owned()),
            ("migration".to_owned(), "country/hu".to_owned(), "hu-secrecy".to_owned()),
        ]
    );
    assert_eq!(preview.recipients, [decision], "what happened is not what was foreseen");
    assert_eq!(without_times(&preview.parts), without_times(&seen.parts));
    for (domain, category, layer) in
        [("be", "criminal_proceedings", "country/be"), ("hu", "migration", "country/hu")]
    {
        let part = seen.parts.iter().find(|part| part.domain == domain);
        let part = part.and_then(|part| part.decision.as_ref()).with_context(|| format!("of {domain}"))?;
        let [(withheld, by, _)] = against(part).try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
        assert_eq!((withheld.as_str(), by.as_str()), (category, layer));
    }

    let received = call::referral(federation.agent(SHELTER_HU)?, &id).await?;
    for (name, section) in &received.sections {
        let withheld = ["criminal_proceedings", "migration"].contains(&name.as_str());
        assert!(!withheld || section.content.is_none(), "{name} is there");
    }
    let health = received.sections.get("health").map(|section| section.disclosure());
    assert_eq!(health, Some(Disclosed::Released));
    federation.sound().await
}

#[tokio::test]
async fn what_waits_for_a_domain_that_is_away_arrives_later() -> Result<()> {
    let mut federation = Federation::start(&open(&[SHELTER, SHELTER_HU])).await?;
    federation.realm_mut("hu")?.gateway.stop().await?;
    let request = message::small_referral(SHELTER_HU);
    let part = wait::until("the preview says that the other domain can't be asked", async || {
        let preview = preview(&federation, &request).await.ok()?;
        let part = preview.parts.into_iter().find(|part| part.domain == "hu")?;
        let decision = preview.recipients.first()?;
        (decision.verdict() == verdict::Code::Undecided).then_some(part)
    })
    .await?;
    assert!(part.decision.is_none(), "{part:?}");
    assert_eq!(part.unknown.map(|refusal| refusal.code()), Some(ErrorCode::GatewayUnreachable));

    let sent = federation.send(SHELTER, request).await?;
    let id = sent.first().context("no referral was made")?;
    let seen = call::referral_in(federation.agent(SHELTER)?, id, State::Requested).await?;
    assert_eq!(seen.at, "be");
    federation.realm_mut("hu")?.gateway.start().await?;
    call::received(federation.agent(SHELTER_HU)?, id).await?;
    let seen = call::referral_in(federation.agent(SHELTER)?, id, State::Received).await?;
    assert_eq!(seen.at, SHELTER_HU);
    federation.sound().await
}

#[tokio::test]
async fn an_alert_goes_to_both_domains() -> Result<()> {
    let hu = policies::layer_without("hu-secrecy", "exploitation");
    let federation = Federation::start(&Setup {
        layers: &[("hu", "country/hu/law.cedar", &hu)],
        ..open(&[HOSPITAL, SHELTER, POLICE, SHELTER_HU, POLICE_HU])
    })
    .await?;
    let audience = Audience {
        agencies: [SHELTER, SHELTER_HU, POLICE_HU].map(str::to_owned).to_vec(),
        ..Audience::default()
    };
    let mut case = call::case(federation.agent(HOSPITAL)?)?;
    let sent = case.send_alert(message::pattern_alert(audience)).await?.into_inner().alert;
    let id = sent.context("no alert was made")?.id;
    for (agency, expected) in
        [(SHELTER, Disclosed::Released), (SHELTER_HU, Disclosed::Withheld), (POLICE_HU, Disclosed::Withheld)]
    {
        let received = call::received_alert(federation.agent(agency)?, &id).await?;
        assert_eq!(received.from, HOSPITAL);
        let pattern = received.sections.get("exploitation").map(|section| section.disclosure());
        assert_eq!(pattern, Some(expected), "{agency}");
    }
    let seen = wait::until("the sender knows the end of each delivery", async || {
        let seen = case.get_alert(GetAlertRequest { id: id.clone() }).await.ok()?.into_inner();
        let done = seen.deliveries.iter().all(|one| one.state() == State::Received);
        (done && seen.deliveries.len() == 3).then_some(seen)
    })
    .await?;
    for delivery in &seen.deliveries {
        let abroad = delivery.agency.starts_with("hu/");
        let domains: Vec<&str> = delivery.parts.iter().map(|part| part.domain.as_str()).collect();
        assert_eq!(domains.len(), if abroad { 2 } else { 0 }, "{}: {domains:?}", delivery.agency);
        assert_eq!(delivery.at, delivery.agency);
    }
    let ids = call::received_alert_ids(federation.agent(POLICE)?, Exercise::Actual.into()).await?;
    assert!(ids.is_empty(), "{POLICE} received {ids:?}");
    federation.sound().await
}

#[tokio::test]
async fn exercises_stand_apart_abroad_as_well() -> Result<()> {
    let federation = Federation::start(&open(&[SHELTER, SHELTER_HU])).await?;
    let real = federation.send_one(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let mut request = message::small_referral(SHELTER_HU);
    request.set_status(Exercise::Exercise);
    let exercise = federation.send_one(SHELTER, request).await?;
    for (status, expected) in [(Exercise::Actual, &real), (Exercise::Exercise, &exercise)] {
        let direction = direction::Code::Received.into();
        let request = ListReferralsRequest { status: status.into(), direction, ..Default::default() };
        let mut case = call::case(federation.agent(SHELTER_HU)?)?;
        let listed = case.list_referrals(request).await?.into_inner().referrals;
        let ids: Vec<&String> = listed.iter().map(|referral| &referral.id).collect();
        assert_eq!(ids, [expected], "{}", status.as_str_name());
    }
    federation.sound().await
}

/// Whom a domain shows to others is policy; whom it does not show is answered all the same.
#[tokio::test]
async fn an_agency_that_is_hidden_abroad_refers_and_is_answered() -> Result<()> {
    let hiding = policies::hiding("hidden");
    let setup = Setup { scheme: &hiding, ..open(&[SHELTER, SHELTER_HU, POLICE_HU]) };
    let federation = Federation::linked(&setup).await?;
    let (shelter, police) = (federation.agent(SHELTER)?, federation.agent(POLICE_HU)?);
    let seen = knows(shelter, SHELTER_HU).await?;
    assert_eq!((seen.country.as_str(), seen.name.as_str()), ("hu", "Shelter Budapest"));
    let offered = [service_type::Code::Safehouse, service_type::Code::Return].map(i32::from);
    assert_eq!(seen.services, offered);
    assert_eq!(seen.languages, ["en", "hu"]);
    assert_eq!(seen.ages, [i32::from(age_band::Code::From18To24)]);
    assert!(!listed(shelter).await?.contains_key(POLICE_HU));
    assert!(listed(federation.agent(SHELTER_HU)?).await?.contains_key(POLICE_HU), "hidden at home as well");

    knows(police, SHELTER).await?;
    let id = federation.send_one(POLICE_HU, message::small_referral(SHELTER)).await?;
    for state in [State::Accepted, State::InProgress] {
        call::case(shelter)?.update_referral(change(&id, state)).await?;
        call::referral_in(police, &id, state).await?;
    }
    call::case(police)?.update_referral(change(&id, State::Cancelled)).await?;
    call::referral_in(shelter, &id, State::Cancelled).await?;
    assert!(!listed(shelter).await?.contains_key(POLICE_HU), "it was revealed by referring");
    federation.sound().await
}

#[tokio::test]
async fn an_agency_that_is_suspended_vanishes_abroad() -> Result<()> {
    let federation = Federation::start(&open(&[SHELTER, SHELTER_HU])).await?;
    let shelter = federation.agent(SHELTER)?;
    let hu = &federation.realm("hu")?.gateway;
    hu.command(&["agency", "suspend", SHELTER_HU]).await?;
    wait::within(GONE, &format!("{SHELTER_HU} has vanished"), async || {
        (!listed(shelter).await.ok()?.contains_key(SHELTER_HU)).then_some(())
    })
    .await?;
    hu.command(&["agency", "resume", SHELTER_HU]).await?;
    knows(shelter, SHELTER_HU).await?;
    federation.send_one(SHELTER, message::small_referral(SHELTER_HU)).await?;
    federation.sound().await
}

#[tokio::test]
async fn what_is_marked_goes_onward_abroad_once_its_originator_granted_it() -> Result<()> {
    let federation = Federation::start(&open(&[SHELTER, SHELTER_HU, HEALTH_HU])).await?;
    let (originator, holder) = (federation.agent(SHELTER)?, federation.agent(SHELTER_HU)?);
    let words = Words::fresh();
    let consent = message::consent(&[SHELTER_HU, HEALTH_HU], &message::referral_categories());
    let request = SendReferralRequest {
        content: Some(message::content(&words, consent)),
        handling: Some(Handling { police: police_handling::Code::H2.into(), ..Handling::default() }),
        ..message::referral(&[SHELTER_HU], &words)
    };
    let id = federation.send_one(SHELTER, request).await?;
    let onward = ReferOnwardRequest {
        id: id.clone(),
        to: HEALTH_HU.to_owned(),
        categories: [Category::Health, Category::Consent].map(i32::from).to_vec(),
        purpose: Purpose::VictimSupport.into(),
        ..ReferOnwardRequest::default()
    };
    let mut case = call::case(holder)?;
    let Some(Outcome::Request(asked)) = case.refer_onward(onward.clone()).await?.into_inner().outcome else {
        anyhow::bail!("it was sent without a question");
    };
    assert_eq!((asked.originator.as_str(), asked.step()), (SHELTER, Step::Asked));

    // The originator, in the other domain, sees who asks for whom, and grants it.
    let direction = direction::Code::Received.into();
    let listing = ListOnwardRequestsRequest { direction, ..ListOnwardRequestsRequest::default() };
    let request = wait::until("the originator is asked", async || {
        let mut case = call::case(originator).ok()?;
        case.list_onward_requests(listing.clone()).await.ok()?.into_inner().requests.pop()
    })
    .await?;
    assert_eq!((request.from.as_str(), request.to.as_str()), (SHELTER_HU, HEALTH_HU));
    assert_eq!((&request.id, &request.referral), (&asked.id, &id));
    let answer = AnswerOnwardRequestRequest { id: request.id, step: Step::Granted.into() };
    call::case(originator)?.answer_onward_request(answer).await?;

    let sent = wait::until("the grant has arrived and the referral is sent", async || {
        match case.refer_onward(onward.clone()).await.ok()?.into_inner().outcome? {
            Outcome::Referral(referral) => Some(referral),
            Outcome::Request(_) => None,
        }
    })
    .await?;
    assert_eq!(sent.onward_of, id);
    assert_ne!(sent.thread, call::referral(holder, &id).await?.thread);
    let received = call::received(federation.agent(HEALTH_HU)?, &sent.id).await?;
    let text = message::to_json(&received)?.to_string();
    assert!(text.contains(&words.of(Category::Health)));
    assert!(!text.contains(&words.of(Category::Narrative)), "more went onward than was asked for");
    assert!(!text.contains(&id), "the recipient learns which referral it came from");
    federation.sound().await
}

/// No message transits a third domain, so none is needed.
#[tokio::test]
async fn two_domains_go_on_without_a_third() -> Result<()> {
    let setup = Setup { domains: &[BE, HU, FR], ..open(&[SHELTER, SHELTER_HU, SHELTER_FR]) };
    let mut federation = Federation::start(&setup).await?;
    federation.realm_mut("be")?.gateway.stop().await?;
    federation.send_one(SHELTER_FR, message::small_referral(SHELTER_HU)).await?;
    federation.send_one(SHELTER_HU, message::small_referral(SHELTER_FR)).await?;
    // To the one that is away it waits, and hinders nothing else.
    let waiting = federation.send(SHELTER_HU, message::small_referral(SHELTER)).await?;
    federation.send_one(SHELTER_HU, message::small_referral(SHELTER_FR)).await?;
    federation.realm_mut("be")?.gateway.start().await?;
    call::received(federation.agent(SHELTER)?, waiting.first().context("no referral was made")?).await?;
    federation.sound().await
}

async fn preview(federation: &Federation, request: &SendReferralRequest) -> Result<PreviewResponse> {
    let question = PreviewRequest { message: Some(preview_request::Message::Referral(request.clone())) };
    Ok(call::case(federation.agent(SHELTER)?)?.preview(question).await?.into_inner())
}

/// Categories that are not released, with the layer and the rule, in the order of their names.
fn against(decision: &RecipientDecision) -> Vec<(String, String, String)> {
    let mut all: Vec<_> = decision
        .categories
        .iter()
        .filter(|one| one.verdict() != verdict::Code::Released)
        .map(|one| {
            let rule = one.rule.clone().unwrap_or_default();
            (one.category().as_str_name().to_owned(), rule.layer, rule.rule)
        })
        .collect();
    all.sort();
    all
}

/// What each domain decided, under which policies; not when.
fn without_times(parts: &[DomainDecision]) -> BTreeMap<&str, DomainDecision> {
    parts
        .iter()
        .map(|part| (part.domain.as_str(), DomainDecision { decided_at: None, ..part.clone() }))
        .collect()
}
