//! Where the borders between two domains run: what one of them may say for the other, and what stops there.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use liaison_demo::{Agent, Member, wait};
use liaison_proto::{
    case::v1::{PreviewRequest, disclosure::Code as Disclosed, preview_request},
    exchange::v1::delivery::Content,
    message::v1::{
        Notice, data_category::Code as Category, error_code::Code as ErrorCode, notice,
        referral_state::Code as State, verdict::Code as Verdict,
    },
};
use liaison_tests::{
    Federation, call,
    federation::{Setup, knows, listed},
    insider::{self, Insider, Session},
    message::{self, Words},
    names::{BORDER, HEALTH_HU, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
};
use liaison_trust::envelope::Draft;
use prost::Message;
use serde_json::{Value, json};

/// In which a peer has to learn of a change.
const SECONDS: Duration = Duration::from_secs(5);

async fn start(layers: &[(&str, &str, &str)], agencies: &[&str]) -> Result<Federation> {
    Federation::start(&Setup { domains: &[BE, HU], scheme: policies::OPEN, layers, agencies }).await
}

/// All layers of the two sides, the agencies' own included, and what each keeps.
#[tokio::test]
async fn what_a_peer_that_is_away_would_withhold_is_not_guessed() -> Result<()> {
    let own = policies::layer_without("own-secrecy", "risk");
    let law = policies::layer_without("be-secrecy", "location");
    let theirs = policies::layer_without("their-secrecy", "health");
    let layers = [
        ("be", "agency/be/shelter-antwerp/own.cedar", own.as_str()),
        ("be", "country/be/law.cedar", law.as_str()),
        ("hu", "agency/hu/shelter-budapest/own.cedar", theirs.as_str()),
    ];
    let mut federation = start(&layers, &[SHELTER, SHELTER_HU]).await?;
    let request = message::referral(&[SHELTER_HU], &Words::fresh());
    let question = PreviewRequest { message: Some(preview_request::Message::Referral(request.clone())) };
    let id = federation.send_one(SHELTER, request).await?;
    let seen = call::referral(federation.agent(SHELTER)?, &id).await?;
    let decision = seen.decision.context("no decision is told")?;
    let layer = |category: Category| {
        let decided = decision.categories.iter().find(|one| one.category() == category)?;
        Some(decided.rule.as_ref()?.layer.clone())
    };
    assert_eq!(layer(Category::Risk).as_deref(), Some("agency/be/shelter-antwerp"));
    assert_eq!(layer(Category::Location).as_deref(), Some("country/be"));
    assert_eq!(layer(Category::Health).as_deref(), Some("agency/hu/shelter-budapest"));

    federation.realm_mut("hu")?.gateway.kill()?;
    let preview = call::case(federation.agent(SHELTER)?)?.preview(question).await?.into_inner();
    let merged = preview.recipients.first().context("nothing is told of the recipient")?;
    assert_eq!(merged.verdict(), Verdict::Undecided);
    for one in &merged.categories {
        let kept_here = [Category::Risk, Category::Location].contains(&one.category());
        let expected = if kept_here { Verdict::Withheld } else { Verdict::Undecided };
        assert_eq!(one.verdict(), expected, "{:?}", one.category());
    }
    federation.sound().await
}

#[tokio::test]
async fn a_domain_refuses_what_its_law_forbids() -> Result<()> {
    let receive = policies::forbid("nothing-there", r#"action == Action::"receive""#, "resource");
    let law = format!("{}\n{receive}", policies::PASS);
    let federation = start(&[("hu", "country/hu/law.cedar", &law)], &[SHELTER, SHELTER_HU]).await?;
    let sent = federation.send(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let id = sent.first().context("no referral was made")?;
    let seen = call::referral_in(federation.agent(SHELTER)?, id, State::Refused).await?;
    let rule = seen.refusal.and_then(|refusal| refusal.rule).context("no rule is told")?;
    assert_eq!((rule.layer.as_str(), rule.rule.as_str()), ("country/hu", "nothing-there"));
    assert_eq!(seen.at, "hu", "whoever ended it holds it");
    assert!(call::received_ids(federation.agent(SHELTER_HU)?).await?.is_empty());
    federation.sound().await
}

/// A domain that takes a country on is not believed before an administrator of the peer has agreed.
#[tokio::test]
async fn a_domain_speaks_for_the_countries_that_were_confirmed() -> Result<()> {
    let federation = start(&[], &[SHELTER, BORDER, SHELTER_HU]).await?;
    let (be, hu) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    knows(federation.agent(SHELTER_HU)?, BORDER).await?;
    assert_eq!(peer(hu).await?.get("countries"), Some(&json!(["be", "nl"])));
    be.command(&["agency", "add", "be/annex", "--name", "Annex", "--country", "de", "--sector", "NGO"])
        .await?;
    let folder = tempfile::tempdir()?;
    let _annex = Agent::enrol(be, folder.path(), "be/annex").await?;
    wait::within(SECONDS, "hu hears of the new country", async || {
        let unconfirmed = peer(hu).await.ok()?.get("unconfirmed_countries")?.clone();
        (unconfirmed == json!(["de"])).then_some(())
    })
    .await?;
    let before = peer(hu).await?;
    assert_eq!(before.get("countries"), Some(&json!(["be", "nl"])));
    hu.accept(&be.invite().await?).await?;
    let shown = peer(hu).await?;
    assert_eq!(shown.get("countries"), Some(&json!(["be", "de", "nl"])));
    assert_eq!(shown.get("unconfirmed_countries"), Some(&json!([])));
    let agencies = |shown: &Value| shown.get("agencies").and_then(Value::as_u64);
    wait::within(SECONDS, "the agency of the new country comes along", async || {
        let now = peer(hu).await.ok()?;
        (agencies(&now)? == agencies(&before)? + 1).then_some(())
    })
    .await
}

/// What `hu` knows of `be`.
async fn peer(hu: &liaison_demo::Gateway) -> Result<Value> {
    Ok(serde_json::from_str(&hu.command(&["--json", "peer", "show", "be"]).await?)?)
}

#[tokio::test]
async fn nothing_crosses_between_different_schemes() -> Result<()> {
    let federation = start(&[], &[SHELTER, SHELTER_HU]).await?;
    let (shelter, hu) = (federation.agent(SHELTER)?, federation.agent(SHELTER_HU)?);
    let same = async |expected: bool| {
        wait::until(&format!("hu sees that the schemes are the same: {expected}"), async || {
            let shown = peer(&federation.realm("hu").ok()?.gateway).await.ok()?;
            (shown.get("same_scheme") == Some(&Value::Bool(expected))).then_some(())
        })
        .await
    };
    let tight = policies::without_health();
    federation.realm("be")?.load_scheme(&tight).await?;
    same(false).await?;
    let sent = federation.send(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let id = sent.first().context("no referral was made")?;
    tokio::time::sleep(SECONDS).await;
    assert!(call::received_ids(hu).await?.is_empty(), "it crossed");
    let seen = call::referral(shelter, id).await?;
    ensure!(seen.state() == State::Requested && seen.at == "be", "{:?} at {}", seen.state(), seen.at);
    let shown: Value = serde_json::from_str(
        &federation.realm("be")?.gateway.command(&["--json", "peer", "show", "hu"]).await?,
    )?;
    let problem = shown.get("problem").and_then(Value::as_str).unwrap_or_default();
    ensure!(problem.contains("that of hu"), "nothing tells why it does not cross: {shown}");

    // Once they agree again it goes on by itself, as far as the scheme now lets it.
    federation.realm("hu")?.load_scheme(&tight).await?;
    same(true).await?;
    let received = call::received(hu, id).await?;
    let health = received.sections.get("health").map(|section| section.disclosure());
    assert_eq!(health, Some(Disclosed::Withheld));
    federation.sound().await
}

#[tokio::test]
async fn an_agency_that_is_revoked_vanishes_abroad() -> Result<()> {
    let federation = start(&[], &[SHELTER, SHELTER_HU, HEALTH_HU]).await?;
    let shelter = federation.agent(SHELTER)?;
    federation.realm("hu")?.gateway.command(&["agency", "revoke", HEALTH_HU]).await?;
    wait::within(SECONDS, &format!("{HEALTH_HU} has vanished"), async || {
        (!listed(shelter).await.ok()?.contains_key(HEALTH_HU)).then_some(())
    })
    .await?;
    // Others of its domain go on.
    federation.send_one(SHELTER, message::small_referral(SHELTER_HU)).await?;
    federation.sound().await
}

/// What an agency can do by itself, and what waits for an administrator, counts against no gateway.
#[tokio::test]
async fn what_an_agency_does_is_not_its_gateways_fault() -> Result<()> {
    let federation = start(&[], &[SHELTER, SHELTER_HU]).await?;
    let (be, hu) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    // It names a thread that two agencies of hu have.
    let (here, there) = (Insider::enrol(be, BORDER).await?, Insider::enrol(hu, HEALTH_HU).await?);
    let theirs = there.draft(&there.key_of(SHELTER_HU).await?);
    submitted(&there, &theirs).await?;
    let taken = Draft { thread: theirs.thread, ..here.draft(&here.key_of(SHELTER_HU).await?) };
    let refusal = ended(&here, &taken).await?;
    ensure!(
        matches!(&refusal, notice::Event::Undeliverable(refusal) if refusal.code() == ErrorCode::NotAParty),
        "{refusal:?}"
    );

    // It is of a country that was not there when the domains peered: its messages wait until hu's administrator agrees.
    let (address, none) = ("be/shelter-aachen", &[]);
    let newcomer = Member {
        address,
        name: "New",
        country: "de",
        sectors: &["NGO"],
        groups: none,
        services: none,
        languages: none,
        ages: none,
    };
    be.add(&newcomer).await?;
    wait::until("hu hears of the new country", async || {
        (hu.peer("be").await.ok()?.get("unconfirmed_countries")? == &json!(["de"])).then_some(())
    })
    .await?;
    let newcomer = Insider::enrol(be, address).await?;
    let draft = newcomer.draft(&newcomer.key_of(SHELTER_HU).await?);
    let waits = ended(&newcomer, &draft).await?;
    ensure!(matches!(&waits, notice::Event::Waiting(why) if why.code() == ErrorCode::Suspended), "{waits:?}");
    let shown = hu.peer("be").await?;
    ensure!(shown.get("violations") == Some(&json!(0)), "{shown}");
    for (of, other, word) in [(hu, "be", "de"), (be, "hu", "administrator")] {
        let shown = of.peer(other).await?;
        let problem = shown.get("problem").and_then(Value::as_str).unwrap_or_default();
        ensure!(problem.contains(word), "nothing tells {other}'s peer what waits: {shown}");
    }

    hu.accept(&be.invite().await?).await?;
    call::received(federation.agent(SHELTER_HU)?, &draft.message_id.to_string()).await.map(drop)
}

async fn submitted(agency: &Insider, draft: &Draft) -> Result<Session> {
    let mut session = agency.session().await?;
    let answer = session.submit(&agency.seal(draft)?).await?;
    ensure!(matches!(answer, insider::Answer::Accepted(_)), "{answer:?}");
    Ok(session)
}

/// What the sender of a message is told of it first.
async fn ended(agency: &Insider, draft: &Draft) -> Result<notice::Event> {
    let mut session = submitted(agency, draft).await?;
    let (attempt, delivery) = session.delivery().await?;
    session.ack(attempt, None).await?;
    let Some(Content::Notice(signed)) = delivery.content else { bail!("no notice") };
    Notice::decode(signed.notice)?.event.context("a notice of nothing")
}
