#!/usr/bin/env bash
# Flame graph of the stacks of all allocations. For the amount of memory see the metrics of the server.
#
# The server links mimalloc statically: a preloaded library such as that of heaptrack sees none of its calls. The script
# therefore probes the functions of the allocator in the binary.
set -euo pipefail
what=alloc
description="Probes the allocator in the server and draws the callers: alloc.svg, one sample per allocation.
Needs uprobes (CONFIG_UPROBE_EVENTS) and root. The probes slow the server down: counts are valid, times are not."
# shellcheck source=perf/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
need_perf
need_inferno
((EUID == 0)) || missing "probes in a binary need root"
[[ -x "$binary" ]] || missing "$binary is not built (make perf-build)"
[[ -e /sys/kernel/tracing/uprobe_events ]] \
  || missing "the kernel has no uprobe_events (CONFIG_UPROBE_EVENTS, mount -t tracefs nodev /sys/kernel/tracing)"
group="inventory_alloc_$$"
unprobe() { perf probe -q -d "$group:*" 2>/dev/null || true; }
trap 'end; unprobe' EXIT
probes=()
for function in mi_malloc mi_malloc_aligned mi_calloc mi_zalloc_aligned mi_zalloc mi_realloc mi_realloc_aligned; do
  if perf probe -q -x "$binary" "$group:$function=$function" 2>"$scratch/log"; then
    probes+=(-e "$group:$function")
  fi
done
((${#probes[@]} > 0)) || missing "$binary has no symbols of mimalloc: build it with --profile profiling ($(tail -1 "$scratch/log"))"
begin
perf record -q "${probes[@]}" --call-graph fp -m 1024 -p "$pid" -o "$scratch/data" -- \
  sleep "$seconds" 2>"$scratch/record" || fail "$(tail -3 "$scratch/record")"
count_load
# One name for all probes, because inferno-collapse-perf uses the events of one name only.
perf script --no-inline -F comm,pid,tid,time,event,ip,sym,dso -i "$scratch/data" 2>/dev/null \
  | sed "s/$group:[a-z_]*:/alloc:/" | inferno-collapse-perf --skip-after main -q >"$out/alloc.folded" \
  || fail "the stacks are not readable"
awk -v calls="${served:-0}" '{ n += $NF } END { if (!n) exit 1
  printf "%d allocations", n
  if (calls) printf ": %.1f per call", n / calls
  print "" }' "$out/alloc.folded" || fail "no allocation in $seconds s"
inferno-flamegraph --title "inventory-api, allocations, ${server:+$scenario at $rate/s, }$seconds s" --colors mem \
  --countname allocations <"$out/alloc.folded" >"$out/alloc.svg"
artefact "$out/alloc.svg"
