# The table of what a host is set to: one entry for each setting, with its reason. Sourced by host.sh.
# Must not live here: how a value is read, written or put back (store.sh), what is printed (host.sh).
# shellcheck shell=bash
# shellcheck disable=SC2154  # host.sh sets cpus
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

kernel_settings() {
  setting somaxconn plain /proc/sys/net/core/somaxconn min 1024 \
    "the server listens with a queue of 1,024 on each shard; the kernel cuts it to this" \
    "$unmeasured"
  setting tcp_max_syn_backlog plain /proc/sys/net/ipv4/tcp_max_syn_backlog min 1024 \
    "half-open connections when every client comes back at once, before SYN cookies are sent" \
    "$unmeasured"
  setting netdev_max_backlog plain /proc/sys/net/core/netdev_max_backlog min 5000 \
    "packets that wait for a CPU which RPS chose; past it they are dropped" \
    "$unmeasured"
  setting busy_poll plain /proc/sys/net/core/busy_poll is 0 \
    "polling a device from poll() burns the CPU on which a shard could sell" \
    "$unmeasured"
  setting busy_read plain /proc/sys/net/core/busy_read is 0 \
    "as busy_poll, for reads: it makes every socket of the host poll, not ours alone" \
    "$unmeasured"
  setting io_uring_disabled plain /proc/sys/kernel/io_uring_disabled max 0 \
    "1 and 2 forbid io_uring, and no shard starts; kernels before 6.6 do not have it" \
    "$unmeasured"
  setting numa_balancing plain /proc/sys/kernel/numa_balancing is 0 \
    "it unmaps pages to see who uses them; a shard stays on its CPU and its memory with it" \
    "$unmeasured"
  setting swappiness plain /proc/sys/vm/swappiness max 1 \
    "a shard that waits for a page from a disk sells nothing meanwhile" \
    "$unmeasured"
  setting thp choice /sys/kernel/mm/transparent_hugepage/enabled any "madvise never" \
    "the server keeps itself off huge pages; its neighbours need not have memory compacted" \
    "$unmeasured"
  setting thp_defrag choice /sys/kernel/mm/transparent_hugepage/defrag any "madvise defer never" \
    "no thread stops to compact memory that did not ask for huge pages" \
    "$unmeasured"
}

governor_settings() {
  local cpu
  for cpu in $(expand "$(online_cpus)"); do
    setting "governor$cpu" plain "/sys/devices/system/cpu/cpu$cpu/cpufreq/scaling_governor" is performance \
      "a core that was idle for a millisecond is not to wake up slowly" \
      "$unmeasured"
  done
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
