//! HPKE (RFC 9180) in base mode, export-only, over X-Wing or X25519, with HKDF-SHA-256.

use hpke::{
    Deserializable, Kem as HpkeKem, OpModeR, OpModeS, Serializable,
    aead::ExportOnlyAead,
    kdf::HkdfSha256,
    kem::{X25519HkdfSha256, XWing},
    rand_core::CryptoRng,
    setup_receiver, setup_sender_with_rng,
};
use liaison_proto::message::v1::kem::Code as Kem;
use zeroize::Zeroizing;

use crate::{keys::KemKey, random::System};

/// Export context of the one secret that an encapsulation gives.
const EXPORT: &[u8] = b"wrap/v1";

/// A KEM key or an encapsulation that the KEM does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadKemInput;

/// An encapsulation and the secret in it.
type Encapsulated = (Vec<u8>, Zeroizing<[u8; 32]>);

/// Whether these bytes are a public key that one can seal to. An agency that published another would
/// stop every message that is for it as well.
pub(crate) fn is_public_key(kem: Kem, public: &[u8]) -> bool {
    match kem {
        Kem::Unspecified => false,
        Kem::XWing => <XWing as HpkeKem>::PublicKey::from_bytes(public).is_ok(),
        // What is wrong with a point shows only once it is used.
        Kem::X25519 => encapsulate(kem, public, &[], &mut System).is_ok(),
    }
}

/// Whether some KEM has encapsulations of this length, bytes.
pub(crate) fn is_encapsulation_length(length: usize) -> bool {
    matches!(length, 1120 | 32)
}

/// The public key of a private one.
pub(crate) fn public(key: &KemKey) -> Vec<u8> {
    fn of<K: HpkeKem>(secret: &[u8; 32]) -> Vec<u8> {
        K::PrivateKey::from_bytes(secret)
            .map(|secret| K::sk_to_pk(&secret).to_bytes().to_vec())
            .unwrap_or_default()
    }
    match key.kem() {
        Kem::Unspecified => Vec::new(),
        Kem::XWing => of::<XWing>(key.secret()),
        Kem::X25519 => of::<X25519HkdfSha256>(key.secret()),
    }
}

/// Makes a secret for the holder of a public key, bound to `info`.
pub(crate) fn encapsulate(
    kem: Kem,
    public: &[u8],
    info: &[u8],
    random: &mut impl CryptoRng,
) -> Result<Encapsulated, BadKemInput> {
    fn with<K: HpkeKem>(
        public: &[u8],
        info: &[u8],
        random: &mut impl CryptoRng,
    ) -> Result<Encapsulated, hpke::HpkeError> {
        let public = K::PublicKey::from_bytes(public)?;
        let (encapsulation, context) =
            setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, K>(&OpModeS::Base, &public, info, random)?;
        let mut secret = Zeroizing::new([0; 32]);
        context.export(EXPORT, secret.as_mut_slice())?;
        Ok((encapsulation.to_bytes().to_vec(), secret))
    }
    match kem {
        Kem::Unspecified => Err(BadKemInput),
        Kem::XWing => with::<XWing>(public, info, random).map_err(|_| BadKemInput),
        Kem::X25519 => with::<X25519HkdfSha256>(public, info, random).map_err(|_| BadKemInput),
    }
}

/// The secret in an encapsulation to this key, if `info` is the one it was made with.
pub(crate) fn decapsulate(
    key: &KemKey,
    encapsulation: &[u8],
    info: &[u8],
) -> Result<Zeroizing<[u8; 32]>, BadKemInput> {
    fn with<K: HpkeKem>(
        secret: &[u8; 32],
        encapsulation: &[u8],
        info: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, hpke::HpkeError> {
        let secret = K::PrivateKey::from_bytes(secret)?;
        let encapsulation = K::EncappedKey::from_bytes(encapsulation)?;
        let context =
            setup_receiver::<ExportOnlyAead, HkdfSha256, K>(&OpModeR::Base, &secret, &encapsulation, info)?;
        let mut exported = Zeroizing::new([0; 32]);
        context.export(EXPORT, exported.as_mut_slice())?;
        Ok(exported)
    }
    match key.kem() {
        Kem::Unspecified => Err(BadKemInput),
        Kem::XWing => with::<XWing>(key.secret(), encapsulation, info).map_err(|_| BadKemInput),
        Kem::X25519 => with::<X25519HkdfSha256>(key.secret(), encapsulation, info).map_err(|_| BadKemInput),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_and_recipient_agree_where_key_and_info_do() {
        for (kem, length) in [(Kem::XWing, 1120), (Kem::X25519, 32)] {
            let key = KemKey::generate(kem).unwrap();
            let public = key.public();
            assert!(is_public_key(kem, &public));
            let (encapsulation, secret) = encapsulate(kem, &public, b"info", &mut System).unwrap();
            assert_eq!(encapsulation.len(), length);
            assert!(is_encapsulation_length(length));
            assert_eq!(decapsulate(&key, &encapsulation, b"info").unwrap(), secret);
            assert_ne!(decapsulate(&key, &encapsulation, b"other").unwrap(), secret);
            let other = KemKey::generate(kem).unwrap();
            assert_ne!(decapsulate(&other, &encapsulation, b"info").unwrap(), secret);
        }
    }

    #[test]
    fn bad_keys_are_refused() {
        for kem in [Kem::XWing, Kem::X25519] {
            assert_eq!(encapsulate(kem, &[1; 31], b"", &mut System).unwrap_err(), BadKemInput);
            assert!(!is_public_key(kem, &[1; 31]));
            let key = KemKey::generate(kem).unwrap();
            assert_eq!(decapsulate(&key, &[1; 33], b"").unwrap_err(), BadKemInput);
        }
        // A point of small order gives every sender the same secret.
        assert_eq!(encapsulate(Kem::X25519, &[0; 32], b"", &mut System).unwrap_err(), BadKemInput);
        assert!(!is_public_key(Kem::X25519, &[0; 32]));
        // Coefficients beyond the modulus of ML-KEM.
        assert_eq!(encapsulate(Kem::XWing, &[0xff; 1216], b"", &mut System).unwrap_err(), BadKemInput);
        assert!(!is_public_key(Kem::XWing, &[0xff; 1216]));
    }
}
