#!/usr/bin/env bash
# Time off the CPU by thread and kernel stack. For time on the CPU see flamegraph.sh.
set -euo pipefail
what=offcpu
description="Sums the time off the CPU by thread and kernel stack: offcpu.txt, and offcpu.svg if inferno is installed.
A shard that waits in io_uring_enter is idle; a shard that waits elsewhere is blocked."
# shellcheck source=perf/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
need_bpf sched:sched_switch
begin
# prev_state 0 is a runnable thread that was preempted.
# shellcheck disable=SC2016  # variables of bpftrace
program='
tracepoint:sched:sched_switch {
  if (pid == PID) {
    @left[tid] = nsecs; @held[tid] = args->prev_state == 0; @where[tid] = kstack;
  }
  $next = args->next_pid;
  if (@left[$next]) {
    $us = (nsecs - @left[$next]) / 1000;
    if (@held[$next]) { @pushed[args->next_comm] = hist($us); }
    else { @waited[args->next_comm] = hist($us); @total[args->next_comm, @where[$next]] = sum($us); }
    delete(@left[$next]); delete(@held[$next]); delete(@where[$next]);
  }
}
interval:s:SECONDS { exit(); }
END { clear(@left); clear(@held); clear(@where); }'
program="${program//PID/$pid}"
program="${program//SECONDS/$seconds}"
bpftrace -e "$program" >"$out/offcpu.txt" 2>"$scratch/log" || fail "$(tail -3 "$scratch/log")"
count_load
# bpftrace prints `@total[name, ⏎ frame ⏎ …]: µs`, the innermost frame first.
awk '
  /^@total\[/ { name = substr($0, 8); sub(/,.*/, "", name); stack = ""; inside = 1; next }
  inside && /^\]:/ { print name stack " " $2; inside = 0; next }
  inside { frame = $1; sub(/\+[0-9]+$/, "", frame); if (frame != "") stack = ";" frame stack }' \
  "$out/offcpu.txt" >"$out/offcpu.folded"
[[ -s "$out/offcpu.folded" ]] || fail "no thread waited in $seconds s"
echo "longest waits in ms, summed over all threads of a name:"
awk '{ us = $NF; sub(/ [0-9]+$/, ""); n = split($0, f, ";"); at = "?"
  for (i = n; i > 1; i--) if (f[i] !~ /^(__)?schedule|_schedule$|^__traceiter|^bpf_|^perf_/) { at = f[i]; break }
  sum[f[1] " in " at] += us } END { for (k in sum) printf "%10d  %s\n", sum[k] / 1000, k }' \
  "$out/offcpu.folded" | sort -rn | head -8
if command -v inferno-flamegraph >/dev/null; then
  inferno-flamegraph --title "inventory-api, off the CPU, µs" --countname us --hash \
    <"$out/offcpu.folded" >"$out/offcpu.svg"
  artefact "$out/offcpu.svg"
fi
artefact "$out/offcpu.txt"
