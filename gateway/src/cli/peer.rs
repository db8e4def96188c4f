//! `peer`: the domains that this one exchanges messages with.

use std::{
    fmt::Write,
    fs,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use liaison_proto::{
    admin::v1::{AcceptPeerRequest, InvitePeerRequest, ListPeersRequest, PeerRequest, PeerStatus},
    limits::BUNDLE_BYTES,
};
use liaison_trust::names::Domain;
use serde_json::{Value, json};

use super::{
    Failure,
    output::{Output, moment, table},
    refused,
};
use crate::{admin::connect, data::DataFolder, federation::bundle::Bundle};

/// What to do with peers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print this domain's bundle for the other domain's administrator, and the fingerprint to compare by
    /// telephone
    Invite,
    /// Accept another domain's bundle, once its fingerprint was compared; traffic flows when both have
    Accept(Accept),
    /// List all peers, and which are linked with this gateway
    List,
    /// Show one peer
    Show(Peer),
    /// Stop all traffic with a domain at once, until it is resumed; what waits for it is kept
    Suspend(Peer),
    /// Let traffic with a suspended domain flow again
    Resume(Peer),
    /// End a peering at once: what waits for the domain goes back to the senders
    Remove(Peer),
}

/// A bundle to accept.
#[derive(Debug, Args)]
pub struct Accept {
    /// The file with the bundle that the other administrator sent; - for standard input
    #[arg(value_name = "FILE")]
    bundle: PathBuf,
    /// The fingerprint as the other administrator read it out; without it, the bundle is only shown
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
}

/// One peer.
#[derive(Debug, Args)]
pub struct Peer {
    /// Its domain, such as hu
    #[arg(value_name = "DOMAIN")]
    domain: Domain,
}

impl From<Peer> for PeerRequest {
    fn from(Peer { domain }: Peer) -> Self {
        Self { domain: domain.to_string() }
    }
}

pub(super) async fn execute(folder: &DataFolder, command: Command, output: Output) -> anyhow::Result<()> {
    if let Command::Accept(Accept { bundle, fingerprint: None }) = &command {
        return show_bundle(&read(bundle)?);
    }
    let mut gateway = connect(folder).await?;
    let answer = match command {
        Command::Invite => {
            let invitation = gateway.invite_peer(InvitePeerRequest {}).await.map_err(refused)?.into_inner();
            let json = json!({"bundle": invitation.bundle, "fingerprint": invitation.fingerprint});
            output.print(&json, || format!("{}\n{}", invitation.bundle, invitation.fingerprint))?;
            let bundle = Bundle::from_text(&invitation.bundle).ok();
            if bundle.as_ref().is_some_and(|bundle| bundle.countries.is_empty()) {
                eprintln!(
                    "this domain has no agencies yet, so the bundle names no country, and whoever accepts it takes \
                     messages of none: add agencies with `liaison-gateway agency add` before you send it"
                );
            }
            if let Some(bundle) = bundle
                && bundle.addresses.iter().all(|address| is_loopback(address))
            {
                eprintln!(
                    "the bundle names {} alone, which only this machine can reach: set `federation` and `names` in \
                     gateway.toml and restart the gateway before you send it",
                    bundle.addresses.join(", ")
                );
            }
            return Ok(());
        }
        Command::List | Command::Show(_) => {
            let peers = gateway.list_peers(ListPeersRequest {}).await.map_err(refused)?.into_inner().peers;
            let Command::Show(Peer { domain }) = command else {
                let json = json!({"peers": peers.iter().map(to_json).collect::<Vec<_>>()});
                output.print(&json, || list(&peers))?;
                return Ok(());
            };
            let peer = peers.into_iter().find(|peer| peer.domain == domain.as_str()).ok_or_else(|| {
                Failure::failed(
                    "unknown_domain",
                    format!("{domain} is no peer of this domain"),
                    "see `liaison-gateway peer list`",
                )
            })?;
            output.print(&to_json(&peer), || show(&peer))?;
            return Ok(());
        }
        Command::Accept(Accept { bundle, fingerprint }) => {
            let request =
                AcceptPeerRequest { bundle: read(&bundle)?, fingerprint: fingerprint.unwrap_or_default() };
            let accepted = gateway.accept_peer(request).await;
            if let Ok(peer) = &accepted
                && peer.get_ref().countries.is_empty()
            {
                let domain = &peer.get_ref().domain;
                eprintln!(
                    "the bundle of {domain} names no country, so nothing is taken from its agencies: once it has \
                     some, ask for a new bundle and accept that"
                );
            }
            accepted
        }
        Command::Suspend(peer) => gateway.suspend_peer(PeerRequest::from(peer)).await,
        Command::Resume(peer) => gateway.resume_peer(PeerRequest::from(peer)).await,
        Command::Remove(peer) => gateway.remove_peer(PeerRequest::from(peer)).await,
    };
    let peer = answer.map_err(refused)?.into_inner();
    output.print(&to_json(&peer), || show(&peer))?;
    Ok(())
}

