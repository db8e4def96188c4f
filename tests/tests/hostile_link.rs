//! A hostile peer's links, bundles, receipts and answers: refused, named, and harmless to the traffic of others.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    exchange::v1::Agency,
    federation::v1::{
        Bundle, DirectoryChange, DirectoryPage, LinkRequest, RelayNotice, SignedBundle,
        federation_service_client::FederationServiceClient, link_request::Frame as Request,
    },
    limits,
    message::v1::{
        Acknowledgement, Notice, Refusal, SignedAcceptance, SignedNotice, StateChange,
        error_code::Code as ErrorCode, notice, referral_state::Code as State,
    },
    times,
};
use liaison_tests::{
    call,
    forge::Claim,
    hostile::{Answer, DOMAIN, Hostile, Link},
    liar::{Liar, Lie},
    message,
    names::{HOSPITAL, SHELTER, SHELTER_HU},
    outsider::Outsider,
    policies, raw,
    scene::{Scene, refused},
};
use liaison_trust::{ca::Authority, digest::sha256, keys::SigningKey, statement};
use prost::Message;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::metadata::MetadataMap;

const LINK: &str = "/liaison.federation.v1.FederationService/Link";
/// Garbage that a flood sends.
const FLOOD: usize = 10_000;
/// Well-formed frames that another one sends at the least, the agencies on each page among them, the frames before
/// it looks at the answers, and the messages of two others that arrive meanwhile.
const WELL_FORMED: u64 = 4_000;
const LISTED: usize = 5;
const AT_ONCE: u64 = 200;
const MEANWHILE: usize = 20;
/// How much more memory the gateway may have after a flood, KiB.
const FLOOD_KIB: u64 = 256 << 10;
/// After so long a peer that broke the rules too often is heard again.
const WINDOW: Duration = Duration::from_secs(120);

#[tokio::test]
async fn bundles_that_are_not_its_next() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
    for (what, code, is_counted, bundle) in bundles(&scene.hostile, now)? {
        // As a renewal on a link that stands, and as the first word of one.
        let mut link = scene.hostile.link().await?;
        let answer = link.renew(bundle.clone()).await?;
        refused(what, answer, code)?;
        if is_counted {
            scene.counted(what, code).await?;
        }
        let mut link = Link::open(scene.hostile.connect().await?).await?;
        let Err(refusal) = link.try_hello(bundle).await? else { bail!("{what} is welcome") };
        ensure!(refusal.code() == code, "{what}: {refusal}");
        if is_counted {
            scene.counted(what, code).await?;
        }
    }
    let mut link = scene.hostile.link().await?;
    scene.harmless(&mut link).await
}

/// Each with the code of its refusal, and whether it is a violation: a clock may be wrong without ill will.
fn bundles(hostile: &Hostile, now: u64) -> Result<Vec<(&'static str, ErrorCode, bool, SignedBundle)>> {
    let next = hostile.bundle(now);
    let other = SigningKey::generate();
    let key = other.public().as_bytes().to_vec();
    let hu = Authority::create(&"hu".parse()?)?.certificate_der().to_vec();
    let another = Bundle { gateway_signing_key: key.into(), ..next.clone() };
    let of_hu = Bundle { domain: "hu".to_owned(), roots: vec![hu.clone().into()], ..next.clone() };
    let ahead = OffsetDateTime::now_utc() + limits::CLOCK_AHEAD + Duration::from_secs(600);
    // Newer than all that links say hello with meanwhile.
    let future = Bundle { issued: Some(times::to_wire(ahead)), ..hostile.bundle(u64::MAX) };
    let yesterday = OffsetDateTime::now_utc() - Duration::from_secs(24 * 3600);
    let old = Bundle { issued: Some(times::to_wire(yesterday)), ..hostile.bundle(0) };
    Ok(vec![
        ("an old bundle", ErrorCode::StaleBundle, true, hostile.sign(&old)),
        ("a bundle of another key", ErrorCode::PeerViolation, true, statement::sign(&another, &other)),
        (
            "a bundle that its key did not sign",
            ErrorCode::BadSignature,
            true,
            statement::sign(&next, &SigningKey::generate()),
        ),
        ("a bundle of another domain", ErrorCode::PeerViolation, true, hostile.sign(&of_hu)),
        (
            "a root of another domain",
            ErrorCode::Malformed,
            true,
            hostile.sign(&Bundle { roots: vec![hu.into()], ..next }),
        ),
        ("a bundle from the future", ErrorCode::ClockSkew, false, hostile.sign(&future)),
    ])
}

