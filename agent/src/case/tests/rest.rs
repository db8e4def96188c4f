use liaison_proto::message::v1::{
    DomainDecision, Narrative, Refusal, SignedAcknowledgement, StateChange, error_code::Code as ErrorCode,
    referral_state::Code as State,
};
use liaison_trust::names::AgencyAddress;
use serde_json::json;
use time::OffsetDateTime;

use super::*;
use crate::{case::openapi, store::Event};

/// A referral to be/clinic.
fn request() -> Value {
    json!({
        "to": ["be/clinic"],
        "purpose": "health_care",
        "content": {
            "health": {"physical": "broken arm"},
            "narrative": {"text": "a story"},
            "consent": {
                "obtainedFrom": "individual",
                "obtainedAt": "2026-01-01T00:00:00Z",
                "forDisclosure": true,
                "scopes": [{
                    "categories": ["health"],
                    "sectors": ["HealthServiceOrganisation"],
                    "purposes": ["health_care"],
                }],
            },
        },
    })
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["error"]["code"].as_str().unwrap_or("none"))
}

#[tokio::test]
async fn every_endpoint_of_the_document_wants_the_token_and_an_actor() {
    let served = Served::new().await;
    let document: Value = serde_json::from_str(&openapi::DOCUMENT).unwrap();
    let mut tried = 0;
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for verb in verbs.as_object().unwrap().keys() {
            let path = path.replace("{id}", "01a20b94-a9af-7ba0-bc72-d060c7658342");
            let method = verb.to_uppercase();
            let call = async |headers: &[(&str, &str)]| {
                let (status, head, body) = served.raw(&method, &path, headers, b"").await;
                assert!(head.contains("content-type: application/json"), "{method} {path}: {head}");
                let body: Value = serde_json::from_str(&body).unwrap();
                (status, body["error"]["code"].as_str().unwrap_or("none").to_owned())
            };
            if path == "/metrics" {
                let (status, head, body) = served.raw(&method, &path, &[], b"").await;
                assert!(head.contains("content-type: text/plain"), "{head}");
                assert!(status == 200 && body.contains("\nliaison_agent_connected "), "{body}");
                continue;
            }
            let bad_token = (401, "bad_token".to_owned());
            if !path.starts_with("/v1/") {
                assert_eq!(call(&[]).await, (200, "none".to_owned()), "{method} {path}");
                continue;
            }
            let actor = ("liaison-actor", "anna");
            assert_eq!(call(&[actor]).await, bad_token, "{method} {path}");
            assert_eq!(call(&[actor, ("authorization", "Bearer tokem")]).await, bad_token, "{method} {path}");
            let nobody = call(&[("authorization", "Bearer token")]).await;
            assert_eq!(nobody, (400, "missing_field".to_owned()), "{method} {path}");
            tried += 1;
        }
    }
    assert_eq!(tried, 16);
}

#[tokio::test]
async fn what_is_not_served_is_refused_as_json() {
    let served = Served::new().await;
    assert_eq!(code(&served.call("GET", "/v1/nothing", None).await), (404, "unsupported"));
    assert_eq!(code(&served.call("DELETE", "/v1/referrals", None).await), (405, "unsupported"));
    assert_eq!(code(&served.call("GET", "/v1/referrals/%ff", None).await), (400, "malformed"));

    let headers = [("authorization", "Bearer token"), ("liaison-actor", "anna")];
    let plain = [headers[0], headers[1], ("content-type", "text/plain")];
    let (status, head, body) = served.raw("POST", "/v1/referrals", &plain, b"{}").await;
    assert_eq!(status, 415, "{body}");
    assert!(head.contains("application/json") && head.contains("cache-control: no-store"), "{head}");

    let json = [headers[0], headers[1], ("content-type", "application/json; charset=utf-8")];
    let large = vec![b' '; liaison_proto::limits::CASE_REQUEST_BYTES + 1];
    let (status, _, body) = served.raw("POST", "/v1/referrals", &json, &large).await;
    assert_eq!(status, 413, "{body}");
    assert!(body.contains("too_large"), "{body}");

    let chunked =
        [headers[0], headers[1], ("content-type", "application/json"), ("transfer-encoding", "chunked")];
    let (status, _, body) = served.raw("POST", "/v1/referrals", &chunked, b"no length of a chunk\r\n").await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("malformed"), "{body}");
}

