//! The road across two domains: the law of each has its say, and the sender sees which said what.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liaison_demo::wait;
use liaison_proto::{
    case::v1::{
        GetAlertRequest, ListReferralsRequest, PreviewRequest, Referral, SendReferralRequest, direction,
        disclosure::Code as Disclosed, preview_request,
    },
    category,
    message::v1::{
        Audience, DomainDecision, RecipientDecision, data_category::Code as Category,
        error_code::Code as ErrorCode, outcome, referral_state::Code as State, sector,
        service_type::Code as ServiceType, status::Code as Exercise, verdict::Code as Verdict,
    },
};
use liaison_tests::{
    Federation, Layer, call,
    message::{self, Words},
    names::{BORDER, HEALTH_HU, HOSPITAL, POLICE, POLICE_HU, REFUGE_HU, SHELTER, SHELTER_HU},
    policies,
};

/// In which a peer has to learn of a change.
const SECONDS: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_referral_goes_its_whole_road_across_the_border() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU]).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let request = message::referral(&[SHELTER_HU], &Words::fresh());
    let id = call::send(hospital, request.clone()).await?;

    let received = call::received(shelter, &id).await?;
    assert_eq!((received.from.as_str(), received.to.as_str()), (HOSPITAL, SHELTER_HU));
    let parts = category::split(&request.content.unwrap_or_default())?;
    for category in message::referral_categories() {
        let name = category.as_str_name();
        let section = received.sections.get(name).with_context(|| format!("{name} is not told of"))?;
        assert_eq!(section.disclosure(), Disclosed::Released, "{name}");
        let content = section.content.as_ref().map(prost::Message::encode_to_vec);
        assert_eq!(content.as_ref(), parts.get(&category), "{name} arrived changed");
    }
    let seen = call::referral_in(hospital, &id, State::Received).await?;
    assert_eq!(seen.at, SHELTER_HU, "whoever received it holds it");
    let domains: Vec<&str> = seen.parts.iter().map(|part| part.domain.as_str()).collect();
    assert_eq!(domains, ["be", "hu"], "the part of each domain is told");

    for state in [State::Accepted, State::InProgress, State::Completed] {
        call::update(shelter, &id, state).await?;
        call::referral_in(hospital, &id, state).await?;
    }
    let seen = call::referral(hospital, &id).await?;
    assert_eq!(seen.history.last().map(|event| event.outcome()), Some(outcome::Code::ServiceProvided));
    Ok(())
}

#[tokio::test]
async fn a_requester_cancels_across_the_border() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU]).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let id = call::send(hospital, message::small_referral(SHELTER_HU)).await?;
    call::received(shelter, &id).await?;
    call::referral_in(hospital, &id, State::Received).await?;
    call::update(hospital, &id, State::Cancelled).await?;
    call::referral_in(shelter, &id, State::Cancelled).await?;
    call::referral_in(hospital, &id, State::Cancelled).await?;

    // Too late, and told so by the state that stands.
    let id = call::send(hospital, message::small_referral(SHELTER_HU)).await?;
    call::received(shelter, &id).await?;
    for state in [State::Accepted, State::Completed] {
        call::update(shelter, &id, state).await?;
    }
    call::referral_in(hospital, &id, State::Completed).await?;
    let late = call::update(hospital, &id, State::Cancelled).await;
    let late = late.err().context("a finished referral was cancelled")?.downcast::<tonic::Status>()?;
    assert_eq!(call::refused::<()>(Err(late)), Some(ErrorCode::TransitionNotAllowed));
    Ok(())
}

/// What each layer of the two countries keeps from the recipient.
const KEPT: [(Category, &str, &str); 4] = [
    (Category::Location, "be", "country/be"),
    (Category::Risk, "be", "agency/be/hospital-ghent"),
    (Category::Health, "hu", "country/hu"),
    (Category::Migration, "hu", "agency/hu/shelter-budapest"),
];

