#!/usr/bin/env bash
# HTTP/2 conformance: h2spec against `inventory-api dev --memory`, compared with tests/h2spec/expected.txt.
#
#   tests/h2spec/run.sh [BINARY]
#
# Without BINARY the dev profile is built. Requires python3, and h2spec in PATH or Go, which builds it under target/. Without
# them the test is skipped with a SKIP line. The last line is always `N passed, N failed, N skipped`.
#
# Exit codes: 0 success, 1 failure.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
# The newest version that the module system of Go can name.
version=v2.2.1+incompatible

skip_all() {
  echo "SKIP HTTP/2 conformance: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

command -v python3 >/dev/null || skip_all "python3 is not installed"
h2spec="$(command -v h2spec || true)"
if [[ -z "$h2spec" ]]; then
  h2spec="$target/h2spec/h2spec"
  if [[ ! -x "$h2spec" ]]; then
    go="$(command -v go || true)"
    [[ -n "$go" ]] || go=/usr/local/go/bin/go
    [[ -x "$go" ]] || skip_all "neither h2spec nor Go is installed"
    mkdir -p "$target/h2spec"
    GOBIN="$target/h2spec" GOPATH="$target/h2spec/go" "$go" install -modcacherw \
      "github.com/summerwind/h2spec/cmd/h2spec@$version" >"$target/h2spec/go.log" 2>&1 \
      || skip_all "Go cannot build h2spec; see target/h2spec/go.log"
  fi
fi
export PYTHONDONTWRITEBYTECODE=1
exec python3 "$here/run.py" --target "$target" --h2spec "$h2spec" "$@"
