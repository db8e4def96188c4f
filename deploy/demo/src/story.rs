//! What happens in a demonstration: what is sent, what each agency then finds, and how it is told.

mod evidence;
mod messages;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Agent, wait};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cast::{HEALTH_HU, POLICE, SHELTER, SHELTER_HU},
    federation::Federation,
};

/// What happened, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Story {
    referrals: Vec<Referral>,
    alerts: Vec<Alert>,
    policy: Policy,
    log: Log,
}

/// What the sender's domain's log of evidence holds of it, by the word of the agencies that sent.
#[derive(Debug, Serialize)]
struct Log {
    /// Leaves under the highest head that they have seen.
    entries: u64,
    /// The root under that head, hexadecimal.
    head: String,
    /// Whether every receipt holds, checked offline with `liaison-agent verify`.
    verified: bool,
    /// Files, each with the receipt of one event.
    receipts: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Referral {
    id: String,
    from: String,
    to: String,
    /// Where it stands, as its sender sees it.
    state: String,
    /// Categories that the recipient can read, by its own account.
    released: Vec<String>,
    withheld: Vec<Withheld>,
    /// From the sender's call until the recipient could read it, milliseconds.
    elapsed_ms: u128,
}

#[derive(Debug, Serialize)]
struct Withheld {
    category: String,
    layer: String,
    rule: String,
    explain: String,
}

#[derive(Debug, Serialize)]
struct Alert {
    id: String,
    from: String,
    /// Agencies that hold it, by their own account.
    delivered_to: Vec<String>,
    refused_to: Vec<Refused>,
    /// What agencies that hold it can't read of it.
    withheld: Vec<WithheldFrom>,
}

#[derive(Debug, Serialize)]
struct WithheldFrom {
    agency: String,
    #[serde(flatten)]
    what: Withheld,
}

#[derive(Debug, Serialize)]
struct Refused {
    agency: String,
    rule: String,
}

#[derive(Debug, Serialize)]
struct Policy {
    /// Of the sender's domain's set that decided, hexadecimal.
    hash: String,
}

/// Plays the story to its end.
pub(crate) async fn play(federation: &Federation, folder: &Path) -> Result<Story> {
    let (referrals, hash) = refer(federation).await?;
    let alerts = vec![alert(federation, POLICE, &messages::forged_papers()).await?];
    let ids = referrals.iter().map(|one| (one.from.as_str(), one.id.as_str()));
    let ids: Vec<_> = ids.chain(alerts.iter().map(|one| (one.from.as_str(), one.id.as_str()))).collect();
    let log = evidence::gather(federation, &ids, folder).await?;
    Ok(Story { referrals, alerts, policy: Policy { hash }, log })
}

/// A shelter refers one case to a shelter and to a health service abroad; the shelter there takes it on.
async fn refer(federation: &Federation) -> Result<(Vec<Referral>, String)> {
    let shelter = federation.agent(SHELTER)?;
    let start = Instant::now();
    let sent = shelter.post("/v1/referrals", &messages::referral(&[SHELTER_HU, HEALTH_HU])).await?;
    let mut referrals = Vec::new();
    for one in list(&sent, "referrals") {
        let (id, to) = (text(one, "/id"), text(one, "/to"));
        let recipient = federation.agent(&to)?;
        let path = format!("/v1/referrals/{id}");
        let received =
            wait::until(&format!("{to} has the referral"), async || recipient.get(&path).await.ok()).await?;
        let elapsed_ms = start.elapsed().as_millis();
        referrals.push(Referral {
            from: SHELTER.to_owned(),
            state: String::new(),
            released: readable(&received),
            withheld: Vec::new(),
            elapsed_ms,
            id,
            to,
        });
    }
    let mut hash = String::new();
    for referral in &mut referrals {
        if referral.to == SHELTER_HU {
            let path = format!("/v1/referrals/{}/state", referral.id);
            federation.agent(SHELTER_HU)?.post(&path, &json!({ "state": "accepted" })).await?;
        }
        let expected = if referral.to == SHELTER_HU { "accepted" } else { "received" };
        let seen = follow(shelter, &referral.id, expected).await?;
        referral.state = text(&seen, "/state");
        referral.withheld = withheld(&seen);
        hash = text(&seen, "/policyHash");
    }
    Ok((referrals, hash))
}

/// Waits until the sender sees its referral in a state.
async fn follow(sender: &Agent, id: &str, state: &str) -> Result<Value> {
    wait::until(&format!("{} sees its referral {state}", sender.agency), async || {
        let seen = sender.get(&format!("/v1/referrals/{id}")).await.ok()?;
        (text(&seen, "/state") == state).then_some(seen)
    })
    .await
}

/// An agency warns others; who holds the warning in the end, by the account of each.
async fn alert(federation: &Federation, from: &str, message: &Value) -> Result<Alert> {
    let sender = federation.agent(from)?;
    let sent = sender.post("/v1/alerts", message).await?;
    let id = text(&sent, "/alert/id");
    let path = format!("/v1/alerts/{id}");
    let settled = wait::until("every delivery of the alert has its end", async || {
        let seen = sender.get(&path).await.ok()?;
        let deliveries = list(&seen, "deliveries");
        let open =
            deliveries.iter().any(|one| !matches!(text(one, "/state").as_str(), "received" | "refused"));
        (!open && !deliveries.is_empty()).then_some(seen)
    })
    .await?;
    let refused_to = list(&settled, "deliveries")
        .iter()
        .filter(|one| text(one, "/state") == "refused")
        .map(|one| Refused { agency: text(one, "/agency"), rule: text(one, "/decision/rule/rule") })
        .collect();
    let withheld = list(&settled, "deliveries")
        .iter()
        .filter(|one| text(one, "/state") == "received")
        .flat_map(|one| {
            let agency = text(one, "/agency");
            withheld(one).into_iter().map(move |what| WithheldFrom { agency: agency.clone(), what })
        })
        .collect();
    let mut delivered_to = Vec::new();
    for agent in federation.agents().filter(|agent| agent.agency != from) {
        let received = agent.get("/v1/alerts?direction=received").await?;
        if list(&received, "alerts").iter().any(|one| text(one, "/id") == id) {
            delivered_to.push(agent.agency.clone());
        }
    }
    let told: BTreeSet<String> = list(&settled, "deliveries")
        .iter()
        .filter(|one| text(one, "/state") == "received")
        .map(|one| text(one, "/agency"))
        .collect();
    let held: BTreeSet<String> = delivered_to.iter().cloned().collect();
    ensure!(told == held, "the alert was told to be at {told:?} and is at {held:?}");
    Ok(Alert { id, from: from.to_owned(), delivered_to, refused_to, withheld })
}

impl Story {
    /// An error that names the first thing that should have happened and did not.
    pub(crate) fn check(&self) -> Result<()> {
        let to = |address: &str| {
            self.referrals
                .iter()
                .find(|referral| referral.to == address)
                .with_context(|| format!("no referral reached {address}"))
        };
        let (shelter, health) = (to(SHELTER_HU)?, to(HEALTH_HU)?);
        ensure!(
            health.released.iter().any(|one| one == "health"),
            "{HEALTH_HU} can't read the health section"
        );
        ensure!(shelter.state == "accepted", "{SHELTER} does not see that {SHELTER_HU} accepted");
        let layers = self.referrals.iter().flat_map(|one| &one.withheld).map(|one| one.layer.as_str());
        both_countries("the referrals", layers)?;
        ensure!(!self.policy.hash.is_empty(), "nobody told the hash of the policies that decided");
        let mut layers = Vec::new();
        for alert in &self.alerts {
            for country in ["be/", "hu/"] {
                ensure!(
                    alert.delivered_to.iter().any(|agency| agency.starts_with(country)),
                    "the alert reached nobody of {country}"
                );
            }
            ensure!(
                alert.refused_to.iter().all(|refused| !alert.delivered_to.contains(&refused.agency)),
                "the alert reached an agency that it was refused to"
            );
            layers.extend(alert.withheld.iter().map(|one| one.what.layer.as_str()));
        }
        both_countries("the alert", layers)?;
        ensure!(self.log.verified, "not every receipt holds");
        ensure!(!self.log.receipts.is_empty(), "the log gave no receipt");
        Ok(())
    }