/// A federation in which every layer keeps something.
async fn two_laws() -> Result<Federation> {
    let texts = KEPT.map(|(category, _, _)| policies::without(category.as_str_name()));
    let paths = KEPT.map(|(_, _, layer)| format!("{layer}/own.cedar"));
    let layers: Vec<Layer<'_>> = KEPT
        .iter()
        .zip(paths.iter().zip(&texts))
        .map(|((_, domain, _), (path, text))| Layer { domain, path, text })
        .collect();
    Federation::start_under(policies::OPEN, &layers, &[HOSPITAL, SHELTER_HU]).await
}

#[tokio::test]
async fn both_laws_withhold_and_the_sender_sees_which() -> Result<()> {
    let federation = two_laws().await?;
    let hospital = federation.agent(HOSPITAL)?;
    let words = Words::fresh();
    let id = call::send(hospital, message::referral(&[SHELTER_HU], &words)).await?;
    let received = call::received(federation.agent(SHELTER_HU)?, &id).await?;
    let seen = call::referral_in(hospital, &id, State::Received).await?;
    let merged = seen.decision.as_ref().context("no decision is told")?;
    for (category, domain, layer) in KEPT {
        let name = category.as_str_name();
        let section = received.sections.get(name).with_context(|| format!("{name} is not told of"))?;
        assert_eq!((section.disclosure(), &section.content), (Disclosed::Withheld, &None), "{name}");
        let own = part(&seen.parts, domain)?.decision.as_ref().context("a part without its decision")?;
        for decision in [merged, own] {
            let rule = (layer.to_owned(), format!("no-{name}"));
            assert_eq!(withheld_by(decision, category), Some(rule), "{name} in {decision:?}");
        }
        // Neither domain speaks for the other.
        let other = if domain == "be" { "hu" } else { "be" };
        let other = part(&seen.parts, other)?.decision.as_ref().context("a part without its decision")?;
        assert_eq!(withheld_by(other, category), None, "{name} in {other:?}");
    }
    for category in message::referral_categories() {
        if KEPT.iter().all(|(kept, _, _)| *kept != category) {
            let section = received.sections.get(category.as_str_name()).context("a category is missing")?;
            assert_eq!(section.disclosure(), Disclosed::Released, "{category:?}");
        }
    }
    for part in &seen.parts {
        assert!(part.unknown.is_none() && part.decided_at.is_some() && !part.policy_hash.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn the_preview_is_what_happens_and_tells_what_it_cannot_know() -> Result<()> {
    let mut federation = two_laws().await?;
    let request = message::referral(&[SHELTER_HU], &Words::fresh());
    let question = PreviewRequest { message: Some(preview_request::Message::Referral(request.clone())) };
    let preview = call::case(federation.agent(HOSPITAL)?)?.preview(question.clone()).await?.into_inner();
    assert!(call::received_ids(federation.agent(SHELTER_HU)?).await?.is_empty(), "looking ahead sends");
    let id = call::send(federation.agent(HOSPITAL)?, request).await?;
    let seen = call::referral_in(federation.agent(HOSPITAL)?, &id, State::Received).await?;
    assert_eq!(preview.recipients.first(), seen.decision.as_ref());
    for domain in ["be", "hu"] {
        let (told, happened) = (part(&preview.parts, domain)?, part(&seen.parts, domain)?);
        assert_eq!((&told.decision, &told.policy_hash), (&happened.decision, &happened.policy_hash));
        assert!(told.decided_at.is_some(), "nothing tells how fresh the part of {domain} is");
    }

    federation.gateway_mut("hu")?.kill()?;
    let preview = call::case(federation.agent(HOSPITAL)?)?.preview(question).await?.into_inner();
    let unknown = part(&preview.parts, "hu")?;
    assert_eq!(unknown.decision, None);
    assert!(unknown.unknown.as_ref().is_some_and(|why| !why.message.is_empty()), "{unknown:?}");
    let known = part(&preview.parts, "be")?;
    assert_eq!((&known.decision, &known.unknown), (&part(&seen.parts, "be")?.decision, &None));
    let merged = preview.recipients.first().context("nothing is told of the recipient")?;
    assert_eq!(merged.verdict(), Verdict::Undecided);
    for decision in &merged.categories {
        let here = KEPT.iter().any(|(kept, domain, _)| *kept == decision.category() && *domain == "be");
        let expected = if here { Verdict::Withheld } else { Verdict::Undecided };
        assert_eq!(decision.verdict(), expected, "{:?}", decision.category());
    }
    Ok(())
}

#[tokio::test]
async fn a_domain_refuses_what_its_law_forbids() -> Result<()> {
    let nothing = policies::closed_for(SHELTER_HU);
    let law = Layer { domain: "hu", path: "country/hu/law.cedar", text: &nothing };
    let federation = Federation::start_under(policies::OPEN, &[law], &[HOSPITAL, SHELTER_HU]).await?;
    let hospital = federation.agent(HOSPITAL)?;
    let id = call::send(hospital, message::small_referral(SHELTER_HU)).await?;
    let seen = call::referral_in(hospital, &id, State::Refused).await?;
    let rule = seen.refusal.and_then(|refusal| refusal.rule).context("no rule is told")?;
    assert_eq!((rule.layer.as_str(), rule.rule.as_str()), ("country/hu", "nothing-there"));
    assert!(call::received_ids(federation.agent(SHELTER_HU)?).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_alert_reaches_its_audience_in_both_domains() -> Result<()> {
    let agencies = [HOSPITAL, SHELTER, POLICE, SHELTER_HU, POLICE_HU];
    let federation = Federation::start(policies::OPEN, &agencies).await?;
    let audience = Audience { sectors: vec![sector::Code::LawEnforcement.into()], ..Audience::default() };
    let mut case = call::case(federation.agent(HOSPITAL)?)?;
    let words = Words::fresh();
    let sent = case.send_alert(message::missing_minor_alert(audience, &words)).await?.into_inner();
    let id = sent.alert.context("no alert was made")?.id;
    for agency in [POLICE, POLICE_HU] {
        let received = call::received_alert(federation.agent(agency)?, &id).await?;
        let identity = received.sections.get("identity").and_then(|section| section.content.as_ref());
        let name = identity.and_then(|content| content.identity.as_ref()?.names.first());
        assert_eq!(name.map(|name| &name.given), Some(&words.of(Category::Identity)), "at {agency}");
    }
    let seen = wait::until("the sender knows the end of each delivery", async || {
        let seen = case.get_alert(GetAlertRequest { id: id.clone() }).await.ok()?.into_inner();
        let ended = seen.deliveries.iter().all(|delivery| delivery.state() == State::Received);
        (ended && seen.deliveries.len() == 2).then_some(seen)
    })
    .await?;
    for delivery in &seen.deliveries {
        assert_eq!(delivery.at, delivery.agency, "whoever received it holds it");
        let abroad = delivery.agency == POLICE_HU;
        assert_eq!(delivery.parts.len(), if abroad { 2 } else { 0 }, "{:?}", delivery.parts);
    }
    for agency in [SHELTER, SHELTER_HU] {
        let ids = call::received_alert_ids(federation.agent(agency)?, Exercise::Actual.into()).await?;
        assert!(ids.is_empty(), "{agency} received {ids:?}");
    }
    Ok(())
}

#[tokio::test]
async fn exercise_traffic_stands_apart_across_the_border() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU]).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let real = call::send(hospital, message::small_referral(SHELTER_HU)).await?;
    let mut request = message::small_referral(SHELTER_HU);
    request.set_status(Exercise::Exercise);
    let exercise = call::send(hospital, request).await?;
    call::received(shelter, &real).await?;
    call::received(shelter, &exercise).await?;
    for (status, expected) in
        [(0, &real), (Exercise::Actual.into(), &real), (Exercise::Exercise.into(), &exercise)]
    {
        for (agent, direction) in [(shelter, direction::Code::Received), (hospital, direction::Code::Sent)] {
            let request = ListReferralsRequest { status, direction: direction.into(), ..Default::default() };
            let listed = call::case(agent)?.list_referrals(request).await?.into_inner().referrals;
            let ids: Vec<&String> = listed.iter().map(|referral| &referral.id).collect();
            assert_eq!(ids, [expected], "status {status} at {}", agent.agency);
        }
    }
    Ok(())
}

#[tokio::test]
async fn agencies_abroad_are_looked_up_like_those_at_home() -> Result<()> {
    let agencies = [HOSPITAL, SHELTER, SHELTER_HU, HEALTH_HU, REFUGE_HU];
    let federation = Federation::start(&policies::hiding(), &agencies).await?;
    let hospital = federation.agent(HOSPITAL)?;
    let known = call::reachable(hospital).await?;
    let addresses: Vec<&str> = known.keys().map(String::as_str).filter(|one| *one != HOSPITAL).collect();
    assert_eq!(addresses, [SHELTER, HEALTH_HU, SHELTER_HU]);
    let abroad = known.get(SHELTER_HU).context("the shelter abroad is unknown")?;
    assert_eq!(
        (abroad.country.as_str(), abroad.languages.as_slice()),
        ("hu", &["hu".into(), "en".into()][..])
    );
    assert_eq!(abroad.services, [i32::from(ServiceType::Safehouse)]);
    assert_eq!((abroad.sectors.as_slice(), abroad.ages.len()), (&[sector::Code::Ngo.into()][..], 2));
    assert!(!abroad.fingerprint.is_empty(), "there is nothing to compare by telephone");
    let home = call::reachable(federation.agent(HEALTH_HU)?).await?;
    assert!(home.contains_key(REFUGE_HU), "its own domain knows the hidden agency");
    let hidden = call::case(hospital)?.send_referral(message::small_referral(REFUGE_HU)).await;
    assert_eq!(call::refused(hidden), Some(ErrorCode::UnknownRecipient));

    // What is withdrawn there is gone here, and a suspended agency comes back.
    for (command, agency, known) in
        [("suspend", SHELTER_HU, false), ("resume", SHELTER_HU, true), ("revoke", HEALTH_HU, false)]
    {
        federation.gateway("hu")?.command(&["agency", command, agency]).await?;
        wait::within(SECONDS, &format!("be learns of {command} {agency}"), async || {
            let now = call::reachable(hospital).await.ok()?;
            (now.contains_key(agency) == known).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_hidden_sender_can_be_answered() -> Result<()> {
    let federation = Federation::start(&policies::hiding(), &[SHELTER, REFUGE_HU]).await?;
    let (shelter, refuge) = (federation.agent(SHELTER)?, federation.agent(REFUGE_HU)?);
    let id = call::send(refuge, message::small_referral(SHELTER)).await?;
    assert_eq!(call::received(shelter, &id).await?.from, REFUGE_HU);
    for state in [State::Accepted, State::Completed] {
        call::update(shelter, &id, state).await?;
        call::referral_in(refuge, &id, state).await?;
    }
    // It is no more visible than before.
    assert!(!call::reachable(shelter).await?.contains_key(REFUGE_HU));
    Ok(())
}

/// An agency that is no member of a country that its domain speaks for is nobody.
#[tokio::test]
async fn a_domain_speaks_for_the_countries_that_were_confirmed() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, BORDER, SHELTER_HU]).await?;
    let shelter = federation.agent(SHELTER_HU)?;
    assert!(call::reachable(shelter).await?.contains_key(BORDER), "be was accepted with be and nl");
    let be = federation.gateway("be")?;
    be.command(&["agency", "add", "be/annex", "--name", "Annex", "--country", "de", "--sector", "NGO"])
        .await?;
    let shown = wait::until("hu hears of a new country", async || {
        let shown = federation.gateway("hu").ok()?.peer("be").await.ok()?;
        let unconfirmed = shown.get("unconfirmed_countries")?.as_array()?;
        (!unconfirmed.is_empty()).then_some(shown)
    })
    .await?;
    assert_eq!(shown.get("unconfirmed_countries"), Some(&serde_json::json!(["de"])));
    assert_eq!(shown.get("countries"), Some(&serde_json::json!(["be", "nl"])));
    let invitation = be.invite().await?;
    federation.gateway("hu")?.accept(be, &invitation).await?;
    let shown = federation.gateway("hu")?.peer("be").await?;
    assert_eq!(shown.get("countries"), Some(&serde_json::json!(["be", "de", "nl"])));
    Ok(())
}

#[tokio::test]
async fn nothing_crosses_between_different_schemes() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU]).await?;
    let hospital = federation.agent(HOSPITAL)?;
    federation.realm("hu")?.load_scheme(&policies::without_health()).await?;
    wait::until("be sees that hu has another scheme", async || {
        let shown = federation.gateway("be").ok()?.peer("hu").await.ok()?;
        let told = shown.get("problem").and_then(|problem| problem.as_str()).is_some();
        (told && shown.get("same_scheme") == Some(&serde_json::Value::Bool(false))).then_some(())
    })
    .await?;
    let id = call::send(hospital, message::small_referral(SHELTER_HU)).await?;
    tokio::time::sleep(SECONDS).await;
    assert!(call::received_ids(federation.agent(SHELTER_HU)?).await?.is_empty(), "it crossed");
    assert_ne!(call::referral(hospital, &id).await?.state(), State::Received);
    // Once they agree again it goes on by itself, if its sender was not told to give it up.
    federation.realm("be")?.load_scheme(&policies::without_health()).await?;
    federation.gateway("be")?.linked("hu").await?;
    let id = call::send(hospital, message::small_referral(SHELTER_HU)).await?;
    let received = call::received(federation.agent(SHELTER_HU)?, &id).await?;
    let health = received.sections.get("health").map(|section| section.disclosure());
    assert_eq!(health, Some(Disclosed::Withheld));
    Ok(())
}

