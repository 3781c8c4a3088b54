#!/usr/bin/env bash
# The manifest test: renders deploy/k8s, validates every object against the Kubernetes schemas, runs checkov, and
# checks the manifests against each other, the server and the node files.
#
#   tests/k8s/run.sh [--self-test] [--bin PATH] [--only TEXT]
#
#   --self-test    mutate the rendered objects and check that each rule detects its mutations
#   --bin PATH     server binary that lists the known variables (default: target/debug, else target/dist)
#   --only TEXT    run only the cases whose name contains TEXT
#
# Requires kubectl and python3; pip installs kubernetes-validate and checkov into target/k8s-venv. Cases with a
# missing tool are skipped with a SKIP line; K8S_REQUIRED=1 turns skips into failures. The last line is always
# `N passed, N failed, N skipped`.
#
# Exit codes: 0 success, 1 failure, 64 usage error.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
venv="$target/k8s-venv"

case " $* " in
  *" --help "* | *" -h "*)
    sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

skip_all() {
  echo "SKIP manifest test: $1"
  if [[ "${K8S_REQUIRED:-0}" == 1 ]]; then
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
  fi
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

command -v kubectl >/dev/null || skip_all "kubectl is not installed (see the Kubernetes documentation)"
command -v python3 >/dev/null || skip_all "python3 is not installed"

# Reinstalled when requirements.txt changes.
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
  mkdir -p "$target"
  rm -rf "$venv"
  python3 -m venv "$venv" >"$target/k8s-pip.log" 2>&1 \
    || skip_all "python3 cannot create a virtual environment (python3-venv?); see target/k8s-pip.log"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" \
    >"$target/k8s-pip.log" 2>&1 || skip_all "pip cannot install the validators; see target/k8s-pip.log"
  cp "$here/requirements.txt" "$venv/installed.txt"
fi

export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" "$here/run.py" --target "$target" "$@"
