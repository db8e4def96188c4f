//! One message of each kind that gateways exchange, as this version writes it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use liaison_proto::{
    exchange::v1::{MessageHead, PreviewRecipient, PreviewRequest as Preview, Services},
    federation::v1::{
        AcceptedChunk, Bundle, DirectoryChange, DirectoryPage, Done, Drain, Forward, ForwardChunk, Hello,
        LinkRequest, LinkResponse, PreviewRequest, PreviewResponse, Refused, RelayNotice, Renewal,
        SignedBundle, SignedDirectoryPage, Welcome, link_request::Frame as Request,
        link_response::Frame as Response,
    },
    message::v1::{
        Acceptance, Acceptances, Acknowledgement, CategoryBasis, CategoryDecision, Facts, Notice,
        OnwardRequest, RecipientDecision, Refusal, Rule, SignedAcceptance, SignedNotice, age_band,
        alert_kind::Code as AlertKind, basis::Code as Basis, data_category::Code as Category,
        error_code::Code as ErrorCode, kem::Code as Kem, kind::Code as Kind, notice,
        onward_step::Code as OnwardStep, purpose::Code as Purpose, service_type, verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::{
    ca::Authority,
    digest::{Digest, sha256},
    envelope::{Draft, Recipient, Verified},
    keys::{KemKey, SigningKey},
    statement,
};
use prost::{Message, Name};
use time::{OffsetDateTime, macros::datetime};
use uuid::{Uuid, uuid};

use crate::outsider::{CATEGORIES, Forwarder, Outsider};

/// When all of it was made.
pub const NOW: OffsetDateTime = datetime!(2026-11-24 09:00:00 UTC);
/// The scheme of all domains.
pub const SCHEME: Digest = Digest([7; 32]);

const REFERRAL: Uuid = uuid!("01934567-89ab-7cde-8f01-23456789abcd");
const THREAD: Uuid = uuid!("01934567-89ab-7cde-8f01-23456789abce");
const OTHER: Uuid = uuid!("01934567-89ab-7cde-8f01-23456789abcf");

/// A head of a log as somebody holds it: gateways don't look at it.
const HEAD: &str =
    "hu/log/1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u{2014} hu/log/1 AAAAAAA=\n";

/// The key with which the gateway of a domain signs.
pub fn gateway(domain: &str) -> SigningKey {
    SigningKey::from_seed(&seed(&format!("{domain}/gateway")))
}

/// An agency with the keys that it has in all fixtures.
pub fn agency(address: &str) -> Result<Outsider> {
    let signing = SigningKey::from_seed(&seed(&format!("{address}/signing")));
    let kem = KemKey::from_seed(Kem::X25519, &seed(&format!("{address}/kem")))?;
    Outsider::with(address, signing, kem, NOW)
}

fn seed(what: &str) -> [u8; 32] {
    *sha256(format!("wire/{what}").as_bytes()).as_bytes()
}

/// What a fixture holds, by its name: the message's full name and its bytes. Keys and signatures are the same
/// each time; what is sealed and the CA are not.
pub fn make() -> Result<BTreeMap<String, (String, Bytes)>> {
    let mut made = BTreeMap::new();
    let bundle = bundle()?;
    put(&mut made, "signed-bundle", &bundle);
    let forwards = forwards()?;
    for (name, forward) in &forwards {
        put(&mut made, &format!("forward-{name}"), forward);
    }
    put(&mut made, "signed-directory-page", &page()?);
    let acceptances = Acceptances { acceptances: vec![acceptance()] };
    put(&mut made, "acceptances", &acceptances);
    let notices = notices()?;
    for (name, notice) in &notices {
        put(&mut made, &format!("notice-{name}"), notice);
    }
    let first = notices.into_values().next().unwrap_or_default();
    let data = forwards.into_values().next().unwrap_or_default().encode_to_vec();
    let version = "0.1.0".to_owned();
    for (name, frame) in [
        ("hello", Request::Hello(Hello { bundle: Some(bundle.clone()), gateway_version: version.clone() })),
        ("forward", Request::Forward(ForwardChunk { number: 1, data: data.into(), last: true })),
        ("notice", Request::Notice(RelayNotice { number: 2, notice: Some(first) })),
        ("directory", Request::Directory(DirectoryChange { number: 3, page: Some(page()?) })),
        ("renewal", Request::Renewal(Renewal { number: 4, bundle: Some(bundle.clone()) })),
    ] {
        put(&mut made, &format!("request-{name}"), &LinkRequest { frame: Some(frame) });
    }
    let welcome = Welcome {
        bundle: Some(bundle.clone()),
        gateway_version: version,
        window: 256,
        now: Some(times::to_wire(NOW)),
        directory_epoch: vec![5; 16].into(),
        directory_sequence: 9,
        log: 0,
    };
    let data = acceptances.encode_to_vec().into();
    for (name, frame) in [
        ("welcome", Response::Welcome(welcome.clone())),
        ("welcome-with-log", Response::Welcome(Welcome { log: 3, ..welcome })),
        ("accepted", Response::Accepted(AcceptedChunk { number: 1, data, last: true })),
        ("refused", Response::Refused(Refused { number: 2, refusal: Some(refusal()) })),
        ("done", Response::Done(Done { number: 3 })),
        ("drain", Response::Drain(Drain {})),
        ("renewal", Response::Renewal(Renewal { number: 0, bundle: Some(bundle) })),
    ] {
        put(&mut made, &format!("response-{name}"), &LinkResponse { frame: Some(frame) });
    }
    put(&mut made, "preview-request", &preview()?);
    let answer = PreviewResponse {
        decisions: vec![decision()],
        policy_hash: Digest([1; 32]).into(),
        decided_at: Some(times::to_wire(NOW)),
    };
    put(&mut made, "preview-response", &answer);
    Ok(made)
}

fn put<M: Message + Name>(made: &mut BTreeMap<String, (String, Bytes)>, name: &str, message: &M) {
    made.insert(name.to_owned(), (M::full_name(), message.encode_to_vec().into()));
}

fn bundle() -> Result<SignedBundle> {
    let root = Authority::create(&"hu".parse()?)?.certificate_der().to_vec();
    let bundle = Bundle {
        domain: "hu".to_owned(),
        roots: vec![root.into()],
        gateway_signing_key: gateway("hu").public().as_bytes().to_vec().into(),
        addresses: vec!["gateway.hu.example:7402".to_owned(), "[2001:db8::1]:7402".to_owned()],
        countries: vec!["hu".to_owned(), "sk".to_owned()],
        sequence: 17,
        issued: Some(times::to_wire(NOW)),
        scheme_hash: SCHEME.into(),
        protocol: 1,
        log_key: gateway("hu").derived("log-key/v1").public().as_bytes().to_vec().into(),
        witness_key: gateway("hu").derived("witness-key/v1").public().as_bytes().to_vec().into(),
    };
    Ok(statement::sign(&bundle, &gateway("hu")))
}

/// Of `be`, for agencies of `hu`.
fn forwards() -> Result<BTreeMap<&'static str, Forward>> {
    let (sender, shelter, clinic) = (agency("be/police")?, agency("hu/shelter")?, agency("hu/clinic")?);
    let referral = Draft { message_id: REFERRAL, thread: THREAD, ..draft(&sender, &[&shelter])? };
    let facts = Facts { purpose: Purpose::Prevention.into(), minor: true, ..Facts::default() };
    let alert = draft(&sender, &[&shelter, &clinic])?;
    let sections = alert.sections.into_iter().filter(|(category, _)| *category == Category::Health).collect();
    let recipients = alert.recipients.into_iter().map(|recipient| Recipient {
        bases: BTreeMap::from([(Category::Health, Basis::NotPersonal)]),
        ..recipient
    });
    let alert = Draft {
        message_id: OTHER,
        thread: OTHER,
        kind: Kind::Alert,
        alert_kind: AlertKind::HealthRisk,
        facts: Some(facts),
        sections,
        recipients: recipients.collect(),
        ..draft(&sender, &[])?
    };
    let in_thread =
        || anyhow::Ok(Draft { message_id: OTHER, ..sender.cancellation(&referral, &shelter.key()?, NOW) });
    let state = in_thread()?;
    let onward = OnwardRequest {
        request: OTHER.as_bytes().to_vec().into(),
        step: OnwardStep::Granted.into(),
        to: "hu/clinic".to_owned(),
        purpose: Purpose::HealthCare.into(),
        categories: vec![Category::Health.into()],
    };
    let onward = Draft { kind: Kind::Onward, state_change: None, onward: Some(onward), ..in_thread()? };
    let key = gateway("be");
    let forwarder = Forwarder { signing: &key, scheme: SCHEME };
    let forward = |draft: &Draft| {
        let verified: Verified = sender.verified(draft)?;
        let described = sender.described("be");
        anyhow::Ok(forwarder.forward(&verified, described, &CATEGORIES))
    };
    Ok(BTreeMap::from([
        ("referral", forward(&referral)?),
        ("alert", forward(&alert)?),
        ("state", forward(&state)?),
        ("onward", forward(&onward)?),
    ]))
}

