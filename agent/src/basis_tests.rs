use std::time::Duration;

use liaison_proto::category;
use proptest::prelude::*;

use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn shelter() -> Recipient {
    Recipient {
        address: "be/shelter-antwerp".parse().unwrap(),
        country: "be".into(),
        sectors: vec![Sector::Ngo, Sector::Housing],
    }
}

fn police() -> Recipient {
    Recipient {
        address: "be/police".parse().unwrap(),
        country: "be".into(),
        sectors: vec![Sector::LawEnforcement],
    }
}

fn by_address(to: &Recipient) -> Named {
    Named { agencies: [to.address.clone()].into(), ..Named::default() }
}

/// The person lets the shelter have health, for support.
fn consent() -> Consent {
    Consent {
        giver: Some(Giver::Person),
        obtained: Some(NOW - DAY),
        expires: Some(NOW + DAY),
        withdrawn: false,
        for_disclosure: true,
        scopes: vec![Scope {
            categories: [Category::Health].into(),
            recipients: by_address(&shelter()),
            purposes: [Purpose::VictimSupport].into(),
        }],
        exclusions: vec![],
    }
}

fn grounds(consent: Option<Consent>) -> Grounds {
    Grounds { purpose: Purpose::VictimSupport, consent, claims: vec![], not_personal: false }
}

fn claim(basis: ClaimedBasis) -> Claim {
    Claim { basis, categories: [Category::Health].into(), agencies: BTreeSet::new() }
}

fn vital() -> ClaimedBasis {
    ClaimedBasis::VitalInterest { officer: "Officer 12".into() }
}

fn health_for(to: &Recipient, grounds: &Grounds) -> Option<Basis> {
    grounds.bases(to, [Category::Health], NOW).remove(&Category::Health)
}

#[test]
fn consent_covers_its_scope_and_nothing_else() {
    let cases: [(&str, fn(&mut Grounds), Option<Basis>); 17] = [
        ("as given", |_| {}, Some(Basis::ConsentOfPerson)),
        ("a guardian", |g| consent_of(g).giver = Some(Giver::Guardian), Some(Basis::ConsentOfGuardian)),
        ("somebody else", |g| consent_of(g).giver = None, None),
        ("never obtained", |g| consent_of(g).obtained = None, None),
        ("obtained tomorrow", |g| consent_of(g).obtained = Some(NOW + DAY), None),
        ("expired now", |g| consent_of(g).expires = Some(NOW), None),
        ("without an end", |g| consent_of(g).expires = None, Some(Basis::ConsentOfPerson)),
        ("withdrawn", |g| consent_of(g).withdrawn = true, None),
        ("not for disclosure", |g| consent_of(g).for_disclosure = false, None),
        ("no scope", |g| consent_of(g).scopes.clear(), None),
        ("another purpose", |g| g.purpose = Purpose::CriminalInvestigation, None),
        ("no purpose", |g| scope_of(g).purposes.clear(), None),
        ("another category", |g| scope_of(g).categories = [Category::Identity].into(), None),
        ("no category", |g| scope_of(g).categories.clear(), None),
        ("another agency", |g| scope_of(g).recipients = by_address(&police()), None),
        ("nobody", |g| scope_of(g).recipients = Named::default(), None),
        (
            "a sector and a country",
            |g| {
                scope_of(g).recipients = Named {
                    sectors: [Sector::Housing].into(),
                    countries: ["hu".into()].into(),
                    ..Named::default()
                };
            },
            Some(Basis::ConsentOfPerson),
        ),
    ];
    for (name, change, expected) in cases {
        let mut grounds = grounds(Some(consent()));
        change(&mut grounds);
        assert_eq!(health_for(&shelter(), &grounds), expected, "{name}");
        assert_eq!(health_for(&police(), &grounds).is_some(), name == "another agency", "{name}, police");
    }
}

fn consent_of(grounds: &mut Grounds) -> &mut Consent {
    grounds.consent.as_mut().unwrap()
}

fn scope_of(grounds: &mut Grounds) -> &mut Scope {
    &mut consent_of(grounds).scopes[0]
}

