//! The one-time token that an administrator sends to an agency's IT.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use liaison_trust::{
    digest::{Digest, hash},
    names::AgencyAddress,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

const PREFIX: &str = "liaison1.";
const SECRET_BYTES: usize = 32;
/// Longer than any token can be.
const TEXT_CHARS: usize = 2_048;

/// A token: whom it enrols, where, how to know the gateway there, and the secret that proves it.
pub struct Token {
    pub agency: AgencyAddress,
    /// Where the gateway is, `host:port`.
    pub gateway: String,
    /// SHA-256 of the domain's CA certificate, DER.
    pub ca: Digest,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this version")]
pub struct NotAToken;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    agency: String,
    gateway: String,
    ca: String,
    secret: String,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Token {
    /// A new token with a random secret.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub fn generate(
        agency: AgencyAddress,
        gateway: String,
        ca: Digest,
    ) -> Result<Self, rand::rngs::SysError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, secret.as_mut())?;
        Ok(Self { agency, gateway, ca, secret })
    }

    /// What the gateway keeps of it. The secret is random and long, so that one hash is enough, and
    /// looking the digest up tells nothing about the secret by its timing.
    pub fn digest(&self) -> Digest {
        hash("token/v1", &[self.secret.as_ref()])
    }

    /// The token as one word to copy.
    pub fn to_text(&self) -> Zeroizing<String> {
        let fields = Fields {
            agency: self.agency.to_string(),
            gateway: self.gateway.clone(),
            ca: self.ca.to_string(),
            secret: URL_SAFE_NO_PAD.encode(self.secret.as_ref()),
        };
        // Strings always make JSON.
        let json = Zeroizing::new(serde_json::to_vec(&fields).unwrap_or_default());
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*json)))
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let encoded = text.strip_prefix(PREFIX).filter(|_| text.len() <= TEXT_CHARS).ok_or(NotAToken)?;
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| NotAToken)?);
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| NotAToken)?;
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        let length =
            URL_SAFE_NO_PAD.decode_slice(fields.secret.as_bytes(), secret.as_mut()).map_err(|_| NotAToken)?;
        let ca = hex::decode(&fields.ca).map_err(|_| NotAToken)?;
        if length != SECRET_BYTES {
            return Err(NotAToken);
        }
        Ok(Self {
            agency: fields.agency.parse().map_err(|_| NotAToken)?,
            gateway: fields.gateway.clone(),
            ca: Digest::try_from(&*ca).map_err(|_| NotAToken)?,
            secret,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.agency)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        let agency = "be/shelter".parse().unwrap();
        Token::generate(agency, "127.0.0.1:7400".to_owned(), Digest([7; 32])).unwrap()
    }

    #[test]
    fn read_as_written() {
        let token = token();
        let read: Token = token.to_text().parse().unwrap();
        assert_eq!((&read.agency, &read.gateway, read.ca), (&token.agency, &token.gateway, token.ca));
        assert_eq!(read.digest(), token.digest());
        assert_ne!(super::tests::token().digest(), token.digest());
        assert!(!format!("{token:?}").contains(&*token.to_text()));
    }

    #[test]
    fn nothing_else_is_a_token() {
        let text = token().to_text();
        for wrong in
            ["", "liaison1.", "liaison2.e30", &text[1..], &text[..text.len() - 2], &format!("{}x", *text)]
        {
            assert_eq!(wrong.parse::<Token>().unwrap_err(), NotAToken, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = text.parse::<Token>();
            let _ = format!("{PREFIX}{text}").parse::<Token>();
        }
    }
}
