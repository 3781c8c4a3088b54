#!/usr/bin/env bash
# Prepares a dedicated node before its kubelet starts: the seccomp profile, the bound on locked memory and the
# kernel settings. Run as root from the node's user data; deploy/nodes/build.py puts the profile, and the settings
# of tuning/kernel.tsv, in place of the markers.
#
#   --help    this text
#
# Exit codes: 0 prepared, 1 a step failed, 2 wrong arguments.
set -euo pipefail

case "${1:-}" in
  "") ;;
  --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "prepare.sh: unknown argument $1; it takes none but --help" >&2; exit 2 ;;
esac

# Where the kubelet looks for localhostProfile. Before it starts, so that no pod can come before its profile.
install -d -m 0755 /var/lib/kubelet/seccomp
cat >/var/lib/kubelet/seccomp/inventory-api.json <<'PROFILE'
@PROFILE@
PROFILE
chmod 0644 /var/lib/kubelet/seccomp/inventory-api.json

# Containers inherit the runtime's limit. A shard pins 512 KiB: 64 MiB are enough for 127 of them, and no container
# can pin the node's whole memory.
install -d -m 0755 /etc/systemd/system/containerd.service.d
cat >/etc/systemd/system/containerd.service.d/memlock.conf <<'UNIT'
[Service]
LimitMEMLOCK=64M
UNIT

# At each boot, as user data runs only at the first. What is right already stays: "at least" never lowers.
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
