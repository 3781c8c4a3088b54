#!/usr/bin/env bash
# Mutual TLS with a foreign client: gRPC for Go calls `inventory-api dev --memory` while the certificates and authorities of both
# sides are replaced, and clients with unfit certificates are refused.
#
#   tests/tls_clients/run.sh [--rate N] [--seconds N] [--rounds N] [BINARY]
#
#   --rate N       calls per second, half of them commits (default 200)
#   --seconds N    least time under load (default 5)
#   --rounds N     least number of complete rotations (default 1)
#
# Without BINARY the dev profile is built. Requires python3 and Go, which downloads the modules of client/go.sum. Without them
# the test is skipped with a SKIP line. The last line is always `N passed, N failed, N skipped`.
#
# Exit codes: 0 success, 1 failure, 2 usage error.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
place="$target/tls_clients"

skip_all() {
  echo "SKIP mutual TLS with a Go client: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

command -v python3 >/dev/null || skip_all "python3 is not installed"
go="$(command -v go || true)"
[[ -n "$go" ]] || go=/usr/local/go/bin/go
[[ -x "$go" ]] || skip_all "Go is not installed"
mkdir -p "$place"
# First the modules, so that an error of the client is not taken for a lack of network.
export GOPATH="$place/go"
export GOFLAGS="-mod=readonly -modcacherw -buildvcs=false"
(cd "$here/client" && "$go" mod download) >"$place/go.log" 2>&1 \
  || skip_all "Go cannot download the modules; see target/tls_clients/go.log"
(cd "$here/client" && "$go" vet . && "$go" build -o "$place/client" .)
export PYTHONDONTWRITEBYTECODE=1
exec python3 "$here/run.py" --target "$target" --client "$place/client" "$@"
