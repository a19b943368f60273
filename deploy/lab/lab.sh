#!/usr/bin/env bash
# The whole on real parts, in a folder that goes away: RabbitMQ with one user per process, PostgreSQL, tgtd, five services, two
# compute hosts. Shows the demo, then what an attachment looks like on each part. As root on Debian 12. `make lab` calls it.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly packages=(rabbitmq-server postgresql tgt qemu-system-x86 qemu-block-extra qemu-utils libiscsi-bin)
readonly bin=$PWD/.venv/bin deploy=$PWD/deploy control_port=7
readonly policy=/usr/sbin/policy-rc.d

pids=()
names=()
folder=""
epmd_pid=""
policy_is_ours=""
machines=()

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() {
    say "error: $*" >&2
    exit 1
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# Wait until a command succeeds: until_ok LIMIT_S WHAT COMMAND...
until_ok() {
    local limit=$1 what=$2 end=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "$what: not within $limit s"
        sleep 0.1
    done
}

# Start a program and keep its pid: begin NAME PROGRAM... A function would get a shell's pid, and what it starts would outlive it. Each has
# a session of its own: Ctrl-C is for the lab alone, which stops them in order; all at once, none finds its broker any more.
begin() {
    local name=$1
    shift
    setsid "$@" >"$folder/$name.log" 2>&1 </dev/null &
    pids+=("$!")
    names+=("$name")
}

# A command that a user types; what it says is shown only when it fails.
quietly() {
    timeout 60 "$@" >"$folder/command.log" 2>&1 || { cat "$folder/command.log" >&2; die "$*"; }
}

# In reverse order, each told to stop in its own words, and given 15 s.
stop_all() {
    local index pid signal
    for ((index = ${#pids[@]} - 1; index >= 0; index--)); do
        pid=${pids[index]}
        case ${names[index]} in
            tgtd) signal=KILL ;;      # it ignores SIGTERM
            postgresql) signal=INT ;; # its SIGTERM waits for the sessions
            *) signal=TERM ;;
        esac
        kill -"$signal" "$pid" 2>/dev/null || continue
        for _ in {1..150}; do
            kill -0 "$pid" 2>/dev/null || continue 2
            sleep 0.1
        done
        say "${names[index]} did not stop; it is killed"
        kill -KILL "$pid" 2>/dev/null
    done
}

leave() {
    local status=$? name file
    trap - EXIT
    trap '' INT TERM
    set +e
    if [ "$status" -ne 0 ] && [ ${#names[@]} -gt 0 ]; then
        say "the lab did not end well; last words of each process:" >&2
        for name in "${names[@]}"; do
            say "--- $name" >&2
            tail -n 4 "$folder/$name.log" >&2
        done
    fi
    for file in "$folder"/state/*/instances/*/pid; do
        [ -f "$file" ] && kill -KILL "$(<"$file")" 2>/dev/null
    done
    stop_all 2>/dev/null # the shell would tell of each
    [ -n "$epmd_pid" ] && kill "$epmd_pid" 2>/dev/null
    wait 2>/dev/null
    [ -n "$policy_is_ours" ] && rm -f "$policy"
    [ -n "$folder" ] && rm -rf "$folder"
    exit "$status"
}

[ "$(id -u)" -eq 0 ] || die "the lab starts servers of other users: run it as root"
[ -x "$bin/lite" ] || die "$bin/lite is not there: run it by \`make lab\`"
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step "Debian packages"
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    say "all there: ${packages[*]}"
else
    say "installing ${missing[*]}"
    if [ ! -e "$policy" ]; then # Debian starts what it installs, unless this forbids it
        policy_is_ours=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
readonly started_at=$SECONDS
folder=$(mktemp -d /tmp/lite-lab.XXXXXX)
chmod 0711 "$folder"
readonly folder secrets=$folder/secrets
read -r amqp dist epmd pg portal <<<"$("$bin/python" -c '
from common.testing.servers import free_port
ports = set()
while len(ports) < 5: ports.add(free_port())
print(*ports)')"

step "PostgreSQL, RabbitMQ and tgtd of our own"
pg_bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' | sort -V | tail -n 1)
as_postgres=(setpriv --reuid postgres --regid postgres --clear-groups env -C /)
install -d -o postgres -m 0700 "$folder/pg" "$folder/pgrun"
"${as_postgres[@]}" "$pg_bin/initdb" -D "$folder/pg" -A scram-sha-256 --auth-local=peer -U postgres --no-sync >/dev/null
begin postgresql "${as_postgres[@]}" "$pg_bin/postgres" -D "$folder/pg" -p "$pg" -k "$folder/pgrun" -c listen_addresses=127.0.0.1 -c fsync=off
psql() { timeout 20 "${as_postgres[@]}" "$pg_bin/psql" -X -q -h "$folder/pgrun" -p "$pg" "$@"; }

# RabbitMQ's own epmd as well: the machine's, if there is one, stays alone.
mkdir "$folder/rabbit"
rabbit=(
    HOME="$folder/rabbit" ERL_EPMD_PORT="$epmd" ERL_EPMD_ADDRESS=127.0.0.1 RUNNING_UNDER_SYSTEMD=true
    RABBITMQ_NODENAME="lab-$$@localhost" RABBITMQ_DIST_PORT="$dist" RABBITMQ_CONF_ENV_FILE=/dev/null
    RABBITMQ_CONFIG_FILE="$folder/rabbit/rabbit" RABBITMQ_ENABLED_PLUGINS_FILE="$folder/rabbit/plugins"
    RABBITMQ_MNESIA_BASE="$folder/rabbit/mnesia" RABBITMQ_LOG_BASE="$folder/rabbit/log" RABBITMQ_PID_FILE="$folder/rabbit/pid"
)
printf 'listeners.tcp.1 = 127.0.0.1:%s\n' "$amqp" >"$folder/rabbit/rabbit.conf"
echo '[].' >"$folder/rabbit/plugins"
setsid epmd -port "$epmd" -address 127.0.0.1 </dev/null &
epmd_pid=$!
begin rabbitmq env "${rabbit[@]}" /usr/lib/rabbitmq/bin/rabbitmq-server
ctl() { timeout 60 env "${rabbit[@]}" /usr/lib/rabbitmq/bin/rabbitmqctl -q -n "lab-$$@localhost" "$@" </dev/null; }
rabbit_knows_its_pid() { [ -s "$folder/rabbit/pid" ]; }

export TGT_IPC_SOCKET="$folder/tgtd.socket"
begin tgtd tgtd -f -C "$control_port" --iscsi "portal=127.0.0.1:$portal"
tgt() { timeout 10 tgtadm -C "$control_port" --lld iscsi --op show --mode "$1"; }
# A tgtd that cannot have its portal listens on every address at 3260 instead, and only this tells.
has_portal() { tgt portal | grep -q "^Portal: 127.0.0.1:$portal,"; }

until_ok 10 "tgtd's portal at 127.0.0.1:$portal" has_portal
until_ok 20 "PostgreSQL" psql -c 'SELECT 1'
"$deploy/postgres/password.sh" "$secrets" "127.0.0.1:$pg"
(
    set -a
    # shellcheck source=/dev/null
    . "$secrets/database.env"
    psql -f - <"$deploy/postgres/create.sql" >/dev/null
)
until_ok 20 "RabbitMQ's start" rabbit_knows_its_pid
ctl wait "$folder/rabbit/pid" --timeout 50 >/dev/null
"$deploy/rabbitmq/passwords.sh" "$deploy/rabbitmq/definitions.json" "$secrets" "127.0.0.1:$amqp"
ctl import_definitions "$secrets/definitions.json" >/dev/null
ctl delete_user guest
say "RabbitMQ at $amqp with $(ctl list_users --no-table-headers | wc -l) users, PostgreSQL at $pg, tgtd at $portal: $((SECONDS - started_at)) s"

step "five services, two compute hosts, each with a RabbitMQ user of its own"
cat >"$folder/lab.conf" <<CONF
[DEFAULT]
state_path = $folder/state
my_ip = 127.0.0.1
log_format = console
enable_data_probe = true
CONF
cat >"$folder/lab-cinder.conf" <<CONF
[DEFAULT]
host = block1
[file]
volumes_dir = $folder/state/volumes
tgt_ipc_socket = $TGT_IPC_SOCKET
tgt_control_port = $control_port
target_port = $portal
file_capacity_gb = 100
CONF
printf '[DEFAULT]\nhost = ctl1\n' >"$folder/ctl1.conf"
# The hosts share a state_path here; each needs an iSCSI name of its own, or a target could not tell one from the other.
for host in cmp1 cmp2; do
    sed "s/^host = .*/host = $host/" "$deploy/config/nova-compute.conf" >"$folder/$host.conf"
    printf 'initiatorname_file = %s\n' "$folder/state/$host.iscsi" >>"$folder/$host.conf"
done

# Start a process of a service: serve PROGRAM PROCESS NAME FILE...
serve() {
    local program=$1 process=$2 name=$3 file files=()
    shift 3
    for file in "$@"; do files+=(--config-file "$file"); done
    begin "$name" "$bin/$program" run "$process" "${files[@]}" --config-file "$secrets/${program%-lite}-$process.conf"
}
nova=("$deploy/config/nova.conf" "$folder/lab.conf" "$secrets/database.conf")
cinder=("$deploy/config/cinder.conf" "$folder/lab.conf" "$folder/lab-cinder.conf" "$secrets/database.conf")
upgraded_at=$(now_ms)
timeout 60 "$bin/lite" db upgrade --config-file "$secrets/database.conf"
serving_at=$(now_ms)
serve cinder-lite api cinder-api "${cinder[@]}"
serve cinder-lite scheduler cinder-scheduler "${cinder[@]}"
serve cinder-lite volume cinder-volume "${cinder[@]}"
serve nova-lite api nova-api "${nova[@]}" "$folder/ctl1.conf"
serve nova-lite compute nova-compute-cmp1 "${nova[@]}" "$folder/cmp1.conf"
serve nova-lite compute nova-compute-cmp2 "${nova[@]}" "$folder/cmp2.conf"

export LITE_CONFIG_FILES="$folder/lab.conf:$secrets/lite-cli.conf"
PATH=$bin:$PATH
all_up() { [ "$(timeout 10 cinder-lite service-list --json | grep -c '"state": "up"')" -eq 6 ]; }
until_ok 40 "six processes" all_up
up_at=$(now_ms)
cinder-lite service-list
say "tables made in $((serving_at - upgraded_at)) ms, six processes up in $((up_at - serving_at)) ms"

step "lite demo"
timeout 60 lite demo

step "one attach, message by message, as RabbitMQ's firehose saw it"
for number in 1 2; do
    quietly nova-lite boot --flavor m1.small --host "cmp$number" "server-$number" --wait
    machines+=("$(timeout 20 nova-lite show "server-$number" --json | python -c 'import json, sys; print(json.load(sys.stdin)["uuid"])')")
done
quietly cinder-lite create 1 --name volume-1 --wait
# A user for this only, made of files: no password is in an argument.
"$deploy/rabbitmq/passwords.sh" <(printf '{"users": [\n{"name": "lab", "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": []}],\n"permissions": [{"user": "lab", "vhost": "lite", "configure": ".*", "write": ".*", "read": ".*"}]}') \
    "$folder/firehose" "127.0.0.1:$amqp"
ctl import_definitions "$folder/firehose/definitions.json" >/dev/null
ctl trace_on -p lite >/dev/null
timeout 60 python "$deploy/lab/bus.py" count "$folder/firehose/lab.conf" attach nova-lite volume-attach server-1 volume-1
ctl trace_off -p lite >/dev/null
ctl delete_user lab

step "the attachment on each of the parts"
attached() { nova-lite volume-attachments server-1 --json | grep -q attachment_id && cinder-lite list | grep -q in-use; }
until_ok 10 "the volume in use" attached
timeout 20 nova-lite volume-attachments server-1
say "nova's and cinder's rows:"
psql -d lite -P footer=off \
    -c "SELECT device_name, source_type, destination_type, substr(volume_id, 1, 8) AS volume, substr(attachment_id, 1, 8) AS attachment
        FROM block_device_mapping WHERE deleted = 0" \
    -c "SELECT substr(a.id, 1, 8) AS attachment, a.attach_status, a.attached_host, a.mountpoint, v.status, v.host
        FROM volume_attachment a JOIN volumes v ON v.id = a.volume_id WHERE NOT a.deleted"
say "tgtd, by tgtadm:"
tgt target | awk -v folder="$folder" '
    /^Target|I_T nexus:|Initiator:|ACL information/ { print }
    /Backing store path: \// { sub(folder, "..."); print }
    /^ {4}[A-Z]/ { section = $1 }
    section == "ACL" && /^ {8}/ { print }
    section == "Account" && /^ {8}/ { print "    CHAP: one account" }'
say "the machine, asked by QMP:"
timeout 20 python "$deploy/lab/qmp.py" "$folder/state/cmp1/instances/${machines[0]}/qmp"

step "the same volume on the other host, five times"
# One machine writes and the other reads, both to their own disk: pattern HOST METHOD SERVER
pattern() {
    timeout 20 lite rpc call "compute.$1" "$2" --namespace probe "instance=$(nova-lite show "$3" --json)" "volume_id=$volume" \
        pattern=90 offset=8192 length=4096
}
volume=$(timeout 20 cinder-lite show volume-1 --json | python -c 'import json, sys; print(json.load(sys.stdin)["id"])')
pattern cmp1 write_pattern server-1 >/dev/null
quietly nova-lite volume-detach server-1 volume-1 --wait
quietly nova-lite volume-attach server-2 volume-1 --wait
[ "$(pattern cmp2 verify_pattern server-2)" = true ] || die "server-2 does not read what server-1 wrote"
say "server-2 on cmp2 reads what server-1 on cmp1 wrote; $(tgt target | grep -o 'Initiator: [^ ]*' | sort -u) is in"
quietly nova-lite volume-detach server-2 volume-1 --wait
times=()
for _ in {1..5}; do
    began=$(now_ms)
    quietly nova-lite volume-attach server-2 volume-1 --wait
    times+=("$(($(now_ms) - began))")
    quietly nova-lite volume-detach server-2 volume-1 --wait
done
mapfile -t sorted < <(printf '%s\n' "${times[@]}" | sort -n)
began=$(now_ms)
quietly nova-lite --help
say "volume-attach --wait, from the command's start to in-use: median ${sorted[2]} ms, ${sorted[0]} to ${sorted[4]} ms; starting the command alone takes $(($(now_ms) - began)) ms"

step "what the user nova-compute may not do"
timeout 60 python "$deploy/lab/bus.py" refused "$secrets/nova-compute.conf" block1@file

step "nothing is left"
quietly nova-lite delete server-1 --wait
quietly nova-lite delete server-2 --wait
quietly cinder-lite delete volume-1 --wait
[ "$(timeout 20 nova-lite list --json)" = "[]" ] || die "servers are left"
[ "$(timeout 20 cinder-lite list --json)" = "[]" ] || die "volumes are left"
[ -z "$(tgt target)" ] || die "targets are left"
for machine in "${machines[@]}"; do
    ! pgrep -f "qemu-system.*$machine" >/dev/null || die "machine $machine is left"
done
[ -z "$(find "$folder/state" -path '*/instances/*' -o -name 'volume-*')" ] || die "files are left in $folder/state"
stopping_at=$(now_ms)
stop_all 2>/dev/null
pids=()
say "no server, volume, target, machine or file; everything stopped in order in $(($(now_ms) - stopping_at)) ms; $((SECONDS - started_at)) s in all"
