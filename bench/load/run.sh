#!/usr/bin/env bash
# Constant load with ghz or k6, two load generators of other projects. For quotable measurements use make bench-hot and
# the other benchmarks: they count latencies from when a call was due and detect a generator that is the limit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=bench/load/lib.sh
source bench/load/lib.sh
target_dir="${CARGO_TARGET_DIR:-target}"
PATH="$PATH:$PWD/$target_dir/tools/bin"

usage() {
  cat <<TEXT
usage: bench/load/run.sh ghz|k6 [options]

  --method NAME        commit (default; each call commits a new reservation), repeat (all calls repeat one commit)
                       or check
  --target HOST:PORT   a running server; without it the script starts a server on the embedded engine in memory,
                       creates the event, and verifies it afterwards
  --event ID           the event (default evt_load)
  --rate N             calls per second (default 500)
  --seconds N          duration (default 20)
  --connections N      number of connections (default 4)
  --binary FILE        the server to start (default $target_dir/dist/inventory-api, else
                       $target_dir/debug/inventory-api)

Exit codes: 0 success, 1 failed calls or a failed verification, 3 missing tool, 64 usage error.
TEXT
}

fail() { echo "load: $1" >&2; exit 1; }
wrong() { echo "load: $1 (bench/load/run.sh --help)" >&2; exit 64; }

case "${1:-}" in
  ghz | k6) tool="$1"; shift ;;
  -h | --help) usage; exit 0 ;;
  *) wrong "the first argument must be ghz or k6" ;;
esac
method=commit target="" event=evt_load rate=500 seconds=20 connections=4 binary=""
parse_options "method target event rate seconds connections binary" "$@"
[[ "$method" =~ ^(commit|repeat|check)$ ]] || wrong "--method $method: must be commit, repeat or check"
require_positive rate seconds connections

if ! command -v "$tool" >/dev/null; then
  echo "load: $tool is not installed." >&2
  case "$tool" in
    ghz)
      echo "  with Go:  GOBIN=\$PWD/$target_dir/tools/bin go install github.com/bojand/ghz/cmd/ghz@latest" >&2
      echo "  without:  a release of github.com/bojand/ghz on the PATH" >&2
      ;;
    k6)
      echo "  with Go:  GOBIN=\$PWD/$target_dir/tools/bin go install go.k6.io/k6@latest" >&2
      echo "  without:  a package or release of Grafana k6 on the PATH" >&2
      ;;
  esac
  echo "The load generator of this project needs no tool: bench/generator/README.md, make bench-hot." >&2
  exit 3
fi

server="" scratch="$(mktemp -d)"
end() {
  [[ -z "$server" ]] || { kill "$server" && wait "$server"; } 2>/dev/null || true
  rm -rf "$scratch"
}
trap end EXIT

ready() { curl -sf "http://127.0.0.1:$metrics_port/readyz"; }
if [[ -z "$target" ]]; then
  for built in "$target_dir/dist/inventory-api" "$target_dir/debug/inventory-api"; do
    [[ -n "$binary" || ! -x "$built" ]] || binary="$built"
  done
  [[ -x "$binary" ]] || fail "no server: build one (make build) or use --target"
  read -r grpc_port metrics_port admin_port <<<"$(free_ports 3)"
  GRPC_PORT="$grpc_port" METRICS_PORT="$metrics_port" ADMIN_PORT="$admin_port" OTEL_TRACES_EXPORTER=none \
    "$binary" dev --memory >"$scratch/server" 2>&1 &
  server=$!
  until_true 20 ready || fail "the server did not start: $(tail -3 "$scratch/server")"
  "$binary" event create "$event" --total 100000000 --admin "127.0.0.1:$admin_port" >/dev/null \
    || fail "event $event could not be created"
  target="127.0.0.1:$grpc_port"
fi

echo "$tool: $rate calls per second, method $method, for $seconds s to $target, event $event"
if [[ "$tool" == ghz ]]; then
  call=CommitReservation
  # The braces are a template of ghz: a new id for each call.
  id='rsv_{{newUUID}}'
  [[ "$method" != repeat ]] || id=rsv_load
  data="{\"reservation_id\":\"$id\",\"event_id\":\"$event\",\"qty\":1,\"payment_intent_id\":\"pay_load\"}"
  if [[ "$method" == check ]]; then
    call=CheckAvailability
    data="{\"event_id\":\"$event\",\"qty\":1}"
  fi
  # A number of calls instead of a duration: at the end of a duration ghz aborts calls in flight and counts them as failed.
  ghz --insecure --proto proto/inventory/v1/inventory.proto --import-paths proto \
    --call "inventory.v1.Inventory/$call" --connections "$connections" --concurrency 100 --rps "$rate" \
    --total "$((rate * seconds))" --timeout 5s --data "$data" "$target" | tee "$scratch/output"
  awk '/^ *\[[A-Za-z]+\]/ { n += $2; if ($1 == "[OK]") ok += $2 } END { exit !(n > 0 && ok == n) }' "$scratch/output" \
    || fail "not every call was answered OK"
else
  TARGET="$target" EVENT="$event" METHOD="$method" RATE="$rate" SECONDS_LONG="$seconds" CONNECTIONS="$connections" \
    k6 run --quiet bench/load/k6.js || fail "k6 reports a crossed threshold"
fi

if [[ -n "$server" && "$method" != check ]]; then
  "$binary" verify "$event" --admin "127.0.0.1:$admin_port" || fail "verification of the event failed"
fi
