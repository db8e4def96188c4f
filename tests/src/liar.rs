//! The called side of a hostile gateway: it takes the links of its peer, and answers with lies.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
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
        AcceptedChunk, Done, Forward, LinkRequest, LinkResponse, PreviewRequest, PreviewResponse, Refused,
        SignedBundle, Welcome,
        federation_service_server::{FederationService, FederationServiceServer},
        link_request::Frame as Request,
        link_response::Frame as Response,
    },
    message::v1::{
        Acceptance, Acceptances, Manifest, RecipientDecision, Refusal, Rule, SignedAcceptance,
        error_code::Code as ErrorCode, verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::{
    digest::{Digest, sha256},
    keys::SigningKey,
    statement,
    tls::{Acceptor, DomainTrust, Identity},
};
use prost::Message;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{hostile::Hostile, insider};

/// What it answers to a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// None: an honest acceptance.
    Honest,
    /// An acceptance that names another recipient.
    OtherRecipient,
    /// Acceptances of more recipients than there are.
    OneTooMany,
    /// An acceptance that another key signed.
    NotSigned,
    /// An acceptance of another manifest.
    OtherDigest,
    /// An acceptance that decides nothing.
    NoVerdict,
    /// The answer to a notice.
    Done,
    /// An answer to a frame that was never sent.
    OtherNumber,
    /// Bytes that are no acceptances.
    Garbage,
    /// Nothing, ever.
    Silent,
    /// That the recipient's queue is full, of what this agency sends.
    FullFor(&'static str),
    /// An acceptance with a field of a newer version.
    Newer,
    /// A decision by a rule of the asker's own country.
    OtherLayer,
}

/// A hostile gateway that is called.
pub struct Liar {
    server: JoinHandle<()>,
    forwards: mpsc::UnboundedReceiver<Forward>,
}

/// How it answers.
pub struct Script {
    pub signing: SigningKey,
    /// What stands in its welcome.
    pub bundle: SignedBundle,
    pub lie: Lie,
}

impl Liar {
    /// Takes links on this listener from whoever `trust` vouches for.
    pub fn start(
        listener: TcpListener,
        identity: Identity,
        trust: DomainTrust,
        script: Script,
    ) -> Result<Self> {
        let acceptor = Arc::new(Acceptor::new(identity, vec![trust])?);
        let (heard, forwards) = mpsc::unbounded_channel();
        let service = FederationServiceServer::new(Called { script: Arc::new(script), heard });
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
        Ok(Self { server, forwards })
    }

    /// Takes the link of a gateway to this hostile domain, with a bundle that is newer than all before. Where another
    /// one listened, the address is free in a moment.
    pub async fn of(hostile: &Hostile, gateway: &Gateway, lie: Lie) -> Result<Self> {
        let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
        Self::with_sequence(hostile, gateway, lie, now).await
    }

    /// The same with a bundle of this sequence.
    pub async fn with_sequence(
        hostile: &Hostile,
        gateway: &Gateway,
        lie: Lie,
        sequence: u64,
    ) -> Result<Self> {
        let listener =
            wait::until("the address is free", async || TcpListener::bind(hostile.listens).await.ok())
                .await?;
        let script = Script {
            signing: SigningKey::from_seed(&hostile.signing.seed()),
            bundle: hostile.sign(&hostile.bundle(sequence)),
            lie,
        };
        Self::start(listener, hostile.identity.clone(), insider::trust(gateway)?, script)
    }

    /// Whether it was forwarded nothing that the test has not taken yet.
    pub fn heard_nothing(&self) -> bool {
        self.forwards.is_empty()
    }

    /// The next message that it was forwarded; none where none comes.
    pub async fn forwarded(&mut self) -> Option<Forward> {
        tokio::time::timeout(PATIENCE, self.forwards.recv()).await.ok().flatten()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Called {
    script: Arc<Script>,
    heard: mpsc::UnboundedSender<Forward>,
}

#[tonic::async_trait]
impl FederationService for Called {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;

    async fn link(
        &self,
        request: tonic::Request<Streaming<LinkRequest>>,
    ) -> Result<tonic::Response<Self::LinkStream>, Status> {
        let (frames, outgoing) = mpsc::channel(64);
        let (script, heard, incoming) = (Arc::clone(&self.script), self.heard.clone(), request.into_inner());
        tokio::spawn(async move { script.answer(incoming, frames, heard).await });
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn preview(
        &self,
        _: tonic::Request<PreviewRequest>,
    ) -> Result<tonic::Response<PreviewResponse>, Status> {
        Err(Refusal::new(ErrorCode::RateLimited, "no previews", "ask somebody else").into())
    }
}

impl Script {
    async fn answer(
        &self,
        mut incoming: Streaming<LinkRequest>,
        frames: mpsc::Sender<Result<LinkResponse, Status>>,
        heard: mpsc::UnboundedSender<Forward>,
    ) {
        let mut parts: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        while let Ok(Some(LinkRequest { frame: Some(frame) })) = incoming.message().await {
            let response = match frame {
                Request::Hello(_) => Response::Welcome(self.welcome()),
                Request::Forward(chunk) => {
                    let whole = parts.entry(chunk.number).or_default();
                    whole.extend_from_slice(&chunk.data);
                    if !chunk.last {
                        continue;
                    }
                    let whole = parts.remove(&chunk.number).unwrap_or_default();
                    let Ok(forward) = Forward::decode(whole.as_slice()) else { return };
                    let answer = self.forwarded(chunk.number, &forward);
                    // The test may have heard enough.
                    let _ = heard.send(forward);
                    match answer {
                        Some(answer) => answer,
                        None => continue,
                    }
                }
                Request::Notice(notice) => Response::Done(Done { number: notice.number }),
                Request::Directory(change) => Response::Done(Done { number: change.number }),
                Request::Renewal(renewal) => Response::Done(Done { number: renewal.number }),
            };
            if frames.send(Ok(LinkResponse { frame: Some(response) })).await.is_err() {
                return;
            }
        }
    }

    fn welcome(&self) -> Welcome {
        Welcome {
            bundle: Some(self.bundle.clone()),
            gateway_version: "test".to_owned(),
            window: 16,
            now: Some(times::to_wire(OffsetDateTime::now_utc())),
            ..Welcome::default()
        }
    }

    fn forwarded(&self, number: u64, forward: &Forward) -> Option<Response> {
        let data = match self.lie {
            Lie::Silent => return None,
            Lie::FullFor(of) if forward.sender.as_ref().is_some_and(|sender| sender.address == of) => {
                let refusal = Refusal::new(ErrorCode::QueueFull, "the queue is full", "offer it again later");
                let refusal = Some(refusal.retry_after(Duration::from_secs(1)));
                return Some(Response::Refused(Refused { number, refusal }));
            }
            Lie::Done => return Some(Response::Done(Done { number })),
            Lie::OtherNumber => {
                let refusal = Some(Refusal::new(ErrorCode::Suspended, "a lie", "none"));
                return Some(Response::Refused(Refused { number: number + 1_000, refusal }));
            }
            Lie::Garbage => Bytes::from_static(&[0xff; 64]),
            _ => self.acceptances(forward).encode_to_vec().into(),
        };
        Some(Response::Accepted(AcceptedChunk { number, data, last: true }))
    }

    fn acceptances(&self, forward: &Forward) -> Acceptances {
        let recipients = forward.recipients.iter().filter_map(|recipient| recipient.proof.as_ref());
        let mut acceptances: Vec<SignedAcceptance> =
            recipients.map(|proof| self.acceptance(forward, &proof.address)).collect();
        if self.lie == Lie::OneTooMany {
            acceptances.push(self.acceptance(forward, "xx/nobody"));
        }
        Acceptances { acceptances }
    }

    fn acceptance(&self, forward: &Forward, recipient: &str) -> SignedAcceptance {
        let manifest = Manifest::decode(forward.manifest.clone()).unwrap_or_default();
        let recipient = if self.lie == Lie::OtherRecipient { "xx/nobody" } else { recipient };
        let verdict = if self.lie == Lie::NoVerdict { Verdict::Unspecified } else { Verdict::Released };
        let digest = if self.lie == Lie::OtherDigest { Digest([9; 32]) } else { sha256(&forward.manifest) };
        let acceptance = Acceptance {
            message_id: manifest.message_id,
            manifest_digest: digest.into(),
            accepted_at: Some(times::to_wire(OffsetDateTime::now_utc())),
            policy_hash: Digest([1; 32]).into(),
            scheme_hash: Digest([2; 32]).into(),
            decisions: vec![RecipientDecision {
                recipient: recipient.to_owned(),
                verdict: verdict.into(),
                rule: (self.lie == Lie::OtherLayer).then(|| Rule {
                    layer: "country/be".to_owned(),
                    rule: "be-secrecy".to_owned(),
                    ..Rule::default()
                }),
                ..RecipientDecision::default()
            }],
        };
        if self.lie == Lie::Newer {
            // Field 1000, a varint.
            let acceptance = Bytes::from([acceptance.encode_to_vec(), vec![0xc0, 0x3e, 0x01]].concat());
            let signature = Bytes::copy_from_slice(&self.signing.sign("acceptance/v1", &acceptance));
            return SignedAcceptance { acceptance, signature };
        }
        let other = SigningKey::generate();
        statement::sign(&acceptance, if self.lie == Lie::NotSigned { &other } else { &self.signing })
    }
}
