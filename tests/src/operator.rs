//! An operator who does not keep to the rules: edits the database of its gateway while that is stopped, and has all of the
//! gateway's keys.

use std::{fs, io::ErrorKind};

use anyhow::{Context, Result, ensure};
use liaison_demo::Gateway;
use liaison_proto::message::v1::{SignedKeyRecord, kem::Code as Kem};
use liaison_trust::{
    key_record::{self, ProvenKey},
    keys::{KemKey, SigningKey},
    log::{Checkpoint, Frontier, LogSigner, leaf_hash},
    mac::MacKey,
};
use prost::Message;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::python::python;

/// Runs statements, and prints the rows of the last one; bytes are hexadecimal.
const EDIT: &str = "
import json, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
given = lambda value: bytes.fromhex(value['hex']) if isinstance(value, dict) else value
shown = lambda value: value.hex() if isinstance(value, bytes) else value
rows = []
for statement, values in json.loads(sys.argv[2]):
    rows = database.execute(statement, [given(value) for value in values]).fetchall()
database.commit()
print(json.dumps([[shown(value) for value in row] for row in rows]))
";

/// A statement with its values.
type Statement<'a> = (&'a str, Vec<Value>);

async fn edit(gateway: &Gateway, statements: &[Statement<'_>]) -> Result<Vec<Vec<Value>>> {
    let database = gateway.data.join("liaison.db").to_string_lossy().into_owned();
    let rows = python(&["-c", EDIT, &database, &serde_json::to_string(statements)?]).await?;
    Ok(serde_json::from_str(&rows)?)
}

fn bytes(bytes: &[u8]) -> Value {
    json!({"hex": hex::encode(bytes)})
}

/// A key record in an agency's name whose private keys somebody else has.
pub fn forged(agency: &str) -> Result<ProvenKey> {
    let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::XWing)?);
    let now = OffsetDateTime::now_utc();
    let days = Duration::days(30);
    Ok(key_record::prove(&key_record::first(&agency.parse()?, &signing, &kem, now - days, now + days))?)
}

/// Lists this record as the agency's only one.
pub async fn list(gateway: &Gateway, key: &ProvenKey) -> Result<()> {
    let agency = json!(key.agency.to_string());
    let insert = "INSERT INTO key_record (agency, sequence, record) VALUES (?, 0, ?)";
    let statements = [
        ("DELETE FROM key_record WHERE agency = ?", vec![agency.clone()]),
        (insert, vec![agency, bytes(&key.signed.encode_to_vec())]),
    ];
    edit(gateway, &statements).await.map(drop)
}

/// Has a record logged.
pub async fn log(gateway: &Gateway, key: &ProvenKey) -> Result<()> {
    let index = logged(gateway).await?.len();
    let append = append(gateway, (2, 1), index, &key.signed.encode_to_vec())?;
    edit(gateway, &[append]).await.map(drop)
}

/// Appends an entry to a log of keys, by its id and number, as the gateway does: with the code by which it knows its own.
fn append(
    gateway: &Gateway,
    (log, number): (i64, i64),
    index: usize,
    entry: &[u8],
) -> Result<Statement<'static>> {
    let key = MacKey::derived(&signing(gateway)?, "log-leaf/v1");
    let (of, at) = (u32::try_from(number)?.to_be_bytes(), u64::try_from(index)?.to_be_bytes());
    let mac = key.mac(&[b"keys", &of, &at, entry, b"", b""]);
    let insert = "INSERT INTO leaf (log, idx, entry, readers, mac) VALUES (?, ?, ?, '', ?)";
    Ok((insert, vec![json!(log), json!(index), bytes(entry), bytes(&mac)]))
}

/// The key with which the gateway signs.
fn signing(gateway: &Gateway) -> Result<SigningKey> {
    let mut seed = [0; 32];
    hex::decode_to_slice(fs::read_to_string(gateway.data.join("signing.key"))?.trim(), &mut seed)?;
    Ok(SigningKey::from_seed(&seed))
}

/// Hides from agencies what is recorded of their messages from now on.
pub async fn hide(gateway: &Gateway) -> Result<()> {
    let hide = "CREATE TRIGGER hide AFTER INSERT ON leaf WHEN NEW.message IS NOT NULL \
                BEGIN UPDATE leaf SET readers = '' WHERE log = NEW.log AND idx = NEW.idx; END";
    edit(gateway, &[(hide, Vec::new())]).await.map(drop)
}

