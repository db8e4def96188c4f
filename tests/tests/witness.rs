//! Peers as witnesses of a domain's logs, and what becomes of a gateway that was restored from an older copy.

#![allow(clippy::indexing_slicing, reason = "an absent field of JSON is null")]

use std::fs;

use ::http as http_types;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::BodyExt;
use liaison_demo::{Gateway, Member, http, wait};
use liaison_tests::{
    Federation, Realm,
    evidence::{found, named},
    federation::Setup,
    insider::{self, Insider},
    names::{POLICE, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
    restored::{back_up, forget, guard, guarded, put_back},
};
use liaison_trust::log::{Checkpoint, Frontier, Note, TileHashes, leaf_hash, new_bundles, new_tiles, root};
use serde_json::Value;
use tonic::{body::Body, transport::Channel};
use tower::{Service, ServiceExt};

async fn two() -> Result<Federation> {
    Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[SHELTER, SHELTER_HU],
    })
    .await
}

/// The sum of a metric over the series that hold all of these.
async fn metric(gateway: &Gateway, name: &str, labels: &[&str]) -> Result<u64> {
    let metrics = http::request(gateway.metrics(), "GET", "/metrics", &[], &[]).await?.text();
    let of_it = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let counts = of_it.filter(|line| labels.iter().all(|label| line.contains(label)));
    counts.map(|line| Ok(line.rsplit(' ').next().context("no count")?.parse::<f64>()? as u64)).sum()
}

async fn leaves(gateway: &Gateway) -> Result<u64> {
    metric(gateway, "liaison_gateway_log_leaves", &["/log/"]).await
}

/// Lets the log of evidence grow by what administrators do.
async fn grow(gateway: &Gateway, agencies: &[&str]) -> Result<()> {
    let before = leaves(gateway).await?;
    for address in agencies {
        let member = Member {
            address,
            name: "Another",
            country: "be",
            sectors: &["NGO"],
            groups: &[],
            services: &[],
            languages: &[],
            ages: &[],
        };
        gateway.add(&member).await?;
    }
    let count = agencies.len() as u64;
    wait::until("the log has grown", async || (leaves(gateway).await.ok()? >= before + count).then_some(()))
        .await
}

/// A gateway whose database is an older copy, from before the log grew and its peer saw it.
async fn restored(federation: &mut Federation) -> Result<()> {
    // Its own agency would show it what it lacks, too.
    federation.realm_mut("be")?.agent_mut(SHELTER)?.stop().await?;
    let be = &mut federation.realm_mut("be")?.gateway;
    be.stop().await?;
    back_up(be)?;
    be.start().await?;
    grow(be, &["be/first", "be/second"]).await?;
    // Heads are shown when a link begins, and every minute.
    be.stop().await?;
    be.start().await?;
    cosigned(be).await?;
    put_back(be)
}

async fn cosigned(gateway: &Gateway) -> Result<()> {
    wait::until("the peer has cosigned both logs", async || {
        let count = metric(gateway, "liaison_gateway_log_cosignatures_total", &["cosigned"]).await.ok()?;
        (count >= 2).then_some(())
    })
    .await
}

#[tokio::test]
async fn peers_cosign_one_anothers_heads() -> Result<()> {
    let federation = two().await?;
    for domain in ["be", "hu"] {
        let gateway = &federation.realm(domain)?.gateway;
        cosigned(gateway).await?;
        let refused = metric(gateway, "liaison_gateway_log_cosignatures_total", &["refused"]).await?;
        ensure!(refused == 0, "{domain}: {refused} heads were refused");
        let conflicts = metric(gateway, "liaison_gateway_log_conflicts_total", &[]).await?;
        ensure!(conflicts == 0, "{domain} tells two stories");
    }
    Ok(())
}

