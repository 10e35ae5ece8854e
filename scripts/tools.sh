#!/usr/bin/env bash
# What checks and tests need beyond cargo, cc, make and node. Fetches it from the ordinary registries into
# .tools/ and node_modules/, or says what is missing. Quick when all is there.
#
#   scripts/tools.sh all        sets up everything
#   scripts/tools.sh untested   says, last of all, what could not be tested here
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CARGO_DENY=0.20.2
GRPCURL=1.9.4 # needs Go 1.25

say() { printf '%s\n' "tools: $*"; }
fail() {
    printf '%s\n' "tools: $*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# A tool is there if it was set up from the same versions as are asked for now.
is_set_up() { [[ -f ".tools/$1.key" && "$(<".tools/$1.key")" == "$2" ]]; }
set_up() { printf '%s\n' "$2" >".tools/$1.key"; }

# Installs a package of Debian's, where that can be done.
debian() {
    has apt-get && [[ $EUID -eq 0 ]] || return 1
    say "installing $1"
    apt-get update -qq </dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" </dev/null
}

rust() {
    has cargo || fail "cargo is missing: install Rust 1.95 or newer"
    local tool
    for tool in rustfmt clippy; do
        cargo "${tool/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        has rustup || fail "$tool is missing: install it beside cargo, in the same version"
        say "adding $tool to the Rust toolchain"
        rustup component add "$tool"
    done
    has cc || fail "a C compiler (cc) is missing: on Debian, apt-get install gcc libc6-dev"
}

npm_() {
    local key
    key=$(cat package.json package-lock.json | cksum)
    is_set_up npm "$key" && compgen -G 'node_modules/@bufbuild/buf-linux-*/bin/buf' >/dev/null && return
    has npm || fail "npm is missing: install node together with npm (on Debian: apt-get install nodejs npm)"
    say "fetching buf and what leads the browser with npm"
    # No script of theirs needs to run; the browser is Debian's.
    npm ci --ignore-scripts
    # Each platform's program is an optional package: npm leaves out in silence what it cannot have.
    compgen -G 'node_modules/@bufbuild/buf-linux-*/bin/buf' >/dev/null ||
        fail "npm has no buf for this machine ($(uname -sm)); there is one for Linux on x86_64 and aarch64"
    set_up npm "$key"
}

cargo_deny() {
    is_set_up cargo-deny "$CARGO_DENY" && [[ -x .tools/bin/cargo-deny ]] && return
    if has cargo-deny && [[ "$(cargo-deny --version)" == "cargo-deny $CARGO_DENY" ]]; then
        ln -sf "$(command -v cargo-deny)" .tools/bin/cargo-deny
    else
        say "building cargo-deny $CARGO_DENY, once; this takes some minutes"
        # It runs for a second: its own release profile (fat LTO) takes twice as long to build as this.
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
            cargo install --quiet --locked --force --root .tools "cargo-deny@$CARGO_DENY"
    fi
    set_up cargo-deny "$CARGO_DENY"
}

# Python packages in a folder of their own, so that none stands in another's way: python NAME FOLDER REQUIREMENTS WHAT
python() {
    local name=$1 folder=.tools/$2 wanted=$3 key
    key=$(cksum <"$wanted")
    is_set_up "$name" "$key" && [[ -x $folder/bin/python ]] && return
    rm -rf "$folder"
    if ! { has python3 && python3 -m venv "$folder" >/dev/null 2>&1; }; then
        rm -rf "$folder"
        debian python3-venv || fail "python3 with its venv module is missing (on Debian, as root: apt-get install python3-venv)"
        python3 -m venv "$folder" || fail "python3 -m venv does not work here, even with python3-venv installed"
    fi
    say "fetching $4"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-input -r "$wanted" ||
        fail "pip could not install $wanted for $(python3 --version)"
    set_up "$name" "$key"
}

# Shows that a proxy starts no program and opens nothing of the cluster's. It may be missing: that test is skipped then.
strace_() {
    has strace || debian strace || say "NO STRACE: the test that watches the proxy's system calls is skipped"
}

# The store's tests, and those of several servers, need a real one of version 15 or newer.
postgresql() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
    # No cluster of its own: the tests make theirs.
    mkdir -p /etc/postgresql-common 2>/dev/null && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf || true
    debian postgresql || fail "PostgreSQL 15 or newer is missing (on Debian, as root: apt-get install postgresql)"
}

# What stands in front of several servers, with the configuration that is shipped.
haproxy_() {
    [[ -x /usr/sbin/haproxy ]] || has haproxy || debian haproxy || fail "HAProxy is missing (on Debian, as root: apt-get install haproxy)"
}

# The pages are tested in it. It may be missing where no test must run: the test says so.
chromium_() {
    has chromium || debian chromium || say "NO CHROMIUM: the pages are not tested in a browser (on Debian: apt-get install chromium)"
}

# Fuzzing links libFuzzer, which is C++. It may be missing: the targets are then fed with their corpora alone.
cxx() {
    has c++ || debian g++ || say "NO C++ COMPILER: fuzz targets are not run (on Debian: apt-get install g++)"
}

# It may be missing: tests that use grpcurl are skipped then, and `untested` says so.
grpcurl() {
    is_set_up grpcurl "$GRPCURL" && [[ -x .tools/bin/grpcurl ]] && return
    rm -f .tools/bin/grpcurl .tools/grpcurl.key
    if ! has go; then
        say "NO GRPCURL: Go is not installed, the tests that use grpcurl are skipped"
        return
    fi
    say "building grpcurl $GRPCURL, once; this takes a minute or two"
    if ! GOBIN="$PWD/.tools/bin" go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$GRPCURL"; then
        say "NO GRPCURL: $(go version) could not build it, the tests that use grpcurl are skipped"
        return
    fi
    set_up grpcurl "$GRPCURL"
}

case "${1:-}" in
all)
    mkdir -p .tools/bin
    rust
    npm_
    python python venv tests/interop/requirements.txt "the Python gRPC client"
    python schemathesis schemathesis tests/schemathesis/requirements.txt "schemathesis"
    strace_
    postgresql
    haproxy_
    chromium_
    cxx
    grpcurl
    cargo_deny
    ;;
untested)
    [[ -x .tools/bin/grpcurl ]] || say "NOT TESTED: grpcurl is not here (install Go, then run this again)"
    has strace || say "NOT TESTED: the proxy's system calls (install strace, then run this again)"
    has chromium || say "NOT TESTED: the pages in a browser (install chromium, then run this again)"
    has c++ || say "NOT TESTED: fuzz targets beyond their corpora (install g++, then run this again)"
    ;;
*) fail "usage: scripts/tools.sh all|untested" ;;
esac
