#!/usr/bin/env bash
# Tests tuning/host.sh on directory trees that simulate a host, then on the kernel of this host. This host is not
# changed: real settings are applied in a separate network namespace.
#
# Exit codes: 0 success, 1 failure, 64 usage error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case "${1:-}" in
  "") ;;
  -h | --help) echo "usage: tests/tuning/run.sh"; exit 0 ;;
  *) echo "usage: tests/tuning/run.sh" >&2; exit 64 ;;
esac

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# Readable by the unprivileged user of the failure case below.
chmod 755 "$work"
cp -r tuning "$work/tuning"
host="$work/tuning/host.sh"
passed=0 failed=0 skipped=0

# Runs a check; the output of the previous check is in $work/last.
check() {
  local what="$1"
  shift
  [[ ! -e "$work/out" ]] || cp "$work/out" "$work/last"
  if "$@" >"$work/out" 2>&1; then
    passed=$((passed + 1))
    echo "ok   $what"
  else
    failed=$((failed + 1))
    echo "FAIL $what"
    sed 's/^/     /' "$work/out"
  fi
}

skip() {
  skipped=$((skipped + 1))
  echo "SKIP tuning: $1"
}

# Runs a command and checks its exit code.
ends_with() {
  local wanted="$1" code=0
  shift
  "$@" || code=$?
  [[ $code == "$wanted" ]] || { echo "exit code $code, expected $wanted"; return 1; }
}

put() {
  mkdir -p "$(dirname "$tree$1")"
  printf '%s\n' "$2" >"$tree$1"
}

# A host with four CPUs and a network card with two queues. All settings differ; busy_read and numa_balancing are missing.
make_tree() {
  tree="$work/$1"
  put /proc/sys/net/core/somaxconn 128
  put /proc/sys/net/ipv4/tcp_max_syn_backlog 256
  put /proc/sys/net/core/netdev_max_backlog 1000
  put /proc/sys/net/core/busy_poll 50
  put /proc/sys/kernel/io_uring_disabled 2
  put /proc/sys/kernel/random/boot_id first
  put /proc/sys/vm/swappiness 60
  put /proc/7/comm bash
  put /sys/kernel/mm/transparent_hugepage/enabled "[always] madvise never"
  put /sys/kernel/mm/transparent_hugepage/defrag "[always] defer defer+madvise madvise never"
  put /sys/devices/system/cpu/online 0-3
  local n
  for n in 0 1 2 3; do
    put "/sys/devices/system/cpu/cpu$n/cpufreq/scaling_governor" powersave
  done
  for n in 0 1; do
    put "/sys/class/net/eth0/queues/rx-$n/rps_cpus" 0
    put "/sys/class/net/eth0/queues/tx-$n/xps_cpus" 0
    put "/sys/class/net/eth0/device/msi_irqs/3$n" msix
    put "/proc/irq/3$n/smp_affinity_list" 0-3
  done
  mkdir -p "$tree/etc/security/limits.d" "$tree/var/lib"
}

