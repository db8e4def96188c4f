//! Referring onward: be/police has sent to be/shelter, which refers to be/clinic.

use liaison_proto::{
    case::v1::{
        AnswerOnwardRequestRequest, ClaimedBasis, GetReferralRequest, ListOnwardRequestsRequest,
        OnwardRequest as Shown, ReferOnwardRequest, Referral, refer_onward_response::Outcome,
    },
    message::v1::{
        Consent, ConsentExclusion, ConsentScope, Demographic, Handling, Narrative, OnwardRequest as Said,
        Refusal, age_band::Code as AgeBand, consent_source::Code as ConsentSource,
        error_code::Code as ErrorCode, kind::Code as Kind, onward_step::Code as Step,
        police_handling::Code as Police, purpose::Code as Purpose, status::Code as Status, tlp::Code as Tlp,
    },
    times,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::{
    case::{caller::Caller, onward, operations},
    inbox::Answer,
    outbox::NewMessage,
    split,
    store::Waiting,
    testing::{accepted, convey},
};

/// The agents of the police, which originates, and of the shelter, which has received.
struct Case {
    domain: Domain,
    police: Agent,
    shelter: Agent,
    id: Uuid,
    _dirs: [TempDir; 2],
}

const HEALTH: Category = Category::Health;
const NARRATIVE: Category = Category::Narrative;
const CONSENT: Category = Category::Consent;

impl Case {
    /// Health, narrative and consent may be shared onward.
    async fn new(handling: Option<Handling>) -> Self {
        Self::with(handling, Status::Actual, content(), &[HEALTH, NARRATIVE, CONSENT]).await
    }

    async fn with(
        handling: Option<Handling>,
        status: Status,
        content: ReferralContent,
        onward: &[Category],
    ) -> Self {
        let domain = Domain::new();
        let (police_dir, police) = domain.agent("police").await;
        let (shelter_dir, shelter) = domain.agent("shelter").await;
        introduce(&police, &shelter).await;
        introduce(&shelter, &police).await;
        for name in ["clinic", "hotel", "police"] {
            list(&shelter, name).await;
        }
        let sections = split::referral(&content).unwrap();
        let bases = sections.keys().map(|category| (*category, Basis::ConsentOfPerson)).collect();
        let message = NewMessage {
            handling,
            status,
            sections,
            recipients: vec![(shelter.address.clone(), bases)],
            ..referral(&shelter.address)
        };
        let id = add(&police.store, message).await;
        let answers = convey(&domain, &police, &shelter, onward).await;
        assert!(matches!(answers.as_slice(), [Answer::Held(Some(_))]));
        Self { domain, police, shelter, id, _dirs: [police_dir, shelter_dir] }
    }

    fn request(&self) -> ReferOnwardRequest {
        ReferOnwardRequest {
            id: self.id.to_string(),
            to: "be/clinic".into(),
            purpose: Purpose::VictimSupport.into(),
            ..ReferOnwardRequest::default()
        }
    }

    async fn refer(&self, request: ReferOnwardRequest) -> Result<Outcome, Refusal> {
        let answer = onward::refer_onward(&self.shelter, &caller("bea", None), request).await?;
        Ok(answer.outcome.unwrap())
    }

    async fn sent(&self, request: ReferOnwardRequest) -> (Referral, Box<NewMessage>) {
        match self.refer(request).await {
            Ok(Outcome::Referral(referral)) => {
                let id = referral.id.parse().unwrap();
                let Some(Waiting::Draft(draft)) = self.shelter.store.waiting(id).await.unwrap() else {
                    panic!("not in the outbox")
                };
                (referral, draft)
            }
            Ok(Outcome::Request(request)) => panic!("asked: {request:?}"),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    async fn asked(&self, request: ReferOnwardRequest) -> Shown {
        match self.refer(request).await {
            Ok(Outcome::Request(request)) => request,
            Ok(Outcome::Referral(_)) => panic!("sent"),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    async fn refused(&self, request: ReferOnwardRequest) -> ErrorCode {
        self.refer(request).await.err().map_or(ErrorCode::Unspecified, |refusal| refusal.code())
    }

    async fn to_police(&self) {
        let answers = convey(&self.domain, &self.shelter, &self.police, &[]).await;
        assert!(matches!(answers.as_slice(), [Answer::Held(Some(_))]), "{}", answers.len());
    }

    async fn to_shelter(&self) {
        let answers = convey(&self.domain, &self.police, &self.shelter, &[]).await;
        assert!(matches!(answers.as_slice(), [Answer::Held(Some(_))]), "{}", answers.len());
    }

    /// The police answers what the shelter asked, and each learns of it.
    async fn answered(&self, asked: &Shown, step: Step) {
        self.to_police().await;
        answer(&self.police, &asked.id, step).await.unwrap();
        self.to_shelter().await;
    }

    /// A message about referring onward in the thread of the case, by anybody.
    async fn said(
        &self,
        by: &Agent,
        to: &Agent,
        said: Said,
        change: impl FnOnce(&mut NewMessage),
    ) -> ErrorCode {
        let thread = self.shelter.store.message(self.id).await.unwrap().unwrap().thread;
        let mut message = NewMessage {
            thread,
            kind: Kind::Onward,
            onward: Some(said),
            facts: None,
            sections: Default::default(),
            recipients: vec![(to.address.clone(), Default::default())],
            ..referral(&to.address)
        };
        change(&mut message);
        let id = add(&by.store, message).await;
        let copy = self.domain.copy(seal(by, to, id).await);
        accepted(&self.domain, by, id).await;
        match inbox::take(to, Delivery { content: Some(delivery::Content::Copy(copy)) }).await.unwrap() {
            Answer::Refused(refusal) => refusal.code(),
            Answer::Held(_) => ErrorCode::Unspecified,
            Answer::NotNow => panic!("not now"),
        }
    }
}

async fn list(agent: &Agent, name: &str) {
    let listed = Listed {
        address: format!("be/{name}"),
        country: "be".into(),
        sectors: vec![Sector::HealthServiceOrganisation.into()],
        ..Listed::default()
    };
    agent.store.set_agency(&listed.address.parse().unwrap(), &listed).await.unwrap();
}

fn content() -> ReferralContent {
    ReferralContent {
        health: Some(Health { physical: "broken arm".into(), ..Health::default() }),
        narrative: Some(Narrative { text: "a story".into() }),
        consent: Some(consent(&[HEALTH, CONSENT])),
        ..ReferralContent::default()
    }
}

/// To be/clinic.
fn consent(categories: &[Category]) -> Consent {
    Consent {
        obtained_from: ConsentSource::Individual.into(),
        obtained_at: Some(times::to_wire(OffsetDateTime::now_utc() - Duration::DAY)),
        for_disclosure: true,
        scopes: vec![ConsentScope {
            categories: categories.iter().map(|category| i32::from(*category)).collect(),
            agencies: vec!["be/clinic".into()],
            purposes: vec![Purpose::VictimSupport.into()],
            ..ConsentScope::default()
        }],
        ..Consent::default()
    }
}

fn police(code: Police) -> Option<Handling> {
    Some(Handling { police: code.into(), tlp: 0 })
}

fn caller(actor: &str, key: Option<&str>) -> Caller {
    Caller { actor: actor.into(), idempotency_key: key.map(str::to_owned) }
}

fn only(categories: &[Category]) -> Vec<i32> {
    categories.iter().map(|category| i32::from(*category)).collect()
}

async fn answer(agent: &Agent, id: &str, step: Step) -> Result<Shown, Refusal> {
    let request = AnswerOnwardRequestRequest { id: id.to_owned(), step: step.into() };
    onward::answer_request(agent, &caller("ann", None), request).await
}

async fn requests(agent: &Agent) -> Vec<Shown> {
    let all = ListOnwardRequestsRequest::default();
    onward::list_requests(agent, all).await.unwrap().requests
}

async fn outbox(agent: &Agent) -> u64 {
    agent.store.counts().await.unwrap().outbox
}

/// What the asker's message said of a request.
fn said(request: &Shown, step: Step) -> Said {
    let id: Uuid = request.id.parse().unwrap();
    Said {
        request: id.as_bytes().to_vec().into(),
        step: step.into(),
        to: request.to.clone(),
        purpose: request.purpose,
        categories: request.categories.clone(),
    }
}

#[tokio::test]
async fn what_may_go_goes_as_a_new_message_with_the_originator_s_codes() {
    let handling = Some(Handling { police: Police::H1.into(), tlp: Tlp::Green.into() });
    let case = Case::with(handling, Status::Actual, content(), &[HEALTH, CONSENT]).await;
    let received = case.shelter.store.message(case.id).await.unwrap().unwrap();
    let (referral, draft) = case.sent(case.request()).await;
    assert_eq!((referral.from.as_str(), referral.to.as_str()), ("be/shelter", "be/clinic"));
    assert_eq!(referral.onward_of, case.id.to_string());
    assert_eq!((referral.at.as_str(), referral.handling), ("be/shelter", handling));
    assert!(draft.id != case.id && draft.thread != received.thread);
    assert_eq!(draft.handling, handling);
    assert_eq!(draft.onward_of, Some(case.id));
    assert_eq!(draft.sections.keys().copied().collect::<Vec<_>>(), [HEALTH, CONSENT]);
    let health = ReferralContent::decode(draft.sections[&HEALTH].as_slice()).unwrap();
    assert_eq!(health.health, content().health);
    let bases = [(HEALTH, Basis::ConsentOfPerson), (CONSENT, Basis::ConsentOfPerson)].into();
    assert_eq!(draft.recipients, [("be/clinic".parse().unwrap(), bases)]);
    assert!(!draft.facts.as_ref().unwrap().minor);

    let (bea, request) = (caller("bea", None), GetReferralRequest { id: case.id.to_string() });
    let shown = operations::get_referral(&case.shelter, &bea, request).await.unwrap();
    assert_eq!((shown.at.as_str(), shown.onward_of.as_str(), shown.parts.len()), ("", "", 0));
    assert!(requests(&case.shelter).await.is_empty());
    let done = |actor: &str, action: &str| (actor.to_owned(), action.to_owned());
    assert_eq!(case.shelter.store.audited(draft.id).await, [done("bea", "send")]);
    assert_eq!(case.shelter.store.audited(case.id).await, [done("bea", "refer_onward"), done("bea", "read")]);
}

#[tokio::test]
async fn what_may_not_go_is_named_and_nothing_is_sent() {
    let case = Case::with(None, Status::Actual, content(), &[HEALTH, CONSENT]).await;
    let asking =
        |categories: &[Category]| ReferOnwardRequest { categories: only(categories), ..case.request() };
    let refusal = case.refer(asking(&[HEALTH, NARRATIVE, Category::Risk])).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::OnwardForbidden);
    assert!(refusal.message.contains("risk, narrative"), "{refusal}");
    assert!(!refusal.message.contains("health"), "{refusal}");

    let to = |to: &str| ReferOnwardRequest { to: to.into(), ..case.request() };
    assert_eq!(case.refused(to("be/police")).await, ErrorCode::Malformed, "back to where it came from");
    assert_eq!(case.refused(to("be/shelter")).await, ErrorCode::ToOneself);
    assert_eq!(case.refused(to("nobody")).await, ErrorCode::Malformed);
    assert_eq!(case.refused(to("be/stranger")).await, ErrorCode::GatewayUnreachable, "it can't be looked up");
    let no_purpose = ReferOnwardRequest { purpose: 0, ..case.request() };
    assert_eq!(case.refused(no_purpose).await, ErrorCode::MissingField);
    let id = |id: Uuid| ReferOnwardRequest { id: id.to_string(), ..case.request() };
    assert_eq!(case.refused(id(Uuid::now_v7())).await, ErrorCode::UnknownMessage);
    assert_eq!(outbox(&case.shelter).await, 0);
    let (sent, _) = case.sent(case.request()).await;
    assert_eq!(case.refused(id(sent.id.parse().unwrap())).await, ErrorCode::Malformed, "it is its own");

    let nothing = Case::with(None, Status::Actual, content(), &[]).await;
    assert_eq!(nothing.refused(nothing.request()).await, ErrorCode::OnwardForbidden);
    case.shelter.store.erase_due(OffsetDateTime::now_utc() + Duration::days(30)).await.unwrap();
    assert_eq!(case.refused(case.request()).await, ErrorCode::OnwardForbidden, "it is not here any more");
}

#[tokio::test]
async fn a_police_code_keeps_it_to_its_purposes() {
    let case = Case::new(police(Police::H0)).await;
    let purpose = |purpose: Purpose| ReferOnwardRequest { purpose: purpose.into(), ..case.request() };
    assert_eq!(case.refused(purpose(Purpose::VictimSupport)).await, ErrorCode::OnwardForbidden);
    for allowed in [Purpose::CriminalInvestigation, Purpose::Prevention] {
        assert_eq!(case.sent(purpose(allowed)).await.1.handling, police(Police::H0));
    }
    let case = Case::new(police(Police::H1)).await;
    let care = ReferOnwardRequest { purpose: Purpose::HealthCare.into(), ..case.request() };
    assert_eq!(case.refused(care).await, ErrorCode::OnwardForbidden);
}

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
async fn the_basis_is_the_new_consent_or_the_received_one() {
    let basis = |draft: &NewMessage, category: Category| draft.recipients[0].1.get(&category).copied();
    // Received and shareable, though it is not sent along.
    let case = Case::new(None).await;
    let (_, draft) = case.sent(ReferOnwardRequest { categories: only(&[HEALTH]), ..case.request() }).await;
    assert_eq!(draft.sections.len(), 1);
    assert_eq!(basis(&draft, HEALTH), Some(Basis::ConsentOfPerson));
    let (_, draft) = case.sent(case.request()).await;
    assert_eq!(basis(&draft, NARRATIVE), None, "the person did not consent to it");
    // Given anew, in the place of the received one.
    let guardian =
        Consent { obtained_from: ConsentSource::Caregiver.into(), ..consent(&[NARRATIVE, CONSENT]) };
    let (_, draft) =
        case.sent(ReferOnwardRequest { consent: Some(guardian.clone()), ..case.request() }).await;
    assert_eq!(basis(&draft, NARRATIVE), Some(Basis::ConsentOfGuardian));
    assert_eq!(basis(&draft, HEALTH), None);
    let sent = ReferralContent::decode(draft.sections[&CONSENT].as_slice()).unwrap();
    assert_eq!(sent.consent, Some(guardian));
    let unsaid = Consent { obtained_from: 0, ..consent(&[HEALTH]) };
    let refusal =
        case.refer(ReferOnwardRequest { consent: Some(unsaid), ..case.request() }).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::MissingField);

    // Not to be shared: no basis, and still a limit to what is claimed.
    let excluding = Consent {
        exclusions: vec![ConsentExclusion {
            categories: only(&[NARRATIVE]),
            agencies: vec!["be/clinic".into()],
            ..ConsentExclusion::default()
        }],
        ..consent(&[HEALTH, NARRATIVE])
    };
    let content = ReferralContent { consent: Some(excluding), ..content() };
    let case = Case::with(None, Status::Actual, content, &[HEALTH, NARRATIVE]).await;
    assert!(case.sent(case.request()).await.1.recipients[0].1.is_empty());
    let claim = ClaimedBasis {
        categories: only(&[HEALTH, NARRATIVE]),
        basis: Basis::PublicTask.into(),
        ..ClaimedBasis::default()
    };
    let (_, draft) = case.sent(ReferOnwardRequest { claimed_bases: vec![claim], ..case.request() }).await;
    assert_eq!(basis(&draft, HEALTH), Some(Basis::PublicTask));
    assert_eq!(basis(&draft, NARRATIVE), None, "the person excluded it");
}

#[tokio::test]
async fn an_exercise_and_a_minor_stay_what_they_are() {
    let case = Case::with(None, Status::Exercise, content(), &[HEALTH]).await;
    let (_, draft) = case.sent(case.request()).await;
    assert_eq!(draft.status, Status::Exercise);
    let (_, draft) = case.sent(ReferOnwardRequest { minor: true, ..case.request() }).await;
    assert!(draft.facts.unwrap().minor);

    let today = OffsetDateTime::now_utc().date();
    let born = |years: i32| {
        let birthdate = (today.year() - years).to_string();
        let identity = liaison_proto::message::v1::Identity { birthdate, ..Default::default() };
        ReferralContent { identity: Some(identity), ..content() }
    };
    let aged = |band: AgeBand| {
        let demographic = Demographic { age_band: band.into(), ..Demographic::default() };
        ReferralContent { demographic: Some(demographic), ..content() }
    };
    for (content, minor) in [
        (aged(AgeBand::From16To17), true),
        (aged(AgeBand::Unknown), true),
        (aged(AgeBand::From18To24), false),
        (born(17), true),
        (born(18), true),
        (born(19), false),
    ] {
        // It goes by what is known here, also of what may not go onward.
        let case = Case::with(None, Status::Actual, content, &[HEALTH]).await;
        assert_eq!(case.sent(case.request()).await.1.facts.unwrap().minor, minor);
    }
}

#[tokio::test]
async fn an_idempotency_key_refers_once_and_lets_a_question_become_a_referral() {
    let case = Case::new(None).await;
    let key = caller("bea", Some("k1"));
    let refer = async |request| onward::refer_onward(&case.shelter, &key, request).await;
    let first = refer(case.request()).await.unwrap();
    assert_eq!(refer(case.request()).await.unwrap(), first);
    let other = ReferOnwardRequest { categories: only(&[HEALTH]), ..case.request() };
    assert_eq!(refer(other).await.unwrap_err().code(), ErrorCode::IdempotencyConflict);
    assert_eq!(outbox(&case.shelter).await, 1);

    let case = Case::new(police(Police::H2)).await;
    let refer =
        async || onward::refer_onward(&case.shelter, &key, case.request()).await.unwrap().outcome.unwrap();
    let Outcome::Request(asked) = refer().await else { panic!("sent") };
    assert_eq!(refer().await, Outcome::Request(asked.clone()));
    case.answered(&asked, Step::Granted).await;
    let Outcome::Referral(sent) = refer().await else { panic!("asked") };
    let Outcome::Referral(again) = refer().await else { panic!("asked") };
    assert_eq!(sent.id, again.id);
    assert_eq!(outbox(&case.shelter).await, 1);
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
