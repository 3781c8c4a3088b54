"""Cases with `buf curl`, a Go client that uses server reflection (v1)."""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import uuid

from harness import Skip

EVENT = "evt_2025_1001"
SERVICE = "inventory.v1.Inventory"
BIN = pathlib.Path(sys.executable).parent

# buf exits with the gRPC code times eight; other codes are errors of buf itself.
FAILED_PRECONDITION = 9 * 8


def curl(server, *words):
    return subprocess.run(
        [BIN / "buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def call(server, method, message):
    url = f"http://{server.address}/{SERVICE}/{method}"
    return curl(server, "-d", json.dumps(message), url)


def answered(done):
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)


def details_of(done):
    """All text in the error details: decoded by buf, or raw if buf does not know the type."""
    texts = [done.stderr]
    for detail in json.loads(done.stderr).get("details", []):
        value = detail.get("value", "")
        raw = base64.b64decode(value + "=" * (-len(value) % 4))
        texts.append(raw.decode("utf-8", errors="replace"))
    return "\n".join(texts)


def play(suite, server, readme):
    @suite.case("buf curl lists the services by reflection")
    def _():
        done = curl(server, "--list-services", f"http://{server.address}")
        assert done.returncode == 0, done.stderr
        services = set(done.stdout.split())
        assert {SERVICE, "grpc.health.v1.Health"} <= services, services

    @suite.case("buf curl: check, two commits with one order id, refused release")
    def _():
        reservation = f"bb-buf-{uuid.uuid4().hex}"
        check = answered(call(server, "CheckAvailability", {"event_id": EVENT, "qty": 1}))
        assert check == {"available": True}, check
        message = {"reservation_id": reservation, "event_id": EVENT, "qty": 1}
        first = answered(call(server, "CommitReservation", message))
        assert first["status"] == "CONFIRMED", first
        assert answered(call(server, "CommitReservation", message)) == first
        done = call(server, "ReleaseHold", message)
        assert done.returncode == FAILED_PRECONDITION, f"{done.returncode}: {done.stderr}"
        assert "RESERVATION_COMMITTED" in details_of(done), done.stderr

    @suite.case("the buf commands of the README reach the server")
    def _():
        commands = readme_commands(readme)
        if not commands:
            raise Skip("the README has no `buf curl` command")
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        for command in commands:
            here = re.sub(r"(?:localhost|127\.0\.0\.1):8080", server.address, command)
            done = subprocess.run(
                ["bash", "-c", here],
                capture_output=True,
                text=True,
                timeout=60,
                env={**os.environ, "PATH": path},
                check=False,
            )
            # Some commands demonstrate a gRPC error.
            reached = done.returncode % 8 == 0 and "unavailable" not in done.stderr
            assert reached, f"{command}\nexit code {done.returncode}: {done.stderr}"


def readme_commands(readme):
    """All `buf curl` commands in code blocks of the README, with continuation lines joined."""
    if not readme.is_file():
        return []
    text = readme.read_text(encoding="utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip().lstrip("$ ") for line in lines if line.strip().lstrip("$ ").startswith("buf curl")]
