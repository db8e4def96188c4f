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
    "alerts": [{"id": str, "from": str, "delivered_to": [str], "refused_to": [{"agency": str, "rule": str}]}],
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
shelter, police = to["be/shelter-antwerp"], to["be/police-federal"]
assert "health" in shelter["released"], "the shelter has no health section"
assert "health" not in police["released"], "the police have the health section"
assert any(one["category"] == "health" and one["rule"] for one in police["withheld"]), "no rule is told"
refused = [alert for alert in story["alerts"] if alert["refused_to"]]
assert refused, "no alert was kept from anybody"
for alert in story["alerts"]:
    assert alert["delivered_to"], "an alert reached nobody"
    assert not {one["agency"] for one in alert["refused_to"]} & set(alert["delivered_to"]), "refused and delivered"
assert len(story["policy"]["hash"]) == 64
print(f"the demo told its story: {len(story['referrals'])} referrals, {len(story['alerts'])} alerts")
