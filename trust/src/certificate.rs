//! What this project reads in an X.509 certificate (RFC 5280), and certificates as PEM (RFC 7468).

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, pem::PemObject,
};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate, certification_request::X509CertificationRequest, extensions::GeneralName,
    prelude::FromDer,
};
use zeroize::Zeroizing;

use crate::names::SpiffeId;

/// A certificate's parts that somebody decides on. Reading one proves nothing: only a TLS handshake, or
/// having issued it, does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The serial number, big-endian, as encoded.
    pub serial: Vec<u8>,
    /// The first second of its life.
    pub not_before: OffsetDateTime,
    /// The last second of its life.
    pub not_after: OffsetDateTime,
    /// The public key: a DER `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// The URI in its subject alternative names, unless there is none or there are several, which
    /// SPIFFE (X.509-SVID, 2) forbids.
    pub uri: Option<String>,
    /// The issuer's distinguished name, as text for people.
    pub issuer: String,
}

/// What a text or some bytes were taken for, but are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not exactly one DER certificate.
    #[error("not an X.509 certificate in DER")]
    Certificate,
    /// Not exactly one DER certificate request.
    #[error("not a PKCS #10 certificate request in DER")]
    Request,
    /// A PEM file without a readable certificate, or with an unreadable one.
    #[error("not a PEM file of certificates")]
    Pem,
}

impl Certificate {
    /// Reads a DER certificate. Fails if the bytes are anything else, or more.
    pub fn read(der: &[u8]) -> Result<Self, ReadError> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| ReadError::Certificate)?;
        if !rest.is_empty() {
            return Err(ReadError::Certificate);
        }
        Ok(Self {
            serial: x509.raw_serial().to_vec(),
            not_before: x509.validity().not_before.to_datetime(),
            not_after: x509.validity().not_after.to_datetime(),
            public_key: x509.public_key().raw.to_vec(),
            uri: sole_uri(&x509),
            issuer: x509.issuer().to_string(),
        })
    }

    /// The party it names, if it names one of this project's as SPIFFE asks.
    pub fn id(&self) -> Option<SpiffeId> {
        self.uri.as_deref()?.parse().ok()
    }
}

/// The public key in a DER certificate request: a DER `SubjectPublicKeyInfo`. Its signature is not
/// checked. Fails if the bytes are anything else, or more.
pub fn requested_key(request: &CertificateSigningRequestDer<'_>) -> Result<Vec<u8>, ReadError> {
    let (rest, request) = X509CertificationRequest::from_der(request).map_err(|_| ReadError::Request)?;
    if rest.is_empty() {
        Ok(request.certification_request_info.subject_pki.raw.to_vec())
    } else {
        Err(ReadError::Request)
    }
}

/// Whether a certificate request and a certificate are of the same key.
pub fn same_key(
    request: &CertificateSigningRequestDer<'_>,
    certificate: &CertificateDer<'_>,
) -> Result<bool, ReadError> {
    Ok(requested_key(request)? == Certificate::read(certificate)?.public_key)
}

/// Certificates as the text of a PEM file, in the order given.
pub fn certificates_to_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> String {
    certificates.into_iter().map(|der| to_pem("CERTIFICATE", der).to_string()).collect()
}

/// A revocation list as the text of a PEM file.
pub fn revocation_list_to_pem(list: &CertificateRevocationListDer<'_>) -> String {
    to_pem("X509 CRL", list).to_string()
}

/// The certificates in the text of a PEM file, in their order: one or more.
pub fn certificates_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, ReadError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| ReadError::Pem)?;
    if certificates.is_empty() { Err(ReadError::Pem) } else { Ok(certificates) }
}

/// DER as PEM text. Wiped when dropped, as the DER may be a private key.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let lines = encoded.len().div_ceil(PEM_LINE_CHARS);
    // Room for all of it, so that it is never moved and no copy stays behind.
    let mut pem = Zeroizing::new(String::with_capacity(encoded.len() + lines + 2 * label.len() + 40));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    for (position, character) in encoded.chars().enumerate() {
        if position > 0 && position % PEM_LINE_CHARS == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

const PEM_LINE_CHARS: usize = 64;

fn sole_uri(x509: &X509Certificate<'_>) -> Option<String> {
    let names = x509.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next()?;
    uris.next().is_none().then(|| uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_pem_that_others_read() {
        let ders = [vec![7; 1], vec![7; 47], vec![7; 48], vec![7; 500]].map(CertificateDer::from);
        let pem = certificates_to_pem(&ders);
        assert!(pem.lines().all(|line| line.len() <= PEM_LINE_CHARS));
        assert_eq!(certificates_from_pem(&pem).unwrap(), ders);
    }

    #[test]
    fn refuses_what_is_no_certificate() {
        assert_eq!(certificates_from_pem(""), Err(ReadError::Pem));
        assert_eq!(
            certificates_from_pem("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"),
            Err(ReadError::Pem)
        );
        assert_eq!(Certificate::read(b""), Err(ReadError::Certificate));
        assert_eq!(Certificate::read(&[0x30; 64]), Err(ReadError::Certificate));
    }
}
