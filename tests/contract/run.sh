#!/usr/bin/env bash
# The contract test: call sequences of the Reservation API and its worker, made by a client generated from the
# .proto files, over a real socket against `inventory-api dev --memory`.
#
#   tests/contract/run.sh [--slow] [--only TEXT] [--store URL] [BINARY]
#
# Without BINARY the dev profile is built. --only runs only the cases whose name contains TEXT. --store serves from a
# DynamoDB-compatible service, in which it creates the tables, instead of from memory. pip installs the client, as in
# the black-box test; missing tools are skipped the same way. The last line is always
# `N passed, N failed, N skipped`.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck disable=SC2034 # venv.sh reads it
what="contract test"
# shellcheck source-path=SCRIPTDIR source=../blackbox/venv.sh
source "$here/../blackbox/venv.sh"

exec "$venv/bin/python" "$here/run.py" --target "$target" "$@"
