#!/usr/bin/env bash
# Runs the fuzz targets of tests/fuzz under libFuzzer, guided by coverage, on stable Rust: nothing but a C++ compiler is
# needed beyond the ordinary build.
#
#   scripts/fuzz.sh SECONDS [TARGET...]   each target for so long, several side by side; all targets if none is named
#   scripts/fuzz.sh INPUT TARGET          one target on one file, as it was found
#
# Each target begins with its corpus, tests/fuzz/corpus/TARGET. What makes one fail is written to
# target/fuzz/TARGET/crash-* (timeout-*, oom-*): mend what it shows, and keep the file, under a name that says what it
# was, in the corpus, where `cargo test` feeds it to the target for ever.
# The inputs that reached new code stay in target/fuzz/TARGET/inputs, and the next run begins with them too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target_dir="${CARGO_TARGET_DIR:-target}"
say() { printf '%s\n' "fuzz: $*"; }
fail() {
    printf '%s\n' "fuzz: $*" >&2
    exit 1
}

[[ $# -ge 1 ]] || fail "usage: scripts/fuzz.sh SECONDS [TARGET...] | INPUT TARGET"
command -v c++ >/dev/null 2>&1 || fail "a C++ compiler (c++) is missing: on Debian, apt-get install g++"

# Only the crates of the workspace are built anew, with what tells libFuzzer which code an input reached.
RUSTC_WORKSPACE_WRAPPER="$PWD/tests/fuzz/rustc.sh" CARGO_INCREMENTAL=0 \
    cargo build --quiet --locked -p pulse-fuzz --features libfuzzer --bin pulse-fuzz
program="$target_dir/debug/pulse-fuzz"

# One input that takes longer than the first, or more memory than the second, is a find.
limits=(-timeout=25 -rss_limit_mb=1024 -max_len=8192)

if [[ -f "$1" ]]; then
    [[ $# -eq 2 ]] || fail "usage: scripts/fuzz.sh INPUT TARGET"
    PULSE_FUZZ_TARGET="$2" exec "$program" "${limits[@]}" "$1"
fi

seconds=$1
shift
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
    for folder in tests/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
fi

# Runs one target to its end; says in one line what came of it.
run() {
    local name=$1 folder="$target_dir/fuzz/$1" status=0
    mkdir -p "$folder/inputs"
    PULSE_FUZZ_TARGET="$name" nice "$program" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$folder/" "$folder/inputs" "tests/fuzz/corpus/$name" >"$folder/log" 2>&1 || status=$?
    local runs
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/log")
    if [[ $status -eq 0 ]]; then
        say "$name: ${runs:-0} inputs, nothing found"
    else
        say "$name: FOUND SOMETHING, after ${runs:-some} inputs"
        grep -aE 'panicked at|^thread|ERROR: libFuzzer|Test unit written' -A1 "$folder/log" | tail -8
        return 1
    fi
}

# Twice as many as there are cores: some wait for a disk or a server.
at_once=$((2 * $(nproc)))
say "${#targets[@]} targets, $seconds s each, $at_once at a time"
found=0
for name in "${targets[@]}"; do
    while [[ $(jobs -rp | wc -l) -ge $at_once ]]; do wait -n || found=1; done
    run "$name" &
done
while true; do
    status=0
    wait -n || status=$?
    # No job is left.
    [[ $status -ne 127 ]] || break
    [[ $status -eq 0 ]] || found=1
done
[[ $found -eq 0 ]] || fail "see above; the inputs are in $target_dir/fuzz/"
