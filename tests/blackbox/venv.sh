# Sourced by tests with clients from pip. Sets $root, $target and $venv and creates the virtual environment; the
# test is skipped with a SKIP line if that is not possible.
#
# shellcheck shell=bash
# shellcheck disable=SC2154  # set by the sourcing script
#
# Input: $what, the name of the test in the SKIP line. BLACKBOX_REQUIRED=1 turns a skip into a failure.

tests="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$tests/../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
venv="$target/blackbox-venv"

skip_all() {
  echo "SKIP $what: $1"
  if [[ "${BLACKBOX_REQUIRED:-0}" == 1 ]]; then
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
  fi
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

command -v python3 >/dev/null || skip_all "python3 is not installed"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
  || skip_all "python3 is older than 3.10"

# Reinstalled when requirements.txt changes.
if ! cmp -s "$tests/requirements.txt" "$venv/installed.txt"; then
  mkdir -p "$target"
  rm -rf "$venv"
  python3 -m venv "$venv" >"$target/blackbox-pip.log" 2>&1 \
    || skip_all "python3 cannot create a virtual environment (python3-venv?); see target/blackbox-pip.log"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    --requirement "$tests/requirements.txt" >"$target/blackbox-pip.log" 2>&1 \
    || skip_all "pip cannot install the clients; see target/blackbox-pip.log"
  cp "$tests/requirements.txt" "$venv/installed.txt"
fi

export PYTHONDONTWRITEBYTECODE=1
