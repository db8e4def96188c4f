//! The originator's permission: asked, answered, and forged.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_restricted_referral_goes_once_the_originator_grants_it() {
    for handling in [
        Handling { police: Police::H2.into(), tlp: 0 },
        Handling { police: Police::H3.into(), tlp: 0 },
        Handling { police: 0, tlp: Tlp::AmberStrict.into() },
    ] {
        let case = Case::new(Some(handling)).await;
        let asking =
            |categories: &[Category]| ReferOnwardRequest { categories: only(categories), ..case.request() };
        let asked = case.asked(asking(&[HEALTH, CONSENT])).await;
        assert_eq!(asked.step(), Step::Asked);
        assert_eq!((asked.from.as_str(), asked.originator.as_str()), ("be/shelter", "be/police"));
        assert_eq!((asked.to.as_str(), asked.referral.clone()), ("be/clinic", case.id.to_string()));
        assert_eq!(asked.categories, only(&[HEALTH, CONSENT]));
        assert_eq!(case.asked(asking(&[HEALTH, CONSENT])).await, asked, "one question waits");
        assert_eq!(case.asked(asking(&[NARRATIVE])).await, asked, "whatever else is asked meanwhile");
        assert_eq!(outbox(&case.shelter).await, 1);

        case.answered(&asked, Step::Granted).await;
        let [at_police] = requests(&case.police).await.try_into().unwrap();
        let [at_shelter] = requests(&case.shelter).await.try_into().unwrap();
        assert_eq!((at_police.step(), at_shelter.step()), (Step::Granted, Step::Granted));
        assert_eq!((at_police.direction, at_shelter.direction), (2, 1));
        assert!(at_police.answered.is_some() && at_shelter.answered.is_some());
        assert_eq!((&at_police.id, &at_police.referral), (&at_shelter.id, &at_shelter.referral));

        let (_, draft) = case.sent(asking(&[HEALTH, CONSENT])).await;
        assert_eq!(draft.handling, Some(handling));
        let (_, draft) = case.sent(asking(&[HEALTH])).await;
        assert_eq!(draft.sections.keys().copied().collect::<Vec<_>>(), [HEALTH]);
        let more = case.asked(asking(&[])).await;
        assert_eq!(
            more.categories,
            only(&[HEALTH, CONSENT, NARRATIVE]),
            "beyond the grant is another question"
        );
        assert_ne!(more.id, asked.id);
        let elsewhere = ReferOnwardRequest { to: "be/hotel".into(), ..asking(&[HEALTH]) };
        assert_eq!(case.asked(elsewhere).await.to, "be/hotel", "the grant is for the clinic");
        let otherwise = ReferOnwardRequest { purpose: Purpose::Protection.into(), ..asking(&[HEALTH]) };
        assert_eq!(case.asked(otherwise).await.purpose(), Purpose::Protection);
        let audited = case.shelter.store.audited(case.id).await;
        assert_eq!(audited[0], ("bea".into(), "ask_onward".into()));
        let audited = case.police.store.audited(case.id).await;
        assert_eq!(audited.last(), Some(&("ann".into(), "grant_onward".into())));
    }
}

#[tokio::test]
async fn what_is_denied_does_not_go() {
    let case = Case::new(police(Police::H2)).await;
    let asking =
        |categories: &[Category]| ReferOnwardRequest { categories: only(categories), ..case.request() };
    let asked = case.asked(asking(&[HEALTH, NARRATIVE])).await;
    case.answered(&asked, Step::Denied).await;
    for again in [&[HEALTH, NARRATIVE][..], &[HEALTH]] {
        let refusal = case.refer(asking(again)).await.unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::OnwardForbidden);
        assert!(refusal.message.contains("be/police"), "{refusal}");
    }
    assert_eq!(outbox(&case.shelter).await, 0);
    assert_eq!(case.police.store.audited(case.id).await.last().unwrap().1, "deny_onward");
}

#[tokio::test]
async fn a_request_is_answered_once() {
    let case = Case::new(police(Police::H2)).await;
    let asked = case.asked(case.request()).await;
    let code = async |agent, step| answer(agent, &asked.id, step).await.map_err(|refusal| refusal.code());
    assert_eq!(code(&case.police, Step::Granted).await, Err(ErrorCode::UnknownMessage), "not there yet");
    assert_eq!(code(&case.shelter, Step::Granted).await, Err(ErrorCode::UnknownMessage), "it asked itself");
    case.to_police().await;
    assert_eq!(code(&case.police, Step::Asked).await, Err(ErrorCode::Malformed));
    assert_eq!(code(&case.police, Step::Unspecified).await, Err(ErrorCode::MissingField));
    let granted = code(&case.police, Step::Granted).await.unwrap();
    assert_eq!(granted.step(), Step::Granted);
    assert_eq!(code(&case.police, Step::Granted).await, Ok(granted), "the same again");
    assert_eq!(code(&case.police, Step::Denied).await, Err(ErrorCode::TransitionNotAllowed));
    assert_eq!(outbox(&case.police).await, 1);
}

