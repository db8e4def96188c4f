#!/usr/bin/env python3
"""Checks the JSON of `cargo load -- --json --against echo,stream` on stdin: one object, its shape, and sane numbers."""

import json
import sys

RUNS = ["gateway", "road", "road_half", "road_idle", "echo", "stream"]
# Of each run, a number above 0.
NUMBERS = [
    "msgs_per_s", "p50_ms", "p99_ms", "p999_ms", "cpu_us_per_msg", "generator_cpu_us_per_msg", "messages",
]
MORE = ["accepted_p50_ms", "accepted_p99_ms", "written_bytes_per_msg", "left_bytes_per_msg", "processes"]
RATIOS = {"gateway/echo", "gateway/stream"}

load = json.loads(sys.stdin.read())
assert set(load) == {"runs", "ratios"}, f"the object has {sorted(load)}"
runs = {run["name"]: run for run in load["runs"]}
assert list(runs) == RUNS, f"the runs are {list(runs)}"
for name, run in runs.items():
    assert set(run) == {"name", *NUMBERS, *MORE}, f"{name} has {sorted(run)}"
    for number in NUMBERS:
        assert run[number] > 0, f"{name}: {number} is {run[number]}"
    assert run["p50_ms"] <= run["p99_ms"] <= run["p999_ms"], f"{name}: percentiles fall"
    assert run["processes"] and all(process["peak_rss_bytes"] > 0 for process in run["processes"]), name
road = {process["name"] for process in runs["road"]["processes"]}
assert road == {"gateway", "sender", "recipient"}, f"the road goes over {road}"
assert runs["gateway"]["written_bytes_per_msg"] >= 4096, "the gateway holds messages that are not on its disk"
assert set(load["ratios"]) == RATIOS, f"the ratios are {sorted(load['ratios'])}"
for name, ratio in load["ratios"].items():
    one, other = (runs[run]["msgs_per_s"] for run in name.split("/"))
    assert abs(ratio - one / other) < 0.01, f"{name} is {ratio}, not {one} / {other}"
rates = ", ".join(f"{name} {run['msgs_per_s']:.0f}/s" for name, run in runs.items())
print(f"the load was measured: {rates}")
