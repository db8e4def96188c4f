//! What verifies receipts offline, the agent's command and a program that shares no code with it, holds what is good
//! and nothing that was tampered with.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use liaison_proto::{
    log::v1::{Act, Record, record::Event},
    times,
};
use liaison_tests::{paper_log::PaperLog, verifiers::Verifiers};
use liaison_trust::log::{Receipt, SaltedRecord};
use prost::Message as _;
use time::OffsetDateTime;

/// The receipt with something in it exchanged, which has to be there.
fn exchanged(receipt: &Receipt, old: &str, new: &str) -> Result<String> {
    let text = receipt.to_string();
    ensure!(text.contains(old), "{text} has no {old}");
    Ok(text.replacen(old, new, 1))
}

/// Another character of base64 in the middle of a line of it.
fn flipped(line: &str) -> String {
    let (head, tail) = line.split_at(line.len() / 2);
    let other = if tail.starts_with('A') { 'B' } else { 'A' };
    format!("{head}{other}{}", tail.get(1..).unwrap_or_default())
}

#[tokio::test]
async fn good_receipts_hold_and_tampered_ones_do_not() -> Result<()> {
    let mut verifiers = Verifiers::new()?;
    let log = PaperLog::new("be/log/1", 1, 7)?;
    let (good, other) = (log.receipt(5)?, log.receipt(6)?);
    let [first, second] = [verifiers.file(&good)?, verifiers.file(&other)?];
    verifiers.both("good ones", &[&first, &second], true).await?;
    let key = log.signer.key().to_string();
    verifiers.both("the right key", &["--key", &key, &first], true).await?;
    let foreign = PaperLog::new("be/log/1", 2, 7)?;
    let foreign_key = foreign.signer.key().to_string();
    verifiers.both("another key", &["--key", &foreign_key, &first], false).await?;
    verifiers.both("no file", &["nowhere.tlog-proof"], false).await?;

    let text = good.to_string();
    let lines: Vec<&str> = text.lines().collect();
    let line = |number: usize| lines.get(number).copied().context("the receipt is shorter");
    // Header, extra, index, three hashes, a gap; origin, size, root, vkey, a gap, the signature.
    let (root, signature) = (line(9)?, line(12)?);
    let encoded = signature.rsplit(' ').next().context("no signature")?;
    let with_record = |salt: [u8; 32], record: &[u8]| -> Result<String> {
        let record = SaltedRecord::from_parts(salt, record.to_vec())?;
        Ok(Receipt { record, ..good.clone() }.to_string())
    };
    let mut salt = *good.record.salt();
    salt.iter_mut().take(1).for_each(|byte| *byte ^= 1);
    let mut record = good.record.record().to_vec();
    record.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1);
    let mut tampered = vec![
        ("header", exchanged(&good, "@v1", "@v2")?),
        ("salt", with_record(salt, good.record.record())?),
        ("record", with_record(*good.record.salt(), &record)?),
        ("another record", with_record(*good.record.salt(), other.record.record())?),
        ("index", exchanged(&good, "index 5", "index 4")?),
        ("an index outside", exchanged(&good, "index 5", "index 7")?),
        ("an index written otherwise", exchanged(&good, "index 5", "index 05")?),
        (
            "a hash too few",
            Receipt { proof: good.proof.iter().copied().skip(1).collect(), ..good.clone() }.to_string(),
        ),
        (
            "a hash too many",
            Receipt { proof: [good.proof.as_slice(), &good.proof].concat(), ..good.clone() }.to_string(),
        ),
        ("origin", exchanged(&good, "\nbe/log/1\n", "\nbe/log/2\n")?),
        ("size", exchanged(&good, "\n7\n", "\n6\n")?),
        ("root", exchanged(&good, root, &flipped(root))?),
        ("the key's id", exchanged(&good, "\nbe/log/1+", "\nbe/log/1+0")?),
        ("another key in the checkpoint", exchanged(&good, &key, &foreign_key)?),
        ("no key in the checkpoint", exchanged(&good, &format!("{key}\n"), "")?),
        ("signature", exchanged(&good, encoded, &flipped(encoded))?),
        ("the signature of another log", exchanged(&good, "\u{2014} be/log/1 ", "\u{2014} be/log/2 ")?),
        ("cut off", text.get(..text.len() - 9).unwrap_or_default().to_owned()),
        ("nothing", String::new()),
    ];
    for number in 3..6 {
        tampered.push(("a hash of the proof", exchanged(&good, line(number)?, &flipped(line(number)?))?));
    }
    for (what, text) in tampered {
        ensure!(text != good.to_string(), "{what} changes nothing");
        let file = verifiers.file(text)?;
        verifiers.both(what, &[&file], false).await?;
        verifiers.both(what, &["--key", &key, &file], false).await?;
    }
    Ok(())
}

