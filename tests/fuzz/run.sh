#!/usr/bin/env bash
# Coverage-guided fuzzing, with stable Rust and a C++ compiler:
#
#   tests/fuzz/run.sh [SECONDS [TARGET...]]
#
# runs each target (all of them, for 60 seconds) on one core and prints what became of it. It goes on from the inputs that
# earlier runs found worth keeping, in tests/fuzz/corpus; those begin as the targets' own seeds. An input that fails, takes
# more than ten seconds or more than a gigabyte is left in tests/fuzz/corpus/failed-TARGET, and beside it, as `smallest`,
# what is left of it that still fails.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-60}
shift || true
triple=$(rustc -vV | sed -n 's/^host: //p')
program=target/$triple/release/target

# As cargo-fuzz has it. That they are for a named machine keeps them from what runs while building.
coverage=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
  -Cllvm-args=-sanitizer-coverage-stack-depth
  -Cllvm-args=-simplifycfg-branch-fold-threshold=0
)
limits=(-timeout=10 -rss_limit_mb=1024)

build() {
  # The versions that the tests have.
  cp ../../Cargo.lock Cargo.lock
  RUSTFLAGS="${coverage[*]}" cargo build --release --target "$triple"
}

# fuzz TARGET: a line of figures, and status 1 if an input failed.
fuzz() {
  export ATOLL_FUZZ_TARGET=$1
  local corpus=corpus/$1 failed=corpus/failed-$1 log status=0 inputs edges kept input
  mkdir -p "$corpus" "$failed"
  ATOLL_FUZZ_SEEDS=$corpus "$program"
  if [[ -d found/$1 ]]; then cp "found/$1"/* "$corpus"; fi
  log=$failed/log
  "$program" "$corpus" -artifact_prefix="$failed/" -max_total_time="$seconds" "${limits[@]}" \
    -max_len=32768 -len_control=0 -print_final_stats=1 >"$log" 2>&1 || status=$?
  inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  edges=$(grep -ao 'cov: [0-9]*' "$log" | tail -1 | tr -dc 0-9)
  kept=$(find "$corpus" -type f | wc -l)
  printf '%-12s %9s inputs %7s edges %6s kept  ' "$1" "${inputs:-?}" "${edges:-?}" "$kept"
  if ((status == 0)); then
    echo 'nothing failed'
    return
  fi
  input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
  echo "FAILED: $input"
  grep -aE -A1 ' fails: |ERROR: libFuzzer' "$log" || tail -20 "$log"
  if [[ -n $input ]]; then
    # Without an end of its own.
    timeout 60 "$program" "$input" -minimize_crash=1 -max_total_time=10 "${limits[@]}" \
      -exact_artifact_path="$failed/smallest" >"$log.small" 2>&1 || true
  fi
  return 1
}

build
if (($# == 0)); then mapfile -t targets < <(ATOLL_FUZZ_TARGET='' "$program"); else targets=("$@"); fi
failures=0
for target in "${targets[@]}"; do fuzz "$target" || failures=$((failures + 1)); done
exit $((failures > 0))
