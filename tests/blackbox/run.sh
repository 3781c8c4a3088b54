#!/usr/bin/env bash
# The black-box test: third-party gRPC clients against `inventory-api dev --memory`.
#
#   tests/blackbox/run.sh [--slow] [BINARY]
#
# Without BINARY the dev profile is built. pip installs the clients into a virtual environment under target/.
# Cases with a missing tool are skipped with a SKIP line; BLACKBOX_REQUIRED=1 turns skips into failures. The last
# line is always `N passed, N failed, N skipped`.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck disable=SC2034 # venv.sh reads it
what="black-box test"
# shellcheck source-path=SCRIPTDIR source=venv.sh
source "$here/venv.sh"

exec "$venv/bin/python" "$here/run.py" --target "$target" "$@"
