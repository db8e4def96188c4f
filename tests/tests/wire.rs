//! What this version wrote is read by every later one, to the byte; and what no version wrote yet is refused,
//! wherever in a message it stands. The fixtures in `tests/wire` are one line of hexadecimal each; a contract
//! that grows gets new ones, and the old ones stay. Missing ones are written by
//! `LIAISON_TESTS_WRITE_WIRE=1 cargo test -p liaison-tests wire::`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use liaison_proto::{
    POOL,
    federation::v1::{Bundle, DirectoryPage, Forward, SignedBundle, SignedDirectoryPage},
    message::v1::{
        Acceptance, Acceptances, Facts, Manifest, Notice, ReleaseRecord, SignedNotice, SignedReleaseRecord,
        notice::Event,
    },
    strict::{self, StrictError},
};
use liaison_tests::wire::{self, NOW, SCHEME};
use liaison_trust::{
    certificate::Certificate,
    envelope::verify_forward,
    key_record,
    keys::SigningKey,
    statement::{self, Statement, StatementError},
};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage, Value};

/// Field 1000, a varint.
const UNKNOWN_FIELD: [u8; 3] = [0xc0, 0x3e, 0x01];
const UNKNOWN_VALUE: i32 = 9_999;

#[test]
fn every_fixture_is_read_and_written_to_the_same_bytes() -> Result<()> {
    let mut seen = BTreeSet::new();
    for (name, (message, bytes)) in fixtures()? {
        let descriptor = described(&message)?;
        strict::check(&descriptor, &bytes).with_context(|| name.clone())?;
        let read = DynamicMessage::decode(descriptor.clone(), bytes.as_ref())?;
        ensure!(read.encode_to_vec() == bytes, "{name} is written to other bytes than it was read from");
        gather(&read, &mut seen);
    }
    // What gateways exchange has a fixture each, with all that is in it.
    let all = POOL.all_messages().map(|message| message.full_name().to_owned());
    let of_federation = all.filter(|name| name.starts_with("liaison.federation.v1."));
    // These travel as bytes inside others, and are read by the tests below.
    let inside = [Bundle::full_name(), DirectoryPage::full_name()];
    let missing: Vec<_> =
        of_federation.filter(|name| !seen.contains(name) && !inside.contains(name)).collect();
    ensure!(missing.is_empty(), "no fixture in tests/wire holds {missing:?}");
    Ok(())
}

#[test]
fn an_unknown_field_or_value_is_refused_wherever_it_stands() -> Result<()> {
    let mut values = 0;
    for (name, (message, bytes)) in fixtures()? {
        values += refused_everywhere(&name, &message, &bytes)?;
    }
    ensure!(values > 20, "only {values} enumeration values stand in all fixtures");
    Ok(())
}

#[test]
fn what_is_signed_is_believed_and_an_unknown_field_or_value_in_it_is_not() -> Result<()> {
    let fixtures = fixtures()?;
    let (be, hu) = (wire::gateway("be"), wire::gateway("hu"));
    let bundle = signed::<Bundle>(&read::<SignedBundle>(&fixtures, "signed-bundle")?, &hu)?;
    ensure!(bundle.gateway_signing_key == hu.public().as_bytes().as_slice());
    let root = Certificate::read(bundle.roots.first().context("no root")?)?;
    ensure!(root.uri.as_deref() == Some("spiffe://hu"), "the root is of {:?}", root.uri);

    let page =
        signed::<DirectoryPage>(&read::<SignedDirectoryPage>(&fixtures, "signed-directory-page")?, &hu)?;
    for agency in &page.agencies {
        ensure!(!key_record::prove_chain(&agency.keys)?.is_empty(), "{} has no keys", agency.address);
    }

    let acceptances = read::<Acceptances>(&fixtures, "acceptances")?;
    for acceptance in &acceptances.acceptances {
        signed::<Acceptance>(acceptance, &hu)?;
    }
    let mut events = 0;
    for name in fixtures.keys().filter(|name| name.starts_with("notice-")) {
        let by = if name.ends_with("forwarded") || name.ends_with("relayed") { &be } else { &hu };
        let notice = signed::<Notice>(&read::<SignedNotice>(&fixtures, name)?, by)?;
        match notice.event.with_context(|| format!("{name} tells nothing"))? {
            Event::Acknowledged(word) => {
                let read: liaison_proto::message::v1::Acknowledgement =
                    signed(&word, &wire::agency("hu/shelter")?.signing)?;
                ensure!(read.recipient == "hu/shelter");
            }
            Event::Forwarded(word) => drop(signed::<Acceptance>(&word, &hu)?),
            _ => {}
        }
        if let Some(relayed) = notice.relayed {
            signed::<Notice>(&relayed, &hu)?;
        }
        events += 1;
    }
    ensure!(events == 8, "{events} notices");
    Ok(())
}

