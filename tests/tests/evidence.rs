//! The log of evidence, seen by its commands: it tells what happened, one leaf an event, and whoever changes the
//! database by hand is found out, whatever was changed.

#![allow(clippy::indexing_slicing, reason = "an absent field of JSON is null")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use liaison_demo::wait;
use liaison_proto::{
    case::v1::SendReferralRequest,
    message::v1::{Audience, referral_state::Code as State},
};
use liaison_tests::{
    Federation, Realm, call,
    evidence::{self, count, leaves, sound},
    federation::Setup,
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
};
use liaison_trust::log::{Continuation, EntryBundle, LogKey, Note, Receipt, new_bundles};
use serde_json::Value;
use sha2::Sha256;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

async fn send(realm: &Realm, content: SendReferralRequest) -> Result<String> {
    let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(content).await?.into_inner().referrals;
    Ok(sent.first().context("no referral was made")?.id.clone())
}

async fn json(realm: &Realm, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&realm.gateway.command(&[arguments, &["--json"]].concat()).await?)?)
}

#[tokio::test]
async fn honest_traffic_has_one_leaf_an_event_and_all_is_well() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE]).await?;
    let referral = send(&realm, message::small_referral(SHELTER)).await?;
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
    let refused = send(&realm, message::small_referral(POLICE)).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &refused, State::Refused).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    let returned = send(&realm, message::small_referral(SHELTER)).await?;
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
    let referral = send(&realm, message::small_referral(SHELTER)).await?;
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
    // Acts and what isn't there are not erased; nothing is erased twice.
    for leaf in ["0", "100000"] {
        assert_eq!(realm.gateway.attempt(&["log", "erase", leaf]).await?.status.code(), Some(1), "{leaf}");
    }
    assert_eq!(json(&realm, &["log", "erase", &index]).await?["erased"], Value::Array(Vec::new()));
    assert_eq!(leaves(&realm.gateway).await?.len(), after.len());

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

