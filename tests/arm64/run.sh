#!/usr/bin/env bash
# The ARM64 test: builds the server for aarch64, boots it on an emulated Neoverse N1 with Debian's arm64 kernel, sells
# out an event through forwarded ports, and runs `inventory-api verify`.
#
#   tests/arm64/run.sh [--dev] [--fetch] [--binary FILE] [--client DIR] [--forbid-io-uring]
#
#   --dev              build the dev profile (default: the release profile without LTO)
#   --fetch            download missing tools (emulator, cross compiler) as packages and unpack them under target/arm64;
#                      without this option missing tools skip the test
#   --binary FILE      use this server binary instead of building one
#   --client DIR       directory of inventory-api and generator for the host (default target/debug, else target/dist)
#   --forbid-io-uring  disable io_uring in the guest: the test must fail and show the error of the server
#
# Requires Debian bookworm or newer (apt-get, dpkg), python3, curl, and the rustup target aarch64-unknown-linux-gnu. The
# kernel comes from the Debian mirrors of the host. User-mode emulation (qemu-user) has no io_uring, so a whole machine
# is emulated. The last line is always `N passed, N failed, N skipped`.
#
# Exit codes: 0 success, 1 failure, 64 usage error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=bench/load/lib.sh
source bench/load/lib.sh
# shellcheck source=tests/arm64/packages.sh
source tests/arm64/packages.sh
here=tests/arm64
target="${CARGO_TARGET_DIR:-$PWD/target}"
place="$target/arm64"
triple=aarch64-unknown-linux-gnu
# Seconds. On two cores the guest is ready after about 10 s and the sale takes about 20 s.
boot_max=240 sale_max=300 stop_max=120

profile=release fetch=no binary="" client="" append=""
while (($# > 0)); do
  case "$1" in
    -h | --help) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$here/run.sh"; exit 0 ;;
    --dev) profile=dev ;;
    --fetch) fetch=yes ;;
    --forbid-io-uring) append=forbid_io_uring=1 ;;
    --binary | --client)
      [[ -n "${2:-}" ]] || { echo "run.sh: $1 needs a value" >&2; exit 64; }
      if [[ "$1" == --binary ]]; then binary="$2"; else client="$2"; fi
      shift
      ;;
    *) echo "run.sh: $1 is not an option (--help)" >&2; exit 64 ;;
  esac
  shift
done