/// The entries of the log of keys.
pub async fn logged(gateway: &Gateway) -> Result<Vec<Vec<u8>>> {
    blobs(gateway, "SELECT entry FROM leaf WHERE log = 2 ORDER BY idx").await
}

/// The key records of agencies of the gateway's domain that it found in peers' logs and did not publish.
pub async fn evidence(gateway: &Gateway) -> Result<Vec<Vec<u8>>> {
    blobs(gateway, "SELECT record FROM foreign_key ORDER BY seq").await
}

async fn blobs(gateway: &Gateway, select: &str) -> Result<Vec<Vec<u8>>> {
    let rows = edit(gateway, &[(select, Vec::new())]).await?;
    let blob = |row: &Vec<Value>| Ok(hex::decode(row.first().and_then(Value::as_str).context("no blob")?)?);
    rows.iter().map(blob).collect()
}

/// The key records of an agency in the log of keys.
pub async fn logged_of(gateway: &Gateway, agency: &str) -> Result<Vec<ProvenKey>> {
    let entries = logged(gateway).await?;
    let keys =
        entries.iter().map(|entry| Ok(key_record::prove(&SignedKeyRecord::decode(entry.as_slice())?)?));
    let keys: Vec<ProvenKey> = keys.collect::<Result<_>>()?;
    Ok(keys.into_iter().filter(|key| key.agency.to_string() == agency).collect())
}

/// How many messages the gateway has accepted.
pub async fn accepted(gateway: &Gateway) -> Result<u64> {
    let rows = edit(gateway, &[("SELECT COUNT(*) FROM message", Vec::new())]).await?;
    rows.first().and_then(|row| row.first()?.as_u64()).context("no count")
}

/// Makes these the entries of the log of keys, 1 to 256 of them, under a head that the log's key signs.
pub async fn rewrite(gateway: &Gateway, entries: &[Vec<u8>]) -> Result<()> {
    sign_keys(gateway, (2, 1), entries).await
}

/// Opens another log of keys with these entries, 1 to 256 of them, under a head that the log's key signs.
pub async fn open_keys(gateway: &Gateway, entries: &[Vec<u8>]) -> Result<()> {
    let number = OffsetDateTime::now_utc().unix_timestamp();
    let insert = "INSERT INTO log (id, kind, number, size) VALUES (3, 'keys', ?, 0)";
    let tile = "INSERT INTO tile (log, level, idx, hashes) VALUES (3, 0, 0, x'')";
    edit(gateway, &[(insert, vec![json!(number)]), (tile, Vec::new())]).await?;
    sign_keys(gateway, (3, number), entries).await
}

/// Gives a log of keys, by its id and number, these entries and a head.
async fn sign_keys(gateway: &Gateway, (log, number): (i64, i64), entries: &[Vec<u8>]) -> Result<()> {
    ensure!((1..=256).contains(&entries.len()), "not one tile");
    let origin = format!("{}/keys/{number}", gateway.domain).parse()?;
    let signer = LogSigner::new(origin, signing(gateway)?.derived("log-key/v1"));
    let (mut frontier, mut tile) = (Frontier::new(), Vec::new());
    let mut statements = vec![("DELETE FROM leaf WHERE log = ?", vec![json!(log)])];
    for (index, entry) in entries.iter().enumerate() {
        tile.extend_from_slice(leaf_hash(entry).as_bytes());
        frontier.append(leaf_hash(entry))?;
        statements.push(append(gateway, (log, number), index, entry)?);
    }
    let checkpoint = Checkpoint::new(signer.key().name(), frontier.size(), frontier.root())?
        .with_extension(&signer.key().to_string())?;
    let note = signer.sign_checkpoint(&checkpoint)?.to_string();
    let tiles = "UPDATE tile SET hashes = ? WHERE log = ? AND level = 0";
    statements.push((tiles, vec![bytes(&tile), json!(log)]));
    let head = "UPDATE log SET size = ?, checkpoint = ?, cosigned = NULL WHERE id = ?";
    statements.push((head, vec![json!(frontier.size()), bytes(note.as_bytes()), json!(log)]));
    edit(gateway, &statements).await?;
    match fs::remove_file(gateway.data.join("keys.head")) {
        // It is written a second after a head.
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
