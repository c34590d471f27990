#!/usr/bin/env bash
# Fuzzes a freshly started node by its own OpenAPI document: no request, however odd, may be answered with a 5xx.
#
#   tests/fuzz_openapi.sh [PATH OF THE atoll BINARY]
#
# SCHEMATHESIS names the program (PyPI: schemathesis), FUZZ_EXAMPLES the number of cases for each operation,
# FUZZ_SEED the seed, FUZZ_SECONDS the longest time, FUZZ_CHECKS what is checked (`st run --help`). The node is filled
# first, and fuzz_hooks.py puts the ids of what is there into most requests.
set -euo pipefail

atoll=${1:-${CARGO_TARGET_DIR:-target}/debug/atoll}
schemathesis=${SCHEMATHESIS:-st}
examples=${FUZZ_EXAMPLES:-15} seed=${FUZZ_SEED:-1} limit_seconds=${FUZZ_SECONDS:-220}
checks=${FUZZ_CHECKS:-not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# What would end the run or the login it runs under: the stream of events never ends, a node that carries nothing has no
# accounts, and the rest revokes tokens or sessions.
skipped='^/(sign-out$|api/v1/(events|sync/carries|auth/logout|auth/sessions|auth/change-password|auth/reset-password))'
# How to serve. The last line that names an address in the log is read for the port.
serve=(serve --listen 127.0.0.1:0 --sync-listen 127.0.0.1:0 --set limits.rate=0
  --set limits.sign_ins_per_minute=0)

fail() { printf 'fuzz_openapi.sh: %s\n' "$*" >&2; exit 1; }
[[ -x $atoll ]] || fail "no binary at $atoll: cargo build"
atoll=$(realpath "$atoll")
command -v "$schemathesis" >/dev/null || fail "no schemathesis: pip install schemathesis, or set SCHEMATHESIS"

folder=$(mktemp -d)
node=''
cleanup() {
  local status=$?
  trap - EXIT
  if [[ -n $node ]]; then kill -TERM "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; fi
  if ((status != 0)) && [[ -s $folder/node.log ]]; then
    echo '--- the end of the log of the node' >&2
    tail -n 30 "$folder/node.log" >&2
  fi
  rm -rf "$folder"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

ATOLL_ADMIN_EMAIL=admin@fuzz.example
ATOLL_ADMIN_PASSWORD=$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')
export ATOLL_ADMIN_EMAIL ATOLL_ADMIN_PASSWORD
"$atoll" "${serve[@]}" --data "$folder/data" >"$folder/node.log" 2>&1 </dev/null &
node=$!

base=''
for ((tries = 0; tries < 300; tries++)); do
  kill -0 "$node" 2>/dev/null || fail 'the node ended before it was ready'
  base=$(grep -aoE 'http://127\.0\.0\.1:[1-9][0-9]*' "$folder/node.log" | tail -n 1 || true)
  if [[ -n $base ]] && curl --silent --fail --max-time 5 --output /dev/null "$base/readyz"; then break; fi
  base=''
  sleep 0.1
done
[[ -n $base ]] || fail 'the node was not ready after 30 s'

# The JSON is written by printf: neither value holds a character that would need escaping.
token=$(curl --silent --show-error --fail --max-time 30 --header 'content-type: application/json' \
  --data "$(printf '{"email":"%s","password":"%s"}' "$ATOLL_ADMIN_EMAIL" "$ATOLL_ADMIN_PASSWORD")" \
  "$base/api/v1/auth/login" | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p')
[[ -n $token ]] || fail 'the login gave no access token'

status_of_me() {
  curl --silent --max-time 10 --output /dev/null --write-out '%{http_code}' \
    --header "authorization: Bearer $token" "$base/api/v1/auth/me" || true
}
[[ $(status_of_me) == 200 ]] || fail 'the token is not good for /api/v1/auth/me'

"$atoll" import markdown "$here/../cli/corpus" --data "$folder/data" || fail 'the corpus could not be imported'

cd "$folder"
result=0
FUZZ_BASE=$base FUZZ_TOKEN=$token FUZZ_SEED=$seed SCHEMATHESIS_HOOKS=fuzz_hooks PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 \
  timeout --kill-after=10 "$limit_seconds" "$schemathesis" --config-file "$here/schemathesis.toml" run "$base/api/openapi.json" \
  --header "Authorization: Bearer $token" --checks "$checks" --phases examples,coverage,fuzzing \
  --max-examples "$examples" --seed "$seed" --generation-database none --workers 2 --request-timeout 20 \
  --exclude-path-regex "$skipped" --no-color --warnings off \
  --report ndjson --report-ndjson-path "$folder/report.ndjson" </dev/null || result=$?

if [[ -f $folder/report.ndjson ]]; then
  echo 'answers by status:'
  { grep -aoE '"status_code": ?[0-9]{3}' report.ndjson || true; } | grep -oE '[0-9]{3}' | sort | uniq -c
fi
kill -0 "$node" 2>/dev/null || fail 'the node died'
((result != 124 && result != 137)) || fail "not done after $limit_seconds s; lower FUZZ_EXAMPLES"
((result == 0)) || fail "schemathesis found something (status $result); FUZZ_SEED=$seed repeats it"
# A run whose every answer is a 401 or a 429 proves nothing.
status=$(status_of_me)
if [[ $status != 200 ]]; then
  echo "GET /api/v1/auth/me is answered with $status. The last that were answered with 401:" >&2
  { grep -aE '"status_code": ?401' report.ndjson || true; } | grep -aoE '"(method|uri)": ?"[^"]{0,200}"' | tail -n 40 >&2
  fail 'the token was no longer good at the end: the run saw refusals only from some point on'
fi
echo 'no server error'
