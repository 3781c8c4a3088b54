#!/usr/bin/env bash
# Renews the snapshot of the RustSec advisory database in tests/supply_chain/data: the advisories of the crates in
# Cargo.lock, for machines whose network does not have the database.
#
#   tests/supply_chain/snapshot.sh DATABASE
#
# DATABASE is a clone of https://github.com/RustSec/advisory-db. Exit codes: 0 success, 64 usage error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

database="${1:-}"
[[ -d "$database/crates" ]] || { echo "usage: tests/supply_chain/snapshot.sh DATABASE (a clone of advisory-db)" >&2; exit 64; }
data=tests/supply_chain/data
rm -rf "$data"
mkdir -p "$data/crates"
sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.lock | sort -u | while IFS= read -r name; do
  [[ ! -d "$database/crates/$name" ]] || cp -r "$database/crates/$name" "$data/crates/"
done
git -C "$database" log -1 --format='%cI %H' >"$data/revision.txt"
find "$data/crates" -name '*.md' | wc -l | sed 's/^ */advisories: /'
