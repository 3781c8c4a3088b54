#!/usr/bin/env bash
# shellcheck disable=SC2317,SC2329  # most functions are called through check
# The image test: builds the images without a Docker daemon, checks their contents, and runs a sale in a container
# with a non-root user, a read-only root, no capabilities and the seccomp profile of deploy/seccomp.
#
#   tests/image/run.sh [--quick] [--built] [--arch amd64|arm64|both] [--client DIR]
#
#   --quick        build the dev profile for the host architecture only; sizes are printed but not checked
#   --built        use the images of the previous run
#   --arch ARCH    images to test (default both)
#   --client DIR   directory of inventory-api, generator and store-model for the host (default target/debug, else
#                  target/dist)
#
# Requires root, buildah and crun (Debian: apt-get install buildah crun), mmdebstrap for a base image from the Debian
# mirrors and the Rust toolchain of the host, and python3. pip installs hadolint. Cases with a missing tool are skipped
# with a SKIP line. The last line is always `N passed, N failed, N skipped`.
#
# Exit codes: 0 success, 1 failure, 64 usage error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=bench/load/lib.sh
source bench/load/lib.sh
# shellcheck source=tests/arm64/packages.sh
source tests/arm64/packages.sh
target="${CARGO_TARGET_DIR:-$PWD/target}"
place="$target/image"
here=tests/image
base=localhost/inventory-build
# Maximum size of the compressed image, in MB of 1,000,000 bytes.
pulled_max=15

quick=no built=no arch=both client=""
while (($# > 0)); do
  case "$1" in
    -h | --help) sed -n '3,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$here/run.sh"; exit 0 ;;
    --quick) quick=yes ;;
    --built) built=yes ;;
    --arch | --client)
      [[ -n "${2:-}" ]] || { echo "run.sh: $1 needs a value" >&2; exit 64; }
      if [[ "$1" == --arch ]]; then arch="$2"; else client="$2"; fi
      shift
      ;;
    *) echo "run.sh: $1 is not an option (--help)" >&2; exit 64 ;;
  esac
  shift
done
case "$(uname -m)" in
  x86_64) native=amd64 ;;
  aarch64) native=arm64 ;;
  *) native=none ;;
esac
case "$arch:$quick" in
  both:yes) archs=("$native") ;;
  both:no) archs=(arm64 amd64) ;;
  amd64:* | arm64:*) archs=("$arch") ;;
  *) echo "run.sh: --arch $arch: amd64, arm64 or both" >&2; exit 64 ;;
esac

passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok   $1"; }
bad() { failed=$((failed + 1)); echo "FAIL $1"; }
skip() { skipped=$((skipped + 1)); echo "SKIP image: $1"; }
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0)) || exit 1
  exit 0
}
# check NAME COMMAND…: runs the command; prints its output on failure.
check() {
  local what="$1"
  shift
  if "$@" >"$scratch/out" 2>&1; then ok "$what"; else bad "$what"; sed 's/^/     /' "$scratch/out" | tail -n 20; fi
}

scratch="$(mktemp -d)"
store="" names="" box=""
end() {
  [[ -z "$box" ]] || engine delete --force "$box" >/dev/null 2>&1 || true
  local child
  for child in $store $names; do { kill "$child" && wait "$child"; } 2>/dev/null || true; done
  rm -rf "$scratch"
}
trap end EXIT
mkdir -p "$place"

# ---- Static checks ---------------------------------------------------------------------------------

# Maps the names in Dockerfile.arm64 to those of Dockerfile.amd64 and compares.
same_but_for_names() {
  diff <(sed -e 's/ARM64 (AWS Graviton)/amd64/; s/aarch64-linux-gnu/x86_64-linux-gnu/g; s/aarch64-unknown/x86_64-unknown/g' \
    -e 's/aarch64_unknown/x86_64_unknown/g; s/AARCH64_UNKNOWN/X86_64_UNKNOWN/g; s/gcc-x86_64/gcc-x86-64/' \
    -e 's/neoverse-n1$/x86-64-v2/; s/\([/.-]\)arm64/\1amd64/g; s/Dockerfile.amd64 and/Dockerfile.arm64 and/; /^# neoverse-n1/,/^# machine/d' Dockerfile.arm64) \
    <(sed '/^# x86-64-v2 runs/d' Dockerfile.amd64)
}
check "the two Dockerfiles differ only in names" same_but_for_names
hadolint="$place/hadolint/bin/hadolint"
if [[ -x "$hadolint" ]] || python3 -m pip install --quiet --disable-pip-version-check --target "$place/hadolint" \
  --requirement "$here/requirements.txt" >"$place/pip.log" 2>&1; then
  check "hadolint passes" "$hadolint" Dockerfile.arm64 Dockerfile.amd64
