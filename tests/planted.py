#!/usr/bin/env python3
"""Plants faults, one at a time, in a copy of the project, and demands that the suite catches each.

    tests/planted.py            all of them; takes a few minutes a fault, most of it building
    tests/planted.py NAME...    some of them

Run on demand, not by tests/run. Exit status 0 only if every fault was caught by the test that is there to
catch it, which passes without the fault. A fault whose place in the code is gone fails as well: adapt it."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "planted"

# name: (file, what stands there, what is planted, the test that catches it)
FAULTS = {
    "the sender's signature is not verified": (
        "trust/src/envelope/head.rs",
        "key.signing.verify(LABEL, manifest, signature).map_err(|_| EnvelopeError::BadSignature(sender()))?;",
        "let _ = (manifest, signature);",
        "refusals::submissions",
    ),
    "a message may claim another sender": (
        "gateway/src/exchange/submission.rs",
        "if verified.sender != *sender {",
        "if verified.sender.name().is_empty() {",
        "refusals::submissions",
    ),
    "an id may be used for another message": (
        "gateway/src/store/sql/batch.rs",
        "Some(before) if before.digest != message.digest => return Err(AcceptError::IdReused),",
        "Some(before) if before.digest != message.digest => return Ok(Accepted::Again(before.acceptance.clone())),",
        "refusals::a_replay_has_one_effect_and_an_id_is_used_once",
    ),
    "withheld sections stay in the copy": (
        "trust/src/envelope/copy.rs",
        "sections: sections.filter(|section| released.contains(&section.position)).collect(),",
        "sections: sections.collect(),",
        "copies::a_copy_tells_nothing_of_what_was_withheld",
    ),
    "policies are not asked again before hand-over": (
        "gateway/src/delivery/fresh.rs",
        "if record.is_some_and(|record| record.policy_hash == policies.hash().as_ref()) {",
        "if record.is_some() {",
        "live::a_policy_tightened_between_acceptance_and_hand_over_wins",
    ),
    "an agent acknowledges before it commits": (
        "agent/src/store/receive.rs",
        "            tx.commit().await?;\n        } else {\n            tx.undo()",
        "            tokio::spawn(async move {\n"
        "                tokio::time::sleep(std::time::Duration::from_millis(100)).await;\n"
        "                tx.commit().await\n"
        "            });\n        } else {\n            tx.undo()",
        "kills::agents_killed_at_random_moments_lose_nothing",
    ),
    "an agent logs what it sends": (
        "agent/src/case/operations.rs",
        "    let idempotency = idempotency(caller, &request);\n    if let Some(ids) = repeated(agent, idempotency.as_ref()).await? {\n        return sent_referrals",
        "    tracing::info!(\"{:?}\", prost::Message::encode_to_vec(&request).escape_ascii().to_string());\n"
        "    let idempotency = idempotency(caller, &request);\n    if let Some(ids) = repeated(agent, idempotency.as_ref()).await? {\n        return sent_referrals",
        "leaks::no_word_of_a_section_is_found_where_it_does_not_belong",
    ),
    "any token is taken": (
        "agent/src/case/caller.rs",
        ".map_err(|_| bad_token(\"the bearer token is not this agent's\"))?;",
        ".ok();",
        "authorisation::every_rpc_as_every_caller",
    ),
}


def passes(test):
    """Builds the copy and runs one test of it."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(COPY / "target"))
    # All with the same features, so that nothing is built twice.
    build = ["cargo", "build", "--quiet", "--workspace", "--bins"]
    subprocess.run(build, cwd=COPY / "tree", env=environment, check=True)
    run = ["cargo", "test", "--quiet", "--workspace", "--test", "suite", "--", "--exact", test]
    done = subprocess.run(run, cwd=COPY / "tree", env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if b"1 passed" not in done.stdout and b"1 failed" not in done.stdout:
        sys.exit(f"there is no test {test}, or it does not build:\n{done.stdout.decode(errors='replace')}")
    return done.returncode == 0


def plant(name):
    """Whether a fault is caught."""
    file, stands, planted, test = FAULTS[name]
    path = COPY / "tree" / file
    honest = path.read_text()
    if honest.count(stands) != 1:
        print(f"GONE    {name}: its place in {file} is not there once; adapt tests/planted.py")
        return False
    path.write_text(honest.replace(stands, planted))
    try:
        caught = not passes(test)
    finally:
        path.write_text(honest)
    print(f"{'caught' if caught else 'MISSED'}  {name}: {test}", flush=True)
    return caught


def main():
    names = sys.argv[1:] or list(FAULTS)
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        sys.exit(f"no such fault: {unknown}; there are {list(FAULTS)}")
    shutil.rmtree(COPY / "tree", ignore_errors=True)
    (COPY / "tree").mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", COPY / "tree"], input=archive, check=True)
    honest = {FAULTS[name][3] for name in names}
    failing = [test for test in sorted(honest) if not passes(test)]
    if failing:
        sys.exit(f"these fail without any fault, so they show nothing: {failing}")
    caught = [plant(name) for name in names]
    print(f"{sum(caught)} of {len(caught)} faults caught")
    sys.exit(0 if all(caught) else 1)


if __name__ == "__main__":
    main()
