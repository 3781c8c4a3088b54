#!/usr/bin/env bash
# Counters of the kernel and the CPU for a server under load, in total and per call. For their place in the program see
# flamegraph.sh.
set -euo pipefail
what=stat
description="Counts CPU time, context switches, page faults, system calls and, if the machine has counters, cycles, instructions
and cache misses: stat.txt; per call if the script starts the load."
# shellcheck source=perf/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
need_perf
events=task-clock,context-switches,cpu-migrations,page-faults,cycles,instructions,branch-misses,cache-misses
for point in sys_enter_io_uring_enter sys_enter_futex sys_enter_madvise; do
  if perf stat -e "syscalls:$point" -- true >/dev/null 2>&1; then events+=",syscalls:$point"; fi
done
begin
perf stat -x ';' -e "$events" -p "$pid" -o "$scratch/raw" -- sleep "$seconds" \
  || fail "$(tail -3 "$scratch/raw")"
count_load
awk -F ';' -v calls="${served:-0}" '
  BEGIN { printf "%-32s %16s %14s\n", "counter", "total", "per call" }
  /^#/ || NF < 3 { next }
  $1 ~ /^</ { printf "%-32s %16s\n", $3, "not available"; next }
  { each = calls ? sprintf("%.3f", $1 / calls * ($2 == "msec" ? 1000 : 1)) ($2 == "msec" ? " us" : "") : "-"
    printf "%-32s %16.0f %14s\n", $3 ($2 == "" ? "" : " (" $2 ")"), $1, each }' "$scratch/raw" >"$out/stat.txt"
grep -q task-clock "$out/stat.txt" || fail "perf counted nothing"
cat "$out/stat.txt"
artefact "$out/stat.txt"
