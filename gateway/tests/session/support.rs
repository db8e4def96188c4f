//! A gateway on the loopback with a CA of its own, agencies that are enrolled, and agents that speak
//! the session's frames by hand.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use liaison_gateway::{
    directory::{Agency, Directory},
    exchange,
    federation::peers::Peers,
    gateway::Gateway,
    log::Logs,
    policy::{self, PolicyFile, PolicySet},
    server,
    store::{Company, Database, DeliveryId, Queue, QueueBound, Store},
};
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    exchange::v1::{
        Ack, Delivery, Hello, Nack, Services, SessionRequest, SessionResponse, SubmissionChunk,
        delivery::Content, exchange_service_client::ExchangeServiceClient, session_request::Frame as Request,
        session_response::Frame as Response,
    },
    limits::CHUNK_BYTES,
    message::v1::{
        Acceptance, Acknowledgement, Audience, Envelope, Facts, Notice, Refusal, SealedCopy,
        SignedAcceptance, SignedKeyRecord, StateChange, alert_kind::Code as AlertKind, basis::Code as Basis,
        data_category::Code as Category, kem::Code as Kem, kind::Code as Kind, purpose::Code as Purpose,
        referral_state::Code as State, sector::Code as Sector, status::Code as Status,
        urgency::Code as Urgency,
    },
    times,
};
use liaison_trust::{
    ca::{Authority, TlsKey, certificate_request},
    digest::sha256,
    envelope::{self, Draft, Received, Recipient},
    key_record::{self, ProvenKey},
    keys::{KemKey, SigningKey},
    names::{AgencyAddress, SpiffeId},
    statement,
    tls::{Acceptor, Connector, DomainTrust, Identity},
};
use prost::Message;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status as GrpcStatus, Streaming,
    service::Routes,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::engine;

/// Far longer than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A running domain. It stops when dropped.
pub(crate) struct World {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) ca: Authority,
    pub(crate) server: SocketAddr,
    folder: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.gateway.stop.cancel();
    }
}

/// An agency with its agent's keys.
pub(crate) struct Actor {
    pub(crate) address: AgencyAddress,
    pub(crate) signing: SigningKey,
    pub(crate) kem: KemKey,
    pub(crate) record: SignedKeyRecord,
    pub(crate) key: ProvenKey,
}

impl World {
    /// A domain with these agencies: a police service, a shelter, a health service and a rapporteur.
    pub(crate) async fn start() -> (Self, [Actor; 4]) {
        Self::start_with(QueueBound::default()).await
    }

