#!/usr/bin/env bash
# Loads a server by a tool that is not ours: ghz or k6. Must not live here: measurements to be quoted (make bench-hot
# and its like count from when a call was due and say when the generator is the limit; these tools do neither).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=bench/load/lib.sh
source bench/load/lib.sh
target="${CARGO_TARGET_DIR:-target}"
PATH="$PATH:$PWD/$target/tools/bin"

usage() {
  cat <<TEXT
usage: bench/load/run.sh ghz|k6 [options]

  --method NAME        commit (default: each call a reservation of its own), repeat (one reservation again and
                       again) or check
  --target HOST:PORT   a server that runs; without it one is started on the embedded engine, in memory, with an
                       event, and the event is verified afterwards
  --event ID           the event (default evt_load)
  --rate N             calls a second (default 500)
  --seconds N          how long (default 20)
  --connections N      (default 4)
  --binary FILE        the server to start (default $target/release/inventory-api, else $target/debug/inventory-api)

Exit codes: 0 done, 1 calls failed or the event does not verify, 3 the tool is missing, 64 usage.
TEXT
}

fail() { echo "load: $1" >&2; exit 1; }
wrong() { echo "load: $1 (bench/load/run.sh --help)" >&2; exit 64; }

case "${1:-}" in
  ghz | k6) tool="$1"; shift ;;
  -h | --help) usage; exit 0 ;;
  *) wrong "say ghz or k6" ;;
esac
method=commit address="" event=evt_load rate=500 seconds=20 connections=4 binary=""
while (($# > 0)); do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --method | --target | --event | --rate | --seconds | --connections | --binary)
      [[ -n "${2:-}" ]] || wrong "$1 needs a value" ;;&
    --method) method="$2" ;;
    --target) address="$2" ;;
    --event) event="$2" ;;
    --rate) rate="$2" ;;
    --seconds) seconds="$2" ;;
    --connections) connections="$2" ;;
    --binary) binary="$2" ;;
    *) wrong "$1 is not an option" ;;
  esac
  shift 2
done
[[ "$method" =~ ^(commit|repeat|check)$ ]] || wrong "--method $method: commit, repeat or check"
for number in "$rate" "$seconds" "$connections"; do
  [[ "$number" =~ ^[1-9][0-9]*$ ]] || wrong "$number: --rate, --seconds and --connections are whole numbers of 1 or more"
done

if ! command -v "$tool" >/dev/null; then
  echo "load: $tool is not installed." >&2
  case "$tool" in
    ghz)
      echo "  with Go:  GOBIN=\$PWD/$target/tools/bin go install github.com/bojand/ghz/cmd/ghz@latest" >&2
      echo "  without:  a release of github.com/bojand/ghz, put on the PATH" >&2
      ;;
    k6)
      echo "  with Go:  GOBIN=\$PWD/$target/tools/bin go install go.k6.io/k6@latest" >&2
      echo "  without:  a package or release of Grafana k6, put on the PATH" >&2
      ;;
  esac
  echo "Our own generator needs nothing: bench/generator/README.md, make bench-hot." >&2
  exit 3
fi

server="" scratch="$(mktemp -d)"
end() {
  [[ -z "$server" ]] || { kill "$server" && wait "$server"; } 2>/dev/null || true
  rm -rf "$scratch"
}
trap end EXIT

ready() { curl -sf "http://127.0.0.1:$metrics_port/readyz"; }
if [[ -z "$address" ]]; then
  for built in "$target/release/inventory-api" "$target/debug/inventory-api"; do
    [[ -n "$binary" || ! -x "$built" ]] || binary="$built"
  done
  [[ -x "$binary" ]] || fail "no server is built (make build), and no --target is named"
  read -r grpc_port metrics_port admin_port <<<"$(free_ports 3)"
  GRPC_PORT="$grpc_port" METRICS_PORT="$metrics_port" ADMIN_PORT="$admin_port" OTEL_TRACES_EXPORTER=none \
    "$binary" dev --memory >"$scratch/server" 2>&1 &
  server=$!
  until_true 20 ready || fail "no server: $(tail -3 "$scratch/server")"
  "$binary" event create "$event" --total 100000000 --admin "127.0.0.1:$admin_port" >/dev/null \
    || fail "event $event was not created"
  address="127.0.0.1:$grpc_port"
fi

echo "$tool: $rate calls a second of method $method for $seconds s to $address, event $event"
if [[ "$tool" == ghz ]]; then
  call=CommitReservation
  # The braces are ghz's own templates: a new id for each call.
  id='rsv_{{newUUID}}'
  [[ "$method" != repeat ]] || id=rsv_load
  data="{\"reservation_id\":\"$id\",\"event_id\":\"$event\",\"qty\":1,\"payment_intent_id\":\"pay_load\"}"
  if [[ "$method" == check ]]; then
    call=CheckAvailability
    data="{\"event_id\":\"$event\",\"qty\":1}"
  fi
  # By the number of calls, not by the time: at its end ghz cuts off what is under way and counts it as failed.
  ghz --insecure --proto proto/inventory/v1/inventory.proto --import-paths proto \
    --call "inventory.v1.Inventory/$call" --connections "$connections" --concurrency 100 --rps "$rate" \
    --total "$((rate * seconds))" --timeout 5s --data "$data" "$address" | tee "$scratch/said"
  awk '/^ *\[[A-Za-z]+\]/ { n += $2; if ($1 == "[OK]") ok += $2 } END { exit !(n > 0 && ok == n) }' "$scratch/said" \
    || fail "not every call was answered OK"
else
  TARGET="$address" EVENT="$event" METHOD="$method" RATE="$rate" SECONDS_LONG="$seconds" CONNECTIONS="$connections" \
    k6 run --quiet bench/load/k6.js || fail "k6 says that a threshold was crossed"
fi

if [[ -n "$server" && "$method" != check ]]; then
  "$binary" verify "$event" --admin "127.0.0.1:$admin_port" || fail "the event does not verify"
fi
