//! What the agencies of the story send, as their caseworker systems would write it.

use serde_json::{Value, json};

use crate::cast::{POLICE, SHELTER};

/// A case that a hospital hands over. The person consents to all of it for the shelter; for the police
/// the hospital claims a public task.
pub(super) fn referral(to: &[&str]) -> Value {
    json!({
        "to": to,
        "purpose": "victim_support",
        "origin": "victim",
        "content": {
            "serviceRequest": {
                "services": ["safehouse", "psychosocial"],
                "timeframe": "within_1d",
                "reason": "AdditionalServicesRequired",
                "interpreterLanguages": ["bg"],
                "note": "A bed tonight; a woman counsellor if there is one.",
            },
            "identity": {
                "names": [{ "given": "Elena", "family": "Petrova" }],
                "birthdate": "1998-04",
            },
            "demographic": {
                "ageBand": "from_25_to_39",
                "gender": "Feminine",
                "citizenships": ["bg"],
                "languages": ["bg"],
            },
            "traffickingStatus": { "status": "PossibleVictimOfTrafficking", "decidedBy": "Other" },
            "exploitation": {
                "types": ["ForcedLabour"],
                "recruitment": ["ThroughAnOnlineAdvertisement"],
                "meansOfControl": ["WithholdsDocuments", "TakesEarnings"],
                "industries": ["A"],
            },
            "health": {
                "physical": "Healing fracture of the left wrist, anaemia.",
                "mental": "Sleeps badly; startles.",
                "urgentNeeds": "Iron tablets, a check of the cast in a week.",
            },
            "risk": { "level": "high", "reasons": ["The employer knows where she was treated."] },
            "consent": consent(),
        },
        "claimedBases": [{
            "categories": ["service_request", "trafficking_status", "exploitation", "health", "risk"],
            "basis": "public_task",
            "agencies": [POLICE],
        }],
    })
}

fn consent() -> Value {
    json!({
        "obtainedFrom": "individual",
        "obtainedAt": "2025-11-03T09:00:00Z",
        "forServices": true,
        "forDisclosure": true,
        "lawfulBasis": "art_6_1_a",
        "specialCategoryCondition": "art_9_2_a",
        "scopes": [{
            "categories": [
                "service_request", "identity", "demographic", "trafficking_status", "exploitation", "health",
                "risk", "consent",
            ],
            "agencies": [SHELTER],
            "purposes": ["victim_support"],
        }],
    })
}

/// Forged papers that border control found, for everybody in the country who might meet them.
pub(super) fn forged_papers() -> Value {
    json!({
        "kind": "DocumentFraud",
        "purpose": "prevention",
        "origin": "agency",
        "audience": { "countries": ["be"] },
        "content": {
            "info": { "severity": "Severe", "certainty": "Observed", "response": "Monitor", "scope": "Restricted" },
            "documentFraud": {
                "type": "forged",
                "document": "identity card",
                "issuingCountry": "bg",
                "features": ["photo replaced", "second line of the machine-readable zone misprinted"],
            },
        },
        "claimedBases": [{ "categories": ["risk", "migration"], "basis": "public_task" }],
    })
}

/// How people are recruited and held, without any person in it.
pub(super) fn pattern() -> Value {
    json!({
        "kind": "ExploitationPattern",
        "purpose": "prevention",
        "origin": "agency",
        "audience": { "countries": ["be"] },
        "content": {
            "info": { "severity": "Severe", "certainty": "Likely", "response": "Assess", "scope": "Restricted" },
            "pattern": {
                "types": ["ForcedLabour"],
                "recruitment": ["ThroughAnOnlineAdvertisement"],
                "meansOfControl": ["WithholdsDocuments", "TakesEarnings"],
                "industries": ["A"],
                "route": ["bg", "ro", "be"],
            },
        },
    })
}
