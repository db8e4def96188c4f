//! A gateway as its administrator sees it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    http,
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
    /// What it offers, by their names in the vocabulary.
    pub services: &'a [&'a str],
    /// ISO 639.
    pub languages: &'a [&'a str],
    /// Ages served; all of them if empty.
    pub ages: &'a [&'a str],
}

/// A domain's bundle in a file, and what its administrator reads out on the telephone.
#[derive(Debug, Clone)]
pub struct Invitation {
    pub file: PathBuf,
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
    federation: Port,
    metrics: Port,
    process: Option<Process>,
}

impl Gateway {
    /// Makes the domain in a folder of its own under `folder`, with the policies of another; it does
    /// not run yet.
    pub async fn create(programs: &Programs, folder: &Path, domain: &str, policies: &Path) -> Result<Self> {
        Self::create_with(programs, folder, domain, policies, &[]).await
    }

    /// The same with more arguments of `init`.
    pub async fn create_with(
        programs: &Programs,
        folder: &Path,
        domain: &str,
        policies: &Path,
        more: &[&str],
    ) -> Result<Self> {
        let gateway = Self {
            domain: domain.to_owned(),
            data: folder.join(format!("gateway-{domain}")),
            log: folder.join(format!("gateway-{domain}.log")),
            programs: programs.clone(),
            exchange: Port::free()?,
            federation: Port::free()?,
            metrics: Port::free()?,
            process: None,
        };
        let [exchange, federation, metrics] =
            [&gateway.exchange, &gateway.federation, &gateway.metrics].map(|port| port.address.to_string());
        let policies = policies.to_string_lossy();
        let init = [
            "init",
            "--domain",
            domain,
            "--exchange",
            &exchange,
            "--federation",
            &federation,
            "--metrics",
            &metrics,
            "--policies",
            &policies,
        ];
        gateway.command(&[init.as_slice(), more].concat()).await?;
        Ok(gateway)
    }

    /// The gateway of a copy of its data folder, which goes to another folder, with ports of its own. Neither runs.
    pub fn copied(&self, folder: &Path) -> Result<Self> {
        anyhow::ensure!(self.process.is_none(), "a gateway that runs can't be copied");
        let copy = Self {
            domain: self.domain.clone(),
            data: folder.join(format!("gateway-{}", self.domain)),
            log: folder.join(format!("gateway-{}.log", self.domain)),
            programs: self.programs.clone(),
            exchange: Port::free()?,
            federation: Port::free()?,
            metrics: Port::free()?,
            process: None,
        };
        copy_folder(&self.data, &copy.data)?;
        let mut config = fs::read_to_string(copy.config())?;
        for (old, new) in [
            (&self.exchange, &copy.exchange),
            (&self.federation, &copy.federation),
            (&self.metrics, &copy.metrics),
        ] {
            config = config.replace(&old.address.to_string(), &new.address.to_string());
        }
        fs::write(copy.config(), config)?;
        Ok(copy)
    }

    /// Where agents connect.
    pub fn exchange(&self) -> SocketAddr {
        self.exchange.address
    }

    /// Where gateways of other domains connect.
    pub fn federation(&self) -> SocketAddr {
        self.federation.address
    }

    /// Where metrics and probes are served.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics.address
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
        let process = Process::start(&name, &self.programs.gateway, ["--data", &data, "run"], &self.log)?;
        let process = self.process.insert(process);
        let metrics = self.metrics.address;
        wait::until(&format!("{name} is ready"), async || {
            if let Err(ended) = process.check_running() {
                return Some(Err(ended));
            }
            let answer = http::request(metrics, "GET", "/readyz", &[], &[]).await.ok()?;
            (answer.status == 200).then_some(Ok(()))
        })
        .await?
    }

    /// Waits until it has ended by itself; why, with the end of its log.
    pub async fn ended(&mut self) -> Result<String> {
        let mut process = self.process.take().context("the gateway does not run")?;
        let what = format!("the gateway of {} ends by itself", self.domain);
        wait::until(&what, async || process.check_running().err().map(|ended| ended.to_string())).await
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the gateway does not run")?.kill()
    }

    /// Stops it where it stands, as a machine that hangs.
    pub async fn freeze(&self) -> Result<()> {
        self.signal("STOP").await
    }

    /// Lets it go on.
    pub async fn thaw(&self) -> Result<()> {
        self.signal("CONT").await
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().context("the gateway does not run")?.to_string();
        process::text("kill".as_ref(), ["-s", signal, &pid]).await.map(drop)
    }

    /// Ends it as an administrator would, and waits until it has drained.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.process.take().context("the gateway does not run")?.stop().await?;
        anyhow::ensure!(status.success(), "the gateway of {} drained badly: {status}", self.domain);
        Ok(())
    }

    /// Runs one of its commands; what it printed.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        process::text(&self.programs.gateway, self.arguments(arguments)).await
    }

    /// Runs one of its commands, whatever its end.
    pub async fn attempt(&self, arguments: &[&str]) -> Result<Output> {
        process::output(&self.programs.gateway, self.arguments(arguments)).await
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
        for (flag, values) in [
            ("--group", member.groups),
            ("--service", member.services),
            ("--language", member.languages),
            ("--age", member.ages),
        ] {
            arguments.extend(values.iter().flat_map(|value| [flag, value]));
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

    /// Peers with another running domain as two administrators do: each hands the other its bundle in a
    /// file, reads the fingerprint out, and accepts the file under the fingerprint that it heard.
    pub async fn peer_with(&self, other: &Self) -> Result<()> {
        let (mine, theirs) = (self.invite().await?, other.invite().await?);
        self.accept(&theirs).await?;
        other.accept(&mine).await
    }

    /// Makes an invitation for another domain's administrator.
    pub async fn invite(&self) -> Result<Invitation> {
        let made: Value = serde_json::from_str(&self.command(&["--json", "peer", "invite"]).await?)?;
        let field = |name: &str| {
            let text = made.get(name).and_then(Value::as_str);
            text.map(str::to_owned).with_context(|| format!("the invitation has no {name}"))
        };
        let folder = self.data.parent().context("the data folder has no parent")?;
        let file = folder.join(format!("{}.bundle", self.domain));
        fs::write(&file, field("bundle")?)?;
        Ok(Invitation { file, fingerprint: field("fingerprint")? })
    }

    /// Believes another domain's bundle.
    pub async fn accept(&self, invitation: &Invitation) -> Result<()> {
        let file = invitation.file.to_string_lossy();
        let fingerprint = &invitation.fingerprint;
        self.command(&["peer", "accept", &file, "--fingerprint", fingerprint]).await.map(drop)
    }

    /// What `peer show` says of another domain.
    pub async fn peer(&self, domain: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.command(&["--json", "peer", "show", domain]).await?)?)
    }

    /// Waits until the links with another domain stand in both directions and both have one scheme.
    pub async fn linked(&self, domain: &str) -> Result<()> {
        let mut last = Value::Null;
        wait::until(&format!("{} and {domain} are linked", self.domain), async || {
            last = self.peer(domain).await.ok()?;
            let stands = |field: &str| last.get(field) == Some(&Value::Bool(true));
            (stands("linked") && stands("linked_from") && stands("same_scheme")).then_some(())
        })
        .await
        .with_context(|| format!("it was last {last}"))
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&from, &to)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
