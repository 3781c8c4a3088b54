# What the scripts beside it share: options, a server and a load when none runs, what is missing and how to
# get it. Sourced. Must not live here: what is measured.
# shellcheck shell=bash
# shellcheck disable=SC2154  # the scripts set what and says
#
# A script sets $what and $says, sources this, and calls: options "$@"; need …; begin; then records for
# $seconds seconds what process $pid does and calls load_counted and artefact.
#
# Exit codes of all: 0 done, 1 it failed, 3 a tool or kernel feature is missing, 64 usage.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
target="${CARGO_TARGET_DIR:-target}"
tools="$target/tools/bin"
# shellcheck source=bench/load/lib.sh
source bench/load/lib.sh
PATH="$PATH:$PWD/$tools"

usage() {
  cat <<TEXT
usage: perf/$what.sh [--pid PID | --scenario NAME] [options]

$says

  --pid PID        a server that runs, under a load of your own
  --scenario NAME  without --pid: the load for a server started here on a model of DynamoDB; hot (default),
                     mixed, checks and the others of bench/scenarios, or a TOML file of your own
  --rate N         calls a second, instead of the scenario's (default 5000)
  --seconds N      how long to record (default 20)
  --binary FILE    the server to start (default $target/profiling/inventory-api)
  --programs DIR   where the generator and the model are (default $target/release)
  --out DIR        where the result goes (default $target/perf)

Exit codes: 0 done, 1 it failed, 3 a tool or kernel feature is missing, 64 usage.
Build with: make perf-build
TEXT
}

fail() { echo "$what.sh: $1" >&2; exit 1; }
wrong() { echo "$what.sh: $1 (perf/$what.sh --help)" >&2; exit 64; }
missing() { echo "SKIP $what: $1" >&2; exit 3; }

# need PROGRAM HOW-TO-GET-IT
need() { command -v "$1" >/dev/null || missing "$1 is not installed ($2)"; }

pid="" scenario=hot rate=5000 seconds=20 out="$target/perf"
binary="$target/profiling/inventory-api" programs="$target/release"
options() {
  local chosen=no
  while (($# > 0)); do
    case "$1" in
      -h | --help) usage; exit 0 ;;
      --pid | --scenario | --rate | --seconds | --binary | --programs | --out) [[ -n "${2:-}" ]] || wrong "$1 needs a value" ;;&
      --pid) pid="$2" ;;
      --scenario) scenario="$2" chosen=yes ;;
      --rate) rate="$2" ;;
      --seconds) seconds="$2" ;;
      --binary) binary="$2" ;;
      --programs) programs="$2" ;;
      --out) out="$2" ;;
      *) wrong "$1 is not an option" ;;
    esac
    shift 2
  done
  [[ "$seconds" =~ ^[1-9][0-9]*$ ]] || wrong "--seconds $seconds: a whole number is wanted"
  [[ "$rate" =~ ^[1-9][0-9]*$ ]] || wrong "--rate $rate: a whole number is wanted"
  script="$scenario"
  [[ "$scenario" == *.toml ]] || script="bench/scenarios/$scenario.toml"
  [[ -r "$script" ]] || wrong "--scenario $scenario: one of $(cd bench/scenarios && echo *.toml | sed 's/\.toml//g'), or a TOML file"
  if [[ -n "$pid" ]]; then
    [[ $chosen == no ]] || wrong "--pid and --scenario: a server that runs has a load of its own"
    [[ -r "/proc/$pid/maps" ]] || wrong "--pid $pid: no such process, or not yours"
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

# The server has the last CPU for itself, the load and the store the others; with one CPU all share it.
cpus="$(nproc)"
aside() { if ((cpus > 1)); then exec taskset --cpu-list "0-$((cpus - 2))" "$@"; else exec "$@"; fi; }

start_model() {
  aside "$programs/store-model" --port 0 --unlimited >"$scratch/model" 2>&1 &
  model=$!
  until_true 20 grep -q 'listening on ' "$scratch/model" || fail "no store: $(tail -3 "$scratch/model")"
  AWS_ENDPOINT_URL_DYNAMODB="http://$(sed -n 's/.*listening on //p' "$scratch/model" | head -1)"
  export AWS_ENDPOINT_URL_DYNAMODB AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=ap-northeast-2
  "$binary" tables create >"$scratch/tables" 2>&1 || fail "no tables: $(tail -3 "$scratch/tables")"
}

# Starts a store, a server and a load, unless a server runs.
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
  until_true 20 curl -sf "http://127.0.0.1:$metrics_port/readyz" || fail "no server: $(tail -3 "$scratch/server")"
  aside "$programs/generator" --quiet --target "127.0.0.1:$grpc_port" --admin "127.0.0.1:$admin_port" --rate "$rate" \
    --warmup 1 --duration "$((seconds + 60))" "$script" >"$scratch/load" 2>&1 &
  load=$!
  until_true 20 calls_beyond "$rate" || fail "the load does not begin: $(tail -3 "$scratch/load")"
  calls_before="$(calls)" before_us="${EPOCHREALTIME/./}"
  echo "recording $scenario, $rate calls a second, for $seconds s" >&2
}

# After the recording: how many calls were answered in so many seconds. Starting and ending a recorder takes time in
# which calls are answered too, so that it is their rate that counts. None is a failure, not a result.
served=""
load_counted() {
  [[ -n "$server" ]] || return 0
  kill -0 "$server" 2>/dev/null || fail "the server ended: $(tail -3 "$scratch/server")"
  local answered="$(($(calls) - calls_before))"
  served=$((answered * seconds * 1000000 / (${EPOCHREALTIME/./} - before_us)))
  ((served > 0)) || fail "no call was answered while it recorded"
  echo "$served calls answered in that time" >&2
}

need_perf() {
  need perf "Debian: apt-get install linux-perf"
  perf record -q -e cpu-clock -o "$scratch/try" -p "$$" -- true 2>"$scratch/why" \
    || missing "the kernel forbids perf: kernel.perf_event_paranoid is $(cat /proc/sys/kernel/perf_event_paranoid), wanted at most 1, or be root"
}

# need_bpf TRACEPOINT…
need_bpf() {
  local point
  need bpftrace "Debian: apt-get install bpftrace"
  ((EUID == 0)) || missing "bpftrace wants root"
  for point in "$@"; do
    bpftrace -l "tracepoint:$point" 2>/dev/null | grep -q . \
      || missing "the kernel has no tracepoint $point (CONFIG_FTRACE, CONFIG_BPF_EVENTS, tracefs mounted)"
  done
}

need_inferno() {
  need inferno-flamegraph "cargo install inferno --root $target/tools"
  need inferno-collapse-perf "cargo install inferno --root $target/tools"
}

# The last line: what there is to look at.
artefact() {
  [[ -s "$1" ]] || fail "$1 is empty"
  echo "$1"
}
