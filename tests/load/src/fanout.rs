//! Many agencies: what a gateway pays for those that are connected and idle, and how soon an alert reaches all of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::{Args, value_parser};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use liaison_demo::Programs;
use liaison_proto::{
    exchange::v1::Ack,
    limits::RECIPIENTS,
    message::v1::{Manifest, Notice, notice::Event},
};
use liaison_tests::insider::Insider;
use prost::Message as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    gateway::{
        GatewayAlone, crowd,
        session::{Heard, Session},
        stock,
    },
    limits,
    report::{Summary, median, rounded},
    round::Load,
    system::Ground,
    usage::Watched,
};

/// How many agencies.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Agencies that are alerted first
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(limits::CROWD))]
    agencies: u32,
    /// Agencies that are connected, all of which are alerted then
    #[arg(long, default_value_t = 5_000, value_parser = value_parser!(u32).range(limits::CROWD))]
    idle: u32,
}

/// Agencies that are connected, and one that alerts them.
struct Alarm {
    sender: Arc<Insider>,
    session: Session,
    submitted: u64,
    crowd: Vec<Arc<Insider>>,
    /// They answer what they get, and tell when they got it.
    listening: JoinSet<Result<()>>,
    had: mpsc::UnboundedReceiver<Instant>,
    watched: Watched,
}

/// What one alert came to. Times are from the moment at which its first byte went.
struct Alerted {
    accepted: Duration,
    /// The last recipient had it.
    last: Duration,
    /// The sender had the word of all recipients that they have it.
    acknowledged: Duration,
    /// Of the gateway, until then, microseconds a recipient.
    cpu: f64,
}

/// Runs it and prints what it came to.
pub(crate) async fn run(options: &Options, load: Load, json: bool) -> Result<()> {
    let (agencies, idle) = (options.agencies as usize, options.idle as usize);
    ensure!(agencies <= idle, "no more agencies can be alerted than are connected: raise --idle");
    let (programs, ground) = (Programs::beside_this_one()?, Ground::new()?);
    let folder = ground.folder("gateway")?;
    allow_files(idle as u64)?;
    eprintln!("measuring a message");
    let mut gateway = GatewayAlone::start(&programs, &folder, load.connections).await?;
    let message = Summary::of("gateway", &gateway.closed(&load, limits::ALERTS).await?)?;
    eprintln!("enrolling {idle} agencies");
    let mut crowd = crowd::enrol(gateway.gateway(), idle).await?;
    let heads = stock::heads(crowd.first().context("there are no agencies")?).await?;
    for agency in &mut crowd {
        [agency.log_head, agency.keys_head] = heads.clone();
    }
    // What enrolling left in its memory would serve the sessions.
    gateway.stop().await?;
    gateway.start_again().await?;
    sleep(limits::SETTLE).await;
    let memory = |watched: &Watched| -> Result<u64> {
        Ok(watched.used()?.processes.iter().map(|process| process.memory).sum())
    };
    let before = memory(&gateway.watched()?)?;
    eprintln!("connecting them");
    let mut alarm = Alarm::connect(&gateway, crowd).await?;
    sleep(limits::SETTLE).await;
    let each = |memory: u64| memory.saturating_sub(before) / idle as u64;
    let connected = memory(&alarm.watched)?;
    let mut told = Vec::new();
    for count in [agencies, idle] {
        let mut alerts = Vec::new();
        for number in 1..=limits::ALERTS {
            eprintln!("alert {number} of {} to {count} agencies", limits::ALERTS);
            let alerted = timeout(limits::ALERT, alarm.alert(count)).await;
            alerts.push(alerted.context("an alert does not reach everybody").flatten()?);
        }
        told.push(summary(count, &alerts, message.cpu()));
    }
    sleep(limits::SETTLE).await;
    let alerted = memory(&alarm.watched)?;
    let all = json!({
        "message_cpu_us": rounded(message.cpu()),
        "idle": {
            "agencies": idle,
            "rss_bytes_before": before,
            "rss_bytes": connected,
            "rss_bytes_each": each(connected),
            "rss_bytes_each_after_alerts": each(alerted),
        },
        "alerts": told,
    });
    if json {
        println!("{all}");
    } else {
        println!("{all:#}");
    }
    Ok(())
}