else
  skip "hadolint: pip cannot install it (see target/image/pip.log)"
fi

# ---- Building --------------------------------------------------------------------------------------

for tool in buildah crun mmdebstrap; do
  command -v "$tool" >/dev/null || { skip "$tool is not installed (Debian: apt-get install buildah crun mmdebstrap)"; finish; }
done
((EUID == 0)) || { skip "building without a daemon requires root (chroot isolation)"; finish; }
images() { buildah --root "$place/storage" --runroot "$place/run" "$@"; }

# Base image: compilers from the Debian mirrors of the host, and the Rust toolchain of the host.
make_base() {
  local sysroot wanted container mirror
  sysroot="$(rustc --print sysroot)"
  wanted="$(rustc --version) $(cargo --version)"
  if [[ "$(cat "$place/base.version" 2>/dev/null)" == "$wanted" ]] && images inspect --type image "$base" >/dev/null 2>&1; then
    return
  fi
  mirror="$(debian_mirror "$place/apt")"
  [[ -n "$mirror" ]] || { echo "apt-get has no Debian mirror"; return 1; }
  mmdebstrap --mode=root --variant=essential --aptopt='APT::Sandbox::User "root"' \
    --include=gcc,libc6-dev,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    "${mirror#* }" "$place/base.tar" \
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror% *} ${mirror#* } main" || return 1
  container="$(images from scratch)"
  images add --quiet "$container" "$place/base.tar" / || return 1
  rm "$place/base.tar"
  # CA certificates of the host, for a registry behind a proxy.
  images copy --quiet "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt || return 1
  images copy --quiet "$container" "$sysroot/bin/cargo" "$sysroot/bin/rustc" /usr/local/bin/ || return 1
  images copy --quiet "$container" "$sysroot/lib" /usr/local/lib || return 1
  images config --env CARGO_HOME=/usr/local/cargo "$container"
  images commit --quiet "$container" "$base" || return 1
  images rm "$container" >/dev/null
  echo "$wanted" >"$place/base.version"
}
if ! make_base >"$place/base.log" 2>&1; then
  skip "no base image: $(tail -n 1 "$place/base.log") (see target/image/base.log)"
  finish
fi

profile=dist
[[ $quick == no ]] || profile=dev
build() {
  images build --isolation chroot --format docker --pull-never --quiet --file "Dockerfile.$1" \
    --build-arg "RUST_IMAGE=$base" --build-arg "PROFILE=$profile" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" --tag "localhost/inventory-api:$1" .
}

# One field of the image's configuration.
config_of() {
  images inspect --type image "localhost/inventory-api:$1" | python3 -c 'import json, sys
d = json.load(sys.stdin)["Docker"]
c = d["config"]
print(json.dumps({"arch": d["architecture"], "os": d["os"], "user": c["User"], "entry": c["Entrypoint"], "cmd": c["Cmd"],
  "stop": c.get("StopSignal"), "health": c["Healthcheck"]["Test"], "ports": sorted(c["ExposedPorts"]),
  "labels": sorted(c["Labels"])}))'
}
is_configured() {
  config_of "$1" | tee "$scratch/config" | python3 -c 'import json, sys
got = json.load(sys.stdin)
labels = got.pop("labels")
wanted = {"arch": sys.argv[1], "os": "linux", "user": "65532:65532", "entry": ["/inventory-api"], "cmd": ["serve"],
  "stop": "SIGTERM", "health": ["CMD", "/inventory-api", "health"], "ports": ["8080/tcp", "8081/tcp", "9090/tcp"]}
assert got == wanted, f"{got}, expected {wanted}"
missing = {f"org.opencontainers.image.{n}" for n in ("title", "description", "licenses", "version", "revision")} - set(labels)
assert not missing, f"labels missing: {missing}"' "$1"
}
contains_only_the_program() {
  local found wanted=$'f 444 0:0 sbom.cdx.json\nf 555 0:0 inventory-api'
  found="$(cd "$1" && find . -mindepth 1 -printf '%y %m %U:%G %P\n' | sort)"
  [[ "$found" == "$wanted" ]] || { echo "in the image: $found"; return 1; }
}
# The C library is part of the image's program, so its version must be known.
has_sbom() {
  cargo metadata --locked --format-version 1 --all-features --filter-platform "$2" >"$scratch/metadata.json" || return 1
  python3 tests/supply_chain/sbom.py "$1" "$scratch/metadata.json" || return 1
  grep -q '"name": "glibc", "version": "[0-9]' "$1" || { echo "no version of glibc"; return 1; }
}
is_static() {
  local machine="$2"
  readelf -hl "$1" >"$scratch/elf"
  grep -q "Machine: *$machine" "$scratch/elf" || { grep Machine "$scratch/elf"; return 1; }
  ! grep -q INTERP "$scratch/elf" || { echo "the program has an interpreter"; return 1; }
}

