//! The gateway as a witness of a peer's log: what it cosigns, and what it keeps as evidence.

use axum::http::StatusCode;
use liaison_gateway::{
    limits,
    log::witness::{self, WitnessError},
    store::LogKind,
};
use liaison_trust::{
    digest::Digest,
    keys::SigningKey,
    log::{Frontier, LogSigner, Note, NoteSignature, Submission, WitnessKey, leaf_hash},
    names::Domain,
};
use time::OffsetDateTime;

use crate::support::World;

/// A log of the domain `hu`, and what it shows.
struct Shown {
    world: World,
    domain: Domain,
    key: SigningKey,
}

impl Shown {
    async fn start() -> Self {
        let (world, _) = World::start().await;
        Self { world, domain: "hu".parse().unwrap(), key: SigningKey::generate() }
    }

    fn sign(&self, origin: &str, size: u64, root: Digest) -> Note {
        let key = SigningKey::from_seed(&self.key.seed());
        LogSigner::new(origin.parse().unwrap(), key).sign(size, root).unwrap()
    }

    async fn submit(
        &self,
        old: u64,
        proof: Vec<Digest>,
        checkpoint: Note,
    ) -> Result<NoteSignature, WitnessError> {
        self.send(Submission { old, proof, checkpoint }.to_string().as_bytes()).await
    }

    async fn send(&self, body: &[u8]) -> Result<NoteSignature, WitnessError> {
        let of = (&self.domain, &self.key.public());
        witness::cosign(&self.world.gateway, of, body, OffsetDateTime::now_utc()).await
    }

    async fn conflicts(&self) -> u32 {
        self.world.gateway.store.conflicts("hu/log/1").await.unwrap()
    }
}

/// The root over leaves of these bytes.
fn root(leaves: &[u8]) -> Digest {
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.append(leaf_hash(&[*leaf])).unwrap();
    }
    frontier.root()
}

fn status(answer: Result<NoteSignature, WitnessError>) -> StatusCode {
    answer.expect_err("cosigned").status()
}

#[tokio::test]
async fn a_head_that_goes_on_from_the_last_is_cosigned() {
    let hu = Shown::start().await;
    let first = hu.sign("hu/log/1", 1, root(b"a"));
    let signature = hu.submit(0, Vec::new(), first.clone()).await.unwrap();
    let own = hu.world.gateway.signing.derived("witness-key/v1").public();
    let key = WitnessKey::new("be/witness".parse().unwrap(), own);
    let cosigned = first.with(signature).unwrap();
    let at = key.verify(&cosigned).unwrap();
    assert!(at.abs_diff(OffsetDateTime::now_utc().unix_timestamp().unsigned_abs()) < 60);
    let second = hu.sign("hu/log/1", 2, root(b"ab"));
    hu.submit(1, vec![leaf_hash(b"b")], second.clone()).await.unwrap();
    hu.submit(2, Vec::new(), second.clone()).await.expect("the same head again");
    assert_eq!(
        hu.world.gateway.store.witnessed("hu/log/1").await.unwrap(),
        Some(second.to_string().into_bytes())
    );
    // Another log of the domain is another matter.
    hu.submit(0, Vec::new(), hu.sign("hu/keys/1", 1, root(b"k"))).await.unwrap();
    assert_eq!(hu.conflicts().await, 0);
}

#[tokio::test]
async fn what_is_no_head_of_the_callers_log_is_refused() {
    let hu = Shown::start().await;
    let body = |origin: &str, key: &SigningKey| {
        let signer = LogSigner::new(origin.parse().unwrap(), SigningKey::from_seed(&key.seed()));
        let checkpoint = signer.sign(1, root(b"a")).unwrap();
        Submission { old: 0, proof: Vec::new(), checkpoint }.to_string()
    };
    let other = SigningKey::generate();
    for (what, body, expected) in [
        ("garbage", "old 1".to_owned(), StatusCode::BAD_REQUEST),
        ("another domain's", body("fr/log/1", &hu.key), StatusCode::NOT_FOUND),
        ("this domain's", body("be/log/1", &hu.key), StatusCode::NOT_FOUND),
        ("of no kind", body("hu/other/1", &hu.key), StatusCode::NOT_FOUND),
        ("of no number", body("hu/log/0", &hu.key), StatusCode::NOT_FOUND),
        ("of a number that is written otherwise", body("hu/log/01", &hu.key), StatusCode::NOT_FOUND),
        ("another key's", body("hu/log/1", &other), StatusCode::FORBIDDEN),
        ("backwards", body("hu/log/1", &hu.key).replacen("old 0", "old 2", 1), StatusCode::BAD_REQUEST),
        ("from nowhere", body("hu/log/1", &hu.key).replacen("old 0", "old 1", 1), StatusCode::CONFLICT),
    ] {
        assert_eq!(status(hu.send(body.as_bytes()).await), expected, "{what}");
    }
    assert_eq!(hu.world.gateway.store.witnessed("hu/log/1").await.unwrap(), None);
    assert_eq!(hu.conflicts().await, 0, "none of this is evidence against the log");
}

