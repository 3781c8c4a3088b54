# What a host is set to: the table of kernel.tsv, and what depends on the host. Sourced by host.sh.
# Must not live here: how a value is read, written or put back (store.sh), what is printed (host.sh).
# shellcheck shell=bash
# shellcheck disable=SC2154  # host.sh sets cpus and here
#
#   setting NAME KIND WHERE RULE WANTED WHY MEASURED
#
# KIND   plain   a file with one value
#        choice  a file that lists what can be chosen, the chosen one in brackets
#        mask    a bit mask of CPUs, as the kernel writes it
#        text    a whole file of ours
#        absent  a process that must not run; only a person can stop it
# RULE   min     at least WANTED
#        max     at most WANTED
#        is      exactly WANTED
#        any     one of the words of WANTED; the first is what --apply writes

unmeasured="not measured here"

# Those that `inventory-api check` looks at too.
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
    "logins: 256 KiB of locked memory per shard (64 MiB: 256 shards), a descriptor per connection" \
    "VmPin of a shard: 192 KiB (docs/operating.md)"
  setting limits_unit text /etc/systemd/system/inventory-api.service.d/90-limits.conf is \
    "$(printf '%s\n' \
      '# Written by tuning/host.sh.' '[Service]' 'LimitMEMLOCK=64M' 'LimitNOFILE=1048576')" \
    "the same for a systemd unit inventory-api.service; daemon-reload and a restart make it count" \
    "VmPin of a shard: 192 KiB (docs/operating.md)"
}

# Only with --cpus: they need to know which CPUs are the shards'.
placement_settings() {
  local others all index path cpu device queue queues irq
  others="$(without "$(online_cpus)" "$cpus")"
  all="$cpus,$others"
  setting irqbalance absent irqbalance is "not running" \
    "it moves interrupts back: systemctl disable --now irqbalance" "$unmeasured"
  for device in $(network_devices); do
    for path in "$ROOT/sys/class/net/$device/queues"/rx-*; do
      [[ -e "$path" ]] || continue
      queue="${path##*/}"
      setting "rps-$device-$queue" mask "/sys/class/net/$device/queues/$queue/rps_cpus" is \
        "$(mask "$others")" "packets are worked on by CPUs that no shard has" "$unmeasured"
    done
    queues=0
    for path in "$ROOT/sys/class/net/$device/queues"/tx-*; do
      [[ -e "$path" ]] && queues=$((queues + 1))
    done
    # A shard's CPU has one queue, so that shards do not wait for each other's lock as long as there
    # are queues enough.
    for ((queue = 0; queue < queues; queue++)); do
      index=0
      local mine=()
      for cpu in $(expand "$all"); do
        ((index % queues == queue)) && mine+=("$cpu")
        index=$((index + 1))
      done
      setting "xps-$device-tx-$queue" mask "/sys/class/net/$device/queues/tx-$queue/xps_cpus" is \
        "$(mask "$(IFS=,; echo "${mine[*]-}")")" "each shard sends through one queue" "$unmeasured"
    done
    for irq in $(interrupts_of "$device"); do
      setting "irq-$device-$irq" plain "/proc/irq/$irq/smp_affinity_list" is "$others" \
        "interrupts are taken by CPUs that no shard has" "$unmeasured"
    done
  done
}
