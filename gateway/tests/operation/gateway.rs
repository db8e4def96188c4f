//! A gateway in a folder of its own, on free ports.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use liaison_proto::exchange::v1::{
    EnrollRequest, EnrollResponse, enrolment_service_client::EnrolmentServiceClient,
};
use liaison_trust::{
    ca::{TlsKey, certificate_request},
    names::SpiffeId,
    tls::{Connector, DomainTrust, Identity},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A data folder made by `init`.
pub(crate) struct Gateway {
    folder: TempDir,
    pub(crate) exchange: SocketAddr,
    pub(crate) federation: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

/// The same, running until dropped.
pub(crate) struct Running<'a> {
    gateway: &'a Gateway,
    child: Child,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Gateway {
    pub(crate) fn init() -> Self {
        Self::init_as("be")
    }

    /// Of another domain than `be`.
    pub(crate) fn init_as(domain: &str) -> Self {
        let gateway = Self::nothing();
        let done = gateway.init_domain(domain, &[]);
        assert_eq!(done.status, 0, "{done:?}");
        gateway
    }

    /// A folder that `init` is yet to make.
    pub(crate) fn nothing() -> Self {
        // Kept until all are known, so that they differ.
        let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [exchange, federation, metrics] = ports.map(|port| port.local_addr().unwrap());
        Self { folder: tempfile::tempdir().unwrap(), exchange, federation, metrics }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("be")
    }

    pub(crate) fn init_with(&self, more: &[&str]) -> Done {
        self.init_domain("be", more)
    }

    fn init_domain(&self, domain: &str, more: &[&str]) -> Done {
        let [exchange, federation, metrics] =
            [self.exchange, self.federation, self.metrics].map(|address| address.to_string());
        let mut init = vec!["init", "--domain", domain, "--exchange", &exchange];
        init.extend(["--federation", &federation, "--metrics", &metrics]);
        self.cli(&[&init[..], more].concat())
    }

    /// Runs a command to its end.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Done {
        program().arg("--data").arg(self.data()).args(arguments).output().unwrap().into()
    }

    /// Runs a command with `--json` that is to succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let done = self.cli(&[arguments, &["--json"]].concat());
        assert_eq!(done.status, 0, "{done:?}");
        serde_json::from_str(&done.stdout).unwrap()
    }

    pub(crate) async fn run(&self) -> Running<'_> {
        self.run_logging_to(&self.folder.path().join("log")).await
    }

    pub(crate) async fn run_logging_to(&self, log: &Path) -> Running<'_> {
        let mut running = self.begin(log);
        let deadline = Instant::now() + PATIENCE;
        while !self.http("/readyz").await.starts_with("HTTP/1.1 200") {
            if running.child.try_wait().unwrap().is_some() {
                panic!("the gateway ended at once: {}", std::fs::read_to_string(log).unwrap());
            }
            assert!(Instant::now() < deadline, "the gateway does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running
    }

    /// Starts it, ready or not.
    pub(crate) fn begin(&self, log: &Path) -> Running<'_> {
        // A file over the limit that `Running::limit_files` sets is an error then, and no signal.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_liaison-gateway")])
            .arg("--data")
            .arg(self.data())
            .arg("run")
            .stdin(Stdio::null())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        Running { gateway: self, child }
    }

    /// What the metrics listener answers; nothing if it doesn't.
    pub(crate) async fn http(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ask = async {
            let mut stream = TcpStream::connect(self.metrics).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        ask.await.unwrap_or_default()
    }

    pub(crate) fn add_shelter(&self) {
        let shelter = ["agency", "add", "be/shelter", "--name", "The shelter", "--country", "be"];
        let done = self.cli(&[&shelter[..], &["--sector", "NGO", "--group", "network"]].concat());
        assert_eq!(done.status, 0, "{done:?}");
    }

    pub(crate) fn add(&self, address: &str, sector: &str) {
        let done =
            self.cli(&["agency", "add", address, "--name", "X", "--country", "be", "--sector", sector]);
        assert_eq!(done.status, 0, "{done:?}");
    }

    /// Accepts the bundle of a domain whose gateway runs.
    pub(crate) fn accept(&self, other: &Gateway) {
        let invitation = other.json(&["peer", "invite"]);
        let file = self.folder.path().join("bundle");
        std::fs::write(&file, invitation["bundle"].as_str().unwrap()).unwrap();
        let fingerprint = invitation["fingerprint"].as_str().unwrap();
        let done = self.cli(&["peer", "accept", file.to_str().unwrap(), "--fingerprint", fingerprint]);
        assert_eq!(done.status, 0, "{done:?}");
    }

    pub(crate) fn token(&self, address: &str) -> String {
        let done = self.cli(&["token", "create", address]);
        assert_eq!(done.status, 0, "{done:?}");
        done.stdout.trim_end().to_owned()
    }
}

impl Running<'_> {
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Lets it write files up to so many bytes, or `unlimited`.
    pub(crate) fn limit_files(&self, bytes: &str) {
        let (id, limit) = (self.child.id().to_string(), format!("--fsize={bytes}:"));
        assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
    }

    /// Waits for its end, with an asynchronous poll so that the test's own tasks go on.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A channel to the exchange of somebody with this identity.
    pub(crate) async fn channel(&self, connector: Connector) -> Result<Channel, tonic::transport::Error> {
        let (connector, address) = (Arc::new(connector), self.gateway.exchange);
        Endpoint::from_static("http://gateway")
            .connect_with_connector(tower::service_fn(move |_| {
                let connector = Arc::clone(&connector);
                async move {
                    let stream = TcpStream::connect(address).await?;
                    let gateway = SpiffeId::Gateway("be".parse().unwrap());
                    let stream = connector.connect(stream, &gateway).await.map_err(std::io::Error::other)?;
                    std::io::Result::Ok(TokioIo::new(stream))
                }
            }))
            .await
    }

    /// Enrols with a token and a new key.
    pub(crate) async fn enrol(&self, token: &str) -> (EnrollResponse, TlsKey) {
        let key = TlsKey::generate().unwrap();
        let request = certificate_request(&key).unwrap();
        (self.try_enrol(token, &request).await.unwrap(), key)
    }

    pub(crate) async fn try_enrol(
        &self,
        token: &str,
        request: &[u8],
    ) -> Result<EnrollResponse, tonic::Status> {
        let ca = token.parse::<liaison_gateway::enrolment::Token>().unwrap().ca;
        let channel = self.channel(Connector::pinned(ca)).await.unwrap();
        let certificate_request = request.to_vec().into();
        let request = EnrollRequest { token: token.to_owned(), certificate_request };
        Ok(EnrolmentServiceClient::new(channel).enroll(request).await?.into_inner())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A connector as an enrolled agency.
pub(crate) fn as_agency(enrolled: &EnrollResponse, key: &TlsKey) -> Connector {
    let bundle = enrolled.bundle.clone().unwrap();
    let roots = bundle.roots.iter().map(|root| root.to_vec().into()).collect();
    let chain = enrolled.certificates.iter().map(|der| der.to_vec().into()).collect();
    let trust = DomainTrust { domain: bundle.domain.parse().unwrap(), roots, crls: Vec::new() };
    Connector::new(trust, Some(Identity::new(chain, key.clone()).unwrap())).unwrap()
}

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_liaison-gateway"));
    program.env_remove("LIAISON_GATEWAY_DATA").stdin(Stdio::null());
    program
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
