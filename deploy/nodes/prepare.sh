#!/usr/bin/env bash
# Prepares a dedicated node before its kubelet starts: the seccomp profile and the bound on locked
# memory. Run as root from the node's user data; deploy/nodes/build.py puts the profile in place of the marker.
#
#   --help    this text
#
# Exit codes: 0 prepared, 1 a step failed, 2 wrong arguments.
set -euo pipefail

case "${1:-}" in
  "") ;;
  --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "prepare.sh: unknown argument $1; it takes none but --help" >&2; exit 2 ;;
esac

# Where the kubelet looks for localhostProfile. Before it starts, so that no pod can come before its profile.
install -d -m 0755 /var/lib/kubelet/seccomp
cat >/var/lib/kubelet/seccomp/inventory-api.json <<'PROFILE'
@PROFILE@
PROFILE
chmod 0644 /var/lib/kubelet/seccomp/inventory-api.json

# Containers inherit the runtime's limit. A shard pins 256 KiB: 64 MiB are enough for 256 of them, and no container
# can pin the node's whole memory.
install -d -m 0755 /etc/systemd/system/containerd.service.d
cat >/etc/systemd/system/containerd.service.d/memlock.conf <<'UNIT'
[Service]
LimitMEMLOCK=64M
UNIT
systemctl daemon-reload
