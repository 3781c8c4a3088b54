#!/usr/bin/env bash
# The observability test: a live Prometheus and a live OTLP receiver observe `inventory-api dev --memory` under
# load. Checks every rule, every dashboard query and every kind of span.
#
#   tests/observability/run.sh [--bin PATH] [--cost | --only-cost | --picture SVG] [--seconds N] [--fast]
#                              [--only TEXT]
#
#   --bin PATH     server binary (default: target/dist, else target/debug, else a dev build)
#   --cost         also measure the CPU cost of metrics and unsampled tracing (some minutes)
#   --only-cost    measure only the CPU cost
#   --picture SVG  only draw the sale dashboard from a sale of three minutes
#   --seconds N    length of the load in seconds (default 45)
#   --fast         skip the case that mutates every threshold (one minute)
#   --only TEXT    run only the cases whose name contains TEXT
#
# Requires python3, prometheus and promtool (Debian: apt-get install prometheus). pip installs the clients and
# the receiver under target/. Cases with a missing tool are skipped with a SKIP line; BLACKBOX_REQUIRED=1 turns
# skips into failures. The last line is always `N passed, N failed, N skipped`.
#
# Exit codes: 0 success, 1 failure, 2 usage error.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

case " $* " in
  *" --help "* | *" -h "*)
    sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

# shellcheck disable=SC2034 # venv.sh reads it
what="observability test"
# shellcheck source-path=SCRIPTDIR source=../blackbox/venv.sh
source "$here/../blackbox/venv.sh"

for tool in prometheus promtool; do
  command -v "$tool" >/dev/null || skip_all "$tool is not installed (Debian: apt-get install prometheus)"
done

# Installed on top of the clients of the black-box test, whose versions do not change.
extra="$target/observability-python"
wanted="$(cat "$here/requirements.txt" "$venv/installed.txt")"
if [[ ! -f "$extra/installed.txt" || "$(cat "$extra/installed.txt")" != "$wanted" ]]; then
  rm -rf "$extra"
  mkdir -p "$extra"
  "$venv/bin/python" -m pip freeze --disable-pip-version-check >"$extra/held.txt"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    --target "$extra" --constraint "$extra/held.txt" --requirement "$here/requirements.txt" \
    >"$target/observability-pip.log" 2>&1 \
    || skip_all "pip cannot install the requirements; see target/observability-pip.log"
  printf '%s\n' "$wanted" >"$extra/installed.txt"
fi

export PYTHONPATH="$extra"
exec "$venv/bin/python" "$here/run.py" --target "$target" "$@"
