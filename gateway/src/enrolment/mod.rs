//! How agencies get their certificates: a one-time token for the first, the certificate itself for
//! the next.

mod attempts;
mod registrar;
#[cfg(test)]
mod tests;
mod token;

use std::{sync::Arc, time::Instant};

use liaison_proto::{
    exchange::v1::{
        EnrollRequest, EnrollResponse, RenewRequest, RenewResponse,
        enrolment_service_server::EnrolmentService,
    },
    message::v1::Refusal,
};
use liaison_trust::tls::Peer;
use metrics::counter;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use tracing::warn;

pub use attempts::Attempts;
pub use token::{NotAToken, Token};

use crate::{
    authority::Authority,
    exchange::identity::Caller,
    gateway::{Gateway, to_the_end},
};
use registrar::Registrar;

/// Answers agents that enrol or renew.
pub struct Enrolment {
    registrar: Arc<Registrar>,
    attempts: Attempts,
}

impl Enrolment {
    /// The service of a gateway.
    pub fn new(gateway: Arc<Gateway>, authority: Arc<Authority>) -> Self {
        Self { registrar: Arc::new(Registrar { gateway, authority }), attempts: Attempts::default() }
    }

    /// Counts an attempt of somebody who has yet to say who they are.
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Refusal> {
        let source = request.extensions().get::<Caller>().map(|caller| caller.source);
        self.attempts.admit(source, Instant::now())
    }
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        self.admit(&request).inspect_err(counted("enroll"))?;
        let registrar = Arc::clone(&self.registrar);
        let answer =
            to_the_end(
                async move { registrar.enroll(request.into_inner(), OffsetDateTime::now_utc()).await },
            );
        let answer = answer.await;
        Ok(Response::new(answer.inspect_err(counted("enroll"))?))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer = request.extensions().get::<Caller>().map(|caller| Arc::clone(&caller.peer));
        let peer = peer.unwrap_or_else(|| Arc::new(Peer::Anonymous));
        if *peer == Peer::Anonymous {
            self.admit(&request).inspect_err(counted("renew"))?;
        }
        let registrar = Arc::clone(&self.registrar);
        let answer = to_the_end(async move {
            registrar.renew(&peer, request.into_inner(), OffsetDateTime::now_utc()).await
        });
        let answer = answer.await;
        Ok(Response::new(answer.inspect_err(counted("renew"))?))
    }
}

/// Logs and counts a refusal.
fn counted(call: &'static str) -> impl Fn(&Refusal) {
    move |refusal| {
        let code = refusal.code().as_str_name();
        counter!("liaison_gateway_enrolments_refused_total", "call" => call, "code" => code).increment(1);
        warn!(call, code, "enrolment refused: {}", refusal.message);
    }
}