for arch in "${archs[@]}"; do
  began=$SECONDS
  if [[ $built == yes ]]; then
    images inspect --type image "localhost/inventory-api:$arch" >/dev/null 2>&1 || { bad "no $arch image from a previous run"; continue; }
  elif ! build "$arch" >"$place/build-$arch.log" 2>&1; then
    # Without network access the image cannot be judged.
    if grep -qE 'failed to download|Could not resolve|network failure' "$place/build-$arch.log"; then
      skip "the $arch image: the crates cannot be downloaded (see target/image/build-$arch.log)"
      continue
    fi
    bad "the $arch image builds"
    tail -n 20 "$place/build-$arch.log" | sed 's/^/     /'
    continue
  fi
  [[ $built == yes ]] || ok "the $arch image builds ($profile profile, $((SECONDS - began)) s)"
  check "$arch: user, entry, health check, ports, stop signal and labels" is_configured "$arch"
  container="$(images from --pull-never --platform "linux/$arch" "localhost/inventory-api:$arch")"
  mounted="$(images mount "$container")"
  check "$arch: the image contains only the program and its SBOM" contains_only_the_program "$mounted"
  machine="Advanced Micro Devices X86-64" rust=x86_64
  [[ $arch == amd64 ]] || machine=AArch64 rust=aarch64
  check "$arch: /sbom.cdx.json agrees with Cargo.lock" has_sbom "$mounted/sbom.cdx.json" "$rust-unknown-linux-gnu"
  check "$arch: the program is static" is_static "$mounted/inventory-api" "$machine"
  cp "$mounted/inventory-api" "$place/inventory-api-$arch"
  images umount "$container" >/dev/null
  images rm "$container" >/dev/null
  rm -rf "$place/pushed"
  images push --quiet "localhost/inventory-api:$arch" "dir:$place/pushed"
  sizes="$(python3 -c 'import json, os, sys
layers = json.load(open(sys.argv[1] + "/manifest.json"))["layers"]
print(sum(l["size"] for l in layers), os.path.getsize(sys.argv[2]))' "$place/pushed" "$place/inventory-api-$arch")"
  read -r pulled unpacked <<<"$sizes"
  said="$(awk -v a="$arch" -v p="$pulled" -v u="$unpacked" 'BEGIN { printf "%s: %.1f MB to pull, %.1f MB unpacked", a, p / 1e6, u / 1e6 }')"
  if [[ $quick == yes ]]; then
    echo "     $said ($profile profile: not checked)"
  elif ((pulled < pulled_max * 1000000)); then
    ok "$said (less than $pulled_max MB to pull)"
  else
    bad "$said: expected less than $pulled_max MB to pull"
  fi
done

# The ARM64 image runs in an emulated machine.
if [[ $native != arm64 && " ${archs[*]} " == *" arm64 "* && -x "$place/inventory-api-arm64" ]]; then
  boot=(tests/arm64/run.sh --binary "$place/inventory-api-arm64")
  [[ -z "$client" ]] || boot+=(--client "$client")
  if "${boot[@]}" >"$scratch/boot" 2>&1; then
    if grep -q '^SKIP' "$scratch/boot"; then skip "$(sed -n 's/^SKIP //p' "$scratch/boot")"; else ok "arm64: boots on an emulated Neoverse N1 and sells out an event"; fi
  else
    bad "arm64: boots on an emulated Neoverse N1 and sells out an event"
    sed 's/^/     /' "$scratch/boot" | tail -n 30
  fi
fi

# ---- Sale in a container ---------------------------------------------------------------------------

binary="$place/inventory-api-$native"
[[ " ${archs[*]} " == *" $native "* && -x "$binary" ]] || { skip "no image for the host architecture"; finish; }
for folder in "$client" "$target/debug" "$target/dist"; do
  [[ -n "$folder" && -x "$folder/generator" && -x "$folder/store-model" ]] && { client="$folder"; break; }
done
[[ -x "$client/store-model" ]] || { bad "no client programs: run cargo build --workspace"; finish; }

