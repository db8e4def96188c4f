//! The called side of a peer's gateway, driven frame by frame by the test.

use std::{pin::Pin, sync::Arc};

use anyhow::{Context, Result, bail};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use liaison_demo::{
    Gateway,
    wait::{self, PATIENCE},
};
use liaison_proto::{
    federation::v1::{
        Done, LinkRequest, LinkResponse, PreviewRequest, PreviewResponse, Refused, SignedBundle, Welcome,
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
        Self::of(&scene.hostile, &scene.realm.gateway).await
    }

    /// Takes the links of a gateway to this hostile domain. Where another one listened, the address is free in a
    /// moment.
    pub async fn of(hostile: &Hostile, gateway: &Gateway) -> Result<Self> {
        let listener =
            wait::until("the address is free", async || TcpListener::bind(hostile.listens).await.ok())
                .await?;
        let trust = insider::trust(gateway)?;
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
                    // Its caller waits for it to speak first, as HTTP/2 servers do.
                    let server =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http2_only();
                    // How a connection ends is what the test asks its gateway.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { server, links })
    }

    /// The next link, as it begins.
    pub(crate) async fn begun(&mut self) -> Option<Link> {
        self.links.recv().await
    }

    /// The next link, after its hello and an honest welcome.
    pub async fn linked(&mut self, hostile: &Hostile) -> Result<Link> {
        let sequence = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
        self.linked_by(hostile.sign(&hostile.bundle(sequence))).await
    }

    /// The same with this bundle in the welcome.
    pub async fn linked_by(&mut self, bundle: SignedBundle) -> Result<Link> {
        let link = timeout(PATIENCE, self.begun()).await.context("nobody calls")?;
        let mut link = link.context("the server is gone")?;
        let Request::Hello(_) = link.next().await? else { bail!("the link begins with no hello") };
        link.welcome(bundle, 0).await?;
        Ok(link)
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Link {
    /// An honest welcome with this bundle, and the number of the log that the peer signs.
    pub(crate) async fn welcome(&self, bundle: SignedBundle, log: u32) -> Result<()> {
        let now = Some(times::to_wire(OffsetDateTime::now_utc()));
        let (bundle, gateway_version) = (Some(bundle), "test".to_owned());
        self.answer(Response::Welcome(Welcome {
            bundle,
            gateway_version,
            window: 16,
            now,
            log,
            ..Welcome::default()
        }))
        .await
    }

    /// The next frame, however long it takes; none where the link ends.
    pub(crate) async fn frame(&mut self) -> Option<Request> {
        self.up.message().await.ok().flatten()?.frame
    }

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

    /// The number of the next message, once all of it has come.
    pub async fn forward(&mut self) -> Result<u64> {
        loop {
            match self.next().await? {
                Request::Forward(chunk) if chunk.last => return Ok(chunk.number),
                Request::Forward(_) => {}
                _ => bail!("the next frame is of no message"),
            }
        }
    }

    pub async fn done(&self, number: u64) -> Result<()> {
        self.answer(Response::Done(Done { number })).await
    }

    pub async fn refuse(&self, number: u64, refusal: Refusal) -> Result<()> {
        self.answer(Response::Refused(Refused { number, refusal: Some(refusal) })).await
    }

    pub(crate) async fn answer(&self, frame: Response) -> Result<()> {
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
