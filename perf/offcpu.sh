#!/usr/bin/env bash
# Where threads wait: time off the CPU by thread and kernel stack. Must not live here: time on the CPU
# (flamegraph.sh).
set -euo pipefail
what=offcpu
says="Adds up how long each thread was off its CPU and what it waited in: offcpu.txt, and offcpu.svg where
inferno is installed. A shard that waits in io_uring_enter has nothing to do; elsewhere it is held up."
# shellcheck source=perf/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
need_bpf sched:sched_switch
begin
# prev_state 0 is a thread that could go on and was pushed off its CPU by another.
# shellcheck disable=SC2016  # bpftrace's own variables
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
load_counted
# bpftrace prints `@total[name, ⏎ frame ⏎ …]: µs`, the innermost frame first.
awk '
  /^@total\[/ { name = substr($0, 8); sub(/,.*/, "", name); stack = ""; inside = 1; next }
  inside && /^\]:/ { print name stack " " $2; inside = 0; next }
  inside { frame = $1; sub(/\+[0-9]+$/, "", frame); if (frame != "") stack = ";" frame stack }' \
  "$out/offcpu.txt" >"$out/offcpu.folded"
[[ -s "$out/offcpu.folded" ]] || fail "nobody waited in $seconds s"
echo "waited longest, in ms over all threads of a name:"
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
