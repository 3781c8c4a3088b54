#!/usr/bin/env python3
"""Writes the dashboards next to this file: sale.json, shards.json, store.json.

    deploy/observability/dashboards/build.py            write the files
    deploy/observability/dashboards/build.py --check    compare the files, write nothing

Exit codes: 0 success, 1 a file differs, 64 usage error. The panels are defined in sale.py, shards.py and
store.py; change them there, never in the JSON."""

import argparse
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import sale
import shards
import store

DASHBOARDS = {"sale": sale.DASHBOARD, "shards": shards.DASHBOARD, "store": store.DASHBOARD}
USAGE = 64


class Arguments(argparse.ArgumentParser):
    def error(self, message: str):
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{message}\n")


def text(dashboard: dict) -> str:
    return json.dumps(dashboard, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> int:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the files, write nothing")
    check = parser.parse_args().check
    stale = []
    for name, dashboard in DASHBOARDS.items():
        path = HERE / f"{name}.json"
        if not check:
            path.write_text(text(dashboard), encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text(dashboard):
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)}: out of date; run build.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
