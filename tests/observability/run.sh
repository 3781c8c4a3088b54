#!/usr/bin/env bash
# The observability test: a live Prometheus and a live OTLP receiver watch `inventory-api dev --memory` under
# load. Every rule, every dashboard query and every kind of span is looked at.
#
#   tests/observability/run.sh [--bin PATH] [--cost | --only-cost | --picture SVG] [--seconds N] [--fast]
#                              [--only TEXT]
#
#   --bin PATH     the server; without it target/release's, else target/debug's, else a dev build is made
#   --cost         also measure what metrics and unsampled tracing cost in CPU (some minutes)
#   --only-cost    measure only that
#   --picture SVG  only draw the sale view, from what Prometheus has of a sale of three minutes
#   --seconds N    how long the load is (default 45)
#   --fast         leave out the case that changes every threshold (a minute)
#   --only TEXT    only the cases whose name has TEXT in it
#
# Wants python3, and prometheus and promtool (Debian: apt-get install prometheus). The clients and the receiver
# come from pip into virtual places under target/. What is missing is skipped with a visible line;
# BLACKBOX_REQUIRED=1 makes that a failure. The last line is always `N passed, N failed, N skipped`.
#
# Exit codes: 0 nothing failed, 1 something did, 2 wrong usage.
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

# On top of the black-box test's clients, whose versions stay as they are.
extra="$target/observability-python"
wanted="$(cat "$here/requirements.txt" "$venv/installed.txt")"
if [[ ! -f "$extra/installed.txt" || "$(cat "$extra/installed.txt")" != "$wanted" ]]; then
  rm -rf "$extra"
  mkdir -p "$extra"
  "$venv/bin/python" -m pip freeze --disable-pip-version-check >"$extra/held.txt"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    --target "$extra" --constraint "$extra/held.txt" --requirement "$here/requirements.txt" \
    >"$target/observability-pip.log" 2>&1 \
    || skip_all "pip cannot install what it needs; see target/observability-pip.log"
  printf '%s\n' "$wanted" >"$extra/installed.txt"
fi

export PYTHONPATH="$extra"
exec "$venv/bin/python" "$here/run.py" --target "$target" "$@"
