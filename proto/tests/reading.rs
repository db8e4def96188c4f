//! Strict reading, JSON, the split by category, and refusals over gRPC.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use liaison_proto::{
    POOL,
    case::v1::{Referral, ReferralSection, SendReferralRequest, SendReferralResponse, UpdateReferralRequest},
    category,
    json::{self, JsonError},
    limits::{MESSAGE_FIELDS, RECIPIENTS},
    message::v1::{
        Acceptance, AlertContent, Audience, CategoryDecision, Envelope, ExploitationPattern, Health,
        Identity, Manifest, PersonName, RecipientDecision, RecipientEntry, ReferralContent, Refusal, Rule,
        StateChange, alert_kind, data_category::Code as Category, error_code::Code as ErrorCode,
        referral_state,
    },
    referral::{Party, allowed, is_final, setter},
    refusal,
    strict::{self, StrictError},
};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Kind, Value};
use referral_state::Code as State;

fn content() -> ReferralContent {
    ReferralContent {
        health: Some(Health { urgent_needs: "insulin".into(), ..Health::default() }),
        identity: Some(Identity {
            names: vec![PersonName { given: "Ana".into(), ..PersonName::default() }],
            ..Identity::default()
        }),
        ..ReferralContent::default()
    }
}

#[test]
fn a_split_holds_each_category_alone_and_merges_to_the_whole() {
    let parts = category::split(&content()).unwrap();
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [Category::Identity, Category::Health]);
    let health = ReferralContent::decode(parts[&Category::Health].as_slice()).unwrap();
    assert_eq!(health, ReferralContent { health: content().health, ..ReferralContent::default() });
    let mut whole = ReferralContent::default();
    for part in parts.values() {
        whole.merge(part.as_slice()).unwrap();
    }
    assert_eq!(whole, content());
}

#[test]
fn an_alert_splits_by_its_own_schema() {
    let alert = AlertContent { pattern: Some(ExploitationPattern::default()), ..AlertContent::default() };
    let parts = category::split(&alert).unwrap();
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [Category::Exploitation]);
}

#[test]
fn debug_shows_no_word_of_content() {
    let request = SendReferralRequest { content: Some(content()), ..SendReferralRequest::default() };
    let shown = format!("{request:?} {:?} {:?}", content().health, content().identity);
    assert!(!shown.contains("insulin") && !shown.contains("Ana"), "{shown}");
}

#[test]
fn an_unknown_field_is_refused_at_any_depth() {
    let mut bytes = StateChange { state: State::Accepted.into(), ..StateChange::default() }.encode_to_vec();
    strict::decode::<StateChange>(&bytes).unwrap();
    bytes.extend([0xfa, 0x01, 0x01, b'x']);
    assert!(matches!(
        strict::decode::<StateChange>(&bytes),
        Err(StrictError::UnknownField { number: 31, .. })
    ));
    // The same as a manifest's state change, one level down.
    let mut manifest = vec![0x72, u8::try_from(bytes.len()).unwrap()];
    manifest.extend(&bytes);
    assert!(matches!(
        strict::decode::<Manifest>(&manifest),
        Err(StrictError::UnknownField { number: 31, .. })
    ));
}

#[test]
fn an_unknown_enumeration_value_is_refused() {
    let bytes = StateChange { state: 99, ..StateChange::default() }.encode_to_vec();
    assert!(matches!(
        strict::decode::<StateChange>(&bytes),
        Err(StrictError::UnknownValue { number: 99, .. })
    ));
    let packed = Audience { sectors: vec![1, 77], ..Audience::default() };
    assert!(matches!(
        strict::decode::<Audience>(&packed.encode_to_vec()),
        Err(StrictError::UnknownValue { number: 77, .. })
    ));
}

#[test]
fn an_unknown_value_is_not_hidden_by_a_later_one() {
    assert!(matches!(
        strict::decode::<StateChange>(&[0x08, 99, 0x08, 8]),
        Err(StrictError::UnknownValue { number: 99, .. })
    ));
}

