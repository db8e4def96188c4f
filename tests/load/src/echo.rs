//! What gRPC and mTLS alone cost: a server that sends back what it gets, as calls or on streams.

mod server;

use std::{collections::HashMap, path::Path, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::uri::PathAndQuery;
use liaison_demo::{port::Port, process::Process};
use liaison_proto::exchange::v1::SubmissionChunk;
use liaison_tests::insider;
use liaison_trust::tls::{DomainTrust, Identity};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

pub(crate) use self::server::serve;
use crate::{
    message,
    round::{Load, Outcome, Round},
    system::{self, Certificates, Ground, System},
    usage::Watched,
};

/// A message, with its number.
type Frame = SubmissionChunk;

const UNARY: &str = "/liaison.load.Echo/Unary";
const STREAM: &str = "/liaison.load.Echo/Stream";

/// How the echo is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A call a message.
    Unary,
    /// One stream a connection.
    Stream,
}

/// The server, in a process of its own, and whom it believes.
pub(crate) struct Echo {
    shape: Shape,
    process: Process,
    port: Port,
    trust: DomainTrust,
    identity: Identity,
}

impl Echo {
    pub(crate) async fn start(ground: &Ground, shape: Shape) -> Result<Self> {
        let name = format!("echo-{shape:?}").to_lowercase();
        let (port, folder) = (Port::free()?, ground.folder(&name)?);
        let certificates = ground.certificates();
        let address = port.address.to_string();
        let arguments = ["serve-echo", &address, &certificates.to_string_lossy()];
        let mut process = Process::start(&name, &std::env::current_exe()?, arguments, &folder.join("log"))?;
        system::listening(&name, port.address.port(), || process.check_running()).await?;
        let files = Certificates::of(&certificates);
        let (trust, identity) = (trust(&files.root)?, identity(&files.client)?);
        Ok(Self { shape, process, port, trust, identity })
    }

    async fn connect(&self) -> Result<Grpc<Channel>> {
        let channel = insider::connect(self.port.address, &self.trust, Some(&self.identity)).await?;
        let mut grpc = Grpc::new(channel);
        grpc.ready().await?;
        Ok(grpc)
    }

    async fn drive(&self, load: &Load) -> Result<Outcome> {
        let mut connections = Vec::new();
        for _ in 0..load.connections() {
            connections.push(self.connect().await?);
        }
        let watched =
            Watched { processes: vec![("server".to_owned(), self.process.pid())], ..Watched::default() };
        let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
        let payload = Bytes::from(vec![7; message::BYTES]);
        if self.shape == Shape::Unary {
            let round = Round::start(load, watched)?;
            for (connection, grpc) in connections.into_iter().enumerate() {
                let numbers = Arc::new(Mutex::new(0));
                for _ in 0..load.in_flight() {
                    let caller = (Arc::clone(&round), connection, grpc.clone());
                    senders.spawn(call(caller, Arc::clone(&numbers), payload.clone()));
                }
            }
            round.run(senders, receivers).await?;
            return round.outcome();
        }
        let mut streams = Vec::new();
        for mut grpc in connections {
            let (up, frames) = mpsc::channel(load.in_flight());
            let path = PathAndQuery::from_static(STREAM);
            let request = Request::new(ReceiverStream::new(frames));
            let down =
                grpc.streaming(request, path, ProstCodec::<Frame, Frame>::default()).await?.into_inner();
            streams.push((up, down));
        }
        let mut ups = Vec::new();
        let round = Round::start(load, watched)?;
        for (connection, (up, mut down)) in streams.into_iter().enumerate() {
            // The stream stays until everything on it has come back.
            ups.push(up.clone());
            let flights = Arc::new(std::sync::Mutex::new(HashMap::new()));
            let (sender, sent, payload) = (Arc::clone(&round), Arc::clone(&flights), payload.clone());
            senders.spawn(async move {
                for number in 0.. {
                    let Some(since) = sender.turn(connection, number).await else { break };
                    sent.lock().map_err(|_| anyhow::anyhow!("a lock is broken"))?.insert(number, since);
                    up.send(Frame { submission: number, data: payload.clone(), last: true }).await?;
                }
                Ok(())
            });
            let receiver = Arc::clone(&round);
            receivers.spawn(async move {
                loop {
                    let frame: Frame = down.message().await?.context("the stream ended")?;
                    let since = flights
                        .lock()
                        .map_err(|_| anyhow::anyhow!("a lock is broken"))?
                        .remove(&frame.submission);
                    receiver.delivered(since.context("an echo of nothing")?);
                    receiver.done(connection);
                }
            });
        }
        round.run(senders, receivers).await?;
        round.outcome()
    }
}

/// Calls again and again, beside other callers on the same connection.
async fn call(
    (round, connection, mut grpc): (Arc<Round>, usize, Grpc<Channel>),
    numbers: Arc<Mutex<u64>>,
    payload: Bytes,
) -> Result<()> {
    loop {
        // One after the other, so that turns are in order.
        let since = {
            let mut number = numbers.lock().await;
            let turn = round.turn(connection, *number).await;
            *number += 1;
            turn
        };
        let Some(since) = since else { return Ok(()) };
        let request = Request::new(Frame { submission: 0, data: payload.clone(), last: true });
        grpc.ready().await?;
        let path = PathAndQuery::from_static(UNARY);
        grpc.unary(request, path, ProstCodec::<Frame, Frame>::default()).await?;
        round.delivered(since);
        round.done(connection);
    }
}

impl System for Echo {
    fn prepare(&mut self, _messages: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn round<'a>(&'a mut self, load: &'a Load) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(self.drive(load))
    }
}

fn trust(root: &Path) -> Result<DomainTrust> {
    let roots = liaison_trust::certificate::certificates_from_pem(&std::fs::read_to_string(root)?)?;
    Ok(DomainTrust { domain: "be".parse()?, roots, crls: Vec::new() })
}

fn identity((chain, key): &(std::path::PathBuf, std::path::PathBuf)) -> Result<Identity> {
    Ok(Identity::from_pem(&std::fs::read_to_string(chain)?, &std::fs::read_to_string(key)?)?)
}