fn draft(sender: &Outsider, to: &[&Outsider]) -> Result<Draft> {
    let keys = to.iter().map(|outsider| outsider.key()).collect::<Result<Vec<_>>>()?;
    Ok(sender.draft(Kind::Referral, &keys, NOW))
}

fn page() -> Result<SignedDirectoryPage> {
    let mut shelter = agency("hu/shelter")?.described("hu");
    shelter.groups = vec!["network".to_owned()];
    shelter.services = Some(Services {
        types: vec![service_type::Code::Safehouse.into()],
        languages: vec!["hu".to_owned()],
        ages: vec![age_band::Code::From18To24.into()],
    });
    let page = DirectoryPage {
        domain: "hu".to_owned(),
        peer: "be".to_owned(),
        epoch: vec![5; 16].into(),
        sequence: 9,
        agencies: vec![shelter, agency("hu/clinic")?.described("hu")],
        withdrawn: vec!["hu/closed".to_owned()],
        first: true,
        complete: true,
    };
    Ok(statement::sign(&page, &gateway("hu")))
}

fn rule() -> Rule {
    Rule {
        layer: "country/hu".to_owned(),
        rule: "no-health".to_owned(),
        owner: "fixtures".to_owned(),
        legal_basis: "none".to_owned(),
        explain: "A fixture forbids it.".to_owned(),
    }
}

