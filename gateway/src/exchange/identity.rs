//! Who calls: what the connection's certificate proved, and what the directory says of them now.

use std::{net::IpAddr, sync::Arc};

use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{names::SpiffeId, tls::Peer};
use tonic::Request;

use crate::{directory::Agency, gateway::Gateway};

/// What a connection's certificate proved. It stands in the extensions of every request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub peer: Arc<Peer>,
    /// Where the connection comes from.
    pub source: IpAddr,
}

/// The active agency that calls.
///
/// # Errors
/// It has no certificate, one of another name, or is not an active member.
pub fn agency<T>(gateway: &Gateway, request: &Request<T>) -> Result<Arc<Agency>, Refusal> {
    agency_of(gateway, request.extensions().get::<Caller>())
}

/// The active agency that a connection is of.
///
/// # Errors
/// It has no certificate, one of another name, or is not an active member.
pub fn agency_of(gateway: &Gateway, caller: Option<&Caller>) -> Result<Arc<Agency>, Refusal> {
    match caller.map(|caller| caller.peer.as_ref()) {
        None | Some(Peer::Anonymous) => Err(Refusal::new(
            ErrorCode::NoClientCertificate,
            "the caller presented no client certificate",
            "connect with the certificate that enrolment gave",
        )),
        Some(Peer::Misnamed) => Err(wrong_name("a name that is no SPIFFE id of an agency")),
        Some(Peer::Known { id: id @ SpiffeId::Gateway(_), .. }) => Err(wrong_name(&id.to_string())),
        Some(Peer::Known { id: SpiffeId::Agency(address), .. }) => {
            let directory = gateway.directory.load();
            // Agencies of other domains stand in the directory, and are members of theirs.
            let own = directory.get(address).filter(|_| *address.domain() == gateway.domain);
            let agency = own.ok_or_else(|| {
                Refusal::new(
                    ErrorCode::NotEnrolled,
                    format!("{address} is not a member of {}", gateway.domain),
                    "ask the gateway's administrator to add the agency",
                )
            })?;
            is_active(agency)?;
            Ok(Arc::clone(agency))
        }
    }
}

/// Passes an agency that takes part.
///
/// # Errors
/// What keeps it from that.
pub fn is_active(agency: &Agency) -> Result<(), Refusal> {
    let address = &agency.address;
    match agency.state {
        AgencyState::Active => Ok(()),
        AgencyState::Suspended => Err(Refusal::new(
            ErrorCode::Suspended,
            format!("{address} is suspended"),
            "ask the gateway's administrator; what is queued is kept until the agency is resumed",
        )),
        AgencyState::Revoked => Err(Refusal::new(
            ErrorCode::Revoked,
            format!("the membership of {address} was ended"),
            "ask the gateway's administrator",
        )),
        AgencyState::Invited | AgencyState::Unspecified => Err(Refusal::new(
            ErrorCode::NotEnrolled,
            format!("{address} has not enrolled yet"),
            "enrol the agency's agent with a token from the gateway's administrator",
        )),
    }
}

fn wrong_name(name: &str) -> Refusal {
    Refusal::new(
        ErrorCode::WrongName,
        format!("the client certificate names {name}"),
        "connect with the certificate that enrolment gave to the agency",
    )
}