/// One case to an agency at home and to one abroad: two messages that nothing joins.
#[tokio::test]
async fn home_and_abroad_are_two_messages() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER, SHELTER_HU]).await?;
    let request: SendReferralRequest = message::referral(&[SHELTER, SHELTER_HU], &Words::fresh());
    let hospital = federation.agent(HOSPITAL)?;
    let sent = call::case(hospital)?.send_referral(request).await?.into_inner().referrals;
    ensure!(sent.len() == 2, "{sent:?}");
    let mut threads = Vec::new();
    for one in &sent {
        let received: Referral = call::received(federation.agent(&one.to)?, &one.id).await?;
        threads.push(received.thread);
        let seen = call::referral_in(hospital, &one.id, State::Received).await?;
        assert_eq!(seen.parts.len(), if one.to == SHELTER { 0 } else { 2 }, "{}", one.to);
    }
    assert_ne!(threads.first(), threads.last());
    Ok(())
}

fn part<'a>(parts: &'a [DomainDecision], domain: &str) -> Result<&'a DomainDecision> {
    let mut own = parts.iter().filter(|part| part.domain == domain);
    let part = own.next().with_context(|| format!("{domain} has no part in {parts:?}"))?;
    ensure!(own.next().is_none(), "{domain} has two parts in {parts:?}");
    Ok(part)
}

/// The layer and the rule that withheld a category.
fn withheld_by(decision: &RecipientDecision, category: Category) -> Option<(String, String)> {
    let decision = decision.categories.iter().find(|one| one.category() == category)?;
    let rule = decision.rule.as_ref().filter(|_| decision.verdict() == Verdict::Withheld)?;
    Some((rule.layer.clone(), rule.rule.clone()))
}
