"""A DNS server with one name: resolves A queries for that name to 127.0.0.1, all other names to NXDOMAIN.

  names.py ADDRESS NAME
"""

from __future__ import annotations

import socket
import struct
import sys


def answer(question: bytes, known: str) -> bytes:
    """The response to a message with one question."""
    labels, at = [], 12
    while (length := question[at]) != 0:
        labels.append(question[at + 1 : at + 1 + length].decode())
        at += 1 + length
    asked = question[12 : at + 5]
    kind = struct.unpack("!H", question[at + 1 : at + 3])[0]
    is_known = ".".join(labels).lower() == known
    # Other record types (AAAA) get an empty response without an error.
    found = is_known and kind == 1
    head = question[:2] + struct.pack("!HHHHH", 0x8180 if is_known else 0x8183, 1, int(found), 0, 0)
    # A pointer to the name in the question, type A, class IN, TTL 1 s, four bytes.
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton("127.0.0.1")
    return head + asked + (record if found else b"")


def main() -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((sys.argv[1], 53))
    print("listening", flush=True)
    while True:
        question, asker = server.recvfrom(512)
        server.sendto(answer(question, sys.argv[2]), asker)


if __name__ == "__main__":
    main()
