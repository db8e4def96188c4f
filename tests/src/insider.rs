//! A member agency whose agent is the test itself: it has genuine keys and certificates, speaks the
//! exchange API directly, and need not be honest.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use liaison_demo::{Gateway, wait::PATIENCE};
use liaison_proto::{
    exchange::v1::{
        Ack, Delivery, EnrollRequest, Hello, ListAgenciesRequest, PublishKeyRequest, SessionRequest,
        SessionResponse, SubmissionChunk, enrolment_service_client::EnrolmentServiceClient,
        exchange_service_client::ExchangeServiceClient, session_request, session_response,
    },
    limits,
    message::v1::{
        Acceptance, Acknowledgement, Envelope, Facts, Health, ReferralContent, Refusal, ServiceRequest,
        SignedAcknowledgement, SignedKeyRecord, alert_kind::Code as AlertKind, basis::Code as Basis,
        data_category::Code as Category, kem::Code as Kem, kind::Code as Kind, purpose::Code as Purpose,
        service_type, status::Code as Status, urgency::Code as Urgency,
    },
    strict, times,
};
use liaison_trust::{
    ca::{TlsKey, certificate_request},
    certificate::certificates_from_pem,
    envelope::{self, Draft, Recipient},
    key_record::{self, ProvenKey},
    keys::{KemKey, SigningKey, VerifyingKey},
    names::{AgencyAddress, SpiffeId},
    statement,
    tls::{Connector, DomainTrust, Identity, TlsError, admitted},
};
use prost::Message;
use time::OffsetDateTime;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An agency with its keys, in memory.
pub struct Insider {
    pub address: AgencyAddress,
    pub signing: SigningKey,
    pub kem: KemKey,
    pub record: SignedKeyRecord,
    pub identity: Identity,
    pub trust: DomainTrust,
    pub gateway_key: VerifyingKey,
    /// The heads of the log and of the log of keys that it says it holds.
    pub log_head: Bytes,
    pub keys_head: Bytes,
    /// Where it connects.
    pub exchange: SocketAddr,
}

impl Insider {
    /// Enrols an agency that the gateway knows, and publishes its keys.
    pub async fn enrol(gateway: &Gateway, address: &str) -> Result<Self> {
        let token = gateway.token(address).await?;
        Self::enrol_with(gateway, address, token, Ipv4Addr::LOCALHOST).await
    }

