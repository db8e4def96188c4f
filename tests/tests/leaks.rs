//! What was said in a section is found with those who may read it, and nowhere else.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Agent, http, wait};
use liaison_proto::{
    case::v1::{PreviewRequest, SendReferralRequest, preview_request},
    message::v1::{Audience, data_category::Code as Category, referral_state::Code as State, sector},
};
use liaison_tests::{
    Federation, Realm, call,
    federation::Setup,
    message::{self, Words},
    names::{HOSPITAL, POLICE, POLICE_HU, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
};

#[tokio::test]
async fn no_word_of_a_section_is_found_where_it_does_not_belong() -> Result<()> {
    let mut realm = Realm::start(&policies::without_health_for(POLICE), &[HOSPITAL, SHELTER, POLICE]).await?;
    let words = Words::fresh();
    let sent = send(&realm, message::referral(&[SHELTER, POLICE], &words)).await?;
    let audience = Audience { sectors: vec![sector::Code::LawEnforcement.into()], ..Audience::default() };
    let alert = call::case(realm.agent(HOSPITAL)?)?
        .send_alert(message::missing_minor_alert(audience, &words))
        .await?
        .into_inner()
        .alert
        .context("no alert was made")?
        .id;

    // It arrived, and each recipient reads what it may.
    for (id, to) in &sent {
        let received = call::received(realm.agent(to)?, id).await?;
        assert!(message::to_json(&received)?.to_string().contains(words.tag()), "nothing arrived at {to}");
        let text = realm.agent(to)?.get(&format!("/v1/referrals/{id}")).await?.to_string();
        for category in message::referral_categories() {
            let has_words = !matches!(category, Category::Demographic | Category::TraffickingStatus);
            let may = has_words && !(to == POLICE && category == Category::Health);
            assert_eq!(text.contains(&words.of(category)), may, "{} at {to}", category.as_str_name());
        }
        call::referral_in(realm.agent(HOSPITAL)?, id, State::Received).await?;
    }
    call::received_alert(realm.agent(POLICE)?, &alert).await?;

    // One more waits at the gateway for an agency that is away, with its sections.
    realm.agent_mut(SHELTER)?.stop().await?;
    let waiting = send(&realm, message::referral(&[SHELTER], &words)).await?;
    for (id, _) in &waiting {
        call::referral_in(realm.agent(HOSPITAL)?, id, State::Requested).await?;
    }
    // And one that is refused, so that its refusal is logged.
    realm.load_scheme(&policies::closed_for(POLICE)).await?;
    for (id, _) in send(&realm, message::referral(&[POLICE], &words)).await? {
        call::referral_in(realm.agent(HOSPITAL)?, &id, State::Refused).await?;
    }
    // And garbage that holds the word: an error must not quote it.
    let word = words.of(Category::Health);
    let garbage = serde_json::json!({ "to": [POLICE], "content": { &word: word }, "purpose": word });
    let answer = realm.agent(HOSPITAL)?.call("POST", "/v1/referrals", &[], Some(&garbage)).await?;
    ensure!(answer.status == 400, "{}", answer.text());
    assert!(!answer.text().contains(words.tag()), "the error quotes what was sent: {}", answer.text());

    nothing_of(&realm, words.tag()).await
}

/// Neither of the two gateways between a sender and a recipient abroad knows a word either.
#[tokio::test]
async fn no_word_of_a_section_is_found_in_either_domain() -> Result<()> {
    let hu = policies::layer_without("hu-secrecy", "health");
    let mut federation = Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[("hu", "country/hu/law.cedar", &hu)],
        agencies: &[SHELTER, SHELTER_HU, POLICE_HU],
    })
    .await?;
    let words = Words::fresh();
    let request = message::referral(&[SHELTER_HU, POLICE_HU], &words);
    let question = PreviewRequest { message: Some(preview_request::Message::Referral(request.clone())) };
    call::case(federation.agent(SHELTER)?)?.preview(question).await?;
    let sent = federation.send(SHELTER, request).await?;
    for (id, to) in sent.iter().zip([SHELTER_HU, POLICE_HU]) {
        let received = message::to_json(&call::received(federation.agent(to)?, id).await?)?.to_string();
        for (category, there) in [(Category::Narrative, true), (Category::Health, false)] {
            assert_eq!(received.contains(&words.of(category)), there, "{} at {to}", category.as_str_name());
        }
        call::referral_in(federation.agent(SHELTER)?, id, State::Received).await?;
    }
    let audience = Audience { countries: vec!["hu".to_owned()], ..Audience::default() };
    let alert = message::missing_minor_alert(audience, &words);
    let alert = call::case(federation.agent(SHELTER)?)?.send_alert(alert).await?.into_inner().alert;
    call::received_alert(federation.agent(POLICE_HU)?, &alert.context("no alert was made")?.id).await?;

    // One more waits in the recipient's domain, and one in the sender's, with their sections.
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.stop().await?;
    for domain in ["hu", "be"] {
        if domain == "be" {
            federation.realm("be")?.gateway.command(&["peer", "suspend", "hu"]).await?;
        }
        let sent = federation.send(SHELTER, message::referral(&[SHELTER_HU], &words)).await?;
        let id = sent.first().context("no referral was made")?;
        wait::until(&format!("{domain} holds the referral"), async || {
            let seen = call::referral(federation.agent(SHELTER).ok()?, id).await.ok()?;
            (seen.at == domain).then_some(())
        })
        .await?;
    }
    for realm in federation.realms() {
        nothing_of(realm, words.tag()).await?;
    }
    Ok(())
}

