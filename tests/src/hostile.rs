//! A domain `xx` whose gateway is the test itself: it has a genuine CA and keys, was accepted as a peer, speaks
//! the federation API directly in both directions, and need not be honest.

use std::{collections::BTreeMap, fs, net::SocketAddr, sync::Mutex, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use liaison_demo::{Gateway, http, wait::PATIENCE};
use liaison_proto::{
    exchange::v1::{Agency, MessageHead, PreviewRecipient, PreviewRequest as Question},
    federation::v1::{
        Bundle, DirectoryChange, DirectoryPage, Forward, ForwardChunk, Hello, LinkRequest, LinkResponse,
        PreviewRequest, RelayNotice, Renewal, SignedBundle, SignedDirectoryPage, Welcome,
        federation_service_client::FederationServiceClient, link_request::Frame as Request,
        link_response::Frame as Response,
    },
    limits,
    message::v1::{
        Acceptances, CategoryBasis, Facts, Notice, Refusal, SignedNotice, basis::Code as Basis,
        kind::Code as Kind, purpose::Code as Purpose, status::Code as Status, urgency::Code as Urgency,
    },
    strict, times,
};
use liaison_trust::{
    ca::Authority,
    digest::{self, Digest},
    envelope::{Draft, Verified},
    keys::SigningKey,
    names::{Domain, SpiffeId},
    statement,
    tls::{Connector, DomainTrust, Identity, admitted},
};
use prost::Message;
use time::OffsetDateTime;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    insider,
    outsider::{CATEGORIES, Forwarder, Outsider},
};

/// The domain, and the one country that it was accepted for.
pub const DOMAIN: &str = "xx";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The hostile domain.
pub struct Hostile {
    pub authority: Authority,
    pub signing: SigningKey,
    pub identity: Identity,
    /// Two agencies of it.
    pub shelter: Outsider,
    pub clinic: Outsider,
    /// The hash of the scheme that the attacked gateway has.
    pub scheme: Digest,
    /// Where it takes links, if it does.
    pub listens: SocketAddr,
    /// The bundle that it was accepted with.
    pub accepted: SignedBundle,
    to: SocketAddr,
    trust: DomainTrust,
}

impl Hostile {
    /// Makes the domain, and has a running gateway accept it. `listens` is where that one will call it.
    pub async fn accepted_by(gateway: &Gateway, listens: SocketAddr) -> Result<Self> {
        Self::accepted_after(Duration::ZERO, gateway, listens).await
    }

    /// The same with a bundle that was made so long ago.
    pub async fn accepted_after(age: Duration, gateway: &Gateway, listens: SocketAddr) -> Result<Self> {
        let domain: Domain = DOMAIN.parse()?;
        let authority = Authority::create(&domain)?;
        let now = OffsetDateTime::now_utc();
        let identity = authority.issue_gateway(&[], now - DAY, now + DAY)?;
        let mut hostile = Self {
            authority,
            signing: SigningKey::generate(),
            identity,
            shelter: Outsider::new("xx/shelter")?,
            clinic: Outsider::new("xx/clinic")?,
            scheme: scheme_of(gateway).await?,
            listens,
            accepted: SignedBundle::default(),
            to: gateway.federation(),
            trust: insider::trust(gateway)?,
        };
        let issued = Some(times::to_wire(OffsetDateTime::now_utc() - age));
        hostile.accepted = hostile.sign(&Bundle { issued, ..hostile.bundle(1) });
        let file = gateway.data.with_file_name("xx.bundle");
        fs::write(&file, to_text(&hostile.accepted))?;
        let fingerprint = hostile.fingerprint();
        let file = file.to_string_lossy();
        gateway.command(&["peer", "accept", &file, "--fingerprint", &fingerprint]).await?;
        Ok(hostile)
    }

    /// A bundle that it could honestly send. Sequences grow from the one that was accepted, 1.
    pub fn bundle(&self, sequence: u64) -> Bundle {
        Bundle {
            domain: DOMAIN.to_owned(),
            roots: vec![self.authority.certificate_der().to_vec().into()],
            gateway_signing_key: self.signing.public().as_bytes().to_vec().into(),
            addresses: vec![self.listens.to_string()],
            countries: vec![DOMAIN.to_owned()],
            sequence,
            issued: Some(times::to_wire(OffsetDateTime::now_utc())),
            scheme_hash: self.scheme.into(),
            protocol: 1,
            log_key: self.signing.derived("log-key/v1").public().as_bytes().to_vec().into(),
            witness_key: self.signing.derived("witness-key/v1").public().as_bytes().to_vec().into(),
        }
    }