    /// The same with a token, from an address of the loopback: a gateway counts attempts by that.
    pub async fn enrol_with(gateway: &Gateway, address: &str, token: String, from: Ipv4Addr) -> Result<Self> {
        let trust = trust(gateway)?;
        let key = TlsKey::generate()?;
        let request =
            EnrollRequest { token, certificate_request: Bytes::copy_from_slice(&certificate_request(&key)?) };
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let channel = over(socket.connect(gateway.exchange()).await?, &trust, None).await?;
        let enrolled = EnrolmentServiceClient::new(channel).enroll(request).await?.into_inner();
        let chain = enrolled.certificates.iter().map(|der| der.to_vec().into()).collect();
        let gateway_key = enrolled.bundle.context("no bundle came")?.gateway_signing_key;
        let address: AgencyAddress = address.parse()?;
        let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::XWing)?);
        let now = OffsetDateTime::now_utc();
        // Valid for some time already, so that messages can be made as of yesterday.
        let record = key_record::first(&address, &signing, &kem, now - 30 * DAY, now + 30 * DAY);
        let insider = Self {
            address,
            signing,
            kem,
            record: record.clone(),
            identity: Identity::new(chain, key)?,
            trust,
            gateway_key: VerifyingKey::try_from(gateway_key.as_ref())?,
            log_head: Bytes::new(),
            keys_head: Bytes::new(),
            exchange: gateway.exchange(),
        };
        let mut exchange = insider.exchange().await?;
        exchange.publish_key(PublishKeyRequest { key: Some(record) }).await?;
        Ok(insider)
    }

    /// A connection with its certificate.
    pub async fn channel(&self) -> Result<Channel> {
        Ok(connect(self.exchange, &self.trust, Some(&self.identity)).await?)
    }

    /// A client on a connection of its own.
    pub async fn exchange(&self) -> Result<ExchangeServiceClient<Channel>> {
        Ok(ExchangeServiceClient::new(self.channel().await?)
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES))
    }

    /// A session on a connection of its own.
    pub async fn session(&self) -> Result<Session> {
        Session::open(self.exchange().await?).await
    }

    /// The current key of an agency, believed as it comes.
    pub async fn key_of(&self, address: &str) -> Result<ProvenKey> {
        let request = ListAgenciesRequest { addresses: vec![address.to_owned()], after: String::new() };
        let agencies = self.exchange().await?.list_agencies(request).await?.into_inner().agencies;
        let keys = agencies.first().map(|agency| agency.keys.as_slice()).unwrap_or_default();
        key_record::prove_chain(keys)?.pop().with_context(|| format!("{address} has no key"))
    }

    /// A referral with two sections, on the person's consent.
    pub fn draft(&self, to: &ProvenKey) -> Draft {
        let now = OffsetDateTime::now_utc();
        let request = ServiceRequest {
            services: vec![service_type::Code::Safehouse.into()],
            ..ServiceRequest::default()
        };
        let health = Health { pregnancy: true, ..Health::default() };
        let request = ReferralContent { service_request: Some(request), ..ReferralContent::default() };
        let health = ReferralContent { health: Some(health), ..ReferralContent::default() };
        let sections = BTreeMap::from([
            (Category::ServiceRequest, Zeroizing::new(request.encode_to_vec())),
            (Category::Health, Zeroizing::new(health.encode_to_vec())),
        ]);
        let bases = sections.keys().map(|category| (*category, Basis::ConsentOfPerson)).collect();
        Draft {
            message_id: Uuid::now_v7(),
            thread: Uuid::now_v7(),
            sender: self.address.clone(),
            kind: Kind::Referral,
            alert_kind: AlertKind::Unspecified,
            created: now,
            expires: now + DAY,
            urgency: Urgency::Immediate,
            handling: None,
            status: Status::Actual,
            state_change: None,
            onward: None,
            facts: Some(Facts { purpose: Purpose::VictimSupport.into(), ..Facts::default() }),
            sections,
            recipients: vec![Recipient { key: to.clone(), bases }],
        }
    }

    /// Seals and signs as this agency.
    pub fn seal(&self, draft: &Draft) -> Result<Envelope> {
        Ok(envelope::seal(draft, &self.signing, &self.record)?)
    }

    /// Signs changed manifest bytes anew, as only the sender can.
    pub fn sign_again(&self, envelope: &mut Envelope, manifest: Vec<u8>) {
        envelope.signature = Bytes::copy_from_slice(&self.signing.sign("manifest/v1", &manifest));
        envelope.manifest = manifest.into();
    }

    /// The acknowledgement of a copy, as an honest recipient signs it.
    pub fn acknowledge(&self, manifest: &[u8], message_id: &Bytes) -> Result<SignedAcknowledgement> {
        let acknowledgement = Acknowledgement {
            message_id: message_id.clone(),
            manifest_digest: liaison_trust::digest::sha256(manifest).into(),
            recipient: self.address.to_string(),
            key_id: key_record::prove(&self.record)?.id.into(),
            received_at: Some(times::to_wire(OffsetDateTime::now_utc())),
            thread_state: None,
            log_head: self.log_head.clone(),
            keys_head: self.keys_head.clone(),
        };
        Ok(statement::sign(&acknowledgement, &self.signing))
    }
}

/// Whom an agency of this gateway's domain believes.
pub fn trust(gateway: &Gateway) -> Result<DomainTrust> {
    let roots = certificates_from_pem(&fs::read_to_string(gateway.data.join("ca.pem"))?)?;
    Ok(DomainTrust { domain: gateway.domain.parse()?, roots, crls: Vec::new() })
}

/// Connects to a gateway's exchange, with or without a certificate. The server has admitted the caller
/// when this returns.
pub async fn connect(
    to: SocketAddr,
    trust: &DomainTrust,
    identity: Option<&Identity>,
) -> Result<Channel, TlsError> {
    let tcp = TcpStream::connect(to).await.map_err(|error| TlsError::from_io(&error))?;
    over(tcp, trust, identity).await
}

async fn over(tcp: TcpStream, trust: &DomainTrust, identity: Option<&Identity>) -> Result<Channel, TlsError> {
    let connector = Connector::new(trust.clone(), identity.cloned()).map_err(|error| {
        // Only a test's own mistake can end here: its roots or its key are unusable.
        TlsError::from_io(&std::io::Error::other(error))
    })?;
    let gateway = SpiffeId::Gateway(trust.domain.clone());
    let stream = admitted(connector.connect(tcp, &gateway).await?).await?;
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let once = tower::service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        async move { stream.ok_or_else(|| std::io::Error::other("this connection was used and is over")) }
    });
    Endpoint::from_static("http://gateway").connect_with_connector(once).await.map_err(|_| TlsError::Closed)
}

/// What a gateway says to a submission.
#[derive(Debug)]
pub enum Answer {
    Accepted(Box<Acceptance>),
    Refused(Box<Refusal>),
}

