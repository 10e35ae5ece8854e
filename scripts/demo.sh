#!/usr/bin/env bash
# Shows Pulse at work on this machine: a server with TLS and a store of its own, two proxies, changes that reach them at
# once, and a server that is killed and comes back. Everything lives in one temporary folder and goes with it.
#
#   scripts/demo.sh          shows it, then leaves all running until Ctrl-C
#   scripts/demo.sh --once   shows it and ends (so does DEMO_EXIT=1); exit code 0 only if every step held
#
# The programs must have been built: `make demo` does both.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

once=${DEMO_EXIT:-}
case "${1:-}" in
'') ;;
--once) once=1 ;;
*)
    echo "usage: scripts/demo.sh [--once]" >&2
    exit 2
    ;;
esac

started_ms=$(date +%s%3N)
bin=${CARGO_TARGET_DIR:-target}/debug
# What is set for another Pulse on this machine is not meant for this one.
for name in "${!PULSE_@}" RUST_LOG NOTIFY_SOCKET; do unset "$name"; done

# --- saying ---------------------------------------------------------------------------------------------------------

if [[ -t 1 ]]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
step=0
title() {
    step=$((step + 1))
    printf '\n%s%s. %s%s\n' "$bold" "$step" "$*" "$plain"
}
say() { printf '   %s\n' "$*"; }
indent() { sed 's/^/   | /'; }
fail() {
    printf '\ndemo: %s\n' "$*" >&2
    local log
    for log in "$folder"/*.log; do
        [[ -s $log ]] || continue
        printf '\ndemo: the end of %s:\n' "${log##*/}" >&2
        tail -n 8 "$log" >&2
    done
    exit 1
}

# --- ending ---------------------------------------------------------------------------------------------------------

folder=$(mktemp -d "${TMPDIR:-/tmp}/pulse-demo.XXXXXX")
declare -A pids=()

# Asks a process to end; after 12 s (the server itself takes 10 at most) ends it.
stop() {
    local tries name
    for name in "$@"; do kill -TERM "${pids[$name]}" 2>/dev/null || true; done
    for name in "$@"; do
        for ((tries = 120; tries > 0; tries--)); do
            kill -0 "${pids[$name]}" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "${pids[$name]}" 2>/dev/null || true
        wait "${pids[$name]}" 2>/dev/null || true
        unset "pids[$name]"
    done
}
clean_up() {
    trap - EXIT
    trap '' INT TERM HUP
    stop "${!pids[@]}"
    rm -rf "$folder"
}
trap clean_up EXIT
trap '((BASH_SUBSHELL)) || fail "this did not work: $BASH_COMMAND"' ERR
is_over=''
# Ctrl-C is how the demo ends; before its end it is an interruption.
trap 'echo; [[ -n $is_over ]] || exit 130; say "Stopping everything."; exit 0' INT
trap 'exit 143' TERM HUP

# --- looking --------------------------------------------------------------------------------------------------------

# Tries a command again and again until it succeeds: wait_for SECONDS WHAT COMMAND…
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2 waited=$1 name
    shift 2
    until "$@" 2>"$folder/why"; do
        ((SECONDS < deadline)) || fail "waited $waited s for this in vain: $what. $(<"$folder/why")"
        for name in "${!pids[@]}"; do
            kill -0 "${pids[$name]}" 2>/dev/null || fail "$name ended by itself"
        done
        sleep 0.1
    done
}
look() { node scripts/demo/look.mjs "$@"; }
pulse() { "$bin/pulse" --data-dir "$folder/data" "$@"; }
# A command for one proxy: proxy NAME COMMAND…
proxy() { "$bin/pulse-sensor-proxy" --config "$folder/$1/config.yaml" --state-dir "$folder/$1/state" "${@:2}"; }
# Asks the server and keeps the answer in a file: ask FILE COMMAND…
ask() { pulse "${@:2}" --json >"$folder/$1.json"; }
now_ms() { date +%s%3N; }
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# --- doing ----------------------------------------------------------------------------------------------------------

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() {
    local port=7655 tries
    for ((tries = 50; tries > 0; tries--)); do
        is_taken "$port" || { echo "$port" && return; }
        # Below the ports that the kernel gives to outgoing connections.
        port=$((20000 + RANDOM % 12000))
    done
    return 1
}