fn is_loopback(address: &str) -> bool {
    address.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback())
}

/// The text of a bundle: of what `invite` prints, the first line counts.
fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let most = (BUNDLE_BYTES * 4) as u64;
    let read = if path == Path::new("-") {
        io::stdin().take(most).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    read.map_err(|error| {
        let message = format!("{} can't be read ({error})", path.display());
        Failure::failed(
            "unreadable",
            message,
            "name the file with the bundle that the other administrator sent",
        )
    })?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Shows what a bundle says, and how to accept it.
fn show_bundle(text: &str) -> anyhow::Result<()> {
    let bundle = Bundle::from_text(text)?;
    let message = format!(
        "the bundle says that it is of the domain {}, with the fingerprint {}, at {}, for {}; nothing was accepted",
        bundle.domain,
        bundle.fingerprint(),
        bundle.addresses.join(", "),
        match bundle.countries.iter().cloned().collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "no country, because the domain has no agencies".to_owned(),
            countries => format!("the countries {countries}"),
        }
    );
    let action = "call the other domain's administrator at a number that you know, have the fingerprint read out, \
                  and give it with --fingerprint";
    Err(Failure::wrong_use(message, action).into())
}

/// What is wrong and what to do, where something is.
fn problem(peer: &PeerStatus) -> String {
    if !peer.problem.is_empty() || peer.unconfirmed_countries.is_empty() {
        return peer.problem.clone();
    }
    format!(
        "messages from {} are not taken: its administrator has to confirm that {} speaks for it; then accept its bundle \
         anew",
        peer.unconfirmed_countries.join(", "),
        peer.domain
    )
}

fn list(peers: &[PeerStatus]) -> String {
    if peers.is_empty() {
        return "no peers yet; exchange bundles with `liaison-gateway peer invite` and `peer accept`"
            .to_owned();
    }
    let row = |peer: &PeerStatus| {
        [
            peer.domain.clone(),
            peer.state().as_str_name().to_owned(),
            yes(peer.linked),
            yes(peer.linked_from),
            yes(peer.same_scheme),
            peer.agencies.to_string(),
            peer.queued.to_string(),
            peer.violations.to_string(),
            problem(peer),
        ]
    };
    table(
        [
            "DOMAIN",
            "STATE",
            "LINKED",
            "LINKED FROM",
            "SAME SCHEME",
            "AGENCIES",
            "QUEUED",
            "VIOLATIONS",
            "PROBLEM",
        ],
        &peers.iter().map(row).collect::<Vec<_>>(),
    )
}

fn show(peer: &PeerStatus) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| _ = writeln!(text, "{what:<22} {value}");
    line("domain", &peer.domain);
    line("state", peer.state().as_str_name());
    line("fingerprint", &peer.fingerprint);
    line("addresses", &peer.addresses.join(", "));
    line("countries", &peer.countries.join(", "));
    if !peer.unconfirmed_countries.is_empty() {
        let countries = peer.unconfirmed_countries.join(", ");
        line(
            "unconfirmed countries",
            &format!("{countries} (accept its bundle anew to believe it for these)"),
        );
    }
    line("linked", &yes(peer.linked));
    line("linked from", &yes(peer.linked_from));
    let problem = problem(peer);
    if !problem.is_empty() {
        line("problem", &problem);
    }
    line("same scheme", &yes(peer.same_scheme));
    line("bundle issued", moment(peer.bundle_issued.as_ref()).as_deref().unwrap_or("never"));
    line("roots", &peer.roots.to_string());
    line("agencies", &peer.agencies.to_string());
    line("queued", &peer.queued.to_string());
    line("outstanding", &peer.outstanding.to_string());
    line("violations", &peer.violations.to_string());
    text
}

fn to_json(peer: &PeerStatus) -> Value {
    json!({
        "domain": peer.domain,
        "state": peer.state().as_str_name(),
        "fingerprint": peer.fingerprint,
        "addresses": peer.addresses,
        "countries": peer.countries,
        "unconfirmed_countries": peer.unconfirmed_countries,
        "linked": peer.linked,
        "linked_from": peer.linked_from,
        "problem": Some(problem(peer)).filter(|problem| !problem.is_empty()),
        "same_scheme": peer.same_scheme,
        "bundle_issued": moment(peer.bundle_issued.as_ref()),
        "roots": peer.roots,
        "agencies": peer.agencies,
        "queued": peer.queued,
        "outstanding": peer.outstanding,
        "violations": peer.violations,
    })
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
