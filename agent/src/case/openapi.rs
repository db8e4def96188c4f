//! The OpenAPI 3.1 document of the REST API, made from the contracts: what a `.proto` file says of a
//! message, of a field or of an enumeration value is what the document says.

mod errors;
mod schema;

use std::{collections::BTreeSet, sync::LazyLock};

use errors::{error_name, error_response, error_schema};
use liaison_proto::{POOL, case::v1::case_service_server::SERVICE_NAME};
use prost_reflect::{FieldDescriptor, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::caller::{ACTOR, IDEMPOTENCY_KEY};
use crate::limits;

/// The document as it is served and committed as `openapi.json`, in one order whatever the order that
/// serde_json was built to keep.
pub static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut document = document();
    document.sort_all_objects();
    format!("{document:#}\n")
});

/// One endpoint: a method of the service at a path.
struct Endpoint {
    verb: &'static str,
    path: &'static str,
    method: &'static str,
    /// How it can fail beside what every endpoint can.
    errors: &'static [u16],
}

const SEND_ERRORS: &[u16] = &[403, 404, 409, 413, 415, 429, 503];

const ENDPOINTS: [Endpoint; 16] = [
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
    Endpoint { verb: "post", path: "/v1/referrals/{id}/onward", method: "ReferOnward", errors: SEND_ERRORS },
    Endpoint { verb: "get", path: "/v1/onward-requests", method: "ListOnwardRequests", errors: &[] },
    Endpoint {
        verb: "post",
        path: "/v1/onward-requests/{id}/answer",
        method: "AnswerOnwardRequest",
        errors: &[404, 409, 413, 415],
    },
    Endpoint { verb: "post", path: "/v1/alerts", method: "SendAlert", errors: SEND_ERRORS },
    Endpoint { verb: "get", path: "/v1/alerts", method: "ListAlerts", errors: &[] },
    Endpoint { verb: "get", path: "/v1/alerts/{id}", method: "GetAlert", errors: &[404] },
    Endpoint { verb: "get", path: "/v1/messages/{id}/receipts", method: "ListReceipts", errors: &[404] },
    Endpoint { verb: "get", path: "/v1/agencies", method: "ListAgencies", errors: &[503] },
    Endpoint { verb: "get", path: "/v1/keys", method: "ListKeys", errors: &[] },
    Endpoint { verb: "post", path: "/v1/keys/confirm", method: "ConfirmKeys", errors: &[404, 413, 415] },
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
    let object = content(&json!({"type": "object"}));
    paths.insert("/openapi.json".into(), open_path("getDocument", "This document.", &object));
    let text = json!({"text/plain": {"schema": {"type": "string"}}});
    let summary = "Numbers for machines that watch the agent, in the text format of Prometheus.";
    paths.insert("/metrics".into(), open_path("getMetrics", summary, &text));
    let live = json!({"type": "object", "properties": {"live": {"type": "boolean"}}, "required": ["live"]});
    paths.insert("/livez".into(), open_path("getLiveness", "Answers while the agent runs.", &content(&live)));

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
    if endpoint.method.starts_with("Send") || endpoint.method == "ReferOnward" {
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

fn open_path(id: &str, summary: &str, content: &Value) -> Value {
    json!({"get": {
        "operationId": id,
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": summary, "content": content},
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

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests;
