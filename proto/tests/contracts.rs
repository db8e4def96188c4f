//! The rules that the contracts keep, checked on the descriptors themselves.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use liaison_proto::{
    POOL,
    category::{self, of_field},
    message::v1::{
        AlertContent, ReferralContent, alert_kind, category_group, data_category::Code as Category,
    },
};
use prost::Name;
use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};

fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).unwrap_or_else(|| panic!("no message {name}"))
}

#[test]
fn every_content_field_has_a_category() {
    for content in [ReferralContent::full_name(), AlertContent::full_name()] {
        for field in message(&content).fields() {
            assert!(of_field(&field).is_some(), "{} names no data category", field.full_name());
        }
    }
}

#[test]
fn a_field_without_a_category_is_noticed() {
    let address = message("liaison.case.v1.Referral").get_field_by_name("from").unwrap();
    assert_eq!(of_field(&address), None);
}

#[test]
fn every_category_but_attachment_has_a_place_in_a_referral() {
    let placed: BTreeSet<Category> =
        message(&ReferralContent::full_name()).fields().filter_map(|field| of_field(&field)).collect();
    let missing: Vec<Category> = category::all().filter(|category| !placed.contains(category)).collect();
    assert_eq!(missing, [Category::Attachment]);
}

#[test]
fn groups_are_those_of_the_vocabulary() {
    use category_group::Code as Group;
    let of = |group| -> Vec<Category> {
        category::all().filter(|category| category::groups(*category).contains(&group)).collect()
    };
    assert_eq!(of(Group::Identifying), [Category::Identity, Category::Contact]);
    assert_eq!(of(Group::Special), [Category::SexualExploitation, Category::Health]);
    assert_eq!(of(Group::Criminal), [Category::CriminalProceedings]);
    assert_eq!(of(Group::Endangering), [Category::Contact, Category::Location]);
    assert_eq!(of(Group::ThirdParty), [Category::Perpetrator]);
}

#[test]
fn alerts_without_a_person_have_no_place_for_one() {
    use alert_kind::Code as AlertKind;
    for kind in [AlertKind::ExploitationPattern, AlertKind::HealthRisk] {
        assert!(!category::is_personal(kind));
        let allowed = category::of_alert(kind);
        assert!(!allowed.is_empty());
        for field in message(&AlertContent::full_name()).fields() {
            if of_field(&field).is_some_and(|category| allowed.contains(&category)) {
                assert_no_free_text(&field, &mut BTreeSet::new());
            }
        }
    }
    assert!(category::is_personal(AlertKind::MissingMinor));
    assert!(category::is_personal(AlertKind::DocumentFraud));
}

/// Country codes are the one thing that such an alert may write out.
fn assert_no_free_text(field: &FieldDescriptor, seen: &mut BTreeSet<String>) {
    match field.kind() {
        Kind::String => assert!(
            ["route", "countries"].contains(&field.name()) && field.cardinality() == Cardinality::Repeated,
            "{} can hold free text",
            field.full_name()
        ),
        Kind::Bytes => panic!("{} can hold anything", field.full_name()),
        Kind::Message(inner) if seen.insert(inner.full_name().to_owned()) => {
            inner.fields().for_each(|field| assert_no_free_text(&field, seen));
        }
        _ => {}
    }
}

#[test]
fn what_gateways_read_holds_no_free_text() {
    let mut seen = BTreeSet::new();
    for name in [
        "liaison.message.v1.Envelope",
        "liaison.message.v1.SealedCopy",
        "liaison.message.v1.Manifest",
        "liaison.message.v1.Facts",
        "liaison.message.v1.KeyRecord",
        "liaison.message.v1.SectionHeader",
        "liaison.message.v1.ReleaseRecord",
        "liaison.message.v1.Acknowledgement",
        "liaison.log.v1.Record",
    ] {
        let found = free_text(&message(name), &mut seen);
        assert!(found.is_empty(), "free text in what gateways read: {found:?}");
    }
    assert!(seen.len() >= 12, "the walk has to reach the parts as well: {seen:?}");
}

#[test]
fn free_text_in_a_message_is_noticed() {
    let found = free_text(&message("liaison.message.v1.Narrative"), &mut BTreeSet::new());
    assert_eq!(found, ["liaison.message.v1.Narrative.text"]);
}

fn free_text(message: &MessageDescriptor, seen: &mut BTreeSet<String>) -> Vec<String> {
    if !seen.insert(message.full_name().to_owned()) || message.full_name() == "google.protobuf.Timestamp" {
        return Vec::new();
    }
    let identifier = POOL.get_extension_by_name("liaison.message.v1.identifier").unwrap();
    message
        .fields()
        .flat_map(|field| match field.kind() {
            Kind::String | Kind::Bytes if field.options().has_extension(&identifier) => Vec::new(),
            Kind::Message(inner) => free_text(&inner, seen),
            Kind::Enum(_) | Kind::Bool | Kind::Uint32 | Kind::Uint64 => Vec::new(),
            _ => vec![field.full_name().to_owned()],
        })
        .collect()
}

#[test]
fn every_enumeration_starts_unspecified() {
    for values in POOL.all_enums().filter(|values| values.package_name().starts_with("liaison.")) {
        let first = values.get_value(0).unwrap_or_else(|| panic!("{} has no zero", values.full_name()));
        assert!(first.name().eq_ignore_ascii_case("unspecified"), "{}", values.full_name());
    }
}

/// What reads by the schema relies on it: the schema bounds the depth, and has no other encodings.
#[test]
fn no_message_holds_its_own_kind() {
    fn walk(message: &MessageDescriptor, above: &mut Vec<String>) {
        let name = message.full_name().to_owned();
        assert!(!above.contains(&name), "{name} holds itself: {above:?}");
        above.push(name);
        for field in message.fields() {
            match field.kind() {
                Kind::Message(inner) => walk(&inner, above),
                Kind::Enum(_) | Kind::String | Kind::Bytes | Kind::Bool => {}
                Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => {}
                kind => panic!("{} is a {kind:?}", field.full_name()),
            }
        }
        above.pop();
    }
    for message in POOL.all_messages().filter(|message| message.package_name().starts_with("liaison.")) {
        walk(&message, &mut Vec::new());
    }
}
