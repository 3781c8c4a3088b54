#!/usr/bin/env python3
"""Puts the pieces of a dedicated node together: user data, the EC2NodeClass that carries it, and the PrometheusRule.

Without arguments it writes them, with --check it compares. Sources: node-config.yaml, prepare.sh, the seccomp
profile, tuning/kernel.tsv, deploy/observability/rules. Standard library only, so text is moved as it is and never parsed as YAML.
Exit codes: 0 written or equal, 1 they differ (their names are printed), 2 wrong arguments or a source is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent
NODES = DEPLOY / "nodes"
EKS = DEPLOY / "k8s" / "overlays" / "eks"
BOUNDARY = "inventory-node"
# EC2 takes 16 KiB before base64; Karpenter adds a part of its own.
USER_DATA_MAX = 14 * 1024


def profile() -> str:
    """The seccomp profile without its comments, in one line: user data is small."""
    data = json.loads((DEPLOY / "seccomp" / "inventory-api.json").read_text())
    for rule in data["syscalls"]:
        rule.pop("comment", None)
    return json.dumps(data, separators=(",", ":"))


def settings() -> str:
    """What tuning/kernel.tsv sets, a path, rule and first value a line. Governors are left out: Graviton has none."""
    lines = []
    for line in (DEPLOY.parent / "tuning" / "kernel.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        _, _, path, rule, wanted, *_ = line.split("\t")
        if "cpu*" not in path:
            lines.append(f"{path} {rule} {wanted.split()[0]}")
    return "\n".join(lines)


def user_data() -> str:
    """A MIME message: what nodeadm reads, and the script that cloud-init runs before the kubelet starts."""
    script = (NODES / "prepare.sh").read_text().replace("@PROFILE@", profile())
    script = script.replace("@SETTINGS@", settings())
    parts = [
        ("application/node.eks.aws", (NODES / "node-config.yaml").read_text()),
        ("text/x-shellscript; charset=\"us-ascii\"", script),
    ]
    text = f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{BOUNDARY}"\n\n'
    for kind, body in parts:
        text += f"--{BOUNDARY}\nContent-Type: {kind}\n\n{body}\n"
    text += f"--{BOUNDARY}--\n"
    if len(text.encode()) > USER_DATA_MAX:
        raise ValueError(f"user data has {len(text.encode())} bytes; {USER_DATA_MAX} at most")
    return text


def indented(text: str, by: int) -> str:
    """The text, further right; empty lines stay empty."""
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))


def node_class() -> str:
    """The EC2NodeClass: its own fields from node-class.yaml, the user data behind them."""
    head = "# Written by deploy/nodes/build.py from deploy/nodes; change it there.\n"
    return head + (NODES / "node-class.yaml").read_text() + "  userData: |\n" + indented(user_data(), 4)


def prometheus_rule() -> str:
    """All groups of the rules files, one after another."""
    text = (
        "# Written by deploy/nodes/build.py from deploy/observability/rules; change them there.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n"
        "  name: inventory-api\n  namespace: inventory\nspec:\n  groups:\n"
    )
    for file in sorted((DEPLOY / "observability" / "rules").glob("*.yaml")):
        _, found, groups = file.read_text().partition("\ngroups:\n")
        if not found:
            raise ValueError(f"{file.name} has no line 'groups:'")
        text += indented(groups, 2)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    try:
        wanted = {
            NODES / "user-data.txt": user_data(),
            EKS / "node-class.yaml": node_class(),
            EKS / "prometheus-rule.yaml": prometheus_rule(),
        }
    except (OSError, ValueError) as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 2
    stale = [file for file, text in wanted.items() if not file.exists() or file.read_text() != text]
    for file in stale:
        if check:
            print(f"{file.relative_to(DEPLOY.parent)} is not what its sources say: run deploy/nodes/build.py")
        else:
            file.write_text(wanted[file])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
