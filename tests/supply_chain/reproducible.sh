#!/usr/bin/env bash
# Builds a program twice from the same revision, in directories with different names, and compares the bytes.
#
#   tests/supply_chain/reproducible.sh [--profile PROFILE] [--package NAME --bin NAME] [--plain]
#
#   --profile PROFILE   profile of Cargo (default dist)
#   --package, --bin    program to build (default inventory-api)
#   --plain             without the settings below: shows what depends on the directory
#
# The sources are those of HEAD; changes that are not committed are not built. Both builds get the same revision and the
# flags that replace the paths of the sources, of Cargo's cache and of the toolchain in the program
# (--remap-path-prefix for Rust, -ffile-prefix-map for C). Two complete builds: about twice the time of `make build`.
#
# Exit codes: 0 the bytes are the same, 1 they differ or a build failed, 64 usage error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

profile=dist package=inventory-api bin=inventory-api plain=no
while (($# > 0)); do
  case "$1" in
    -h | --help) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' tests/supply_chain/reproducible.sh; exit 0 ;;
    --plain) plain=yes ;;
    --profile | --package | --bin)
      [[ -n "${2:-}" ]] || { echo "reproducible.sh: $1 needs a value" >&2; exit 64; }
      case "$1" in
        --profile) profile="$2" ;;
        --package) package="$2" ;;
        --bin) bin="$2" ;;
      esac
      shift
      ;;
    *) echo "reproducible.sh: $1 is not an option (--help)" >&2; exit 64 ;;
  esac
  shift
done
place="${CARGO_TARGET_DIR:-$PWD/target}/reproducible"
folder="$profile"
[[ "$profile" != dev ]] || folder=debug
revision="$(git rev-parse HEAD)"
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
sysroot="$(rustc --print sysroot)"
epoch="$(git log -1 --format=%ct "$revision")"

# build DIRECTORY: exports HEAD, builds there, prints the digest of the program.
build() {
  local sources="$1/sources" flags="" c_flags=""
  rm -rf "$1"
  mkdir -p "$sources"
  git archive "$revision" | tar -x -C "$sources"
  if [[ $plain == no ]]; then
    flags="--remap-path-prefix=$sources=/src --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust"
    c_flags="-ffile-prefix-map=$sources=/src -ffile-prefix-map=$cargo_home=/cargo"
  fi
  (cd "$sources" && env -u CARGO_TARGET_DIR RUSTFLAGS="$flags" CFLAGS="$c_flags" INVENTORY_API_REVISION="$revision" \
    SOURCE_DATE_EPOCH="$epoch" \
    cargo build --quiet --locked --profile "$profile" --package "$package" --bin "$bin") || return 1
  sha256sum <"$sources/target/$folder/$bin" | cut -d ' ' -f 1
}

first="$place/first" second="$place/second-with-another-name"
one="$(build "$first")"
echo "$one  first build"
two="$(build "$second")"
echo "$two  second build"
if [[ "$one" == "$two" ]]; then
  echo "reproducible: $bin of $revision, profile $profile"
  rm -rf "$place"
  exit 0
fi
echo "the programs differ; sections with different content:"
for section in $(readelf -SW "$first/sources/target/$folder/$bin" | sed -n 's/^ *\[ *[0-9]*\] \(\.[^ ]*\).*/\1/p'); do
  for of in "$first" "$second"; do
    objcopy -O binary --only-section="$section" --set-section-flags "$section=alloc" \
      "$of/sources/target/$folder/$bin" "$of/section" 2>/dev/null || : >"$of/section"
  done
  cmp -s "$first/section" "$second/section" || echo "  $section"
done
echo "both are kept under target/reproducible"
exit 1
