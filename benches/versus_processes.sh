# What the comparisons with other programs share: a new folder on a disk, the programs that run in it, and their end. For
# scripts to source, under `set -euo pipefail`. What does not end by its pid is ended by the script's own `stop_others`.
# shellcheck shell=bash

me=${0##*/}
pids=() folder=''

say() { printf '%s\n' "$*" >&2; }
fail() { say "$me: $*"; exit 1; }

# make_folder PARENT NAME
make_folder() {
  [[ -d $1 ]] || fail "there is no folder $1"
  [[ $(stat --file-system --format %T "$1") != tmpfs ]] || fail "$1 is in memory, not on a disk; give another --parent"
  folder=$(mktemp -d "$1/$2.XXXXXX")
}

cleanup() {
  local status=$? log
  trap - EXIT
  stop_all || true
  if declare -F stop_others >/dev/null; then stop_others || true; fi
  if [[ -n $folder ]]; then
    if ((status != 0)); then
      for log in "$folder"/*.log; do
        if [[ -s $log ]]; then say "--- the end of ${log##*/}"; tail -n 15 "$log" >&2; fi
      done
    fi
    rm -rf "$folder"
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

stop_all() {
  local pid
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  pids=()
}

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
}

# wait_for_port NAME PORT SECONDS
wait_for_port() {
  local tries=$(($3 * 10))
  while ! (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; do
    ((tries-- > 0)) || fail "$1 does not listen on 127.0.0.1:$2 after $3 s"
    sleep 0.1
  done
}
