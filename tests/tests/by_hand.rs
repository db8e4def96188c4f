//! Whoever has the database's file and no key is found out by `log verify`, whatever was changed in it.

#![allow(clippy::indexing_slicing, reason = "an absent field of JSON is null")]

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use liaison_demo::{Gateway, wait};
use liaison_proto::message::v1::referral_state::Code as State;
use liaison_tests::{
    Federation, Realm, call,
    evidence::{self, by_hand, found, leaves, named, sound},
    federation::{Setup, waiting_for},
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
};
use serde_json::Value;
use tempfile::TempDir;

/// What `doctor` finds wrong with the log in a data folder.
fn failed(gateway: &Gateway, data: &Path) -> Result<Value> {
    let doctor = evidence::on_copy(gateway, data, &["doctor", "--json"])?;
    let doctor: Value = serde_json::from_slice(&doctor.stdout)?;
    let checks = doctor["checks"].as_array().context("no checks")?;
    let failed = checks.iter().find(|one| one["check"] == "log" && one["verdict"] == "fail");
    failed.cloned().with_context(|| doctor.to_string())
}

#[tokio::test]
async fn whatever_is_changed_by_hand_is_found_and_named() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE]).await?;
    for to in [SHELTER, POLICE] {
        let referral = call::send(realm.agent(HOSPITAL)?, message::small_referral(to)).await?;
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
            "UPDATE leaf SET salt = NULL, record = NULL, readers = '' WHERE thread IS NOT NULL",
        ),
        // The code by which the gateway knows its own leaves.
        ("foreign_leaf", "UPDATE leaf SET mac = zeroblob(32) WHERE log = 1 AND idx = 2"),
        ("foreign_leaf", "UPDATE leaf SET mac = x'' WHERE log = 2 AND idx = 0"),
        // A false act, or a false acceptance, is staged to be signed.
        (
            "foreign_leaf",
            "INSERT INTO leaf SELECT log, (SELECT max(idx) + 1 FROM leaf WHERE log = 1), entry, salt, record, message, thread, readers, mac FROM leaf WHERE log = 1 AND idx = 2",
        ),
        // What an erased record is found by.
        (
            "foreign_leaf",
            "UPDATE leaf SET salt = NULL, record = NULL, readers = '', thread = randomblob(16) WHERE thread IS NOT NULL",
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
        // A log that nobody opened would take the place of the newest, and what the guard file has be forgotten.
        ("wrong_previous", "INSERT INTO log (kind, number, size) VALUES ('log', 2, 0)"),
        ("wrong_previous", "INSERT INTO log (kind, number, size) VALUES ('log', 4294967295, 0)"),
        ("wrong_previous", "INSERT INTO log (kind, number, size) VALUES ('keys', 4000000000, 0)"),
    ];
    named(&realm.gateway, edits).await?;
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
    assert!(found(&realm.gateway, &data)?.contains_key("changed_policy"));

    // A leaf that this gateway did not stage is not signed, nor is what comes behind it; doctor names it.
    let copy = TempDir::new()?;
    evidence::copy(&realm.gateway, copy.path())?;
    let data = copy.path().join("gateway-be");
    by_hand(
        &data,
        "INSERT INTO leaf SELECT log, (SELECT max(idx) + 1 FROM leaf WHERE log = 1), entry, salt, record, message, thread, readers, mac FROM leaf WHERE log = 1 AND idx = 2",
    )
    .await?;
    let log = failed(&realm.gateway, &data)?;
    assert!(log["detail"].as_str().is_some_and(|found| found.contains("did not stage it")), "{log}");

    // A gateway does not start on a tree that does not lead to its head, nor on a log that it did not open; doctor names it.
    for (edit, says) in [
        ("UPDATE tile SET hashes = zeroblob(length(hashes)) WHERE log = 1", "changed by hand"),
        ("UPDATE log SET size = size - 1", ""),
        ("INSERT INTO log (kind, number, size) VALUES ('log', 2, 0)", "be/log/2 does not begin with a leaf"),
        (
            "INSERT INTO log (kind, number, size) VALUES ('log', 4294967295, 0)",
            "be/log/4294967295 does not begin with a leaf",
        ),
        (
            "INSERT INTO log (kind, number, size) VALUES ('keys', 4000000000, 0)",
            "be/keys/4000000000 does not begin with a leaf",
        ),
    ] {
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
        assert!(format!("{run:?}").contains(says), "{edit}: {run:?}");
        failed(&realm.gateway, &data)?;
    }
    sound(&realm.gateway).await?;
    Ok(())
}

