# The settings: the table of kernel.tsv and settings that depend on the host. Sourced by host.sh.
# Must not contain reading, writing or reverting of values (store.sh) or output (host.sh).
# shellcheck shell=bash
# shellcheck disable=SC2154  # host.sh sets cpus and here
#
#   setting NAME KIND WHERE RULE WANTED WHY MEASURED
#
# KIND   plain   a file with one value
#        choice  a file that lists the choices, with the active one in brackets
#        mask    a CPU bit mask in kernel format
#        text    a file that consists of WANTED
#        absent  a process that must not run; must be stopped manually
# RULE   min     at least WANTED
#        max     at most WANTED
#        is      exactly WANTED
#        any     one of the words of WANTED; --apply writes the first

unmeasured="not measured here"

# Settings that `inventory-api check` also reads.
table_settings() {
  local name kind where rule wanted why measured cpu
  while IFS=$'\t' read -r name kind where rule wanted why measured; do
    [[ "$name" == \#* ]] && continue
    if [[ "$where" == *"cpu*"* ]]; then
      for cpu in $(expand "$(online_cpus)"); do
        setting "$name$cpu" "$kind" "${where/"cpu*"/"cpu$cpu"}" "$rule" "$wanted" "$why" "$measured"
      done
    else
      setting "$name" "$kind" "$where" "$rule" "$wanted" "$why" "$measured"
    fi
  done <"$here/kernel.tsv"
}

limit_settings() {
  setting limits_login text /etc/security/limits.d/90-inventory-api.conf is \
    "$(printf '%s\n' \
      '# Written by tuning/host.sh.' \
      '* soft memlock 65536' '* hard memlock 65536' \
      '* soft nofile 1048576' '* hard nofile 1048576')" \
    "logins: 256 KiB of locked memory per shard (64 MiB for 256 shards), one file descriptor per connection" \
    "VmPin of a shard: 192 KiB (docs/operating.md)"
  setting limits_unit text /etc/systemd/system/inventory-api.service.d/90-limits.conf is \
    "$(printf '%s\n' \
      '# Written by tuning/host.sh.' '[Service]' 'LimitMEMLOCK=64M' 'LimitNOFILE=1048576')" \
    "the same limits for the systemd unit inventory-api.service; effective after daemon-reload and restart" \
    "VmPin of a shard: 192 KiB (docs/operating.md)"
}

# Only with --cpus, which lists the CPUs of the shards.
placement_settings() {
  local others all index path cpu device queue queues irq
  others="$(without "$(online_cpus)" "$cpus")"
  all="$cpus,$others"
  setting irqbalance absent irqbalance is "not running" \
    "irqbalance moves interrupts back: systemctl disable --now irqbalance" "$unmeasured"
  for device in $(network_devices); do
    for path in "$ROOT/sys/class/net/$device/queues"/rx-*; do
      [[ -e "$path" ]] || continue
      queue="${path##*/}"
      setting "rps-$device-$queue" mask "/sys/class/net/$device/queues/$queue/rps_cpus" is \
        "$(mask "$others")" "packet processing runs on CPUs without a shard" "$unmeasured"
    done
    queues=0
    for path in "$ROOT/sys/class/net/$device/queues"/tx-*; do
      [[ -e "$path" ]] && queues=$((queues + 1))
    done
    # One transmit queue per shard CPU, so that shards do not contend for a queue lock if there are enough queues.
    for ((queue = 0; queue < queues; queue++)); do
      index=0
      local mine=()
      for cpu in $(expand "$all"); do
        ((index % queues == queue)) && mine+=("$cpu")
        index=$((index + 1))
      done
      setting "xps-$device-tx-$queue" mask "/sys/class/net/$device/queues/tx-$queue/xps_cpus" is \
        "$(mask "$(IFS=,; echo "${mine[*]-}")")" "each shard sends through its own queue" "$unmeasured"
    done
    for irq in $(interrupts_of "$device"); do
      setting "irq-$device-$irq" plain "/proc/irq/$irq/smp_affinity_list" is "$others" \
        "interrupts run on CPUs without a shard" "$unmeasured"
    done
  done
}