start_server() {
    "$bin/pulse" serve --config "$folder/pulse.yaml" --data-dir "$folder/data" --listen "$address" \
        >>"$folder/server.log" 2>&1 &
    pids[server]=$!
    wait_for 30 "the server answers on its admin socket" ask status status
}

start_proxy() {
    "$bin/pulse-sensor-proxy" run --config "$folder/$1/config.yaml" --state-dir "$folder/$1/state" \
        >>"$folder/$1.log" 2>&1 &
    pids[$1]=$!
}

# The configuration of a host: configure NAME SYSFS
configure() {
    mkdir -p "$folder/$1"
    printf '%s\n' 'report_interval: 1s' 'sensors:' "  sysfs_root: $2" >"$folder/$1/config.yaml"
}

# The join string goes through a pipe, so that it stands in no process list.
register() {
    pulse join create --instance home --json >"$folder/join.json"
    look get "$folder/join.json" join | proxy "$1" register --join - --hostname "$1" >/dev/null
    rm "$folder/join.json"
}

# One made-up CPU, as Linux would show an Intel one.
make_sysfs() {
    local chip=$1/class/hwmon/hwmon0
    mkdir -p "$chip"
    echo coretemp >"$chip/name"
    echo 'Package id 0' >"$chip/temp1_label"
    echo 'Core 0' >"$chip/temp2_label"
    local input
    for input in temp1 temp2; do
        echo 84000 >"$chip/${input}_max"
        echo 100000 >"$chip/${input}_crit"
        echo 45000 >"$chip/${input}_input"
    done
}

# Moves the values of made-up trees up and down, between 42 and 58 °C.
move_values() {
    local at=0 milli tree
    while sleep 0.5; do
        at=$(((at + 1) % 32))
        milli=$((at < 16 ? 42000 + at * 1000 : 58000 - (at - 16) * 1000))
        for tree in "$@"; do
            # Renamed into place: whoever reads sees the old value or the new one, never half of one.
            echo $((milli + RANDOM % 500)) >"$tree/new"
            mv "$tree/new" "$tree/class/hwmon/hwmon0/temp1_input"
            echo $((milli - 1500 + RANDOM % 500)) >"$tree/new"
            mv "$tree/new" "$tree/class/hwmon/hwmon0/temp2_input"
        done
    done
}

# Waits until both proxies have the newest list in force; leaves its revision and their times in `found`.
all_applied() {
    ask list allowlist show --instance home && ask proxies proxy list || return
    found=$(look applied "$folder/list.json" "$folder/proxies.json")
}
show_push() {
    wait_for 30 "both proxies have the newest list in force" all_applied
    local revision took word # of "REVISION HOST=MS HOST=MS"
    read -r revision took <<<"$found"
    printf '   %-52s revision %-4s' "$1" "$revision"
    for word in $took; do printf ' %s after %s ms ' "${word%%=*}" "${word##*=}"; done
    printf '\n'
}

# Changes the list: change WORDS NODE=ADDRESS…
change() {
    local words=$1 node endpoints=() before
    shift
    for node in "$this_host" attic "$@"; do endpoints+=(--endpoint "$node"); done
    ask list allowlist show --instance home
    before=$(look get "$folder/list.json" allowlists.0.revision)
    pulse instance set home "${endpoints[@]}" >/dev/null
    show_push "$words"
    if ((${found%% *} <= before)); then fail "the change made no new list: still revision $before"; fi
    [[ -n $once ]] || sleep 1
}

# Whether a node has temperatures; leaves in `found` when they were read.
has_reading() {
    ask temps temps || return
    found=$(look reading "$folder/temps.json" "$1")
}
# Has one that was read at another time than this: has_new_reading NODE TIME
has_new_reading() { has_reading "$1" && [[ $found != "$2" ]]; }

# --- the tour -------------------------------------------------------------------------------------------------------

for program in pulse pulse-sensor-proxy; do
    [[ -x $bin/$program ]] || fail "$bin/$program is not there: run \`make demo\`, which builds it first"
done
command -v node >/dev/null || fail "node is missing: on Debian, apt-get install nodejs"