#[test]
fn packed_numbers_are_read_to_their_end_and_bounded() {
    use liaison_proto::admin::v1::EraseRecordsRequest;
    let some = EraseRecordsRequest { indexes: vec![0, 300, u64::MAX], log: String::new() };
    assert_eq!(strict::decode::<EraseRecordsRequest>(&some.encode_to_vec()), Ok(some));
    // A list of two bytes that ends inside its number.
    assert!(strict::decode::<EraseRecordsRequest>(&[0x0a, 2, 0x80, 0x80]).is_err());
    let many = EraseRecordsRequest { indexes: vec![1; MESSAGE_FIELDS + 1], log: String::new() };
    let refused = strict::decode::<EraseRecordsRequest>(&many.encode_to_vec());
    assert!(matches!(refused, Err(StrictError::TooManyFields { .. })), "{refused:?}");
}

/// Two bytes make an empty message in a list, which takes some 300 bytes of memory.
#[test]
fn lists_are_bounded_before_they_are_decoded() {
    let list = |tag: u8, length: usize| [tag, 0].repeat(length);
    let too_many = |read: Result<(), StrictError>| matches!(read, Err(StrictError::TooManyFields { .. }));
    let manifest = |length| strict::decode::<Manifest>(&list(0x7a, length)).map(|_| ());
    assert_eq!(manifest(MESSAGE_FIELDS), Ok(()));
    assert!(too_many(manifest(MESSAGE_FIELDS + 1)));
    let envelope = |bytes: &[u8]| strict::decode::<Envelope>(bytes).map(|_| ());
    assert!(too_many(envelope(&list(0x42, MESSAGE_FIELDS + 1))));

    // Few entries, each of many empty wrapped keys.
    let wrapped = list(0x42, 1000);
    let entry = RecipientEntry::decode(wrapped.as_slice()).unwrap();
    let entries = |count| Envelope { recipients: vec![entry.clone(); count], ..Envelope::default() };
    assert_eq!(envelope(&entries(500).encode_to_vec()), Ok(()));
    assert!(too_many(envelope(&entries(600).encode_to_vec())));

    let packed = Audience { sectors: vec![1; MESSAGE_FIELDS + 1], ..Audience::default() };
    assert!(too_many(strict::decode::<Audience>(&packed.encode_to_vec()).map(|_| ())));
}

#[test]
fn the_largest_messages_are_read() {
    let category = CategoryDecision { rule: Some(full_rule()), verdict: 2, category: 1, basis: 1 };
    let categories = category::of_alert(alert_kind::Code::MissingMinor).len();
    let decision = RecipientDecision {
        recipient: "be/a".into(),
        verdict: 2,
        rule: Some(full_rule()),
        categories: vec![category; categories],
    };
    let acceptance = Acceptance { decisions: vec![decision; RECIPIENTS], ..Acceptance::default() };
    assert_eq!(strict::decode::<Acceptance>(&acceptance.encode_to_vec()), Ok(acceptance));
}

fn full_rule() -> Rule {
    let text = || "x".to_owned();
    Rule { layer: text(), rule: text(), owner: text(), legal_basis: text(), explain: text() }
}