#[tokio::test]
async fn another_history_is_refused_and_kept() {
    let hu = Shown::start().await;
    let seen = hu.sign("hu/log/1", 2, root(b"ab"));
    hu.submit(0, Vec::new(), seen.clone()).await.unwrap();
    let smaller = hu.submit(1, Vec::new(), hu.sign("hu/log/1", 1, root(b"a"))).await;
    assert!(matches!(smaller, Err(WitnessError::Another(2))), "{smaller:?}");
    assert_eq!(hu.conflicts().await, 0, "an older head is no lie");
    // The same size and another root, whatever it says that it goes on from.
    for old in [0, 2] {
        let forked = hu.submit(old, Vec::new(), hu.sign("hu/log/1", 2, root(b"ax"))).await;
        assert_eq!(status(forked), StatusCode::UNPROCESSABLE_ENTITY, "from {old}");
    }
    // A larger one with a proof from another past.
    let forked = hu.submit(2, vec![leaf_hash(b"c")], hu.sign("hu/log/1", 3, root(b"axc"))).await;
    assert_eq!(status(forked), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(hu.conflicts().await, 3);
    assert_eq!(
        hu.world.gateway.store.witnessed("hu/log/1").await.unwrap(),
        Some(seen.to_string().into_bytes())
    );
    hu.submit(2, vec![leaf_hash(b"c")], hu.sign("hu/log/1", 3, root(b"abc")))
        .await
        .expect("the true one goes on");
}

#[tokio::test]
async fn what_an_invented_log_shows_is_no_evidence() {
    let hu = Shown::start().await;
    for number in 2..200 {
        let head = hu.sign(&format!("hu/log/{number}"), 1, root(b"a"));
        let invented = hu.submit(0, vec![leaf_hash(b"x")], head).await;
        assert_eq!(status(invented), StatusCode::BAD_REQUEST);
    }
    let store = &hu.world.gateway.store;
    assert_eq!(store.conflicts("hu/log/2").await.unwrap(), 0);
    // What contradicts is kept of a domain so often, whichever logs it is about.
    for (origin, number) in [("hu/log/300", 0), ("hu/keys/300", limits::LOG_CONFLICTS)] {
        hu.submit(0, Vec::new(), hu.sign(origin, 1, root(b"a"))).await.unwrap();
        for other in 0..limits::LOG_CONFLICTS {
            let other = root(&(number + other).to_be_bytes());
            assert_eq!(
                status(hu.submit(1, Vec::new(), hu.sign(origin, 1, other)).await),
                StatusCode::UNPROCESSABLE_ENTITY
            );
        }
    }
    assert_eq!(store.conflicts("hu/log/300").await.unwrap(), limits::LOG_CONFLICTS);
    assert_eq!(store.conflicts("hu/keys/300").await.unwrap(), 0);
}

#[tokio::test]
async fn a_domain_has_only_so_many_logs() {
    let hu = Shown::start().await;
    for number in 1..=limits::LOGS_WITNESSED {
        hu.submit(0, Vec::new(), hu.sign(&format!("hu/log/{number}"), 1, root(b"a"))).await.unwrap();
    }
    let more = hu.submit(0, Vec::new(), hu.sign("hu/log/1000", 1, root(b"a"))).await;
    assert_eq!(status(more), StatusCode::NOT_FOUND);
    let newest = format!("hu/log/{}", limits::LOGS_WITNESSED);
    hu.submit(1, vec![leaf_hash(b"b")], hu.sign(&newest, 2, root(b"ab"))).await.expect("a known one goes on");
}

#[tokio::test]
async fn a_log_whose_place_another_took_is_cosigned_no_more() {
    let hu = Shown::start().await;
    hu.submit(0, Vec::new(), hu.sign("hu/log/1", 1, root(b"a"))).await.unwrap();
    hu.submit(0, Vec::new(), hu.sign("hu/log/1700000000", 1, root(b"b"))).await.unwrap();
    let again = hu.submit(1, Vec::new(), hu.sign("hu/log/1", 1, root(b"a"))).await;
    assert_eq!(status(again), StatusCode::GONE);
    // A gateway that was restored twice is shown the newest that was seen of it.
    let store = &hu.world.gateway.store;
    let newest = store.witnessed_newest(&hu.domain, LogKind::Evidence).await.unwrap().unwrap();
    assert!(newest.starts_with(b"hu/log/1700000000\n"));
    // Of the other kind it says nothing.
    hu.submit(0, Vec::new(), hu.sign("hu/keys/1", 1, root(b"k"))).await.unwrap();
}
