//! Changes that share a transaction.

use super::*;
use crate::store::add::audit;

async fn noted(store: &Store, id: Uuid, by: &str, keep: bool) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    audit(&mut tx, now(), by, "test", id);
    if keep { tx.commit().await } else { Ok(()) }
}

async fn who(store: &Store, id: Uuid) -> Vec<String> {
    store.audited(id).await.into_iter().map(|(actor, _)| actor).collect()
}

#[tokio::test]
async fn what_is_given_up_takes_nothing_else_with_it() {
    let (_dir, police) = Domain::new().agent("police").await;
    let (store, id) = (&police.store, Uuid::now_v7());
    // All of them wait while this one is made.
    let mut first = store.begin().await.unwrap();
    audit(&mut first, now(), "first", "test", id);
    let (first, given_up, third, again, last) = tokio::join!(
        async { first.commit().await },
        noted(store, id, "given up", false),
        noted(store, id, "third", true),
        noted(store, id, "given up", false),
        noted(store, id, "given up", false),
    );
    for done in [first, given_up, third, again, last] {
        done.unwrap();
    }
    assert_eq!(who(store, id).await, ["first", "third"]);
    // One that nobody waits for any more.
    let abandoned = tokio::time::timeout(std::time::Duration::ZERO, noted(store, id, "abandoned", true));
    let _ = abandoned.await;
    noted(store, id, "last", true).await.unwrap();
    let who = who(store, id).await;
    assert_eq!((who.first().unwrap().as_str(), who.last().unwrap().as_str()), ("first", "last"));
}

#[tokio::test]
async fn changes_are_made_in_the_order_in_which_they_came() {
    let (_dir, police) = Domain::new().agent("police").await;
    let (store, id) = (&police.store, Uuid::now_v7());
    let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let all = names.iter().map(|name| noted(store, id, name, true));
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    assert_eq!(who(store, id).await, names);
}

#[tokio::test]
async fn where_the_disk_is_full_whoever_shared_the_transaction_is_told() {
    let (_dir, police) = Domain::new().agent("police").await;
    let store = &police.store;
    bound_pages(store, None).await;
    let large = || {
        let mut large = referral(&shelter());
        large.sections = BTreeMap::from([(Category::Narrative, Zeroizing::new(vec![1; 1 << 20]))]);
        large
    };
    let id = Uuid::now_v7();
    let (before, full, behind) = tokio::join!(
        noted(store, id, "before", true),
        store.add(vec![large()], None, "ann", &[], Vec::new()),
        noted(store, id, "behind", true),
    );
    assert!(full.unwrap_err().message.contains("disk is full"));
    let told = [("before", before), ("behind", behind)];
    let kept: Vec<_> = told.iter().filter(|(_, told)| told.is_ok()).map(|(name, _)| *name).collect();
    assert_eq!(who(store, id).await, kept);
    bound_pages(store, Some(1_000_000)).await;
    noted(store, id, "last", true).await.unwrap();
}

#[tokio::test]
async fn nobody_is_told_of_what_another_has_not_made_durable_yet() {
    let (_dir, police) = Domain::new().agent("police").await;
    let store = &police.store;
    let pages: i64 = sqlx::query_scalar("pragma page_count").fetch_one(store.readers()).await.unwrap();
    // Enough for what is sent, and not for what is large.
    bound_pages(store, Some(pages + 64)).await;
    let mut large = referral(&shelter());
    large.sections = BTreeMap::from([(Category::Narrative, Zeroizing::new(vec![1; 1 << 20]))]);
    let key = || Some(Idempotency { key: "k".into(), digest: hash("test", &[b"one"]) });
    // The others wait while this one is made, and then share a transaction.
    let first = store.begin().await.unwrap();
    let (first, one, again, large) = tokio::join!(
        async { first.commit().await },
        store.add(vec![referral(&shelter())], key(), "ann", &[], Vec::new()),
        store.add(vec![referral(&shelter())], key(), "ann", &[], Vec::new()),
        store.add(vec![large], None, "ann", &[], Vec::new()),
    );
    assert!(large.unwrap_err().message.contains("disk is full"));
    // It took with it what it shared the transaction with: so nobody was told that it is there.
    assert!(one.is_err() && again.is_err(), "{one:?} {again:?}");
    first.unwrap();
    let (told, _) = store.add(vec![referral(&shelter())], key(), "ann", &[], Vec::new()).await.unwrap();
    assert_eq!(told, Stored::New);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (_dir, police) = Domain::new().agent("police").await;
    police.store.close().await;
    assert!(matches!(police.store.begin().await.err(), Some(StoreError::Closed)));
}