# Names, modes and checksums of all files.
snapshot() {
  (cd "$tree" && find . -printf '%p %m %y\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum)
}

here() { ROOT="$tree" "$host" "$@"; }
same() { diff "$work/before" <(snapshot); }
is() { [[ "$(cat "$tree$1")" == "$2" ]] || { echo "$1 is $(cat "$tree$1"), expected $2"; return 1; }; }

make_tree one
snapshot >"$work/before"
check "--check reports differences" ends_with 1 here --check --cpus 1-3
check "a missing setting is reported without an error" grep -q '^busy_read .*missing' "$work/last"
check "a dry run succeeds" ends_with 0 here --apply --cpus 1-3
check "a dry run changes nothing" same
check "--apply succeeds" ends_with 0 here --apply --yes --cpus 1-3
check "--check reports no difference after --apply" ends_with 0 here --check --cpus 1-3
check "a choice is switched, not overwritten" is /sys/kernel/mm/transparent_hugepage/enabled "always [madvise] never"
check "packet processing moves to the CPU without a shard" is /sys/class/net/eth0/queues/rx-0/rps_cpus 00000001
check "shards share the queues evenly" is /sys/class/net/eth0/queues/tx-1/xps_cpus 00000005
check "interrupts move there too" is /proc/irq/31/smp_affinity_list 0
snapshot >"$work/applied"
check "a second --apply succeeds" ends_with 0 here --apply --yes --cpus 1-3
check "a second --apply changes nothing" diff "$work/applied" <(snapshot)
check "--revert succeeds without --cpus" ends_with 0 here --revert
check "--revert restores the tree byte for byte" same
check "a second --revert succeeds" ends_with 0 here --revert
check "a second --revert changes nothing" same

# One setting, changed again by another process between two --apply runs: the first value counts.
check "--only applies one setting" ends_with 0 here --apply --yes --only somaxconn
check "--only changes no other setting" is /proc/sys/vm/swappiness 60
put /proc/sys/net/core/somaxconn 512
check "--apply succeeds after a foreign change" ends_with 0 here --apply --yes --only somaxconn
check "--revert succeeds" ends_with 0 here --revert
check "--revert restores the first value" same

# After a reboot kernel settings are lost and their records are void.
check "--apply succeeds before a reboot" ends_with 0 here --apply --yes --cpus 1-3
put /proc/sys/kernel/random/boot_id second
put /proc/sys/net/core/somaxconn 300
check "--revert succeeds after the reboot" ends_with 0 here --revert
check "--revert keeps values set since the reboot" is /proc/sys/net/core/somaxconn 300
check "--revert removes files that --apply created" test ! -e "$tree/etc/security/limits.d/90-inventory-api.conf"

# A setting is refused in the middle of --apply.
make_tree two
chmod 444 "$tree/proc/sys/vm/swappiness"
unprivileged=()
if [[ $EUID == 0 ]]; then
  chown -R 65534:65534 "$tree"
  unprivileged=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
snapshot >"$work/before"
unprivileged_host() { ROOT="$tree" "${unprivileged[@]}" "$host" "$@"; }
check "a refused setting is exit code 2" ends_with 2 unprivileged_host --apply --yes --cpus 1-3
check "a refused setting is named" grep -q '^swappiness .*refused' "$work/last"
check "the other settings are applied" is /proc/sys/net/core/somaxconn 1024
check "--revert succeeds" ends_with 0 unprivileged_host --revert
check "--revert restores the tree after a refusal" same

# --apply is killed while it blocks on a pipe, after earlier settings were applied.
make_tree three
snapshot >"$work/before"
rm "$tree/proc/sys/vm/swappiness"
mkfifo "$tree/proc/sys/vm/swappiness"
ROOT="$tree" setsid "$host" --apply --yes >"$work/killed" 2>&1 &
victim=$!
deadline=$((SECONDS + 20))
until grep -q '^io_uring_disabled .*set' "$work/killed" || ((SECONDS > deadline)); do read -rt 0.05 <> <(:) || true; done
kill -9 -- "-$victim" 2>/dev/null || true
wait "$victim" 2>/dev/null || true
rm "$tree/proc/sys/vm/swappiness"
put /proc/sys/vm/swappiness 60
check "earlier settings were applied before the kill" is /proc/sys/kernel/io_uring_disabled 0
check "later settings were not applied before the kill" is /sys/kernel/mm/transparent_hugepage/enabled "[always] madvise never"
check "--revert succeeds" ends_with 0 here --revert
check "--revert restores the tree after a kill" same

check "no command is a usage error" ends_with 64 here
check "two commands are a usage error" ends_with 64 here --check --revert
check "an unknown setting is a usage error" ends_with 64 here --check --only nonsense
check "offline CPUs are a usage error" ends_with 64 here --check --cpus 2-9
check "no remaining CPU is a usage error" ends_with 64 here --check --cpus 0-3
if command -v python3 >/dev/null; then
  has_fields() {
    (here --check --json --cpus 1-3 || true) | python3 -c 'import json, sys
rows = {row["name"]: row for row in json.load(sys.stdin)["settings"]}
assert rows["somaxconn"]["is"] == "128" and rows["somaxconn"]["verdict"] == "differs", rows["somaxconn"]
assert all(row["why"] and row["measured"] for row in rows.values())'
  }
  check "JSON has all fields" has_fields
else
  skip "JSON: python3 is not installed"
fi

# The real kernel: somaxconn belongs to a network namespace.
if unshare -n true 2>/dev/null; then
  in_namespace() {
    # shellcheck disable=SC2016  # for the shell inside
    unshare -n bash -euc '
      f=/proc/sys/net/core/somaxconn
      echo 77 >$f
      "$0" --apply --yes --only somaxconn --state "$1"
      "$0" --check --only somaxconn
      "$0" --revert --state "$1"
      [[ $(cat $f) == 77 ]]' "$host" "$work/real/before"
  }
  check "--apply and --revert work on the kernel" in_namespace
  check "--revert removes the state file" test ! -e "$work/real"
else
  skip "the kernel: no permission to create a network namespace"
fi

real() {
  local code=0
  tuning/host.sh --check || code=$?
  ((code < 2))
}
check "this host" real
cat "$work/out"
if command -v shellcheck >/dev/null; then
  check "shellcheck" shellcheck -x tuning/host.sh tuning/settings.sh tuning/store.sh tests/tuning/run.sh
else
  skip "shellcheck is not installed"
fi

echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