/// prost-reflect's own reading, which tells what it does not know, is the oracle.
#[test]
fn disturbed_messages_are_judged_as_by_reflection() {
    let message = SendReferralRequest { content: Some(content()), ..SendReferralRequest::default() };
    let bytes = message.encode_to_vec();
    let descriptor = POOL.get_message_by_name(&SendReferralRequest::full_name()).unwrap();
    assert_eq!(strict::check(&descriptor, &bytes), Ok(()));
    let (mut taken, mut refused) = (0, 0);
    for place in 0..bytes.len() {
        for value in 0..=u8::MAX {
            let mut changed = bytes.clone();
            changed[place] = value;
            let known = DynamicMessage::decode(descriptor.clone(), changed.as_slice())
                .is_ok_and(|read| is_known(&read));
            let checked = strict::check(&descriptor, &changed);
            assert_eq!(checked.is_ok(), known, "{checked:?} at {place}: {value}");
            *(if known { &mut taken } else { &mut refused }) += 1;
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} {refused}");
}

fn is_known(message: &DynamicMessage) -> bool {
    message.unknown_fields().next().is_none()
        && message.fields().all(|(field, value)| match (field.kind(), value) {
            (_, Value::Message(inner)) => is_known(inner),
            (Kind::Message(_), Value::List(list)) => {
                list.iter().all(|it| it.as_message().is_some_and(is_known))
            }
            (Kind::Enum(values), Value::List(list)) => {
                list.iter().all(|it| it.as_enum_number().is_some_and(|it| values.get_value(it).is_some()))
            }
            (Kind::Enum(values), value) => {
                value.as_enum_number().is_some_and(|it| values.get_value(it).is_some())
            }
            _ => true,
        })
}

#[test]
fn truncated_protobuf_is_malformed() {
    assert!(matches!(strict::decode::<StateChange>(&[0x08]), Err(StrictError::Malformed { .. })));
}

#[test]
fn json_is_strict_and_its_errors_quote_nothing() {
    let good = br#"{"id":"a","state":"completed","outcome":"service_provided"}"#;
    let request: UpdateReferralRequest = json::from_slice(good).unwrap();
    assert_eq!(request.state(), State::Completed);

    for bad in [
        &br#"{"id":"a","secretname":1}"#[..],
        br#"{"state":"secretname"}"#,
        br#"{"state":4711}"#,
        br#"{"id":["secretname"]}"#,
        br#"{"id":"secretname""#,
        br#"{"id":"a"} secretname"#,
        b"\xff\xfe",
        b"",
    ] {
        let error = json::from_slice::<UpdateReferralRequest>(bad).unwrap_err();
        assert!(!error.to_string().contains("secretname"), "{error}");
    }
    assert!(matches!(
        json::from_slice::<UpdateReferralRequest>(b"{"),
        Err(JsonError::Syntax { line: 1, .. })
    ));
}

#[test]
fn a_json_field_is_given_once_in_whichever_spelling() {
    for twice in [
        &br#"{"id":"a","id":"b"}"#[..],
        br#"{"to":["be/a"],"to":["be/b"]}"#,
        br#"{"content":{"consent":{"forDisclosure":true,"for_disclosure":false}}}"#,
        br#"{"claimedBases":[{"officer":"x","officer":"y"}]}"#,
    ] {
        let error = json::from_slice::<SendReferralRequest>(twice).unwrap_err();
        assert!(matches!(error, JsonError::Twice { line: 1, .. }), "{error}");
    }
    let apart = br#"{"claimedBases":[{"officer":"x"},{"officer":"y"}]}"#;
    assert_eq!(json::from_slice::<SendReferralRequest>(apart).unwrap().claimed_bases.len(), 2);
}

#[test]
fn json_shows_every_scalar_field() {
    let value = json::to_value(&UpdateReferralRequest::default()).unwrap();
    assert_eq!(value["state"], "unspecified");
    assert_eq!(value["id"], "");
}

#[test]
fn json_shows_no_category_that_is_absent() {
    let section = ReferralSection { content: Some(content()), ..ReferralSection::default() };
    let referral = Referral { sections: [("health".to_owned(), section)].into(), ..Referral::default() };
    let value = json::to_value(&SendReferralResponse { referrals: vec![referral] }).unwrap();
    let content = value["referrals"][0]["sections"]["health"]["content"].as_object().unwrap();
    assert_eq!(content.len(), 2);
    assert!(content.contains_key("identity"));
    assert_eq!(content["health"]["mental"], "", "inside a category every field is shown");
}

#[test]
fn the_closed_loop_allows_what_the_vocabulary_says() {
    assert_eq!(allowed(State::Received, Party::Responder), [State::Accepted, State::Rejected]);
    assert_eq!(allowed(State::Received, Party::Requester), [State::Cancelled]);
    assert_eq!(allowed(State::Completed, Party::Requester), []);
    assert!(is_final(State::Cancelled) && !is_final(State::OnHold));
    for number in 1.. {
        let Ok(state) = State::try_from(number) else { break };
        assert!(setter(state).is_some(), "nobody may set {}", state.as_str_name());
    }
}

#[test]
fn a_refusal_survives_grpc() {
    for number in 0..=90 {
        let Ok(code) = ErrorCode::try_from(number) else { continue };
        let refusal = Refusal::new(code, "what was wrong", "what to do")
            .retry_after(std::time::Duration::from_millis(250));
        let status = tonic::Status::from(refusal.clone());
        assert_eq!(status.code(), refusal::grpc(code));
        assert_eq!(Refusal::from(&status), refusal, "{}", code.as_str_name());
        assert!((400..=503).contains(&refusal::http(code)));
    }
    let ruled = Refusal::new(ErrorCode::ForbiddenByPolicy, "m", "a").by_rule(Rule::default());
    assert!(ruled.rule.is_some());
}
