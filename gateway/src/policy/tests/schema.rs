//! The schema and the contracts say the same.

use std::collections::BTreeSet;

use cedar_policy::SchemaFragment;
use liaison_proto::{POOL, category, message::v1::category_group};

use super::*;
use crate::policy::schema::{SCHEMA, TEXT, TYPES, uid};

#[test]
fn enumerations_are_those_of_the_contracts() {
    let schema = SchemaFragment::from_cedarschema_str(TEXT).unwrap().0.to_json_value().unwrap();
    let values = |entity: &str| -> Vec<String> {
        serde_json::from_value(schema[""]["entityTypes"][entity]["enum"].clone()).unwrap()
    };
    // The name in the schema, in the contracts, and whether a message may leave the value out.
    for (entity, message, optional) in [
        ("Sector", "Sector", false),
        ("AlertKind", "AlertKind", true),
        ("Purpose", "Purpose", true),
        ("PoliceHandling", "PoliceHandling", true),
        ("Tlp", "Tlp", true),
        ("Urgency", "Urgency", true),
        ("Origin", "RequestOrigin", true),
        ("Category", "DataCategory", false),
        ("Basis", "Basis", false),
    ] {
        let codes = POOL.get_enum_by_name(&format!("liaison.message.v1.{message}.Code")).unwrap();
        let known = codes.values().filter(|value| value.number() != 0).map(|value| value.name().to_owned());
        let left_out = optional.then(|| "none".to_owned());
        assert_eq!(values(entity), left_out.into_iter().chain(known).collect::<Vec<_>>(), "{entity}");
    }
    // States are not asked about.
    assert_eq!(values("Kind"), ["referral", "alert"]);
}

#[test]
fn actions_are_grouped_as_the_contracts_group_categories() {
    let groups = (1..).map_while(|number| category_group::Code::try_from(number).ok());
    let groups: BTreeSet<_> = groups.map(|group| group.as_str_name()).collect();
    let actions = SCHEMA.action_entities().unwrap();
    for category in category::all() {
        let share = Action::Share(category).uid();
        let expected: BTreeSet<_> = category::groups(category)
            .into_iter()
            .map(|group| group.as_str_name())
            .chain(["all"])
            .map(|group| uid(&TYPES.action, &format!("share_{group}")))
            .collect();
        let actual: BTreeSet<_> = actions.ancestors(&share).unwrap().cloned().collect();
        assert_eq!(actual, expected, "{share}");
    }
    let groups: BTreeSet<_> = groups
        .into_iter()
        .chain(["all"])
        .map(|group| uid(&TYPES.action, &format!("share_{group}")))
        .collect();
    let named: BTreeSet<_> = SCHEMA.actions().cloned().collect();
    assert_eq!(named, Action::all().map(Action::uid).chain(groups).collect());
}