/// Of a log that peers cosigned, whatever is shown to others has their cosignatures.
#[tokio::test]
async fn what_peers_cosigned_is_shown() -> Result<()> {
    let mut federation = two().await?;
    cosigned(&federation.realm("be")?.gateway).await?;
    let be = &federation.realm("be")?.gateway;
    let is_cosigned = |note: &str| note.lines().any(|line| line.starts_with("\u{2014} hu/"));
    let shown: Value =
        serde_json::from_str(&be.command(&["--json", "log", "head", "--log", "be/log"]).await?)?;
    let note = shown["cosigned"].as_str().context("no cosigned head is shown")?;
    ensure!(is_cosigned(note), "{note}");
    ensure!(
        be.command(&["log", "head", "--log", "be/log"]).await?.contains(note.trim_end()),
        "people see none"
    );
    let receipt = be.command(&["log", "prove", "0"]).await?;
    ensure!(is_cosigned(&receipt), "{receipt}");
    let folder = federation.realm("be")?.folder().join("export");
    be.command(&["log", "export", &folder.to_string_lossy()]).await?;
    for kind in ["log", "keys"] {
        let written = fs::read_to_string(folder.join(format!("be/{kind}/1/cosigned")))?;
        ensure!(is_cosigned(&written), "{written}");
    }
    let be = &mut federation.realm_mut("be")?.gateway;
    be.stop().await?;
    let edits = [
        ("wrong_cosigned", "UPDATE log SET cosigned = x'00'"),
        (
            "wrong_cosigned",
            "UPDATE log SET cosigned = (SELECT cosigned FROM log WHERE kind = 'keys') WHERE kind = 'log'",
        ),
        (
            "wrong_cosigned",
            "UPDATE log SET cosigned = CAST(replace(CAST(cosigned AS TEXT), char(10), ' ') AS BLOB)",
        ),
    ];
    named(be, &edits).await
}

#[tokio::test]
async fn the_guard_file_refuses_an_older_copy() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[]).await?;
    let gateway = &mut realm.gateway;
    gateway.stop().await?;
    back_up(gateway)?;
    gateway.start().await?;
    grow(gateway, &["be/first"]).await?;
    let size = leaves(gateway).await?;
    guarded(gateway, size - 1).await?;
    put_back(gateway)?;
    for _ in 0..2 {
        let refused = gateway.start().await.err().context("it starts on an older copy")?.to_string();
        ensure!(refused.contains("older copy") && refused.contains("log reopen"), "{refused}");
    }
    Ok(())
}