    pub(crate) async fn start_with(bound: QueueBound) -> (Self, [Actor; 4]) {
        let actors = ["be/police", "be/shelter", "be/health", "be/rapporteur"].map(Actor::new);
        let sectors = [
            Sector::LawEnforcement,
            Sector::Ngo,
            Sector::HealthServiceOrganisation,
            Sector::NationalRapporteur,
        ];
        let directory: Directory =
            actors.iter().zip(sectors).map(|(actor, sector)| actor.agency(sector)).collect();
        let folder = TempDir::new().unwrap();
        let signing = SigningKey::generate();
        let store = Store::open(&engine::database(folder.path()).await, Company::None, bound, &signing)
            .await
            .unwrap();
        let domain = "be".parse().unwrap();
        let ca = Authority::create(&domain).unwrap();
        let (from, to) = life();
        let identity = ca.issue_gateway(&["localhost".to_owned()], from, to).unwrap();
        let acceptor = Acceptor::new(identity, vec![trust(&ca)]).unwrap();
        let logs = Logs::open(&store, &domain, &signing, folder.path()).await.unwrap();
        let gateway = Arc::new(Gateway::new(
            domain,
            signing,
            (store, logs),
            directory,
            policies(&[]),
            Peers::default(),
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let routes = Routes::new(exchange::service(&gateway));
        tokio::spawn(server::serve(
            gateway.stop.clone(),
            exchange::admit(&gateway),
            Arc::new(acceptor),
            listener,
            routes,
        ));
        (Self { gateway, ca, server, folder }, actors)
    }

    /// A certificate of this domain for an agency.
    pub(crate) fn identity(&self, agency: &AgencyAddress) -> Identity {
        let key = TlsKey::generate().unwrap();
        let (from, to) = life();
        let name = SpiffeId::Agency(agency.clone());
        let leaf = self.ca.sign_request(&certificate_request(&key).unwrap(), &name, from, to).unwrap();
        Identity::new(vec![leaf], key).unwrap()
    }

    /// The exchange API, as whoever holds this certificate.
    pub(crate) async fn client(&self, identity: Option<Identity>) -> ExchangeServiceClient<Channel> {
        let connector = Arc::new(Connector::new(trust(&self.ca), identity).unwrap());
        let (server, gateway) = (self.server, SpiffeId::Gateway(self.gateway.domain.clone()));
        let connect = tower::service_fn(move |_| {
            let (connector, gateway) = (Arc::clone(&connector), gateway.clone());
            async move {
                let stream = TcpStream::connect(server).await?;
                connector.connect(stream, &gateway).await.map(TokioIo::new).map_err(std::io::Error::other)
            }
        });
        let channel = Endpoint::from_static("http://gateway").connect_with_connector(connect).await.unwrap();
        ExchangeServiceClient::new(channel)
    }

    /// A session of an agency, welcomed.
    pub(crate) async fn session(&self, actor: &Actor) -> Link {
        self.session_with(actor, 256).await
    }

    pub(crate) async fn session_with(&self, actor: &Actor, window: u32) -> Link {
        let mut client = self.client(Some(self.identity(&actor.address))).await;
        let mut link = Link::open(&mut client).await.unwrap();
        link.send(Request::Hello(Hello { window, agent_version: "test".to_owned() })).await;
        match link.frame().await {
            Ok(Response::Welcome(_)) => link,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// The database's file.
    pub(crate) async fn database(&self) -> Database {
        engine::database(self.folder.path()).await
    }

    /// How many deliveries wait for an agency.
    pub(crate) async fn queued(&self, actor: &Actor) -> usize {
        self.gateway
            .store
            .queue(&Queue::Agency(actor.address.clone()), DeliveryId::default())
            .await
            .unwrap()
            .queued
            .len()
    }

    /// Waits until so many deliveries wait for an agency.
    pub(crate) async fn until_queued(&self, actor: &Actor, count: usize) {
        let wait = async {
            while self.queued(actor).await != count {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, wait).await.unwrap();
    }

    /// Reads an acceptance as the gateway's word.
    pub(crate) fn acceptance(&self, signed: &SignedAcceptance) -> Acceptance {
        statement::read(signed, &self.gateway.signing.public()).unwrap()
    }

    /// Puts an agency into a state, as an administrator would.
    pub(crate) fn set_state(&self, actor: &Actor, state: AgencyState) {
        self.gateway.change(&actor.address, |agency| agency.state = state);
    }

    /// Activates the starter policies with more beside them.
    pub(crate) fn load_policies(&self, more: &[(&str, &str)]) {
        self.gateway.policy.store(Arc::new(policies(more)));
    }
}

impl Actor {
    fn new(address: &str) -> Self {
        let address: AgencyAddress = address.parse().unwrap();
        let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::X25519).unwrap());
        let (from, to) = life();
        let record = key_record::first(&address, &signing, &kem, from, to);
        let key = key_record::prove(&record).unwrap();
        Self { address, signing, kem, record, key }
    }

    fn agency(&self, sector: Sector) -> Agency {
        Agency {
            address: self.address.clone(),
            name: self.address.to_string(),
            country: "be".to_owned(),
            sectors: vec![sector],
            groups: Vec::new(),
            state: AgencyState::Active,
            listed: true,
            services: Services::default(),
            keys: vec![self.key.clone()],
        }
    }

    /// A referral with a service request and health data, all of it consented to `bases`.
    pub(crate) fn referral(&self, to: &Actor, basis: Basis) -> Draft {
        let sections = [Category::ServiceRequest, Category::Health];
        let bases = sections.map(|category| (category, basis)).into();
        Draft {
            facts: Some(Facts { purpose: Purpose::VictimSupport.into(), ..Facts::default() }),
            sections: sections
                .map(|category| (category, format!("canary {}", category.as_str_name()).into_bytes().into()))
                .into(),
            recipients: vec![Recipient { key: to.key.clone(), bases }],
            ..self.draft(Kind::Referral)
        }
    }

    /// An alert about a pattern of exploitation.
    pub(crate) fn alert(&self, to: &[&Actor]) -> Draft {
        let bases = BTreeMap::from([(Category::Risk, Basis::NotPersonal)]);
        let agencies = to.iter().map(|actor| actor.address.to_string()).collect();
        let audience = Audience { agencies, ..Audience::default() };
        Draft {
            alert_kind: AlertKind::ExploitationPattern,
            facts: Some(Facts {
                purpose: Purpose::Prevention.into(),
                audience: Some(audience),
                ..Facts::default()
            }),
            sections: [(Category::Risk, b"pattern".to_vec().into())].into(),
            recipients: to
                .iter()
                .map(|actor| Recipient { key: actor.key.clone(), bases: bases.clone() })
                .collect(),
            ..self.draft(Kind::Alert)
        }
    }

    /// A state in a thread.
    pub(crate) fn state(&self, to: &Actor, thread: Uuid, state: State) -> Draft {
        Draft {
            thread,
            state_change: Some(StateChange { state: state.into(), ..StateChange::default() }),
            recipients: vec![Recipient { key: to.key.clone(), bases: BTreeMap::new() }],
            ..self.draft(Kind::State)
        }
    }

    fn draft(&self, kind: Kind) -> Draft {
        let now = OffsetDateTime::now_utc();
        Draft {
            message_id: Uuid::now_v7(),
            thread: Uuid::now_v7(),
            sender: self.address.clone(),
            kind,
            alert_kind: AlertKind::Unspecified,
            created: now,
            expires: now + time::Duration::days(7),
            urgency: Urgency::Immediate,
            handling: None,
            status: Status::Actual,
            state_change: None,
            onward: None,
            facts: None,
            sections: BTreeMap::new(),
            recipients: Vec::new(),
        }
    }

    pub(crate) fn seal(&self, draft: &Draft) -> Envelope {
        envelope::seal(draft, &self.signing, &self.record).unwrap()
    }

    /// Receives a copy as this agency's agent would.
    pub(crate) fn receive(&self, copy: &SealedCopy, sender: &Actor, world: &World) -> Received {
        let gateway = world.gateway.signing.public();
        let now = OffsetDateTime::now_utc();
        envelope::receive(copy, &self.address, |_| Some(&self.kem), &sender.key, &gateway, now).unwrap()
    }

    /// This agency's word that it holds a copy.
    pub(crate) fn acknowledgement(&self, copy: &SealedCopy) -> Acknowledgement {
        let manifest = liaison_proto::message::v1::Manifest::decode(copy.manifest.clone()).unwrap();
        Acknowledgement {
            message_id: manifest.message_id,
            manifest_digest: sha256(&copy.manifest).into(),
            recipient: self.address.to_string(),
            key_id: self.key.id.into(),
            received_at: Some(times::to_wire(OffsetDateTime::now_utc())),
            log_head: Vec::new().into(),
            keys_head: Vec::new().into(),
            thread_state: None,
        }
    }
}

/// The agent's end of a session.
pub(crate) struct Link {
    requests: mpsc::Sender<SessionRequest>,
    responses: Streaming<SessionResponse>,
    submitted: u64,
    /// Deliveries that came while an answer was awaited.
    deliveries: Vec<(Bytes, Delivery)>,
    parts: BTreeMap<Bytes, Vec<u8>>,
}

impl Link {
    pub(crate) async fn open(client: &mut ExchangeServiceClient<Channel>) -> Result<Self, GrpcStatus> {
        let (requests, stream) = mpsc::channel(64);
        let responses = client.session(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { requests, responses, submitted: 0, deliveries: Vec::new(), parts: BTreeMap::new() })
    }

    pub(crate) async fn send(&self, frame: Request) {
        self.requests.send(SessionRequest { frame: Some(frame) }).await.unwrap();
    }

    /// The next frame, or why the session ended.
    pub(crate) async fn frame(&mut self) -> Result<Response, Refusal> {
        let message = timeout(SOON, self.responses.message()).await.expect("the gateway is silent");
        let message = message.map_err(|status| Refusal::from(&status))?;
        let ended = || Refusal::new(liaison_proto::message::v1::error_code::Code::Unspecified, "ended", "");
        Ok(message.ok_or_else(ended)?.frame.unwrap())
    }

    /// Submits and waits for the answer.
    pub(crate) async fn submit(&mut self, envelope: &Envelope) -> Result<SignedAcceptance, Refusal> {
        self.submit_bytes(&envelope.encode_to_vec()).await
    }

    pub(crate) async fn submit_bytes(&mut self, bytes: &[u8]) -> Result<SignedAcceptance, Refusal> {
        self.submitted += 1;
        let submission = self.submitted;
        let count = bytes.len().div_ceil(CHUNK_BYTES);
        for (number, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let chunk = SubmissionChunk {
                submission,
                data: Bytes::copy_from_slice(chunk),
                last: number + 1 == count,
            };
            self.send(Request::Submission(chunk)).await;
        }
        loop {
            match self.frame().await? {
                Response::Accepted(accepted) if accepted.submission == submission => {
                    return Ok(accepted.acceptance.unwrap());
                }
                Response::Refused(refused) if refused.submission == submission => {
                    return Err(refused.refusal.unwrap());
                }
                frame => self.keep(frame),
            }
        }
    }

    /// The next delivery.
    pub(crate) async fn delivery(&mut self) -> (Bytes, Delivery) {
        while self.deliveries.is_empty() {
            let frame = self.frame().await.expect("the session ended");
            self.keep(frame);
        }
        self.deliveries.remove(0)
    }

    /// The next delivery, which is a copy.
    pub(crate) async fn copy(&mut self) -> (Bytes, SealedCopy) {
        match self.delivery().await {
            (attempt, Delivery { content: Some(Content::Copy(copy)) }) => (attempt, copy),
            (_, other) => panic!("no copy: {other:?}"),
        }
    }

    /// The next delivery, which is a notice of this gateway; acknowledged.
    pub(crate) async fn notice(&mut self, world: &World) -> Notice {
        match self.delivery().await {
            (attempt, Delivery { content: Some(Content::Notice(notice)) }) => {
                self.send(Request::Ack(Ack { attempt, acknowledgement: None })).await;
                statement::read(&notice, &world.gateway.signing.public()).unwrap()
            }
            (_, other) => panic!("no notice: {other:?}"),
        }
    }

    pub(crate) async fn acknowledge(&self, attempt: Bytes, word: &Acknowledgement, signing: &SigningKey) {
        let acknowledgement = Some(statement::sign(word, signing));
        self.send(Request::Ack(Ack { attempt, acknowledgement })).await;
    }

    pub(crate) async fn set_aside(&self, attempt: Bytes, refusal: Refusal) {
        self.send(Request::Nack(Nack { attempt, refusal: Some(refusal) })).await;
    }

    fn keep(&mut self, frame: Response) {
        let Response::Delivery(chunk) = frame else { panic!("unexpected: {frame:?}") };
        let part = self.parts.entry(chunk.attempt.clone()).or_default();
        part.extend_from_slice(&chunk.data);
        if chunk.last {
            let whole = self.parts.remove(&chunk.attempt).unwrap();
            self.deliveries.push((chunk.attempt, Delivery::decode(whole.as_slice()).unwrap()));
        }
    }
}

fn policies(more: &[(&str, &str)]) -> PolicySet {
    // Without the tests beside them, which hold for the starter policies alone.
    let mut files = policy::starter();
    files.retain(|file| file.path.ends_with(".cedar"));
    files.extend(
        more.iter().map(|(path, text)| PolicyFile { path: (*path).to_owned(), text: (*text).to_owned() }),
    );
    PolicySet::load(&files).unwrap()
}

pub(crate) fn trust(ca: &Authority) -> DomainTrust {
    DomainTrust { domain: ca.domain().clone(), roots: vec![ca.certificate_der().clone()], crls: Vec::new() }
}

fn life() -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - time::Duration::HOUR, now + time::Duration::days(30))
}
