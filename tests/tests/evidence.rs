//! The log of evidence, seen by its commands: it tells what happened, one leaf an event, and whoever changes the
//! database by hand is found out, whatever was changed.

#![allow(clippy::indexing_slicing, reason = "an absent field of JSON is null")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use liaison_demo::wait;
use liaison_proto::message::v1::{Audience, referral_state::Code as State};
use liaison_tests::{
    Federation, Realm, call,
    evidence::{count, leaves, sound},
    federation::Setup,
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
};
use liaison_trust::log::{Continuation, EntryBundle, LogKey, Note, Receipt, new_bundles};
use serde_json::Value;
use sha2::Sha256;

async fn json(realm: &Realm, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&realm.gateway.command(&[arguments, &["--json"]].concat()).await?)?)
}

#[tokio::test]
async fn honest_traffic_has_one_leaf_an_event_and_all_is_well() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE]).await?;
    let referral = call::send(realm.agent(HOSPITAL)?, message::small_referral(SHELTER)).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &referral, State::Received).await?;
    let audience = Audience { agencies: vec![SHELTER.to_owned(), POLICE.to_owned()], ..Audience::default() };
    let alert = message::pattern_alert(audience);
    let alert = call::case(realm.agent(HOSPITAL)?)?.send_alert(alert).await?.into_inner().alert;
    let alert = alert.context("no alert was made")?.id;
    for agency in [SHELTER, POLICE] {
        call::received_alert(realm.agent(agency)?, &alert).await?;
    }
    // Three copies were acknowledged.
    let acknowledged = wait::until("all is acknowledged", async || {
        let leaves = leaves(&realm.gateway).await.ok()?;
        (count(&leaves, "acknowledged") == 3).then_some(leaves)
    });
    let before = acknowledged.await?;
    assert_eq!((count(&before, "accepted"), count(&before, "handed_over")), (2, 3), "{before:?}");

    realm.load_scheme(&policies::closed_for(POLICE)).await?;
    let refused = call::send(realm.agent(HOSPITAL)?, message::small_referral(POLICE)).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &refused, State::Refused).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    let returned = call::send(realm.agent(HOSPITAL)?, message::small_referral(SHELTER)).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &returned, State::Requested).await?;
    realm.gateway.command(&["agency", "revoke", SHELTER]).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &returned, State::Refused).await?;

    let all = leaves(&realm.gateway).await?;
    for (event, times) in
        [("accepted", 3), ("handed_over", 3), ("acknowledged", 3), ("refused", 1), ("undeliverable", 1)]
    {
        assert_eq!(count(&all, event), times, "{event} in {all:?}");
    }
    let acts: Vec<&str> = all.iter().filter_map(|leaf| leaf["says"]["act"].as_str()).collect();
    for (act, times) in [("load_policy", 2), ("revoke_agency", 1), ("add_agency", 4), ("create_token", 3)] {
        assert_eq!(acts.iter().filter(|one| **one == act).count(), times, "{act} in {acts:?}");
    }
    // A message that was refused is told of by its thread.
    let thread = call::referral(realm.agent(HOSPITAL)?, &refused).await?.thread;
    let told = json(&realm, &["log", "disclosures", &thread]).await?;
    assert_eq!(told["disclosures"][0]["verdict"], "refused", "{told}");
    let of_alert = json(&realm, &["log", "show", "--message", &alert]).await?;
    assert_eq!(of_alert["leaves"].as_array().map(Vec::len), Some(5), "{of_alert}");
    assert_eq!(
        json(&realm, &["log", "show", "--log", "be/keys"]).await?["leaves"].as_array().map(Vec::len),
        Some(3)
    );
    let report = sound(&realm.gateway).await?;
    assert_eq!((&report["messages"], &report["keys"]), (&3.into(), &3.into()), "{report}");
    // Stopped as well as running.
    realm.gateway.stop().await?;
    sound(&realm.gateway).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_proven_exported_and_erased_holds() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let referral = call::send(realm.agent(HOSPITAL)?, message::small_referral(SHELTER)).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &referral, State::Received).await?;
    let before = leaves(&realm.gateway).await?;
    let head = json(&realm, &["log", "head"]).await?;
    let vkey: LogKey = head["vkey"].as_str().context("no key")?.parse()?;

    let out = realm.folder().join("proofs");
    let out = out.to_string_lossy();
    realm.gateway.command(&["log", "prove", "--message", &referral, "--out", &out]).await?;
    let receipts: Vec<PathBuf> = fs::read_dir(&*out)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    assert_eq!(receipts.len(), 3, "accepted, handed over, acknowledged");
    // The helper trims what a command printed.
    let text = realm.gateway.command(&["log", "prove", "0"]).await? + "\n";
    Receipt::parse(text.as_bytes())?.verify(&vkey)?;

    // Exported, added to, exported again: the same folder goes on, and leads to the root that was signed.
    let export = realm.folder().join("export");
    let to = export.to_string_lossy().into_owned();
    realm.gateway.command(&["log", "export", &to]).await?;
    let index =
        before.iter().find(|leaf| leaf["event"] == "accepted").context("no acceptance")?["index"].to_string();
    realm.gateway.command(&["log", "erase", &index]).await?;
    let after = leaves(&realm.gateway).await?;
    assert_eq!((count(&after, "erased"), count(&after, "accepted")), (1, 0));
    let exported = json(&realm, &["log", "export", &to]).await?;
    let log = &exported["logs"][0];
    assert!(
        log["kept"].as_u64() == Some(0) && log["size"] == after.len(),
        "partial tiles have grown: {exported}"
    );
    for (origin, keys) in [("be/log/1", false), ("be/keys/1", true)] {
        let which: &[&str] = if keys { &["log", "head", "--log", "be/keys"] } else { &["log", "head"] };
        let vkey: LogKey = json(&realm, which).await?["vkey"].as_str().context("no key")?.parse()?;
        let (root, size) = read_back(&export.join(origin), &vkey)?;
        assert_eq!((root, size), (root, if keys { 2 } else { after.len() as u64 }));
    }

    // A record that was erased is gone from the disk, its receipt of before still holds, and the log is sound.
    for file in &receipts {
        Receipt::parse(&fs::read(file)?)?.verify(&vkey)?;
    }
    let report = sound(&realm.gateway).await?;
    assert_eq!(report["logs"][0]["erased"], 1, "{report}");
    let gone = realm.gateway.attempt(&["log", "prove", &index]).await?;
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(String::from_utf8_lossy(&gone.stderr).contains("was erased"), "{gone:?}");
    // What is in clear was never erased, and has no receipt.
    let clear = realm.gateway.attempt(&["log", "prove", "--log", "be/keys", "0"]).await?;
    let says = String::from_utf8_lossy(&clear.stderr);
    assert!(says.contains("in clear") && !says.contains("erased"), "{clear:?}");
    let named = "log show --log be/keys/1 --from 0";
    assert!(says.contains(named) && clear.status.code() == Some(1), "{clear:?}");
    // Its thread is still known: what was erased, when and by which act, and what is left.
    let thread = call::referral(realm.agent(HOSPITAL)?, &referral).await?.thread;
    let told = json(&realm, &["log", "disclosures", &thread]).await?;
    let all = told["disclosures"].as_array().context("no disclosures")?;
    let (erased, left): (Vec<_>, Vec<_>) = all.iter().partition(|one| one["verdict"] == "erased");
    ensure!(told["erased"] == 1 && erased.len() == 1 && !left.is_empty(), "{told}");
    assert_eq!(erased[0]["leaves"], serde_json::json!([format!("be/log/1 {index}")]));
    let act = after.iter().find(|leaf| leaf["says"]["act"] == "erase_record").context("no act")?;
    assert_eq!(erased[0]["erased_by"], format!("be/log/1 {}", act["index"]), "{told}");
    assert!(erased[0]["erased_at"].is_string(), "{told}");
    for one in left {
        assert_eq!((&one["recipient"], &one["verdict"]), (&SHELTER.into(), &"released".into()), "{one}");
        assert!(one["handed_over_at"].is_string() && one["acknowledged_at"].is_string(), "{one}");
    }
    assert_eq!(json(&realm, &["log", "disclosures", &referral]).await?, told, "by the message's id as well");
    let table = realm.gateway.command(&["log", "disclosures", &thread]).await?;
    assert!(table.contains(&format!("leaf be/log/1 {index} erased ")), "{table}");
    // What is on its way is not erased.
    realm.agent_mut(SHELTER)?.stop().await?;
    let waits = call::send(realm.agent(HOSPITAL)?, message::small_referral(SHELTER)).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &waits, State::Requested).await?;
    let staged = leaves(&realm.gateway).await?;
    let of_it = json(&realm, &["log", "show", "--message", &waits]).await?["leaves"][0]["index"].to_string();
    let refused = realm.gateway.attempt(&["log", "erase", &of_it]).await?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("still on its way"), "{refused:?}");
    assert_eq!(leaves(&realm.gateway).await?.len(), staged.len());
    // Acts and what isn't there are not erased; nothing is erased twice.
    for leaf in ["0", "100000"] {
        assert_eq!(realm.gateway.attempt(&["log", "erase", leaf]).await?.status.code(), Some(1), "{leaf}");
    }
    assert_eq!(json(&realm, &["log", "erase", &index]).await?["erased"], Value::Array(Vec::new()));
    assert_eq!(leaves(&realm.gateway).await?.len(), staged.len());

    // The log only grew, also over the erasure.
    let size = before.len().to_string();
    let proof = realm.gateway.command(&["log", "prove", "--from", &size]).await? + "\n";
    let proof = Continuation::parse(proof.as_bytes())?;
    assert_eq!(proof.old_root.to_string(), head["root"].as_str().unwrap_or_default());
    proof.verify(&vkey)?;
    let beyond = realm.gateway.attempt(&["log", "prove", "--from", "100000"]).await?;
    assert_eq!(beyond.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("rolled back"), "{beyond:?}");
    assert_eq!(realm.gateway.attempt(&["log", "prove"]).await?.status.code(), Some(2));

    // A folder with another history is left as it is.
    fs::write(export.join("be/keys/1/checkpoint"), fs::read(export.join("be/log/1/checkpoint"))?)?;
    assert_eq!(realm.gateway.attempt(&["log", "export", &to]).await?.status.code(), Some(1));
    realm.gateway.stop().await
}

