//! What a preview says is what happens, whatever the policies: random policies, messages and agencies
//! through a real gateway.

use anyhow::{Context, Result, ensure};
use liaison_demo::wait;
use liaison_proto::{
    case::v1::{
        ClaimedBasis, GetReferralRequest, PreviewRequest, SendReferralRequest, disclosure::Code as Disclosed,
        preview_request,
    },
    category,
    message::v1::{
        Handling, basis::Code as Basis, data_category::Code as Category, purpose::Code as Purpose,
        referral_state::Code as State, tlp, urgency, verdict::Code as Verdict,
    },
};
use liaison_tests::{
    Realm, call,
    message::{self, Words},
    names::{BORDER, HOSPITAL, POLICE, SHELTER},
    policies, seed,
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

const POLICY_SETS: usize = 10;
const MESSAGES: usize = 6;
const AGENCIES: [&str; 4] = [HOSPITAL, SHELTER, POLICE, BORDER];

#[tokio::test]
async fn preview_and_outcome_agree() -> Result<()> {
    let mut random = seed::generator("agreement")?;
    let realm = Realm::start(policies::OPEN, &AGENCIES).await?;
    let folder = realm.folder().join("random-policies");
    let mut ends = [0; 3];
    for _ in 0..POLICY_SETS {
        let files = policy_set(&mut random)?;
        let borrowed: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        realm.gateway.load_policies(&policies::write(&folder, &borrowed)?).await?;
        for _ in 0..MESSAGES {
            let (from, to, request) = referral(&mut random)?;
            let question =
                PreviewRequest { message: Some(preview_request::Message::Referral(request.clone())) };
            let mut case = call::case(realm.agent(from)?)?;
            let preview = case.preview(question).await?.into_inner();
            let told = preview.recipients.first().context("nothing is told of the recipient")?.clone();
            let sent = case.send_referral(request).await?.into_inner().referrals;
            let id = sent.first().context("no referral was made")?.id.clone();
            let seen = wait::until("the referral has an end", async || {
                let seen = case.get_referral(GetReferralRequest { id: id.clone() }).await.ok()?.into_inner();
                matches!(seen.state(), State::Received | State::Refused).then_some(seen)
            })
            .await?;
            let context = format!("{from} to {to}, told {told:?}, seen {seen:?}, under {files:?}");
            if told.verdict() == Verdict::Released {
                ends[0] += 1;
                assert_eq!(preview.policy_hash, seen.policy_hash, "{context}");
                assert_eq!(Some(&told), seen.decision.as_ref(), "{context}");
                let received = call::received(realm.agent(to)?, &id).await?;
                for category in category::all() {
                    let section = received.sections.get(category.as_str_name()).context("not told of")?;
                    let decided = told.categories.iter().find(|one| one.category() == category);
                    let released = decided.is_some_and(|one| one.verdict() == Verdict::Released);
                    assert_eq!(
                        section.disclosure() == Disclosed::Released,
                        released,
                        "{category:?}: {context}"
                    );
                    assert_eq!(section.content.is_some(), released, "{category:?}: {context}");
                    ends[1] += usize::from(!released && decided.is_some());
                }
            } else {
                ends[2] += 1;
                assert_eq!(seen.state(), State::Refused, "{context}");
                let rule = seen.refusal.and_then(|refusal| refusal.rule).map(|rule| (rule.layer, rule.rule));
                assert_eq!(rule, told.rule.map(|rule| (rule.layer, rule.rule)), "{context}");
                let mut theirs = call::case(realm.agent(to)?)?;
                let theirs = theirs.get_referral(GetReferralRequest { id }).await;
                ensure!(theirs.is_err(), "refused and there: {context}");
            }
        }
    }
    println!("{} delivered, {} categories withheld, {} refused", ends[0], ends[1], ends[2]);
    // Random policies that never differ would show nothing.
    ensure!(
        ends.iter().all(|count| *count > 0),
        "one-sided: {ends:?}; replay with the seed and widen the policies"
    );
    Ok(())
}

/// A scheme, and sometimes a country's and an agency's layer, each of a few random permits and forbids.
fn policy_set(random: &mut StdRng) -> Result<Vec<(String, String)>> {
    let mut files = vec![("scheme/random.cedar".to_owned(), layer(random)?)];
    for path in
        ["country/be/random.cedar", "country/nl/random.cedar", "agency/be/police-federal/random.cedar"]
    {
        if random.random_bool(0.4) {
            files.push((path.to_owned(), layer(random)?));
        }
    }
    Ok(files)
}

fn layer(random: &mut StdRng) -> Result<String> {
    let mut text = String::new();
    // Mostly open, so that messages pass and what is cut out of them differs.
    if random.random_bool(0.9) {
        text.push_str(policies::OPEN);
    }
    for number in 0..random.random_range(1..6) {
        let effect = *["forbid", "forbid", "permit"].choose(random).context("an effect")?;
        let categories = message::referral_categories();
        let category = categories.choose(random).context("a category")?.as_str_name();
        let action = match random.random_range(0..10) {
            0 => r#"action in [Action::"submit", Action::"receive"]"#.to_owned(),
            1 => r#"action == Action::"auto_release""#.to_owned(),
            2 => r#"action == Action::"name_withheld""#.to_owned(),
            3 => r#"action in Action::"share_special""#.to_owned(),
            4 => r#"action in Action::"share_identifying""#.to_owned(),
            _ => format!(r#"action == Action::"share_{category}""#),
        };
        let resource = *[
            "resource",
            r#"resource in Sector::"LawEnforcement""#,
            r#"resource in Sector::"NGO""#,
            r#"resource in Country::"nl""#,
            r#"resource in Group::"network""#,
            r#"resource == Agency::"be/shelter-antwerp""#,
        ]
        .choose(random)
        .context("a resource")?;
        let condition = *[
            "",
            "when { context.minor }",
            r#"when { context.purpose == Purpose::"protection" }"#,
            r#"unless { context.urgency == Urgency::"Immediate" }"#,
            r#"when { context.tlp == Tlp::"RED" }"#,
            "when { context.cross_border }",
        ]
        .choose(random)
        .context("a condition")?;
        text.push_str(&format!(
            "\n@id(\"random-{number}\") @owner(\"tests\") @legal_basis(\"none\") @explain(\"Random.\")\n\
             {effect}(principal, {action}, {resource}) {condition};\n"
        ));
    }
    Ok(text)
}

/// A referral with random content, bases and head; who sends it, and to whom.
fn referral(random: &mut StdRng) -> Result<(&'static str, &'static str, SendReferralRequest)> {
    let from = *AGENCIES.choose(random).context("a sender")?;
    let others: Vec<&'static str> = AGENCIES.into_iter().filter(|agency| *agency != from).collect();
    let to = *others.choose(random).context("a recipient")?;
    let some = |random: &mut StdRng, share: f64| -> Vec<Category> {
        message::referral_categories().into_iter().filter(|_| random.random_bool(share)).collect()
    };
    let consented = some(random, 0.7);
    let claimed = some(random, 0.3);
    let purpose = *[Purpose::VictimSupport, Purpose::Protection].choose(random).context("a purpose")?;
    let mut consent = message::consent(&[to], &consented);
    consent.scopes.iter_mut().for_each(|scope| scope.purposes = vec![purpose.into()]);
    let mut request = SendReferralRequest {
        content: Some(message::content(&Words::fresh(), consent)),
        purpose: purpose.into(),
        minor: random.random(),
        urgency: if random.random() { urgency::Code::Immediate } else { urgency::Code::Future }.into(),
        ..message::referral(&[to], &Words::fresh())
    };
    if random.random() {
        request.handling = Some(Handling { tlp: tlp::Code::Red.into(), ..Handling::default() });
    }
    if !claimed.is_empty() {
        request.claimed_bases = vec![ClaimedBasis {
            categories: claimed.into_iter().map(i32::from).collect(),
            basis: Basis::PublicTask.into(),
            ..ClaimedBasis::default()
        }];
    }
    Ok((from, to, request))
}
