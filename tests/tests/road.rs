//! The road of a referral and of an alert, from one caseworker system to another.

use anyhow::{Context, Result};
use liaison_proto::{
    case::v1::{
        Disclosure, ListReferralsRequest, PreviewRequest, SendReferralRequest, UpdateReferralRequest,
        direction, disclosure::Code as Disclosed, preview_request,
    },
    category,
    message::v1::{
        Audience, ReferralContent, alert_kind::Code as AlertKind, data_category::Code as Category,
        error_code::Code as ErrorCode, outcome, referral_state::Code as State, rejection_reason, sector,
        status::Code as Exercise, verdict,
    },
};
use liaison_tests::{
    Realm, call,
    message::{self, Words},
    names::{BORDER, HOSPITAL, POLICE, SHELTER},
    policies,
};
use tonic::Request;

#[tokio::test]
async fn a_referral_goes_its_whole_road() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    let words = Words::fresh();
    let request = message::referral(&[SHELTER], &words);
    let sent = call::case(hospital)?.send_referral(request.clone()).await?.into_inner().referrals;
    let id = &sent.first().context("no referral was made")?.id;

    let received = call::received(shelter, id).await?;
    assert_eq!((received.from.as_str(), received.to.as_str()), (HOSPITAL, SHELTER));
    assert_eq!(received.direction(), direction::Code::Received);
    let parts = category::split(&request.content.unwrap_or_default())?;
    for category in category::all() {
        let name = category.as_str_name();
        let section = received.sections.get(name).with_context(|| format!("{name} is not told of"))?;
        let content = section.content.as_ref().map(prost::Message::encode_to_vec);
        match parts.get(&category) {
            Some(part) => {
                assert_eq!(section.disclosure(), Disclosed::Released, "{name}");
                assert_eq!(content.as_ref(), Some(part), "{name} arrived changed");
                assert!(section.onward_share && section.use_as_evidence && section.retain_until.is_some());
            }
            None => assert_eq!((section.disclosure(), content), (Disclosed::NotDisclosed, None), "{name}"),
        }
    }

    // The recipient answers in the same thread, and the sender sees each state.
    for state in [State::Accepted, State::InProgress, State::OnHold, State::InProgress, State::Completed] {
        let mut change = UpdateReferralRequest { id: id.clone(), state: state.into(), ..Default::default() };
        if state == State::Completed {
            change.set_outcome(outcome::Code::ServiceProvided);
        }
        call::case(shelter)?.update_referral(change).await?;
        call::referral_in(hospital, id, state).await?;
    }
    let seen = call::referral(hospital, id).await?;
    assert_eq!(seen.history.last().map(|event| event.outcome()), Some(outcome::Code::ServiceProvided));
    assert!(seen.allowed.is_empty(), "nothing follows completed");
    let states: Vec<State> = seen.history.iter().map(|event| event.state()).collect();
    let at = |state| states.iter().position(|seen| *seen == state);
    assert!(
        at(State::Submitted) < at(State::Received) && at(State::Received) < at(State::Accepted),
        "{states:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_transition_that_is_not_allowed_is_refused_with_the_allowed_ones_named() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    let id = send_small(&realm).await?;
    call::received(shelter, &id).await?;

    // Only the recipient accepts; nothing is completed before it was accepted.
    for (agent, state) in
        [(hospital, State::Accepted), (shelter, State::Completed), (shelter, State::Cancelled)]
    {
        let change = UpdateReferralRequest {
            id: id.clone(),
            state: state.into(),
            outcome: if state == State::Completed { outcome::Code::Unavailable.into() } else { 0 },
            ..Default::default()
        };
        let refused = call::case(agent)?.update_referral(change).await.expect_err("not allowed");
        let refusal = liaison_proto::message::v1::Refusal::from(&refused);
        assert_eq!(refusal.code(), ErrorCode::TransitionNotAllowed, "{refusal}");
        let allowed = call::referral(agent, &id).await?.allowed;
        assert!(!allowed.is_empty());
        for state in allowed.into_iter().filter_map(|state| State::try_from(state).ok()) {
            assert!(refusal.to_string().contains(state.as_str_name()), "{refusal} does not name {state:?}");
        }
    }

    // A rejection says why.
    let rejection =
        UpdateReferralRequest { id: id.clone(), state: State::Rejected.into(), ..Default::default() };
    let unexplained = call::case(shelter)?.update_referral(rejection.clone()).await;
    assert_eq!(call::refused(unexplained), Some(ErrorCode::MissingField));
    let explained = UpdateReferralRequest { reason: rejection_reason::Code::NoCapacity.into(), ..rejection };
    call::case(shelter)?.update_referral(explained).await?;
    let seen = call::referral_in(hospital, &id, State::Rejected).await?;
    assert_eq!(seen.history.last().map(|event| event.reason()), Some(rejection_reason::Code::NoCapacity));
    Ok(())
}