#[tokio::test]
async fn only_the_recipient_of_the_referral_asks() {
    let case = Case::new(police(Police::H2)).await;
    let (_dir, hotel) = case.domain.agent("hotel").await;
    for agent in [&case.police, &case.shelter] {
        introduce(agent, &hotel).await;
    }
    let genuine = case.asked(case.request()).await;
    let ask = said(&genuine, Step::Asked);
    let (police, shelter) = (&case.police, &case.shelter);
    let as_is = |_: &mut NewMessage| ();
    assert_eq!(case.said(&hotel, police, ask.clone(), as_is).await, ErrorCode::NotAParty);
    let by_originator = Said { request: Uuid::now_v7().as_bytes().to_vec().into(), ..ask.clone() };
    assert_eq!(case.said(police, shelter, by_originator.clone(), as_is).await, ErrorCode::NotAParty);
    let elsewhere = |message: &mut NewMessage| message.thread = Uuid::now_v7();
    assert_eq!(case.said(shelter, police, ask.clone(), elsewhere).await, ErrorCode::UnknownMessage);
    let exercise = |message: &mut NewMessage| message.status = Status::Exercise;
    assert_eq!(case.said(shelter, police, ask.clone(), exercise).await, ErrorCode::Malformed);
    for to in ["be/police", "be/shelter"] {
        let back = Said { to: to.into(), ..ask.clone() };
        assert_eq!(case.said(shelter, police, back, as_is).await, ErrorCode::Malformed, "{to}");
    }
    let aimless = Said { purpose: 0, ..ask.clone() };
    assert_eq!(case.said(shelter, police, aimless, as_is).await, ErrorCode::Malformed);
    assert!(requests(police).await.is_empty());

    // What is asked for is not compared with what was sent: the answer would tell what was withheld.
    let never_sent = Said { categories: vec![Category::Migration.into()], ..by_originator };
    assert_eq!(case.said(shelter, police, never_sent, as_is).await, ErrorCode::Unspecified);
    case.to_police().await;
    assert_eq!(requests(police).await.len(), 2);
    let other = Said { to: "be/hotel".into(), ..ask };
    assert_eq!(case.said(shelter, police, other, as_is).await, ErrorCode::IdReused);
    let known = requests(police).await.into_iter().find(|request| request.id == genuine.id).unwrap();
    assert_eq!(known.to, "be/clinic");
}

#[tokio::test]
async fn only_the_originator_s_answer_to_what_was_asked_is_taken() {
    let case = Case::new(police(Police::H2)).await;
    let (_dir, hotel) = case.domain.agent("hotel").await;
    for agent in [&case.police, &case.shelter] {
        introduce(agent, &hotel).await;
    }
    let asked = case.asked(case.request()).await;
    case.to_police().await;
    let grant = said(&asked, Step::Granted);
    let (police, shelter) = (&case.police, &case.shelter);
    let as_is = |_: &mut NewMessage| ();
    assert_eq!(case.said(&hotel, shelter, grant.clone(), as_is).await, ErrorCode::NotAParty);
    assert_eq!(case.said(shelter, police, grant.clone(), as_is).await, ErrorCode::NotAParty, "to itself");
    for altered in [
        Said { to: "be/hotel".into(), ..grant.clone() },
        Said { purpose: Purpose::Prevention.into(), ..grant.clone() },
        Said { categories: vec![HEALTH.into()], ..grant.clone() },
    ] {
        assert_eq!(case.said(police, shelter, altered, as_is).await, ErrorCode::Malformed);
    }
    let unasked = Said { request: Uuid::now_v7().as_bytes().to_vec().into(), ..grant.clone() };
    assert_eq!(case.said(police, shelter, unasked, as_is).await, ErrorCode::UnknownMessage);
    // A grant in the thread of another referral between the same two.
    let second = add(&police.store, referral(&shelter.address)).await;
    let thread = police.store.message(second).await.unwrap().unwrap().thread;
    case.to_shelter().await;
    let elsewhere = |message: &mut NewMessage| message.thread = thread;
    assert_eq!(case.said(police, shelter, grant.clone(), elsewhere).await, ErrorCode::UnknownMessage);
    assert_eq!(requests(shelter).await[0].step(), Step::Asked);
    assert_eq!(requests(police).await[0].step(), Step::Asked);

    assert_eq!(case.said(police, shelter, said(&asked, Step::Denied), as_is).await, ErrorCode::Unspecified);
    let denied = requests(shelter).await;
    assert_eq!(denied[0].step(), Step::Denied);
    assert_eq!(case.said(police, shelter, said(&asked, Step::Denied), as_is).await, ErrorCode::Unspecified);
    assert_eq!(requests(shelter).await, denied, "the same again changes nothing");
    assert_eq!(case.said(police, shelter, grant, as_is).await, ErrorCode::TransitionNotAllowed);
    assert_eq!(case.refused(case.request()).await, ErrorCode::OnwardForbidden);
}

