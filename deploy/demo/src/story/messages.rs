//! What the agencies of the story send, as their caseworker systems would write it.

use serde_json::{Value, json};

/// A case that a shelter hands over to helpers in the country that the person goes home to. She
/// consents to all of it for them.
pub(super) fn referral(to: &[&str]) -> Value {
    json!({
        "to": to,
        "purpose": "victim_support",
        "origin": "victim",
        "content": {
            "serviceRequest": {
                "services": ["safehouse", "health_medical", "psychosocial"],
                "timeframe": "within_3d",
                "reason": "MigrationOrChangeOfLocation",
                "interpreterLanguages": ["hu"],
                "note": "She travels on Thursday; a woman should meet her at the station.",
            },
            "identity": {
                "names": [{ "given": "Ilona", "family": "Kovács" }],
                "birthdate": "1998-04",
            },
            "contact": {
                "phones": ["+36201234567"],
                "safeContactRule": "Text only, in the morning; her brother answers calls.",
            },
            "demographic": {
                "ageBand": "from_25_to_39",
                "gender": "Feminine",
                "citizenships": ["hu"],
                "languages": ["hu"],
            },
            "traffickingStatus": { "status": "ActualVictimOfTrafficking", "decidedBy": "Police" },
            "exploitation": {
                "types": ["SexualExploitation", "ForcedLabour"],
                "recruitment": ["ThroughAnOnlineAdvertisement"],
                "meansOfControl": ["WithholdsDocuments", "TakesEarnings"],
                "industries": ["I"],
            },
            "sexualExploitation": { "types": ["Prostitution"], "note": "From March on, in Antwerp." },
            "health": {
                "physical": "Healing fracture of the left wrist, anaemia.",
                "mental": "Sleeps badly; startles.",
                "urgentNeeds": "Iron tablets, a check of the cast in a week.",
            },
            "migration": {
                "migrantType": "eu_citizen",
                "protectionStatus": "reflection_period",
                "note": "Her reflection period ends on the 30th.",
            },
            "location": { "whereabouts": "A safe house in Antwerp", "shelter": "Shelter Antwerp, house 2" },
            "risk": { "level": "high", "reasons": ["The man who sent her knows her village."] },
            "consent": {
                "obtainedFrom": "individual",
                "obtainedAt": "2025-11-03T09:00:00Z",
                "forServices": true,
                "forDisclosure": true,
                "lawfulBasis": "art_6_1_a",
                "specialCategoryCondition": "art_9_2_a",
                "scopes": [{
                    "categories": [
                        "service_request", "identity", "contact", "demographic", "trafficking_status",
                        "exploitation", "sexual_exploitation", "health", "migration",
                        "location", "risk", "consent",
                    ],
                    "agencies": to,
                    "purposes": ["victim_support"],
                }],
            },
        },
    })
}

/// Forged papers that the police found, for everybody in both countries who inspects papers.
pub(super) fn forged_papers() -> Value {
    json!({
        "kind": "DocumentFraud",
        "purpose": "prevention",
        "origin": "agency",
        "audience": {
            "sectors": ["LawEnforcement", "BorderManagement"],
            "countries": ["be", "hu"],
        },
        "content": {
            "info": {
                "severity": "Severe",
                "certainty": "Observed",
                "response": "Monitor",
                "scope": "Restricted",
            },
            "documentFraud": {
                "type": "forged",
                "document": "identity card",
                "issuingCountry": "ro",
                "features": ["photo replaced", "second line of the machine-readable zone misprinted"],
            },
            "identity": {
                "names": [{ "given": "Maria", "family": "Ionescu" }],
                "numbers": [{ "type": "identity card", "value": "XR482117", "issuingCountry": "ro" }],
            },
        },
        "claimedBases": [
            { "categories": ["risk", "migration"], "basis": "public_task" },
            { "categories": ["identity"], "basis": "legal_obligation" },
        ],
    })
}
