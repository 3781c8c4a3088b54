#!/usr/bin/env bash
# shellcheck disable=SC2317  # most functions are called through check
# Builds the images without a Docker daemon, looks at what is in them, and sells an event out from a container: not
# root, read-only root, no capabilities, under the seccomp profile of deploy/seccomp.
#
#   tests/image/run.sh [--quick] [--built] [--arch amd64|arm64|both] [--client DIR]
#
#   --quick        build the dev profile, for this machine's architecture only; sizes are printed and not judged
#   --built        take the images of the last run instead of building them
#   --arch ARCH    which images (default both)
#   --client DIR   where inventory-api, generator and store-model of this machine are (default target/debug, else
#                  target/release)
#
# Wants root, buildah and crun (Debian: apt-get install buildah crun), mmdebstrap for a base image of this machine's own
# mirrors and Rust, and python3. hadolint comes from pip. What is missing is skipped with a visible line. The last line
# is always `N passed, N failed, N skipped`.
#
# Exit codes: 0 nothing failed, 1 something did, 64 wrong usage.
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
# What a node pulls, in MB of 1,000,000 bytes.
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
# check WHAT COMMAND…: what it prints is shown when it fails.
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

# ---- What can be read without building -------------------------------------------------------------

# Every name of the one that the other has in its place.
same_but_for_names() {
  diff <(sed -e 's/ARM64, Graviton its home/amd64/; s/aarch64-linux-gnu/x86_64-linux-gnu/g; s/aarch64-unknown/x86_64-unknown/g' \
    -e 's/aarch64_unknown/x86_64_unknown/g; s/AARCH64_UNKNOWN/X86_64_UNKNOWN/g; s/gcc-x86_64/gcc-x86-64/' \
    -e 's/neoverse-n1$/x86-64-v2/; s/\([/.-]\)arm64/\1amd64/g; s/Dockerfile.amd64 and/Dockerfile.arm64 and/; /^# neoverse-n1/,/^# machine/d' Dockerfile.arm64) \
    <(sed '/^# x86-64-v2 runs/d' Dockerfile.amd64)
}
check "the two Dockerfiles differ only in names" same_but_for_names
hadolint="$place/hadolint/bin/hadolint"
if [[ -x "$hadolint" ]] || python3 -m pip install --quiet --disable-pip-version-check --target "$place/hadolint" \
  --requirement "$here/requirements.txt" >"$place/pip.log" 2>&1; then
  check "hadolint has nothing to say" "$hadolint" Dockerfile.arm64 Dockerfile.amd64
else
  skip "hadolint: pip cannot install it (see target/image/pip.log)"
fi

# ---- Building --------------------------------------------------------------------------------------

for tool in buildah crun mmdebstrap; do
  command -v "$tool" >/dev/null || { skip "$tool is not installed (Debian: apt-get install buildah crun mmdebstrap)"; finish; }
done
((EUID == 0)) || { skip "building without a daemon wants root here (chroot isolation)"; finish; }
images() { buildah --root "$place/storage" --runroot "$place/run" "$@"; }

# Debian's compilers from the mirrors that this machine uses, and this machine's Rust.
make_base() {
  local sysroot wanted container mirror
  sysroot="$(rustc --print sysroot)"
  wanted="$(rustc --version) $(cargo --version)"
  if [[ "$(cat "$place/base.version" 2>/dev/null)" == "$wanted" ]] && images inspect --type image "$base" >/dev/null 2>&1; then
    return
  fi
  mirror="$(debian_mirror "$place/apt")"
  [[ -n "$mirror" ]] || { echo "apt-get knows no mirror of Debian"; return 1; }
  mmdebstrap --mode=root --variant=essential --aptopt='APT::Sandbox::User "root"' \
    --include=gcc,libc6-dev,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    "${mirror#* }" "$place/base.tar" \
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror% *} ${mirror#* } main" || return 1
  container="$(images from scratch)"
  images add --quiet "$container" "$place/base.tar" / || return 1
  rm "$place/base.tar"
  # The machine's own authorities, for a registry behind a proxy.
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

profile=release
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
assert got == wanted, f"{got}, wanted {wanted}"
missing = {f"org.opencontainers.image.{n}" for n in ("title", "description", "licenses", "version", "revision")} - set(labels)
assert not missing, f"labels missing: {missing}"' "$1"
}
holds_the_program_alone() {
  local found
  found="$(cd "$1" && find . -mindepth 1 -printf '%y %m %U:%G %P\n')"
  [[ "$found" == "f 555 0:0 inventory-api" ]] || { echo "in the image: $found"; return 1; }
}
is_static() {
  local machine="$2"
  readelf -hl "$1" >"$scratch/elf"
  grep -q "Machine: *$machine" "$scratch/elf" || { grep Machine "$scratch/elf"; return 1; }
  ! grep -q INTERP "$scratch/elf" || { echo "it wants an interpreter"; return 1; }
}

