//! RabbitMQ: a quorum queue for each connection, persistent messages, publisher confirms, acknowledgements by hand.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, future::LocalBoxFuture};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    tcp::{OwnedIdentity, OwnedTLSConfig},
    types::{AMQPValue, FieldTable},
};
use liaison_demo::{port::Port, process::Process};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Flights, nats::run};
use crate::{
    round::{Load, Outcome, Round},
    system::{self, Certificates, Ground, System},
    usage::Watched,
};

/// Debian's server, without the wrapper that runs it as another user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Deliveries without an acknowledgement on one connection.
const PREFETCH: u16 = 64;
const PERSISTENT: u8 = 2;

/// A node of its own, with the name server that it needs.
pub(crate) struct RabbitMq {
    process: Process,
    _names: Process,
    port: Port,
    certificates: Certificates,
    data: PathBuf,
}

impl RabbitMq {
    pub(crate) async fn start(ground: &Ground) -> Result<Self> {
        if !Path::new(SERVER).exists() {
            let package = ["install", "-y", "-qq", "--no-install-recommends", "rabbitmq-server"];
            run("apt-get".as_ref(), &package).await?;
        }
        let folder = ground.folder("rabbitmq")?;
        let [port, names, distribution] = [Port::free()?, Port::free()?, Port::free()?];
        let number = names.address.port();
        let arguments = ["-address", "127.0.0.1", "-port", &number.to_string()];
        let mut name_server = Process::start("epmd", "epmd".as_ref(), arguments, &folder.join("epmd.log"))?;
        system::listening("epmd", number, || name_server.check_running()).await?;

        let (data, log) = (folder.join("data"), folder.join("log"));
        let certificates = Certificates::of(&ground.certificates());
        fs::write(folder.join("rabbitmq.conf"), configuration(&port, &certificates))?;
        fs::write(folder.join("plugins"), "[].\n")?;
        let inside = |name: &str| folder.join(name).display().to_string();
        let environment = [
            // Without a shell around it, so that the process is the server's own.
            ("RABBITMQ_ALLOW_INPUT", "true".to_owned()),
            ("RABBITMQ_SERVER_START_ARGS", "-noinput".to_owned()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".to_owned()),
            ("RABBITMQ_NODENAME", format!("load-{number}@localhost")),
            ("RABBITMQ_DIST_PORT", distribution.address.port().to_string()),
            ("ERL_EPMD_PORT", number.to_string()),
            ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("plugins")),
            ("RABBITMQ_MNESIA_BASE", data.display().to_string()),
            ("RABBITMQ_LOG_BASE", inside("logs")),
            ("HOME", folder.display().to_string()),
        ];
        let mut arguments: Vec<String> =
            environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        arguments.push(SERVER.to_owned());
        let mut process = Process::start("rabbitmq-server", "env".as_ref(), arguments, &log)?;
        system::listening("rabbitmq-server", port.address.port(), || process.check_running()).await?;
        Ok(Self { process, _names: name_server, port, certificates, data })
    }

    async fn connect(&self) -> Result<Connection> {
        let (certificate, key) = &self.certificates.client;
        let tls = OwnedTLSConfig {
            identity: Some(OwnedIdentity::PKCS8 { pem: fs::read(certificate)?, key: fs::read(key)? }),
            cert_chain: Some(fs::read_to_string(&self.certificates.root)?),
        };
        let uri = format!("amqps://guest:guest@localhost:{}/%2f", self.port.address.port());
        let runtime = lapin::runtime::default_runtime()?;
        Ok(Connection::connect_with_config(&uri, ConnectionProperties::default(), tls, runtime).await?)
    }

    /// A connection with a channel to publish on, a consumer of its own queue, and the channel of that.
    async fn open(&self, connection: usize) -> Result<(Connection, Channel, Consumer, Channel)> {
        let client = self.connect().await?;
        let (publish, consume) = (client.create_channel().await?, client.create_channel().await?);
        publish.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut kind = FieldTable::default();
        kind.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        consume.queue_declare(queue(connection).into(), durable, kind).await?;
        consume.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer = consume
            .basic_consume(queue(connection).into(), "".into(), options, FieldTable::default())
            .await?;
        Ok((client, publish, consumer, consume))
    }

    async fn drive(&self, load: &Load) -> Result<Outcome> {
        let count = load.connections();
        let mut connections = Vec::new();
        for connection in 0..count {
            connections.push(self.open(connection).await?);
        }
        let watched = Watched {
            processes: vec![("rabbitmq".to_owned(), self.process.pid())],
            folders: vec![self.data.clone()],
        };
        let round = Round::start(load, watched)?;
        let flights: Vec<_> = (0..count).map(|connection| Flights::new(&round, connection)).collect();
        let (mut senders, mut receivers, mut clients) = (JoinSet::new(), JoinSet::new(), Vec::new());
        for (connection, (client, publish, mut consumer, consume)) in connections.into_iter().enumerate() {
            let of =
                |connection: usize| flights.get(connection % count).cloned().context("no such connection");
            let (own, before, round) = (of(connection)?, of(connection + count - 1)?, Arc::clone(&round));
            let to = queue((connection + 1) % count);
            // Channels that nobody has any more are closed.
            clients.push((client, publish.clone(), consume));
            let (confirm, mut confirming) = mpsc::channel(load.in_flight());
            let confirmed = Arc::clone(&own);
            senders.spawn(async move {
                let persistent = BasicProperties::default().with_delivery_mode(PERSISTENT);
                for number in 0.. {
                    let Some(since) = round.turn(connection, number).await else { break };
                    let (payload, options) = (own.publish(number, since), BasicPublishOptions::default());
                    let answer = publish
                        .basic_publish("".into(), to.as_str().into(), options, &payload, persistent.clone())
                        .await?;
                    confirm.send((number, answer)).await?;
                }
                Ok(())
            });
            senders.spawn(async move {
                while let Some((number, answer)) = confirming.recv().await {
                    ensure!(answer.await?.is_ack(), "RabbitMQ did not take a message");
                    confirmed.confirmed(number);
                }
                Ok(())
            });
            receivers.spawn(async move {
                loop {
                    let delivery = consumer.next().await.context("the consumer ended")??;
                    delivery.ack(BasicAckOptions::default()).await?;
                    before.consumed(&delivery.data)?;
                }
            });
        }
        round.run(senders, receivers).await?;
        let outcome = round.outcome();
        for (client, ..) in clients {
            client.close(200, "".into()).await?;
        }
        outcome
    }
}

impl System for RabbitMq {
    fn prepare(&mut self, _messages: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn round<'a>(&'a mut self, load: &'a Load) -> LocalBoxFuture<'a, Result<Outcome>> {
        Box::pin(self.drive(load))
    }
}

fn queue(connection: usize) -> String {
    format!("load.{connection}")
}

fn configuration(port: &Port, certificates: &Certificates) -> String {
    let (certificate, key) = &certificates.server;
    format!(
        "listeners.tcp = none\nlisteners.ssl.default = {}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
        port.address,
        certificates.root.display(),
        certificate.display(),
        key.display(),
    )
}