#[tokio::test]
async fn certificates_that_are_not_a_peers_gateway() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let authority = &scene.hostile.authority;
    let (certificate, key) = (authority.certificate_pem(), authority.key_pem());
    for uri in ["spiffe://xx/agency/shelter", "https://xx/gateway"] {
        let identity = Claim::genuine(uri).by(&certificate, &key)?;
        let channel = scene.hostile.connect_as(&identity).await?;
        let status = raw::call(channel, LINK, MetadataMap::new()).await.err().context("admitted")?;
        let refusal = Refusal::from(&status);
        ensure!(refusal.code() == ErrorCode::WrongName, "{uri}: {refusal}");
    }
    // Its root vouches for its own domain alone, and be's own agencies have no business here.
    for uri in ["spiffe://be/gateway", "spiffe://hu/gateway"] {
        let identity = Claim::genuine(uri).by(&certificate, &key)?;
        ensure!(
            scene.hostile.connect_as(&identity).await.is_err(),
            "{uri} by the authority of xx is admitted"
        );
    }
    let own = Claim::genuine("spiffe://be/agency/hospital-ghent").by_authority_of(&scene.realm.gateway)?;
    if let Ok(channel) = scene.hostile.connect_as(&own).await {
        let answer = raw::call(channel, LINK, MetadataMap::new()).await;
        ensure!(answer.is_err(), "an agency opens a link: {answer:?}");
    }
    let mut link = scene.hostile.link().await?;
    scene.harmless(&mut link).await
}

#[tokio::test]
async fn garbage() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    // Not even TLS.
    let mut tcp = TcpStream::connect(scene.realm.gateway.federation()).await?;
    tcp.write_all(&[0xa5; 4_096]).await?;
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(wait::PATIENCE, tcp.read_to_end(&mut answer)).await.context("it stays")?;

    // Not protobuf, in the place of the first frame.
    let channel = scene.hostile.connect().await?;
    let status = raw::call_with(channel, LINK, MetadataMap::new(), Bytes::from_static(&[0xff; 64])).await;
    ensure!(status.is_err(), "garbage is a hello");
    scene.counted("garbage as a hello", ErrorCode::Malformed).await?;

    // No hello, two of them, a frame that nobody knows.
    let bundle = || scene.hostile.sign(&scene.hostile.bundle(1));
    let hello = |bundle| {
        Request::Hello(liaison_proto::federation::v1::Hello { bundle: Some(bundle), ..Default::default() })
    };
    let (first, second) = (hello(bundle()), hello(bundle()));
    let mut link = Link::open(scene.hostile.connect().await?).await?;
    link.send_bytes(b"no hello").await?;
    let refusal = link.ended().await?.context("it ended without a word")?;
    ensure!(refusal.code() == ErrorCode::Malformed, "{refusal}");
    scene.counted("no hello", ErrorCode::Malformed).await?;
    let mut link = scene.hostile.link().await?;
    link.send(first).await?;
    link.send(second).await?;
    let refusal = link.ended().await?.context("it ended without a word")?;
    ensure!(refusal.code() == ErrorCode::Malformed, "{refusal}");
    scene.counted("a second hello", ErrorCode::Malformed).await?;
    let mut link = scene.hostile.link().await?;
    link.send_frame(LinkRequest { frame: None }).await?;
    let refusal = link.ended().await?.context("it ended without a word")?;
    ensure!(refusal.code() == ErrorCode::UnknownValue && refusal.action.contains("upgrade"), "{refusal}");
    scene.counted("an unknown frame", ErrorCode::UnknownValue).await?;

    // Fields that nobody knows, in a frame of a link that stands and in a hello.
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
    let newest = hello(scene.hostile.sign(&scene.hostile.bundle(now)));
    let newest = LinkRequest { frame: Some(newest) }.encode_to_vec();
    let (hello, unknown) = ([0x0a, 3], [0xa0, 0x06, 1]);
    for (what, frames) in [
        ("an unknown field in a hello", vec![[newest.as_slice(), &hello, &unknown].concat()]),
        ("an unknown field", vec![newest, unknown.to_vec()]),
    ] {
        let frames = frames.into_iter().map(Bytes::from).collect();
        let channel = scene.hostile.connect().await?;
        let mut answers = raw::open(channel, LINK, MetadataMap::new(), frames).await?;
        let status = loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => bail!("{what}: the link ended without a word"),
                Err(status) => break status,
            }
        };
        let refusal = Refusal::from(&status);
        ensure!(refusal.code() == ErrorCode::UnknownValue && refusal.action.contains("upgrade"), "{refusal}");
        scene.counted(what, ErrorCode::UnknownValue).await?;
    }

    let mut link = scene.hostile.link().await?;
    for garbage in [b"not protobuf at all".as_slice(), &[0xff; 64], &[0xff; 300_000]] {
        let answer = link.forward_bytes(garbage).await?;
        scene.violation("garbage as a forward", answer, ErrorCode::Malformed).await?;
    }
    // An empty message is well-formed, and of nobody.
    let answer = link.forward_bytes(&[]).await?;
    scene.violation("nothing as a forward", answer, ErrorCode::PeerViolation).await?;
    let mut link = scene.hostile.link().await?;
    let answer = link.forward_bytes(&vec![0x0a; limits::FORWARD_BYTES + limits::CHUNK_BYTES]).await?;
    scene.violation("more than any forward has", answer, ErrorCode::TooLarge).await?;
    let mut link = scene.hostile.link().await?;
    scene.harmless(&mut link).await
}

