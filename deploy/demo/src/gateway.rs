//! A gateway as its administrator sees it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Place, http,
    port::Port,
    process::{self, Process, Programs},
    wait,
};

/// An agency that an administrator makes a member of the domain.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// `<domain>/<name>`.
    pub address: &'a str,
    pub name: &'a str,
    /// ISO 3166-1 alpha-2, lower case.
    pub country: &'a str,
    /// By their names in the vocabulary.
    pub sectors: &'a [&'a str],
    pub groups: &'a [&'a str],
    /// What it offers: service types by their names, languages (ISO 639), age bands by their names.
    pub services: &'a [&'a str],
    pub languages: &'a [&'a str],
    pub ages: &'a [&'a str],
}

impl Member<'_> {
    /// A member of no sector and no group that offers nothing, to fill in.
    pub const NOBODY: Member<'static> = Member {
        address: "",
        name: "",
        country: "",
        sectors: &[],
        groups: &[],
        services: &[],
        languages: &[],
        ages: &[],
    };
}

/// What one administrator hands to another, so that their domains become peers.
#[derive(Debug, Clone, Deserialize)]
pub struct Invitation {
    /// The domain's bundle as text.
    pub bundle: String,
    /// What the two read out to one another.
    pub fingerprint: String,
}

/// A domain's gateway: its folder, its addresses and, while it runs, its process.
#[derive(Debug)]
pub struct Gateway {
    pub domain: String,
    pub data: PathBuf,
    pub log: PathBuf,
    pub programs: Programs,
    exchange: Port,
    metrics: Port,
    federation: Port,
    process: Option<Process>,
}

impl Gateway {
    /// Makes the domain in a folder of its own under `folder`, with the policies of another; it does
    /// not run yet.
    pub async fn create(programs: &Programs, folder: &Path, domain: &str, policies: &Path) -> Result<Self> {
        let host = programs.host.as_deref();
        let gateway = Self {
            domain: domain.to_owned(),
            data: folder.join(format!("gateway-{domain}")),
            log: folder.join(format!("gateway-{domain}.log")),
            programs: programs.clone(),
            exchange: Port::on(host)?,
            metrics: Port::on(host)?,
            federation: Port::outside(host)?,
            process: None,
        };
        let (exchange, metrics) = (gateway.exchange().to_string(), gateway.metrics().to_string());
        let federation = gateway.federation().to_string();
        let policies = policies.to_string_lossy();
        gateway
            .command(&[
                "init",
                "--domain",
                domain,
                "--exchange",
                &exchange,
                "--metrics",
                &metrics,
                "--federation",
                &federation,
                "--policies",
                &policies,
            ])
            .await?;
        Ok(gateway)
    }

    /// Where agents connect.
    pub fn exchange(&self) -> SocketAddr {
        self.exchange.address
    }

