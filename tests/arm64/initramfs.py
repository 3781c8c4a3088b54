"""Writes an initramfs (cpio, newc) with the NAME=FILE arguments to stdout; all files executable. Needs neither root nor cpio."""

from __future__ import annotations

import stat
import sys
from pathlib import Path


def entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0), inode: int = 0) -> bytes:
    """A header and its data, each padded to four bytes."""
    fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def main() -> None:
    out = sys.stdout.buffer
    folders = {"dev"}
    for argument in sys.argv[1:]:
        name = argument.partition("=")[0]
        folders |= {str(p) for p in Path(name).parents if str(p) != "."}
    number = 1
    for folder in sorted(folders):
        out.write(entry(folder, stat.S_IFDIR | 0o755, inode=number))
        number += 1
    # The kernel opens /dev/console before init runs.
    out.write(entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1), inode=number))
    for argument in sys.argv[1:]:
        number += 1
        name, _, file = argument.partition("=")
        out.write(entry(name, stat.S_IFREG | 0o755, Path(file).read_bytes(), inode=number))
    out.write(entry("TRAILER!!!", 0))


if __name__ == "__main__":
    main()
