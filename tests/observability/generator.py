"""Runs the load generator of the project against the server under test: open loop, several events, retries,
cross-checked responses. Its output is in target/observability/generator.log."""

import pathlib
import subprocess

from harness import ROOT, Skip

# A debug build on shared cores sustains less.
RATE = {"release": 1500, "debug": 200}
SCENARIO = ROOT / "bench/scenarios/smoke.toml"


def play(program: pathlib.Path | None, server, folder: pathlib.Path, seconds: int) -> None:
    if program is None:
        raise Skip("the generator is not built: cargo build --profile dist --package inventory-generator")
    profile = server.binary.parent.name
    log = folder / "generator.log"
    with open(log, "w", encoding="utf-8") as out:
        done = subprocess.run(
            [
                program,
                SCENARIO,
                "--quiet",
                "--target",
                server.address,
                "--admin",
                server.ports["admin"],
                "--server-pid",
                str(server.process.pid),
                "--rate",
                str(RATE.get(profile, RATE["debug"])),
                "--duration",
                str(seconds),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=seconds + 120,
            check=False,
        )
    said = log.read_text(encoding="utf-8")
    # 3: the generator was late, which happens next to a load and a Prometheus; its latencies are not used here.
    assert done.returncode in (0, 3), f"exit code {done.returncode}\n{said[-3000:]}"
    print("     " + said.strip().splitlines()[-1], flush=True)
