#!/usr/bin/env bash
# Asks a real server everything that docs/openapi.json allows, and much that it does not: no answer may be a 5xx, have a status or a type
# that the description does not name, or keys of another shape. Some 30 s; it needs the programs built and `scripts/tools.sh all`.
#
#   scripts/schemathesis.sh [DESCRIPTION [OPTION OF SCHEMATHESIS…]]
#
# The server lives in a temporary folder, on loopback, and is asked over its admin socket, through a relay. Left out is what has it dial hosts
# that are made up: `set_pve`, `look_at_certificates`; in `add_instance` and `import` the hooks take `pve` out of what is sent.
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
[[ -x $bin/pulse ]] || fail "the server is missing: build it first"

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

"$bin/pulse" serve --data-dir "$folder/data" --listen 127.0.0.1:0 >"$folder/server.log" 2>&1 &
pids+=($!)
wait_for pulse status
"$python/python" "$hooks/relay.py" "$folder/data/admin.sock" >"$folder/port" &
pids+=($!)
wait_for test -s "$folder/port"
pulse instance add home --endpoint delly=192.0.2.1 --endpoint minipc=192.0.2.2 >/dev/null
pulse instance add lab --endpoint attic=192.0.2.3 >/dev/null

# Not `negative_data_rejection`: serde reads an object from an array of its values too, and numbers beyond int64. Nobody is harmed by it.
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance
checks+=,response_headers_conformance,unsupported_method,allow_header_conformance,use_after_free
status=0
(
    # What it writes goes with the folder.
    cd "$folder"
    SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$hooks "$python/schemathesis" run "$description" --url "http://127.0.0.1:$(<port)" \
        --exclude-operation-id set_pve --exclude-operation-id look_at_certificates \
        --checks "$checks" \
        --phases examples,coverage,fuzzing --max-examples 20 --seed 1 --workers 1 --no-shrink --warnings off "$@"
) || status=$?
kill -0 "${pids[0]}" 2>/dev/null || fail "the server did not outlive it"
if grep -q panicked "$folder/server.log"; then fail "the server panicked"; fi
exit "$status"
