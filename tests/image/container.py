"""Writes an OCI runtime configuration: read-only root, user of the image, no capabilities, no new privileges, the
seccomp profile, host network. The test cases are in run.sh.

  container.py ROOTFS PROFILE HOSTS RESOLV HIDE NAME=VALUE… -- ARGUMENT…

HIDE is /sys for a container without /sys, else empty.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

# The limit of the nodes, see deploy/nodes/prepare.sh.
MEMLOCK = 64 << 20
USER = 65532


def main() -> None:
    at = sys.argv.index("--")
    rootfs, profile, hosts, resolv, hide, *environment = sys.argv[1:at]
    seccomp = json.loads(Path(profile).read_text())
    for rule in seccomp["syscalls"]:
        # The OCI format has no comments.
        rule.pop("comment", None)
    # A lower limit of the host is sufficient for the shards of this test.
    allowed = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    memlock = MEMLOCK if allowed == resource.RLIM_INFINITY else min(MEMLOCK, allowed)
    limits = [("RLIMIT_MEMLOCK", memlock), ("RLIMIT_NOFILE", min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))]
    kinds = ["bounding", "effective", "permitted", "inheritable", "ambient"]
    bind = ["bind", "ro"]
    config = {
        "ociVersion": "1.0.0",
        "root": {"path": rootfs, "readonly": True},
        "process": {
            "args": sys.argv[at + 1 :],
            "cwd": "/",
            "env": environment,
            "user": {"uid": USER, "gid": USER},
            "capabilities": {kind: [] for kind in kinds},
            "noNewPrivileges": True,
            "rlimits": [{"type": name, "hard": value, "soft": value} for name, value in limits],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            # Mounted by every container engine.
            {"destination": "/etc/hosts", "type": "none", "source": hosts, "options": bind},
            {"destination": "/etc/resolv.conf", "type": "none", "source": resolv, "options": bind},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc")], "seccomp": seccomp},
    }
    if hide == "/sys":
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != hide]
    json.dump(config, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
