//! An agency's agent as its IT and its caseworker system see it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    Gateway,
    http::{self, Answer},
    port::Port,
    process::{self, Process, Programs},
    wait,
};

/// On whose behalf this caller asks, unless it says otherwise.
pub const ACTOR: &str = "caseworker-7";

/// An agency's agent: its folder, its addresses and, while it runs, its process.
#[derive(Debug)]
pub struct Agent {
    /// `<domain>/<name>`.
    pub agency: String,
    pub data: PathBuf,
    pub log: PathBuf,
    pub programs: Programs,
    grpc: Port,
    rest: Port,
    process: Option<Process>,
}

impl Agent {
    /// Enrols an agency with a token that the gateway's administrator makes, into a folder of its own
    /// under `folder`; it does not run yet.
    pub async fn enrol(gateway: &Gateway, folder: &Path, agency: &str) -> Result<Self> {
        let token = gateway.token(agency).await?;
        let agent = Self::named(&gateway.programs, folder, agency)?;
        let (grpc, rest) = (agent.grpc().to_string(), agent.rest().to_string());
        agent.command(&["enroll", &token, "--grpc", &grpc, "--rest", &rest]).await?;
        Ok(agent)
    }

    /// An agent that is not enrolled: a folder to come, and free ports.
    pub fn named(programs: &Programs, folder: &Path, agency: &str) -> Result<Self> {
        let name = format!("agent-{}", agency.replace('/', "-"));
        Ok(Self {
            agency: agency.to_owned(),
            data: folder.join(&name),
            log: folder.join(format!("{name}.log")),
            programs: programs.clone(),
            grpc: Port::free()?,
            rest: Port::free()?,
            process: None,
        })
    }

    /// Has it reach its gateway there, from its next start on.
    pub fn move_to(&self, gateway: SocketAddr) -> Result<()> {
        let config = fs::read_to_string(self.config())?;
        let moved = config.lines().map(|line| match line.starts_with("gateway = ") {
            true => format!("gateway = \"{gateway}\"\n"),
            false => format!("{line}\n"),
        });
        Ok(fs::write(self.config(), moved.collect::<String>())?)
    }

    /// Where its gRPC API is.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc.address
    }

    /// Where its REST API is.
    pub fn rest(&self) -> SocketAddr {
        self.rest.address
    }

    pub fn config(&self) -> PathBuf {
        self.data.join("agent.toml")
    }

    /// The token that its caseworker system shows.
    pub fn api_token(&self) -> Result<String> {
        let path = self.data.join("api-token");
        let token = fs::read_to_string(&path).with_context(|| format!("{} is missing", path.display()))?;
        Ok(token.trim().to_owned())
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Starts it and waits until its API answers.
    pub async fn start(&mut self) -> Result<()> {
        let name = format!("the agent of {}", self.agency);
        let data = self.data.to_string_lossy().into_owned();
        let process = Process::start(&name, &self.programs.agent, ["--data", &data, "run"], &self.log)?;
        let process = self.process.insert(process);
        let rest = self.rest.address;
        wait::until(&format!("{name} answers"), async || {
            if let Err(ended) = process.check_running() {
                return Some(Err(ended));
            }
            let answer = http::request(rest, "GET", "/livez", &[], &[]).await.ok()?;
            (answer.status == 200).then_some(Ok(()))
        })
        .await?
    }

    /// Waits until it has a session with its gateway.
    pub async fn connected(&self) -> Result<()> {
        wait::until(&format!("the agent of {} is connected", self.agency), async || {
            let status = self.get("/v1/status").await.ok()?;
            (status.get("connected") == Some(&Value::Bool(true))).then_some(())
        })
        .await
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the agent does not run")?.kill()
    }

    /// Ends it as its host's service manager would, and waits until it has drained.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.process.take().context("the agent does not run")?.stop().await?;
        anyhow::ensure!(status.success(), "the agent of {} drained badly: {status}", self.agency);
        Ok(())
    }

    /// Runs one of its commands; what it printed.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        process::text(&self.programs.agent, self.arguments(arguments)).await
    }

    /// Runs one of its commands, whatever its end.
    pub async fn attempt(&self, arguments: &[&str]) -> Result<Output> {
        process::output(&self.programs.agent, self.arguments(arguments)).await
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let data = self.data.to_string_lossy().into_owned();
        ["--data".to_owned(), data]
            .into_iter()
            .chain(arguments.iter().map(|argument| (*argument).to_owned()))
            .collect()
    }

    /// Calls its REST API as its caseworker system does.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let bearer = format!("Bearer {}", self.api_token()?);
        let mut headers = vec![
            ("authorization", bearer.as_str()),
            ("liaison-actor", ACTOR),
            ("content-type", "application/json"),
        ];
        headers.extend_from_slice(more);
        let body = body.map(Value::to_string).unwrap_or_default();
        http::request(self.rest.address, method, path, &headers, body.as_bytes()).await
    }

    /// Reads from its REST API; an error where it refuses.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.call("GET", path, &[], None).await?;
        anyhow::ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }

    /// Posts to its REST API; an error where it refuses.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.call("POST", path, &[], Some(body)).await?;
        anyhow::ensure!(
            (200..300).contains(&answer.status),
            "POST {path}: {} {}",
            answer.status,
            answer.text()
        );
        Ok(answer.json())
    }
}
