#!/usr/bin/env bash
# Installs what `make bench` measures Pulse beside, from Debian's packages, or says what is missing.
# Peers that are not there are named in the bench's table; nothing else depends on them.
set -euo pipefail

missing=()
missing_of() { # program, package
	PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null || missing+=("$2")
}
missing_of etcd etcd-server
missing_of nats-server nats-server
missing_of redis-server redis-server
missing_of heaptrack heaptrack

if [ ${#missing[@]} -eq 0 ]; then
	echo "everything that the bench can use is installed"
	exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing: ${missing[*]}; on Debian, as root: make bench-setup" >&2
	exit 1
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
# The bench starts servers of its own; those of the packages would only take time from them.
if [ -d /run/systemd/system ]; then
	for service in etcd nats-server redis-server; do
		# Not every package brings its service under this name.
		systemctl disable --now "$service" || echo "bench-setup: $service was not stopped; if it runs, it takes time from the bench" >&2
	done
fi