#[tokio::test]
async fn a_requester_cancels_and_a_finished_referral_stays_finished() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    let cancel = |id: &str| UpdateReferralRequest {
        id: id.to_owned(),
        state: State::Cancelled.into(),
        ..Default::default()
    };

    let id = send_small(&realm).await?;
    call::received(shelter, &id).await?;
    call::referral_in(hospital, &id, State::Received).await?;
    call::case(hospital)?.update_referral(cancel(&id)).await?;
    call::referral_in(hospital, &id, State::Cancelled).await?;
    call::referral_in(shelter, &id, State::Cancelled).await?;
    // The same again changes nothing.
    call::case(hospital)?.update_referral(cancel(&id)).await?;

    let id = send_small(&realm).await?;
    call::received(shelter, &id).await?;
    for state in [State::Accepted, State::Completed] {
        let outcome = if state == State::Completed { outcome::Code::ServiceProvided.into() } else { 0 };
        let change =
            UpdateReferralRequest { id: id.clone(), state: state.into(), outcome, ..Default::default() };
        call::case(shelter)?.update_referral(change).await?;
    }
    call::referral_in(hospital, &id, State::Completed).await?;
    let late = call::case(hospital)?.update_referral(cancel(&id)).await;
    assert_eq!(call::refused(late), Some(ErrorCode::TransitionNotAllowed));
    Ok(())
}

#[tokio::test]
async fn one_case_to_two_agencies_is_two_messages_that_nothing_joins() -> Result<()> {
    let realm = Realm::start(&policies::without_health_for(POLICE), &[HOSPITAL, SHELTER, POLICE]).await?;
    let words = Words::fresh();
    let request = message::referral(&[SHELTER, POLICE], &words);
    let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner().referrals;
    assert_eq!(sent.len(), 2);
    let mut threads = Vec::new();
    for one in &sent {
        let received = call::received(realm.agent(&one.to)?, &one.id).await?;
        let expected = if one.to == POLICE { Disclosed::Withheld } else { Disclosed::Released };
        let health = received.sections.get("health").context("health is not told of")?;
        assert_eq!(health.disclosure(), expected, "{}", one.to);
        assert_eq!(health.content.is_some(), expected == Disclosed::Released);
        threads.push(received.thread);
        // Nobody gets the other's.
        let other = if one.to == POLICE { SHELTER } else { POLICE };
        let mut case = call::case(realm.agent(other)?)?;
        let request = liaison_proto::case::v1::GetReferralRequest { id: one.id.clone() };
        assert_eq!(call::refused(case.get_referral(request).await), Some(ErrorCode::UnknownMessage));
    }
    assert_ne!(threads.first(), threads.last());

    // The sender is told the rule that withheld.
    let to_police = sent.iter().find(|one| one.to == POLICE).context("nothing went to the police")?;
    let seen = call::referral_in(realm.agent(HOSPITAL)?, &to_police.id, State::Received).await?;
    let decision = seen.decision.context("no decision is told")?;
    let health = decision.categories.iter().find(|one| one.category() == Category::Health);
    let health = health.context("health is not decided")?;
    assert_eq!(health.verdict(), verdict::Code::Withheld);
    let rule = health.rule.as_ref().context("no rule is told")?;
    assert_eq!((rule.layer.as_str(), rule.rule.as_str()), ("scheme", "no-health-there"));
    assert_eq!(rule.explain, "A test forbids it.");
    Ok(())
}