#[test]
fn what_is_forwarded_verifies() -> Result<()> {
    let fixtures = fixtures()?;
    let be = wire::gateway("be");
    for name in ["referral", "alert", "state", "onward"] {
        let fixture = format!("forward-{name}");
        let forward = read::<Forward>(&fixtures, &fixture)?;
        refused_everywhere(&fixture, &Manifest::full_name(), &forward.manifest)?;
        refused_everywhere(&fixture, &Facts::full_name(), &forward.facts)?;
        for recipient in &forward.recipients {
            let release: &SignedReleaseRecord = recipient.release.as_ref().context("no release")?;
            signed::<ReleaseRecord>(release, &be)?;
        }
        let sections = forward.sections.len();
        let verified = verify_forward(forward, &be.public(), NOW, |_| None).context(fixture)?;
        ensure!(verified.message.sections.len() == sections);
        ensure!(verified.message.sender.to_string() == "be/police");
        ensure!(verified.releases.iter().all(|release| release.scheme_hash == SCHEME.as_ref()));
    }
    Ok(())
}

/// All fixtures: the full name of each one's message, and its bytes.
fn fixtures() -> Result<BTreeMap<String, (String, Bytes)>> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "wire"].iter().collect();
    if std::env::var_os("LIAISON_TESTS_WRITE_WIRE").is_some() {
        write_missing(&folder)?;
    }
    let mut fixtures = BTreeMap::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_stem().context("a fixture has a name")?.to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let (message, digits) =
            text.trim().split_once(' ').with_context(|| format!("{name} is malformed"))?;
        fixtures.insert(name, (message.to_owned(), hex::decode(digits)?.into()));
    }
    ensure!(fixtures.len() > 20, "only {} fixtures in tests/wire", fixtures.len());
    Ok(fixtures)
}

/// Writes fixtures that are not there yet; those that are stay as they are.
fn write_missing(folder: &PathBuf) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (name, (message, bytes)) in wire::make()? {
        let path = folder.join(format!("{name}.hex"));
        if !path.exists() {
            fs::write(path, format!("{message} {}\n", hex::encode(bytes)))?;
        }
    }
    Ok(())
}

fn described(message: &str) -> Result<MessageDescriptor> {
    POOL.get_message_by_name(message).with_context(|| format!("{message} is no message any more"))
}

fn read<M: Message + Name + Default>(fixtures: &BTreeMap<String, (String, Bytes)>, name: &str) -> Result<M> {
    let (message, bytes) = fixtures.get(name).with_context(|| format!("tests/wire/{name}.hex is missing"))?;
    ensure!(*message == M::full_name(), "{name} is a {message}");
    Ok(strict::decode(bytes)?)
}

