# Shared part of the scripts in this folder: options, starting a server under load, checks for missing tools. Sourced.
# What is measured must not be put here.
# shellcheck shell=bash
# shellcheck disable=SC2154  # the scripts set what and description
#
# A script sets $what and $description, sources this file, and calls: options "$@"; need …; begin; then it records
# process $pid for $seconds seconds and calls count_load and artefact.
#
# Exit codes: 0 success, 1 failure, 3 missing tool or kernel feature, 64 usage error.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
target="${CARGO_TARGET_DIR:-target}"
tools="$target/tools/bin"
# shellcheck source=bench/load/lib.sh
source bench/load/lib.sh
PATH="$PATH:$PWD/$tools"

usage() {
  cat <<TEXT
usage: perf/$what.sh [--pid PID | --scenario NAME] [options]

$description

  --pid PID        a running server that has its own load
  --scenario NAME  without --pid: the load for a server that the script starts on the store model; hot (default),
                     another scenario of bench/scenarios, or a TOML file
  --rate N         calls per second (default 5000)
  --seconds N      duration of the recording (default 20)
  --binary FILE    the server to start (default $target/profiling/inventory-api)
  --programs DIR   folder of the generator and the store model (default $target/dist)
  --out DIR        folder of the result (default $target/perf)

Exit codes: 0 success, 1 failure, 3 missing tool or kernel feature, 64 usage error.
Build with: make perf-build
TEXT
}

fail() { echo "$what.sh: $1" >&2; exit 1; }
wrong() { echo "$what.sh: $1 (perf/$what.sh --help)" >&2; exit 64; }
missing() { echo "SKIP $what: $1" >&2; exit 3; }

# need PROGRAM HOW-TO-INSTALL
need() { command -v "$1" >/dev/null || missing "$1 is not installed ($2)"; }

pid="" scenario="" rate=5000 seconds=20 out="$target/perf"
binary="$target/profiling/inventory-api" programs="$target/dist"
options() {
  parse_options "pid scenario rate seconds binary programs out" "$@"
  require_positive rate seconds
  [[ -z "$pid" || -z "$scenario" ]] || wrong "--pid and --scenario: a running server has its own load"
  : "${scenario:=hot}"
  scenario_file="$scenario"
  [[ "$scenario" == *.toml ]] || scenario_file="bench/scenarios/$scenario.toml"
  [[ -r "$scenario_file" ]] \
    || wrong "--scenario $scenario: must be one of $(cd bench/scenarios && echo *.toml | sed 's/\.toml//g'), or a TOML file"
  if [[ -n "$pid" ]]; then
    [[ -r "/proc/$pid/maps" ]] || wrong "--pid $pid: no such process, or no permission"
    binary="$(readlink -f "/proc/$pid/exe")"
  fi
  mkdir -p "$out"
  scratch="$(mktemp -d)"
  trap end EXIT
}

server="" load="" model=""
end() {
  local child
  for child in $load $server $model; do
    { kill "$child" && wait "$child"; } 2>/dev/null || true
  done
  rm -rf "$scratch"
}

calls() {
  curl -sf "http://127.0.0.1:$metrics_port/metrics" \
    | awk '/^grpc_requests_total/ { n += $NF } END { printf "%d\n", n }'
}
calls_beyond() { (("$(calls)" > $1)); }

# The server runs on the last CPU, generator and store on the others; with one CPU all of them share it.
cpus="$(nproc)"
on_other_cpus() { if ((cpus > 1)); then exec taskset --cpu-list "0-$((cpus - 2))" "$@"; else exec "$@"; fi; }

start_model() {
  on_other_cpus "$programs/store-model" --port 0 --unlimited >"$scratch/model" 2>&1 &
  model=$!
  until_true 20 grep -q 'listening on ' "$scratch/model" || fail "the store model did not start: $(tail -3 "$scratch/model")"
  AWS_ENDPOINT_URL_DYNAMODB="http://$(sed -n 's/.*listening on //p' "$scratch/model" | head -1)"
  export AWS_ENDPOINT_URL_DYNAMODB AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=ap-northeast-2
  "$binary" tables create >"$scratch/tables" 2>&1 || fail "the tables were not created: $(tail -3 "$scratch/tables")"
}

# Starts a store, a server and a load, unless --pid names a running server.
begin() {
  local program
  [[ -z "$pid" ]] || { echo "recording process $pid for $seconds s" >&2; return; }
  for program in "$binary" "$programs/store-model" "$programs/generator"; do
    [[ -x "$program" ]] || missing "$program is not built (make perf-build)"
  done
  need curl "Debian: apt-get install curl"
  need python3 "Debian: apt-get install python3"
  start_model
  read -r grpc_port metrics_port admin_port <<<"$(free_ports 3)"
  GRPC_PORT="$grpc_port" METRICS_PORT="$metrics_port" ADMIN_PORT="$admin_port" SHARDS="$((cpus - 1))..$cpus" \
    OTEL_TRACES_EXPORTER=none "$binary" serve >"$scratch/server" 2>&1 &
  server=$!
  pid=$server
  until_true 20 curl -sf "http://127.0.0.1:$metrics_port/readyz" || fail "the server did not start: $(tail -3 "$scratch/server")"
  on_other_cpus "$programs/generator" --quiet --target "127.0.0.1:$grpc_port" --admin "127.0.0.1:$admin_port" --rate "$rate" \
    --warmup 1 --duration "$((seconds + 60))" "$scenario_file" >"$scratch/load" 2>&1 &
  load=$!
  until_true 20 calls_beyond "$rate" || fail "the load did not start: $(tail -3 "$scratch/load")"
  calls_before="$(calls)" before_us="${EPOCHREALTIME/./}"
  echo "recording $scenario at $rate calls per second for $seconds s" >&2
}

# Sets $served to the number of calls answered in $seconds seconds. It is computed from the rate of calls, because calls
# are also answered while the recorder starts and ends. No call is a failure.
served=""
count_load() {
  [[ -n "$server" ]] || return 0
  kill -0 "$server" 2>/dev/null || fail "the server exited: $(tail -3 "$scratch/server")"
  local answered="$(($(calls) - calls_before))"
  served=$((answered * seconds * 1000000 / (${EPOCHREALTIME/./} - before_us)))
  ((served > 0)) || fail "no call was answered during the recording"
  echo "$served calls answered in $seconds s" >&2
}

need_perf() {
  need perf "Debian: apt-get install linux-perf"
  perf record -q -e cpu-clock -o "$scratch/try" -p "$$" -- true 2>"$scratch/why" \
    || missing "the kernel does not permit perf: kernel.perf_event_paranoid is $(cat /proc/sys/kernel/perf_event_paranoid), must be at most 1, or run as root"
}

# need_bpf TRACEPOINT…
need_bpf() {
  local point
  need bpftrace "Debian: apt-get install bpftrace"
  ((EUID == 0)) || missing "bpftrace needs root"
  for point in "$@"; do
    bpftrace -l "tracepoint:$point" 2>/dev/null | grep -q . \
      || missing "the kernel has no tracepoint $point (CONFIG_FTRACE, CONFIG_BPF_EVENTS, tracefs mounted)"
  done
}

need_inferno() {
  need inferno-flamegraph "cargo install inferno --root $target/tools"
  need inferno-collapse-perf "cargo install inferno --root $target/tools"
}

# artefact FILE: prints the path of the result as the last line.
artefact() {
  [[ -s "$1" ]] || fail "$1 is empty"
  echo "$1"
}
