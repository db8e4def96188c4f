//! Bundles: what a domain is known by to its peers. Two administrators exchange them once and compare a
//! fingerprint; from then on the gateways renew them themselves.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use liaison_proto::{
    federation::v1::{Bundle as Wire, SignedBundle},
    limits::{BUNDLE_ADDRESSES, BUNDLE_AGE, BUNDLE_BYTES, BUNDLE_COUNTRIES, CLOCK_AHEAD},
    message::v1::{Refusal, error_code::Code as ErrorCode},
    strict, times,
};
use liaison_trust::{
    certificate::Certificate,
    digest::{self, Digest},
    keys::VerifyingKey,
    names::Domain,
    statement,
    tls::DomainTrust,
};
use prost::Message;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::limits;

/// The version of the federation's contracts that this program speaks.
pub const PROTOCOL: u32 = 1;
/// What a bundle as text begins with.
const PREFIX: &str = "liaison-bundle1.";
/// Groups of four hexadecimal digits in a fingerprint: 96 bits.
const FINGERPRINT_GROUPS: usize = 6;

/// A bundle that its domain's gateway signed and that is well formed.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    pub domain: Domain,
    pub roots: Vec<CertificateDer<'static>>,
    pub signing: VerifyingKey,
    /// `host:port`.
    pub addresses: Vec<String>,
    pub countries: BTreeSet<String>,
    pub sequence: u64,
    pub issued: OffsetDateTime,
    pub scheme_hash: Digest,
    /// Of the domain's logs.
    pub log: VerifyingKey,
    /// By which it cosigns others' heads.
    pub witness: VerifyingKey,
    /// As it was signed.
    pub signed: SignedBundle,
}