#[tokio::test]
async fn a_recipient_is_told_withheld_only_where_policy_lets_it_be_told() -> Result<()> {
    // Everything but the obligation that names what was withheld.
    let silent = policies::OPEN.replace(r#"Action::"name_withheld", "#, "");
    for (scheme, expected) in [
        (policies::without_health(), Disclosed::Withheld),
        (policies::without_health().replace(policies::OPEN, &silent), Disclosed::NotDisclosed),
    ] {
        let realm = Realm::start(&scheme, &[HOSPITAL, SHELTER]).await?;
        let id = send_small(&realm).await?;
        let received = call::received(realm.agent(SHELTER)?, &id).await?;
        let told = |category: &str| received.sections.get(category).map(|section| section.disclosure());
        assert_eq!(told("health"), Some(expected));
        assert_eq!(told("narrative"), Some(Disclosed::NotDisclosed), "it was never there");
        let disclosures: Vec<i32> = received.sections.values().map(|section| section.disclosure).collect();
        assert!(!disclosures.contains(&Disclosed::Unspecified.into()), "{:?}", Disclosure::default());
    }
    Ok(())
}

#[tokio::test]
async fn a_category_without_a_basis_stays_with_its_sender() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let words = Words::fresh();
    let consent = message::consent(&[SHELTER], &[Category::ServiceRequest, Category::Consent]);
    let request = SendReferralRequest {
        content: Some(message::content(&words, consent)),
        ..message::referral(&[SHELTER], &words)
    };
    let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner().referrals;
    let id = &sent.first().context("no referral was made")?.id;
    let received = call::received(realm.agent(SHELTER)?, id).await?;
    let released: Vec<&String> = received
        .sections
        .iter()
        .filter(|(_, section)| section.disclosure() == Disclosed::Released)
        .map(|(name, _)| name)
        .collect();
    let mut released = released;
    released.sort();
    assert_eq!(released, ["consent", "service_request"]);
    let seen = call::referral_in(realm.agent(HOSPITAL)?, id, State::Received).await?;
    let decision = seen.decision.context("no decision is told")?;
    let health = decision.categories.iter().find(|one| one.category() == Category::Health);
    let rule = health.and_then(|one| one.rule.as_ref()).context("no rule is told for health")?;
    assert_eq!((rule.layer.as_str(), rule.rule.as_str()), ("consent", "none:basis"));
    Ok(())
}

