//! From a one-time token to a data folder. Keys are made here and stay here.
//!
//! Safe to run again after a lost answer: until it has succeeded, the TLS key and the request lie in
//! `enrolling/`, and the gateway answers the same request in the same way. `agent.toml` is written last:
//! with it the folder is an agent's.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use liaison_proto::{
    exchange::v1::{EnrollRequest, enrolment_service_client::EnrolmentServiceClient},
    limits::{GRPC_MESSAGE_BYTES, REQUEST},
    message::v1::Refusal,
};
use liaison_trust::{
    ca::{CaError, TlsKey, certificate_request},
    digest::Digest,
    names::AgencyAddress,
    tls::Connector,
};
use serde::{Deserialize, de::IgnoredAny};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    certificate::{Credentials, CredentialsError, store_issued},
    config::{Config, ConfigError, HostPort, Proxy},
    custody::{Custody, CustodyError},
    dial::{DialError, Dialer},
    folder::{self, Folder, FolderError},
    link,
};

/// A one-time token: all that agency IT needs to know.
pub struct Token {
    pub agency: AgencyAddress,
    pub gateway: HostPort,
    /// SHA-256 of the domain's CA certificate.
    ca: Digest,
    text: Zeroizing<String>,
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no enrolment token; copy the whole of it, from `liaison1.` to its end")]
pub struct NotAToken;

/// What may be said beside the token.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Where the gateway is, if not where the token says.
    pub gateway: Option<HostPort>,
    pub grpc: Option<SocketAddr>,
    pub rest: Option<SocketAddr>,
    pub proxy: Option<Proxy>,
}

/// A new member of a domain.
pub struct Enrolled {
    pub agency: AgencyAddress,
    pub certificate_expires: OffsetDateTime,
    /// Id of the agency's first key record: what two people compare by telephone.
    pub fingerprint: Digest,
}

/// Why the enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("this folder is the agent of {0}; give the token of {0}, or another --data folder")]
    OtherAgency(AgencyAddress),
    #[error("the case API listens on a loopback address alone, which {0} is not")]
    NotLoopback(SocketAddr),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("agent.toml can't be written: {0}")]
    Syntax(#[from] toml::ser::Error),
    #[error(transparent)]
    File(#[from] FolderError),
    #[error(transparent)]
    Custody(#[from] CustodyError),
    #[error(transparent)]
    Request(#[from] CaError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the gateway refused: {0}")]
    Refused(Refusal),
    #[error("what the gateway issued is unusable: {0}")]
    Issued(#[from] CredentialsError),
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            agency: String,
            gateway: String,
            ca: String,
            /// The gateway's to judge; here it only has to be there.
            #[serde(rename = "secret")]
            _secret: IgnoredAny,
        }
        let text = text.trim();
        let encoded = text.strip_prefix("liaison1.").filter(|_| text.len() <= LONGEST).ok_or(NotAToken)?;
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| NotAToken)?);
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| NotAToken)?;
        let ca = hex::decode(&fields.ca).map_err(|_| NotAToken)?;
        Ok(Self {
            agency: fields.agency.parse().map_err(|_| NotAToken)?,
            gateway: fields.gateway.parse().map_err(|_| NotAToken)?,
            ca: Digest::try_from(ca.as_slice()).map_err(|_| NotAToken)?,
            text: Zeroizing::new(text.to_owned()),
        })
    }
}

/// Longer than any token, bytes.
const LONGEST: usize = 2048;

/// Enrols this folder's agent, or enrols it again.
pub async fn enrol(folder: &Folder, token: &Token, wishes: Wishes) -> Result<Enrolled, EnrolError> {
    let config = config(folder, token, wishes)?;
    folder::create_private_dir(folder.path())?;
    let (key, request) = pending(folder)?;

    let channel = Dialer::new(&config, Connector::pinned(token.ca)).dial().await?;
    let mut call = tonic::Request::new(EnrollRequest {
        token: token.text.to_string(),
        certificate_request: request.into(),
    });
    call.set_timeout(REQUEST);
    let issued = EnrolmentServiceClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES)
        .enroll(call)
        .await
        .map_err(|status| EnrolError::Refused(link::refusal(&status)))?
        .into_inner();
    if issued.agency != config.agency.to_string() {
        return Err(CredentialsError::Answer("a certificate for another agency").into());
    }

    let custody = Custody::create(folder, &config.agency, OffsetDateTime::now_utc())?;
    if !folder.api_token().exists() {
        let token = Zeroizing::new(hex::encode(Zeroizing::new(rand::random::<[u8; 32]>())));
        folder::write_private(&folder.api_token(), token.as_bytes())?;
    }
    folder::write_private(&folder.tls_key(), key.to_pem().as_bytes())?;
    // Whoever has a new token was told so by a person: what the domain has now counts, whatever it had before.
    folder::destroy(&folder.log_key())?;
    store_issued(folder, &config, &key, &issued.certificates, issued.bundle.as_ref())?;
    folder::write_private(&folder.config(), toml::to_string(&config)?.as_bytes())?;
    for file in [pending_key(folder), pending_request(folder)] {
        folder::destroy(&file)?;
    }
    let ring = custody.ring();
    Ok(Enrolled {
        agency: config.agency.clone(),
        certificate_expires: Credentials::load(folder, &config)?.not_after,
        fingerprint: ring.chain().first().unwrap_or(ring.current()).id,
    })
}

