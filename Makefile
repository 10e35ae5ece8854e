# The two commands are `make demo` and `make test`. `make` alone lists them all.
# Tools that are not Rust's own go under .tools/ and node_modules/, everything built under target/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Cargo uses every core by itself; two at once would only wait for each other's locks.
.NOTPARALLEL:

.PHONY: all help demo test fuzz soak soak-polls check build release clean tools format lint docs proto deny alone
.PHONY: bench bench-quick bench-replicas bench-setup bench-heap bench-docs

all: help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: export DEMO_STARTED_MS := $(shell date +%s%3N)
demo: ## builds, starts a server and two proxies, and shows a change arriving; Ctrl-C ends it
	cargo build --workspace --locked
	@scripts/demo.sh

# Those that do not look into the file of SQLite: they hold for a server on PostgreSQL too.
POSTGRES_TESTS = store approval audit audit_rows changes debug_token drain encode_once held_calls history join_race limits proxmox proxmox_doubt push refused_lists registration revoke rotation scopes sign_in

test: check build ## everything: sets up what it needs, all of `check`, all tests
	@rm -rf target/test-output target/test-secrets && mkdir -p target/test-output
	cargo test --workspace --locked 2>&1 | tee target/test-output/cargo-test.txt
	scripts/with-postgres.sh cargo test --locked -p pulse $(POSTGRES_TESTS:%=--test %) 2>&1 | tee target/test-output/postgres.txt
	@scripts/demo.sh --once 2>&1 | tee target/test-output/demo.txt
	@scripts/schemathesis.sh
	@scripts/secrets.sh
	@if command -v c++ >/dev/null; then scripts/fuzz.sh 30; fi
	@scripts/tools.sh untested

fuzz: tools ## fuzzes each target for ten minutes (some 45 minutes on 2 cores)
	@scripts/fuzz.sh 600

# The release build, as ten minutes at full speed of any other would say nothing of what is installed.
soak-polls: ## 50 instances with 20 nodes each, asked for ten minutes
	PULSE_POLL_SECONDS=600 cargo test --release --locked -p pulse --test proxmox_many -- --nocapture

soak: ## 2,000 proxies that come and go, changes and reports, for ten minutes
	PULSE_SOAK_SECONDS=600 PULSE_SOAK_STREAMS=2000 cargo test --release --locked -p pulse --test soak

check: tools format proto deny lint docs alone ## format, `buf lint`, dependencies, lints, docs, each crate alone

build: ## both programs, for development: target/debug
	cargo build --workspace --locked

# One at a time: built together, the proxy would carry the features that only the server asks for.
release: ## both programs, small: target/release
	cargo build --release --locked -p pulse
	cargo build --release --locked -p pulse-sensor-proxy

# What is measured is what is installed, so each is built as `release` builds it.
bench: ## Pulse beside its peers: how far each of T1 to T16 is met (twenty minutes on 2 cores); runs are kept in target/bench
	cargo build --release --locked -p pulse
	cargo build --release --locked -p pulse-bench
	@target/release/pulse-bench run

bench-quick: ## the same with 1,000 clients, in two minutes
	cargo build --release --locked -p pulse
	cargo build --release --locked -p pulse-bench
	@target/release/pulse-bench run --quick

bench-replicas: ## three servers on PostgreSQL beside one on its own file, in some six minutes: docs/scale.md
	cargo build --release --locked -p pulse
	cargo build --release --locked -p pulse-bench
	@PULSE_POSTGRES_FSYNC=on scripts/with-postgres.sh target/release/pulse-bench replicas

bench-setup: ## installs the peers that Debian has (as root): etcd, nats, redis
	@scripts/bench-setup.sh

bench-heap: ## the bytes of an idle stream, by the place that allocates them (heaptrack)
	cargo build --profile profiling --locked -p pulse
	cargo build --release --locked -p pulse-bench
	@target/release/pulse-bench heap

bench-docs: ## takes the last whole run into the docs, beside the one before
	cp docs/performance.json docs/performance-before.json
	cp target/bench/full.json docs/performance.json
	cargo run --release --locked -p pulse-bench -- docs

clean: ## removes what was built and the tools that were fetched
	cargo clean
	rm -rf .tools node_modules

tools:
	@scripts/tools.sh all

format: tools
	cargo fmt --all --check

proto: tools
	node_modules/@bufbuild/buf-linux-*/bin/buf lint

# --workspace: without it only the root package is judged, and neither program is.
deny: tools
	.tools/bin/cargo-deny --workspace --locked check bans licenses sources

lint: tools
	cargo clippy --workspace --all-targets --locked -- -D warnings

docs: tools
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace --locked

# A crate that names too few features of a dependency builds beside a neighbour that names them, and nowhere else.
alone: tools
	for crate in $$(cargo tree --workspace --depth 0 --prefix none --format '{p}' --locked | awk 'NF { print $$1 }' | sort -u); do \
		cargo check --locked -p "$$crate" || { echo "$$crate does not build alone" >&2; exit 1; }; \
	done
