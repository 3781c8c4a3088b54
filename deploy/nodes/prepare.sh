#!/usr/bin/env bash
# Prepares a dedicated node before its kubelet starts: seccomp profile, locked-memory limit, kernel settings.
# Run as root from the user data of the node; deploy/nodes/build.py replaces the markers with the profile and with the
# settings of tuning/kernel.tsv.
#
#   --help    this text
#
# Exit codes: 0 success, 1 failure, 2 usage error.
set -euo pipefail

case "${1:-}" in
  "") ;;
  --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "prepare.sh: unknown argument $1 (see --help)" >&2; exit 2 ;;
esac

# Directory of localhostProfile. Written before the kubelet starts, so that no pod starts without its profile.
install -d -m 0755 /var/lib/kubelet/seccomp
cat >/var/lib/kubelet/seccomp/inventory-api.json <<'PROFILE'
@PROFILE@
PROFILE
chmod 0644 /var/lib/kubelet/seccomp/inventory-api.json

# Containers inherit the limit of the runtime. A shard locks 512 KiB: 64 MiB suffice for 127 shards, and no container
# can lock all memory of the node.
install -d -m 0755 /etc/systemd/system/containerd.service.d
cat >/etc/systemd/system/containerd.service.d/memlock.conf <<'UNIT'
[Service]
LimitMEMLOCK=64M
UNIT

# Runs at each boot, because user data runs at the first boot only. Values that satisfy the rule stay unchanged.
cat >/usr/local/sbin/inventory-api-host <<'SCRIPT'
#!/usr/bin/env bash
set -uo pipefail
while read -r path rule wanted; do
  is="$(cat "$path" 2>/dev/null)" || continue
  is="${is#*\[}"
  is="${is%%\]*}"
  case "$rule" in
    min) ((is >= wanted)) && continue ;;
    max) ((is <= wanted)) && continue ;;
    *) [[ "$is" == "$wanted" ]] && continue ;;
  esac
  echo "$wanted" >"$path" && echo "$path: $is, now $wanted"
done <<'SETTINGS'
@SETTINGS@
SETTINGS
SCRIPT
chmod 0755 /usr/local/sbin/inventory-api-host
cat >/etc/systemd/system/inventory-api-host.service <<'UNIT'
[Unit]
Description=Kernel settings for inventory-api
Before=kubelet.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/inventory-api-host
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now inventory-api-host.service
