# Sourced by the tests that play clients from pip. Sets $root, $target and $venv, and makes the
# virtual environment; what is missing is skipped with a visible line.
#
# shellcheck shell=bash
# shellcheck disable=SC2154  # who sources it sets what
#
# Wants $what, the test's name for that line. BLACKBOX_REQUIRED=1 makes a skip a failure.

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

# Installed once for each state of requirements.txt.
if ! cmp -s "$tests/requirements.txt" "$venv/installed.txt"; then
  mkdir -p "$target"
  rm -rf "$venv"
  python3 -m venv "$venv" >"$target/blackbox-pip.log" 2>&1 \
    || skip_all "python3 cannot make a virtual environment (python3-venv?); see target/blackbox-pip.log"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    --requirement "$tests/requirements.txt" >"$target/blackbox-pip.log" 2>&1 \
    || skip_all "pip cannot install the clients; see target/blackbox-pip.log"
  cp "$tests/requirements.txt" "$venv/installed.txt"
fi

export PYTHONDONTWRITEBYTECODE=1