for arch in "${archs[@]}"; do
  began=$SECONDS
  if [[ $built == yes ]]; then
    images inspect --type image "localhost/inventory-api:$arch" >/dev/null 2>&1 || { bad "no $arch image of an earlier run"; continue; }
  elif ! build "$arch" >"$place/build-$arch.log" 2>&1; then
    # No network is no fault of the image.
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
  check "$arch: nothing is in it but the program" holds_the_program_alone "$mounted"
  machine="Advanced Micro Devices X86-64"
  [[ $arch == amd64 ]] || machine=AArch64
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
    echo "     $said ($profile profile: not judged)"
  elif ((pulled < pulled_max * 1000000)); then
    ok "$said (less than $pulled_max MB to pull)"
  else
    bad "$said: wanted less than $pulled_max MB to pull"
  fi
done

# The ARM64 one on a machine of its own.
if [[ $native != arm64 && " ${archs[*]} " == *" arm64 "* && -x "$place/inventory-api-arm64" ]]; then
  boot=(tests/arm64/run.sh --binary "$place/inventory-api-arm64")
  [[ -z "$client" ]] || boot+=(--client "$client")
  if "${boot[@]}" >"$scratch/boot" 2>&1; then
    if grep -q '^SKIP' "$scratch/boot"; then skip "$(sed -n 's/^SKIP //p' "$scratch/boot")"; else ok "arm64: it boots on an emulated Neoverse N1 and sells an event out"; fi
  else
    bad "arm64: it boots on an emulated Neoverse N1 and sells an event out"
    sed 's/^/     /' "$scratch/boot" | tail -n 30
  fi
fi

# ---- Selling from it -------------------------------------------------------------------------------

binary="$place/inventory-api-$native"
[[ " ${archs[*]} " == *" $native "* && -x "$binary" ]] || { skip "no image of this machine's architecture to run"; finish; }
for folder in "$client" "$target/debug" "$target/release"; do
  [[ -n "$folder" && -x "$folder/generator" && -x "$folder/store-model" ]] && { client="$folder"; break; }
done
[[ -x "$client/store-model" ]] || { bad "no client: cargo build --workspace makes inventory-api, generator and store-model"; finish; }

# Where cgroups of both versions are mounted crun refuses; it needs none.
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
# An address of the loopback that nobody listens on.
echo "nameserver 127.65.53.2" >"$scratch/resolv.conf"
python3 "$here/names.py" 127.65.53.2 store.inventory.test >"$scratch/names" 2>&1 &
names=$!
"$client/store-model" --port 0 --unlimited >"$scratch/store" 2>&1 &
store=$!
is_up() { grep -q listening "$scratch/names" && grep -q 'listening on ' "$scratch/store"; }
until_true 20 is_up || { bad "no store or no name server: $(cat "$scratch/names" "$scratch/store")"; finish; }
port="$(sed -n 's/.*listening on .*:\([0-9]*\).*/\1/p' "$scratch/store" | head -1)"
keys=(AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=ap-northeast-2)
check "tables are made" env "${keys[@]}" AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:$port" "$client/inventory-api" tables create

read -r grpc_port metrics_port admin_port <<<"$(free_ports 3)"
# By a name that only the name server knows: a static program has to find it without the C library's plugins.
configure() {
  python3 "$here/container.py" "$scratch/rootfs" deploy/seccomp/inventory-api.json "$scratch/hosts" "$scratch/resolv.conf" \
    "$1" "${keys[@]}" "AWS_ENDPOINT_URL_DYNAMODB=http://store.inventory.test:$port" "GRPC_PORT=$grpc_port" \
    "METRICS_PORT=$metrics_port" "ADMIN_PORT=$admin_port" OTEL_TRACES_EXPORTER=none \
    -- /inventory-api serve >"$scratch/config.json"
}
says_what_is_hidden() {
  configure /sys
  local code=0
  timeout 20 bash -c "$(declare -f engine); scratch='$scratch'; engine run --bundle '$scratch' 'hidden-$$'" \
    >"$scratch/hidden" 2>&1 || code=$?
  cat "$scratch/hidden"
  ((code == 1)) && grep -q "mount sysfs at /sys" "$scratch/hidden"
}
check "where the machine's CPUs are hidden it says so and ends" says_what_is_hidden
configure ""
box="inventory-$$"
engine run --bundle "$scratch" "$box" >"$scratch/server" 2>&1 &
running=$!
ready_or_gone() { ! kill -0 "$running" 2>/dev/null || curl -sf "http://127.0.0.1:$metrics_port/readyz"; }
if until_true 30 ready_or_gone && kill -0 "$running" 2>/dev/null; then
  ok "serves: read-only root, no capabilities, our seccomp profile, the store found by DNS"
else
  bad "it does not serve"
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
  ! touch "/proc/$pid/root/x" 2>/dev/null || { echo "the root can be written"; return 1; }
}
check "the kernel says so: user 65532, no capabilities, no new privileges, a filter, no writing" is_confined
check "its health check passes" engine exec "$box" /inventory-api health --server "127.0.0.1:$grpc_port"
check "it sells an event out to the last ticket" "$client/generator" --quiet --target "127.0.0.1:$grpc_port" \
  --admin "127.0.0.1:$admin_port" --lateness-max 5000 --store "http://127.0.0.1:$port" tests/arm64/sale.toml
engine kill "$box" TERM
code=0
wait "$running" || code=$?
box=""
if ((code == 0)); then ok "stopped by SIGTERM with exit code 0"; else bad "stopped with exit code $code"; sed 's/^/     /' "$scratch/server"; fi
finish
