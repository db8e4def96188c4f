//! The OpenAPI 3.1 document of the REST API, made from the contracts: what a `.proto` file says of a
//! message, of a field or of an enumeration value is what the document says.

mod schema;

use std::{collections::BTreeSet, sync::LazyLock};

use liaison_proto::{
    POOL,
    case::v1::case_service_server::SERVICE_NAME,
    message::v1::{Refusal, Rule, error_code::Code as ErrorCode},
};
use prost_reflect::{FieldDescriptor, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::{
    caller::{ACTOR, IDEMPOTENCY_KEY},
    rest,
};
use crate::limits;

/// The document as it is served and committed as `openapi.json`.
pub static DOCUMENT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document()));

/// One endpoint: a method of the service at a path.
struct Endpoint {
    verb: &'static str,
    path: &'static str,
    method: &'static str,
    /// How it can fail beside what every endpoint can.
    errors: &'static [u16],
}

const SEND_ERRORS: &[u16] = &[403, 404, 409, 413, 415, 429, 503];

const ENDPOINTS: [Endpoint; 10] = [
    Endpoint { verb: "post", path: "/v1/preview", method: "Preview", errors: SEND_ERRORS },
    Endpoint { verb: "post", path: "/v1/referrals", method: "SendReferral", errors: SEND_ERRORS },
    Endpoint { verb: "get", path: "/v1/referrals", method: "ListReferrals", errors: &[] },
    Endpoint { verb: "get", path: "/v1/referrals/{id}", method: "GetReferral", errors: &[404] },
    Endpoint {
        verb: "post",
        path: "/v1/referrals/{id}/state",
        method: "UpdateReferral",
        errors: &[403, 404, 409, 413, 415, 429],
    },
    Endpoint { verb: "post", path: "/v1/alerts", method: "SendAlert", errors: SEND_ERRORS },
    Endpoint { verb: "get", path: "/v1/alerts", method: "ListAlerts", errors: &[] },
    Endpoint { verb: "get", path: "/v1/alerts/{id}", method: "GetAlert", errors: &[404] },
    Endpoint { verb: "get", path: "/v1/agencies", method: "ListAgencies", errors: &[503] },
    Endpoint { verb: "get", path: "/v1/status", method: "GetStatus", errors: &[] },
];

/// How every endpoint can fail.
const COMMON_ERRORS: [u16; 5] = [400, 401, 408, 421, 500];

fn document() -> Value {
    let mut schemas = schema::Schemas::default();
    let mut paths: Map<String, Value> = Map::new();
    let methods: Vec<MethodDescriptor> =
        POOL.get_service_by_name(SERVICE_NAME).map(|service| service.methods().collect()).unwrap_or_default();
    for endpoint in &ENDPOINTS {
        if let Some(method) = methods.iter().find(|method| method.name() == endpoint.method) {
            let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
            if let Value::Object(path) = path {
                path.insert(endpoint.verb.to_owned(), operation(endpoint, method, &mut schemas));
            }
        }
    }
    paths.insert(
        "/openapi.json".into(),
        open_path("getDocument", "This document.", &json!({"type": "object"})),
    );
    let live = json!({"type": "object", "properties": {"live": {"type": "boolean"}}, "required": ["live"]});
    paths.insert("/livez".into(), open_path("getLiveness", "Answers while the agent runs.", &live));

    let codes: BTreeSet<u16> =
        ENDPOINTS.iter().flat_map(|endpoint| endpoint.errors).chain(&COMMON_ERRORS).copied().collect();
    let responses: Map<String, Value> =
        codes.iter().map(|code| (error_name(*code), error_response(*code))).collect();
    let rule = schemas.named("liaison.message.v1.Rule");
    schemas.insert("Error", error_schema(&rule));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Liaison agent: case API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Between an agency's case system and its own agent, on the same host.",
            "description": "The same calls as the gRPC service `liaison.case.v1.CaseService`, as JSON (the protobuf JSON mapping). A field or an enumeration value that the agent does not know is refused, never dropped.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7411", "description": "Where agent.toml says, always on loopback."}],
        "security": [{"apiToken": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The content of the file `api-token` in the agent's data folder.",
                },
            },
            "parameters": {
                "actor": header(ACTOR, true, "Who is asking: the user on whose behalf the case system calls. It stays in this agent.", limits::ACTOR_CHARS),
                "idempotencyKey": header(IDEMPOTENCY_KEY, false, "The same key with the same request gives the same answer again; with another request it is refused.", limits::IDEMPOTENCY_KEY_CHARS),
            },
            "responses": responses,
            "schemas": schemas.into_values(),
        },
    })
}