impl Bundle {
    /// Reads a bundle that is signed by the key that it names: whether it is the domain's own, a person says,
    /// or a bundle before it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(signed: &SignedBundle) -> Result<Self, Refusal> {
        if signed.encoded_len() > BUNDLE_BYTES {
            return Err(wrong(format!("it has more than {BUNDLE_BYTES} bytes")));
        }
        let claimed: Wire = strict::decode(&signed.bundle).map_err(|error| {
            Refusal::new(error.code(), format!("the bundle can't be read: {error}"), UPGRADE)
        })?;
        let signing = key(&claimed.gateway_signing_key)?;
        let bundle: Wire = statement::read(signed, &signing)
            .map_err(|error| Refusal::new(ErrorCode::BadSignature, error.to_string(), ASK_AGAIN))?;
        if bundle.protocol == 0 {
            return Err(wrong("it names no version of the contracts".to_owned()));
        }
        let domain: Domain = bundle.domain.parse().map_err(|_| wrong("it names no domain".to_owned()))?;
        let roots = roots(&domain, &bundle.roots)?;
        if !(1..=BUNDLE_ADDRESSES).contains(&bundle.addresses.len())
            || !bundle.addresses.iter().all(|address| is_host_port(address))
        {
            return Err(wrong(format!("it names no addresses host:port, or more than {BUNDLE_ADDRESSES}")));
        }
        let countries: BTreeSet<String> = bundle.countries.iter().cloned().collect();
        if countries.len() > BUNDLE_COUNTRIES || !countries.iter().all(|country| is_country(country)) {
            return Err(wrong("its countries are not codes of ISO 3166-1".to_owned()));
        }
        let issued = bundle.issued.as_ref().and_then(times::from_wire);
        Ok(Self {
            roots,
            signing,
            addresses: bundle.addresses,
            countries,
            sequence: bundle.sequence,
            issued: issued.ok_or_else(|| wrong("it has no time".to_owned()))?,
            scheme_hash: Digest::try_from(bundle.scheme_hash.as_ref())
                .map_err(|_| wrong("it names no scheme".to_owned()))?,
            log: key(&bundle.log_key)?,
            witness: key(&bundle.witness_key)?,
            domain,
            signed: signed.clone(),
        })
    }

    /// Reads the next bundle of the same domain over its link.
    ///
    /// # Errors
    /// It is older than this one, of another domain or key, or from the future.
    pub fn renewed(&self, signed: &SignedBundle, now: OffsetDateTime) -> Result<Self, Refusal> {
        if *signed == self.signed {
            return Ok(self.clone());
        }
        let next = Self::read(signed)?;
        if (&next.domain, next.keys()) != (&self.domain, self.keys()) {
            return Err(Refusal::new(
                ErrorCode::PeerViolation,
                format!("the bundle is not signed by the key that {} was accepted with", self.domain),
                "compare fingerprints with the domain's administrator, and accept its bundle anew",
            ));
        }
        if next.sequence <= self.sequence {
            // Both links between two domains carry bundles, and may cross.
            let is_overtaken = (time::Duration::ZERO..=limits::BUNDLES_CROSS)
                .contains(&(self.issued - next.issued))
                && next.sequence < self.sequence;
            if is_overtaken && self.says_what(&next) {
                return Ok(self.clone());
            }
            let refusal = Refusal::new(
                ErrorCode::StaleBundle,
                format!("the bundle of {} is older than the one that is known", self.domain),
                "send the newest one; if the gateway was restored from a backup, its clock must be right",
            );
            // What says something else was perhaps made later, by a clock that went back: its gateway is to know that
            // it was not taken.
            return Err(if is_overtaken { refusal.retry_after(limits::BUNDLE_RETRY) } else { refusal });
        }
        if next.issued > now + CLOCK_AHEAD {
            return Err(Refusal::new(
                ErrorCode::ClockSkew,
                format!("the bundle of {} is from the future", self.domain),
                "set the clocks of both gateways",
            ));
        }
        Ok(next)
    }

    /// Whether another bundle of the same gateway says the same of its domain.
    fn says_what(&self, other: &Self) -> bool {
        let Self { sequence, issued, ref signed, .. } = *self;
        *self == Self { sequence, issued, signed: signed.clone(), ..other.clone() }
    }

    /// The keys of the domain, which stay the same as long as it is peered with.
    fn keys(&self) -> [VerifyingKey; 3] {
        [self.signing, self.log, self.witness]
    }

    /// Whether it was made too long ago to be relied on.
    pub fn is_stale(&self, now: OffsetDateTime) -> bool {
        self.issued + BUNDLE_AGE < now
    }

    /// What two administrators compare: it stands for the domain and the key that signs for it.
    pub fn fingerprint(&self) -> String {
        let digest = digest::hash(
            "bundle-fingerprint/v1",
            &[self.domain.as_str().as_bytes(), self.signing.as_bytes()],
        );
        let digits = digest.to_string();
        let groups: Vec<String> = digits
            .as_bytes()
            .chunks(4)
            .take(FINGERPRINT_GROUPS)
            .map(|group| String::from_utf8_lossy(group).into_owned())
            .collect();
        groups.join(" ")
    }

    /// Whether a person read out this bundle's fingerprint; spaces and hyphens don't count.
    pub fn has_fingerprint(&self, read_out: &str) -> bool {
        let plain = |text: &str| -> String {
            text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
        };
        plain(read_out) == plain(&self.fingerprint())
    }

    /// Whom to believe about names of the domain.
    pub fn trust(&self) -> DomainTrust {
        DomainTrust { domain: self.domain.clone(), roots: self.roots.clone(), crls: Vec::new() }
    }

    /// The bundle as text for a file or a letter.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.signed.encode_to_vec()))
    }

    /// Reads the text of a bundle.
    ///
    /// # Errors
    /// It is none.
    pub fn from_text(text: &str) -> Result<Self, Refusal> {
        let not_one = || {
            Refusal::new(
                ErrorCode::Malformed,
                "this is no bundle of a domain",
                format!("copy the whole of it, from `{PREFIX}` to its end"),
            )
        };
        let encoded = text.trim().strip_prefix(PREFIX).ok_or_else(not_one)?;
        if encoded.len() > limits::BUNDLE_TEXT_BYTES {
            return Err(not_one());
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| not_one())?;
        Self::read(&strict::decode(&bytes).map_err(|_| not_one())?)
    }
}

