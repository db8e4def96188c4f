//! What each gateway decides of a message that crosses from one domain to another.

use proptest::prelude::*;

use super::{
    properties::{Folders, folders, load, members, question},
    *,
};

const ALL: &str = "permit (principal, action, resource);";

fn all_but(action: &str) -> String {
    annotated("all", ALL)
        + &annotated("not", &format!("forbid (principal, action == Action::\"{action}\", resource);"))
}

fn between_domains<const N: usize>(files: [PolicyFile; N]) -> impl Fn(Side) -> Decision {
    let set = PolicySet::load(&files).unwrap();
    move |side| {
        let (from, to) = (Member::new("be/a", &[]), Member::new("hu/b", &[]));
        set.decide(side, &from.party(), &to.party(), &referral(&[RISK, HEALTH]))
    }
}

#[test]
fn a_side_asks_the_scheme_and_its_own_layers() {
    for (layer, asked) in [
        ("country/be", [Side::Both, Side::Sender]),
        ("agency/be/a", [Side::Both, Side::Sender]),
        ("country/hu", [Side::Both, Side::Recipient]),
        ("agency/hu/b", [Side::Both, Side::Recipient]),
    ] {
        let law = file(&format!("{layer}/own.cedar"), all_but("share_health"));
        let decide = between_domains([scheme(&[ALL]), law]);
        for side in [Side::Both, Side::Sender, Side::Recipient, Side::Scheme] {
            let decision = decide(side);
            assert_eq!(decision.verdict, verdict::Code::Released);
            let health = &decision.categories[&Category::Health];
            let rule = asked.contains(&side).then(|| layer.to_owned());
            assert_eq!(health.rule.as_ref().map(|rule| rule.layer.clone()), rule, "{layer} {side:?}");
        }
    }
}

/// Whether a message may be sent is no question to the recipient's layers, and the other way round, on
/// whichever side they are asked.
#[test]
fn a_side_is_asked_for_its_own_part() {
    for (layer, action, refuses) in [
        ("country/be", "submit", vec![Side::Both, Side::Sender]),
        ("country/be", "receive", vec![]),
        ("country/hu", "receive", vec![Side::Both, Side::Recipient]),
        ("country/hu", "submit", vec![]),
    ] {
        let law = file(&format!("{layer}/law.cedar"), all_but(action));
        let decide = between_domains([scheme(&[ALL]), law]);
        for side in [Side::Both, Side::Sender, Side::Recipient, Side::Scheme] {
            let refused = decide(side).verdict == verdict::Code::Withheld;
            assert_eq!(refused, refuses.contains(&side), "{layer} {action} {side:?}");
        }
    }
    for action in ["submit", "receive", "share_risk"] {
        let decide = between_domains([file("scheme/scheme.cedar", all_but(action))]);
        for side in [Side::Both, Side::Sender, Side::Recipient, Side::Scheme] {
            let rule = &decide(side).categories[&Category::Risk].rule;
            assert_eq!(super::rule(rule), "not", "{action} {side:?}");
        }
    }
}

/// The recipient's gateway asks its own layers about what the sender's withheld.
#[test]
fn a_side_may_let_a_withheld_category_be_named() {
    let law = file("country/hu/law.cedar", all_but("name_withheld"));
    let set = PolicySet::load(&[scheme(&[ALL]), law]).unwrap();
    let (from, to) = (Member::new("be/a", &[]), Member::new("hu/b", &[]));
    let question = referral(&[HEALTH, (Category::Risk, basis::Code::Unspecified)]);
    let may_name = |side, category| set.may_name(side, &from.party(), &to.party(), &question, category);
    for (side, rule) in
        [(Side::Both, "not"), (Side::Recipient, "not"), (Side::Sender, ""), (Side::Scheme, "")]
    {
        for _ in 0..2 {
            assert_eq!(super::rule(&may_name(side, Category::Health).rule), rule, "{side:?}");
        }
    }
    // The obligation is decided for a category on its basis; without one nothing is told.
    for category in [Category::Risk, Category::Identity] {
        assert_eq!(super::rule(&may_name(Side::Sender, category).rule), "none:basis");
    }
    let broken = "forbid (principal, action == Action::\"name_withheld\", resource) when { 9223372036854775807 + 1 > 0 };";
    let set = PolicySet::load(&[scheme(&[ALL, broken])]).unwrap();
    let answer = set.may_name(Side::Sender, &from.party(), &to.party(), &question, Category::Health);
    assert!(!answer.is_permitted());
    assert_eq!(answer.incidents.len(), 1);
}