    /// Tells it in plain words.
    pub(crate) fn tell(&self) {
        println!(
            "A shelter in Antwerp has looked after a woman who was exploited. She goes home to Hungary,"
        );
        println!(
            "and she agrees that a shelter and doctors there learn what they need to go on with. Belgian"
        );
        println!("law says what may leave, and Hungarian law what may arrive.\n");
        for referral in &self.referrals {
            println!("Referral {} to {}", referral.id, referral.to);
            println!("  readable there after {} ms: {}", referral.elapsed_ms, referral.released.join(", "));
            for withheld in &referral.withheld {
                withheld.tell("");
            }
            println!("  state: {}\n", referral.state);
        }
        println!(
            "The Belgian police find forged papers and warn everybody in both countries who inspects papers.\n"
        );
        for alert in &self.alerts {
            println!("Alert {} from {}", alert.id, alert.from);
            println!("  delivered to {}", alert.delivered_to.join(", "));
            for refused in &alert.refused_to {
                println!("  not to {}: {}", refused.agency, refused.rule);
            }
            for withheld in &alert.withheld {
                withheld.what.tell(&format!(" from {}", withheld.agency));
            }
        }
        println!("\nIn the sender's domain policy set {} decided.", self.policy.hash);
        println!(
            "The log of evidence of be has {} entries; {} receipts of it {} offline:",
            self.log.entries,
            self.log.receipts.len(),
            if self.log.verified { "hold" } else { "do NOT all hold" }
        );
        for receipt in &self.log.receipts {
            println!("  {}", receipt.display());
        }
        println!("Both gateways decided for their own side, and could read none of the sections.");
    }
}

impl Withheld {
    fn tell(&self, from: &str) {
        println!("  withheld{from}: {} by {} of {}", self.category, self.rule, self.layer);
        if !self.explain.is_empty() {
            println!("            {}", self.explain);
        }
    }
}

/// An error unless both countries' laws are among the layers that withheld something.
fn both_countries<'a>(what: &str, layers: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let layers: BTreeSet<&str> = layers.into_iter().collect();
    for country in ["country/be", "country/hu"] {
        ensure!(layers.contains(country), "nothing of {what} was withheld by {country}, only by {layers:?}");
    }
    Ok(())
}

/// The categories that a received referral lets its reader read.
fn readable(referral: &Value) -> Vec<String> {
    let sections = referral.get("sections").and_then(Value::as_object);
    sections
        .into_iter()
        .flatten()
        .filter(|(_, section)| text(section, "/disclosure") == "released")
        .map(|(category, _)| category.clone())
        .collect()
}

/// The categories that were withheld, by the decision that the sender was told.
fn withheld(referral: &Value) -> Vec<Withheld> {
    let decision = referral.get("decision").cloned().unwrap_or_default();
    list(&decision, "categories")
        .iter()
        .filter(|one| text(one, "/verdict") != "released")
        .map(|one| Withheld {
            category: text(one, "/category"),
            layer: text(one, "/rule/layer"),
            rule: text(one, "/rule/rule"),
            explain: text(one, "/rule/explain"),
        })
        .collect()
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
