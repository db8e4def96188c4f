//! What is deleted is not on the disk any more.

use super::*;

/// Twenty drafts, of which some were moved about before they ended.
#[tokio::test]
async fn nothing_of_a_draft_outlives_it() {
    let (dir, police) = Domain::new().agent("police").await;
    let store = &police.store;
    let mut ids = Vec::new();
    for number in 0..20_usize {
        let mut referral = referral(&shelter());
        referral.sections =
            BTreeMap::from([(Category::Narrative, Zeroizing::new(vec![1; 1_000 * (1 + number % 7)]))]);
        let (_, sent) = store.add(vec![referral], None, "ann", &[], Vec::new()).await.unwrap();
        ids.extend(sent);
    }
    let drafts: Vec<Vec<u8>> = sqlx::query_scalar("select draft from outbox where draft is not null")
        .fetch_all(store.readers())
        .await
        .unwrap();
    assert_eq!(drafts.len(), ids.len());
    for id in &ids {
        store.postpone(*id, now() + Duration::HOUR).await.unwrap();
        store.postpone(*id, now() + Duration::HOUR).await.unwrap();
    }
    // One after the other from both ends, so that what is left moves together.
    for at in 0..ids.len() {
        let id = if at % 2 == 0 { ids[at / 2] } else { ids[ids.len() - 1 - at / 2] };
        store.refused(id, &Refusal::new(ErrorCode::Expired, "x", "y")).await.unwrap();
    }
    store.empty_log().await.unwrap();
    let held =
        std::fs::read_dir(dir.path()).unwrap().filter_map(|file| std::fs::read(file.unwrap().path()).ok());
    for bytes in held {
        for draft in &drafts {
            let part = &draft[draft.len() / 2..][..48];
            assert!(!bytes.windows(part.len()).any(|window| window == part), "a draft is on the disk");
        }
    }
}