/// For the log: by which policies of which layers a category is released, whether or not it was asked before.
#[test]
fn a_released_category_names_what_permits_it() {
    let law = file("country/hu/law.cedar", annotated("law", ALL));
    let share = "permit (principal, action == Action::\"share_risk\", resource);";
    let set = PolicySet::load(&[scheme(&[ALL, share]), law]).unwrap();
    let (from, to) = (Member::new("be/a", &[]), Member::new("hu/b", &[]));
    for _ in 0..2 {
        for (side, risk, health) in [
            (
                Side::Both,
                vec!["scheme p0", "scheme p1", "country/hu law"],
                vec!["scheme p0", "country/hu law"],
            ),
            (Side::Sender, vec!["scheme p0", "scheme p1"], vec!["scheme p0"]),
        ] {
            let decision = set.decide(side, &from.party(), &to.party(), &referral(&[RISK, HEALTH]));
            for (category, permits) in [(Category::Risk, risk), (Category::Health, health)] {
                let named = decision.categories[&category].permitted_by.iter();
                let named: Vec<_> = named.map(|rule| format!("{} {}", rule.layer, rule.rule)).collect();
                assert_eq!(named, permits, "{side:?} {category:?}");
            }
        }
    }
    let not = "forbid (principal, action == Action::\"share_risk\", resource);";
    let set = PolicySet::load(&[scheme(&[ALL, not])]).unwrap();
    let decision = set.decide(Side::Both, &from.party(), &to.party(), &referral(&[RISK]));
    assert!(decision.categories[&Category::Risk].permitted_by.is_empty());
}

fn of_domain(folders: &Folders, domain: &str) -> Folders {
    let own = |folder: &str| folder.split('/').nth(1).is_none_or(|owner| owner == domain);
    folders.iter().filter(|(folder, _)| own(folder)).map(|(folder, p)| (*folder, p.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Two gateways, each asking for its side, release what one that asks all layers would, under the
    /// stricter obligations; and neither more than the scheme permits.
    #[test]
    fn two_sides_together_decide_as_both(folders in folders(), members in members(), question in question()) {
        let set = load(&folders);
        for (from, to) in members.iter().flat_map(|from| members.iter().map(move |to| (from, to))) {
            let (from, to) = (from.party(), to.party());
            let [both, sender, recipient, scheme] = [Side::Both, Side::Sender, Side::Recipient, Side::Scheme]
                .map(|side| set.decide(side, &from, &to, &question));
            for (category, all) in &both.categories {
                let [s, r, scheme] = [&sender, &recipient, &scheme].map(|side| &side.categories[category]);
                let is_released = |outcome: &CategoryOutcome| outcome.verdict == verdict::Code::Released;
                prop_assert_eq!(is_released(all), is_released(s) && is_released(r));
                prop_assert!(is_released(scheme) || !is_released(s) && !is_released(r));
                if is_released(all) {
                    prop_assert_eq!(all.retention_days, s.retention_days.min(r.retention_days));
                    prop_assert_eq!(all.onward_share, s.onward_share && r.onward_share);
                    prop_assert_eq!(all.use_as_evidence, s.use_as_evidence && r.use_as_evidence);
                }
                let names = |side| set.may_name(side, &from, &to, &question, *category).is_permitted();
                prop_assert_eq!(names(Side::Both), names(Side::Sender) && names(Side::Recipient));
                prop_assert!(names(Side::Scheme) || !names(Side::Both));
                prop_assert!(!all.name_withheld || names(Side::Both));
            }
            // A side can't know that the other withholds what it holds itself, so it may be stricter.
            let released = both.released().collect::<Vec<_>>();
            for category in sender.released().filter(|category| recipient.released().any(|c| c == *category)) {
                prop_assert!(released.contains(&category));
            }
        }
    }

    /// A gateway decides its side by its own layers: what else its folder holds makes no difference.
    #[test]
    fn a_side_needs_no_layers_of_the_other(folders in folders(), members in members(), question in question()) {
        let (set, be, hu) = (load(&folders), load(&of_domain(&folders, "be")), load(&of_domain(&folders, "hu")));
        let of = |domain: &str| {
            members.iter().filter(|member| member.country == domain).map(Member::party).collect::<Vec<_>>()
        };
        for (from, to) in of("be").iter().flat_map(|from| of("hu").into_iter().map(move |to| (from, to))) {
            for (own, side) in [(&be, Side::Sender), (&hu, Side::Recipient)] {
                prop_assert_eq!(own.decide(side, from, &to, &question), set.decide(side, from, &to, &question));
            }
        }
    }
}