#[tokio::test]
async fn a_grant_that_is_delivered_again_grants_nothing_new() {
    let case = Case::new(police(Police::H2)).await;
    let asked = case.asked(ReferOnwardRequest { categories: only(&[HEALTH]), ..case.request() }).await;
    case.to_police().await;
    answer(&case.police, &asked.id, Step::Granted).await.unwrap();
    let [id] = case.police.store.due(OffsetDateTime::now_utc(), &Default::default(), 9).await.unwrap()[..]
    else {
        panic!("not one")
    };
    let copy = case.domain.copy(seal(&case.police, &case.shelter, id).await);
    for _ in 0..2 {
        let delivery = Delivery { content: Some(delivery::Content::Copy(copy.clone())) };
        assert!(matches!(inbox::take(&case.shelter, delivery).await.unwrap(), Answer::Held(Some(_))));
    }
    let more =
        case.asked(ReferOnwardRequest { categories: only(&[HEALTH, NARRATIVE]), ..case.request() }).await;
    let delivery = Delivery { content: Some(delivery::Content::Copy(copy)) };
    assert!(matches!(inbox::take(&case.shelter, delivery).await.unwrap(), Answer::Held(Some(_))));
    let newest = &requests(&case.shelter).await[0];
    assert_eq!((&newest.id, newest.step()), (&more.id, Step::Asked));
}

#[tokio::test]
async fn what_was_not_delivered_may_be_asked_and_answered_again() {
    let case = Case::new(police(Police::H2)).await;
    let lost = |agent: &Agent| {
        let store = agent.store.clone();
        async move {
            let ids = store.due(OffsetDateTime::now_utc(), &Default::default(), 9).await.unwrap();
            store.refused(ids[0], &Refusal::new(ErrorCode::Expired, "late", "again")).await.unwrap();
        }
    };
    let first = case.asked(case.request()).await;
    lost(&case.shelter).await;
    assert!(requests(&case.shelter).await.is_empty());
    let told = case.shelter.store.message(case.id).await.unwrap().unwrap().refusal;
    assert_eq!(told.unwrap().code(), ErrorCode::Expired);
    let second = case.asked(case.request()).await;
    assert_ne!(second.id, first.id);

    case.to_police().await;
    answer(&case.police, &second.id, Step::Denied).await.unwrap();
    lost(&case.police).await;
    assert_eq!(requests(&case.police).await[0].step(), Step::Asked);
    answer(&case.police, &second.id, Step::Granted).await.unwrap();
    case.to_shelter().await;
    case.sent(case.request()).await;
}

#[tokio::test]
async fn both_sides_see_their_requests_over_rest() {
    let served = Served::new().await;
    let health = ReferralContent { health: content().health, ..ReferralContent::default() };
    let id = served.receive_sections([(HEALTH, health.encode_to_vec())]).await;
    let path = format!("/v1/referrals/{id}/onward");
    let request = json!({"to": "be/clinic", "purpose": "victim_support", "categories": ["health"]});
    let (status, refused) = served.call("POST", &path, Some(&request)).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (403, Some("onward_forbidden")), "{refused}");
    let mut elsewhere = request.clone();
    elsewhere["id"] = json!(Uuid::now_v7().to_string());
    assert_eq!(served.call("POST", &path, Some(&elsewhere)).await.0, 400);

    let question = crate::store::Question {
        referral: id,
        to: "be/clinic".parse().unwrap(),
        purpose: Purpose::VictimSupport,
        categories: vec![HEALTH],
    };
    let asked = served.agent.store.ask_onward(&question, "anna").await.unwrap();
    let later = crate::store::Question { purpose: Purpose::Protection, ..question };
    let later = served.agent.store.ask_onward(&later, "anna").await.unwrap();
    let (_, page) = served.call("GET", "/v1/onward-requests?direction=sent&pageSize=1", None).await;
    assert_eq!(page["requests"][0]["id"], later.id.to_string());
    let token = page["nextPageToken"].as_str().unwrap();
    let (_, page) =
        served.call("GET", &format!("/v1/onward-requests?pageSize=1&pageToken={token}"), None).await;
    let shown = &page["requests"][0];
    assert_eq!(shown["id"], asked.id.to_string());
    assert_eq!((shown["step"].as_str(), shown["from"].as_str()), (Some("asked"), Some("be/shelter")));
    assert_eq!(shown["categories"], json!(["health"]));
    assert_eq!(page["nextPageToken"], "");
    let (_, page) = served.call("GET", "/v1/onward-requests?direction=received", None).await;
    assert_eq!(page["requests"], json!([]));
    let answer = format!("/v1/onward-requests/{}/answer", asked.id);
    let (status, refused) = served.call("POST", &answer, Some(&json!({"step": "granted"}))).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (404, Some("unknown_message")));
    assert_eq!(served.call("POST", &answer, Some(&json!({"step": "asked"}))).await.0, 400);
}
