#!/usr/bin/env python3
"""Checks the JSON of `cargo demo -- --once --json` on stdin: one object, its shape, and its story."""

import json
import sys

SHAPE = {
    "referrals": [
        {
            "id": str,
            "from": str,
            "to": str,
            "state": str,
            "released": [str],
            "withheld": [{"category": str, "layer": str, "rule": str, "explain": str}],
            "elapsed_ms": int,
        }
    ],
    "alerts": [
        {
            "id": str,
            "from": str,
            "delivered_to": [str],
            "refused_to": [{"agency": str, "rule": str}],
            "withheld": [{"agency": str, "category": str, "layer": str, "rule": str, "explain": str}],
        }
    ],
    "policy": {"hash": str},
}


def check(value, shape, at="the object"):
    if isinstance(shape, dict):
        assert isinstance(value, dict) and set(value) == set(shape), f"{at} has {sorted(value)}, not {sorted(shape)}"
        for name in shape:
            check(value[name], shape[name], f"{at}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{at} is no list"
        for number, item in enumerate(value):
            check(item, shape[0], f"{at}[{number}]")
    else:
        assert isinstance(value, shape), f"{at} is {value!r}"


story = json.loads(sys.stdin.read())
check(story, SHAPE)
to = {referral["to"]: referral for referral in story["referrals"]}
shelter, health = to["hu/shelter-budapest"], to["hu/health-pest"]
assert "health" in health["released"], "the health service has no health section"
assert "health" not in shelter["released"], "the shelter has the health section"


def countries(withheld):
    return {one["layer"] for one in withheld if one["rule"] and one["explain"]} & {"country/be", "country/hu"}


for referral in story["referrals"]:
    assert referral["from"].startswith("be/") and referral["to"].startswith("hu/"), "no referral crossed the border"
    assert referral["state"] == "accepted", f"{referral['to']} did not accept"
    assert not {one["category"] for one in referral["withheld"]} & set(referral["released"]), "withheld and released"
    assert len(countries(referral["withheld"])) == 2, f"one country withheld nothing from {referral['to']}"
for alert in story["alerts"]:
    assert {agency.split("/")[0] for agency in alert["delivered_to"]} == {"be", "hu"}, "an alert missed a domain"
    assert alert["refused_to"], "the alert was kept from nobody"
    assert not {one["agency"] for one in alert["refused_to"]} & set(alert["delivered_to"]), "refused and delivered"
    assert {one["agency"] for one in alert["withheld"]} <= set(alert["delivered_to"]), "withheld from nobody"
    assert len(countries(alert["withheld"])) == 2, "one country withheld nothing of the alert"
    assert len({(one["category"], one["layer"]) for one in alert["withheld"]}) > 1, "all was withheld by one rule"
assert story["referrals"] and story["alerts"], "nothing was sent"
assert len(story["policy"]["hash"]) == 64
print(f"the demo told its story: {len(story['referrals'])} referrals, {len(story['alerts'])} alerts")