#[tokio::test]
async fn a_request_that_names_another_host_is_refused() {
    let served = Served::new().await;
    let port = served.rest.port();
    for (host, expected) in
        [("evil.example", 421), (&format!("localhost:{port}"), 200), (&format!("127.0.0.1:{port}"), 200)]
    {
        let (status, head, body) = served.raw("GET", "/livez", &[("host", host)], b"").await;
        assert_eq!(status, expected, "{host}");
        assert_eq!(body.contains("wrong_name"), expected == 421);
        assert!(!head.contains("access-control-allow-origin"), "{head}");
    }
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_leaves_nothing() {
    let served = Served::new().await;
    let changed = |pointer: &str, value: Value| {
        let mut request = request();
        *request.pointer_mut(pointer).unwrap() = value;
        request
    };
    let mut unknown_field = request();
    unknown_field["content"]["health"]["secretWord"] = json!("canary");
    let cases = [
        (unknown_field, "unknown_value"),
        (changed("/purpose", json!("canary")), "unknown_value"),
        (changed("/content/health/physical", json!(7)), "unknown_value"),
        (changed("/to", json!(["be/shelter"])), "to_oneself"),
        (changed("/to", json!(["canary"])), "malformed"),
        (changed("/to", json!([])), "missing_field"),
        (changed("/content", json!({})), "missing_field"),
        (changed("/content/consent/obtainedFrom", json!("unspecified")), "missing_field"),
    ];
    for (request, expected) in cases {
        let answer = served.call("POST", "/v1/referrals", Some(&request)).await;
        assert_eq!(code(&answer), (400, expected), "{request}");
        assert!(!answer.1.to_string().contains("canary"), "{}", answer.1);
        let preview = served.call("POST", "/v1/preview", Some(&json!({ "referral": request }))).await;
        assert_eq!(code(&preview), (400, expected), "{request}");
    }
    let headers =
        [("authorization", "Bearer token"), ("liaison-actor", "a"), ("content-type", "application/json")];
    let (status, _, body) = served.raw("POST", "/v1/referrals", &headers, b"{\"to\": [").await;
    assert_eq!(status, 400);
    assert!(body.contains("malformed"), "{body}");
    assert_eq!(code(&served.call("POST", "/v1/preview", Some(&json!({}))).await), (400, "missing_field"));
    let alert = json!({"kind": "HealthRisk", "purpose": "prevention", "audience": {},
        "content": {"healthHazard": {"type": "infectious_disease"}}});
    assert_eq!(code(&served.call("POST", "/v1/alerts", Some(&alert)).await), (400, "empty_audience"));
    assert_eq!(served.outbox().await, 0);
}

#[tokio::test]
async fn a_referral_is_sent_while_the_gateway_is_away() {
    let served = Served::new().await;
    let (status, answer) = served.call("POST", "/v1/referrals", Some(&request())).await;
    assert_eq!(status, 200, "{answer}");
    let sent = &answer["referrals"][0];
    assert_eq!((sent["to"].as_str(), sent["state"].as_str()), (Some("be/clinic"), Some("submitted")));
    assert_eq!(served.outbox().await, 1);

    let id = sent["id"].as_str().unwrap();
    let path = format!("/v1/referrals/{id}");
    assert_eq!(served.call("GET", &path, None).await.1["id"], *id);
    assert_eq!(
        code(&served.call("GET", &path.replace("referrals", "alerts"), None).await),
        (404, "unknown_message")
    );

    let accepted = json!({"state": "accepted"});
    let refused = served.call("POST", &format!("{path}/state"), Some(&accepted)).await;
    assert_eq!(code(&refused), (409, "transition_not_allowed"));
    let elsewhere = json!({"state": "cancelled", "id": "another"});
    assert_eq!(
        code(&served.call("POST", &format!("{path}/state"), Some(&elsewhere)).await),
        (400, "malformed")
    );
    let (status, cancelled) =
        served.call("POST", &format!("{path}/state"), Some(&json!({"state": "cancelled"}))).await;
    assert_eq!((status, cancelled["state"].as_str()), (200, Some("cancelled")), "{cancelled}");
    assert_eq!(served.outbox().await, 0);
}

#[tokio::test]
async fn a_referral_tells_why_it_waits_and_is_received_though_a_gateway_gave_it_up() {
    let served = Served::new().await;
    let store = &served.agent.store;
    let clinic: AgencyAddress = "hu/clinic".parse().unwrap();
    let listed = Listed {
        address: clinic.to_string(),
        country: "hu".into(),
        sectors: vec![Sector::HealthServiceOrganisation.into()],
        ..Listed::default()
    };
    store.set_agency(&clinic, &listed).await.unwrap();
    let mut request = request();
    request["to"] = json!([clinic.to_string()]);
    let (_, answer) = served.call("POST", "/v1/referrals", Some(&request)).await;
    let id: Uuid = answer["referrals"][0]["id"].as_str().unwrap().parse().unwrap();
    let told = async |event| {
        let gateway = served.agent.address.domain();
        store.notice(id, &clinic, OffsetDateTime::now_utc(), gateway, event).await.unwrap();
        served.call("GET", &format!("/v1/referrals/{id}"), None).await.1
    };

    let why = Refusal::new(ErrorCode::GatewayUnreachable, "hu can't be reached", "wait");
    let part = DomainDecision {
        domain: "hu".into(),
        recipient: clinic.to_string(),
        unknown: Some(why.clone()),
        ..DomainDecision::default()
    };
    let waiting = told(Event::Waiting(part)).await;
    assert_eq!(waiting["state"], "submitted");
    let [part] = waiting["parts"].as_array().unwrap().as_slice() else { panic!("{waiting}") };
    assert_eq!((&part["domain"], &part["unknown"]["code"]), (&json!("hu"), &json!("gateway_unreachable")));
    assert!(part.get("decision").is_none(), "{part}");

    let expired = told(Event::Expired { why: Some(why) }).await;
    assert_eq!((&expired["state"], &expired["refusal"]["code"]), (&json!("expired"), &json!("expired")));
    assert_eq!((expired["parts"].clone(), expired["allowed"].clone()), (json!([]), json!([])));

    let received = StateChange { state: State::Received.into(), ..StateChange::default() };
    let signed = SignedAcknowledgement::default();
    let received = Event::Acknowledged { signed, thread_state: Some(received), heads: Vec::new() };
    let received = told(received).await;
    assert_eq!((&received["state"], &received["at"]), (&json!("received"), &json!("hu/clinic")));
    assert!(received.get("refusal").is_none(), "{received}");
    assert_eq!(received["allowed"], json!(["cancelled"]));
}

#[tokio::test]
async fn what_needs_the_gateway_says_so() {
    let served = Served::new().await;
    let mut stranger = request();
    stranger["to"] = json!(["be/clinic", "be/stranger"]);
    assert_eq!(
        code(&served.call("POST", "/v1/referrals", Some(&stranger)).await),
        (503, "gateway_unreachable")
    );
    let preview = json!({ "referral": request() });
    assert_eq!(code(&served.call("POST", "/v1/preview", Some(&preview)).await), (503, "gateway_unreachable"));
    let alert = json!({"kind": "HealthRisk", "purpose": "prevention", "audience": {"countries": ["be"]},
        "content": {"healthHazard": {"type": "infectious_disease"}}});
    let alert = alert.to_string();
    let headers =
        [("authorization", "Bearer token"), ("liaison-actor", "anna"), ("content-type", "application/json")];
    let (status, head, body) = served.raw("POST", "/v1/alerts", &headers, alert.as_bytes()).await;
    assert_eq!((status, body.contains("gateway_unreachable")), (503, true), "{body}");
    assert!(head.contains("retry-after: 1"), "{head}");
    assert_eq!(code(&served.call("GET", "/v1/agencies", None).await), (503, "gateway_unreachable"));
    let (status, standing) = served.call("GET", "/v1/status", None).await;
    assert_eq!((status, standing["connected"].as_bool()), (200, Some(false)));
    assert_eq!(served.outbox().await, 0);
}

#[tokio::test]
async fn an_idempotency_key_sends_once() {
    let served = Served::new().await;
    let key = [("idempotency-key", "k1")];
    let first = served.call_with("POST", "/v1/referrals", &key, Some(&request())).await;
    let again = served.call_with("POST", "/v1/referrals", &key, Some(&request())).await;
    assert_eq!((first.0, &first.1), (200, &again.1));
    assert_eq!(served.outbox().await, 1);

    let mut other = request();
    other["urgency"] = json!("Future");
    let conflict = served.call_with("POST", "/v1/referrals", &key, Some(&other)).await;
    assert_eq!(code(&conflict), (409, "idempotency_conflict"));
    assert_eq!(served.outbox().await, 1);
    let empty = served.call_with("POST", "/v1/referrals", &[("idempotency-key", " ")], Some(&other)).await;
    assert_eq!(code(&empty), (400, "malformed"));
    let other_key =
        served.call_with("POST", "/v1/referrals", &[("idempotency-key", "k2")], Some(&other)).await;
    assert_eq!(other_key.0, 200);
    assert_eq!(served.outbox().await, 2);
}

#[tokio::test]
async fn pages_show_every_referral_once_newest_first() {
    let served = Served::new().await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        let (_, answer) = served.call("POST", "/v1/referrals", Some(&request())).await;
        sent.insert(0, answer["referrals"][0]["id"].as_str().unwrap().to_owned());
    }
    let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/v1/referrals?direction=sent&pageSize=2&pageToken={token}");
        let (status, page) = served.call("GET", &path, None).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(
            page["referrals"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()),
        );
        token = page["nextPageToken"].as_str().unwrap().to_owned();
        pages += 1;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (sent, 3));
    let count = async |query: &str| {
        let (_, page) = served.call("GET", &format!("/v1/referrals?{query}"), None).await;
        page["referrals"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 5);
    assert_eq!(count("direction=received").await, 0);
    assert_eq!(count("status=Exercise").await, 0);
    for wrong in
        ["pageSize=101", "pageSize=-1", "pageToken=x", "direction=up", "colour=red", "pageSize=1&pageSize=2"]
    {
        assert_eq!(served.call("GET", &format!("/v1/referrals?{wrong}"), None).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn an_exercise_is_listed_apart() {
    let served = Served::new().await;
    let mut exercise = request();
    exercise["status"] = json!("Exercise");
    assert_eq!(served.call("POST", "/v1/referrals", Some(&exercise)).await.0, 200);
    let listed = async |status: &str| {
        let (_, page) = served.call("GET", &format!("/v1/referrals?status={status}"), None).await;
        page["referrals"].as_array().unwrap().len()
    };
    assert_eq!((listed("Actual").await, listed("Exercise").await), (0, 1));
}

#[tokio::test]
async fn a_section_that_can_t_be_read_leaves_the_rest_readable() {
    let served = Served::new().await;
    let narrative = Narrative { text: "a story".into() };
    let narrative = ReferralContent { narrative: Some(narrative), ..ReferralContent::default() };
    let sections =
        [(Category::Health, b"\x12\xff".to_vec()), (Category::Narrative, narrative.encode_to_vec())];
    let id = served.receive_sections(sections).await;
    let path = format!("/v1/referrals/{id}");
    let accepted = json!({"state": "accepted"});
    for (method, path, body) in
        [("GET", path.clone(), None), ("POST", format!("{path}/state"), Some(&accepted))]
    {
        let (status, referral) = served.call(method, &path, body).await;
        assert_eq!(status, 200, "{referral}");
        let sections = &referral["sections"];
        assert_eq!(sections["health"]["disclosure"], "not_disclosed");
        assert!(sections["health"].get("content").is_none(), "{sections}");
        assert_eq!(sections["narrative"]["content"]["narrative"]["text"], "a story");
    }
}

#[tokio::test]
async fn a_received_referral_tells_every_category() {
    let served = Served::new().await;
    let id = served.receive("broken arm").await;
    let (status, referral) = served.call("GET", &format!("/v1/referrals/{id}"), None).await;
    assert_eq!(status, 200, "{referral}");
    assert_eq!(referral["state"], "received");
    let sections = referral["sections"].as_object().unwrap();
    assert_eq!(sections.len(), 17);
    for (name, section) in sections {
        let released = name == "health";
        assert_eq!(section["disclosure"], if released { "released" } else { "not_disclosed" }, "{name}");
        assert_eq!(section.get("content").is_some(), released, "{name}");
    }
    let content = sections["health"]["content"].as_object().unwrap();
    assert_eq!(content.keys().collect::<Vec<_>>(), ["health"], "its own category alone");
    assert_eq!(content["health"]["physical"], "broken arm");

    let path = format!("/v1/referrals/{id}/state");
    let no_reason = served.call("POST", &path, Some(&json!({"state": "rejected"}))).await;
    assert_eq!(code(&no_reason), (400, "missing_field"));
    let (status, accepted) = served.call("POST", &path, Some(&json!({"state": "accepted"}))).await;
    assert_eq!((status, accepted["state"].as_str()), (200, Some("accepted")), "{accepted}");
    assert_eq!(accepted["sections"]["health"]["disclosure"], "released");
}