/// Reads a statement, which is written to the same bytes, and is refused with anything unknown in it though it
/// is signed.
fn signed<S: Statement + std::fmt::Debug>(statement: &S::Signed, key: &SigningKey) -> Result<S> {
    let read: S = statement::read(statement, &key.public())?;
    let (bytes, _) = S::parts(statement);
    ensure!(read.encode_to_vec() == *bytes, "{} is written to other bytes", S::full_name());
    refused_everywhere(&S::full_name(), &S::full_name(), bytes)?;
    let grown = Bytes::from([bytes.as_ref(), &UNKNOWN_FIELD].concat());
    let signature = Bytes::copy_from_slice(&key.sign(S::LABEL, &grown));
    let refused = statement::read::<S>(&S::join(grown, signature), &key.public());
    ensure!(
        matches!(refused, Err(StatementError::Strict(StrictError::UnknownField { number: 1000, .. }))),
        "{} with an unknown field: {refused:?}",
        S::full_name()
    );
    Ok(read)
}

/// Puts an unknown field into the message and each one inside it, and an unknown value in the place of each
/// enumeration value, one after the other. How many values there were.
fn refused_everywhere(name: &str, message: &str, bytes: &[u8]) -> Result<usize> {
    let descriptor = described(message)?;
    let mut values = 0;
    for variant in variants(&DynamicMessage::decode(descriptor.clone(), bytes)?)? {
        let refused = strict::check(&descriptor, &variant.message.encode_to_vec());
        let expected = match refused {
            Err(StrictError::UnknownField { number: 1000, .. }) => !variant.is_value,
            Err(StrictError::UnknownValue { number: UNKNOWN_VALUE, .. }) => variant.is_value,
            _ => false,
        };
        ensure!(expected, "{name} with something unknown in {}: {refused:?}", variant.place);
        values += usize::from(variant.is_value);
    }
    Ok(values)
}

/// A message with one thing in it that nobody knows.
struct Variant {
    /// The path to it.
    place: String,
    is_value: bool,
    message: DynamicMessage,
}

fn variants(of: &DynamicMessage) -> Result<Vec<Variant>> {
    let name = of.descriptor().name().to_owned();
    let grown = [of.encode_to_vec().as_slice(), &UNKNOWN_FIELD].concat();
    let grown = DynamicMessage::decode(of.descriptor(), grown.as_slice())?;
    let mut all = vec![Variant { place: name.clone(), is_value: false, message: grown }];
    for (field, value) in of.fields() {
        for (place, is_value, changed) in changes(value)? {
            let mut message = of.clone();
            message.set_field(&field, changed);
            all.push(Variant { place: format!("{name}.{}{place}", field.name()), is_value, message });
        }
    }
    Ok(all)
}

/// What a field's value may be changed to: where inside, whether by an enumeration value, and the result.
fn changes(value: &Value) -> Result<Vec<(String, bool, Value)>> {
    Ok(match value {
        Value::EnumNumber(_) => vec![(String::new(), true, Value::EnumNumber(UNKNOWN_VALUE))],
        Value::Message(inner) => variants(inner)?
            .into_iter()
            .map(|variant| {
                (format!(" > {}", variant.place), variant.is_value, Value::Message(variant.message))
            })
            .collect(),
        Value::List(items) => {
            let mut all = Vec::new();
            for (at, item) in items.iter().enumerate() {
                for (place, is_value, changed) in changes(item)? {
                    let rest = items.iter().enumerate();
                    let list = rest.map(|(i, item)| if i == at { changed.clone() } else { item.clone() });
                    all.push((format!("[{at}]{place}"), is_value, Value::List(list.collect())));
                }
            }
            all
        }
        _ => Vec::new(),
    })
}

/// The names of a message and of all that is in it.
fn gather(message: &DynamicMessage, seen: &mut BTreeSet<String>) {
    seen.insert(message.descriptor().full_name().to_owned());
    for (_, value) in message.fields() {
        let inside = match value {
            Value::List(items) => items.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in inside {
            if let Value::Message(inner) = value {
                gather(inner, seen);
            }
        }
    }
}
