#!/usr/bin/env bash
# Searches everything that the tests' programs said for secrets: arguments, standard output and error, logs, answers,
# metrics, and the output of the tests themselves. Fails if one is found, with file and line, and never shows it.
#
#   scripts/secrets.sh [OUTPUT_FOLDER [KEYS_FOLDER]]
#
# The tests leave both folders behind (tests/support/src/capture.rs): what was said in target/test-output, and how the keys
# of their servers look in target/test-secrets, which is deleted here once it was used.

set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

output=${1:-target/test-output}
keys=${2:-target/test-secrets}

if [ -z "$(find "$output" -type f -size +0 -print -quit 2>/dev/null)" ]; then
    echo "secrets: nothing in $output: run the tests first" >&2
    exit 1
fi

# Each kind of token by its prefix, as proto/token.rs has them, and 16 more characters: a part of a token is one too.
prefixes=$(grep -oE '=> "p[a-z]+_"' proto/token.rs | grep -oE 'p[a-z]+_' | sort -u | paste -sd '|')
if [ -z "$prefixes" ]; then
    echo "secrets: proto/token.rs has no prefixes any more: mend this search" >&2
    exit 1
fi

# What private keys look like, whoever's they are: PEM, and PKCS#8 of Ed25519 and P-256 in base64 and hex.
patterns=(
    "($prefixes)[A-Za-z0-9_-]{16}"
    '-----BEGIN [A-Z ]*PRIVATE KEY-----'
    'MC4CAQAwBQYDK2Vw|MFMCAQEwBQYDK2Vw|MFECAQEwBQYDK2Vw'
    'MIGHAgEAMBMGByqGSM49AgEG'
    '30(2e|51|53)02010[01]300506032b6570'
    '308187020100301306072a8648ce3d0201'
)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# An empty line would be found everywhere, and without a key there is nothing to look for.
{ find "$keys" -type f -exec cat {} + 2>/dev/null || true; } | { grep -aE '.{16}' || true; } | sort -u >"$scratch/keys"
if [ ! -s "$scratch/keys" ]; then
    echo "secrets: no key of a server in $keys: run the tests first" >&2
    exit 1
fi

found=0
look() {
    local what=$1 status=0
    shift
    # 0: found; 1: not found; more: it could not look.
    grep -rnao "$@" "$output" >"$scratch/hits" || status=$?
    if [ "$status" -gt 1 ]; then
        echo "secrets: $output could not be searched" >&2
        exit 1
    fi
    # Only where: what stands there is the secret.
    while IFS=: read -r file line _; do
        echo "secrets: $what in $file, line $line" >&2
        found=1
    done <"$scratch/hits"
}

for pattern in "${patterns[@]}"; do
    look "a secret" -E -e "$pattern"
done
look "a key of a server" -F -f "$scratch/keys"
[ $# -gt 0 ] || rm -rf "$keys"

if [ "$found" -ne 0 ]; then
    echo "secrets: there must be none; tests/support/src/capture.rs says where one is shown on purpose" >&2
    exit 1
fi
echo "secrets: none in $(find "$output" -type f | wc -l) files of test output"
