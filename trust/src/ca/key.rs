//! The key of a TLS identity or of an authority: ECDSA on P-256.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use rcgen::{
    CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::{Zeroize as _, Zeroizing};

use super::CaError;
use crate::certificate::to_pem;

/// A private ECDSA key on P-256, wiped when dropped. It signs TLS handshakes or certificates, nothing
/// else: messages have keys of their own.
#[derive(Clone)]
pub struct TlsKey {
    pair: Arc<EcdsaKeyPair>,
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
}

impl TlsKey {
    /// A new random key.
    pub fn generate() -> Result<Self, CaError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| CaError::Random)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| CaError::Key)?;
        Self::from_pkcs8(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    /// Reads what [`Self::to_pem`] wrote: a PEM `PRIVATE KEY` (PKCS #8).
    pub fn from_pem(pem: &str) -> Result<Self, CaError> {
        let mut key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| CaError::Key)?;
        let pkcs8 = Zeroizing::new(key.secret_pkcs8_der().to_vec());
        key.zeroize();
        Self::from_pkcs8(pkcs8)
    }

    /// The key as a PEM `PRIVATE KEY` (PKCS #8): a secret.
    pub fn to_pem(&self) -> Zeroizing<String> {
        to_pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The public key: a DER `SubjectPublicKeyInfo`.
    pub fn public_key(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }

    pub(crate) fn to_rustls(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, rustls::Error> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.as_slice()));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der)
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, CaError> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).map_err(|_| CaError::Key)?;
        Ok(Self { pair: Arc::new(pair), pkcs8: Arc::new(pkcs8) })
    }
}

/// A request for a certificate of `key` (PKCS #10). It proves possession of the key and asks for no
/// name: the authority says who its owner is.
pub fn certificate_request(key: &TlsKey) -> Result<CertificateSigningRequestDer<'static>, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.into())
}

impl PublicKeyData for TlsKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature =
            self.pair.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsKey(..)")
    }
}