/// The configuration: as wished, else as it was, else the usual.
fn config(folder: &Folder, token: &Token, wishes: Wishes) -> Result<Config, EnrolError> {
    let before = match Config::load(folder) {
        Ok(config) if config.agency != token.agency => return Err(EnrolError::OtherAgency(config.agency)),
        Ok(config) => Some(config),
        Err(ConfigError::NotEnrolled(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let before = before.as_ref();
    let usual = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let config = Config {
        agency: token.agency.clone(),
        gateway: wishes.gateway.unwrap_or_else(|| token.gateway.clone()),
        grpc: wishes.grpc.or(before.map(|before| before.grpc)).unwrap_or_else(|| usual(7410)),
        rest: wishes.rest.or(before.map(|before| before.rest)).unwrap_or_else(|| usual(7411)),
        proxy: wishes.proxy.or_else(|| before.and_then(|before| before.proxy.clone())),
    };
    match [config.grpc, config.rest].into_iter().find(|at| !at.ip().is_loopback()) {
        Some(at) => Err(EnrolError::NotLoopback(at)),
        None => Ok(config),
    }
}

/// The TLS key and the request for its certificate: those of an enrolment that has not succeeded yet,
/// or new ones.
fn pending(folder: &Folder) -> Result<(TlsKey, Vec<u8>), EnrolError> {
    let (key_file, request_file) = (pending_key(folder), pending_request(folder));
    // The request is written last: with it, both are there.
    if request_file.exists() {
        let key = TlsKey::from_pem(&Zeroizing::new(folder::read_text(&key_file)?))?;
        return Ok((key, folder::read(&request_file)?));
    }
    let key = TlsKey::generate()?;
    let request = certificate_request(&key)?.to_vec();
    folder::write_private(&key_file, key.to_pem().as_bytes())?;
    folder::write_private(&request_file, &request)?;
    Ok((key, request))
}

fn pending_key(folder: &Folder) -> PathBuf {
    folder.path().join("enrolling.key")
}

fn pending_request(folder: &Folder) -> PathBuf {
    folder.path().join("enrolling.csr")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(fields: &serde_json::Value) -> String {
        format!("liaison1.{}", URL_SAFE_NO_PAD.encode(fields.to_string()))
    }

    fn fields() -> serde_json::Value {
        json!({"agency": "be/shelter", "gateway": "gateway.example:7400", "ca": "07".repeat(32), "secret": "s"})
    }

    #[test]
    fn a_token_is_read_and_anything_else_is_none() {
        let token: Token = format!(" {}\n", text(&fields())).parse().unwrap();
        assert_eq!((token.agency.to_string().as_str(), token.ca), ("be/shelter", Digest([7; 32])));
        for (field, value) in [("agency", "shelter"), ("gateway", "nowhere"), ("ca", "07")] {
            let mut wrong = fields();
            wrong[field] = json!(value);
            assert_eq!(text(&wrong).parse::<Token>().err(), Some(NotAToken), "{field}");
        }
        let mut more = fields();
        more["more"] = json!(1);
        assert_eq!(text(&more).parse::<Token>().err(), Some(NotAToken));
        let whole = text(&fields());
        assert_eq!(whole[..whole.len() - 5].parse::<Token>().err(), Some(NotAToken));
    }

    #[test]
    fn the_same_key_and_request_are_kept_until_success() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let (key, request) = pending(&folder).unwrap();
        let (again, same) = pending(&folder).unwrap();
        assert_eq!(*key.to_pem(), *again.to_pem());
        assert_eq!(request, same);
        // A crash between the two files leaves a key without a request: both are made anew.
        folder::destroy(&pending_request(&folder)).unwrap();
        assert_ne!(pending(&folder).unwrap().1, request);
    }

    #[test]
    fn what_was_configured_stays_unless_wished_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let token: Token = text(&fields()).parse().unwrap();
        let wishes = Wishes { grpc: Some("127.0.0.1:9999".parse().unwrap()), ..Wishes::default() };
        let first = config(&folder, &token, wishes).unwrap();
        assert_eq!(first.rest.port(), 7411);
        folder::write_private(&folder.config(), toml::to_string(&first).unwrap().as_bytes()).unwrap();
        assert_eq!(config(&folder, &token, Wishes::default()).unwrap().grpc.port(), 9999);

        let open = Wishes { rest: Some("0.0.0.0:1".parse().unwrap()), ..Wishes::default() };
        assert!(matches!(config(&folder, &token, open), Err(EnrolError::NotLoopback(_))));
        let mut other = fields();
        other["agency"] = json!("be/police");
        let other: Token = text(&other).parse().unwrap();
        assert!(matches!(config(&folder, &other, Wishes::default()), Err(EnrolError::OtherAgency(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_an_error(text in "(liaison1\\.)?\\PC{0,80}") {
            let _ = text.parse::<Token>();
        }
    }
}