fn operation(endpoint: &Endpoint, method: &MethodDescriptor, schemas: &mut schema::Schemas) -> Value {
    let (input, output) = (method.input(), method.output());
    let in_path = |field: &FieldDescriptor| endpoint.path.contains(&format!("{{{}}}", field.name()));
    let mut parameters = vec![json!({"$ref": "#/components/parameters/actor"})];
    if endpoint.method.starts_with("Send") {
        parameters.push(json!({"$ref": "#/components/parameters/idempotencyKey"}));
    }
    parameters.extend(input.fields().filter(&in_path).map(|field| parameter("path", &field, schemas)));

    let mut responses = Map::new();
    responses.insert(
        "200".into(),
        json!({"description": described(&output), "content": content(&schemas.message(&output))}),
    );
    for code in COMMON_ERRORS.iter().chain(endpoint.errors) {
        let reference = format!("#/components/responses/{}", error_name(*code));
        responses.insert(code.to_string(), json!({"$ref": reference}));
    }
    responses.sort_keys();

    let comment = schema::comment_of_method(method);
    let summary = comment.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let mut operation = Map::new();
    operation.insert("operationId".into(), lower_first(endpoint.method).into());
    operation
        .insert("summary".into(), if summary.is_empty() { endpoint.method.into() } else { summary.into() });
    operation.insert("description".into(), comment.clone().into());
    if endpoint.verb == "get" {
        let queries = input.fields().filter(|field| !in_path(field));
        parameters.extend(queries.map(|field| parameter("query", &field, schemas)));
    } else {
        let body = json!({"required": true, "content": content(&schemas.request(&input))});
        operation.insert("requestBody".into(), body);
    }
    operation.insert("parameters".into(), parameters.into());
    operation.insert("responses".into(), responses.into());
    Value::Object(operation)
}

fn open_path(id: &str, summary: &str, schema: &Value) -> Value {
    json!({"get": {
        "operationId": id,
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": summary, "content": content(schema)},
            "421": {"$ref": format!("#/components/responses/{}", error_name(421))},
        },
    }})
}

fn parameter(place: &str, field: &FieldDescriptor, schemas: &mut schema::Schemas) -> Value {
    json!({
        "name": field.json_name(),
        "in": place,
        "required": place == "path",
        "description": schema::comment_of_field(field),
        "schema": schemas.field(field),
    })
}

fn header(name: &str, required: bool, description: &str, most: usize) -> Value {
    json!({
        "name": name,
        "in": "header",
        "required": required,
        "description": description,
        "schema": {"type": "string", "minLength": 1, "maxLength": most},
    })
}

fn content(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

fn described(message: &MessageDescriptor) -> String {
    let comment = schema::comment_of_message(message);
    if comment.is_empty() { format!("{}.", message.name()) } else { comment }
}

fn error_schema(rule: &Value) -> Value {
    let codes: Vec<&str> = (0..=i32::from(u8::MAX))
        .filter_map(|number| ErrorCode::try_from(number).ok())
        .filter(|code| *code != ErrorCode::Unspecified)
        .map(|code| code.as_str_name())
        .collect();
    json!({
        "type": "object",
        "description": "A clear no. It never holds a word of content.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "action"],
                "properties": {
                    "code": {"type": "string", "enum": codes},
                    "message": {"type": "string", "description": "What was wrong, and whose fault it is."},
                    "action": {"type": "string", "description": "What to do about it."},
                    "rule": rule,
                },
            },
        },
    })
}

