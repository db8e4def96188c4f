//! A member that keeps to no rule: what it does costs the others nothing.

use bytes::Bytes;
use liaison_gateway::limits;
use liaison_proto::{
    exchange::v1::{PublishKeyRequest, SubmissionChunk, session_request::Frame as Request},
    message::v1::{Refusal, error_code::Code as ErrorCode, kem::Code as Kem},
};
use liaison_trust::{
    key_record,
    keys::{KemKey, SigningKey},
};
use time::OffsetDateTime;
use tokio::time::{Duration, sleep, timeout};

use super::{
    engine,
    support::{Link, SOON, World},
};

#[tokio::test]
async fn one_that_reads_no_answers_takes_no_room_from_others() {
    let (world, [police, ..]) = World::start().await;
    let link = world.session(&police).await;
    let chunk = |submission| SubmissionChunk { submission, data: Bytes::from_static(b"x"), last: true };
    // Until the gateway takes no more of it: the answers fill every buffer on the way.
    let mut submission = 0;
    while timeout(Duration::from_secs(1), link.send(Request::Submission(chunk(submission)))).await.is_ok() {
        submission += 1;
    }
    // All that is answered gives its room back; the next one, a KiB, waits for its turn.
    let room = async {
        while world.gateway.submissions.available_permits() + 1 < limits::SUBMISSION_BYTES >> 10 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, room).await.expect("room for submissions is held by one that reads no answers");
}

#[tokio::test]
async fn streams_that_are_not_let_go_are_bounded() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut client = world.client(Some(world.identity(&police.address))).await;
    let mut held = Vec::new();
    for _ in 0..limits::AGENCY_STREAMS {
        held.push(Link::open(&mut client).await.unwrap());
    }
    let Err(status) = Link::open(&mut client).await else { panic!("one stream too many") };
    let refusal = Refusal::from(&status);
    assert_eq!(refusal.code(), ErrorCode::RateLimited);
    assert!(refusal.retry_after_ms > 0);
    // They are its own, and come back.
    world.session(&shelter).await;
    held.clear();
    let again = async {
        while Link::open(&mut client).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, again).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_break_its_own_key_chain() {
    let (world, [_, shelter, ..]) = World::start().await;
    let now = OffsetDateTime::now_utc();
    let next = |previous: &_, signer: &SigningKey, signing: &SigningKey| {
        let kem = KemKey::generate(Kem::X25519).unwrap();
        key_record::next(previous, signer, signing, &kem, now, now + time::Duration::days(60)).unwrap()
    };
    let (second_key, third_key) = (SigningKey::generate(), SigningKey::generate());
    let second = next(&shelter.record, &shelter.signing, &second_key);
    let third = next(&second, &second_key, &third_key);
    let mut client = world.client(Some(world.identity(&shelter.address))).await;

    // The database is busy for so long that the caller loses patience.
    let busy = engine::busy(&world.database().await).await;
    let publish = client.publish_key(PublishKeyRequest { key: Some(second.clone()) });
    timeout(Duration::from_millis(300), publish).await.expect_err("the database was not busy");
    sleep(Duration::from_millis(300)).await;
    busy.end().await;

    client.publish_key(PublishKeyRequest { key: Some(second) }).await.unwrap();
    client.publish_key(PublishKeyRequest { key: Some(third) }).await.unwrap();
    let directory = world.gateway.directory.load();
    let sequences: Vec<_> =
        directory.get(&shelter.address).unwrap().keys.iter().map(|key| key.sequence).collect();
    assert_eq!(sequences, [0, 1, 2]);
}

#[tokio::test]
async fn the_same_key_record_at_the_same_time_is_published_once() {
    let (world, [_, shelter, ..]) = World::start().await;
    let now = OffsetDateTime::now_utc();
    let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::X25519).unwrap());
    let until = now + time::Duration::days(60);
    let next = key_record::next(&shelter.record, &shelter.signing, &signing, &kem, now, until).unwrap();
    let client = world.client(Some(world.identity(&shelter.address))).await;
    let publishing = (0..20).map(|_| {
        let (mut client, key) = (client.clone(), Some(next.clone()));
        tokio::spawn(async move { client.publish_key(PublishKeyRequest { key }).await })
    });
    for published in publishing.collect::<Vec<_>>() {
        published.await.unwrap().unwrap();
    }
    assert_eq!(world.gateway.directory.load().get(&shelter.address).unwrap().keys.len(), 2);
}
