//! The server, as a process of its own.

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Result;
use futures_util::{StreamExt as _, stream::BoxStream};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use liaison_trust::tls::{self, Acceptor};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{self, BoxFuture, Service, StdError},
    server::Grpc,
};
use tonic_prost::ProstCodec;

use super::{Frame, STREAM, identity, trust};
use crate::system::Certificates;

/// Serves until the process is ended.
pub(crate) async fn serve(address: SocketAddr, certificates: &Path) -> Result<()> {
    let files = Certificates::of(certificates);
    let acceptor = Arc::new(Acceptor::new(identity(&files.server)?, vec![trust(&files.root)?])?);
    let listener = TcpListener::bind(address).await?;
    loop {
        let (tcp, _) = listener.accept().await?;
        let acceptor = Arc::clone(&acceptor);
        tokio::spawn(async move {
            if tls::tune(&tcp).is_err() {
                return;
            }
            // Whoever only looks whether somebody listens goes away here.
            let Ok((stream, tls::Peer::Known { .. })) = acceptor.accept(tcp).await else { return };
            let connection = Builder::new(TokioExecutor::new()).http2_only();
            let _ = connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(Echo)).await;
        });
    }
}

/// Sends back what it gets.
#[derive(Debug, Clone, Copy)]
struct Echo;

impl<B> Service<http::Request<B>> for Echo
where
    B: codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Frame, Frame>::default());
            Ok(match request.uri().path() {
                STREAM => grpc.streaming(tower::service_fn(stream), request).await,
                _ => grpc.unary(tower::service_fn(unary), request).await,
            })
        })
    }
}

async fn unary(request: Request<Frame>) -> Result<Response<Frame>, Status> {
    Ok(Response::new(request.into_inner()))
}

async fn stream(
    request: Request<Streaming<Frame>>,
) -> Result<Response<BoxStream<'static, Result<Frame, Status>>>, Status> {
    Ok(Response::new(request.into_inner().boxed()))
}
