//! The measurement of local traffic beside a dead peer measures: `tests/examples/dead_peer.rs` runs it long
//! enough to mean something.

use anyhow::Result;
use liaison_tests::dead_peer::measure;

#[tokio::test]
async fn local_traffic_beside_a_dead_peer_is_measured() -> Result<()> {
    let measured = measure(2, 5).await?;
    println!("{}", measured.to_json());
    assert_eq!((measured.alone.len(), measured.beside.len()), (2, 2));
    assert!(measured.ratio().is_finite() && measured.ratio() > 0.0);
    assert!(measured.queued > 0, "nothing waits for the dead peer");
    Ok(())
}
