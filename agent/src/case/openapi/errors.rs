//! How the REST API says no: the schema of its errors, and what each status means, with examples.

use liaison_proto::message::v1::{Refusal, Rule, error_code::Code as ErrorCode};
use serde_json::{Map, Value, json};

use crate::case::{body::too_large, rest};

pub(super) fn error_schema(rule: &Value) -> Value {
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

pub(super) fn error_response(status: u16) -> Value {
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
            "A policy or the originator forbids it, or the agency is no party to it.",
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
                no(
                    ErrorCode::OnwardForbidden,
                    "what was received may not be referred onward, or is not here any more: health",
                    "ask the originator to refer the person itself",
                ),
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
        413 => ("The request is too large.", vec![too_large()]),
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

pub(super) fn error_name(status: u16) -> String {
    format!("Error{status}")
}
