#!/usr/bin/env python3
"""Checks the JSON of `cargo demo -- --once --json` on stdin: one object, its shape, and its story."""

import json
import pathlib
import subprocess
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
    "log": {"entries": int, "head": str, "verified": bool, "receipts": [str]},
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
assert shelter["state"] == "accepted", "the sender does not see that the shelter accepted"
both = {"country/be", "country/hu"}
for kind in ["referrals", "alerts"]:
    withheld = [one for message in story[kind] for one in message["withheld"]]
    assert both <= {one["layer"] for one in withheld}, f"not both countries withheld something of the {kind}"
    assert all(one["rule"] for one in withheld), f"no rule is told for what was withheld of the {kind}"
for alert in story["alerts"]:
    assert both == {"country/" + agency.split("/")[0] for agency in alert["delivered_to"]}, "an alert stayed in one domain"
    assert not {one["agency"] for one in alert["refused_to"]} & set(alert["delivered_to"]), "refused and delivered"
assert len(story["policy"]["hash"]) == 64
log = story["log"]
assert log["verified"] is True, "a receipt does not hold"
assert len(bytes.fromhex(log["head"])) == 32
assert len(set(log["receipts"])) == len(log["receipts"]) <= log["entries"], "more receipts than leaves"
# Of each message at least its acceptance and what became of one copy.
assert len(log["receipts"]) >= 2 * (len(story["referrals"]) + len(story["alerts"])), "receipts are missing"
verifier = pathlib.Path(__file__).parent / "foreign" / "verify_receipt.py"
verified = subprocess.run([sys.executable, verifier, *log["receipts"]], capture_output=True, text=True)
assert verified.returncode == 0, verified.stderr
for message in story["referrals"] + story["alerts"]:
    assert any("accepted, at" in line and message["id"] in line for line in verified.stdout.splitlines()), f"no receipt of {message['id']}"
print(f"the demo told its story: {len(story['referrals'])} referrals, {len(story['alerts'])} alerts, {len(log['receipts'])} receipts")
