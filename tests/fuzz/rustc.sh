#!/bin/sh
# rustc as cargo calls it for the crates of this workspace alone (RUSTC_WORKSPACE_WRAPPER), with what libFuzzer needs to
# see which code an input reaches. Dependencies are those of the ordinary build. These are stable flags: no nightly.
rustc=$1
shift
case " $* " in
*" --crate-name build_script_"* | *" --print="* | *" -vV "*) exec "$rustc" "$@" ;;
esac
exec "$rustc" "$@" \
    -Copt-level=1 \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