const ASK_AGAIN: &str = "ask the domain's administrator for the bundle again";
const UPGRADE: &str = "the domain runs a newer version: upgrade this gateway, or have that domain send what this version defines";

fn wrong(what: String) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("the bundle is not usable: {what}"), ASK_AGAIN)
}

/// The sequence of a bundle of one's own; 0 of none.
pub(super) fn sequence(signed: &SignedBundle) -> u64 {
    Wire::decode(signed.bundle.clone()).map_or(0, |bundle| bundle.sequence)
}

fn key(bytes: &[u8]) -> Result<VerifyingKey, Refusal> {
    VerifyingKey::try_from(bytes).map_err(|error| wrong(error.to_string()))
}

/// Roots that say that they are the domain's.
fn roots(domain: &Domain, ders: &[Bytes]) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    if !(1..=limits::BUNDLE_ROOTS).contains(&ders.len()) {
        return Err(wrong(format!("it has no roots, or more than {}", limits::BUNDLE_ROOTS)));
    }
    let own = format!("spiffe://{domain}");
    ders.iter()
        .map(|der| {
            let read = Certificate::read(der).map_err(|error| wrong(error.to_string()))?;
            if read.uri.as_deref() != Some(own.as_str()) {
                return Err(wrong(format!("a root is not one of {domain}")));
            }
            Ok(CertificateDer::from(der.to_vec()))
        })
        .collect()
}

fn is_host_port(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b".-:[]".contains(&c);
    text.len() <= limits::HOST_PORT_BYTES
        && text.bytes().all(plain)
        && text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

pub(super) fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use liaison_trust::{ca::Authority, keys::SigningKey};
    use time::Duration;

    use super::*;

    #[test]
    fn a_bundle_that_was_overtaken_is_taken_only_if_it_says_the_same() {
        let (signing, now) = (SigningKey::generate(), OffsetDateTime::now_utc());
        let root = Authority::create(&"hu".parse().unwrap()).unwrap().certificate_der().to_vec();
        let bundle = |sequence, issued, country: &str| {
            let bundle = Wire {
                domain: "hu".to_owned(),
                roots: vec![root.clone().into()],
                gateway_signing_key: Bytes::copy_from_slice(signing.public().as_bytes()),
                addresses: vec!["gateway.example.hu:7402".to_owned()],
                countries: vec![country.to_owned()],
                sequence,
                issued: Some(times::to_wire(issued)),
                scheme_hash: vec![1; 32].into(),
                protocol: PROTOCOL,
                log_key: Bytes::copy_from_slice(signing.public().as_bytes()),
                witness_key: Bytes::copy_from_slice(signing.public().as_bytes()),
            };
            statement::sign(&bundle, &signing)
        };
        let known = Bundle::read(&bundle(9, now, "hu")).unwrap();
        let before = now - Duration::seconds(20);
        assert_eq!(known.renewed(&bundle(8, before, "hu"), now), Ok(known.clone()));
        let refusal = known.renewed(&bundle(8, before, "sk"), now).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::StaleBundle, "its clock may have gone back: it is to know");
        assert!(refusal.retry_after_ms > 0, "two links may cross: no violation");
        let refusal = known.renewed(&bundle(8, now - Duration::hours(1), "hu"), now).unwrap_err();
        assert_eq!((refusal.code(), refusal.retry_after_ms), (ErrorCode::StaleBundle, 0));
        assert_eq!(known.renewed(&bundle(10, before, "sk"), now).unwrap().sequence, 10);
    }
}
