//! What is erased of a message, when, and what is said of it afterwards.

use liaison_gateway::store::{Act, Erasure};
use liaison_proto::message::v1::{basis::Code as Basis, error_code::Code as ErrorCode};
use time::OffsetDateTime;

use crate::{engine, support::World};

const ACT: Act<'_> =
    Act { at: OffsetDateTime::UNIX_EPOCH, actor: "test", act: "erase_record", subject: "be/log/1 0" };

async fn erase(world: &World, index: u64) -> Erasure {
    let gateway = &world.gateway;
    gateway.store.erase_records(gateway.logs.evidence.tree().id(), &[(index, ACT)]).await.unwrap()
}

/// Whether bytes stand anywhere in a database.
async fn holds(world: &World, bytes: &[u8]) -> bool {
    engine::rows_with(&world.database().await, ("message", "acceptance"), bytes).await > 0
}

#[tokio::test]
async fn an_erased_acceptance_is_gone_and_its_message_is_not_delivered_again() {
    let (world, [police, shelter, ..]) = World::start().await;
    let mut sender = world.session(&shelter).await;
    let envelope = shelter.seal(&shelter.referral(&police, Basis::ConsentOfPerson));
    let acceptance = sender.submit(&envelope).await.unwrap();

    // Nothing of it goes while it is on its way.
    assert!(matches!(erase(&world, 0).await, Erasure::UnderWay(0, _)));
    assert_eq!(sender.submit(&envelope).await.unwrap(), acceptance, "as before");
    let mut recipient = world.session(&police).await;
    let (attempt, copy) = recipient.copy().await;
    assert!(matches!(erase(&world, 0).await, Erasure::UnderWay(0, _)), "handed over, and not acknowledged");
    recipient.acknowledge(attempt, &police.acknowledgement(&copy), &police.signing).await;
    world.until_queued(&police, 0).await;

    assert!(holds(&world, &acceptance.acceptance).await);
    assert_eq!(erase(&world, 0).await, Erasure::Done(vec![0]));
    assert!(!holds(&world, &acceptance.acceptance).await);
    assert_eq!(erase(&world, 0).await, Erasure::Done(Vec::new()), "once");
    for _ in 0..2 {
        let refusal = sender.submit(&envelope).await.unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::UnknownMessage);
        assert!(refusal.message.contains("erased"), "{refusal}");
    }
    assert_eq!(world.queued(&police).await, 0);
    // The same where it is looked up before it is decided.
    world.set_state(&police, liaison_proto::admin::v1::agency_state::Code::Suspended);
    assert_eq!(sender.submit(&envelope).await.unwrap_err().code(), ErrorCode::UnknownMessage);
}
