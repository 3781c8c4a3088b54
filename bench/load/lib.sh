# Small things that scripts which start servers share. Sourced. Must not live here: what is started.
# shellcheck shell=bash

# Ports that nobody has at the moment, as many as are asked for.
free_ports() {
  python3 -c 'import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))' "$1"
}

# until_true SECONDS COMMAND…
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    read -rt 0.1 <> <(:) || true
  done
}