/// Medians of alerts to so many recipients.
fn summary(recipients: usize, alerts: &[Alerted], message: f64) -> Value {
    let of = |value: fn(&Alerted) -> f64| median(alerts.iter().map(value).collect());
    let cpu = of(|alert| alert.cpu);
    json!({
        "recipients": recipients,
        "accepted_ms": rounded(of(|alert| alert.accepted.as_secs_f64() * 1e3)),
        "last_ms": rounded(of(|alert| alert.last.as_secs_f64() * 1e3)),
        "acknowledged_ms": rounded(of(|alert| alert.acknowledged.as_secs_f64() * 1e3)),
        "cpu_us_per_recipient": rounded(cpu),
        "cpu_to_message": (cpu / message * 1e3).round() / 1e3,
    })
}

/// Lets this program and what it starts have a file for each connection.
fn allow_files(connections: u64) -> Result<()> {
    let needed = connections + limits::OTHER_FILES;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    ensure!(
        limit.current.is_none_or(|current| current >= needed),
        "{needed} files have to be open: raise the hard limit, `ulimit -Hn`"
    );
    Ok(())
}

impl Alarm {
    async fn connect(gateway: &GatewayAlone, crowd: Vec<Insider>) -> Result<Self> {
        let crowd: Vec<Arc<Insider>> = crowd.into_iter().map(Arc::new).collect();
        let open = stream::iter(&crowd).map(|agency| Session::open(agency)).buffered(limits::OPENING);
        let sessions: Vec<Session> = open.try_collect().await?;
        let (tell, had) = mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        for (agency, session) in crowd.iter().zip(sessions) {
            listening.spawn(listen(Arc::clone(agency), session, tell.clone()));
        }
        let sender = gateway.cast().sender()?;
        let session = Session::open(&sender).await?;
        let watched = gateway.watched()?;
        Ok(Self { sender, session, submitted: 0, crowd, listening, had, watched })
    }

    /// Alerts the first so many agencies, with several messages where one may not have as many recipients.
    async fn alert(&mut self, count: usize) -> Result<Alerted> {
        let to = self.crowd.get(..count).context("there are not as many agencies")?;
        let parts = count.div_ceil(RECIPIENTS);
        let seal = |part: &[Arc<Insider>]| stock::alert(&self.sender, part);
        let envelopes: Vec<Bytes> = to.chunks(count.div_ceil(parts)).map(seal).collect::<Result<_>>()?;
        let used = self.watched.used()?;
        let start = Instant::now();
        for envelope in envelopes {
            self.session.submit(self.submitted, envelope).await?;
            self.submitted += 1;
        }
        let (mut unanswered, mut without, mut unacknowledged) = (parts, count, count);
        let (mut accepted, mut last) = (Duration::ZERO, Duration::ZERO);
        while unanswered + without + unacknowledged > 0 {
            tokio::select! {
                heard = self.session.next() => match heard? {
                    Heard::Accepted(_) => {
                        unanswered -= 1;
                        accepted = start.elapsed();
                    }
                    Heard::Notice(attempt, notice) => {
                        self.session.answer(Ack { attempt, acknowledgement: None }).await?;
                        match Notice::decode(notice.notice)?.event {
                            Some(Event::Acknowledged(_)) => unacknowledged -= 1,
                            other => bail!("an alert was not delivered: {other:?}"),
                        }
                    }
                    Heard::Copy(..) => bail!("the sender was sent a message"),
                },
                Some(at) = self.had.recv() => {
                    without -= 1;
                    last = last.max(at - start);
                }
                Some(ended) = self.listening.join_next() => {
                    ended??;
                    bail!("a session ended");
                }
            }
        }
        let acknowledged = start.elapsed();
        let cpu =
            |used: &[crate::usage::ProcessUse]| used.iter().map(|process| process.cpu).sum::<Duration>();
        let cpu = cpu(&self.watched.used()?.processes).saturating_sub(cpu(&used.processes));
        Ok(Alerted { accepted, last, acknowledged, cpu: cpu.as_secs_f64() * 1e6 / count as f64 })
    }
}

/// An agency that acknowledges whatever comes, and tells when it came.
async fn listen(
    agency: Arc<Insider>,
    mut session: Session,
    had: mpsc::UnboundedSender<Instant>,
) -> Result<()> {
    loop {
        let Heard::Copy(attempt, copy) = session.next().await? else {
            bail!("{} was sent no message", agency.address);
        };
        had.send(Instant::now())?;
        let id = Manifest::decode(copy.manifest.clone())?.message_id;
        let acknowledgement = Some(agency.acknowledge(&copy.manifest, &id)?);
        session.answer(Ack { attempt, acknowledgement }).await?;
    }
}