    pub fn sign(&self, bundle: &Bundle) -> SignedBundle {
        statement::sign(bundle, &self.signing)
    }

    /// Signs a notice as its gateway does.
    pub fn sign_notice(&self, notice: &Notice) -> SignedNotice {
        statement::sign(notice, &self.signing)
    }

    /// What the two administrators compare.
    pub fn fingerprint(&self) -> String {
        let key = self.signing.public();
        let digits = digest::hash("bundle-fingerprint/v1", &[DOMAIN.as_bytes(), key.as_bytes()]).to_string();
        digits.chars().take(24).collect()
    }

    /// What it forwards, with the records that it signs.
    pub fn forwarder(&self) -> Forwarder<'_> {
        Forwarder { signing: &self.signing, scheme: self.scheme }
    }

    /// An honest forward of a message of its shelter.
    pub fn forward(&self, message: &Verified) -> Forward {
        self.forwarder().forward(message, self.shelter.described(DOMAIN), &CATEGORIES)
    }

    /// The same from a draft.
    pub fn forward_of(&self, draft: &Draft) -> Result<Forward> {
        Ok(self.forward(&self.shelter.verified(draft)?))
    }

    /// A page of its directory with these agencies, as it could honestly send.
    pub fn page(&self, agencies: Vec<Agency>) -> DirectoryPage {
        DirectoryPage {
            domain: DOMAIN.to_owned(),
            peer: self.trust.domain.to_string(),
            epoch: vec![5; 16].into(),
            sequence: 1,
            agencies,
            withdrawn: Vec::new(),
            first: true,
            complete: true,
        }
    }

    /// What an honest gateway asks when its shelter would send a referral to this agency.
    pub fn preview(&self, to: &str) -> PreviewRequest {
        let head = MessageHead {
            kind: Kind::Referral.into(),
            urgency: Urgency::Immediate.into(),
            status: Status::Actual.into(),
            facts: Some(Facts { purpose: Purpose::VictimSupport.into(), ..Facts::default() }),
            ..MessageHead::default()
        };
        let bases = CATEGORIES.map(|category| CategoryBasis {
            category: category.into(),
            basis: Basis::ConsentOfPerson.into(),
        });
        let recipient = PreviewRecipient { address: to.to_owned(), bases: bases.to_vec() };
        PreviewRequest {
            sender: Some(Agency { keys: Vec::new(), ..self.shelter.described(DOMAIN) }),
            preview: Some(Question { head: Some(head), recipients: vec![recipient] }),
        }
    }

    /// A connection with the gateway's own certificate.
    pub async fn connect(&self) -> Result<Channel> {
        self.connect_as(&self.identity).await
    }

    /// A connection with any certificate.
    pub async fn connect_as(&self, identity: &Identity) -> Result<Channel> {
        let connector = Connector::new(self.trust.clone(), Some(identity.clone()))?;
        let tcp = TcpStream::connect(self.to).await?;
        let gateway = SpiffeId::Gateway(self.trust.domain.clone());
        let stream = admitted(connector.connect(tcp, &gateway).await?).await?;
        let stream = Mutex::new(Some(TokioIo::new(stream)));
        let once = tower::service_fn(move |_| {
            let stream = stream.lock().ok().and_then(|mut stream| stream.take());
            async move { stream.ok_or_else(|| std::io::Error::other("this connection was used and is over")) }
        });
        Ok(Endpoint::from_static("http://gateway").connect_with_connector(once).await?)
    }

    /// A link that begins as it should, with a bundle that is newer than all before.
    pub async fn link(&self) -> Result<Link> {
        let mut link = Link::open(self.connect().await?).await?;
        let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
        link.hello(self.sign(&self.bundle(now))).await?;
        Ok(link)
    }
}