#[test]
fn parts_of_two_scopes_do_not_add_up() {
    let mut grounds = grounds(Some(consent()));
    scope_of(&mut grounds).purposes = [Purpose::HealthCare].into();
    let other = Scope {
        categories: [Category::Identity].into(),
        purposes: [Purpose::VictimSupport].into(),
        recipients: by_address(&shelter()),
    };
    consent_of(&mut grounds).scopes.push(other);
    assert_eq!(health_for(&shelter(), &grounds), None);
}

#[test]
fn a_country_is_covered_whatever_the_sector() {
    let mut grounds = grounds(Some(consent()));
    scope_of(&mut grounds).recipients = Named { countries: ["be".into()].into(), ..Named::default() };
    assert_eq!(health_for(&police(), &grounds), Some(Basis::ConsentOfPerson));
}

#[test]
fn an_exclusion_beats_all_but_vital_interest() {
    let mut excluded = consent();
    excluded.scopes[0].recipients = Named { countries: ["be".into()].into(), ..Named::default() };
    excluded.exclusions = vec![Exclusion {
        categories: [Category::Health].into(),
        recipients: Named { sectors: [Sector::LawEnforcement].into(), ..Named::default() },
    }];
    let mut grounds = grounds(Some(excluded));
    assert_eq!(health_for(&shelter(), &grounds), Some(Basis::ConsentOfPerson));
    assert_eq!(health_for(&police(), &grounds), None);

    grounds.not_personal = true;
    grounds.claims = vec![claim(ClaimedBasis::LegalObligation), claim(ClaimedBasis::PublicTask)];
    assert_eq!(health_for(&police(), &grounds), None);

    grounds.claims.push(claim(vital()));
    assert_eq!(health_for(&police(), &grounds), Some(Basis::VitalInterest));

    // A withdrawn consent takes no exclusion with it.
    grounds.claims.pop();
    consent_of(&mut grounds).withdrawn = true;
    assert_eq!(health_for(&police(), &grounds), None);
    assert_eq!(health_for(&shelter(), &grounds), Some(Basis::LegalObligation));
}

#[test]
fn an_exclusion_without_names_is_meant_for_all() {
    let mut grounds = grounds(Some(consent()));
    consent_of(&mut grounds).exclusions =
        vec![Exclusion { categories: [Category::Health].into(), recipients: Named::default() }];
    assert_eq!(health_for(&shelter(), &grounds), None);
    consent_of(&mut grounds).exclusions =
        vec![Exclusion { categories: BTreeSet::new(), recipients: by_address(&shelter()) }];
    assert_eq!(health_for(&shelter(), &grounds), None);
}

#[test]
fn a_claim_stands_where_consent_does_not() {
    let mut grounds = grounds(None);
    assert_eq!(health_for(&police(), &grounds), None);
    grounds.claims = vec![Claim { agencies: [police().address].into(), ..claim(ClaimedBasis::PublicTask) }];
    assert_eq!(health_for(&police(), &grounds), Some(Basis::PublicTask));
    assert_eq!(health_for(&shelter(), &grounds), None);
    assert!(grounds.bases(&police(), [Category::Identity], NOW).is_empty());

    grounds.consent = Some(consent());
    grounds.claims = vec![claim(vital())];
    assert_eq!(health_for(&shelter(), &grounds), Some(Basis::ConsentOfPerson));
    assert_eq!(health_for(&police(), &grounds), Some(Basis::VitalInterest));
}

#[test]
fn what_is_not_personal_needs_no_consent() {
    let grounds = Grounds { not_personal: true, ..grounds(None) };
    assert_eq!(health_for(&police(), &grounds), Some(Basis::NotPersonal));
}

fn categories() -> impl Strategy<Value = BTreeSet<Category>> {
    proptest::sample::subsequence(category::all().collect::<Vec<_>>(), 0..=17)
        .prop_map(|categories| categories.into_iter().collect())
}

fn named() -> impl Strategy<Value = Named> {
    let agencies = proptest::sample::subsequence(vec![shelter().address, police().address], 0..=2);
    let sectors = proptest::sample::subsequence(vec![Sector::Ngo, Sector::LawEnforcement], 0..=2);
    let countries = proptest::sample::subsequence(vec!["be".to_owned(), "hu".to_owned()], 0..=2);
    (agencies, sectors, countries).prop_map(|(agencies, sectors, countries)| Named {
        agencies: agencies.into_iter().collect(),
        sectors: sectors.into_iter().collect(),
        countries: countries.into_iter().collect(),
    })
}

