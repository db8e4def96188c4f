//! Both verifiers say the same of every way to write down a receipt: of signed notes, checkpoints, base64 and numbers.

use anyhow::{Context, Result, ensure};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use liaison_tests::{paper_log::PaperLog, verifiers::agree};
use liaison_trust::{digest::sha256, keys::SigningKey, log::Receipt};

/// A signed note of this text, as the key of this name signs it; and others' signature lines.
fn note(text: &str, name: &str, others: &[String]) -> Result<String> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).ok().context("no key")?;
    let signature = [&id(name)[..], pair.sign(text.as_bytes()).as_ref()].concat();
    let own = format!("\u{2014} {name} {}\n", STANDARD.encode(signature));
    Ok(format!("{text}\n{own}{}", others.concat()))
}

fn material() -> Vec<u8> {
    [&[1], SigningKey::from_seed(&[1; 32]).public().as_bytes().as_slice()].concat()
}

fn id(name: &str) -> Vec<u8> {
    let id = sha256(&[name.as_bytes(), b"\n", &material()].concat());
    id.as_bytes().iter().copied().take(4).collect()
}

fn vkey(name: &str) -> String {
    format!("{name}+{}+{}", hex::encode(id(name)), STANDARD.encode(material()))
}

/// A cosignature line of somebody, with a signature of so many bytes.
fn cosigned(by: &str, bytes: usize) -> String {
    format!("\u{2014} {by} {}\n", STANDARD.encode(vec![7; 4 + bytes]))
}

/// The parts of a receipt of one leaf, to be put together otherwise.
#[derive(Clone)]
struct Parts {
    header: String,
    extra: String,
    index: String,
    proof: String,
    origin: String,
    size: String,
    root: String,
    extensions: Vec<String>,
    /// The name by which it is signed.
    name: String,
    others: Vec<String>,
}

impl Parts {
    /// Those of a receipt of the log of this number, which has one leaf.
    fn new(receipt: &Receipt, number: usize) -> Result<Self> {
        let extra = [receipt.record.salt().as_slice(), receipt.record.record()].concat();
        let origin = format!("be/log/{number}");
        Ok(Self {
            header: "c2sp.org/tlog-proof@v1".to_owned(),
            extra: STANDARD.encode(extra),
            index: "0".to_owned(),
            proof: String::new(),
            size: "1".to_owned(),
            root: STANDARD.encode(receipt.record.entry().leaf_hash()),
            extensions: vec![vkey(&origin)],
            name: origin.clone(),
            origin,
            others: Vec::new(),
        })
    }

    fn under(mut self, origin: &str) -> Self {
        (self.origin, self.name) = (origin.to_owned(), origin.to_owned());
        self.extensions = vec![vkey(origin)];
        self
    }

    fn text(&self) -> Result<String> {
        let Self { header, extra, index, proof, origin, size, root, extensions, name, others } = self;
        let extensions: String = extensions.iter().map(|line| format!("{line}\n")).collect();
        let note = note(&format!("{origin}\n{size}\n{root}\n{extensions}"), name, others)?;
        Ok(format!("{header}\nextra {extra}\nindex {index}\n{proof}\n{note}"))
    }
}

/// Another text of base64 for the same bytes, where there are bits or padding left.
fn loose(encoded: &str) -> String {
    let (head, tail) = encoded.split_at(encoded.trim_end_matches('=').len() - 1);
    let next = tail.bytes().next().map_or('B', |byte| char::from(byte + 1));
    format!("{head}{next}{}", tail.get(1..).unwrap_or_default())
}

