//! What a change writes goes to SQLite together, in order.

use super::*;
use crate::store::add::audit;

#[tokio::test]
async fn what_was_written_is_there_for_what_is_asked_next() {
    let (_dir, police) = Domain::new().agent("police").await;
    let (store, id) = (&police.store, Uuid::now_v7());
    let mut tx = store.begin().await.unwrap();
    audit(&mut tx, now(), "ann", "first", id);
    audit(&mut tx, now(), "bob", "second", id);
    let asked = tx.ask("select actor, action from audit where message = ? and actor <> ? order by seq");
    let found = asked.bind(id.as_bytes().as_slice()).bind("ann").all::<(String, String)>().await.unwrap();
    assert_eq!(found, [("bob".to_owned(), "second".to_owned())]);
    tx.write("update audit set actor = ? where actor = ?").bind("eve").bind("ann");
    let many = tx
        .ask("insert into audit (at, actor, action, message) values ")
        .rows(["third", "fourth"], |row, action| {
            row.bind(1).bind("cid").bind(action).bind(id.as_bytes().as_slice());
        })
        .changed();
    assert_eq!(many.await.unwrap(), 2);
    tx.commit().await.unwrap();
    let audited = store.audited(id).await;
    let audited: Vec<_> = audited.iter().map(|(actor, action)| (actor.as_str(), action.as_str())).collect();
    assert_eq!(audited, [("eve", "first"), ("bob", "second"), ("cid", "third"), ("cid", "fourth")]);
}

#[tokio::test]
async fn a_change_of_which_one_statement_fails_is_not_kept() {
    let (_dir, police) = Domain::new().agent("police").await;
    let (store, id) = (&police.store, Uuid::now_v7());
    for fails in [false, true] {
        // No message has the id of what was audited.
        let message = if fails { id } else { add(store, referral(&shelter())).await };
        let mut tx = store.begin().await.unwrap();
        audit(&mut tx, now(), "before", "test", id);
        tx.write("insert into history (message, change, at, by) values (?, ?, ?, ?)")
            .bind(message.as_bytes().as_slice())
            .bind(b"".as_slice())
            .bind(1)
            .bind("nobody");
        audit(&mut tx, now(), "behind", "test", id);
        assert_eq!(tx.commit().await.is_err(), fails);
    }
    let who: Vec<_> = store.audited(id).await.into_iter().map(|(actor, _)| actor).collect();
    assert_eq!(who, ["before", "behind"]);
}

#[tokio::test]
async fn a_key_record_that_is_known_is_proven_by_its_signature_all_the_same() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let record = police.custody.ring().current().signed.clone();
    let proven = police.store.prove(&record).unwrap();
    assert_eq!(police.store.prove(&record).unwrap(), proven);
    let mut forged = record;
    forged.signature = vec![0; 64].into();
    assert!(police.store.prove(&forged).is_err());
}
