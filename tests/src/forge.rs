//! Certificates that no honest authority would issue, made with the authority's own key or another's.

use std::fs;

use anyhow::Result;
use liaison_demo::Gateway;
use liaison_trust::{ca::TlsKey, tls::Identity};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::{Duration, OffsetDateTime};

/// What a certificate says.
pub struct Claim<'a> {
    pub uri: &'a str,
    pub usage: ExtendedKeyUsagePurpose,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl<'a> Claim<'a> {
    /// What a genuine certificate of this name says today.
    pub fn genuine(uri: &'a str) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            uri,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            not_before: now - Duration::hours(1),
            not_after: now + Duration::hours(1),
        }
    }

    /// Issues it with the key of the gateway's own authority.
    pub fn by_authority_of(&self, gateway: &Gateway) -> Result<Identity> {
        let certificate = fs::read_to_string(gateway.data.join("ca.pem"))?;
        let key = fs::read_to_string(gateway.data.join("ca.key"))?;
        self.by(&certificate, &key)
    }

    /// Issues it with the key of any authority, given in PEM.
    pub fn by(&self, authority: &str, authority_key: &str) -> Result<Identity> {
        let issuer = Issuer::from_ca_cert_pem(authority, KeyPair::from_pem(authority_key)?)?;
        let key = TlsKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        params.subject_alt_names = vec![SanType::URI(self.uri.try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &issuer)?;
        Ok(Identity::new(vec![leaf.der().clone()], key)?)
    }
}
