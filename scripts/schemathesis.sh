#!/usr/bin/env bash
# Asks a real server everything that docs/openapi.json allows, and much that it does not: no answer may be a 5xx, have a status or a type
# that the description does not name, or keys of another shape. Some 40 s; it needs the programs built and `scripts/tools.sh all`.
#
#   scripts/schemathesis.sh [DESCRIPTION [OPTION OF SCHEMATHESIS…]]
#
# The server lives in a temporary folder, on loopback. It is asked over TLS with an API token that has all scopes; then without one, when 401 is
# the answer; and for what is on the socket only over its admin socket, through a relay. Left out is what has it dial hosts that are made up:
# `set_pve`, `look_at_certificates`; in `add_instance` and `import` the hooks take `pve` out of what is sent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

description=$(realpath "${1:-docs/openapi.json}")
shift || true
bin=$(realpath "${CARGO_TARGET_DIR:-target}")/debug
hooks=$PWD/tests/schemathesis
python=$PWD/.tools/schemathesis/bin
for name in "${!PULSE_@}" RUST_LOG NOTIFY_SOCKET; do unset "$name"; done

folder=$(mktemp -d "${TMPDIR:-/tmp}/pulse-schemathesis.XXXXXX")
pids=()
clean_up() {
    trap - EXIT
    kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap clean_up EXIT
fail() {
    printf 'schemathesis: %s\n' "$*" >&2
    tail -n 8 "$folder/server.log" >&2 || true
    exit 1
}
[[ -x $python/schemathesis ]] || fail "schemathesis is missing: scripts/tools.sh all installs it"
[[ -x $bin/pulse && -x $bin/pulse-sensor-proxy ]] || fail "the programs are missing: build them first"

# Waits until a command succeeds, at most 30 s.
wait_for() {
    local deadline=$((SECONDS + 30))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "waited 30 s in vain: $*"
        kill -0 "${pids[@]}" 2>/dev/null || fail "the server or the relay ended by itself"
        sleep 0.1
    done
}
pulse() { "$bin/pulse" --data-dir "$folder/data" "$@"; }

# Made-up credentials are not held against the address that they all come from.
echo 'limits: {failed_calls_per_minute: 100000}' >"$folder/pulse.yaml"
"$bin/pulse" --config "$folder/pulse.yaml" serve --data-dir "$folder/data" --listen 127.0.0.1:0 >"$folder/server.log" 2>&1 &
pids+=($!)
wait_for pulse status
"$python/python" "$hooks/relay.py" "$folder/data/admin.sock" >"$folder/port" &
pids+=($!)
wait_for test -s "$folder/port"
pulse instance add home --endpoint delly=192.0.2.1 --endpoint minipc=192.0.2.2 >/dev/null
pulse instance add lab --endpoint attic=192.0.2.3 >/dev/null
# A proxy that is registered, and does not run.
get() { "$python/python" -c 'import json, sys; print(eval("json.load(sys.stdin)" + sys.argv[1]))' "$1"; }
echo 'report_interval: 1s' >"$folder/proxy.yaml"
pulse join create --instance home --json | get '["join"]' |
    "$bin/pulse-sensor-proxy" --config "$folder/proxy.yaml" --state-dir "$folder/state" register --join - --hostname delly >/dev/null
proxy_id=$(pulse proxy list --json | get '["proxies"][0]["id"]')

mapfile -t socket_only < <("$python/python" -c '
import json, sys
for path in json.load(open(sys.argv[1]))["paths"].values():
    for operation in path.values():
        if operation["security"] == [{"socket": []}]:
            print("--include-operation-id", operation["operationId"], sep="\n")' "$description")
url=https://$(pulse status --json | get '["listen"][0]')
pulse token create all --scope monitoring:read --scope settings:read --scope settings:write --scope proxies:register --file "$folder/token" >/dev/null

# Not `negative_data_rejection`: serde reads an object from an array of its values too, and numbers beyond int64. Nobody is harmed by it.
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance
checks+=,response_headers_conformance,unsupported_method,allow_header_conformance,use_after_free
status=0
# Asks one way: ask URL OPTION… Over HTTP/1.1 a refusal that did not wait for the body may end the connection under it: asked again.
ask() {
    # What it writes goes with the folder.
    (
        cd "$folder"
        PROXY_ID=$proxy_id SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$hooks "$python/schemathesis" run "$description" --url "$@" \
            --seed 1 --workers 1 --no-shrink --warnings off --request-retries 2
    ) || status=$?
}
# Those that dial, the stream that does not end, and the exchange after which `ca.pem` is another one.
ask "$url" --tls-verify "$folder/data/ca.pem" -H "Authorization: Bearer $(<"$folder/token")" \
    --exclude-operation-id set_pve --exclude-operation-id look_at_certificates --exclude-operation-id follow_events \
    --exclude-operation-id begin_ca_exchange --exclude-operation-id finish_ca_exchange \
    --checks "$checks" --phases examples,coverage,fuzzing --max-examples 8 "$@"
ask "$url" --tls-verify "$folder/data/ca.pem" --checks "$checks,refused_without_credential" --phases coverage "$@"
ask "http://127.0.0.1:$(<"$folder/port")" --include-operation-id begin_ca_exchange --include-operation-id finish_ca_exchange \
    "${socket_only[@]}" --checks "$checks" --phases examples,coverage,fuzzing --max-examples 8 "$@"
kill -0 "${pids[0]}" 2>/dev/null || fail "the server did not outlive it"
if grep -q panicked "$folder/server.log"; then fail "the server panicked"; fi
exit "$status"
