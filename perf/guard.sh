#!/usr/bin/env bash
# Instructions per request, counted by callgrind and compared with perf/baseline.txt: from the bytes of a request through
# decoding, the engine and a lane to the bytes of its answer. The count does not depend on the load of the machine. The
# requests are in guard.rs; measurements in seconds belong to bench/.
#
# Exit codes: 0 within the bounds, 1 outside, 3 missing tool or baseline, 64 usage error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
usage: perf/guard.sh [--update]

Fails if a kind of request needs over 5 % more instructions than in perf/baseline.txt, or over 5 % less: record an
improvement with --update.
END
}

baseline=perf/baseline.txt
update=no
case "${1:-}" in
  "") ;;
  --update) update=yes ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 64 ;;
esac

if ! command -v valgrind >/dev/null; then
  echo "SKIP perf-guard: valgrind is not installed (Debian: apt-get install valgrind)"
  exit 3
fi

# The number of instructions depends on the compiler and the target.
where="$(rustc -vV | sed -n 's/^host: //p') $(rustc --version | cut -d ' ' -f 2)"

echo "building (profile dist, fat LTO: some minutes)" >&2
program="$(cargo build --profile dist --bench perf_guard --message-format json-render-diagnostics |
  sed -n 's/.*"executable":"\([^"]*perf_guard[^"]*\)".*/\1/p' | tail -1)"

# The difference of two runs excludes the instructions of the start.
few=5000
many=15000

count() {
  local output
  output="$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1)" || {
    echo "$output" >&2
    echo "perf-guard: the program failed under valgrind" >&2
    exit 1
  }
  sed -n 's/.*Collected : \([0-9]*\).*/\1/p' <<<"$output"
}

per_request() {
  local low high
  low="$(count "$1" $few)"
  high="$(count "$1" $many)"
  echo $(((high - low) / (many - few)))
}

printf '%-8s %12s %12s %8s\n' kind instructions baseline change
failed=no
lines=()
for kind in check repeat direct; do
  now="$(per_request "$kind")"
  was="$(awk -v w="$where" -v k="$kind" '$1 " " $2 == w && $3 == k { print $4 }' $baseline 2>/dev/null || true)"
  lines+=("$where $kind $now")
  if [[ -z "$was" ]]; then
    printf '%-8s %12d %12s %8s\n' "$kind" "$now" - -
    continue
  fi
  change="$(awk -v n="$now" -v w="$was" 'BEGIN { printf "%+.1f", 100 * (n - w) / w }')"
  printf '%-8s %12d %12d %7s%%\n' "$kind" "$now" "$was" "$change"
  awk -v c="$change" 'BEGIN { exit !(c > 5 || c < -5) }' && failed=yes
done

if [[ $update == yes ]]; then
  grep -v "^$where " $baseline >"$baseline.new" || true
  printf '%s\n' "${lines[@]}" >>"$baseline.new"
  mv "$baseline.new" $baseline
  echo "written to $baseline"
elif ! grep -q "^$where " $baseline; then
  echo "SKIP perf-guard: no baseline for $where (perf/guard.sh --update makes one)"
  exit 3
elif [[ $failed == yes ]]; then
  echo "perf-guard: differs from the baseline by more than 5 %" >&2
  exit 1
fi