/// It has grown beyond the head that the guard file has, with other leaves.
#[tokio::test]
async fn the_guard_file_names_another_copy() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[]).await?;
    let gateway = &mut realm.gateway;
    gateway.stop().await?;
    back_up(gateway)?;
    gateway.start().await?;
    grow(gateway, &["be/first"]).await?;
    let size = leaves(gateway).await?;
    guarded(gateway, size - 1).await?;
    let seen = fs::read(guard(gateway))?;
    put_back(gateway)?;
    forget(gateway)?;
    gateway.start().await?;
    grow(gateway, &["be/second", "be/third"]).await?;
    gateway.stop().await?;
    fs::write(guard(gateway), seen)?;
    let found = found(gateway, &gateway.data)?;
    ensure!(found.keys().eq(["other_copy"]), "{found:?}");
    let refused = gateway.start().await.err().context("it starts on another copy")?.to_string();
    ensure!(refused.contains("other leaves in their place"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_peer_shows_what_an_older_copy_lacks() -> Result<()> {
    let mut federation = two().await?;
    restored(&mut federation).await?;
    let be = &mut federation.realm_mut("be")?.gateway;
    forget(be)?;
    be.start().await?;
    let ended = be.ended().await?;
    ensure!(ended.contains("older copy"), "{ended}");
    // From then on the guard file says it.
    let refused = be.start().await.err().context("it starts again")?.to_string();
    ensure!(refused.contains("older copy"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_history_that_was_rewritten_is_caught_by_a_peer() -> Result<()> {
    let mut federation = two().await?;
    restored(&mut federation).await?;
    federation.realm_mut("hu")?.gateway.stop().await?;
    let be = &mut federation.realm_mut("be")?.gateway;
    forget(be)?;
    be.start().await?;
    grow(be, &["be/third", "be/fourth", "be/fifth", "be/sixth"]).await?;
    federation.realm_mut("hu")?.gateway.start().await?;
    let ended = federation.realm_mut("be")?.gateway.ended().await?;
    ensure!(ended.contains("older copy"), "{ended}");
    let hu = &federation.realm("hu")?.gateway;
    let conflicts = metric(hu, "liaison_gateway_log_conflicts_total", &["be/log/1"]).await?;
    ensure!(conflicts > 0, "the witness raises no alarm");
    let log = federation.realm("hu")?.gateway_log();
    ensure!(log.contains("changed its past") && log.contains("be/log/1"), "the witness's log does not tell");
    Ok(())
}

/// What a caller gets of a path.
async fn get(channel: &Channel, path: &str) -> Result<(http_types::StatusCode, Bytes)> {
    let request = http_types::Request::get(format!("http://gateway{path}")).body(Body::empty())?;
    let mut channel = channel.clone();
    let answer = channel.ready().await?.call(request).await?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}

#[tokio::test]
async fn heads_and_tiles_are_for_members_alone() -> Result<()> {
    let federation = two().await?;
    let gateway = &federation.realm("be")?.gateway;
    let police = Insider::enrol(gateway, POLICE).await?;
    let channel = police.channel().await?;
    wait::until("there is a head", async || (leaves(gateway).await.ok()? > 0).then_some(())).await?;
    // The tree of the tiles is the one that is signed.
    let (status, note) = get(&channel, "/be/log/1/checkpoint").await?;
    ensure!(status == 200, "{status}");
    let checkpoint: Checkpoint = Note::parse(&note)?.text().parse()?;
    let size = checkpoint.size();
    let mut hashes = TileHashes::new();
    let mut frontier = Frontier::new();
    for tile in new_tiles(0, size) {
        let (status, content) = get(&channel, &format!("/be/log/1/{tile}")).await?;
        ensure!(status == 200, "{tile}: {status}");
        hashes.insert(tile, &content)?;
    }
    for bundle in new_bundles(0, size) {
        let (status, content) = get(&channel, &format!("/be/log/1/{bundle}")).await?;
        ensure!(status == 200, "{bundle}: {status}");
        for entry in bundle.decode(&content)? {
            frontier.append(leaf_hash(entry))?;
        }
    }
    ensure!(root(size, |node| hashes.hash(node))? == checkpoint.root(), "the tiles are of another tree");
    ensure!(frontier.root() == checkpoint.root(), "the entries are of another tree");
    for missing in
        ["/be/log/2/checkpoint", "/hu/log/1/checkpoint", "/be/log/1/tile/9/000", "/be/log/1/tile/0/x001/000"]
    {
        let (status, _) = get(&channel, missing).await?;
        ensure!(status == 404, "{missing}: {status}");
    }
    // Nobody else gets them, nor has a head cosigned.
    let stranger = insider::connect(gateway.exchange(), &insider::trust(gateway)?, None).await?;
    for path in ["/be/log/1/checkpoint", "/be/log/1/tile/0/000.p/1", "/be/log/1/opened"] {
        let (status, _) = get(&stranger, path).await?;
        ensure!(status == 401, "a stranger: {path}: {status}");
    }
    // There is no such path where agencies connect, which gRPC says in a trailer.
    let (_, body) = get(&channel, "/witnessed/be/log").await?;
    ensure!(body.is_empty(), "an agency reads what peers showed");
    gateway.command(&["agency", "suspend", POLICE]).await?;
    let suspended = get(&channel, "/be/log/1/checkpoint").await;
    ensure!(
        suspended.is_err() || suspended.is_ok_and(|(status, _)| status == 403),
        "a suspended agency reads"
    );
    Ok(())
}
