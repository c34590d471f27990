#!/usr/bin/env bash
# Durable creates side by side: a row in PostgreSQL and a confirmed event in RabbitMQ, against one POST to Atoll.
# Everything lives in one new folder, so on one disk; nothing runs at the same time as the other side; all of it is
# stopped and removed at the end. Both servers keep Debian's defaults, so fsync is on.
#
#   apt-get install --no-install-recommends postgresql-15 rabbitmq-server
#   benches/versus.sh [--seconds N] [--clients 1,16,64] [--only postgres|atoll] [--parent DIR] [--no-build]
#
# ATOLL_BIN and BENCH_BIN_DIR name other binaries than those that this script builds.
set -euo pipefail

seconds=10 clients=1,16,64 only=both parent=/var/tmp build=yes
while (($# > 0)); do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --clients) clients=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --parent) parent=$2; shift 2 ;;
    --no-build) build=no; shift ;;
    *) echo "versus.sh: unknown argument '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
atoll=${ATOLL_BIN:-$target/release/atoll}
bench_bin_dir=${BENCH_BIN_DIR:-$target/load}
postgres_bin=${POSTGRES_BIN_DIR:-/usr/lib/postgresql/15/bin}
rabbitmq_bin=${RABBITMQ_BIN_DIR:-/usr/lib/rabbitmq/bin}
rabbit_runs=no postgres_runs=no
# shellcheck source=versus_processes.sh
source benches/versus_processes.sh

stop_others() {
  stop_postgres || true
  stop_rabbitmq || true
}

# It listens before its first start has made a tenant to sign in to.
wait_until_ready() {
  local tries=300 status
  while ((tries-- > 0)); do
    status=''
    if exec 3<>"/dev/tcp/127.0.0.1/$1"; then
      printf 'GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
      read -r _ status _ <&3 || true
      exec 3<&- 3>&-
    fi 2>/dev/null
    if [[ $status == 200 ]]; then return; fi
    sleep 0.1
  done
  fail "Atoll is not ready after 30 s"
}

# PostgreSQL refuses to run as root.
as_postgres() { if ((EUID == 0)); then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }

start_postgres() {
  [[ -x $postgres_bin/initdb ]] || fail "no PostgreSQL 15 in $postgres_bin: apt-get install postgresql-15"
  postgres_port=$(free_port)
  mkdir "$folder/postgres"
  if ((EUID == 0)); then chown postgres "$folder/postgres"; fi
  as_postgres "$postgres_bin/initdb" --pgdata "$folder/postgres/data" --username postgres --auth trust \
    --encoding UTF8 --locale C.UTF-8 >"$folder/initdb.log" 2>&1
  postgres_runs=yes
  as_postgres "$postgres_bin/pg_ctl" --pgdata "$folder/postgres/data" --log "$folder/postgres/server.log" --wait --silent \
    --options "-p $postgres_port -c listen_addresses=127.0.0.1 -c unix_socket_directories='$folder/postgres'" start >&2
}

stop_postgres() {
  [[ $postgres_runs == yes ]] || return 0
  postgres_runs=no
  as_postgres "$postgres_bin/pg_ctl" --pgdata "$folder/postgres/data" --mode fast --wait --silent stop >&2
}

start_rabbitmq() {
  [[ -x $rabbitmq_bin/rabbitmq-server ]] || fail "no RabbitMQ in $rabbitmq_bin: apt-get install rabbitmq-server"
  rabbitmq_port=$(free_port)
  mkdir "$folder/rabbitmq"
  touch "$folder/rabbitmq/rabbitmq.conf" "$folder/rabbitmq/rabbitmq-env.conf"
  echo '[].' >"$folder/rabbitmq/enabled_plugins"
  rabbitmq_env=(
    HOME="$folder/rabbitmq" ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$(free_port)"
    RABBITMQ_CONF_ENV_FILE="$folder/rabbitmq/rabbitmq-env.conf" RABBITMQ_CONFIG_FILE="$folder/rabbitmq/rabbitmq"
    RABBITMQ_ENABLED_PLUGINS_FILE="$folder/rabbitmq/enabled_plugins" RABBITMQ_NODENAME="versus$$@localhost"
    RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$rabbitmq_port" RABBITMQ_DIST_PORT="$(free_port)"
    RABBITMQ_MNESIA_BASE="$folder/rabbitmq/data" RABBITMQ_LOG_BASE="$folder/rabbitmq/log"
    RABBITMQ_PID_FILE="$folder/rabbitmq/pid" LANG=C.UTF-8
  )
  env "${rabbitmq_env[@]}" "$rabbitmq_bin/rabbitmq-server" >"$folder/rabbitmq.log" 2>&1 </dev/null &
  rabbitmq_pid=$!
  rabbit_runs=yes
  wait_for_port RabbitMQ "$rabbitmq_port" 60
}