/// Passes a realm whose gateway has no such word in its metrics and its memory, and that has none in any
/// file: policy folders, and everything of the gateway and of the agents: databases, their write-ahead
/// logs, keys, configuration, logs.
async fn nothing_of(realm: &Realm, word: &str) -> Result<()> {
    let domain = &realm.gateway.domain;
    let gateway = realm.gateway.pid().with_context(|| format!("the gateway of {domain} does not run"))?;
    let metrics = http::request(realm.gateway.metrics(), "GET", "/metrics", &[], &[]).await?;
    let word = word.as_bytes();
    ensure!(
        !metrics.body.is_empty() && !contains(&metrics.body, word),
        "in the metrics of the gateway of {domain}"
    );
    ensure!(!memory_contains(gateway, word)?, "in the memory of the gateway of {domain}");
    for file in files(realm.folder())? {
        ensure!(!contains(&fs::read(&file)?, word), "in {}", file.display());
    }
    Ok(())
}

/// The search would find a word if it were there.
#[tokio::test]
async fn the_search_finds_what_is_there() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL]).await?;
    let domain = b"liaison-gateway";
    let gateway = realm.gateway.pid().context("the gateway does not run")?;
    assert!(memory_contains(gateway, domain)?, "the gateway's memory holds its own name");
    let planted = realm.folder().join("planted");
    fs::write(&planted, "a kanarie in a file")?;
    let found = files(realm.folder())?
        .into_iter()
        .filter(|file| fs::read(file).is_ok_and(|bytes| contains(&bytes, b"kanarie")));
    assert_eq!(found.collect::<Vec<_>>(), [planted]);
    Ok(())
}

/// An agent's backup is encrypted.
#[tokio::test]
async fn a_backup_tells_nothing() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let words = Words::fresh();
    for (id, to) in send(&realm, message::referral(&[SHELTER], &words)).await? {
        call::received(realm.agent(&to)?, &id).await?;
    }
    let shelter: &Agent = realm.agent(SHELTER)?;
    let file = realm.folder().join("shelter.backup");
    let passphrase = realm.folder().join("passphrase");
    fs::write(&passphrase, "correct horse battery staple")?;
    shelter
        .command(&["backup", &file.to_string_lossy(), "--passphrase-file", &passphrase.to_string_lossy()])
        .await?;
    let backup = fs::read(&file)?;
    for secret in [words.tag().as_bytes(), shelter.api_token()?.as_bytes(), b"PRIVATE KEY"] {
        assert!(!contains(&backup, secret));
    }
    Ok(())
}

/// Sends as the hospital; ids and recipients.
async fn send(realm: &Realm, request: SendReferralRequest) -> Result<Vec<(String, String)>> {
    let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner().referrals;
    Ok(sent.into_iter().map(|referral| (referral.id, referral.to)).collect())
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    // By the first byte, because memory is large and a window at each place is slow without optimisation.
    let Some((first, rest)) = needle.split_first() else { return true };
    let mut from = bytes;
    while let Some(at) = from.iter().position(|byte| byte == first) {
        from = from.get(at + 1..).unwrap_or_default();
        if from.starts_with(rest) {
            return true;
        }
    }
    false
}

/// Whether a process has these bytes in any memory that it can write.
fn memory_contains(pid: u32, needle: &[u8]) -> Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut searched = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(access)) = (fields.next(), fields.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        if !access.starts_with("rw") {
            continue;
        }
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let mut region = Vec::new();
        memory.seek(SeekFrom::Start(start))?;
        // Parts of a mapping may not be readable; what is, is searched.
        if (&memory).take(end - start).read_to_end(&mut region).is_ok() {
            searched += region.len();
        }
        if contains(&region, needle) {
            return Ok(true);
        }
    }
    ensure!(searched > 1 << 20, "only {searched} bytes of the process could be read");
    Ok(false)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}