# crun fails if cgroups v1 and v2 are both mounted; it needs neither.
engine() {
  # shellcheck disable=SC2016  # for the shell inside
  unshare -m sh -c 'mount -t tmpfs none /sys/fs/cgroup && exec crun --cgroup-manager=disabled --root "$0" "$@"' \
    "$scratch/crun" "$@"
}
mkdir -p "$scratch/rootfs/proc" "$scratch/rootfs/dev" "$scratch/rootfs/etc" "$scratch/rootfs/sys"
: >"$scratch/rootfs/etc/hosts"
: >"$scratch/rootfs/etc/resolv.conf"
cp "$binary" "$scratch/rootfs/inventory-api"
echo "127.0.0.1 localhost" >"$scratch/hosts"
# A loopback address for the name server.
echo "nameserver 127.65.53.2" >"$scratch/resolv.conf"
python3 "$here/names.py" 127.65.53.2 store.inventory.test >"$scratch/names" 2>&1 &
names=$!
"$client/store-model" --port 0 --unlimited >"$scratch/store" 2>&1 &
store=$!
is_up() { grep -q listening "$scratch/names" && grep -q 'listening on ' "$scratch/store"; }
until_true 20 is_up || { bad "the store or the name server did not start: $(cat "$scratch/names" "$scratch/store")"; finish; }
port="$(sed -n 's/.*listening on .*:\([0-9]*\).*/\1/p' "$scratch/store" | head -1)"
keys=(AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=ap-northeast-2)
check "tables are created" env "${keys[@]}" AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:$port" "$client/inventory-api" tables create

read -r grpc_port metrics_port admin_port <<<"$(free_ports 3)"
# The store has a name that only the name server resolves: a static program must resolve it without NSS plugins.
configure() {
  python3 "$here/container.py" "$scratch/rootfs" deploy/seccomp/inventory-api.json "$scratch/hosts" "$scratch/resolv.conf" \
    "$1" "${keys[@]}" "AWS_ENDPOINT_URL_DYNAMODB=http://store.inventory.test:$port" "GRPC_PORT=$grpc_port" \
    "METRICS_PORT=$metrics_port" "ADMIN_PORT=$admin_port" OTEL_TRACES_EXPORTER=none \
    -- /inventory-api serve >"$scratch/config.json"
}
reports_missing_sysfs() {
  configure /sys
  local code=0
  timeout 20 bash -c "$(declare -f engine); scratch='$scratch'; engine run --bundle '$scratch' 'hidden-$$'" \
    >"$scratch/hidden" 2>&1 || code=$?
  cat "$scratch/hidden"
  ((code == 1)) && grep -q "mount sysfs at /sys" "$scratch/hidden"
}
check "without /sys the server exits with an explanation" reports_missing_sysfs
configure ""
box="inventory-$$"
engine run --bundle "$scratch" "$box" >"$scratch/server" 2>&1 &
running=$!
ready_or_gone() { ! kill -0 "$running" 2>/dev/null || curl -sf "http://127.0.0.1:$metrics_port/readyz"; }
if until_true 30 ready_or_gone && kill -0 "$running" 2>/dev/null; then
  ok "serves with a read-only root, no capabilities, the seccomp profile, and a store found by DNS"
else
  bad "the server does not become ready"
  sed 's/^/     /' "$scratch/server"
  finish
fi
pid="$(pgrep -f "^/inventory-api serve" -n)"
is_confined() {
  local line none=0000000000000000
  for line in "Uid: 65532 65532 65532 65532" "CapEff: $none" "CapBnd: $none" "NoNewPrivs: 1" "Seccomp: 2"; do
    tr -s '[:blank:]' ' ' <"/proc/$pid/status" | grep -qxF "$line" \
      || { echo "no $line"; grep "^${line%%:*}" "/proc/$pid/status"; return 1; }
  done
  ! touch "/proc/$pid/root/x" 2>/dev/null || { echo "the root is writable"; return 1; }
}
check "/proc confirms user 65532, no capabilities, no new privileges, a seccomp filter, a read-only root" is_confined
check "the health check passes" engine exec "$box" /inventory-api health --server "127.0.0.1:$grpc_port"
check "an event sells out" "$client/generator" --quiet --target "127.0.0.1:$grpc_port" \
  --admin "127.0.0.1:$admin_port" --lateness-max 5000 --store "http://127.0.0.1:$port" tests/arm64/sale.toml
engine kill "$box" TERM
code=0
wait "$running" || code=$?
box=""
if ((code == 0)); then ok "SIGTERM stops the server with exit code 0"; else bad "stopped with exit code $code"; sed 's/^/     /' "$scratch/server"; fi
finish