title "A server"
port=$(free_port) || fail "found no free port on 127.0.0.1"
address=127.0.0.1:$port
[[ $port == 7655 ]] || say "Port 7655 is taken on this machine, so it is $port this time."
# The shortest interval that there is: a proxy that goes silent is noticed within 15 s.
echo 'refresh_interval: 5s' >"$folder/pulse.yaml"
begun_ms=$(now_ms)
start_server
say "It listens on $address with TLS; it made its own CA, certificate and database in $(seconds $(($(now_ms) - begun_ms)))."

title "Two proxies"
this_host=$(</proc/sys/kernel/hostname)
this_host=${this_host%%.*}
if [[ ! $this_host =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$ || ${this_host,,} =~ ^(attic|grpcurl|nas|backup|localhost)$ ]]; then
    this_host=this-machine
fi
configure "$this_host" /sys
configure attic "$folder/attic/sys"
make_sysfs "$folder/attic/sys"
trees=("$folder/attic/sys")
if proxy "$this_host" collect --json >"$folder/sensors.json" 2>/dev/null &&
    look get "$folder/sensors.json" readings.0.sensor >/dev/null; then
    say "$this_host is this machine: its proxy reads the real sensors under /sys."
else
    configure "$this_host" "$folder/$this_host/sys"
    make_sysfs "$folder/$this_host/sys"
    trees+=("$folder/$this_host/sys")
    say "$this_host is this machine. It shows no temperature sensor under /sys (a virtual machine?),"
    say "so ITS VALUES ARE MADE UP, from a small folder that looks like one and whose values move."
fi
say "attic does not exist: ITS VALUES ARE MADE UP, from a folder of the same kind."
move_values "${trees[@]}" &
pids[values]=$!
pulse instance add home --endpoint "$this_host" --endpoint attic >/dev/null
for name in "$this_host" attic; do
    register "$name"
    start_proxy "$name"
done
wait_for 30 "both proxies have the first list in force" all_applied
first_push_ms=$(now_ms)
say "The instance home has both as nodes. Each host joined with a join string of its own, and both have the"
say "list of revision ${found%% *} in force."
if [[ -n ${DEMO_STARTED_MS:-} ]]; then
    say "From \`make demo\` to here: $(seconds $((first_push_ms - DEMO_STARTED_MS))), building included."
fi
say "From the start of the demo to here: $(seconds $((first_push_ms - started_ms)))."
for name in "$this_host" attic; do
    wait_for 30 "a temperature of $name" has_reading "$name"
done
pulse temps | indent

title "The list of nodes changes"
say "The times are the server's own: from the change until the proxy said that the new list is in force."
change "a node is added: nas" nas=192.0.2.10
change "its address changes" nas=192.0.2.11
change "another one is added: backup" nas=192.0.2.11 backup=192.0.2.12
change "nas is taken off" backup=192.0.2.12
change "backup gives way to backup-2" backup-2=192.0.2.13
revision=${found%% *}
pulse instance set home --endpoint "$this_host" --endpoint attic --endpoint backup-2=192.0.2.13 >/dev/null
all_applied || fail "a change that changes nothing made a proxy fall behind"
[[ ${found%% *} == "$revision" ]] || fail "a change that changes nothing made revision ${found%% *}"
say "The same nodes once more: still revision $revision, so nobody is woken."

title "The server is killed, and the proxies work on"
kill -KILL "${pids[server]}"
wait "${pids[server]}" 2>/dev/null || true
unset 'pids[server]'
killed_ms=$(now_ms)
say "kill -9. Now, with no server:"
for name in "$this_host" attic; do
    proxy "$name" status --json >"$folder/status.json"
    [[ $(look get "$folder/status.json" running) == true ]] || fail "the proxy of $name does not run"
    [[ $(look get "$folder/status.json" list.revision) == "$revision" ]] || fail "the proxy of $name has not kept revision $revision"
    say "the proxy of $name runs, and has the list of revision $revision in force and on its disk"
done
# Long enough for some readings; they wait in each proxy.
sleep 6
for name in "$this_host" attic; do
    kill -0 "${pids[$name]}" 2>/dev/null || fail "the proxy of $name ended"