stop_rabbitmq() {
  [[ $rabbit_runs == yes ]] || return 0
  rabbit_runs=no
  env "${rabbitmq_env[@]}" "$rabbitmq_bin/rabbitmqctl" --quiet stop >/dev/null 2>&1 || kill "$rabbitmq_pid" 2>/dev/null || true
  wait "$rabbitmq_pid" 2>/dev/null || true
  # The port mapper of this run only: it has a port of its own.
  env "${rabbitmq_env[@]}" epmd -kill >/dev/null 2>&1 || true
}

start_atoll() {
  [[ -x $atoll ]] || fail "no $atoll: cargo build --release"
  atoll_port=$(free_port)
  ATOLL_ADMIN_EMAIL=admin@versus.example
  ATOLL_ADMIN_PASSWORD=$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')
  export ATOLL_ADMIN_EMAIL ATOLL_ADMIN_PASSWORD
  "$atoll" serve --data "$folder/atoll" --listen "127.0.0.1:$atoll_port" --sync-listen 127.0.0.1:0 --set limits.rate=0 >"$folder/atoll.log" 2>&1 </dev/null &
  pids=($!)
  wait_for_port Atoll "$atoll_port" 30
  wait_until_ready "$atoll_port"
}

# field FILE CLIENTS NAME: one value of the line for so many clients.
field() { sed -n "/\"clients\":$2,/s/.*\"$3\":\([0-9.]*\).*/\1/p" "$1"; }

table() {
  local line='%8s | %10s %9s %9s | %10s %9s %9s | %6s\n' count
  # shellcheck disable=SC2059 # the format is the line above
  printf "$line" clients 'PG+RMQ /s' 'p50 ms' 'p99 ms' 'Atoll /s' 'p50 ms' 'p99 ms' ratio
  for count in ${clients//,/ }; do
    local row=("$count") file
    for file in "$folder/postgres.json" "$folder/atoll.json"; do
      local name
      for name in per_second p50_ms p99_ms; do
        local value=''
        if [[ -f $file ]]; then value=$(field "$file" "$count" "$name"); fi
        row+=("${value:--}")
      done
    done
    row+=("$(awk -v a="${row[4]}" -v p="${row[1]}" 'BEGIN { if (a > 0 && p > 0) printf "%.2f", a / p; else printf "-" }')")
    # shellcheck disable=SC2059
    printf "$line" "${row[@]}"
  done
}

make_folder "$parent" atoll-versus
chmod 711 "$folder"
if [[ $build == yes ]]; then
  if [[ $only != postgres ]]; then cargo build --release --bin atoll >&2; fi
  cargo build --profile load -p atoll-benches --features versus >&2
fi

if [[ $only != atoll ]]; then
  say "starting PostgreSQL and RabbitMQ in $folder"
  start_postgres
  start_rabbitmq
  say "$clients clients, $seconds s each: insert, commit, publish, confirmed"
  "$bench_bin_dir/versus_postgres" --postgres "host=127.0.0.1 port=$postgres_port user=postgres dbname=postgres" \
    --rabbitmq "amqp://guest:guest@127.0.0.1:$rabbitmq_port/%2f" --clients "$clients" --seconds "$seconds" |
    tee "$folder/postgres.json" >&2
  stop_rabbitmq
  stop_postgres
fi
if [[ $only != postgres ]]; then
  say "starting Atoll in $folder"
  start_atoll
  say "$clients clients, $seconds s each: POST /api/v1/posts"
  for count in ${clients//,/ }; do
    "$bench_bin_dir/load" create --address "127.0.0.1:$atoll_port" --clients "$count" --seconds "$seconds" |
      tee -a "$folder/atoll.json" >&2
  done
  stop_all
fi
table
