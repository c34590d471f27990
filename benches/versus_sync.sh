#!/usr/bin/env bash
# A new node that takes over 10,000 records of 2 KiB, side by side: Atoll, PouchDB-server, and Kolibri with its Morango. Each
# side has two programs of its own on loopback; nothing runs at the same time as another side; everything lives in one new
# folder, so on one disk, and is stopped and removed at the end. Atoll and PouchDB take turns.
#
#   npm install --prefix DIR pouchdb-server@4.2.0
#   python3 -m venv DIR && DIR/bin/pip install kolibri==0.19.5
#   benches/versus_sync.sh --pouch DIR --kolibri DIR [--rounds N] [--parent DIR] [--no-build]
#
# A side whose folder is not given is left out. BENCH_BIN_DIR names another folder of `network` than the one that this script
# builds into. What is timed:
#   Atoll    from when the link stands until both nodes have the same digest
#   PouchDB  one _replicate with which the empty one pulls from the other, from the order to the answer
#   Kolibri  one pull, from the order until the records are in the tables of the application: the server queues, the records
#            travel, they are dequeued. It asks for 200 records at a time and sleeps a second in between, as its own program does;
#            how long it slept is told
set -euo pipefail

rounds=3 parent=/var/tmp build=yes pouch='' kolibri=''
while (($# > 0)); do
  case $1 in
    --pouch) pouch=$2; shift 2 ;;
    --kolibri) kolibri=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --parent) parent=$2; shift 2 ;;
    --no-build) build=no; shift ;;
    *) echo "versus_sync.sh: unknown argument '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# As many as `network documents` makes.
records=10000
network=${BENCH_BIN_DIR:-${CARGO_TARGET_DIR:-target}/release}/network
helper=$PWD/benches/versus_sync.py
# shellcheck source=versus_processes.sh
source benches/versus_processes.sh

pull_atoll() { "$network" documents; }

start_pouch() {
  local side
  [[ -f $pouch/node_modules/pouchdb-server/bin/pouchdb-server ]] || fail "no PouchDB-server in $pouch: see the head of this file"
  pouch_ports=()
  for side in source target; do
    local port
    port=$(free_port)
    mkdir "$folder/pouch-$side"
    (cd "$folder/pouch-$side" && exec node "$pouch/node_modules/pouchdb-server/bin/pouchdb-server" --port "$port" \
      --host 127.0.0.1 --dir . --no-stdout-logs) >"$folder/pouch-$side.log" 2>&1 </dev/null &
    pids+=($!)
    pouch_ports+=("$port")
    wait_for_port "PouchDB-server" "$port" 30
  done
}

pull_pouch() { python3 "$helper" pouch "http://127.0.0.1:${pouch_ports[0]}" "http://127.0.0.1:${pouch_ports[1]}" "$records"; }

start_kolibri() {
  [[ -x $kolibri/bin/kolibri ]] || fail "no Kolibri in $kolibri: see the head of this file"
  local port zip
  port=$(free_port) zip=$(free_port)
  password=$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')
  export KOLIBRI_RUN_MODE=versus KOLIBRI_LISTEN_ADDRESS=127.0.0.1
  export KOLIBRI_HOME=$folder/kolibri-source
  say "making two Kolibris"
  "$kolibri/bin/kolibri" manage provisiondevice --facility Versus --superusername admin --superuserpassword "$password" \
    --preset nonformal --language_id en --noinput >"$folder/kolibri-provision.log" 2>&1
  "$kolibri/bin/python" "$helper" kolibri-fill "$records" >"$folder/kolibri-fill.log" 2>&1
  "$kolibri/bin/kolibri" start --foreground --port "$port" --zip-port "$zip" >"$folder/kolibri-source.log" 2>&1 </dev/null &
  pids+=($!)
  wait_for_port Kolibri "$port" 90
  kolibri_port=$port
}

pull_kolibri() {
  KOLIBRI_HOME=$folder/kolibri-target "$kolibri/bin/python" "$helper" kolibri-pull "http://127.0.0.1:$kolibri_port" "$records" admin \
    "$password" 2>"$folder/kolibri-target.log" >"$folder/kolibri-target.out"
  tail -n 1 "$folder/kolibri-target.out"
}

# Kolibri serves in a child of what was started, which outlives it.
stop_others() {
  [[ -d $folder/kolibri-source ]] || return 0
  KOLIBRI_HOME=$folder/kolibri-source "$kolibri/bin/kolibri" stop >/dev/null 2>&1
}

# field FILE NAME: one value of each object in the file.
field() { sed -n "s/.*\"$2\": *\([0-9.]*\).*/\1/p" "$1"; }
middle() { sort -n | awk '{ all[NR] = $1 } END { if (NR > 0) print all[int((NR + 1) / 2)] }'; }

table() {
  local line='%-8s | %10s | %s\n' side unit ours theirs
  ours=$(field "$folder/atoll.json" records_per_s | middle)
  # shellcheck disable=SC2059 # the format is the line above
  printf "$line" '' 'records/s' 'each round; Atoll is so many times as fast'
  for side in atoll pouch kolibri; do
    [[ -s $folder/$side.json ]] || continue
    unit=per_second
    if [[ $side == atoll ]]; then unit=records_per_s; fi
    theirs=$(field "$folder/$side.json" "$unit" | middle)
    # shellcheck disable=SC2059
    printf "$line" "$side" "$theirs" \
      "$(field "$folder/$side.json" "$unit" | paste -sd ' '); $(awk -v a="$ours" -v b="$theirs" 'BEGIN { printf "%.1f", a / b }')"
  done
}

make_folder "$parent" atoll-versus-sync
if [[ $build == yes ]]; then cargo build --release -p atoll-benches --bin network >&2; fi
[[ -x $network ]] || fail "no $network: cargo build --release -p atoll-benches --bin network"
if [[ -n $pouch ]]; then pouch=$(cd "$pouch" && pwd); fi
if [[ -n $kolibri ]]; then kolibri=$(cd "$kolibri" && pwd); fi
# Atoll's nodes make their folders there.
export TMPDIR=$folder

for ((round = 1; round <= rounds; round++)); do
  say "round $round of $rounds"
  pull_atoll | tee -a "$folder/atoll.json" >&2
  if [[ -n $pouch ]]; then
    start_pouch
    pull_pouch | tee -a "$folder/pouch.json" >&2
    stop_all
    rm -rf "$folder"/pouch-*
  fi
done
if [[ -n $kolibri ]]; then
  start_kolibri
  pull_kolibri | tee -a "$folder/kolibri.json" >&2
  stop_all
fi
table
