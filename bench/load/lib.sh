# Functions shared by the scripts that start servers. Sourced. What a script starts must not be put here.
# shellcheck shell=bash

# free_ports COUNT: prints so many free TCP ports.
free_ports() {
  python3 -c 'import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))' "$1"
}

# until_true SECONDS COMMAND…: repeats the command until it succeeds; fails after the time limit.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    read -rt 0.1 <> <(:) || true
  done
}

# parse_options "NAME…" ARGUMENT…: sets the variable NAME for each --NAME VALUE. Calls usage for --help and
# wrong MESSAGE for everything else; the script defines both.
parse_options() {
  local names=" $1 " name
  shift
  while (($# > 0)); do
    [[ "$1" != -h && "$1" != --help ]] || { usage; exit 0; }
    name="${1#--}"
    [[ "$1" == --* && "$names" == *" $name "* ]] || wrong "unknown option $1"
    [[ -n "${2:-}" ]] || wrong "$1: missing value"
    printf -v "$name" %s "$2"
    shift 2
  done
}

# require_positive NAME…: rejects variables that are not whole numbers of 1 or more.
require_positive() {
  local name
  for name in "$@"; do
    [[ "${!name}" =~ ^[1-9][0-9]*$ ]] || wrong "--$name ${!name}: must be a whole number of 1 or more"
  done
}
