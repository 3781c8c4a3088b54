#!/usr/bin/env bash
# Fuzzes the targets of inventory-api with libFuzzer, two at a time: coverage-guided, on the stable compiler. Needs Rust and a
# C++ compiler. The corpus in tests/fuzz/corpus is the start; what is found goes to target/fuzz.
#
#   tests/fuzz/run.sh [--seconds N] [--seed N] [--jobs N] [TARGET…]   fuzzes each target, or the named ones, for N seconds
#   tests/fuzz/run.sh --merge [TARGET…]                       copies to tests/fuzz/new what covers more than the corpus
#   tests/fuzz/run.sh --run TARGET FILE…                      runs a target on these inputs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=60
jobs=2
# 0: drawn
seed=0
mode=fuzz

# Longest time for one input, in seconds. The slowest takes milliseconds; a busy machine may stop a process for a second.
readonly INPUT_SECONDS_MAX=10
# Memory of a target. Its code and its corpus take about 100 MB; a parser that allocates what an input claims exceeds it.
readonly MEMORY_MB_MAX=1024
# Length of an input. Longer ones take more time and reach nothing that two records, or a hundred frames, do not reach.
readonly INPUT_BYTES_MAX=8192
# Executions of a target that is not broken, in ten seconds on a busy machine. The slowest makes thousands in one.
readonly EXECUTIONS_MIN=100

while (($# > 0)); do
  case "$1" in
    --seconds) seconds="$2"; shift 2 ;;
    --jobs) jobs="$2"; shift 2 ;;
    --seed) seed="$2"; shift 2 ;;
    --merge) mode=merge; shift ;;
    --run) mode=run; shift ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "tests/fuzz/run.sh: unknown option $1" >&2; exit 64 ;;
    *) break ;;
  esac
done

root="$PWD"
out="${CARGO_TARGET_DIR:-$root/target}/fuzz"
all=()
for source in tests/fuzz/src/bin/*.rs; do
  all+=("$(basename "$source" .rs)")
done
targets=("${all[@]}")
if (($# > 0)); then
  targets=("$@")
fi
if [[ $mode == run ]]; then
  targets=("$1")
  shift
fi
for target in "${targets[@]}"; do
  [[ -f "tests/fuzz/src/bin/$target.rs" ]] || {
    echo "tests/fuzz/run.sh: $target is no target; want some of ${all[*]}" >&2
    exit 64
  }
done

if ! command -v c++ >/dev/null; then
  echo "SKIP fuzzing: there is no C++ compiler (c++)"
  exit 0
fi

# The flags of cargo-fuzz without a sanitizer, which needs no nightly compiler: counters of edges, and traced comparisons.
# Debug assertions and checks of overflows are those of the dev profile.
flags=(--cfg fuzzing "-Cpasses=sancov-module")
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done

host="$(rustc -vV | sed -n 's/^host: //p')"
# The versions of the server, and libFuzzer.
cp Cargo.lock tests/fuzz/Cargo.lock
echo "building ${#targets[@]} of ${#all[@]} targets"
built=$SECONDS
bins=()
for target in "${targets[@]}"; do
  bins+=(--bin "$target")
done
# With --target the flags do not reach build scripts and macros.
RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR="$out" \
  cargo build --quiet --manifest-path tests/fuzz/Cargo.toml --target "$host" "${bins[@]}"
echo "built in $((SECONDS - built)) s"

program() {
  echo "$out/$host/debug/$1"
}

if [[ $mode == run ]]; then
  exec "$(program "${targets[0]}")" -timeout="$INPUT_SECONDS_MAX" -rss_limit_mb="$MEMORY_MB_MAX" "$@"
fi

mkdir -p "$out/log"

# fuzz TARGET: writes log/TARGET.log; a failed input is written to failed/TARGET-….
fuzz() {
  local target="$1" options=()
  mkdir -p "$out/corpus/$target" "$out/failed"
  if [[ -f "tests/fuzz/dictionaries/$target.dict" ]]; then
    options+=("-dict=tests/fuzz/dictionaries/$target.dict")
  fi
  "$(program "$target")" -seed="$seed" -max_total_time="$seconds" -timeout="$INPUT_SECONDS_MAX" \
    -rss_limit_mb="$MEMORY_MB_MAX" -max_len="$INPUT_BYTES_MAX" -print_final_stats=1 -verbosity=1 \
    -artifact_prefix="$out/failed/$target-" "${options[@]}" \
    "$out/corpus/$target" "tests/fuzz/corpus/$target" >"$out/log/$target.log" 2>&1
}

# report TARGET STATUS: one line about a run.
report() {
  local target="$1" status="$2" log="$out/log/$1.log" executions edges memory
  executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  memory="$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")"
  edges="$(grep -o ' cov: [0-9]*' "$log" | tail -1 | tr -dc 0-9)"
  if ((status != 0)); then
    echo "FAILED $target"
    grep -E "panicked at|^==[0-9]+==|libFuzzer: |SUMMARY|Test unit written" -A 3 "$log" | cut -c1-400 | tail -40
    echo "  run it again: tests/fuzz/run.sh --run $target FILE; docs/testing.md says what to do with it"
    return 1
  fi
  printf '%-16s %12s executions, %8s per second, %6s edges, %5s MB\n' \
    "$target" "$executions" "$((executions / seconds))" "$edges" "$memory"
  if ((executions * 10 < EXECUTIONS_MIN * seconds)); then
    echo "FAILED $target: too few executions"
    return 1
  fi
}

if [[ $mode == merge ]]; then
  for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target" "$out/new/$target"
    rm -rf "$out/new/$target"
    mkdir -p "$out/new/$target"
    "$(program "$target")" -set_cover_merge=1 -max_len=1024 -timeout="$INPUT_SECONDS_MAX" -verbosity=0 \
      "$out/new/$target" "$out/corpus/$target" >"$out/log/$target-merge.log" 2>&1
    echo "$target: $(find "$out/new/$target" -type f | wc -l) inputs in $out/new/$target"
  done
  exit 0
fi

declare -A running=()
failed=0
finish_one() {
  local pid status=0
  wait -n -p pid "${!running[@]}" || status=$?
  report "${running[$pid]}" "$status" || failed=1
  unset "running[$pid]"
}
for target in "${targets[@]}"; do
  while ((${#running[@]} >= jobs)); do
    finish_one
  done
  fuzz "$target" &
  running[$!]="$target"
done
while ((${#running[@]} > 0)); do
  finish_one
done
exit "$failed"
