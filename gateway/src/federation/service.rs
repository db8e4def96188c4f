//! The calls of the federation API: only gateways of peers make them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use liaison_proto::{
    federation::v1::{
        LinkRequest, LinkResponse, PreviewRequest, PreviewResponse,
        federation_service_server::{FederationService, FederationServiceServer},
    },
    limits::GRPC_MESSAGE_BYTES,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{names::SpiffeId, tls::Peer as Caller};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{incoming, peers::Peer, preview};
use crate::{
    exchange::identity,
    gateway::Gateway,
    limits,
    server::{Admit, Strangers},
    strict::Strict,
};

/// The federation API of a gateway.
pub fn service(gateway: &Arc<Gateway>) -> Strict<FederationServiceServer<Federation>> {
    let federation = FederationServiceServer::new(Federation { gateway: Arc::clone(gateway) })
        .max_decoding_message_size(GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES);
    Strict::new(federation, GRPC_MESSAGE_BYTES)
}

/// Who gets a connection to the federation listener: every active peer's gateway so many, strangers so many in
/// all.
pub fn admit(gateway: &Arc<Gateway>) -> Admit {
    let gateway = Arc::clone(gateway);
    let strangers = Strangers::default();
    Arc::new(move |caller, began| match caller {
        Caller::Known { id: SpiffeId::Gateway(domain), .. } => {
            gateway.peers.active(domain).ok()?.live.connection(began)
        }
        _ => strangers.admit(),
    })
}

/// Answers the calls of peers.
pub struct Federation {
    gateway: Arc<Gateway>,
}

#[tonic::async_trait]
impl FederationService for Federation {
    type LinkStream = Downstream;

    async fn link(
        &self,
        request: Request<Streaming<LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let peer = peer(&self.gateway, &request)?;
        let place = peer.live.link().ok_or_else(too_many_links)?;
        let (frames, outgoing) = mpsc::channel(limits::SESSION_FRAMES);
        let gateway = Arc::clone(&self.gateway);
        tokio::spawn(incoming::run(gateway, peer, request.into_inner(), frames));
        Ok(Response::new(Downstream { outgoing, _place: place }))
    }

    async fn preview(&self, request: Request<PreviewRequest>) -> Result<Response<PreviewResponse>, Status> {
        let peer = peer(&self.gateway, &request)?;
        peer.may_speak()?;
        peer.live.admit_preview(Instant::now())?;
        Ok(Response::new(preview::answer(&self.gateway, &peer, request.into_inner())?))
    }
}

/// The frames of a link on their way to the peer.
pub struct Downstream {
    outgoing: mpsc::Receiver<Result<LinkResponse, Status>>,
    /// Given back with the stream, which may outlive what runs the link.
    _place: OwnedSemaphorePermit,
}

impl Stream for Downstream {
    type Item = Result<LinkResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outgoing.poll_recv(context)
    }
}

/// The peer whose gateway calls.
fn peer<T>(gateway: &Gateway, request: &Request<T>) -> Result<Arc<Peer>, Refusal> {
    caller(gateway, request.extensions().get::<identity::Caller>())
}

/// The active peer whose gateway a connection is of.
///
/// # Errors
/// It is nobody's who is one.
pub fn caller(gateway: &Gateway, caller: Option<&identity::Caller>) -> Result<Arc<Peer>, Refusal> {
    let caller = caller.map(|caller| caller.peer.as_ref());
    let wrong_name = |name: &str| {
        Refusal::new(
            ErrorCode::WrongName,
            format!("the client certificate names {name}"),
            "connect with the certificate of a peer's gateway",
        )
    };
    match caller {
        None | Some(Caller::Anonymous) => Err(Refusal::new(
            ErrorCode::NoClientCertificate,
            "the caller presented no client certificate",
            "connect with the certificate of a peer's gateway",
        )),
        Some(Caller::Misnamed) => Err(wrong_name("nobody that SPIFFE names")),
        Some(Caller::Known { id: id @ SpiffeId::Agency(_), .. }) => Err(wrong_name(&id.to_string())),
        Some(Caller::Known { id: SpiffeId::Gateway(domain), .. }) => gateway.peers.active(domain),
    }
}

fn too_many_links() -> Refusal {
    Refusal::new(
        ErrorCode::RateLimited,
        "the peer has too many links that it does not let go",
        "end a connection before opening another",
    )
    .retry_after(Duration::from_secs(1))
}
