#!/usr/bin/env bash
# The black-box test: foreign clients against `inventory-api dev --memory`.
#
#   tests/blackbox/run.sh [--slow] [BINARY]
#
# Without BINARY it builds the dev profile. The clients come from pip into a virtual environment
# under target/. What is missing is skipped with a visible line; BLACKBOX_REQUIRED=1 makes that a
# failure. The last line is always `N passed, N failed, N skipped`.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck disable=SC2034 # venv.sh reads it
what="black-box test"
# shellcheck source-path=SCRIPTDIR source=venv.sh
source "$here/venv.sh"

exec "$venv/bin/python" "$here/run.py" --target "$target" "$@"