skip_all() {
  echo "SKIP arm64 boot: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

scratch="$(mktemp -d)"
guest=""
end() {
  [[ -z "$guest" ]] || { kill "$guest" && wait "$guest"; } 2>/dev/null || true
  rm -rf "$scratch"
}
trap end EXIT

fail() {
  echo "FAIL $1"
  if [[ -s "$scratch/console" ]]; then
    echo "     last lines of the guest console:"
    tail -n 25 "$scratch/console" | tr -d '\r' | sed 's/^/     /'
  fi
  echo "$passed passed, 1 failed, 0 skipped"
  exit 1
}
passed=0
ok() { passed=$((passed + 1)); echo "ok   $1"; }

# ---- Requirements ----------------------------------------------------------------------------------

for tool in apt-get dpkg python3 curl xz; do
  command -v "$tool" >/dev/null || skip_all "$tool is not installed (the kernel is a Debian package)"
done
mkdir -p "$place"

# Unpacks host packages and their dependencies without installing them.
unpack_here() {
  local names
  mapfile -t names < <(apt_at "$place/apt" -s install --no-install-recommends "$@" 2>/dev/null | awk '$1 == "Inst" { print $2 }')
  ((${#names[@]} > 0)) || return 1
  mkdir -p "$place/packages" "$place/tools"
  (cd "$place/packages" && apt_at "$place/apt" download "${names[@]}" >"$place/download.log" 2>&1) || return 1
  local package
  for package in "$place/packages"/*.deb; do dpkg -x "$package" "$place/tools" || return 1; done
  rm -rf "$place/packages"
}

# Installed tools take precedence over unpacked ones.
PATH="$PATH:$place/wrapped:$place/tools/usr/bin"
roms=()
unpacked_libraries="$place/tools/usr/lib/$(uname -m)-linux-gnu:$place/tools/lib/$(uname -m)-linux-gnu:$place/tools/usr/lib"
# need PROBE PACKAGE…: if the probe fails, unpacks the packages or skips the test.
need() {
  local probe="$1"
  shift
  "$probe" && return
  if [[ $fetch == yes ]] && unpack_here "$@" && "$probe"; then
    echo "$* unpacked under target/arm64/tools"
    return
  fi
  skip_all "$* not installed (Debian: apt-get install $*)"
}
# shellcheck disable=SC2317  # called through need
can_emulate() { command -v qemu-system-aarch64 >/dev/null; }
# The compiler packages only recommend the C library of the target, so the probe compiles a program.
# shellcheck disable=SC2317  # called through need
can_compile() {
  echo '#include <stdint.h>
        int main(void) { return 0; }' | aarch64-linux-gnu-gcc -static -x c -o "$scratch/tried" - 2>/dev/null
}
# Wrappers set the library path for unpacked tools only.
wrap() {
  mkdir -p "$place/wrapped"
  local tool
  for tool in "$@"; do
    # shellcheck disable=SC2016  # for the shell that runs it
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$unpacked_libraries" "$place/tools/usr/bin/$tool" \
      >"$place/wrapped/$tool"
    chmod +x "$place/wrapped/$tool"
  done
}
wrap aarch64-linux-gnu-gcc aarch64-linux-gnu-ar
need can_emulate qemu-system-arm
need can_compile gcc-aarch64-linux-gnu libc6-dev-arm64-cross
emulator=(qemu-system-aarch64)
if [[ "$(command -v qemu-system-aarch64)" == "$place"/* ]]; then
  emulator=(env "LD_LIBRARY_PATH=$unpacked_libraries" qemu-system-aarch64)
  roms=(-L "$place/tools/usr/share/qemu" -L "$place/tools/usr/lib/ipxe/qemu")
fi

# Downloads Debian's newest arm64 cloud kernel, from backports if available. Uses the mirrors of the host with separate
# apt directories, so that the system is not changed.
kernel() {
  local apt="$place/apt-arm64" uri codename keyring package
  read -r uri codename < <(debian_mirror "$place/apt")
  [[ -n "$uri" ]] || { echo "apt-get has no Debian mirror (apt-get update?)"; return 1; }
  mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,etc/preferences.d,etc/apt.conf.d,etc/sources.list.d}
  : >"$apt/status"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  printf "deb [signed-by=$keyring] %s %s main\n" "$uri" "$codename-backports" "$uri" "$codename" >"$apt/etc/sources.list"
  local own=(-q -o "Dir::Etc=$apt/etc" -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status"
    -o "Dir::Cache=$apt/cache" -o APT::Architecture=arm64 -o APT::Architectures=arm64
    -o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)")
  apt-get "${own[@]}" update || return 1
  package="$(apt-cache "${own[@]}" search --names-only '^linux-image-[0-9].*-cloud-arm64$' | awk '{ print $1 }' \
    | sort -V | tail -1)"
  [[ -n "$package" ]] || { echo "the mirror has no linux-image-*-cloud-arm64"; return 1; }
  rm -rf "$place/kernel.new"
  mkdir "$place/kernel.new"
  (cd "$place/kernel.new" && apt-get "${own[@]}" download "$package" && dpkg -x ./*.deb . && rm ./*.deb) || return 1
  mkdir "$place/kernel.new/modules"
  local name module
  # In dependency order.
  for name in failover net_failover virtio_net; do
    module="$(find "$place/kernel.new/lib/modules" -name "$name.ko*" | head -1)"
    case "$module" in
      *.xz) xz -dc "$module" >"$place/kernel.new/modules/$name.ko" ;;
      *.ko) cp "$module" "$place/kernel.new/modules/$name.ko" ;;
      "") ;; # built in
      *) echo "$module: not compressed with xz"; return 1 ;;
    esac
  done
  mv "$place/kernel.new/boot"/vmlinuz-* "$place/kernel.new/vmlinuz"
  rm -rf "$place/kernel"
  mv "$place/kernel.new" "$place/kernel"
}
# Downloaded once (28 MB); remove target/arm64/kernel to get a newer one.
if [[ ! -s "$place/kernel/vmlinuz" ]]; then
  kernel >"$place/kernel.log" 2>&1 || skip_all "no kernel: $(tail -n 1 "$place/kernel.log")"
fi

# ---- Server and clients ----------------------------------------------------------------------------

started=$SECONDS
if [[ -z "$binary" ]]; then
  sysroot="$(rustc --print sysroot)"
  if [[ ! -d "$sysroot/lib/rustlib/$triple" ]]; then
    { [[ $fetch == yes ]] && command -v rustup >/dev/null && rustup target add "$triple" >"$place/rustup.log" 2>&1; } \
      || skip_all "rust has no target $triple (rustup target add $triple)"
  fi
  echo "building the server for aarch64 ($profile); the log is target/arm64/build.log"
  # Static, as in the image. Neoverse N1 is Graviton 2, the oldest one offered: ARMv8.2 with LSE atomics.
  env CARGO_TARGET_DIR="$place/build" \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static -C target-cpu=neoverse-n1 -C strip=symbols" \
    CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar \
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_DEV_DEBUG=0 \
    cargo build --profile "$profile" --target "$triple" --bin inventory-api >"$place/build.log" 2>&1 \
    || { tail -n 20 "$place/build.log"; fail "the server does not build for aarch64"; }
  binary="$place/build/$triple/${profile/dev/debug}/inventory-api"
  echo "built in $((SECONDS - started)) s"
fi
# 0xb7: EM_AARCH64, at byte 18 of an ELF file.
[[ "$(od -An -tx1 -j18 -N2 "$binary" | tr -d ' ')" == b700 ]] || fail "$binary is not built for aarch64"

for folder in "$client" "$target/debug" "$target/dist"; do
  [[ -n "$folder" && -x "$folder/inventory-api" && -x "$folder/generator" ]] && { client="$folder"; break; }
done
[[ -x "$client/generator" ]] \
  || fail "no client programs: run cargo build --workspace"

aarch64-linux-gnu-gcc -static -O2 -Wall -Wextra -Werror -o "$scratch/init" "$here/init.c" || fail "init.c does not compile"
modules=()
for module in "$place/kernel/modules"/*.ko; do modules+=("modules/${module##*/}=$module"); done
python3 "$here/initramfs.py" "init=$scratch/init" "inventory-api=$binary" "${modules[@]}" | gzip -1 >"$scratch/initramfs"

# ---- Guest -----------------------------------------------------------------------------------------

read -r grpc_port metrics_port admin_port <<<"$(free_ports 3)"
mkfifo "$scratch/keys"
exec 3<>"$scratch/keys"
booted=$SECONDS
"${emulator[@]}" "${roms[@]}" -M virt -cpu neoverse-n1 -smp 2 -m 1024 -display none -no-reboot -monitor none \
  -kernel "$place/kernel/vmlinuz" -initrd "$scratch/initramfs" \
  -append "console=ttyAMA0 quiet panic=-1 $append" -serial stdio -nodefaults \
  -netdev "user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:$grpc_port-:8080,hostfwd=tcp:127.0.0.1:$metrics_port-:9090,hostfwd=tcp:127.0.0.1:$admin_port-:8081" \
  -device virtio-net-pci,netdev=n,romfile= <"$scratch/keys" >"$scratch/console" 2>&1 &
guest=$!

# The value that the init process printed for a key.
said() { tr -d '\r' <"$scratch/console" | sed -n "s/^guest: $1[[:blank:]:]*//p" | tail -1; }
ready_or_gone() {
  kill -0 "$guest" 2>/dev/null || return 0
  curl -sf -m 5 "http://127.0.0.1:$metrics_port/readyz"
}
until_true "$boot_max" ready_or_gone || fail "the server is not ready after $boot_max s"
kill -0 "$guest" 2>/dev/null || fail "the guest powered off: server ended $(said 'server ended')"
ready_after=$((SECONDS - booted))
[[ "$(said machine)" == aarch64 ]] || fail "the guest is $(said machine), expected aarch64"
ok "uname -m: $(said machine), kernel $(said kernel), ready after $ready_after s"
[[ "$(said 'CPU part')" == 0xd0c ]] || fail "CPU part $(said 'CPU part'): Neoverse N1 is 0xd0c"
[[ " $(said Features) " == *" atomics "* ]] || fail "no LSE atomics: $(said Features)"
ok "CPU part $(said 'CPU part') (Neoverse N1), LSE atomics"
has_rings() { (("$(said rings)" >= 2)); }
until_true 30 has_rings || fail "the server has no io_uring descriptors: $(said rings)"
ok "io_uring in use: $(said rings) rings"

# ---- Sale ------------------------------------------------------------------------------------------

admin=(--admin "127.0.0.1:$admin_port")
# The token of init.c, for the generator and the commands.
export ADMIN_TOKEN_FILE="$scratch/admin-token"
sed -n 's/^#define TOKEN "\(.*\)"$/\1/p' "$here/init.c" >"$ADMIN_TOKEN_FILE"
began=$SECONDS
timeout "$sale_max" "$client/generator" --quiet --target "127.0.0.1:$grpc_port" "${admin[@]}" --lateness-max 5000 \
  "$here/sale.toml" >"$scratch/sale" 2>&1 || { sed 's/^/     /' "$scratch/sale"; fail "the sale failed"; }
took=$((SECONDS - began))
"$client/inventory-api" event list "${admin[@]}" --json >"$scratch/events" || fail "the events cannot be listed"
event="$(grep -o '"evt_arm64[^"]*"' "$scratch/events" | head -1 | tr -d '"')"
[[ -n "$event" ]] || fail "no event: $(cat "$scratch/events")"
timeout 60 "$client/inventory-api" verify "$event" "${admin[@]}" --json >"$scratch/books" \
  || { cat "$scratch/books"; fail "verify is not CLEAN"; }
sold="$(python3 -c 'import json, sys
books = json.load(open(sys.argv[1]))
rows = books["stripes"]
assert sum(r["capacity"] for r in rows) == 500, rows
assert books["verdict"] == "CLEAN" and not books["breaches"], books
print(sum(r["confirmed"] for r in rows), sum(r["remaining"] for r in rows))' "$scratch/books")" \
  || { cat "$scratch/books"; fail "the output of verify cannot be parsed"; }
[[ "$sold" == "500 0" ]] || fail "sold and remaining are $sold, expected 500 0"
ok "500 of 500 units sold in $took s; verify CLEAN"

# ---- Shutdown --------------------------------------------------------------------------------------

echo stop >&3
is_off() { ! kill -0 "$guest" 2>/dev/null; }
until_true "$stop_max" is_off || fail "the guest did not power off within $stop_max s"
guest=""
[[ "$(said 'server ended with exit code')" == 0 ]] || fail "the server ended $(said 'server ended')"
[[ "$(said Uid | awk '{ print $1 }')" == 65532 ]] || fail "the server ran as $(said Uid)"
ok "ran as user 65532, $(said VmHWM | tr -s '[:blank:]' ' ') at most, $(said VmPin | tr -s '[:blank:]' ' ') locked; stopped with exit code 0"
echo "$passed passed, 0 failed, 0 skipped"