#[tokio::test]
async fn a_flood_is_bounded_and_local_traffic_goes_on() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    scene.local().await?;
    let before = scene.memory()?;
    let mut link = scene.hostile.link().await?;
    let flood = tokio::spawn(async move {
        for _ in 0..FLOOD {
            if link.send_bytes(&[0xff; 16]).await.is_err() {
                break;
            }
        }
        link.ended().await
    });
    for _ in 0..5 {
        scene.local().await?;
    }
    let refusal = flood.await??.context("the flood was taken to its end")?;
    ensure!(refusal.code() == ErrorCode::RateLimited, "{refusal}");
    scene.counted("a flood", ErrorCode::Malformed).await?;
    let after = scene.memory()?;
    ensure!(after < before + FLOOD_KIB, "the gateway grew from {before} to {after} KiB");

    // It is not listened to for a while, and then it is.
    let mut link = Link::open(scene.hostile.connect().await?).await?;
    let again = link.try_hello(scene.hostile.sign(&scene.hostile.bundle(1))).await?;
    ensure!(again.is_err_and(|refusal| refusal.code() == ErrorCode::RateLimited), "it is heard at once");
    let mut link =
        wait::within(WINDOW, "the peer is heard again", async || scene.hostile.link().await.ok()).await?;
    scene.harmless(&mut link).await
}

/// Nothing of this is against the rules, and all of it is taken.
#[tokio::test]
async fn a_flood_of_what_is_well_formed_hinders_nobody() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let hu = scene.neighbour(policies::OPEN).await?;
    let before = scene.memory()?;
    let mut link = scene.hostile.link().await?;
    let on = Cell::new(true);
    let flood = async {
        let (frame, mut sent) = (well_formed(&scene)?, 0);
        while on.get() || sent < WELL_FORMED {
            let done = link.flood(AT_ONCE, &frame).await?;
            ensure!(done == AT_ONCE, "only {done} of {AT_ONCE} frames were taken");
            sent += done;
        }
        println!("{sent} frames were taken");
        Ok(())
    };
    let others = async {
        let (hospital, shelter_hu) = (scene.realm.agent(HOSPITAL)?, hu.agent(SHELTER_HU)?);
        let mut abroad = call::case(shelter_hu)?;
        for _ in 0..MEANWHILE {
            scene.local().await?;
            let sent = abroad.send_referral(message::small_referral(HOSPITAL)).await?.into_inner();
            let id = &sent.referrals.first().context("no referral was made")?.id;
            call::received(hospital, id).await?;
        }
        anyhow::Ok(())
    };
    let others = async {
        let outcome = others.await;
        on.set(false);
        outcome
    };
    // Futures within futures are too large for a test's stack.
    let (flood, others, asked) = (Box::pin(flood), Box::pin(others), Box::pin(previews(&scene)));
    let flood = async {
        tokio::select! {
            flooded = flood => flooded,
            asked = asked => asked,
        }
    };
    let (flooded, others) = tokio::join!(flood, others);
    flooded?;
    others?;

    let most = scene.most_memory()?;
    println!("{before} KiB before, {most} KiB at most");
    ensure!(most < before + FLOOD_KIB, "the gateway grew from {before} to {most} KiB");
    let shown = scene.realm.gateway.peer(DOMAIN).await?;
    for (field, number) in [("agencies", LISTED), ("violations", 0), ("queued", 0)] {
        ensure!(shown.get(field) == Some(&number.into()), "{field} is not {number}: {shown}");
    }
    scene.harmless(&mut link).await
}