#[tokio::test]
async fn receipts_of_two_histories_do_not_hold_together() -> Result<()> {
    let mut verifiers = Verifiers::new()?;
    let log = PaperLog::new("be/log/1", 1, 7)?;
    let first = verifiers.file(log.receipt(5)?)?;
    for (what, seed, leaves, index) in [
        ("another root of the same size", 1, 7, 4),
        ("another record at the same index", 1, 9, 5),
        ("another key", 2, 9, 4),
    ] {
        let other = verifiers.file(PaperLog::new("be/log/1", seed, leaves)?.receipt(index)?)?;
        verifiers.both(what, &[&other], true).await?;
        verifiers.both(what, &[&first, &other], false).await?;
    }
    let elsewhere = verifiers.file(PaperLog::new("hu/log/1", 2, 7)?.receipt(5)?)?;
    verifiers.both("receipts of two logs", &[&first, &elsewhere], true).await
}

/// One key signs all logs of a domain: another log of it, by another key, is somebody else's.
#[tokio::test]
async fn receipts_of_two_logs_of_a_domain_have_one_key() -> Result<()> {
    let mut verifiers = Verifiers::new()?;
    let genuine = verifiers.file(PaperLog::new("be/log/1", 1, 7)?.receipt(5)?)?;
    let later = verifiers.file(PaperLog::new("be/log/1796000000", 1, 3)?.receipt(2)?)?;
    verifiers.both("two logs of a domain", &[&genuine, &later], true).await?;
    let log = PaperLog::new("be/log/1796000000", 2, 3)?;
    let forged = verifiers.file(log.receipt(2)?)?;
    verifiers.both("a log by another key, alone", &[&forged], true).await?;
    for files in [[&genuine, &forged], [&forged, &genuine]] {
        for (status, printed) in verifiers.print(&files.map(String::as_str)).await? {
            let [first, second] = files;
            let refused = printed.lines().find(|line| line.starts_with(&format!("{second}: does not hold")));
            let refused = refused.with_context(|| format!("a second key of a domain holds: {printed}"))?;
            ensure!(refused.contains(&**first) && refused.contains("one key signs all logs"), "{refused}");
            ensure!(status == Some(1), "{printed}");
        }
    }
    // Whoever gives both keys can't have both from the domain.
    let keys = [PaperLog::new("be/log/1", 1, 0)?, log].map(|log| log.signer.key().to_string());
    let [first, second] = [&keys[0], &keys[1]].map(String::as_str);
    verifiers
        .both("two keys of a domain", &["--key", first, "--key", second, &genuine, &forged], false)
        .await?;
    let exported = verifiers.folder.path().join("exported");
    PaperLog::new("be/log/1", 2, 7)?.export(&exported)?;
    let alone = PaperLog::new("be/log/1796000000", 1, 3)?.receipt(2)?;
    let alone = verifiers.file(alone)?;
    ensure!(
        !verifiers.foreign(&["--log", &exported.to_string_lossy(), &alone]).await,
        "a log by another key"
    );
    Ok(())
}

