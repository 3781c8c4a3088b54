#!/usr/bin/env bash
# tuning/host.sh against trees that look like a host, then against the kernel of this one. Nothing of
# this host is changed: what is applied for real is applied in a network namespace of its own.
#
# Exit codes: 0 passed, 1 failed, 64 usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case "${1:-}" in
  "") ;;
  -h | --help) echo "usage: tests/tuning/run.sh"; exit 0 ;;
  *) echo "usage: tests/tuning/run.sh" >&2; exit 64 ;;
esac

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# Readable by the user without rights who plays the failure below.
chmod 755 "$work"
cp -r tuning "$work/tuning"
host="$work/tuning/host.sh"
passed=0 failed=0 skipped=0

# Checks something; what the one before printed is in $work/last.
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

# Runs the rest and wants this exit code.
ends_with() {
  local wanted="$1" code=0
  shift
  "$@" || code=$?
  [[ $code == "$wanted" ]] || { echo "exit code $code, wanted $wanted"; return 1; }
}

put() {
  mkdir -p "$(dirname "$tree$1")"
  printf '%s\n' "$2" >"$tree$1"
}

# A host of four CPUs with a card of two queues, everything wrong; no busy_read, no numa_balancing.
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

# Names, modes and bytes of everything.
picture() {
  (cd "$tree" && find . -printf '%p %m %y\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum)
}

here() { ROOT="$tree" "$host" "$@"; }
same() { diff "$work/before" <(picture); }
is() { [[ "$(cat "$tree$1")" == "$2" ]] || { echo "$1 is $(cat "$tree$1"), wanted $2"; return 1; }; }

make_tree one
picture >"$work/before"
check "a host that is set wrong differs" ends_with 1 here --check --cpus 1-3
check "what is not there is said and no error" grep -q '^busy_read .*not there' "$work/last"
check "a dry run ends well" ends_with 0 here --apply --cpus 1-3
check "a dry run changes nothing" same
check "it is applied" ends_with 0 here --apply --yes --cpus 1-3
check "then nothing differs" ends_with 0 here --check --cpus 1-3
check "a switch is turned, not overwritten" is /sys/kernel/mm/transparent_hugepage/enabled "always [madvise] never"
check "packets go to the CPU without a shard" is /sys/class/net/eth0/queues/rx-0/rps_cpus 00000001
check "shards share the queues evenly" is /sys/class/net/eth0/queues/tx-1/xps_cpus 00000005
check "interrupts go there too" is /proc/irq/31/smp_affinity_list 0
picture >"$work/applied"
check "applied again" ends_with 0 here --apply --yes --cpus 1-3
check "it changes nothing" diff "$work/applied" <(picture)
check "reverted, by a caller who names no CPUs" ends_with 0 here --revert
check "the tree is the same, byte for byte" same
check "reverted again" ends_with 0 here --revert
check "nothing happens" same

# One file alone, and a second change of it in between: what was first counts.
check "one setting" ends_with 0 here --apply --yes --only somaxconn
check "no other was touched" is /proc/sys/vm/swappiness 60
put /proc/sys/net/core/somaxconn 512
check "applied over what somebody changed" ends_with 0 here --apply --yes --only somaxconn
check "reverted" ends_with 0 here --revert
check "to what was first" same

# A boot forgets what the kernel was told, and the records of it are worthless.
check "applied before a boot" ends_with 0 here --apply --yes --cpus 1-3
put /proc/sys/kernel/random/boot_id second
put /proc/sys/net/core/somaxconn 300
check "reverted after it" ends_with 0 here --revert
check "what the boot set stays" is /proc/sys/net/core/somaxconn 300
check "our files are gone" test ! -e "$tree/etc/security/limits.d/90-inventory-api.conf"

# Refused half way.
make_tree two
chmod 444 "$tree/proc/sys/vm/swappiness"
unprivileged=()
if [[ $EUID == 0 ]]; then
  chown -R 65534:65534 "$tree"
  unprivileged=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
picture >"$work/before"
as_nobody() { ROOT="$tree" "${unprivileged[@]}" "$host" "$@"; }
check "a refused setting is exit code 2" ends_with 2 as_nobody --apply --yes --cpus 1-3
check "and is named" grep -q '^swappiness .*refused' "$work/last"
check "the others were set" is /proc/sys/net/core/somaxconn 1024
check "reverted" ends_with 0 as_nobody --revert
check "the same after a refusal" same

# Killed half way: it hangs in a pipe that nobody writes to, with the settings before it done.
make_tree three
picture >"$work/before"
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
check "it was killed after some were set" is /proc/sys/kernel/io_uring_disabled 0
check "and before others" is /sys/kernel/mm/transparent_hugepage/enabled "[always] madvise never"
check "reverted" ends_with 0 here --revert
check "the same after a kill" same

check "no command is usage" ends_with 64 here
check "two commands are usage" ends_with 64 here --check --revert
check "an unknown setting is usage" ends_with 64 here --check --only nonsense
check "CPUs that are not online are usage" ends_with 64 here --check --cpus 2-9
check "no CPU left is usage" ends_with 64 here --check --cpus 0-3
if command -v python3 >/dev/null; then
  tells() {
    (here --check --json --cpus 1-3 || true) | python3 -c 'import json, sys
rows = {row["name"]: row for row in json.load(sys.stdin)["settings"]}
assert rows["somaxconn"]["is"] == "128" and rows["somaxconn"]["verdict"] == "differs", rows["somaxconn"]
assert all(row["why"] and row["measured"] for row in rows.values())'
  }
  check "JSON has it all" tells
else
  skip "JSON: python3 is not installed"
fi

# The kernel itself: somaxconn belongs to a network namespace.
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
  check "the kernel takes it and gets it back" in_namespace
  check "nothing of the state is left" test ! -e "$work/real"
else
  skip "the kernel itself: no right to make a network namespace"
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
