//! What happens in a demonstration: what is sent, what each agency then finds, and how it is told.

mod messages;

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Agent, wait};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cast::{BORDER, HOSPITAL, POLICE, SHELTER},
    federation::Federation,
};

/// What happened, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Story {
    referrals: Vec<Referral>,
    alerts: Vec<Alert>,
    policy: Policy,
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
}

#[derive(Debug, Serialize)]
struct Refused {
    agency: String,
    rule: String,
}

#[derive(Debug, Serialize)]
struct Policy {
    /// Of the set that decided, hexadecimal.
    hash: String,
}

/// Plays the story to its end.
pub(crate) async fn play(federation: &Federation) -> Result<Story> {
    let (referrals, hash) = refer(federation).await?;
    let alerts = vec![
        alert(federation, BORDER, &messages::forged_papers()).await?,
        alert(federation, SHELTER, &messages::pattern()).await?,
    ];
    Ok(Story { referrals, alerts, policy: Policy { hash } })
}

/// The hospital refers one case to the shelter and to the police; the shelter takes it on.
async fn refer(federation: &Federation) -> Result<(Vec<Referral>, String)> {
    let hospital = federation.agent(HOSPITAL)?;
    let start = Instant::now();
    let sent = hospital.post("/v1/referrals", &messages::referral(&[SHELTER, POLICE])).await?;
    let mut referrals = Vec::new();
    for one in list(&sent, "referrals") {
        let (id, to) = (text(one, "/id"), text(one, "/to"));
        let recipient = federation.agent(&to)?;
        let path = format!("/v1/referrals/{id}");
        let received =
            wait::until(&format!("{to} has the referral"), async || recipient.get(&path).await.ok()).await?;
        let elapsed_ms = start.elapsed().as_millis();
        referrals.push(Referral {
            from: HOSPITAL.to_owned(),
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
        if referral.to == SHELTER {
            let path = format!("/v1/referrals/{}/state", referral.id);
            federation.agent(SHELTER)?.post(&path, &json!({ "state": "accepted" })).await?;
        }
        let expected = if referral.to == SHELTER { "accepted" } else { "received" };
        let seen = follow(hospital, &referral.id, expected).await?;
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
    Ok(Alert { id, from: from.to_owned(), delivered_to, refused_to })
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
        let (shelter, police) = (to(SHELTER)?, to(POLICE)?);
        let health = "health".to_owned();
        ensure!(shelter.released.contains(&health), "the shelter can't read the health section");
        ensure!(!police.released.contains(&health), "the police can read the health section");
        ensure!(
            police.withheld.iter().any(|one| one.category == health && !one.rule.is_empty()),
            "nobody told the hospital by which rule the health section was withheld from the police"
        );
        ensure!(shelter.state == "accepted", "the hospital does not see that the shelter accepted");
        ensure!(!self.policy.hash.is_empty(), "nobody told the hash of the policies that decided");
        for alert in &self.alerts {
            ensure!(!alert.delivered_to.is_empty(), "the alert reached nobody");
            ensure!(
                alert.from != BORDER || !alert.refused_to.is_empty(),
                "the alert about forged papers was kept from nobody"
            );
            ensure!(
                alert.refused_to.iter().all(|refused| !alert.delivered_to.contains(&refused.agency)),
                "the alert reached an agency that it was refused to"
            );
        }
        Ok(())
    }

    /// Tells it in plain words.
    pub(crate) fn tell(&self) {
        println!(
            "A hospital in Ghent treats a woman who was exploited. She needs a safe bed tonight, and she"
        );
        println!("agrees that the shelter learns what her doctors know. The police are told as well: their");
        println!("inquiry is a public task, but what she told her doctor is none of its business.\n");
        for referral in &self.referrals {
            println!("Referral {} to {}", referral.id, referral.to);
            println!("  readable there after {} ms: {}", referral.elapsed_ms, referral.released.join(", "));
            for withheld in &referral.withheld {
                println!("  withheld: {} by {} of {}", withheld.category, withheld.rule, withheld.layer);
                if !withheld.explain.is_empty() {
                    println!("            {}", withheld.explain);
                }
            }
            println!("  state: {}\n", referral.state);
        }
        println!(
            "At the airport, border control finds forged papers and warns who must know. The shelter tells"
        );
        println!("everybody how people like her are recruited, without a word about her.\n");
        for alert in &self.alerts {
            println!("Alert {} from {}", alert.id, alert.from);
            println!("  delivered to {}", alert.delivered_to.join(", "));
            for refused in &alert.refused_to {
                println!("  not to {}: {}", refused.agency, refused.rule);
            }
        }
        println!("\nThe gateway decided all of it under policy set {},", self.policy.hash);
        println!("and could read none of the sections.");
    }
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