#[tokio::test]
async fn whatever_is_changed_by_hand_is_found_and_named() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE]).await?;
    for to in [SHELTER, POLICE] {
        let referral = send(&realm, message::small_referral(to)).await?;
        call::referral_in(realm.agent(HOSPITAL)?, &referral, State::Received).await?;
    }
    realm.load_scheme(&policies::without_health()).await?;
    leaves(&realm.gateway).await?;
    sound(&realm.gateway).await?;
    realm.gateway.stop().await?;
    // The tail of leaf 1 of the log of evidence, and so on: the edits of somebody who has the file.
    let edits: &[(&str, &str)] = &[
        (
            "changed_record",
            "UPDATE leaf SET record = CAST(record || x'00' AS BLOB) WHERE log = 1 AND idx = 2",
        ),
        ("changed_record", "UPDATE leaf SET salt = zeroblob(32) WHERE log = 1 AND idx = 2"),
        ("changed_entry", "UPDATE leaf SET entry = zeroblob(32) WHERE log = 1 AND idx = 2"),
        (
            "changed_entry",
            "UPDATE leaf SET (entry, salt, record) = (SELECT entry, salt, record FROM leaf WHERE log = 1 AND idx = 3) WHERE log = 1 AND idx = 2",
        ),
        ("missing_leaf", "DELETE FROM leaf WHERE log = 1 AND idx = 2"),
        ("missing_leaf", "DELETE FROM leaf WHERE log = 1 AND idx > 2"),
        ("missing_leaf", "DELETE FROM leaf"),
        (
            "changed_tile",
            "UPDATE tile SET hashes = CAST(substr(hashes, 33) || substr(hashes, 1, 32) AS BLOB) WHERE log = 1",
        ),
        ("changed_tile", "UPDATE tile SET hashes = (SELECT hashes FROM tile WHERE log = 2) WHERE log = 1"),
        ("changed_tile", "DELETE FROM tile"),
        ("foreign_tile", "INSERT INTO tile (log, level, idx, hashes) VALUES (1, 0, 7, zeroblob(32))"),
        ("no_checkpoint", "UPDATE log SET checkpoint = NULL WHERE kind = 'log'"),
        (
            "foreign_checkpoint",
            "UPDATE log SET checkpoint = (SELECT checkpoint FROM log WHERE kind = 'keys') WHERE kind = 'log'",
        ),
        (
            "foreign_checkpoint",
            "UPDATE log SET checkpoint = CAST(replace(CAST(checkpoint AS TEXT), 'be/log/1', 'be/log/2') AS BLOB) WHERE kind = 'log'",
        ),
        ("other_size", "UPDATE log SET size = size - 1 WHERE kind = 'log'"),
        (
            "changed_column",
            "UPDATE leaf SET message = zeroblob(16) WHERE log = 1 AND idx = (SELECT max(idx) FROM leaf WHERE log = 1 AND message IS NOT NULL)",
        ),
        ("changed_column", "UPDATE leaf SET thread = zeroblob(16) WHERE thread IS NOT NULL"),
        (
            "changed_column",
            "UPDATE leaf SET readers = 'be/police-federal' WHERE readers = 'be/hospital-ghent'",
        ),
        (
            "erased_by_hand",
            "UPDATE leaf SET salt = NULL, record = NULL, thread = NULL, readers = '' WHERE thread IS NOT NULL",
        ),
        (
            "substituted_key",
            "UPDATE key_record SET record = (SELECT record FROM key_record WHERE agency = 'be/police-federal') WHERE agency = 'be/shelter-antwerp'",
        ),
        (
            "key_without_leaf",
            "INSERT INTO key_record SELECT agency, 7, record FROM key_record WHERE agency = 'be/police-federal'",
        ),
        ("key_removed", "DELETE FROM key_record WHERE agency = 'be/police-federal'"),
        ("changed_entry", "UPDATE leaf SET entry = CAST(entry || x'00' AS BLOB) WHERE log = 2 AND idx = 0"),
        (
            "broken_key_chain",
            "UPDATE leaf SET entry = CAST(entry || x'00' AS BLOB) WHERE log = 2 AND idx = 0",
        ),
        (
            "message_without_leaf",
            "INSERT INTO message (sender, id, digest, expires, acceptance) SELECT sender, randomblob(16), digest, expires, acceptance FROM message LIMIT 1",
        ),
        ("leaf_without_message", "DELETE FROM message"),
        ("changed_message", "UPDATE message SET digest = zeroblob(32)"),
        (
            "changed_acceptance",
            "UPDATE message SET acceptance = (SELECT acceptance FROM message AS other WHERE other.seq <> message.seq)",
        ),
        ("changed_policy", "UPDATE policy_set SET hash = zeroblob(32) WHERE active = 1"),
        ("changed_policy", "UPDATE policy_set SET files = x'' WHERE active = 1"),
        ("changed_policy", "UPDATE policy_set SET active = 0"),
    ];
    for (code, edit) in edits {
        let copy = TempDir::new()?;
        evidence::copy(&realm.gateway, copy.path())?;
        let data = copy.path().join("gateway-be");
        by_hand(&data, edit).await?;
        let found = found(&realm, &data)?;
        assert!(found.contains_key(*code), "{edit}: {found:?}");
    }
    // The set of before made active again by hand: no two may be active on the way.
    let copy = TempDir::new()?;
    evidence::copy(&realm.gateway, copy.path())?;
    let data = copy.path().join("gateway-be");
    by_hand(&data, "UPDATE policy_set SET active = 0").await?;
    by_hand(
        &data,
        "UPDATE policy_set SET active = 1 WHERE activated = (SELECT min(activated) FROM policy_set)",
    )
    .await?;
    assert!(found(&realm, &data)?.contains_key("changed_policy"));

    // A gateway does not start on a tree that does not lead to its head, and doctor names it.
    for edit in
        ["UPDATE tile SET hashes = zeroblob(length(hashes)) WHERE log = 1", "UPDATE log SET size = size - 1"]
    {
        let copy = TempDir::new()?;
        evidence::copy(&realm.gateway, copy.path())?;
        let data = copy.path().join("gateway-be");
        by_hand(&data, edit).await?;
        let mut run = Command::new("timeout");
        let run = run
            .arg("30")
            .arg(&realm.gateway.programs.gateway)
            .arg("--data")
            .arg(&data)
            .arg("run")
            .output()?;
        assert_eq!(run.status.code(), Some(1), "{edit}: {run:?}");
        let doctor = evidence::on_copy(&realm.gateway, &data, &["doctor", "--json"])?;
        let doctor: Value = serde_json::from_slice(&doctor.stdout)?;
        let log = doctor["checks"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["check"] == "log" && one["verdict"] == "fail");
        assert!(log.is_some(), "{edit}: {doctor}");
    }
    sound(&realm.gateway).await?;
    Ok(())
}

/// Changes a database as somebody would who has the file.
async fn by_hand(data: &Path, edit: &'static str) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(data.join("liaison.db")).foreign_keys(false);
    let mut database = options.connect().await?;
    let changed = sqlx::query(edit).execute(&mut database).await.context(edit)?;
    ensure!(changed.rows_affected() > 0, "nothing was changed by {edit}");
    Ok(database.close().await?)
}

/// The faults that `log verify` names, by their codes, each with one place; it ends with status 1.
fn found(realm: &Realm, data: &Path) -> Result<BTreeMap<String, String>> {
    let verified = evidence::on_copy(&realm.gateway, data, &["log", "verify", "--json"])?;
    ensure!(verified.status.code() == Some(1), "{verified:?}");
    let report: Value = serde_json::from_slice(&verified.stdout)?;
    let listed = report["listed"].as_array().context("no faults")?;
    let text = |fault: &Value, key: &str| fault[key].as_str().unwrap_or_default().to_owned();
    ensure!(listed.iter().all(|fault| !text(fault, "action").is_empty() && !text(fault, "found").is_empty()));
    Ok(listed.iter().map(|fault| (text(fault, "code"), text(fault, "place"))).collect())
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
    let id = send(realm, message::referral(&[SHELTER_HU], &words)).await?;
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