/// The hash of the scheme that is active at a gateway, from its own invitation.
async fn scheme_of(gateway: &Gateway) -> Result<Digest> {
    let invitation = gateway.command(&["peer", "invite"]).await?;
    let text = invitation.split_whitespace().find_map(|word| word.strip_prefix("liaison-bundle1."));
    let bytes = URL_SAFE_NO_PAD.decode(text.context("the invitation holds no bundle")?)?;
    let signed: SignedBundle = strict::decode(&bytes)?;
    let bundle: Bundle = strict::decode(&signed.bundle)?;
    Ok(Digest::try_from(bundle.scheme_hash.as_ref())?)
}

/// A bundle as administrators send it to one another.
fn to_text(bundle: &SignedBundle) -> String {
    format!("liaison-bundle1.{}", URL_SAFE_NO_PAD.encode(bundle.encode_to_vec()))
}

/// How often a peer broke a rule of this kind, as the gateway's metrics count it.
pub async fn violations(gateway: &Gateway, kind: &str) -> Result<u64> {
    let metrics = http::request(gateway.metrics(), "GET", "/metrics", &[], &[]).await?.text();
    let line = metrics.lines().find(|line| {
        line.starts_with("liaison_gateway_peer_violations_total{")
            && line.contains(&format!("peer=\"{DOMAIN}\""))
            && line.contains(&format!("kind=\"{kind}\""))
    });
    match line.and_then(|line| line.rsplit(' ').next()) {
        Some(count) => Ok(count.parse::<f64>()? as u64),
        None => Ok(0),
    }
}

/// What a gateway answers to a frame.
#[derive(Debug)]
pub enum Answer {
    Accepted(Acceptances),
    Done,
    Refused(Box<Refusal>),
    /// The link was ended with this.
    Ended(Box<Refusal>),
}

/// A link, driven frame by frame.
pub struct Link {
    up: mpsc::Sender<LinkRequest>,
    down: Streaming<LinkResponse>,
    numbers: u64,
    /// Answers of which more is to come.
    parts: BTreeMap<u64, Vec<u8>>,
}

impl Link {
    /// Opens a link and says nothing.
    pub async fn open(channel: Channel) -> Result<Self> {
        let (up, frames) = mpsc::channel(64);
        let mut client =
            FederationServiceClient::new(channel).max_decoding_message_size(limits::GRPC_MESSAGE_BYTES);
        let down = client.link(ReceiverStream::new(frames)).await?.into_inner();
        Ok(Self { up, down, numbers: 0, parts: BTreeMap::new() })
    }

    /// Says hello and is welcomed.
    pub async fn hello(&mut self, bundle: SignedBundle) -> Result<Welcome> {
        match self.try_hello(bundle).await? {
            Ok(welcome) => Ok(welcome),
            Err(refusal) => bail!("not welcome: {refusal}"),
        }
    }