done
start_server
gap_ms=$(($(now_ms) - killed_ms))
say "The server is back after $(seconds "$gap_ms"). The proxies come back by themselves, each in its own time:"
is_connected() {
    ask status status && [[ $(look get "$folder/status.json" streams) == 2 ]]
}
wait_for 60 "both proxies are connected again" is_connected
say "both are connected $(seconds $(($(now_ms) - killed_ms - gap_ms))) later"
# Each proxy makes one report a second. More of them than seconds since the start: those are of the gap.
gap_is_there() {
    local reports uptime
    found=$(look reports "$address" "$folder/data/ca.pem") || return
    read -r reports uptime <<<"$found"
    ((reports > 2 * (uptime + 2)))
}
wait_for 30 "the readings of the gap" gap_is_there
read -r reports uptime <<<"$found"
say "The readings of the gap are there: $reports reports in the $uptime s since the start, though two proxies"
say "make only two a second. The others had waited in the proxies."
change "all is well again: nas is back, backup-2 goes" nas=192.0.2.10
for name in "$this_host" attic; do
    wait_for 30 "a temperature of $name" has_reading "$name"
    wait_for 30 "a new temperature of $name" has_new_reading "$name" "$found"
done
pulse proxy list | indent

title "A client that knows nothing of Pulse"
# A second stream with one token would end the first: this one has an identity of its own.
configure grpcurl "$folder/attic/sys"
register grpcurl
token_file=$folder/grpcurl/.pulse-control-token
[[ $(stat -c %a "$token_file") == 600 ]] || fail "the token's file can be read by others"
grpcurl=$(command -v grpcurl || true)
[[ -n $grpcurl || ! -x .tools/bin/grpcurl ]] || grpcurl=.tools/bin/grpcurl
service=pulse.control.v1.ControlPlaneService
# Asks with grpcurl for so many seconds at most: ask_grpc SECONDS ARGUMENT…
# The token goes in through the environment: in the arguments, other users of this machine could see it.
ask_grpc() {
    # shellcheck disable=SC2016 # grpcurl puts the token in
    TOKEN=$(<"$token_file") "$grpcurl" -cacert "$folder/data/ca.pem" -max-time "$1" -expand-headers \
        -H 'authorization: Bearer ${TOKEN}' "${@:2}" >"$folder/grpc.txt" 2>&1
}
has_answer() { grep -q -- "$1" "$folder/grpc.txt" || fail "grpcurl says: $(<"$folder/grpc.txt")"; }
if [[ -n $grpcurl ]]; then
    ask_grpc 20 "$address" list || true
    has_answer "$service"
    ask_grpc 20 "$address" grpc.health.v1.Health/Check || true
    has_answer '"SERVING"'
    # A watch has no end, so this ends with an error, after what came in the time.
    ask_grpc 3 "$address" "$service/WatchAuthorizedNodes" || true
    has_answer '"snapshot"'
    say "grpcurl lists the service, finds it healthy, and is pushed the list."
else
    grpcurl=grpcurl
    say "grpcurl is not on this machine, so this is not shown: \`make test\` builds it where Go is,"
    say "or: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest"
fi

title "All steps held"
if [[ -n $once ]]; then
    say "Everything is stopped and removed."
    exit 0
fi
is_over=1
say "All is left running. In another terminal, in this folder:"
[[ $bin == /* ]] && shown=$bin || shown="\$PWD/$bin"
cat <<END

export PATH="$shown:\$PWD/.tools/bin:\$PATH" PULSE_DATA_DIR=$folder/data
pulse proxy list
pulse proxy show attic
pulse temps
pulse temps attic
pulse allowlist show
pulse instance set home --endpoint $this_host --endpoint attic --endpoint nas=192.0.2.99
pulse audit
pulse status

CA=$folder/data/ca.pem SERVICE=$service
grpcurl -cacert \$CA $address list
grpcurl -cacert \$CA $address describe \$SERVICE
grpcurl -cacert \$CA $address grpc.health.v1.Health/Check
TOKEN=\$(cat $token_file) grpcurl -cacert \$CA \\
  -expand-headers -H 'authorization: Bearer \${TOKEN}' $address \$SERVICE/WatchAuthorizedNodes

END
say "The last line stays open and shows each change. It has an identity of its own, the host grpcurl, which"
say "no proxy runs under: so \`pulse proxy list\` shows that one as NEVER."
say "Logs: $folder/*.log. Ctrl-C stops everything and removes the folder."
while :; do
    for name in "${!pids[@]}"; do
        kill -0 "${pids[$name]}" 2>/dev/null || fail "$name ended by itself"
    done
    sleep 1
done