fn decision() -> RecipientDecision {
    let category = |category: Category, verdict: Verdict, rule| CategoryDecision {
        category: category.into(),
        verdict: verdict.into(),
        rule,
        basis: Basis::ConsentOfPerson.into(),
    };
    RecipientDecision {
        recipient: "hu/shelter".to_owned(),
        verdict: Verdict::Released.into(),
        rule: None,
        categories: vec![
            category(Category::ServiceRequest, Verdict::Released, None),
            category(Category::Health, Verdict::Withheld, Some(rule())),
        ],
    }
}

fn refusal() -> Refusal {
    let message = "the peering with be is suspended";
    let mut refusal = Refusal::new(ErrorCode::Suspended, message, "wait until it is resumed");
    refusal.retry_after_ms = 5_000;
    refusal.rule = Some(rule());
    refusal
}

fn acceptance() -> SignedAcceptance {
    let acceptance = Acceptance {
        message_id: REFERRAL.as_bytes().to_vec().into(),
        manifest_digest: Digest([3; 32]).into(),
        accepted_at: Some(times::to_wire(NOW)),
        policy_hash: Digest([1; 32]).into(),
        scheme_hash: SCHEME.into(),
        decisions: vec![decision()],
    };
    statement::sign(&acceptance, &gateway("hu"))
}

fn notices() -> Result<BTreeMap<&'static str, SignedNotice>> {
    let shelter = agency("hu/shelter")?;
    let acknowledgement = Acknowledgement {
        message_id: REFERRAL.as_bytes().to_vec().into(),
        manifest_digest: Digest([3; 32]).into(),
        recipient: shelter.address.to_string(),
        key_id: shelter.key()?.id.into(),
        received_at: Some(times::to_wire(NOW + Duration::from_secs(60))),
        thread_state: None,
        log_head: Bytes::new(),
        keys_head: Bytes::new(),
    };
    let acknowledged = notice::Event::Acknowledged(statement::sign(&acknowledgement, &shelter.signing));
    let holding = Acknowledgement { log_head: Bytes::from_static(HEAD.as_bytes()), ..acknowledgement };
    let holding = notice::Event::Acknowledged(statement::sign(&holding, &shelter.signing));
    let relayed = notice("hu", acknowledged.clone(), None);
    Ok(BTreeMap::from([
        ("acknowledged", relayed.clone()),
        ("acknowledged-with-head", notice("hu", holding, None)),
        ("expired", notice("hu", notice::Event::Expired(notice::Expired::default()), None)),
        ("narrowed", notice("hu", notice::Event::Narrowed(decision()), None)),
        ("quarantined", notice("hu", notice::Event::Quarantined(refusal()), None)),
        ("undeliverable", notice("hu", notice::Event::Undeliverable(refusal()), None)),
        ("forwarded", notice("be", notice::Event::Forwarded(acceptance()), None)),
        ("relayed", notice("be", acknowledged, Some(relayed))),
    ]))
}

fn notice(by: &str, event: notice::Event, relayed: Option<SignedNotice>) -> SignedNotice {
    let notice = Notice {
        message_id: REFERRAL.as_bytes().to_vec().into(),
        manifest_digest: Digest([3; 32]).into(),
        recipient: "hu/shelter".to_owned(),
        at: Some(times::to_wire(NOW + Duration::from_secs(61))),
        event: Some(event),
        relayed,
        ..Notice::default()
    };
    statement::sign(&notice, &gateway(by))
}

fn preview() -> Result<PreviewRequest> {
    let head = MessageHead {
        kind: Kind::Referral.into(),
        facts: Some(Facts { purpose: Purpose::VictimSupport.into(), ..Facts::default() }),
        ..MessageHead::default()
    };
    let basis = CategoryBasis { category: Category::Health.into(), basis: Basis::ConsentOfPerson.into() };
    let recipient = PreviewRecipient { address: "hu/shelter".to_owned(), bases: vec![basis] };
    let mut sender = agency("be/police")?.described("be");
    sender.keys.clear();
    Ok(PreviewRequest {
        sender: Some(sender),
        preview: Some(Preview { head: Some(head), recipients: vec![recipient] }),
    })
}