#[tokio::test]
async fn a_receipt_that_was_verified_by_its_own_word_alone_says_so() -> Result<()> {
    const WORD: &str = "(by its own word: compare it with what the domain tells)";
    let mut verifiers = Verifiers::new()?;
    let log = PaperLog::new("be/log/1", 1, 7)?;
    let file = verifiers.file(log.receipt(5)?)?;
    for (_, printed) in verifiers.print(&[&file]).await? {
        ensure!(printed.contains(WORD), "{printed}");
    }
    for (_, printed) in verifiers.print(&["--key", &log.signer.key().to_string(), &file]).await? {
        ensure!(printed.contains("holds") && !printed.contains(WORD), "{printed}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_longer_than_any_receipt_is_not_read() -> Result<()> {
    let verifiers = Verifiers::new()?;
    let file = verifiers.folder.path().join("endless.tlog-proof");
    // Longer than any memory, and nothing but a hole.
    File::create(&file)?.set_len(1 << 40)?;
    for (status, printed) in verifiers.print(&[&file.to_string_lossy()]).await? {
        ensure!(status == Some(1) && printed.contains("longer than any receipt"), "{status:?}: {printed}");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_none_is_wrong_use() -> Result<()> {
    let mut verifiers = Verifiers::new()?;
    let file = verifiers.file(PaperLog::new("be/log/1", 1, 7)?.receipt(5)?)?;
    for key in ["", "be/log/1", "be/log/1+00000000+AAAA", "be/log/1+x+y"] {
        for (status, printed) in verifiers.print(&["--key", key, &file]).await? {
            ensure!(status == Some(2), "{key:?}: {status:?}: {printed}");
        }
    }
    Ok(())
}

/// Whoever made a receipt chose its words; a terminal is to show them, and not to obey them.
#[tokio::test]
async fn no_word_of_a_receipt_steers_a_terminal() -> Result<()> {
    const STEERING: [char; 13] = [
        '\u{80}', '\u{9b}', '\u{9d}', '\u{7f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{200e}',
        '\u{200f}', '\u{61c}', '\u{1b}', '\u{7}',
    ];
    let mut verifiers = Verifiers::new()?;
    // No name of a log has those below a space.
    let name: String = STEERING.iter().filter(|c| **c >= ' ').collect();
    let mut log = PaperLog::new(&format!("be/log/1{name}"), 1, 1)?;
    let act = Act { act: "load_policy".into(), subject: STEERING.iter().collect() };
    let at = Some(times::to_wire(OffsetDateTime::now_utc()));
    log.append(Record { at, event: Some(Event::Act(act)) }.encode_to_vec())?;
    let (file, growth) = (verifiers.file(log.receipt(1)?)?, log.head()?);
    log.grow(1)?;
    let growth = verifiers.file(log.continuation(&growth)?)?;
    let other = PaperLog::new("be/log/1", 1, 0)?.signer.key().to_string();
    // A contradiction, and a log whose key was not given, tell its name in their errors.
    let forged = verifiers.file(PaperLog::new(&format!("be/log/1{name}"), 1, 3)?.receipt(0)?)?;
    let named = verifiers.folder.path().join("\u{9b}\u{1b}\n.tlog-proof").to_string_lossy().into_owned();
    let all: [&[&str]; 4] =
        [&[&file, &growth], &[&file, &growth, &forged], &["--key", &other, &file], &[&named]];
    for arguments in all {
        let as_json = verifiers.agent_json(arguments).await?;
        let printed = verifiers.print(arguments).await?.map(|(_, printed)| printed);
        for printed in printed.into_iter().chain([as_json]) {
            let steers = printed.contains(|c| STEERING.contains(&c));
            ensure!(!steers && printed.contains("\\u009b"), "{printed:?}");
        }
    }
    Ok(())
}

/// Heads of different sizes, and no consistency proof: what the proofs have in common contradicts one another.
#[tokio::test]
async fn receipts_under_heads_of_two_sizes_show_one_history() -> Result<()> {
    let mut verifiers = Verifiers::new()?;
    let mut log = PaperLog::new("be/log/1", 1, 7)?;
    let [first, last] = [verifiers.file(log.receipt(0)?)?, verifiers.file(log.receipt(6)?)?];
    log.grow(1)?;
    let later = verifiers.file(log.receipt(7)?)?;
    log.grow(600)?;
    let latest = [verifiers.file(log.receipt(3)?)?, verifiers.file(log.receipt(500)?)?];
    let all = [&first, &last, &later, &latest[0], &latest[1]].map(String::as_str);
    verifiers.both("one history, at three sizes", &all, true).await?;

    let mut forked = PaperLog::new("be/log/1", 1, 8)?;
    let early = forked.head()?;
    let receipts = (0..8).map(|index| verifiers.file(forked.receipt(index)?)).collect::<Result<Vec<_>>>()?;
    forked.grow(600)?;
    let grown = verifiers.file(forked.continuation(&early)?)?;
    for (index, other) in receipts.iter().enumerate() {
        verifiers.both(&format!("alone, of {index}"), &[other], true).await?;
        verifiers.both(&format!("leaf 0 of 7 with leaf {index} of 8"), &[&first, other], false).await?;
        // The order makes no difference, nor does what is looked at in between.
        verifiers.both(&format!("leaf {index} of 8 with others"), &[other, &later, &first], false).await?;
    }
    verifiers.both("a proof of growth from another 8 leaves", &[&later, &grown], false).await?;
    verifiers.both("a proof of growth to other leaves", &[&latest[1], &grown], false).await
}

#[tokio::test]
async fn an_exported_log_goes_on_from_receipts_or_it_is_another_one() -> Result<()> {
    let mut verifiers = Verifiers::new()?;
    let mut log = PaperLog::new("be/log/1", 1, 7)?;
    let early = verifiers.file(log.receipt(5)?)?;
    log.grow(600)?;
    let late = verifiers.file(log.receipt(300)?)?;
    let export = |name: &str, log: &PaperLog| -> Result<PathBuf> {
        let folder = verifiers.folder.path().join(name);
        log.export(&folder)?;
        Ok(folder)
    };
    let exported = export("exported", &log)?;
    let check = async |folder: &Path, receipts: &[&str]| {
        verifiers.foreign(&[&["--log", &*folder.to_string_lossy()], receipts].concat()).await
    };
    ensure!(check(&exported, &[&early, &late]).await, "it does not go on from its own receipts");
    let other = export("other", &PaperLog::new("be/log/1", 1, 700)?)?;
    ensure!(!check(&other, &[&early]).await, "another history passes");
    let short = export("short", &PaperLog::new("be/log/1", 1, 3)?)?;
    ensure!(!check(&short, &[&early]).await, "a log that went back passes");
    for path in ["tile/0/001", "tile/0/002.p/95", "tile/entries/000"] {
        let file = exported.join(path);
        let content = fs::read(&file)?;
        let mut changed = content.clone();
        changed.iter_mut().skip(40).take(1).for_each(|byte| *byte ^= 1);
        fs::write(&file, changed)?;
        ensure!(!check(&exported, &[&early]).await, "{path} was changed and passes");
        fs::write(&file, content)?;
    }
    fs::remove_file(exported.join("tile/0/001"))?;
    ensure!(!check(&exported, &[&early]).await, "a tile is missing and it passes");
    Ok(())
}

#[tokio::test]
async fn a_consistency_proof_ties_receipts_together() -> Result<()> {
    let mut verifiers = Verifiers::new()?;
    let mut log = PaperLog::new("be/log/1", 1, 7)?;
    let early = verifiers.file(log.receipt(5)?)?;
    let old = log.head()?;
    log.grow(600)?;
    let late = verifiers.file(log.receipt(300)?)?;
    let growth = log.continuation(&old)?;
    let proven = verifiers.file(&growth)?;
    verifiers
        .both("receipts under two heads, and the proof between", &[&early, &proven, &late], true)
        .await?;
    // The same proof for another log's head.
    let mut other = PaperLog::new("be/log/1", 1, 6)?;
    let fork = other.head()?;
    other.grow(601)?;
    let forked = verifiers.file(other.continuation(&fork)?)?;
    verifiers.both("a proof of another history", &[&forked], true).await?;
    verifiers
        .both("a proof of another history, with the receipts of this one", &[&early, &forked, &late], false)
        .await?;
    let text = growth.to_string();
    let lines: Vec<&str> = text.lines().collect();
    for number in [1, 2, 4] {
        let line = lines.get(number).context("the proof is shorter")?;
        let file = verifiers.file(text.replacen(line, &flipped(line), 1))?;
        verifiers.both("a changed line", &[&file], false).await?;
    }
    let file = verifiers.file(text.replacen("old 7", "old 8", 1))?;
    verifiers.both("another size", &[&file], false).await
}