/// Frames that an honest gateway could send: by turns pages of the directory, each with other words than the one
/// before, and notices about messages that the gateway does not know.
fn well_formed(scene: &Scene) -> Result<impl Fn(u64) -> Request> {
    let agencies = (0..LISTED).map(|number| Outsider::new(&format!("xx/agency-{number}")));
    let agencies: Vec<Outsider> = agencies.collect::<Result<_>>()?;
    let hostile = &scene.hostile;
    Ok(move |number: u64| {
        if number.is_multiple_of(2) {
            let notice = Notice {
                message_id: uuid::Uuid::now_v7().as_bytes().to_vec().into(),
                manifest_digest: vec![7; 32].into(),
                recipient: "xx/shelter".to_owned(),
                at: Some(times::to_wire(OffsetDateTime::now_utc())),
                event: Some(notice::Event::Expired(notice::Expired::default())),
                ..Notice::default()
            };
            return Request::Notice(RelayNotice {
                number,
                notice: Some(statement::sign(&notice, &hostile.signing)),
            });
        }
        let name = format!("An agency as of {number}");
        let agencies =
            agencies.iter().map(|agency| Agency { name: name.clone(), ..agency.described(DOMAIN) });
        let page = DirectoryPage { sequence: number, first: number == 1, ..hostile.page(agencies.collect()) };
        Request::Directory(DirectoryChange { number, page: Some(statement::sign(&page, &hostile.signing)) })
    })
}

/// Asks for previews without end.
async fn previews(scene: &Scene) -> Result<()> {
    let mut client = FederationServiceClient::new(scene.hostile.connect().await?);
    loop {
        if let Err(status) = client.preview(scene.hostile.preview(SHELTER)).await {
            let refusal = Refusal::from(&status);
            ensure!(refusal.code() == ErrorCode::RateLimited, "{refusal}");
        }
    }
}

#[tokio::test]
async fn stalling_costs_nothing() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    // A connection that says nothing, a link that says nothing, and one of which nothing is read.
    let _mute = TcpStream::connect(scene.realm.gateway.federation()).await?;
    let mut silent = Link::open(scene.hostile.connect().await?).await?;
    let mut deaf = scene.hostile.link().await?;
    let honest = scene.honest()?.encode_to_vec();
    for _ in 0..50 {
        deaf.send_bytes(&honest).await?;
    }
    scene.local().await?;
    let refusal = silent.ended().await?.context("it ended without a word")?;
    ensure!(refusal.code() == ErrorCode::Malformed, "{refusal}");
    scene.counted("no hello", ErrorCode::Malformed).await?;

    // More links than one gateway has: the surplus is refused, and those that stall give way in time.
    let mut stalled = Vec::new();
    for _ in 0..6 {
        if let Ok(link) = Link::open(scene.hostile.connect().await?).await {
            stalled.push(link);
        }
    }
    ensure!(stalled.len() < 6, "there is no end to the links of one peer");
    let mut link = wait::until("a link finds room again", async || scene.hostile.link().await.ok()).await?;
    scene.harmless(&mut link).await
}