#[tokio::test]
async fn of_a_gateway_that_has_not_run_nothing_is_exported_and_that_is_told() -> Result<()> {
    let realm = Realm::prepare(policies::OPEN).await?;
    let to = realm.folder().join("export");
    let told = realm.gateway.command(&["log", "export", &to.to_string_lossy()]).await?;
    for origin in ["be/log/1", "be/keys/1"] {
        ensure!(told.contains(&format!("{origin}: nothing to export yet")), "{told:?}");
    }
    ensure!(!to.exists(), "something is exported");
    Ok(())
}

/// Reads an exported log as a stranger does: the root that another implementation makes of its entries, and its size.
fn read_back(folder: &Path, key: &LogKey) -> Result<(liaison_trust::digest::Digest, u64)> {
    let checkpoint = key.open(&Note::parse(&fs::read(folder.join("checkpoint"))?)?)?;
    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    for bundle in new_bundles(0, checkpoint.size()) {
        let bundle: EntryBundle = bundle;
        for entry in bundle.decode(&fs::read(folder.join(bundle.to_string()))?)? {
            tree.push(entry.to_vec());
        }
    }
    let root = tree.root();
    ensure!(root.as_bytes().as_slice() == checkpoint.root().as_bytes(), "the entries make another root");
    Ok((checkpoint.root(), checkpoint.size()))
}