fn any_grounds() -> impl Strategy<Value = Grounds> {
    let scope = (categories(), named(), any::<bool>()).prop_map(|(categories, recipients, support)| Scope {
        categories,
        recipients,
        purposes: [if support { Purpose::VictimSupport } else { Purpose::Prevention }].into(),
    });
    let exclusion =
        (categories(), named()).prop_map(|(categories, recipients)| Exclusion { categories, recipients });
    let consent =
        (
            proptest::option::of(prop_oneof![Just(Giver::Person), Just(Giver::Guardian)]),
            proptest::option::of((-2..2i64).prop_map(|days| NOW + time::Duration::days(days))),
            proptest::option::of((-2..2i64).prop_map(|days| NOW + time::Duration::days(days))),
            any::<bool>(),
            any::<bool>(),
            proptest::collection::vec(scope, 0..3),
            proptest::collection::vec(exclusion, 0..2),
        )
            .prop_map(|(giver, obtained, expires, withdrawn, for_disclosure, scopes, exclusions)| {
                Consent { giver, obtained, expires, withdrawn, for_disclosure, scopes, exclusions }
            });
    let claim = (
        prop_oneof![Just(vital()), Just(ClaimedBasis::LegalObligation), Just(ClaimedBasis::PublicTask)],
        categories(),
        proptest::sample::subsequence(vec![shelter().address, police().address], 0..=2),
    )
        .prop_map(|(basis, categories, agencies)| Claim {
            basis,
            categories,
            agencies: agencies.into_iter().collect(),
        });
    (proptest::option::of(consent), proptest::collection::vec(claim, 0..3), any::<bool>()).prop_map(
        |(consent, claims, not_personal)| Grounds {
            purpose: Purpose::VictimSupport,
            consent,
            claims,
            not_personal,
        },
    )
}

proptest! {
    #[test]
    fn no_basis_without_a_ground(grounds in any_grounds()) {
        let bare = Grounds { claims: vec![], not_personal: false, consent: None, ..grounds.clone() };
        prop_assert!(bare.bases(&shelter(), category::all(), NOW).is_empty());
        let bases = grounds.bases(&shelter(), category::all(), NOW);
        for (category, basis) in bases {
            match basis {
                Basis::ConsentOfPerson | Basis::ConsentOfGuardian => {
                    let consent = grounds.consent.as_ref().unwrap();
                    prop_assert!(consent.for_disclosure && !consent.withdrawn);
                    prop_assert!(consent.scopes.iter().any(|scope| scope.categories.contains(&category)));
                    prop_assert_eq!(basis == Basis::ConsentOfPerson, consent.giver == Some(Giver::Person));
                }
                Basis::NotPersonal => prop_assert!(grounds.not_personal),
                _ => prop_assert!(grounds.claims.iter().any(
                    |claim| claim.basis.code() == basis && claim.categories.contains(&category)
                )),
            }
        }
    }

    #[test]
    fn to_exclude_or_withdraw_never_adds(grounds in any_grounds(), categories in categories(), whom in named()) {
        let before = grounds.bases(&police(), category::all(), NOW);
        let mut after = grounds.clone();
        if let Some(consent) = &mut after.consent {
            consent.exclusions.push(Exclusion { categories, recipients: whom });
            consent.withdrawn = true;
        }
        for (category, basis) in after.bases(&police(), category::all(), NOW) {
            prop_assert!(before.contains_key(&category));
            prop_assert!(!matches!(basis, Basis::ConsentOfPerson | Basis::ConsentOfGuardian));
        }
    }
}

#[test]
fn a_message_does_not_outlive_the_consent_it_stands_on() {
    let week = NOW + 7 * DAY;
    let of_person = grounds(Some(consent()));
    assert_eq!(of_person.until(week, [&Basis::ConsentOfPerson]), NOW + DAY);
    assert_eq!(of_person.until(NOW, [&Basis::ConsentOfGuardian]), NOW, "it may end sooner");
    assert_eq!(of_person.until(week, [&Basis::VitalInterest]), week);
    let open_ended = grounds(Some(Consent { expires: None, ..consent() }));
    assert_eq!(open_ended.until(week, [&Basis::ConsentOfPerson]), week);
}
