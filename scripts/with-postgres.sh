#!/usr/bin/env bash
# Runs a command beside a PostgreSQL of its own, in a temporary folder and on a free port of loopback, as an ordinary user:
#
#   scripts/with-postgres.sh cargo test -p pulse --test store
#
# Tests find it in PULSE_TEST_POSTGRES and make a database each. It is stopped, and its folder goes, when the command ends.
# It does not wait for the disk, as nothing in it is to last; PULSE_POSTGRES_FSYNC=on makes it wait, for what is measured.
set -euo pipefail

# The newest version that Debian's packages have installed.
programs=${PULSE_POSTGRES_BIN:-$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)}
if [[ ! -x "$programs/initdb" ]]; then
    echo "with-postgres: no PostgreSQL in /usr/lib/postgresql: scripts/tools.sh all installs it as root (apt-get install postgresql)" >&2
    exit 1
fi

folder=$(mktemp -d)
# Its programs refuse to run as root.
as_user=()
if [[ $EUID -eq 0 ]]; then
    user=postgres
    id -u "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$folder"
    as_user=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups --)
fi
stop() {
    (cd "$folder" && "${as_user[@]}" "$programs/pg_ctl" -D "$folder/data" -m immediate -s stop) || true
    rm -rf "$folder"
}
trap stop EXIT

cd_run() { (cd "$folder" && "${as_user[@]}" "$@"); }
cd_run "$programs/initdb" --no-sync --auth=trust --encoding=UTF8 --locale=C --username=pulse -D "$folder/data" >/dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd_run "$programs/pg_ctl" -D "$folder/data" -s -w -l "$folder/log" \
    -o "-p $port -k $folder -c listen_addresses=127.0.0.1 -c max_connections=400 -c fsync=${PULSE_POSTGRES_FSYNC:-off}" start

export PULSE_TEST_POSTGRES="postgres://pulse@127.0.0.1:$port/postgres"
export PULSE_POSTGRES_BIN="$programs"
"$@"
