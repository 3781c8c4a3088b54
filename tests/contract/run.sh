#!/usr/bin/env bash
# The contract test: what the Reservation API and its worker do, played by a client that is generated
# from the contracts, over a real socket against `inventory-api dev --memory`.
#
#   tests/contract/run.sh [--slow] [--only TEXT] [BINARY]
#
# Without BINARY it builds the dev profile. --only plays the cases whose name has TEXT in it. The
# client comes from pip, as the black-box test's does, and what is missing is skipped the same way.
# The last line is always `N passed, N failed, N skipped`.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck disable=SC2034 # venv.sh reads it
what="contract test"
# shellcheck source-path=SCRIPTDIR source=../blackbox/venv.sh
source "$here/../blackbox/venv.sh"

exec "$venv/bin/python" "$here/run.py" --target "$target" "$@"
