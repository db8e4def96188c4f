use super::*;
use crate::keys::SigningKey;

fn log() -> LogSigner {
    LogSigner::new(name("be/log/1"), SigningKey::from_seed(&[1; 32]))
}

fn continuation(old: u64, new: u64) -> Continuation {
    let nodes = nodes(entries(new));
    let hash = |node| nodes.get(&node).copied();
    Continuation {
        old,
        old_root: root(old, hash).unwrap(),
        proof: consistency(old, new, hash).unwrap(),
        checkpoint: log().sign(new, root(new, hash).unwrap()).unwrap(),
    }
}

#[test]
fn what_is_written_is_read_and_shows_that_the_log_grew() {
    for (old, new) in [(0, 1), (1, 1), (3, 7), (4, 7), (6, 8), (255, 300), (256, 300)] {
        let made = continuation(old, new);
        let read = Continuation::parse(made.to_string().as_bytes()).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.verify(log().key()).unwrap().checkpoint.size(), new, "{old} {new}");
    }
}

#[test]
fn another_past_is_not_shown() {
    let made = continuation(3, 7);
    let other = Continuation { old_root: continuation(2, 7).old_root, ..made.clone() };
    assert_eq!(other.verify(log().key()), Err(ProofError::OldRoot.into()));
    let longer = Continuation { old: 9, ..made.clone() };
    assert_eq!(longer.verify(log().key()), Err(ProofError::Shrinks { old: 9, new: 7 }.into()));
    let stranger = LogKey::new(name("be/log/1"), SigningKey::from_seed(&[9; 32]).public());
    assert!(matches!(made.verify(&stranger), Err(ContinuationError::Checkpoint(_))));
}

#[test]
fn what_is_no_continuation_is_refused() {
    let text = continuation(3, 7).to_string();
    for (from, to, expected) in [
        ("liaison/", "c2sp.org/", "the first line, liaison/tlog-consistency@v1,"),
        ("old 3 ", "old 03 ", "the line 'old' with size and root"),
        ("old 3 ", "old 3", "the line 'old' with size and root"),
        ("\n\n", "\nAA==\n\n", "the consistency proof"),
        ("\n\n", "\n", "the empty line before the checkpoint"),
    ] {
        // The checkpoint's own empty line stays.
        let changed = if to == "\n" { text.replace(from, to) } else { text.replacen(from, to, 1) };
        assert_ne!(changed, text);
        assert_eq!(
            Continuation::parse(changed.as_bytes()),
            Err(ContinuationError::Form { expected }),
            "{from} {to}"
        );
    }
    let hashes = format!("\n{}=", "A".repeat(43)).repeat(65);
    let long = text.replacen("\n\n", &format!("{hashes}\n\n"), 1);
    assert!(matches!(Continuation::parse(long.as_bytes()), Err(ContinuationError::Form { .. })));
    assert_eq!(Continuation::parse(&vec![b'x'; 1 << 20]), Err(ContinuationError::TooLong));
}
