//! Referring onward: be/police has sent to be/shelter, which refers to be/clinic.

mod permission;

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