#[tokio::test]
async fn an_alert_reaches_every_permitted_agency_and_no_other() -> Result<()> {
    let realm = Realm::start(&policies::closed_for(POLICE), &[HOSPITAL, SHELTER, POLICE, BORDER]).await?;
    // Everybody in the network: the shelter and the police. Border control is not in it.
    let audience = Audience { groups: vec!["network".to_owned()], ..Audience::default() };
    let mut case = call::case(realm.agent(HOSPITAL)?)?;
    let sent = case.send_alert(message::pattern_alert(audience)).await?.into_inner().alert;
    let id = sent.context("no alert was made")?.id;

    let received = call::received_alert(realm.agent(SHELTER)?, &id).await?;
    assert_eq!((received.from.as_str(), received.kind()), (HOSPITAL, AlertKind::ExploitationPattern));
    let pattern = received.sections.get("exploitation").context("the pattern is not told of")?;
    assert!(pattern.content.as_ref().is_some_and(|content| content.pattern.is_some()));

    let seen = liaison_demo::wait::until("the sender knows the end of each delivery", async || {
        let request = liaison_proto::case::v1::GetAlertRequest { id: id.clone() };
        let seen = case.get_alert(request).await.ok()?.into_inner();
        let state = |agency: &str| {
            seen.deliveries.iter().find(|delivery| delivery.agency == agency).map(|delivery| delivery.state())
        };
        (state(SHELTER) == Some(State::Received) && state(POLICE) == Some(State::Refused)).then_some(seen)
    })
    .await?;
    let agencies: Vec<&str> = seen.deliveries.iter().map(|delivery| delivery.agency.as_str()).collect();
    assert_eq!(agencies.len(), 2, "{agencies:?}");
    let police = seen.deliveries.iter().find(|delivery| delivery.agency == POLICE).context("police")?;
    let decision = police.decision.as_ref().and_then(|decision| decision.rule.as_ref());
    assert_eq!(decision.map(|rule| rule.rule.as_str()), Some("nothing-there"));
    for agency in [POLICE, BORDER] {
        let ids = call::received_alert_ids(realm.agent(agency)?, Exercise::Actual.into()).await?;
        assert!(ids.is_empty(), "{agency} received {ids:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_alert_about_a_child_goes_by_sector_and_country() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE, BORDER]).await?;
    let words = Words::fresh();
    // Border control is of another country.
    let audience = Audience {
        sectors: vec![sector::Code::LawEnforcement.into(), sector::Code::BorderManagement.into()],
        countries: vec!["be".to_owned()],
        ..Audience::default()
    };
    let request = message::missing_minor_alert(audience, &words);
    let sent = call::case(realm.agent(HOSPITAL)?)?.send_alert(request).await?.into_inner().alert;
    let sent = sent.context("no alert was made")?;
    let received = call::received_alert(realm.agent(POLICE)?, &sent.id).await?;
    let identity = received.sections.get("identity").and_then(|section| section.content.as_ref());
    let name = identity.and_then(|content| content.identity.as_ref()?.names.first());
    assert_eq!(name.map(|name| &name.given), Some(&words.of(Category::Identity)));
    for agency in [SHELTER, BORDER] {
        assert!(call::received_alert_ids(realm.agent(agency)?, Exercise::Actual.into()).await?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn exercise_traffic_stands_apart() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let real = send_small(&realm).await?;
    let mut request = message::small_referral(SHELTER);
    request.set_status(Exercise::Exercise);
    let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner().referrals;
    let exercise = sent.first().context("no referral was made")?.id.clone();
    let shelter = realm.agent(SHELTER)?;
    call::received(shelter, &real).await?;
    call::received(shelter, &exercise).await?;
    for (status, expected) in
        [(0, &real), (Exercise::Actual.into(), &real), (Exercise::Exercise.into(), &exercise)]
    {
        for (agent, direction) in
            [(shelter, direction::Code::Received), (realm.agent(HOSPITAL)?, direction::Code::Sent)]
        {
            let request = ListReferralsRequest { status, direction: direction.into(), ..Default::default() };
            let listed = call::case(agent)?.list_referrals(request).await?.into_inner().referrals;
            let ids: Vec<&String> = listed.iter().map(|referral| &referral.id).collect();
            assert_eq!(ids, [expected], "status {status} at {}", agent.agency);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_preview_is_what_happens() -> Result<()> {
    let realm = Realm::start(&policies::without_health_for(POLICE), &[HOSPITAL, SHELTER, POLICE]).await?;
    let hospital = realm.agent(HOSPITAL)?;
    let words = Words::fresh();
    let consent =
        message::consent(&[SHELTER, POLICE], &[Category::ServiceRequest, Category::Health, Category::Risk]);
    let request = SendReferralRequest {
        content: Some(message::content(&words, consent)),
        ..message::referral(&[SHELTER, POLICE], &words)
    };
    let question = PreviewRequest { message: Some(preview_request::Message::Referral(request.clone())) };
    let preview = call::case(hospital)?.preview(question).await?.into_inner();
    // Looking ahead sends nothing.
    assert!(call::received_ids(realm.agent(SHELTER)?).await?.is_empty());
    let sent = call::case(hospital)?.send_referral(request).await?.into_inner().referrals;
    for one in &sent {
        let seen = call::referral_in(hospital, &one.id, State::Received).await?;
        let told = preview.recipients.iter().find(|decision| decision.recipient == one.to);
        assert_eq!(told, seen.decision.as_ref(), "{}", one.to);
        assert_eq!(preview.policy_hash, seen.policy_hash);
    }
    Ok(())
}

#[tokio::test]
async fn the_same_idempotency_key_gives_the_same_answer() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let hospital = realm.agent(HOSPITAL)?;
    let keyed = |request: SendReferralRequest| -> Result<Request<SendReferralRequest>> {
        let mut request = Request::new(request);
        request.metadata_mut().insert("idempotency-key", "case-4711".parse()?);
        Ok(request)
    };
    let request = message::small_referral(SHELTER);
    let first = call::case(hospital)?.send_referral(keyed(request.clone())?).await?.into_inner().referrals;
    let again = call::case(hospital)?.send_referral(keyed(request.clone())?).await?.into_inner().referrals;
    let ids = |referrals: &[liaison_proto::case::v1::Referral]| -> Vec<String> {
        referrals.iter().map(|referral| referral.id.clone()).collect()
    };
    assert_eq!(ids(&first), ids(&again));
    let other = call::case(hospital)?.send_referral(keyed(message::small_referral(SHELTER))?).await;
    assert_eq!(call::refused(other), Some(ErrorCode::IdempotencyConflict));
    let shelter = realm.agent(SHELTER)?;
    call::received(shelter, first.first().map(|one| one.id.as_str()).unwrap_or_default()).await?;
    assert_eq!(call::received_ids(shelter).await?, ids(&first));
    Ok(())
}

#[tokio::test]
async fn a_referral_that_policy_forbids_is_refused_with_its_rule() -> Result<()> {
    let realm = Realm::start(&policies::closed_for(SHELTER), &[HOSPITAL, SHELTER]).await?;
    let id = send_small(&realm).await?;
    let seen = call::referral_in(realm.agent(HOSPITAL)?, &id, State::Refused).await?;
    let refusal = seen.refusal.context("no refusal is told")?;
    assert_eq!(refusal.code(), ErrorCode::ForbiddenByPolicy, "{refusal}");
    assert_eq!(refusal.rule.map(|rule| rule.rule), Some("nothing-there".to_owned()));
    assert!(call::received_ids(realm.agent(SHELTER)?).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_a_person_has_to_release_is_refused_with_its_rule() -> Result<()> {
    let held = policies::OPEN.replace(r#"Action::"auto_release", "#, "");
    let realm = Realm::start(&held, &[HOSPITAL, SHELTER]).await?;
    let hospital = realm.agent(HOSPITAL)?;
    let request = message::small_referral(SHELTER);
    let question = PreviewRequest { message: Some(preview_request::Message::Referral(request.clone())) };
    let preview = call::case(hospital)?.preview(question).await?.into_inner();
    let categories = preview.recipients.first().map(|one| one.categories.as_slice()).unwrap_or_default();
    assert!(!categories.is_empty());
    for one in categories {
        assert_eq!(one.verdict(), verdict::Code::Held, "{:?}", one.category());
    }
    let sent = call::case(hospital)?.send_referral(request).await?.into_inner().referrals;
    let id = &sent.first().context("no referral was made")?.id;
    let refusal = call::referral_in(hospital, id, State::Refused).await?.refusal.context("no refusal")?;
    assert_eq!(refusal.code(), ErrorCode::ForbiddenByPolicy);
    assert_eq!(refusal.rule.map(|rule| rule.rule), Some("none:scheme".to_owned()));
    Ok(())
}

#[tokio::test]
async fn the_commands_send_and_read() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let file = realm.folder().join("referral.json");
    let words = Words::fresh();
    let content = ReferralContent {
        health: Some(liaison_proto::message::v1::Health {
            physical: words.of(Category::Health),
            ..Default::default()
        }),
        consent: Some(message::consent(&[SHELTER], &[Category::Health])),
        ..ReferralContent::default()
    };
    let request = SendReferralRequest { content: Some(content), ..message::referral(&[SHELTER], &words) };
    let json = serde_json::json!({ "referral": message::to_json(&request)? });
    std::fs::write(&file, json.to_string())?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    let sent = hospital.command(&["--json", "send", &file.to_string_lossy()]).await?;
    let sent: serde_json::Value = serde_json::from_str(&sent)?;
    let id = sent.pointer("/referrals/0/id").and_then(|id| id.as_str()).context("no id is printed")?;
    call::received(shelter, id).await?;
    let inbox = shelter.command(&["--json", "inbox"]).await?;
    assert!(inbox.contains(id), "{inbox}");
    for (agent, command) in [(hospital, "status"), (hospital, "doctor"), (shelter, "inbox")] {
        agent.command(&[command]).await?;
    }
    for command in [["agency", "list"].as_slice(), &["doctor"], &["agency", "show", SHELTER]] {
        let text = realm.gateway.command(command).await?;
        serde_json::from_str::<serde_json::Value>(
            &realm.gateway.command(&[&["--json"], command].concat()).await?,
        )?;
        assert!(!text.is_empty());
    }
    // Wrong use is told apart from failure.
    assert_eq!(hospital.attempt(&["send"]).await?.status.code(), Some(2));
    assert_eq!(hospital.attempt(&["send", "/nowhere.json"]).await?.status.code(), Some(1));
    assert_eq!(realm.gateway.attempt(&["agency", "show", "be/nobody"]).await?.status.code(), Some(1));
    assert_eq!(realm.gateway.attempt(&["agency", "praise"]).await?.status.code(), Some(2));
    Ok(())
}

/// The hospital refers a small case to the shelter; its id.
async fn send_small(realm: &Realm) -> Result<String> {
    let request = message::small_referral(SHELTER);
    let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner().referrals;
    Ok(sent.first().context("no referral was made")?.id.clone())
}
