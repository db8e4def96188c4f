//! The case API as it is served: real listeners, a real store, and a gateway that can't be reached.

mod grpc;
mod onward;
mod rest;

use std::{net::SocketAddr, sync::Arc};

use liaison_proto::{
    exchange::v1::{Agency as Listed, Delivery, delivery},
    message::v1::{
        Health, ReferralContent, basis::Code as Basis, data_category::Code as Category,
        sector::Code as Sector,
    },
};
use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{ServeError, grpc as grpc_api, listen, rest as rest_api};
use crate::{
    agent::Agent,
    inbox,
    testing::{Domain, add, introduce, referral, seal},
};

/// The token of every agent in tests.
const TOKEN: &str = "token";

/// The agent of be/shelter with its API. Its gateway is away; it last listed be/clinic.
struct Served {
    agent: Arc<Agent>,
    domain: Domain,
    grpc: SocketAddr,
    rest: SocketAddr,
    _servers: JoinSet<()>,
    _stop: DropGuard,
    _dir: TempDir,
}

impl Served {
    async fn new() -> Self {
        let domain = Domain::new();
        let (dir, agent) = domain.agent("shelter").await;
        let agent = Arc::new(agent);
        let clinic = Listed {
            address: "be/clinic".into(),
            name: "Clinic".into(),
            country: "be".into(),
            sectors: vec![Sector::HealthServiceOrganisation.into()],
            ..Listed::default()
        };
        agent.store.set_agency(&"be/clinic".parse().unwrap(), &clinic).await.unwrap();
        let (grpc, rest) = (listen_anywhere().await, listen_anywhere().await);
        let (grpc_at, rest_at) = (grpc.local_addr().unwrap(), rest.local_addr().unwrap());
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        let (one, two) = (Arc::clone(&agent), Arc::clone(&agent));
        let (until_one, until_two) = (stop.clone(), stop.clone());
        servers.spawn(async move { grpc_api::serve(one, grpc, until_one).await.unwrap() });
        servers.spawn(async move { rest_api::serve(two, rest, until_two).await.unwrap() });
        Self {
            agent,
            domain,
            grpc: grpc_at,
            rest: rest_at,
            _servers: servers,
            _stop: stop.drop_guard(),
            _dir: dir,
        }
    }

    /// Receives a referral from be/police whose health section holds these words.
    async fn receive(&self, words: &str) -> Uuid {
        let content = ReferralContent {
            health: Some(Health { physical: words.into(), ..Health::default() }),
            ..ReferralContent::default()
        };
        self.receive_sections([(Category::Health, content.encode_to_vec())]).await
    }

    /// Receives a referral from be/police with these sections.
    async fn receive_sections<const N: usize>(&self, sections: [(Category, Vec<u8>); N]) -> Uuid {
        let (_dir, police) = self.domain.agent("police").await;
        introduce(&police, &self.agent).await;
        introduce(&self.agent, &police).await;
        let mut message = referral(&self.agent.address);
        let bases = sections.each_ref().map(|(category, _)| (*category, Basis::ConsentOfPerson)).into();
        message.recipients = vec![(self.agent.address.clone(), bases)];
        message.sections = sections.map(|(category, section)| (category, Zeroizing::new(section))).into();
        let id = add(&police.store, message).await;
        let copy = self.domain.copy(seal(&police, &self.agent, id).await);
        let delivery = Delivery { content: Some(delivery::Content::Copy(copy)) };
        assert!(matches!(inbox::take(&self.agent, delivery).await.unwrap(), inbox::Answer::Held(Some(_))));
        id
    }

    async fn outbox(&self) -> u64 {
        self.agent.store.counts().await.unwrap().outbox
    }

    /// Calls the REST API as a case system does.
    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.call_with(method, path, &[], body).await
    }

    async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> (u16, Value) {
        let token = format!("Bearer {TOKEN}");
        let mut all = vec![("authorization", token.as_str()), ("liaison-actor", "anna")];
        all.extend(headers);
        let body = body.map(Value::to_string);
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        let (status, head, body) = self.raw(method, path, &all, body.unwrap_or_default().as_bytes()).await;
        assert!(head.contains("content-type: application/json"), "{head}");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// One HTTP/1.1 exchange: the status, the head and the body of the answer.
    async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String, String) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head.push_str(&format!("host: {}\r\n", self.rest));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| *name == "transfer-encoding") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut stream = TcpStream::connect(self.rest).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses by the head alone may be gone before the end of the body.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
    }
}

async fn listen_anywhere() -> tokio::net::TcpListener {
    listen("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed() {
    let served = Served::new().await;
    let closed = async |at: SocketAddr, said: &[u8]| {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    };
    let half = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ";
    let whole = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let all = async {
        tokio::join!(
            closed(served.rest, b""),
            closed(served.rest, half),
            closed(served.rest, whole),
            closed(served.grpc, b""),
            closed(served.grpc, b"PRI * HTTP"),
        )
    };
    tokio::time::timeout(6 * crate::limits::REQUEST_HEAD, all).await.unwrap();
}

#[tokio::test]
async fn listens_on_loopback_alone() {
    let open = listen("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(open, ServeError::NotLoopback(_)));
}
