#!/usr/bin/env bash
# A caseworker system made of curl: sends a referral over REST to one agent and reads it at another.
# usage: case_curl.sh SENDER_HOST:PORT SENDER_TOKEN RECIPIENT_HOST:PORT RECIPIENT_TOKEN RECIPIENT_ADDRESS
# Exits 0 only if what arrived is what was sent.
set -euo pipefail
sender=$1 sender_token=$2 recipient=$3 recipient_token=$4 to=$5
words="Fieber seit gestern — curl ❤"

field() { # the value at a path of names and numbers in the JSON of stdin
  python3 -c 'import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1:]:
    value = value[int(name) if isinstance(value, list) else name]
print(value)' "$@"
}

body=$(cat <<JSON
{
  "to": ["$to"],
  "purpose": "health_care",
  "content": {
    "health": { "physical": "$words" },
    "consent": {
      "obtainedFrom": "individual",
      "obtainedAt": "2025-11-03T09:00:00Z",
      "forServices": true,
      "forDisclosure": true,
      "scopes": [{ "categories": ["health"], "agencies": ["$to"], "purposes": ["health_care"] }]
    }
  }
}
JSON
)
id=$(curl --silent --show-error --fail-with-body --max-time 30 "http://$sender/v1/referrals" \
  -H "authorization: Bearer $sender_token" -H 'liaison-actor: curl' -H 'content-type: application/json' \
  -H 'idempotency-key: curl-1' --data "$body" | field referrals 0 id)

for _ in $(seq 600); do
  if received=$(curl --silent --fail --max-time 30 "http://$recipient/v1/referrals/$id" \
    -H "authorization: Bearer $recipient_token" -H 'liaison-actor: curl'); then
    [ "$(field sections health content health physical <<<"$received")" = "$words" ]
    [ "$(field sections narrative disclosure <<<"$received")" = not_disclosed ]
    echo "read at the other end: $id"
    exit 0
  fi
  sleep 0.1
done
echo "referral $id did not arrive" >&2
exit 1
