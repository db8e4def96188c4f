//! A domain's certificate authority: who its gateway and its agencies are, for TLS, and which
//! certificates no longer count.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, ServerName,
};
use time::{Duration, OffsetDateTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroizing;

pub use self::key::{TlsKey, certificate_request};
pub use crate::certificate::same_key;
use crate::{
    certificate::{Certificate, ReadError, certificates_from_pem, certificates_to_pem, requested_key},
    digest::sha256,
    names::{Domain, SpiffeId},
    tls::{Identity, SetupError},
};

mod key;
#[cfg(test)]
mod tests;

/// How long an authority lives.
const AUTHORITY_LIFE: Duration = Duration::days(3_653);
/// How far in the past an authority's life begins, for the sake of clocks that are behind.
const CLOCK_BEHIND: Duration = Duration::hours(1);

/// A domain's certificate authority, with its private key. It certifies names of its own domain only.
#[derive(Debug)]
pub struct Authority {
    domain: Domain,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, TlsKey>,
}

/// A certificate that no longer counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedSerial {
    /// Its serial number, as in [`Certificate::serial`].
    pub serial: Vec<u8>,
    /// When it was revoked.
    pub at: OffsetDateTime,
}

/// Why an authority or a key can't be read, or didn't certify.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
    /// Not a private key of ours.
    #[error("not a PEM file of one ECDSA P-256 private key (PKCS #8)")]
    Key,
    /// A certificate or request is unreadable.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A CA certificate that names no domain.
    #[error("the CA certificate names no domain: its one URI must be spiffe://<domain>")]
    NoDomain,
    /// A CA certificate and a private key that don't belong together.
    #[error("the CA certificate and the CA key don't belong together")]
    KeyMismatch,
    /// A certificate request whose signature is wrong, and so proves nothing, or that asks for
    /// something unknown.
    #[error("the certificate request doesn't prove possession of its key")]
    Possession,
    /// A certificate request with a kind of key that is not certified here.
    #[error("the certificate request is for a kind of key that is not accepted; use ECDSA on P-256 or P-384")]
    KeyKind,
    /// A certificate that somebody else issued.
    #[error("the certificate is not one that this authority issued")]
    Foreign,
    /// A name that this authority may not certify.
    #[error("the authority of {domain} certifies its own domain's agencies on request, not {name}")]
    Name {
        /// The authority's domain.
        domain: Domain,
        /// The name that was asked for.
        name: SpiffeId,
    },
    /// A host name of a gateway that is none.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Host(String),
    /// An end before a beginning.
    #[error("the certificate or list would end before it begins")]
    Life,
    /// The certificate library failed.
    #[error("the certificate can't be made: {0}")]
    Encode(#[from] rcgen::Error),
    /// The new certificate makes no TLS identity.
    #[error(transparent)]
    Identity(#[from] SetupError),
}

impl Authority {
    /// A new authority for a domain, with a new key, for ten years.
    pub fn create(domain: &Domain) -> Result<Self, CaError> {
        let key = TlsKey::generate()?;
        let now = OffsetDateTime::now_utc();
        let mut params = life(now - CLOCK_BEHIND, now + AUTHORITY_LIFE)?;
        // The key is part of the name, so that the roots of a change of keys are told apart: a
        // revocation list is found by its issuer's name.
        let key_id: String = sha256(&key.public_key()).to_string().chars().take(16).collect();
        params.distinguished_name.push(DnType::OrganizationName, "Liaison");
        params.distinguished_name.push(DnType::OrganizationalUnitName, key_id);
        params.distinguished_name.push(DnType::CommonName, domain.as_str());
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.into();
        Ok(Self { domain: domain.clone(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Reads an authority from the PEM files that [`Self::certificate_pem`] and [`Self::key_pem`] make.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CaError> {
        let certificate = certificates_from_pem(certificate)?.into_iter().next().ok_or(ReadError::Pem)?;
        let key = TlsKey::from_pem(key)?;
        let read = Certificate::read(&certificate)?;
        if read.public_key != key.public_key() {
            return Err(CaError::KeyMismatch);
        }
        let domain = read.uri.as_deref().and_then(|uri| uri.strip_prefix("spiffe://"));
        let domain = domain.and_then(|domain| domain.parse().ok()).ok_or(CaError::NoDomain)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { domain, certificate, issuer })
    }

    /// The domain that it certifies names of.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Its own certificate: the domain's root. Agents pin the SHA-256 of these bytes.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its own certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        certificates_to_pem([&self.certificate])
    }

    /// Its private key as PEM: a secret.
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.issuer.key().to_pem()
    }

    /// A new key and certificate for the domain's gateway, which foreign TLS clients can also check by
    /// host names or IP addresses. The root is part of the chain, for agents that only have its digest.
    pub fn issue_gateway(
        &self,
        hosts: &[String],
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<Identity, CaError> {
        let key = TlsKey::generate()?;
        let mut names = vec![uri(&SpiffeId::Gateway(self.domain.clone()))?];
        for host in hosts {
            names.push(match ServerName::try_from(host.as_str()) {
                Ok(ServerName::DnsName(name)) => SanType::DnsName(name.as_ref().try_into()?),
                Ok(ServerName::IpAddress(address)) => SanType::IpAddress(address.into()),
                _ => return Err(CaError::Host(host.clone())),
            });
        }
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = self.certify(&key, names, &usages, not_before, not_after)?;
        Ok(Identity::new(vec![leaf, self.certificate.clone()], key)?)
    }

    /// A certificate for an agency of the domain, of the key in its request. The request must be signed
    /// with that key; whatever else it asks for is ignored.
    pub fn sign_request(
        &self,
        request: &CertificateSigningRequestDer<'_>,
        name: &SpiffeId,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        if !matches!(name, SpiffeId::Agency(address) if *address.domain() == self.domain) {
            return Err(CaError::Name { domain: self.domain.clone(), name: name.clone() });
        }
        requested_key(request)?;
        let request = CertificateSigningRequestParams::from_der(request).map_err(|_| CaError::Possession)?;
        let kind = request.public_key.algorithm();
        if *kind != PKCS_ECDSA_P256_SHA256 && *kind != PKCS_ECDSA_P384_SHA384 {
            return Err(CaError::KeyKind);
        }
        let usages = [ExtendedKeyUsagePurpose::ClientAuth];
        self.certify(&request.public_key, vec![uri(name)?], &usages, not_before, not_after)
    }

    /// Reads a certificate that this authority issued at some time, even if it has ended since. What
    /// proves that its owner presents it is up to the caller.
    ///
    /// # Errors
    /// [`CaError::Foreign`] unless this authority signed it.
    pub fn recognise(&self, certificate: &[u8]) -> Result<Certificate, CaError> {
        let read = Certificate::read(certificate)?;
        let (_, x509) = X509Certificate::from_der(certificate).map_err(|_| ReadError::Certificate)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.issuer.key().der_bytes())
            .verify(x509.tbs_certificate.as_ref(), &x509.signature_value.data)
            .map_err(|_| CaError::Foreign)?;
        Ok(read)
    }

    /// The list of certificates that no longer count. Until `next_update` a verifier may rely on it;
    /// after that, ours refuse every certificate of the domain.
    pub fn revocation_list(
        &self,
        revoked: &[RevokedSerial],
        number: u64,
        this_update: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> Result<CertificateRevocationListDer<'static>, CaError> {
        if next_update <= this_update {
            return Err(CaError::Life);
        }
        let revoked_certs = revoked
            .iter()
            .map(|revoked| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&revoked.serial),
                revocation_time: revoked.at,
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let list = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.into())
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        usages: &[ExtendedKeyUsagePurpose],
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        let mut params = life(not_before, not_after)?;
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.into())
    }
}

fn uri(name: &SpiffeId) -> Result<SanType, CaError> {
    Ok(SanType::URI(name.to_string().try_into()?))
}

/// What every certificate begins as: a life, a random serial number, no name.
fn life(not_before: OffsetDateTime, not_after: OffsetDateTime) -> Result<CertificateParams, CaError> {
    if not_after <= not_before {
        return Err(CaError::Life);
    }
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| CaError::Random)?;
    // Positive and of one length in DER.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = not_before;
    params.not_after = not_after;
    Ok(params)
}