/// Who got what of a referral that crosses a border, by which rules of both domains.
#[tokio::test]
async fn the_disclosure_record_tells_who_got_what_and_by_which_rule() -> Result<()> {
    let be = policies::layer_without("be-no-risk", "risk");
    let hu = policies::layer_without("hu-no-health", "health");
    let federation = Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[("be", "country/be/law.cedar", &be), ("hu", "country/hu/law.cedar", &hu)],
        agencies: &[HOSPITAL, SHELTER_HU],
    })
    .await?;
    let words = message::Words::fresh();
    let realm = federation.realm("be")?;
    let id = call::send(realm.agent(HOSPITAL)?, message::referral(&[SHELTER_HU], &words)).await?;
    let sent = call::referral_in(realm.agent(HOSPITAL)?, &id, State::Received).await?;
    leaves(&realm.gateway).await?;

    let told = json(realm, &["log", "disclosures", &sent.thread]).await?;
    assert_eq!(json(realm, &["log", "disclosures", &id]).await?, told, "by a message's id as well");
    let of = |told: &Value| -> Result<BTreeMap<String, Value>> {
        let all = told["disclosures"].as_array().context("no disclosures")?;
        Ok(all
            .iter()
            .map(|one| (one["category"].as_str().unwrap_or_default().to_owned(), one.clone()))
            .collect())
    };
    let by_category = of(&told)?;
    assert_eq!(by_category.len(), message::referral_categories().len(), "{told}");
    for (category, one) in &by_category {
        let was_released = category != "risk";
        assert_eq!(one["recipient"], SHELTER_HU);
        assert_eq!(one["verdict"], if was_released { "released" } else { "withheld" }, "{one}");
        assert_eq!(one["policy_set"], sent.policy_hash.as_str());
        if !was_released {
            assert_eq!(one["withheld_by"], "country/be be-no-risk", "{one}");
            assert!(
                one["handed_over_at"].is_null() && one["permitted_by"] == Value::Array(Vec::new()),
                "{one}"
            );
            continue;
        }
        assert_eq!(one["permitted_by"], serde_json::json!(["scheme open-share", "country/be pass"]), "{one}");
        assert!(one["handed_over_at"].is_string() && one["acknowledged_at"].is_string(), "{one}");
        let theirs =
            if category == "health" { ("withheld", "country/hu hu-no-health") } else { ("released", "") };
        assert_eq!(
            (one["peer_verdict"].as_str(), one["peer_withheld_by"].as_str().unwrap_or_default()),
            (Some(theirs.0), theirs.1),
            "{one}"
        );
    }
    // The other domain knows what it released itself, and nothing of what never left.
    let there = federation.realm("hu")?;
    leaves(&there.gateway).await?;
    let theirs = of(&json(there, &["log", "disclosures", &sent.thread]).await?)?;
    assert!(
        !theirs.contains_key("risk") && theirs["health"]["withheld_by"] == "country/hu hu-no-health",
        "{theirs:?}"
    );
    assert!(
        theirs["health"]["handed_over_at"].is_null() && theirs["identity"]["handed_over_at"].is_string(),
        "{theirs:?}"
    );
    for realm in [realm, there] {
        sound(&realm.gateway).await?;
    }

    let csv = realm.gateway.command(&["log", "disclosures", &sent.thread, "--csv"]).await?;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), by_category.len() + 1);
    assert!(lines[0].starts_with("\"thread\",\"message\",\"sender\",\"recipient\",\"category\""), "{csv}");
    assert!(csv.contains("\"country/hu hu-no-health\""), "{csv}");
    // Nothing personal is in it.
    let categories = message::referral_categories();
    assert!(categories.iter().all(|category| !csv.contains(&words.of(*category))));
    let unknown =
        realm.gateway.attempt(&["log", "disclosures", "00000000-0000-7000-8000-000000000000"]).await?;
    assert_eq!(unknown.status.code(), Some(1));
    Ok(())
}