fn error_response(status: u16) -> Value {
    let (description, examples) = errors_of(status);
    let examples: Map<String, Value> = examples
        .into_iter()
        .map(|refusal| (refusal.code().as_str_name().to_owned(), json!({"value": rest::error(&refusal)})))
        .collect();
    let mut response = json!({
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": examples}},
    });
    if let (429 | 503, Value::Object(response)) = (status, &mut response) {
        let wait =
            json!({"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}});
        response.insert("headers".into(), wait);
    }
    response
}

/// What a status says, and examples of it.
fn errors_of(status: u16) -> (&'static str, Vec<Refusal>) {
    let no = Refusal::new;
    match status {
        400 => (
            "The request is not what it must be; it names the field.",
            vec![
                no(
                    ErrorCode::MissingField,
                    "the request has no purpose",
                    "say what the recipient is to use the message for",
                ),
                no(
                    ErrorCode::Malformed,
                    "to[0] is not an agency's address",
                    "write <domain>/<name>, such as be/shelter-antwerp",
                ),
                no(
                    ErrorCode::EmptyAudience,
                    "the alert's audience names nobody",
                    "name sectors, countries, groups or agencies",
                ),
            ],
        ),
        401 => (
            "The caller is not known.",
            vec![no(
                ErrorCode::BadToken,
                "the bearer token is not this agent's",
                "send the content of the file api-token in the agent's data folder",
            )],
        ),
        403 => (
            "A policy forbids it, or the agency is no party to it.",
            vec![
                no(
                    ErrorCode::ForbiddenByPolicy,
                    "no agency of the audience may receive this alert",
                    "choose another audience, or ask the rule's owner",
                )
                .by_rule(Rule {
                    layer: "scheme".into(),
                    rule: "none:scheme".into(),
                    explain: "no policy of the layer permits it".into(),
                    ..Rule::default()
                }),
            ],
        ),
        404 => (
            "There is no such thing.",
            vec![
                no(
                    ErrorCode::UnknownRecipient,
                    "no agency be/nobody is known",
                    "choose one of the agencies that can be addressed; they are listed at /v1/agencies",
                ),
                no(
                    ErrorCode::UnknownMessage,
                    "this agent has no referral of this id",
                    "give the id that the agent answered with, or list what there is",
                ),
            ],
        ),
        408 => (
            "The request took too long.",
            vec![no(ErrorCode::Malformed, "the request did not end in time", "send it again")],
        ),
        409 => (
            "It contradicts what is there.",
            vec![
                no(
                    ErrorCode::IdempotencyConflict,
                    "this idempotency key was used for another request",
                    "use a new key for a new request",
                ),
                no(
                    ErrorCode::TransitionNotAllowed,
                    "a referral that is completed can't be cancelled",
                    "nothing can follow",
                ),
            ],
        ),
        413 => ("The request is too large.", vec![super::grpc::too_large()]),
        415 => (
            "The request is not JSON.",
            vec![no(
                ErrorCode::Unsupported,
                "the request's content-type is not application/json",
                "send JSON, and say so",
            )],
        ),
        421 => (
            "The request was meant for another host.",
            vec![no(
                ErrorCode::WrongName,
                "the request names another host than this machine",
                "call the API as localhost or by its loopback address",
            )],
        ),
        429 => (
            "A bound is reached.",
            vec![no(
                ErrorCode::QueueFull,
                "the outbox is full",
                "wait until the gateway can be reached again",
            )],
        ),
        503 => (
            "The gateway is needed for this, and it can't be reached.",
            vec![no(ErrorCode::GatewayUnreachable, "the gateway can't be reached", "wait until it is back")],
        ),
        _ => ("The agent failed.", vec![Refusal::internal()]),
    }
}

fn error_name(status: u16) -> String {
    format!("Error{status}")
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use liaison_proto::refusal;

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
                assert!(
                    references.contains(&format!("#/components/{kind}/{name}")),
                    "{kind}/{name} is not used"
                );
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
}