    /// Where metrics and probes are served.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics.address
    }

    /// Where peers connect.
    pub fn federation(&self) -> SocketAddr {
        self.federation.address
    }

    /// An address of its host, for callers elsewhere.
    pub fn place(&self, address: SocketAddr) -> Place {
        Place { address, host: self.programs.host.clone() }
    }

    pub fn config(&self) -> PathBuf {
        self.data.join("gateway.toml")
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Adds lines to the end of its configuration, for its next start.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let config = fs::read_to_string(self.config())?;
        fs::write(self.config(), format!("{config}\n{lines}\n"))?;
        Ok(())
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) -> Result<()> {
        let name = format!("the gateway of {}", self.domain);
        let data = self.data.to_string_lossy().into_owned();
        let host = self.programs.host.as_deref();
        let arguments = ["--data", &data, "run"];
        let process = Process::start(&name, host, &self.programs.gateway, arguments, &self.log)?;
        let metrics = self.place(self.metrics());
        let process = self.process.insert(process);
        wait::until(&format!("{name} is ready"), async || {
            if let Err(ended) = process.check_running() {
                return Some(Err(ended));
            }
            let answer = http::request(metrics.clone(), "GET", "/readyz", &[], &[]).await.ok()?;
            (answer.status == 200).then_some(Ok(()))
        })
        .await?
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the gateway does not run")?.kill()
    }

    /// Stops it where it stands, connections open, until [`Gateway::resume`].
    pub fn pause(&self) -> Result<()> {
        self.process.as_ref().context("the gateway does not run")?.pause()
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().context("the gateway does not run")?.resume()
    }

    /// Ends it as an administrator would, and waits until it has drained.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.process.take().context("the gateway does not run")?.stop().await?;
        anyhow::ensure!(status.success(), "the gateway of {} drained badly: {status}", self.domain);
        Ok(())
    }

    /// Runs one of its commands; what it printed.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        process::text(self.programs.host.as_deref(), &self.programs.gateway, self.arguments(arguments)).await
    }

    /// Runs one of its commands, whatever its end.
    pub async fn attempt(&self, arguments: &[&str]) -> Result<Output> {
        process::output(self.programs.host.as_deref(), &self.programs.gateway, self.arguments(arguments))
            .await
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let data = self.data.to_string_lossy().into_owned();
        ["--data".to_owned(), data]
            .into_iter()
            .chain(arguments.iter().map(|argument| (*argument).to_owned()))
            .collect()
    }

    /// Makes an agency a member.
    pub async fn add(&self, member: &Member<'_>) -> Result<()> {
        let mut arguments =
            vec!["agency", "add", member.address, "--name", member.name, "--country", member.country];
        for sector in member.sectors {
            arguments.extend(["--sector", sector]);
        }
        for group in member.groups {
            arguments.extend(["--group", group]);
        }
        for service in member.services {
            arguments.extend(["--service", service]);
        }
        for language in member.languages {
            arguments.extend(["--language", language]);
        }
        for age in member.ages {
            arguments.extend(["--age", age]);
        }
        self.command(&arguments).await.map(drop)
    }

    /// Makes a one-time token with which an agency enrols.
    pub async fn token(&self, address: &str) -> Result<String> {
        self.command(&["token", "create", address]).await
    }

    /// Makes the policies of a folder the active ones.
    pub async fn load_policies(&self, folder: &Path) -> Result<()> {
        self.command(&["policy", "load", &folder.to_string_lossy()]).await.map(drop)
    }

    /// This domain's invitation to become its peer.
    pub async fn invite(&self) -> Result<Invitation> {
        let told = self.command(&["peer", "invite", "--json"]).await?;
        serde_json::from_str(&told).with_context(|| format!("peer invite printed {told}"))
    }

    /// Accepts another domain's invitation, whose fingerprint was read out.
    pub async fn accept(&self, from: &Self, invitation: &Invitation) -> Result<()> {
        let file = self.data.with_file_name(format!("{}-for-{}.bundle", from.domain, self.domain));
        fs::write(&file, &invitation.bundle)?;
        let file = file.to_string_lossy();
        let accept = ["peer", "accept", &file, "--fingerprint", &invitation.fingerprint];
        self.command(&accept).await.map(drop)
    }

    /// Peers with another domain as the two administrators do: each invites, and each accepts what the
    /// other reads out. A bundle names the countries of the agencies that are members by now.
    pub async fn peer_with(&self, other: &Self) -> Result<()> {
        let (ours, theirs) = (self.invite().await?, other.invite().await?);
        ensure!(ours.fingerprint != theirs.fingerprint, "two domains have one fingerprint");
        self.accept(other, &theirs).await?;
        other.accept(self, &ours).await
    }

    /// What this gateway knows of a peer, as `peer show --json` tells it.
    pub async fn peer(&self, domain: &str) -> Result<Value> {
        let told = self.command(&["peer", "show", domain, "--json"]).await?;
        serde_json::from_str(&told).with_context(|| format!("peer show printed {told}"))
    }

    /// Waits until links to and from a peer stand and messages may cross them.
    pub async fn linked(&self, domain: &str) -> Result<()> {
        let mut last = Value::Null;
        wait::until(&format!("{} and {domain} are linked", self.domain), async || {
            last = self.peer(domain).await.ok()?;
            let is = |field: &str| last.get(field) == Some(&Value::Bool(true));
            (is("linked") && is("linked_from") && is("same_scheme")).then_some(())
        })
        .await
        .with_context(|| format!("{domain} was last seen as {last}"))
    }
}
