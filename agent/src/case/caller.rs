//! Who calls the case API, by the headers that gRPC and REST have in common.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, header::AUTHORIZATION};
use liaison_proto::message::v1::{Refusal, error_code::Code as ErrorCode};
use liaison_trust::digest::{Digest, sha256};

use crate::limits;

/// The header that names who is asking.
pub const ACTOR: &str = "liaison-actor";
/// The header that lets a request be repeated without a second effect.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A caller that showed the API token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// On whose behalf the case system calls. Stays in this agent.
    pub actor: String,
    /// None where the request is not to be repeated.
    pub idempotency_key: Option<String>,
}

/// The API token, as its digest: what is compared tells nothing of the token by its timing.
#[derive(Clone)]
pub struct ApiToken(Digest);

impl ApiToken {
    pub fn new(token: &str) -> Self {
        Self(sha256(token.as_bytes()))
    }

    /// The caller that these headers name, if they hold the token.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked(SCHEME.len()))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
            .map(|(_, token)| sha256(token))
            .ok_or_else(|| bad_token("the request has no bearer token"))?;
        verify_slices_are_equal(token.as_bytes(), self.0.as_bytes())
            .map_err(|_| bad_token("the bearer token is not this agent's"))?;
        let actor = one_line(headers, ACTOR, limits::ACTOR_CHARS)?.ok_or_else(|| {
            Refusal::new(
                ErrorCode::MissingField,
                "the request has no liaison-actor header",
                "name the user on whose behalf the case system calls",
            )
        })?;
        let idempotency_key = one_line(headers, IDEMPOTENCY_KEY, limits::IDEMPOTENCY_KEY_CHARS)?;
        Ok(Caller { actor, idempotency_key })
    }
}

const SCHEME: &[u8] = b"Bearer ";

fn bad_token(message: &str) -> Refusal {
    Refusal::new(
        ErrorCode::BadToken,
        message,
        "send `authorization: Bearer <token>` with the content of the file api-token in the agent's data folder",
    )
}

fn one_line(headers: &HeaderMap, name: &str, most: usize) -> Result<Option<String>, Refusal> {
    let malformed = || {
        Refusal::new(
            ErrorCode::Malformed,
            format!("the header {name} is not one text of 1 to {most} visible ASCII characters"),
            "shorten it, or encode it",
        )
    };
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| malformed())?;
    if values.next().is_some() || text.trim().is_empty() || text.len() > most || text.contains('\t') {
        return Err(malformed());
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        HeaderMap::from_iter(pairs.iter().map(pair))
    }

    #[test]
    fn the_token_and_an_actor_are_needed() {
        let token = ApiToken::new("secret");
        let code = |pairs: &[_]| token.admit(&headers(pairs)).map_err(|refusal| refusal.code());
        let caller = Caller { actor: "dr. who".into(), idempotency_key: None };
        assert_eq!(code(&[("authorization", "Bearer secret"), (ACTOR, "dr. who")]), Ok(caller.clone()));
        assert_eq!(code(&[("authorization", "bearer secret"), (ACTOR, "dr. who")]), Ok(caller));
        assert_eq!(code(&[(ACTOR, "x")]), Err(ErrorCode::BadToken));
        for wrong in ["secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secret1", "Basic secret"] {
            assert_eq!(code(&[("authorization", wrong), (ACTOR, "x")]), Err(ErrorCode::BadToken), "{wrong}");
        }
        assert_eq!(code(&[("authorization", "Bearer secret")]), Err(ErrorCode::MissingField));
        let long = "x".repeat(limits::ACTOR_CHARS + 1);
        for wrong in ["", " ", &long] {
            let code = code(&[("authorization", "Bearer secret"), (ACTOR, wrong)]);
            assert_eq!(code, Err(ErrorCode::Malformed), "{wrong}");
        }
        let twice = code(&[("authorization", "Bearer secret"), (ACTOR, "x"), (IDEMPOTENCY_KEY, "")]);
        assert_eq!(twice, Err(ErrorCode::Malformed));
    }
}
