#!/usr/bin/env bash
# The whole on real parts, in a folder that goes away: RabbitMQ with one user per process, PostgreSQL, tgtd, five services, two
# compute hosts. Shows the demo, then what an attachment looks like on each part. As root on Debian 12. `make lab` calls it.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=$PWD/.venv/bin
deploy=$PWD/deploy
packages=(rabbitmq-server postgresql tgt qemu-system-x86 qemu-block-extra qemu-utils libiscsi-bin)
started_at=$SECONDS
pids=()
names=()

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() {
    say "error: $*" >&2
    exit 1
}

# Wait until a command succeeds: until LIMIT_S COMMAND...
until_ok() {
    local limit=$1 end
    shift
    end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "not within $limit s: $1"
        sleep 0.1
    done
}

# Start a process and keep its pid: begin NAME COMMAND...
begin() {
    local name=$1
    shift
    "$@" >"$folder/$name.log" 2>&1 &
    pids+=("$!")
    names+=("$name")
}

# Stop everything in reverse order: SIGTERM, then SIGKILL. tgtd ignores the first.
stop_all() {
    local index pid
    for ((index = ${#pids[@]} - 1; index >= 0; index--)); do
        pid=${pids[index]}
        [ "${names[index]}" = tgtd ] && kill -KILL "$pid" 2>/dev/null
        kill -TERM "$pid" 2>/dev/null || continue
        for _ in $(seq 150); do
            kill -0 "$pid" 2>/dev/null || continue 2
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null
    done
    wait "${pids[@]}" 2>/dev/null
}

leave() {
    local status=$?
    trap - EXIT INT TERM
    set +e
    if [ "$status" -ne 0 ]; then
        say "the lab failed; last words of each process:" >&2
        for name in "${names[@]}"; do
            say "--- $name" >&2
            tail -n 4 "$folder/$name.log" >&2
        done
    fi
    for machine in "$folder"/state/*/instances/*/pid; do
        [ -f "$machine" ] && kill -KILL "$(cat "$machine")" 2>/dev/null
    done
    stop_all 2>/dev/null
    [ -n "${epmd_pid:-}" ] && kill "$epmd_pid" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$folder"
    exit "$status"
}

free_ports() {
    "$bin/python" - "$1" <<'PYTHON'
import socket, sys

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(found.getsockname()[1] for found in sockets))
PYTHON
}

[ "$(id -u)" -eq 0 ] || die "the lab starts servers of other users: run it as root"
[ -x "$bin/lite" ] || die "$bin/lite is not there: run it by \`make lab\`"

step "Debian packages"
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    say "all there: ${packages[*]}"
else
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

folder=$(mktemp -d /tmp/lite-lab.XXXXXX)
chmod 0711 "$folder"
trap leave EXIT
trap 'exit 130' INT TERM
read -r amqp dist epmd pg portal <<<"$(free_ports 5)"

step "PostgreSQL, RabbitMQ and tgtd of our own"
pg_bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' | sort -V | tail -n 1)
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups env -C / "$@"; }
install -d -o postgres -m 0700 "$folder/pg" "$folder/pgrun"
as_postgres "$pg_bin/initdb" -D "$folder/pg" -A scram-sha-256 --auth-local=peer -U postgres --no-sync >/dev/null
begin postgresql as_postgres "$pg_bin/postgres" -D "$folder/pg" -p "$pg" -k "$folder/pgrun" -c listen_addresses=127.0.0.1 -c fsync=off

mkdir -p "$folder/rabbit"
"$deploy/rabbitmq/passwords.sh" "$deploy/rabbitmq/definitions.json" "$folder/secrets" "127.0.0.1:$amqp"
export HOME="$folder/rabbit" ERL_EPMD_PORT="$epmd" ERL_EPMD_ADDRESS=127.0.0.1
export RABBITMQ_NODENAME="lab-$$@localhost" RABBITMQ_NODE_PORT="$amqp" RABBITMQ_DIST_PORT="$dist"
export RABBITMQ_MNESIA_BASE="$folder/rabbit/mnesia" RABBITMQ_LOG_BASE="$folder/rabbit/log" RABBITMQ_PID_FILE="$folder/rabbit/pid"
export RABBITMQ_ENABLED_PLUGINS_FILE="$folder/rabbit/plugins" RABBITMQ_CONFIG_FILE="$folder/rabbit/rabbit" RABBITMQ_CONF_ENV_FILE=/dev/null
printf 'listeners.tcp.1 = 127.0.0.1:%s\n' "$amqp" >"$folder/rabbit/rabbit.conf"
echo '[].' >"$folder/rabbit/plugins"
rabbit_bin=/usr/lib/rabbitmq/bin
epmd -port "$epmd" -address 127.0.0.1 &
epmd_pid=$!
RUNNING_UNDER_SYSTEMD=true begin rabbitmq "$rabbit_bin/rabbitmq-server"
ctl() { "$rabbit_bin/rabbitmqctl" -q -n "$RABBITMQ_NODENAME" "$@"; }

export TGT_IPC_SOCKET="$folder/tgtd.socket"
begin tgtd tgtd -f -C 7 --iscsi "portal=127.0.0.1:$portal"
tgt() { tgtadm -C 7 --lld iscsi --op show --mode "$@"; }
has_portal() { tgt portal | grep -q "^Portal: 127.0.0.1:$portal,"; }

"$deploy/postgres/password.sh" "$folder/secrets" "127.0.0.1:$pg"
psql() { as_postgres psql -X -q -h "$folder/pgrun" -p "$pg" "$@"; }
until_ok 20 psql -c 'SELECT 1'
(
    set -a
    # shellcheck source=/dev/null
    . "$folder/secrets/database.env"
    psql -f - <"$deploy/postgres/create.sql" >/dev/null
)
until_ok 10 has_portal
until_ok 60 ctl await_startup
ctl import_definitions "$folder/secrets/definitions.json" >/dev/null
ctl delete_user guest
say "RabbitMQ on $amqp with $(ctl list_users --no-table-headers | wc -l) users, PostgreSQL on $pg, tgtd on $portal"

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
tgt_control_port = 7
target_port = $portal
file_capacity_gb = 100
CONF
for host in cmp1 cmp2; do printf '[DEFAULT]\nhost = %s\n' "$host" >"$folder/$host.conf"; done
secrets=$folder/secrets
nova=(--config-file "$deploy/config/nova.conf" --config-file "$folder/lab.conf" --config-file "$secrets/database.conf")
cinder=(--config-file "$deploy/config/cinder.conf" --config-file "$folder/lab.conf" --config-file "$folder/lab-cinder.conf"
    --config-file "$secrets/database.conf")
"$bin/lite" db upgrade "${nova[@]}"
begin cinder-api "$bin/cinder-lite" run api "${cinder[@]}" --config-file "$secrets/cinder-api.conf"
begin cinder-scheduler "$bin/cinder-lite" run scheduler "${cinder[@]}" --config-file "$secrets/cinder-scheduler.conf"
begin cinder-volume "$bin/cinder-lite" run volume "${cinder[@]}" --config-file "$secrets/cinder-volume.conf"
begin nova-api "$bin/nova-lite" run api "${nova[@]}" --config-file "$secrets/nova-api.conf"
for host in cmp1 cmp2; do
    begin "nova-compute-$host" "$bin/nova-lite" run compute "${nova[@]}" --config-file "$folder/$host.conf" --config-file "$secrets/nova-compute.conf"
done
export LITE_CONFIG_FILES="$folder/lab.conf:$secrets/lite-cli.conf"
all_up() { [ "$(cinder-lite service-list --json | grep -c '"state": "up"')" -eq 6 ] && grep -q serving "$folder"/nova-compute-cmp[12].log; }
PATH=$bin:$PATH
until_ok 40 all_up
cinder-lite service-list

step "lite demo"
lite demo

step "an attachment on each of the parts"
nova-lite boot --flavor m1.small --host cmp1 server-1 --wait >/dev/null 2>&1
nova-lite boot --flavor m1.small --host cmp2 server-2 --wait >/dev/null 2>&1
cinder-lite create 1 --name volume-1 --wait >/dev/null 2>&1

ctl trace_on -p lite >/dev/null
ctl add_user lab "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | tee "$secrets/lab")" >/dev/null
ctl set_permissions -p lite lab '.*' '.*' '.*'
mkfifo "$folder/trace.out"
printf 'amqp://lab:%s@127.0.0.1:%s/lite\n' "$(cat "$secrets/lab")" "$amqp" |
    timeout 60 "$bin/python" "$deploy/lab/trace.py" attach_volume >"$folder/trace.out" 2>"$folder/trace.log" &
exec 3<"$folder/trace.out"
read -r -t 20 listening <&3 && [ "$listening" = listening ] || die "the trace does not listen"
nova-lite volume-attach server-1 volume-1 >/dev/null
say "messages of one attach, by RabbitMQ's firehose:"
cat <&3
exec 3<&-
ctl trace_off -p lite >/dev/null
nova-lite volume-attachments server-1
say "nova's and cinder's rows:"
psql -d lite -c "SELECT device_name, source_type, destination_type, substr(volume_id, 1, 8) AS volume, substr(attachment_id, 1, 8) AS attachment FROM block_device_mapping WHERE deleted = 0" \
    -c "SELECT substr(a.id, 1, 8) AS attachment, a.attach_status, a.attached_host, a.mountpoint, v.status, v.host FROM volume_attachment a JOIN volumes v ON v.id = a.volume_id WHERE NOT a.deleted"
say "tgtd:"
tgt target | grep -E 'Target|Initiator|Backing store path: /|^ {8}[a-z]|ACL|Account' | sed "s|$folder|...|"
say "the machine, asked by QMP:"
machine=$(nova-lite show server-1 --json | sed -n 's/.*"uuid": "\(.*\)".*/\1/p' | head -n 1)
"$bin/python" - "$folder/state/cmp1/instances/$machine" <<'PYTHON'
import json, os, socket, sys

os.chdir(sys.argv[1])
with socket.socket(socket.AF_UNIX) as qmp:
    qmp.settimeout(10)
    qmp.connect("qmp")
    lines = qmp.makefile("rw")
    lines.readline()
    for command in ("qmp_capabilities", "query-block"):
        lines.write(json.dumps({"execute": command}) + "\n")
        lines.flush()
        while "return" not in (answer := json.loads(lines.readline())):
            pass
for disk in answer["return"]:
    print("   ", disk["qdev"], disk["inserted"]["drv"], disk["inserted"]["image"]["virtual-size"], "bytes")
PYTHON

step "the same volume on the other host, five times"
nova-lite volume-detach server-1 volume-1 --wait >/dev/null 2>&1
times=()
for _ in 1 2 3 4 5; do
    began=$(date +%s%N)
    nova-lite volume-attach server-2 volume-1 --wait >/dev/null 2>&1
    times+=("$((($(date +%s%N) - began) / 1000000))")
    nova-lite volume-detach server-2 volume-1 --wait >/dev/null 2>&1
done
mapfile -t sorted < <(printf '%s\n' "${times[@]}" | sort -n)
say "from the command's start to in-use: median ${sorted[2]} ms, ${sorted[0]} to ${sorted[4]} ms"

step "what a compute host's user may not do"
refused() {
    local what=$1
    shift
    if "$@" >/dev/null 2>"$folder/refused.log"; then die "RabbitMQ let nova-compute $what"; fi
    grep -qi 'access' "$folder/refused.log" || die "nova-compute could not $what for another reason: $(cat "$folder/refused.log")"
    say "RabbitMQ refuses nova-compute to $what"
}
refused "order cinder-volume" env LITE_CONFIG_FILES="$folder/lab.conf:$secrets/nova-compute.conf" \
    lite rpc cast cinder-volume.block1@file delete_volume
refused "take what is meant for nova-api" "$bin/python" - <<PYTHON
import asyncio, aio_pika, pathlib

url = next(line.split(" = ", 1)[1] for line in pathlib.Path("$secrets/nova-compute.conf").read_text().splitlines() if "transport_url" in line)

async def main():
    async with await aio_pika.connect(url.replace("rabbit://", "amqp://")) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("nova-api", ensure=False)
        await queue.get(fail=False)

asyncio.run(main())
PYTHON

step "nothing is left"
nova-lite delete server-1 --wait >/dev/null 2>&1
nova-lite delete server-2 --wait >/dev/null 2>&1
cinder-lite delete volume-1 --wait >/dev/null 2>&1
[ "$(nova-lite list --json)" = "[]" ] || die "servers are left"
[ "$(cinder-lite list --json)" = "[]" ] || die "volumes are left"
[ -z "$(tgt target)" ] || die "targets are left"
[ -z "$(find "$folder/state" -path '*/instances/*' -o -name 'volume-*')" ] || die "files are left in $folder/state"
say "no server, volume, target, machine or file; $((SECONDS - started_at)) s in all"