    /// Says hello, whatever comes of it.
    pub async fn try_hello(&mut self, bundle: SignedBundle) -> Result<Result<Welcome, Refusal>> {
        let hello = Hello { bundle: Some(bundle), gateway_version: "test".to_owned() };
        // A link that was ended already takes nothing, and has its refusal to read.
        let _ = self.send(Request::Hello(hello)).await;
        match self.next().await? {
            Ok(Response::Welcome(welcome)) => Ok(Ok(welcome)),
            Ok(other) => bail!("the link began with {other:?}"),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Forwards a message and waits for the answer.
    pub async fn forward(&mut self, forward: &Forward) -> Result<Answer> {
        self.forward_bytes(&forward.encode_to_vec()).await
    }

    /// Forwards any bytes.
    pub async fn forward_bytes(&mut self, bytes: &[u8]) -> Result<Answer> {
        let number = self.send_bytes(bytes).await?;
        self.answer(number).await
    }

    /// Forwards any bytes and does not wait.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<u64> {
        self.numbers += 1;
        let number = self.numbers;
        let mut rest = Bytes::copy_from_slice(bytes);
        loop {
            let data = rest.split_to(rest.len().min(limits::CHUNK_BYTES));
            let last = rest.is_empty();
            self.send(Request::Forward(ForwardChunk { number, data, last })).await?;
            if last {
                return Ok(number);
            }
        }
    }

    /// Tells of what became of a message.
    pub async fn notice(&mut self, notice: SignedNotice) -> Result<Answer> {
        self.ask(|number| Request::Notice(RelayNotice { number, notice: Some(notice) })).await
    }

    /// Sends a page of a directory.
    pub async fn directory(&mut self, page: SignedDirectoryPage) -> Result<Answer> {
        self.ask(|number| Request::Directory(DirectoryChange { number, page: Some(page) })).await
    }

    /// Sends a bundle that is to be newer.
    pub async fn renew(&mut self, bundle: SignedBundle) -> Result<Answer> {
        self.ask(|number| Request::Renewal(Renewal { number, bundle: Some(bundle) })).await
    }

    /// Sends so many frames, each made with its number, as fast as the gateway takes them; how many it did.
    pub async fn flood(&mut self, frames: u64, frame: impl Fn(u64) -> Request) -> Result<u64> {
        let (first, up) = (self.numbers + 1, self.up.clone());
        self.numbers += frames;
        let numbers = first..=self.numbers;
        let send = async {
            for number in numbers {
                up.send(LinkRequest { frame: Some(frame(number)) }).await?;
            }
            anyhow::Ok(())
        };
        let read = async {
            let mut done = 0;
            for _ in 0..frames {
                match self.next().await? {
                    Ok(Response::Done(_)) => done += 1,
                    Ok(Response::Refused(_)) => {}
                    Ok(other) => bail!("unexpected: {other:?}"),
                    Err(refusal) => bail!("the link was ended: {refusal}"),
                }
            }
            Ok(done)
        };
        let (sent, done) = tokio::join!(send, read);
        let done = done?;
        sent?;
        Ok(done)
    }

    /// Sends any frame.
    pub async fn send(&mut self, frame: Request) -> Result<()> {
        self.send_frame(LinkRequest { frame: Some(frame) }).await
    }

    /// Sends what may be no frame.
    pub async fn send_frame(&mut self, request: LinkRequest) -> Result<()> {
        Ok(self.up.send(request).await?)
    }

    /// Waits until the gateway ends the link; why it did.
    pub async fn ended(&mut self) -> Result<Option<Refusal>> {
        loop {
            match timeout(PATIENCE, self.down.message()).await.context("the link does not end")? {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(status) => return Ok(Some(Refusal::from(&status))),
            }
        }
    }

    async fn ask(&mut self, frame: impl FnOnce(u64) -> Request) -> Result<Answer> {
        self.numbers += 1;
        let number = self.numbers;
        self.send(frame(number)).await?;
        self.answer(number).await
    }

    /// Waits for the answer to a frame, which has to be the next.
    pub async fn answer(&mut self, asked: u64) -> Result<Answer> {
        match self.next_answer().await? {
            (number, answer) if number == asked => Ok(answer),
            (_, ended @ Answer::Ended(_)) => Ok(ended),
            other => bail!("unexpected: {other:?}"),
        }
    }

    /// Waits for the next answer, whatever frame it is to.
    pub async fn next_answer(&mut self) -> Result<(u64, Answer)> {
        loop {
            match self.next().await? {
                Err(refusal) => return Ok((0, Answer::Ended(Box::new(refusal)))),
                Ok(Response::Accepted(chunk)) => {
                    self.parts.entry(chunk.number).or_default().extend_from_slice(&chunk.data);
                    if chunk.last {
                        let whole = self.parts.remove(&chunk.number).unwrap_or_default();
                        return Ok((chunk.number, Answer::Accepted(strict::decode(&whole)?)));
                    }
                }
                Ok(Response::Done(done)) => return Ok((done.number, Answer::Done)),
                Ok(Response::Refused(refused)) => {
                    let refusal = refused.refusal.context("a refusal without a word")?;
                    ensure!(!refusal.action.is_empty(), "{refusal} does not say what to do");
                    return Ok((refused.number, Answer::Refused(Box::new(refusal))));
                }
                // Its own bundles come whenever they change.
                Ok(Response::Renewal(_)) => {}
                Ok(other) => bail!("unexpected: {other:?}"),
            }
        }
    }

    async fn next(&mut self) -> Result<Result<Response, Refusal>> {
        match timeout(PATIENCE, self.down.message()).await.context("the gateway says nothing")? {
            Ok(response) => {
                Ok(Ok(response.context("the link ended without a word")?.frame.context("an empty frame")?))
            }
            Err(status) => Ok(Err(Refusal::from(&status))),
        }
    }
}
