//! Who gets a certificate, and who doesn't.

use std::sync::Arc;

use bytes::Bytes;
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    exchange::v1::{DomainBundle, EnrollRequest, EnrollResponse, RenewRequest, RenewResponse},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{
    ca::{CaError, same_key},
    digest::{Digest, sha256},
    names::{AgencyAddress, SpiffeId},
    tls::Peer,
};
use time::OffsetDateTime;
use tracing::{error, info};

use super::Token;
use crate::{
    authority::{Authority, AuthorityError, Issued},
    gateway::Gateway,
    limits,
    store::{Renewal, TokenUse},
};

/// Issues certificates for a gateway.
pub(super) struct Registrar {
    pub(super) gateway: Arc<Gateway>,
    pub(super) authority: Arc<Authority>,
}

impl Registrar {
    /// Exchanges a token and a request for a certificate, as of a moment.
    ///
    /// # Errors
    /// What is wrong with the token or the request.
    pub(super) async fn enroll(
        &self,
        request: EnrollRequest,
        now: OffsetDateTime,
    ) -> Result<EnrollResponse, Refusal> {
        let csr = certificate_request(&request.certificate_request)?;
        let token: Token = request.token.parse().map_err(|_| {
            Refusal::new(
                ErrorCode::BadToken,
                "the token is not one of this version: it is cut short or mistyped",
                "copy the whole token, from `liaison1.` to its end",
            )
        })?;
        let digest = token.digest();
        let known = self.gateway.store.token(&digest).await.map_err(internal)?;
        // A token whose readable part was changed is as unknown as one that was never made.
        let known = known.filter(|known| known.agency == token.agency).ok_or_else(unknown_token)?;
        self.may_enrol(&known.agency)?;

        let request_digest = sha256(csr);
        let leaf = match known.used {
            Some(used) => again(used, &request_digest)?,
            None if known.expires <= now => {
                return Err(Refusal::new(
                    ErrorCode::BadToken,
                    "the token has expired",
                    "ask the domain's administrator for a new one",
                ));
            }
            None => self.first(&known.agency, &digest, request_digest, csr, now).await?,
        };
        Ok(EnrollResponse {
            agency: known.agency.to_string(),
            certificates: self.authority.chain(leaf),
            bundle: Some(self.bundle()),
        })
    }

    /// Uses a token for the first time.
    async fn first(
        &self,
        agency: &AgencyAddress,
        token: &Digest,
        request: Digest,
        csr: &[u8],
        now: OffsetDateTime,
    ) -> Result<Vec<u8>, Refusal> {
        let gateway = &self.gateway;
        let Issued { leaf, record, by } = self.authority.issue(csr, agency, now).map_err(not_issued)?;
        let used = TokenUse { request, certificate: leaf.clone() };
        let used = gateway.store.use_token(token, &used, &record, &by, now).await.map_err(internal)?;
        let Some(replaced) = used else {
            // Somebody was faster with it; if it was the same request, with the same answer.
            self.may_enrol(agency)?;
            let known = gateway.store.token(token).await.map_err(internal)?;
            return again(known.and_then(|known| known.used).ok_or_else(unknown_token)?, &request);
        };
        gateway.set_state(agency, &[AgencyState::Invited], AgencyState::Active);
        if !replaced.is_empty() {
            // Whoever enrols replaces the agency's former agent: a stolen machine must not renew for ever.
            let remembered = self.authority.remember(None, replaced, now).await;
            self.authority.publish(&gateway.store, now).await.map_err(internal)?;
            gateway.sessions.cut(agency);
            remembered.map_err(internal)?;
        }
        info!(%agency, "agency enrolled");
        Ok(leaf)
    }

    /// Renews the certificate of whoever is connected, or the one presented, as of a moment.
    ///
    /// # Errors
    /// Why it is not renewed.
    pub(super) async fn renew(
        &self,
        peer: &Peer,
        request: RenewRequest,
        now: OffsetDateTime,
    ) -> Result<RenewResponse, Refusal> {
        let gateway = &self.gateway;
        let csr = certificate_request(&request.certificate_request)?;
        let (agency, serial) = match peer {
            Peer::Known { id: SpiffeId::Agency(agency), serial, .. } => (agency.clone(), serial.clone()),
            Peer::Known { .. } | Peer::Misnamed => {
                return Err(Refusal::new(
                    ErrorCode::WrongName,
                    "the client certificate names no agency",
                    "connect with the agency's own certificate",
                ));
            }
            Peer::Anonymous => self.expired(csr, &request.expired_certificate, now)?,
        };
        self.may_renew(&agency)?;
        if gateway.store.is_revoked(&serial).await.map_err(internal)? {
            return Err(revoked_certificate());
        }
        let Issued { leaf, record, by } = self.authority.issue(csr, &agency, now).map_err(not_issued)?;
        match gateway.store.add_certificate(&record, &by, &serial, now).await.map_err(internal)? {
            Renewal::Kept => {}
            Renewal::NotAllowed => {
                self.may_renew(&agency)?;
                return Err(revoked_certificate());
            }
            Renewal::TooMany => return Err(too_many_certificates(&agency)),
        }
        info!(%agency, "certificate renewed");
        Ok(RenewResponse { certificates: self.authority.chain(leaf), bundle: Some(self.bundle()) })
    }