#[tokio::test]
async fn lies_in_receipts() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut liar = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Honest).await?;
    // Before its links here bring newer bundles than that of its welcome.
    wait::until("be is linked to the peer", async || {
        let shown = scene.realm.gateway.peer(DOMAIN).await.ok()?;
        (shown.get("linked") == Some(&serde_json::Value::Bool(true))).then_some(())
    })
    .await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    let id = scene.send(message::small_referral("xx/shelter")).await?;
    let forward = liar.forwarded().await.context("nothing was forwarded")?;
    scene.holder(&id, DOMAIN).await?;

    let (manifest, digest) = (message_id(&forward.manifest)?, Bytes::from(sha256(&forward.manifest)));
    let about = |recipient: &str, event: notice::Event| Notice {
        message_id: manifest.clone(),
        manifest_digest: digest.clone(),
        recipient: recipient.to_owned(),
        at: Some(times::to_wire(OffsetDateTime::now_utc())),
        event: Some(event),
        ..Notice::default()
    };
    let shelter = &scene.hostile.shelter;
    let word = Acknowledgement {
        message_id: manifest.clone(),
        manifest_digest: digest.clone(),
        recipient: shelter.address.to_string(),
        key_id: shelter.key()?.id.into(),
        received_at: Some(times::to_wire(OffsetDateTime::now_utc())),
        log_head: Vec::new().into(),
        keys_head: Vec::new().into(),
        thread_state: Some(StateChange { state: State::Received.into(), ..StateChange::default() }),
    };
    let genuine = notice::Event::Acknowledged(statement::sign(&word, &shelter.signing));
    let forged = notice::Event::Acknowledged(statement::sign(&word, &scene.hostile.clinic.signing));
    let other = Acknowledgement { manifest_digest: vec![9; 32].into(), ..word };
    let other = notice::Event::Acknowledged(statement::sign(&other, &shelter.signing));
    let expired = || notice::Event::Expired(notice::Expired::default());
    let onward = notice::Event::Forwarded(SignedAcceptance::default());
    let sign = |notice: &Notice| statement::sign(notice, &scene.hostile.signing);
    let attacks: Vec<(&str, ErrorCode, SignedNotice)> = vec![
        ("of another peer's recipient", ErrorCode::PeerViolation, sign(&about("hu/shelter", expired()))),
        ("of an agency of be", ErrorCode::PeerViolation, sign(&about(SHELTER, expired()))),
        ("an acknowledgement by another key", ErrorCode::BadSignature, sign(&about("xx/shelter", forged))),
        ("an acknowledgement of another", ErrorCode::BadSignature, sign(&about("xx/shelter", other))),
        ("that it went on to a third domain", ErrorCode::PeerViolation, sign(&about("xx/shelter", onward))),
        (
            "that tells nothing",
            ErrorCode::PeerViolation,
            sign(&Notice { event: None, ..about("xx/shelter", expired()) }),
        ),
        (
            "that it did not sign",
            ErrorCode::BadSignature,
            statement::sign(&about("xx/shelter", expired()), &SigningKey::generate()),
        ),
    ];
    // About something that it was never sent: taken, so that it stops, and of no effect.
    let unknown = Notice { message_id: vec![1; 16].into(), ..about("xx/shelter", expired()) };
    let (unknown, never_sent) = (sign(&unknown), sign(&about("xx/clinic", expired())));
    let genuine = sign(&about("xx/shelter", genuine));

    for (what, code, notice) in attacks {
        let answer = link.notice(notice).await?;
        scene.violation(what, answer, code).await?;
    }
    for notice in [unknown, never_sent] {
        let answer = link.notice(notice).await?;
        ensure!(matches!(answer, Answer::Done), "{answer:?}");
    }
    scene.holder(&id, DOMAIN).await?;
    let answer = link.notice(genuine).await?;
    ensure!(matches!(answer, Answer::Done), "an honest notice: {answer:?}");
    call::referral_in(scene.realm.agent(HOSPITAL)?, &id, State::Received).await?;
    scene.holder(&id, "xx/shelter").await?;
    scene.harmless(&mut link).await
}

#[tokio::test]
async fn lies_in_acceptances() -> Result<()> {
    let port = Port::free()?;
    let mut scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    let id = scene.send(message::small_referral("xx/shelter")).await?;
    for told in [
        Lie::OtherRecipient,
        Lie::OneTooMany,
        Lie::NotSigned,
        Lie::OtherDigest,
        Lie::NoVerdict,
        Lie::OtherLayer("xx/shelter"),
        Lie::Done,
        Lie::OtherNumber,
        Lie::Garbage,
    ] {
        // What the lie before was counted for since is not this one's.
        let _ = scene.counted("before", ErrorCode::PeerViolation).await;
        let mut liar = Liar::of(&scene.hostile, &scene.realm.gateway, told).await?;
        liar.forwarded().await.with_context(|| format!("{told:?}: nothing was forwarded"))?;
        wait::until("the lie is counted", async || {
            scene.counted(&format!("{told:?}"), ErrorCode::PeerViolation).await.ok()
        })
        .await?;
        scene.holder(&id, "be").await?;
        scene.local().await?;
    }
    let mut silent = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Silent).await?;
    silent.forwarded().await.context("silent: nothing was forwarded")?;
    scene.local().await?;
    scene.holder(&id, "be").await?;
    drop(silent);
    // No link stands on an old bundle.
    let old = scene.hostile.sign(&scene.hostile.bundle(0));
    let old = Liar::with_bundle(&scene.hostile, &scene.realm.gateway, Lie::Honest, old).await?;
    wait::until("the old bundle is counted", async || {
        scene.counted("an old bundle in a welcome", ErrorCode::StaleBundle).await.ok()
    })
    .await?;
    scene.holder(&id, "be").await?;
    drop(old);

    let mut honest = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Honest).await?;
    honest.forwarded().await.context("honest: nothing was forwarded")?;
    scene.holder(&id, DOMAIN).await?;
    let mut link = scene.hostile.link().await?;
    scene.harmless(&mut link).await
}

fn message_id(manifest: &Bytes) -> Result<Bytes> {
    Ok(liaison_proto::message::v1::Manifest::decode(manifest.clone())?.message_id)
}
