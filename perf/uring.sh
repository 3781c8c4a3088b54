#!/usr/bin/env bash
# io_uring operations: count, duration, and operations per system call. For CPU time see flamegraph.sh and offcpu.sh.
set -euo pipefail
what=uring
description="Traces the io_uring tracepoints of a server: operations by kind with their durations, operations per
io_uring_enter, failures, operations passed to a kernel worker: uring.txt."
# shellcheck source=perf/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
# Before Linux 6.0 the first tracepoint is named io_uring_submit_sqe.
need_bpf io_uring:io_uring_submit_req io_uring:io_uring_complete syscalls:sys_enter_io_uring_enter
begin
program='
tracepoint:syscalls:sys_enter_io_uring_enter /pid == PID/ {
  @enter = count(); @submitted_by_one_enter = lhist(args->to_submit, 0, 64, 4);
  if (args->min_complete > 0) { @enter_that_waits = count(); }
}
tracepoint:io_uring:io_uring_submit_req /pid == PID/ {
  @op[args->opcode] = count(); @since[args->req] = nsecs; @kind[args->req] = args->opcode;
}
tracepoint:io_uring:io_uring_complete /@since[args->req]/ {
  @us[@kind[args->req]] = hist((nsecs - @since[args->req]) / 1000);
  if (args->res < 0) { @failed[@kind[args->req], args->res] = count(); }
  delete(@since[args->req]); delete(@kind[args->req]);
}
tracepoint:io_uring:io_uring_queue_async_work /pid == PID/ { @to_a_worker = count(); }
tracepoint:io_uring:io_uring_cqe_overflow { @overflow_of_any_process = count(); }
interval:s:SECONDS { exit(); }
END { clear(@since); clear(@kind); }'
program="${program//PID/$pid}"
program="${program//SECONDS/$seconds}"
bpftrace -e "$program" >"$scratch/raw" 2>"$scratch/log" || fail "$(tail -3 "$scratch/log")"
count_load
# Operation numbers are part of the kernel ABI.
awk 'BEGIN {
    n = split("0 NOP 1 READV 2 WRITEV 3 FSYNC 4 READ_FIXED 5 WRITE_FIXED 6 POLL_ADD 7 POLL_REMOVE 9 SENDMSG " \
      "10 RECVMSG 11 TIMEOUT 12 TIMEOUT_REMOVE 13 ACCEPT 14 ASYNC_CANCEL 15 LINK_TIMEOUT 16 CONNECT " \
      "19 CLOSE 22 READ 23 WRITE 26 SEND 27 RECV", word, " ")
    for (i = 1; i < n; i += 2) name[word[i]] = word[i + 1]
  }
  match($0, /^@(op|us|failed)\[[0-9]+/) {
    head = substr($0, 1, RLENGTH); code = head; sub(/.*\[/, "", code); sub(/[0-9]+$/, "", head)
    $0 = head (code in name ? name[code] : code) substr($0, RLENGTH + 1)
  }
  { print }' "$scratch/raw" >"$out/uring.txt"
grep -q '^@op\[' "$out/uring.txt" || fail "no operation in $seconds s: process $pid is not a server under load"
[[ -z "$served" ]] || awk -v calls="$served" '
  /^@op\[/ { ops += $NF } /^@enter:/ { enters = $NF }
  END { printf "%.2f operations and %.3f io_uring_enter per call\n", ops / calls, enters / calls }' "$out/uring.txt"
grep -E '^@(op|enter|to_a_worker|overflow|failed)' "$out/uring.txt" | head -30
artefact "$out/uring.txt"