/// The tables that state what the log states as well, in every state of a message: at its recipient's, here in a queue, in
/// a lane for another domain, and accepted there.
#[tokio::test]
async fn what_other_tables_state_is_compared_with_the_log() -> Result<()> {
    let mut federation = Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[HOSPITAL, SHELTER, POLICE, SHELTER_HU],
    })
    .await?;
    federation.send_one(HOSPITAL, message::small_referral(SHELTER)).await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.stop().await?;
    federation.send(HOSPITAL, message::small_referral(SHELTER_HU)).await?;
    let be = &federation.realm("be")?.gateway;
    wait::until("the other domain holds one", async || {
        (waiting_for(be, "hu").await.ok()? == (0, 1)).then_some(())
    })
    .await?;
    federation.realm_mut("hu")?.gateway.stop().await?;
    let be = federation.realm_mut("be")?;
    for agency in [SHELTER, POLICE] {
        be.agent_mut(agency)?.stop().await?;
    }
    // One in the lane to the other domain, and two in queues here.
    for to in [SHELTER_HU, SHELTER, POLICE] {
        let referral = call::send(be.agent(HOSPITAL)?, message::small_referral(to)).await?;
        call::referral_in(be.agent(HOSPITAL)?, &referral, State::Requested).await?;
    }
    be.gateway.command(&["agency", "suspend", POLICE]).await?;
    be.load_scheme(&policies::without_health()).await?;
    leaves(&be.gateway).await?;
    sound(&be.gateway).await?;
    be.gateway.stop().await?;
    sound(&be.gateway).await?;

    let edits: &[(&str, &str)] = &[
        (
            "audit_without_leaf",
            "INSERT INTO audit (at, actor, act, subject) SELECT at, actor, 'suspend_agency', subject FROM audit WHERE act = 'add_agency' LIMIT 1",
        ),
        ("audit_without_leaf", "UPDATE audit SET at = at + 1 WHERE act = 'enrol'"),
        ("audit_removed", "DELETE FROM audit WHERE act = 'load_policy'"),
        (
            "audit_removed",
            "UPDATE audit SET subject = 'be/shelter-antwerp' WHERE subject = 'be/police-federal'",
        ),
        ("changed_agency", "UPDATE agency SET state = 2 WHERE address = 'be/police-federal'"),
        ("changed_agency", "UPDATE agency SET state = 4 WHERE address = 'be/shelter-antwerp'"),
        ("changed_agency", "UPDATE agency SET added = added - 1 WHERE address = 'be/shelter-antwerp'"),
        ("changed_agency", "INSERT INTO revoked_agency VALUES ('be/shelter-antwerp', 1)"),
        (
            "agency_without_act",
            "INSERT INTO agency SELECT 'be/nobody', name, country, sectors, groups, state, added, services FROM agency LIMIT 1",
        ),
        ("agency_removed", "DELETE FROM agency WHERE address = 'be/shelter-antwerp'"),
        ("changed_peer", "UPDATE peer SET state = 2"),
        (
            "peer_without_act",
            "INSERT INTO peer (domain, state, bundle, countries) SELECT 'fr', state, bundle, countries FROM peer",
        ),
        ("peer_removed", "DELETE FROM peer"),
        (
            "policy_without_act",
            "INSERT INTO policy_set SELECT randomblob(32), files, activated, 0 FROM policy_set WHERE active = 1",
        ),
        ("policy_removed", "DELETE FROM policy_set WHERE active = 0"),
        ("changed_policy", "UPDATE policy_set SET activated = activated + 1 WHERE active = 0"),
        (
            "thread_without_leaf",
            "INSERT INTO thread SELECT randomblob(16), requester, responder, status FROM thread LIMIT 1",
        ),
        (
            "changed_thread",
            "UPDATE thread SET responder = 'be/customs' WHERE responder = 'be/police-federal'",
        ),
        ("thread_removed", "DELETE FROM thread WHERE responder = 'be/police-federal'"),
        ("key_without_leaf", "UPDATE peer_agency SET agency = CAST(agency || x'ff' AS BLOB)"),
        // Who gets a copy, what of it, and whether.
        ("copy_removed", "DELETE FROM delivery WHERE agency = 'be/police-federal' AND message IS NOT NULL"),
        ("copy_removed", "DELETE FROM delivery WHERE forwarded = 1"),
        (
            "doubled_copy",
            "INSERT INTO delivery (agency, expires, bytes, message, proof, bases, decision, release, queue, bases_salt) SELECT agency, expires, bytes, message, proof, bases, decision, release, queue, bases_salt FROM delivery WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        (
            "changed_copy",
            "UPDATE delivery SET expires = 1 WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        ("changed_copy", "UPDATE delivery SET expires = 9000000000000 WHERE forwarded = 1"),
        (
            "copy_without_release",
            "UPDATE delivery SET agency = 'be/shelter-antwerp' WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        (
            "changed_copy",
            "UPDATE delivery SET queue = 'be/shelter-antwerp' WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        (
            "changed_copy",
            "UPDATE delivery SET handed_over = 1 - handed_over WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        (
            "changed_copy",
            "UPDATE delivery SET offered = 1 WHERE agency = 'hu/shelter-budapest' AND message IS NOT NULL",
        ),
        (
            "changed_copy",
            "UPDATE delivery SET quarantined = x'' WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        (
            "changed_copy",
            "UPDATE delivery SET release = (SELECT release FROM delivery WHERE agency = 'be/shelter-antwerp' AND message IS NOT NULL) WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        (
            "changed_copy",
            "UPDATE delivery SET decision = x'' WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        (
            "changed_copy",
            "UPDATE delivery SET release = CAST(release || x'00' AS BLOB) WHERE agency = 'be/police-federal' AND message IS NOT NULL",
        ),
        (
            "copy_after_end",
            "UPDATE delivery SET message = (SELECT min(seq) FROM message) WHERE agency = 'be/shelter-antwerp' AND message IS NOT NULL",
        ),
        (
            "content_removed",
            "DELETE FROM content WHERE message IN (SELECT message FROM delivery WHERE agency = 'be/police-federal')",
        ),
        (
            "changed_content",
            "UPDATE content SET envelope = (SELECT envelope FROM content ORDER BY message DESC LIMIT 1)",
        ),
        ("copy_without_message", "DELETE FROM message WHERE seq IN (SELECT message FROM delivery)"),
        (
            "forwarded_without_leaf",
            "UPDATE delivery SET forwarded = 1, queue = agency WHERE agency = 'hu/shelter-budapest' AND forwarded = 0",
        ),
        ("changed_copy", "UPDATE delivery SET queue = 'be/shelter-antwerp' WHERE forwarded = 1"),
        ("changed_acceptance", "UPDATE message SET acceptance = x''"),
    ];
    named(&federation.realm("be")?.gateway, edits).await
}
