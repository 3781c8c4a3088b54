"""Runs the Go client of client/ against a new server with mutual TLS, and compares what it reports. Started by run.sh."""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "blackbox"))

from harness import Server, Suite, build  # noqa: E402

EVENT = "tls-clients"
STOCK = 100_000_000

# Names of client/authority.go; the client with the name web.sale.svc must be refused.
ALLOWED = "api.sale.svc"

# Seconds that the client may take beyond the load: keys, the first connections, and the clients that are refused.
CLIENT_SECONDS_MAX = 240

# Share of the rate that the client must reach, also on a busy machine.
RATE_SHARE_MIN = 0.9

VERSIONS = ("TLS 1.2", "TLS 1.3")

# Client: result that the server counts, and what the error of the call says with TLS 1.2 and with TLS 1.3.
REFUSALS = {
    "expired": ("certificate_expired", "tls: expired certificate"),
    "not yet valid": ("certificate_not_yet_valid", "tls: expired certificate"),
    "of another authority": ("unknown_authority", "tls: unknown certificate authority"),
    # Its name is that of the present authority, but its key is not.
    "of the authority before the rotation": ("unknown_authority", "tls: error decrypting message"),
    "with another name": ("name_not_allowed", "tls: access denied"),
    "with a certificate for servers": ("certificate_invalid", "tls: unsupported certificate"),
    "without a certificate": ("no_certificate", "tls: certificate required"),
    # Go sends no certificate if none is of an authority that the server asks for.
    "of another authority, chosen by Go": ("no_certificate", "tls: certificate required"),
    "that trusts another authority": ("refused_by_client", "x509: certificate signed by unknown authority"),
    "that expects another server": ("refused_by_client", "x509: certificate is valid for inventory.sale.svc, not other.sale.svc"),
}


class Client:
    """The Go program; each of its lines is a report."""

    def __init__(self, program: pathlib.Path, directory: pathlib.Path, args: argparse.Namespace) -> None:
        command = [program, "-directory", directory, "-event", EVENT, "-rate", str(args.rate)]
        command += ["-duration", f"{args.seconds}s", "-rounds", str(args.rounds)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.prepared = json.loads(self.process.stdout.readline() or "null")

    def reports(self, server: Server, seconds: int) -> list:
        addresses = {"grpc": server.ports["grpc"], "metrics": server.ports["metrics"]}
        out, _ = self.process.communicate(json.dumps(addresses) + "\n", timeout=seconds)
        assert self.process.returncode == 0, f"the client failed with {self.process.returncode}"
        return [json.loads(line) for line in out.splitlines()]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def settings(directory: pathlib.Path) -> dict[str, str]:
    volume = directory / "server"
    return {
        "TLS_CERT_FILE": str(volume / "tls.crt"),
        "TLS_KEY_FILE": str(volume / "tls.key"),
        "TLS_CLIENT_CA_FILE": str(volume / "ca.crt"),
        "TLS_ALLOWED_CLIENTS": ALLOWED,
        # The server closes each connection once before the client replaces it: gRPC then opens another by itself.
        "MAX_CONNECTION_AGE": "1s",
    }


def load_cases(suite: Suite, server: Server, load: dict, args: argparse.Namespace) -> None:
    print(
        f"     {load['calls']} calls in {load['seconds']:.1f} s ({load['calls_per_second']:.0f} per second), "
        f"{load['rounds']} rotations, {load['connects']} connections by the client, "
        f"{load['handshakes'].get('ok', 0)} handshakes, p50 {load['p50_ms']:.1f} ms, p99 {load['p99_ms']:.1f} ms"
    )

    @suite.case(f"no call fails at {args.rate} per second while certificates and authorities are replaced")
    def _() -> None:
        assert load["failed"] == 0, "\n".join([f"{load['failed']} failed", *load["failures"]])
        assert load["calls"] >= RATE_SHARE_MIN * args.rate * load["seconds"], load
        assert load["rounds"] >= args.rounds and load["connects"] > 3 * load["rounds"], load

    @suite.case("each rotation is loaded in three steps, and none is rejected")
    def _() -> None:
        reloads = load["reloads"]
        assert reloads.get("ok") == 3 * load["rounds"] and not reloads.get("failed"), reloads

    @suite.case("no handshake under load is refused")
    def _() -> None:
        unrefused = {"ok", "disconnected", "dropped"}
        assert load["handshakes"].keys() <= unrefused, load["handshakes"]
        # Those of the client, and those that gRPC makes after a GOAWAY.
        assert load["handshakes"]["ok"] >= 1.3 * load["connects"], load

    @suite.case("each confirmed commit is in the store, and nothing else")
    def _() -> None:
        shown = json.loads(server.command("event", "show", EVENT, "--json"))
        assert int(shown["confirmed"]) == load["commits"] > 0, (shown, load["commits"])
        assert int(shown["remaining"]) == STOCK - load["commits"], shown


def refusal_cases(suite: Suite, attempts: list[dict]) -> None:
    found = {(attempt["client"], attempt["version"]): attempt for attempt in attempts}
    for client, (result, message) in REFUSALS.items():

        @suite.case(f"a client {client} is refused with the stated reason, and counted as {result}")
        def _(client=client, result=result, message=message) -> None:
            for version in VERSIONS:
                attempt = found[client, version]
                assert attempt["code"] == "Unavailable" and message in attempt["message"], attempt
                assert attempt["handshakes"].keys() == {result}, attempt

    @suite.case("a client that differs only in being right is served")
    def _() -> None:
        for version in VERSIONS:
            attempt = found["correct", version]
            assert attempt["code"] == "OK" and attempt["handshakes"] == {"ok": 1}, attempt
        assert len(found) == len(VERSIONS) * (len(REFUSALS) + 1) == len(attempts), found.keys()


def play(suite: Suite, binary: pathlib.Path, place: pathlib.Path, args: argparse.Namespace) -> None:
    directory = place / "certificates"
    shutil.rmtree(directory, ignore_errors=True)
    client = Client(args.client, directory, args)
    try:
        assert client.prepared == {"prepared": True}, client.prepared
        with Server(binary, place / "server.log", **settings(directory)) as server:
            server.command("event", "create", EVENT, "--total", str(STOCK))
            reports = []

            @suite.case("the client completes its rotations and attempts")
            def _() -> None:
                reports.extend(client.reports(server, args.seconds + CLIENT_SECONDS_MAX))

            if reports:
                load, attempts = reports
                load_cases(suite, server, load, args)
                refusal_cases(suite, attempts)
            suite.case("the server stops with exit code 0")(server.stop)
    finally:
        client.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", type=pathlib.Path, help="server binary; default: a dev build")
    parser.add_argument("--target", type=pathlib.Path, required=True)
    parser.add_argument("--client", type=pathlib.Path, required=True)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    suite = Suite()
    binary = args.binary or build(args.target)
    play(suite, binary.resolve(), args.target / "tls_clients", args)
    suite.finish()


if __name__ == "__main__":
    main()