    /// Who comes back with an expired certificate: its owner, if the request is for the same key.
    fn expired(
        &self,
        csr: &[u8],
        certificate: &[u8],
        now: OffsetDateTime,
    ) -> Result<(AgencyAddress, Vec<u8>), Refusal> {
        if certificate.is_empty() {
            return Err(Refusal::new(
                ErrorCode::NoClientCertificate,
                "a renewal needs the agency's certificate: neither the connection nor the request has one",
                "connect with the certificate, or present it in the request if it has expired",
            ));
        }
        let wrong = |message| {
            let action = "present the agency's last certificate with a request for its own key, or enrol with a new token";
            Refusal::new(ErrorCode::WrongName, message, action)
        };
        let read = self.authority.recognise(certificate);
        let read = read.map_err(|_| wrong("the certificate presented is not one that this domain issued"))?;
        let Some(SpiffeId::Agency(agency)) = read.id() else {
            return Err(wrong("the certificate presented names no agency"));
        };
        let same = same_key(&csr.into(), &certificate.into()).unwrap_or(false);
        if !same {
            return Err(wrong("the certificate request is for another key than the certificate presented"));
        }
        if read.not_after + limits::RENEWAL_GRACE < now {
            return Err(Refusal::new(
                ErrorCode::Expired,
                "the certificate presented expired more than 90 days ago",
                "ask the domain's administrator for a token and enrol again",
            ));
        }
        Ok((agency, read.serial))
    }

    fn may_enrol(&self, agency: &AgencyAddress) -> Result<(), Refusal> {
        match self.gateway.directory.load().get(agency).map(|agency| agency.state) {
            Some(AgencyState::Active | AgencyState::Invited) => Ok(()),
            Some(AgencyState::Suspended) => Err(suspended(agency)),
            Some(AgencyState::Revoked) => Err(revoked(agency)),
            Some(AgencyState::Unspecified) | None => Err(unknown_token()),
        }
    }

    fn may_renew(&self, agency: &AgencyAddress) -> Result<(), Refusal> {
        match self.gateway.directory.load().get(agency).map(|agency| agency.state) {
            Some(AgencyState::Active) => Ok(()),
            Some(AgencyState::Suspended) => Err(suspended(agency)),
            Some(AgencyState::Revoked) => Err(revoked(agency)),
            Some(AgencyState::Invited | AgencyState::Unspecified) | None => Err(Refusal::new(
                ErrorCode::NotEnrolled,
                format!("no agent of {agency} is enrolled"),
                "ask the domain's administrator for a token and enrol",
            )),
        }
    }

    fn bundle(&self) -> DomainBundle {
        DomainBundle {
            domain: self.gateway.domain.to_string(),
            roots: self.authority.roots().iter().map(|root| Bytes::copy_from_slice(root)).collect(),
            gateway_signing_key: Bytes::copy_from_slice(self.gateway.signing.public().as_bytes()),
            log_key: Bytes::copy_from_slice(self.gateway.logs.evidence.signer().key().key().as_bytes()),
        }
    }
}

fn certificate_request(der: &[u8]) -> Result<&[u8], Refusal> {
    if der.len() > limits::CERTIFICATE_REQUEST_BYTES {
        let message =
            format!("the certificate request is longer than {} bytes", limits::CERTIFICATE_REQUEST_BYTES);
        return Err(Refusal::new(ErrorCode::TooLarge, message, "send a request without attributes"));
    }
    Ok(der)
}

/// The answer to a used token: the certificate again for the same request, else nothing.
fn again(used: TokenUse, request: &Digest) -> Result<Vec<u8>, Refusal> {
    if used.request == *request {
        return Ok(used.certificate);
    }
    Err(Refusal::new(
        ErrorCode::BadToken,
        "the token was used already, by another certificate request",
        "if that was not your agency, tell the domain's administrator at once; ask for a new token",
    ))
}

fn not_issued(error: AuthorityError) -> Refusal {
    match error {
        AuthorityError::Ca(fault @ (CaError::Possession | CaError::KeyKind | CaError::Read(_))) => {
            Refusal::new(
                ErrorCode::Malformed,
                fault.to_string(),
                "send a PKCS #10 request in DER for an ECDSA key on P-256 or P-384, signed with that key",
            )
        }
        other => internal(other),
    }
}

fn unknown_token() -> Refusal {
    Refusal::new(
        ErrorCode::BadToken,
        "this gateway does not know the token",
        "check that it is whole and for this gateway, or ask the domain's administrator for a new one",
    )
}

fn suspended(agency: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::Suspended,
        format!("{agency} is suspended"),
        "ask the domain's administrator; nothing that waits for the agency is lost",
    )
}

fn revoked(agency: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::Revoked,
        format!("the membership of {agency} was ended"),
        "ask the domain's administrator; a new membership takes a new address",
    )
}

fn revoked_certificate() -> Refusal {
    Refusal::new(
        ErrorCode::Revoked,
        "the certificate was revoked: another agent enrolled for the agency since",
        "use that agent, or ask the domain's administrator for a token and enrol again",
    )
}

fn too_many_certificates(agency: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::RateLimited,
        format!("{agency} has {} valid certificates already", limits::CERTIFICATES_PER_AGENCY),
        "renew a certificate only when it is about to end; look at why the agent renews so often",
    )
}

fn internal(fault: impl std::error::Error + 'static) -> Refusal {
    let fault: &(dyn std::error::Error + 'static) = &fault;
    error!(fault, "enrolment failed");
    Refusal::internal()
}
