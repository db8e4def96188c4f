//! The connection to the gateway.

use liaison_proto::{
    exchange::v1::{PreviewRequest, PreviewResponse, ResolveAudienceRequest, ResolveAudienceResponse},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use time::OffsetDateTime;

/// The connection to the gateway: calls go over it while it is there.
#[derive(Clone)]
pub struct Link {}

/// Whether the gateway can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    pub connected: bool,
    /// Who is at fault, what is wrong and what to do, where it is not connected.
    pub problem: Option<String>,
    pub certificate_expires: Option<OffsetDateTime>,
}

impl Link {
    /// How the connection stands.
    pub fn status(&self) -> LinkStatus {
        LinkStatus { connected: false, problem: None, certificate_expires: None }
    }

    /// Asks the gateway to decide without sending.
    pub async fn preview(&self, _request: PreviewRequest) -> Result<PreviewResponse, Refusal> {
        Err(away())
    }

    /// Asks the gateway which agencies an alert's audience is.
    pub async fn resolve_audience(
        &self,
        _request: ResolveAudienceRequest,
    ) -> Result<ResolveAudienceResponse, Refusal> {
        Err(away())
    }
}

fn away() -> Refusal {
    Refusal::new(ErrorCode::GatewayUnreachable, "the gateway can't be reached", "wait until it is back")
}
