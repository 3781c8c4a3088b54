#!/usr/bin/env bash
# Flame graph of the CPU time: stacks sampled by perf, drawn by inferno. For time off the CPU see offcpu.sh, for counts
# stat.sh.
set -euo pipefail
what=flamegraph
description="Samples the stacks of a server on its CPUs and draws them: flamegraph.svg.
Samples hardware cycles if available, else the CPU clock (virtual machines)."
# shellcheck source=perf/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
need_perf
need_inferno
event=cpu-clock
perf stat -e cycles -- true 2>&1 | grep -q 'not supported' || event=cycles
begin
# Unwinds by frame pointers, which `make perf-build` keeps: stacks of SDK futures are larger than the 64 KiB that perf can
# copy for unwinding by DWARF.
perf record -q -e "$event" -F 997 --call-graph fp -m 1024 -p "$pid" -o "$scratch/data" -- \
  sleep "$seconds" 2>"$scratch/log" || fail "$(tail -3 "$scratch/log")"
count_load
# Without the period each sample counts 1.
perf script --no-inline -F comm,pid,tid,time,event,ip,sym,dso -i "$scratch/data" 2>/dev/null | inferno-collapse-perf --skip-after main -q \
  >"$out/flamegraph.folded" 2>"$scratch/log" || fail "$(tail -3 "$scratch/log")"
inferno-flamegraph --title "inventory-api, $event, ${server:+$scenario at $rate/s, }$seconds s" --hash \
  <"$out/flamegraph.folded" >"$out/flamegraph.svg"
awk '{ n = $NF; all += n; if (/\[unknown\]/) lost += n } END {
  if (!all) exit 1
  printf "%d samples, %.1f %% with an unknown frame\n", all, 100 * lost / all
  if (lost > all / 10) print "truncated stacks: record a server of make perf-build, which keeps frame pointers" }' \
  "$out/flamegraph.folded" || fail "no samples: the process was idle"
artefact "$out/flamegraph.svg"
