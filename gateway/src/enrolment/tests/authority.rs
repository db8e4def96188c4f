//! What the authority behind enrolment has for others.

use std::time::Duration;

use liaison_proto::admin::v1::authority_step::Code as Step;

use super::{Domain, key_and_request};

#[tokio::test]
async fn the_gateway_renews_its_own_certificate_long_before_it_is_not_ready() {
    let domain = Domain::new().await;
    let (authority, store) = (&domain.registrar.authority, &domain.registrar.gateway.store);
    let (life, end) = (Duration::from_secs(24 * 3600), authority.own_not_after());
    authority.renew_own(domain.now + life / 2 - Duration::from_secs(1)).unwrap();
    assert!(authority.own_not_after() == end && !authority.is_stale());

    assert!(authority.is_ready(domain.now + life / 2));
    assert!(!authority.is_ready(end - life / 8), "readiness fails before the certificate does");
    let later = domain.now + life / 2;
    authority.renew_own(later).unwrap();
    assert_eq!(authority.own_not_after(), later + life);
    assert!(authority.is_stale(), "the acceptor does not have it yet");
    authority.publish(store, later).await.unwrap();
    assert!(!authority.is_stale());
    assert!(authority.is_ready(end));
}

#[tokio::test]
async fn whoever_uses_the_roots_or_the_identity_hears_of_each_change() {
    let domain = Domain::new().await;
    let (authority, store) = (&domain.registrar.authority, &domain.registrar.gateway.store);
    let mut revised = authority.revised();
    let token = domain.token().await;
    let (_, csr) = key_and_request();
    let enrolled = domain.enrol(&token, &csr).await.unwrap();
    assert!(!revised.has_changed().unwrap());
    let (settled, own) = (authority.roots(), authority.identity().certificate().clone());

    authority.take(Step::Prepare, store, domain.now).await.unwrap();
    assert!(revised.has_changed().unwrap());
    revised.mark_unchanged();
    let prepared = authority.roots();
    assert_eq!((prepared.len(), &prepared[0]), (2, &settled[0]));
    assert_eq!(*authority.identity().certificate(), own);

    authority.take(Step::Switch, store, domain.now).await.unwrap();
    assert!(revised.has_changed().unwrap());
    revised.mark_unchanged();
    assert_eq!(authority.roots(), [prepared[1].clone(), prepared[0].clone()]);
    assert_ne!(*authority.identity().certificate(), own);
    assert!(!authority.is_stale());
    // An answer that was lost leads to the root that it led to, and tells both.
    let again = domain.enrol(&token, &csr).await.unwrap();
    assert_eq!(again.certificates, enrolled.certificates);
    assert_eq!(again.bundle.unwrap().roots.len(), 2);

    authority.take(Step::Retire, store, domain.now).await.unwrap();
    assert!(revised.has_changed().unwrap());
    revised.mark_unchanged();
    assert_eq!(authority.roots(), [prepared[1].clone()]);

    authority.renew_own(domain.now + Duration::from_secs(12 * 3600)).unwrap();
    assert!(revised.has_changed().unwrap());
}

#[tokio::test]
async fn a_list_that_could_not_be_published_stays_due() {
    let domain = Domain::new().await;
    let (authority, store) = (&domain.registrar.authority, &domain.registrar.gateway.store);
    store.close().await;
    authority.publish(store, domain.now).await.unwrap_err();
    assert!(authority.is_stale());
}
