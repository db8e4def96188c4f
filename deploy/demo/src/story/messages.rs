//! What the agencies of the story send, as their caseworker systems would write it.

use serde_json::{Value, json};

use crate::cast::{HEALTH_HU, SHELTER_HU};

/// A case that a shelter hands over to a shelter and to a health service in another country. The person
/// consents to what each of them may know.
pub(super) fn referral() -> Value {
    json!({
        "to": [SHELTER_HU, HEALTH_HU],
        "purpose": "victim_support",
        "origin": "victim",
        "urgency": "Expected",
        "content": {
            "serviceRequest": {
                "services": ["safehouse", "health_medical"],
                "timeframe": "within_3d",
                "reason": "AdditionalServicesRequired",
                "note": "She arrives in Budapest by train; somebody should meet her.",
            },
            "identity": {
                "names": [{ "given": "Ilona", "family": "Kovács" }],
                "birthdate": "1998-04",
            },
            "demographic": {
                "ageBand": "from_25_to_39",
                "gender": "Feminine",
                "citizenships": ["hu"],
                "languages": ["hu"],
            },
            "traffickingStatus": { "status": "PossibleVictimOfTrafficking", "decidedBy": "Other" },
            "exploitation": {
                "types": ["ForcedLabour"],
                "recruitment": ["ThroughAnOnlineAdvertisement"],
                "meansOfControl": ["WithholdsDocuments", "TakesEarnings"],
                "industries": ["A"],
            },
            "sexualExploitation": { "sexualAbuse": true },
            "health": {
                "physical": "Healing fracture of the left wrist, anaemia.",
                "mental": "Sleeps badly; startles.",
                "urgentNeeds": "Iron tablets, a check of the cast in a week.",
            },
            "migration": { "note": "Her reflection period in Belgium ends next month." },
            "location": { "country": "be", "whereabouts": "With us until she travels." },
            "risk": { "level": "high", "reasons": ["Her recruiter knows her family's address."] },
            "consent": consent(),
        },
    })
}

fn consent() -> Value {
    let scope = |agency: &str, own: &[&str]| {
        let both = [
            "service_request",
            "identity",
            "demographic",
            "trafficking_status",
            "sexual_exploitation",
            "migration",
            "location",
            "risk",
            "consent",
        ];
        let categories: Vec<&str> = both.iter().chain(own).copied().collect();
        json!({ "categories": categories, "agencies": [agency], "purposes": ["victim_support"] })
    };
    json!({
        "obtainedFrom": "individual",
        "obtainedAt": "2025-11-03T09:00:00Z",
        "forServices": true,
        "forDisclosure": true,
        "lawfulBasis": "art_6_1_a",
        "specialCategoryCondition": "art_9_2_a",
        "scopes": [scope(SHELTER_HU, &["exploitation"]), scope(HEALTH_HU, &["health"])],
    })
}

/// Forged papers that the police found, for those in both countries who inspect documents, and for a shelter
/// that does not.
pub(super) fn forged_papers() -> Value {
    json!({
        "kind": "DocumentFraud",
        "purpose": "prevention",
        "origin": "agency",
        "audience": {
            "sectors": ["LawEnforcement", "BorderManagement"],
            "countries": ["be", "hu"],
            "agencies": [SHELTER_HU],
        },
        "content": {
            "info": { "severity": "Severe", "certainty": "Observed", "response": "Monitor", "scope": "Restricted" },
            "documentFraud": {
                "type": "forged",
                "document": "identity card",
                "issuingCountry": "hu",
                "features": ["photo replaced", "second line of the machine-readable zone misprinted"],
            },
            "identity": { "names": [{ "given": "Ilona", "family": "Nagy" }] },
        },
        "claimedBases": [{ "categories": ["risk", "migration", "identity"], "basis": "legal_obligation" }],
    })
}
