#!/usr/bin/env bash
# Who allocates: the stack of every call of the allocator, as an SVG. Must not live here: how much memory
# there is (the server's own metrics).
#
# The server's allocator is mimalloc, linked in: a preloaded library such as heaptrack's sees none of its
# calls. So the allocator's functions themselves are probed, in the binary.
set -euo pipefail
what=alloc
says="Probes the allocator that is linked into the server and draws who calls it: alloc.svg, every allocation a sample.
Needs uprobes (CONFIG_UPROBE_EVENTS) and root. The probes slow the server down: look at counts, not at times."
# shellcheck source=perf/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
need_perf
need_inferno
((EUID == 0)) || missing "probes in a binary want root"
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
load_counted
# One name for all probes, for the collapser takes the events of one name only.
perf script --no-inline -F comm,pid,tid,time,event,ip,sym,dso -i "$scratch/data" 2>/dev/null \
  | sed "s/$group:[a-z_]*:/alloc:/" | inferno-collapse-perf --skip-after main -q >"$out/alloc.folded" \
  || fail "the stacks cannot be read"
awk -v calls="${served:-0}" '{ n += $NF } END { if (!n) exit 1
  printf "%d allocations", n
  if (calls) printf ": %.1f a call", n / calls
  print "" }' "$out/alloc.folded" || fail "no allocation in $seconds s"
inferno-flamegraph --title "inventory-api, allocations, ${server:+$scenario at $rate/s, }$seconds s" --colors mem \
  --countname allocations <"$out/alloc.folded" >"$out/alloc.svg"
artefact "$out/alloc.svg"