/// A session stream, driven frame by frame.
pub struct Session {
    up: mpsc::Sender<SessionRequest>,
    down: Streaming<SessionResponse>,
    submissions: u64,
    partial: BTreeMap<Bytes, Vec<u8>>,
    deliveries: Vec<(Bytes, Delivery)>,
}

impl Session {
    /// Opens a session and waits until it is welcome.
    pub async fn open(mut exchange: ExchangeServiceClient<Channel>) -> Result<Self> {
        let (up, frames) = mpsc::channel(64);
        let hello = Hello { window: limits::SESSION_WINDOW, agent_version: "test".to_owned() };
        up.send(request(session_request::Frame::Hello(hello))).await?;
        let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
        let down = exchange.session(frames).await?.into_inner();
        let mut session = Self { up, down, submissions: 0, partial: BTreeMap::new(), deliveries: Vec::new() };
        match session.frame().await? {
            session_response::Frame::Welcome(_) => Ok(session),
            other => bail!("the session began with {other:?}"),
        }
    }

    /// Submits an envelope and waits for the answer to it; deliveries that come first are kept.
    pub async fn submit(&mut self, envelope: &Envelope) -> Result<Answer> {
        self.submit_bytes(&envelope.encode_to_vec()).await
    }

    /// Submits any bytes as an envelope.
    pub async fn submit_bytes(&mut self, bytes: &[u8]) -> Result<Answer> {
        let submission = self.send_bytes(bytes).await?;
        loop {
            match self.frame().await? {
                session_response::Frame::Accepted(accepted) if accepted.submission == submission => {
                    let signed = accepted.acceptance.context("an acceptance without its statement")?;
                    return Ok(Answer::Accepted(Box::new(strict::decode(&signed.acceptance)?)));
                }
                session_response::Frame::Refused(refused) if refused.submission == submission => {
                    return Ok(Answer::Refused(Box::new(
                        refused.refusal.context("a refusal without a word")?,
                    )));
                }
                other => self.keep(other)?,
            }
        }
    }

    /// Submits any bytes and does not wait.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<u64> {
        self.submissions += 1;
        let submission = self.submissions;
        let mut chunks = bytes.chunks(limits::CHUNK_BYTES).peekable();
        if chunks.peek().is_none() {
            self.send_chunk(submission, &[], true).await?;
        }
        while let Some(chunk) = chunks.next() {
            self.send_chunk(submission, chunk, chunks.peek().is_none()).await?;
        }
        Ok(submission)
    }

    async fn send_chunk(&mut self, submission: u64, data: &[u8], last: bool) -> Result<()> {
        let chunk = SubmissionChunk { submission, data: Bytes::copy_from_slice(data), last };
        self.send(session_request::Frame::Submission(chunk)).await
    }

    /// Sends any frame.
    pub async fn send(&mut self, frame: session_request::Frame) -> Result<()> {
        Ok(self.up.send(request(frame)).await?)
    }

    /// Waits for the next delivery.
    pub async fn delivery(&mut self) -> Result<(Bytes, Delivery)> {
        while self.deliveries.is_empty() {
            let frame = self.frame().await?;
            self.keep(frame)?;
        }
        Ok(self.deliveries.remove(0))
    }

    /// Acknowledges a delivery attempt.
    pub async fn ack(&mut self, attempt: Bytes, signed: Option<SignedAcknowledgement>) -> Result<()> {
        self.send(session_request::Frame::Ack(Ack { attempt, acknowledgement: signed })).await
    }

    /// Waits until the gateway ends the session.
    pub async fn ended(&mut self) -> Result<()> {
        while let Ok(Some(_)) = timeout(PATIENCE, self.down.message()).await.context("it did not end")? {}
        Ok(())
    }

    async fn frame(&mut self) -> Result<session_response::Frame> {
        let response = timeout(PATIENCE, self.down.message()).await.context("the gateway says nothing")??;
        response.context("the session ended")?.frame.context("an empty frame")
    }

    fn keep(&mut self, frame: session_response::Frame) -> Result<()> {
        let session_response::Frame::Delivery(chunk) = frame else { bail!("unexpected: {frame:?}") };
        let bytes = self.partial.entry(chunk.attempt.clone()).or_default();
        bytes.extend_from_slice(&chunk.data);
        if chunk.last {
            let delivery = strict::decode(bytes)?;
            self.partial.remove(&chunk.attempt);
            self.deliveries.push((chunk.attempt, delivery));
        }
        Ok(())
    }
}

fn request(frame: session_request::Frame) -> SessionRequest {
    SessionRequest { frame: Some(frame) }
}
