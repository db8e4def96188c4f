use std::collections::BTreeSet;

use liaison_proto::{message::v1::error_code::Code as ErrorCode, refusal};

use super::*;

#[test]
fn the_committed_document_is_this_version_s() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    if std::env::var_os("LIAISON_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &*DOCUMENT).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == *DOCUMENT,
        "agent/openapi.json is not what the contracts say; write it anew with \
         `LIAISON_WRITE_OPENAPI=1 cargo test -p liaison-agent openapi`"
    );
}

#[test]
fn every_method_of_the_service_has_its_endpoint() {
    let service = POOL.get_service_by_name(SERVICE_NAME).unwrap();
    let methods: BTreeSet<String> = service.methods().map(|method| method.name().to_owned()).collect();
    let endpoints: BTreeSet<String> = ENDPOINTS.iter().map(|e| e.method.to_owned()).collect();
    assert_eq!(methods, endpoints);
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = document();
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    for reference in &references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for kind in ["schemas", "responses", "parameters"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(references.contains(&format!("#/components/{kind}/{name}")), "{kind}/{name} is not used");
        }
    }
}

fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let ("$ref", Value::String(reference)) = (key.as_str(), value) {
                    found.insert(reference.clone());
                }
                collect_references(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

#[test]
fn operations_are_named_once_and_told_whole() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{verb} {path}");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{verb} {path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200"), "{verb} {path}");
            if path.starts_with("/v1/") {
                assert!(responses.contains_key("401") && responses.contains_key("400"), "{verb} {path}");
                let actor = json!({"$ref": "#/components/parameters/actor"});
                assert!(operation["parameters"].as_array().unwrap().contains(&actor), "{verb} {path}");
            }
        }
    }
}

#[test]
fn an_example_has_the_status_under_which_it_stands() {
    for (name, response) in document()["components"]["responses"].as_object().unwrap() {
        let status: u16 = name.trim_start_matches("Error").parse().unwrap();
        for code in response["content"]["application/json"]["examples"].as_object().unwrap().keys() {
            let code = ErrorCode::from_str_name(code).unwrap();
            // 408, 415 and 421 are HTTP's own and have no code of their own.
            assert!(matches!(status, 408 | 415 | 421) || refusal::http(code) == status, "{name}");
        }
    }
}