/// Receipts that are written down otherwise, each with what is.
fn written() -> Result<Vec<(String, Vec<u8>)>> {
    let receipt = PaperLog::new("be/log/1", 1, 1)?.receipt(0)?;
    let mut made: Vec<(String, Vec<u8>)> = Vec::new();
    let number = std::cell::Cell::new(1);
    let parts = || {
        number.set(number.get() + 1);
        Parts::new(&receipt, number.get())
    };
    let mut make = |what: &str, file: Vec<u8>| made.push((what.to_owned(), file));
    let mut changed = |what: &str, change: &dyn Fn(Parts) -> Parts| -> Result<()> {
        make(what, change(parts()?).text()?.into_bytes());
        Ok(())
    };
    changed("as it is", &|parts| parts)?;
    // Names, which are signed as they are.
    for between in [
        "\u{a0}", "\u{2003}", "\u{85}", "\u{3000}", "\u{2028}", "\u{1680}", "\u{200b}", "\u{feff}",
        "\u{180e}", " ", "\t", "\u{7f}", "+", "\u{e9}", "\u{1f}", "\u{0}", "\r",
    ] {
        changed(&format!("{between:?} in the name"), &|parts| {
            let name = format!("{}{between}x", parts.origin);
            parts.under(&name)
        })?;
        changed(&format!("{between:?} in an extension"), &|mut parts| {
            parts.extensions.push(format!("a{between}b"));
            parts
        })?;
        changed(&format!("{between:?} in the name of a cosigner"), &|mut parts| {
            parts.others.push(cosigned(&format!("hu/{between}x"), 72));
            parts
        })?;
    }
    for length in [254, 255, 256] {
        changed(&format!("a name of {length} bytes"), &|parts| {
            let name = format!("{}{}", parts.origin, "x".repeat(length - parts.origin.len()));
            parts.under(&name)
        })?;
    }
    changed("a name of 255 characters of two bytes", &|parts| parts.under(&"\u{e9}".repeat(255)))?;
    changed("signed under another name", &|mut parts| {
        parts.name += "x";
        parts
    })?;
    // Signature lines.
    for count in [1, 15, 16, 62, 63, 64, 99, 100, 101] {
        changed(&format!("{count} cosignatures"), &|mut parts| {
            parts.others = (0..count).map(|number| cosigned(&format!("w/{number}"), 72)).collect();
            parts
        })?;
    }
    for bytes in [0, 1, 64, 8191, 8192, 8193, 20_000] {
        changed(&format!("a cosignature of {bytes} bytes"), &|mut parts| {
            parts.others = vec![cosigned("w", bytes)];
            parts
        })?;
    }
    for count in [5, 11, 12, 13, 20] {
        changed(&format!("{count} cosignatures of 8192 bytes"), &|mut parts| {
            parts.others = (0..count).map(|number| cosigned(&format!("w/{number}"), 8192)).collect();
            parts
        })?;
    }
    for dash in ["-", "\u{2013}", "\u{2015}", "--", "", "\u{2014}\u{a0}", " \u{2014}", "\u{2014} "] {
        changed(&format!("{dash:?} for a dash"), &|mut parts| {
            parts.others = vec![cosigned("w", 72).replace('\u{2014}', dash)];
            parts
        })?;
    }
    for line in [
        "\n",
        "x\n",
        "\u{2014} w\n",
        "\u{2014} w \n",
        "\u{2014}  AAAAAAA=\n",
        "\u{2014} w AAAAAAA= \n",
        "\u{2014} w AAAAAAB=\n",
        "\u{2014} w AAAAAAA\n",
        "\u{2014} w AAAA-_A=\n",
        "\u{2014} w AAAA\n",
        "\u{2014} w AAAAAAA=\r\n",
        "\u{2014} w AAAAAAA=\n\n",
        "\u{2014} w AAAAAAA=",
    ] {
        changed(&format!("the line {line:?}"), &|mut parts| {
            parts.others = vec![line.to_owned()];
            parts
        })?;
    }
    changed("the same signature twice", &|mut parts| {
        let text = parts.text().unwrap_or_default();
        parts.others = text.lines().last().map(|line| format!("{line}\n")).into_iter().collect();
        parts
    })?;
    changed("a second signature of the key that does not hold", &|mut parts| {
        let signature = [id(&parts.name), vec![7; 64]].concat();
        parts.others = vec![format!("\u{2014} {} {}\n", parts.name, STANDARD.encode(signature))];
        parts
    })?;
    changed("a signature of another key of that name", &|mut parts| {
        parts.others = vec![cosigned(&parts.name, 64)];
        parts
    })?;
    // Numbers and base64.
    for size in [
        "01",
        "+1",
        " 1",
        "1 ",
        "",
        "0",
        "-1",
        "1.0",
        "0x1",
        "\u{661}",
        "\u{ff11}",
        "1_0",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "2",
    ] {
        changed(&format!("the size {size:?}"), &|mut parts| {
            size.clone_into(&mut parts.size);
            parts
        })?;
        changed(&format!("the index {size:?}"), &|mut parts| {
            size.clone_into(&mut parts.index);
            parts
        })?;
    }
    type Change = fn(&str) -> String;
    let ways: [(&str, Change); 10] = [
        ("bits left", loose),
        ("no padding", |text| text.trim_end_matches('=').to_owned()),
        ("more padding", |text| format!("{text}=")),
        ("a space", |text| text.replacen('A', "A ", 1)),
        ("a space at the end", |text| format!("{text} ")),
        ("the alphabet of URLs", |text| text.replace('+', "-").replace('/', "_") + "_A=="),
        ("shorter", |text| text.get(4..).unwrap_or_default().to_owned()),
        ("longer", |text| format!("AAAA{text}")),
        ("nothing", |_| String::new()),
        ("no base64", |text| format!("{text}\u{e9}")),
    ];
    for (what, change) in ways {
        changed(&format!("extra: {what}"), &|mut parts| {
            parts.extra = change(&parts.extra);
            parts
        })?;
        changed(&format!("the root: {what}"), &|mut parts| {
            parts.root = change(&parts.root);
            parts
        })?;
        changed(&format!("the key: {what}"), &|mut parts| {
            parts.extensions = parts.extensions.iter().map(|line| change(line)).collect();
            parts
        })?;
        changed(&format!("a hash: {what}"), &|mut parts| {
            parts.proof = format!("{}\n", change(&parts.root));
            parts
        })?;
    }
    for count in [1, 2, 62, 63, 64, 65] {
        changed(&format!("{count} hashes"), &|mut parts| {
            parts.proof = format!("{}\n", parts.root).repeat(count);
            parts
        })?;
    }
    // Extensions.
    for (what, lines) in [
        ("no key", vec![]),
        ("another log's key before", vec![vkey("be/other")]),
        ("a line that begins like a key before", vec!["be/log/".to_owned()]),
        ("15 lines more", vec!["x".to_owned(); 15]),
        ("16 lines more", vec!["x".to_owned(); 16]),
        ("a line of 1024 bytes", vec!["x".repeat(1024)]),
        ("a line of 1025 bytes", vec!["x".repeat(1025)]),
        ("a line of 1025 bytes in fewer characters", vec!["\u{e9}".repeat(513)]),
        ("an empty line", vec![String::new()]),
        ("a line that a receipt begins with", vec!["c2sp.org/tlog-proof@v1".to_owned()]),
    ] {
        changed(what, &|mut parts| {
            let key = Some(vkey(&parts.origin)).filter(|_| !lines.is_empty());
            parts.extensions = lines.iter().cloned().chain(key).collect();
            parts
        })?;
    }
    changed("ill-formed keys of the log before the right one", &|mut parts| {
        let key = vkey(&parts.origin);
        parts.extensions =
            vec![format!("{}+x+y", parts.origin), key.replace("+A", "+B"), key.replacen('+', "+0", 1), key];
        parts
    })?;
    changed("another key of the log before the right one", &|mut parts| {
        let material = [&[1], SigningKey::from_seed(&[2; 32]).public().as_bytes().as_slice()].concat();
        let id = sha256(&[parts.origin.as_bytes(), b"\n", &material].concat());
        let id = hex::encode(id.as_bytes().get(..4).unwrap_or_default());
        parts.extensions.insert(0, format!("{}+{id}+{}", parts.origin, STANDARD.encode(material)));
        parts
    })?;
    for header in [
        "c2sp.org/tlog-proof@v2",
        "C2SP.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1 ",
        "",
        "\u{feff}c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\nc2sp.org/tlog-proof@v1",
    ] {
        changed(&format!("the header {header:?}"), &|mut parts| {
            header.clone_into(&mut parts.header);
            parts
        })?;
    }
    // The whole of it.
    let whole: [(&str, fn(&str) -> Vec<u8>); 12] = [
        ("CRLF", |text| text.replace('\n', "\r\n").into_bytes()),
        ("CRLF in the head", |text| text.replacen('\n', "\r\n", 3).into_bytes()),
        ("CR", |text| text.replace('\n', "\r").into_bytes()),
        ("no newline at the end", |text| text.trim_end().as_bytes().to_vec()),
        ("two newlines at the end", |text| format!("{text}\n").into_bytes()),
        ("a newline at the beginning", |text| format!("\n{text}").into_bytes()),
        ("three newlines", |text| text.replace("\n\n", "\n\n\n").into_bytes()),
        ("twice", |text| format!("{text}{text}").into_bytes()),
        ("bytes behind", |text| [text.as_bytes(), b"\xff"].concat()),
        ("UTF-16", |text| text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a zero byte behind", |text| format!("{text}\0").into_bytes()),
        ("lines changed about", |text| {
            text.replacen("index 0\n", "", 1).replacen("\nextra", "\nindex 0\nextra", 1).into_bytes()
        }),
    ];
    for (what, change) in whole {
        make(what, change(&parts()?.text()?));
    }
    Ok(made)
}

#[tokio::test]
async fn of_receipts_that_are_written_otherwise() -> Result<()> {
    let files = written()?;
    let all = files.len();
    let hold = agree(files).await?;
    ensure!(hold > 20 && hold < all, "{hold} of {all} hold");
    Ok(())
}

/// Consistency proofs of a tree of 7 leaves and of its beginnings, right and wrong.
#[tokio::test]
async fn of_consistency_proofs_that_are_written_otherwise() -> Result<()> {
    let mut made: Vec<(String, Vec<u8>)> = Vec::new();
    let empty = STANDARD.encode(sha256(b""));
    for old in 0..8 {
        let mut log = PaperLog::new(&format!("be/log/{}", 10 + old), 1, old)?;
        let before = if old == 0 { None } else { Some(log.head()?) };
        log.grow(7 - old)?;
        let text = match before {
            Some(before) => log.continuation(&before)?.to_string(),
            None => format!("liaison/tlog-consistency@v1\nold 0 {empty}\n\n{}", log.head()?),
        };
        let lines: Vec<&str> = text.lines().collect();
        let first = *lines.get(1).context("no line")?;
        let other = first.replacen(&format!("old {old} "), &format!("old {} ", (old + 1) % 8), 1);
        let mut make =
            |what: &str, text: String| made.push((format!("{what} from {old}"), text.into_bytes()));
        make("a hash more", text.replacen("\n\n", &format!("\n{empty}\n\n"), 1));
        make("65 hashes more", text.replacen("\n\n", &format!("\n{}\n", format!("{empty}\n").repeat(65)), 1));
        make("another size", text.replacen(first, &other, 1));
        make("another root", text.replacen(first, &format!("old {old} {}", STANDARD.encode([9; 32])), 1));
        make("a longer size", text.replacen("old ", "old 0", 1));
        make("two spaces", text.replacen("old ", "old  ", 1));
        make("no root", text.replacen(first, &format!("old {old}"), 1));
        make("another header", text.replacen("@v1", "@v1 ", 1));
        make("CRLF", text.replace('\n', "\r\n"));
        if let Some(hash) = lines.get(2).filter(|line| !line.is_empty()) {
            make("a hash less", text.replacen(&format!("{hash}\n"), "", 1));
        }
        make("as it is", text);
    }
    let origin = "be/log/30";
    let none = note(&format!("{origin}\n0\n{empty}\n{}\n", vkey(origin)), origin, &[])?;
    let wrong = note(&format!("{origin}\n0\n{}\n{}\n", STANDARD.encode([9; 32]), vkey(origin)), origin, &[])?;
    for (what, note) in [("an empty log", none), ("an empty log with leaves", wrong)] {
        made.push((
            what.to_owned(),
            format!("liaison/tlog-consistency@v1\nold 0 {empty}\n\n{note}").into_bytes(),
        ));
    }
    ensure!(agree(made).await? == 9, "what holds is what is as it is");
    Ok(())
}
