//! The committed vectors (`trust/tests/vectors`): what is sealed from the same keys, draft and
//! randomness is the same to the byte, and an independent implementation opens it
//! (`tests/foreign/open_envelope.py`). After a deliberate change of format, write them anew with
//! `cargo test -p liaison-trust --lib write_vectors -- --ignored`.

use std::{convert::Infallible, fs, path::PathBuf};

use hpke::rand_core::{TryCryptoRng, TryRng};
use serde_json::{Value, json};

use super::*;
use crate::{
    digest::sha256,
    envelope::{head::Head, seal::seal_with},
};

/// Randomness that can be made again: SHA-256 over a seed and a counter.
struct Counted {
    seed: &'static str,
    blocks: u64,
}

impl TryRng for Counted {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(32) {
            let block = sha256(&[self.seed.as_bytes(), &self.blocks.to_be_bytes()].concat());
            chunk.copy_from_slice(&block.as_bytes()[..chunk.len()]);
            self.blocks += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Counted {}

/// One vector: a message, and the copy of its first recipient.
struct Vector {
    name: &'static str,
    kem: Kem,
    kind: Kind,
    sections: &'static [Category],
    /// Of the sections, for the first recipient.
    covered: &'static [Category],
    released: &'static [Category],
    recipients: usize,
}

const VECTORS: [Vector; 4] = [
    Vector {
        name: "referral-x25519",
        kem: Kem::X25519,
        kind: Kind::Referral,
        sections: &[Category::ServiceRequest, Category::Identity, Category::Health, Category::Consent],
        covered: &[Category::ServiceRequest, Category::Identity, Category::Health],
        released: &[Category::ServiceRequest, Category::Health],
        recipients: 1,
    },
    Vector {
        name: "alert-x25519",
        kem: Kem::X25519,
        kind: Kind::Alert,
        sections: &[Category::Risk, Category::Minor],
        covered: &[Category::Risk, Category::Minor],
        released: &[Category::Risk, Category::Minor],
        recipients: 3,
    },
    Vector {
        name: "state-x25519",
        kem: Kem::X25519,
        kind: Kind::State,
        sections: &[],
        covered: &[],
        released: &[],
        recipients: 1,
    },
    Vector {
        name: "referral-x-wing",
        kem: Kem::XWing,
        kind: Kind::Referral,
        sections: &[Category::ServiceRequest, Category::Narrative],
        covered: &[Category::ServiceRequest, Category::Narrative],
        released: &[Category::ServiceRequest, Category::Narrative],
        recipients: 1,
    },
];

fn seed(vector: &Vector, what: &str) -> [u8; 32] {
    *sha256(format!("{}/{what}", vector.name).as_bytes()).as_bytes()
}

fn agency(vector: &Vector, address: &str) -> Agency {
    let signing = SigningKey::from_seed(&seed(vector, &format!("{address}/signing")));
    let kem = KemKey::from_seed(vector.kem, &seed(vector, &format!("{address}/kem"))).unwrap();
    Agency::from_keys(address, signing, kem)
}

impl Vector {
    fn path(&self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", &format!("{}.json", self.name)].iter().collect()
    }

    /// The message and its copy, sealed from the vector's randomness.
    fn make(&self) -> Value {
        let sender = agency(self, "be/police-antwerp");
        let agencies: Vec<Agency> =
            (1..=self.recipients).map(|number| agency(self, &format!("hu/shelter-{number}"))).collect();
        let recipient = &agencies[0];
        let gateway = SigningKey::from_seed(&seed(self, "gateway"));
        let to = agencies.iter().map(|agency| agency.to(self.covered)).collect();
        let mut draft = draft(&sender, self.kind, self.sections, to);
        draft.message_id = IDS[0].parse().unwrap();
        draft.thread = IDS[1].parse().unwrap();
        let mut random = Counted { seed: self.name, blocks: 0 };
        let envelope = seal_with(&draft, &sender.signing, &sender.key.signed, &mut random).unwrap();
        let verified = verify(envelope.clone(), NOW).unwrap();
        let copy = release(&verified, 0, self.released, &gateway);
        let received = recipient.receive(&copy, &sender, &gateway).unwrap();
        json!({
            "about": "A sealed message and one recipient's copy of it; see trust/ENVELOPE.md. Bytes are hexadecimal.",
            "now": NOW.unix_timestamp(),
            "envelope": hex::encode(envelope.encode_to_vec()),
            "copy": hex::encode(copy.encode_to_vec()),
            "recipient": {
                "address": recipient.key.agency.to_string(),
                "kem": self.kem.as_str_name(),
                "kem_seed": hex::encode(recipient.kem.seed().as_slice()),
                "key_id": recipient.key.id.to_string(),
            },
            "sender": {
                "address": sender.key.agency.to_string(),
                "signing_key": hex::encode(sender.key.signing.as_bytes()),
                "key_id": sender.key.id.to_string(),
            },
            "gateway_signing_key": hex::encode(gateway.public().as_bytes()),
            "expected": {
                "manifest_digest": verified.digest.to_string(),
                "recipients_root": Head::read(&envelope.manifest).unwrap().root.to_string(),
                "sections": received.sections.iter().map(|section| json!({
                    "position": section.section.position,
                    "category": i32::from(section.category),
                    "key": hex::encode(section.key.as_slice()),
                    "plaintext": hex::encode(&opened(&received)[&section.category]),
                })).collect::<Vec<_>>(),
            },
        })
    }
}

const IDS: [&str; 2] = ["01934567-89ab-7cde-8f01-23456789abcd", "01934567-89ab-7cde-8f01-23456789abce"];

#[test]
fn what_is_sealed_is_what_the_vectors_say() {
    for vector in VECTORS {
        let committed: Value = serde_json::from_slice(&fs::read(vector.path()).unwrap()).unwrap();
        assert!(vector.make() == committed, "{} differs from trust/tests/vectors", vector.name);
    }
}

#[test]
#[ignore = "writes the vectors"]
fn write_vectors() {
    for vector in VECTORS {
        fs::create_dir_all(vector.path().parent().unwrap()).unwrap();
        fs::write(vector.path(), serde_json::to_string_pretty(&vector.make()).unwrap() + "\n").unwrap();
    }
}
