//! The called side of a peer's gateway, driven frame by frame by the test.

use std::{pin::Pin, sync::Arc};

use anyhow::{Context, Result, bail};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use liaison_demo::wait::{self, PATIENCE};
use liaison_proto::{
    federation::v1::{
        Done, LinkRequest, LinkResponse, PreviewRequest, PreviewResponse, Refused, Welcome,
        federation_service_server::{FederationService, FederationServiceServer},
        link_request::Frame as Request,
        link_response::Frame as Response,
    },
    message::v1::{Refusal, error_code::Code as ErrorCode},
    times,
};
use liaison_trust::tls::Acceptor;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{hostile::Hostile, insider, scene::Scene};

/// The gateway of the peer of a [`Scene`], where that one calls it.
pub struct Called {
    server: JoinHandle<()>,
    links: mpsc::UnboundedReceiver<Link>,
}

/// A link to it, ended when dropped.
pub struct Link {
    up: Streaming<LinkRequest>,
    down: mpsc::Sender<Result<LinkResponse, Status>>,
}

impl Called {
    pub async fn start(scene: &Scene) -> Result<Self> {
        let hostile = &scene.hostile;
        let listener =
            wait::until("the address is free", async || TcpListener::bind(hostile.listens).await.ok())
                .await?;
        let trust = insider::trust(&scene.realm.gateway)?;
        let acceptor = Arc::new(Acceptor::new(hostile.identity.clone(), vec![trust])?);
        let (begun, links) = mpsc::unbounded_channel();
        let service = FederationServiceServer::new(Service { begun });
        let server = tokio::spawn(async move {
            // They end with it.
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, service) = (Arc::clone(&acceptor), service.clone());
                connections.spawn(async move {
                    let Ok((stream, _)) = acceptor.accept(tcp).await else { return };
                    let service = TowerToHyperService::new(service);
                    let server =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http2_only();
                    // How a connection ends is what the test asks its gateway.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { server, links })
    }

    /// The next link, after its hello and an honest welcome.
    pub async fn linked(&mut self, hostile: &Hostile) -> Result<Link> {
        let link = timeout(PATIENCE, self.links.recv()).await.context("nobody calls")?;
        let mut link = link.context("the server is gone")?;
        let Request::Hello(_) = link.next().await? else { bail!("the link begins with no hello") };
        let sequence = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
        link.answer(Response::Welcome(Welcome {
            bundle: Some(hostile.sign(&hostile.bundle(sequence))),
            gateway_version: "test".to_owned(),
            window: 16,
            now: Some(times::to_wire(OffsetDateTime::now_utc())),
            ..Welcome::default()
        }))
        .await?;
        Ok(link)
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Link {
    /// The next frame.
    pub async fn next(&mut self) -> Result<Request> {
        let next = timeout(PATIENCE, self.up.message()).await.context("nothing is sent")??;
        next.context("the link ended")?.frame.context("an empty frame")
    }

    /// The number of the next frame, which has to be a page of the directory.
    pub async fn page(&mut self) -> Result<u64> {
        match self.next().await? {
            Request::Directory(change) => Ok(change.number),
            _ => bail!("the next frame is no page of the directory"),
        }
    }

    pub async fn done(&self, number: u64) -> Result<()> {
        self.answer(Response::Done(Done { number })).await
    }

    pub async fn refuse(&self, number: u64, refusal: Refusal) -> Result<()> {
        self.answer(Response::Refused(Refused { number, refusal: Some(refusal) })).await
    }

    async fn answer(&self, frame: Response) -> Result<()> {
        Ok(self.down.send(Ok(LinkResponse { frame: Some(frame) })).await?)
    }
}

#[derive(Clone)]
struct Service {
    begun: mpsc::UnboundedSender<Link>,
}

#[tonic::async_trait]
impl FederationService for Service {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;

    async fn link(
        &self,
        request: tonic::Request<Streaming<LinkRequest>>,
    ) -> Result<tonic::Response<Self::LinkStream>, Status> {
        let (down, outgoing) = mpsc::channel(64);
        // The test may have seen enough.
        let _ = self.begun.send(Link { up: request.into_inner(), down });
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn preview(
        &self,
        _: tonic::Request<PreviewRequest>,
    ) -> Result<tonic::Response<PreviewResponse>, Status> {
        Err(Refusal::new(ErrorCode::RateLimited, "no previews", "ask somebody else").into())
    }
}
