"""Starts the server, generates the Python client, and runs and counts cases. Makes no calls."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

BANNER_SECONDS_MAX = 60
STOP_SECONDS_MAX = 40

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def build(target):
    """Builds the server in the dev profile and returns its path."""
    subprocess.run(["cargo", "build", "--quiet", "--bin", "inventory-api"], cwd=ROOT, check=True)
    return target / "debug" / "inventory-api"


def generate(out, folders):
    """Compiles the .proto files for Python."""
    from grpc_tools import protoc

    out.mkdir(parents=True, exist_ok=True)
    protos = ROOT / "proto"
    files = [str(p) for folder in folders for p in sorted((protos / folder).glob("*.proto"))]
    # Well-known types are part of grpcio-tools.
    known = pathlib.Path(protoc.__file__).parent / "_proto"
    failed = protoc.main(
        [
            "protoc",
            f"-I{protos}",
            f"-I{known}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            *files,
        ]
    )
    if failed:
        sys.exit("protoc from grpcio-tools cannot compile the .proto files")
    sys.path.insert(0, str(out))


class Skip(Exception):
    """Raised by a case that cannot run here."""


class Suite:
    """Runs cases in order, prints one line for each, and counts results."""

    def __init__(self, only=""):
        self.only = only
        self.passed = self.failed = self.skipped = 0

    def case(self, name):
        """Decorator that runs the function at once as a case with this name."""

        def play(function):
            if self.only not in name:
                return function
            try:
                function()
            except Skip as why:
                self.skipped += 1
                print(f"SKIP {name}: {why}", flush=True)
            except Exception:
                self.failed += 1
                print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
            else:
                self.passed += 1
                print(f"ok   {name}", flush=True)
            return function

        return play

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        sys.exit(1 if self.failed else 0)


def local_store(url):
    """The environment for a local DynamoDB-compatible service, which accepts any credentials."""
    return {
        "AWS_ENDPOINT_URL_DYNAMODB": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "OTEL_SDK_DISABLED": "true",
        # A service written for convenience answers a transaction of a hundred actions late.
        "DDB_TIMEOUT": "5s",
    }


class Server:
    """`inventory-api dev --memory` on free ports, which are read from its banner.

    With `store`, the URL of a DynamoDB-compatible service, it is `inventory-api serve` on that store, after
    `inventory-api tables create`.
    """

    def __init__(self, binary, log_path, store=None, **settings):
        self.binary = pathlib.Path(binary)
        self.log_path = pathlib.Path(log_path)
        self.arguments = ["dev", "--memory"]
        self.settings = settings
        self.ports = {}
        if store:
            self.arguments = ["serve"]
            self.settings = {**os.environ, **local_store(store), **settings}
            create = [self.binary, "tables", "create"]
            subprocess.run(create, env=self.settings, stdout=subprocess.DEVNULL, check=True)

    def __enter__(self):
        environment = {
            **os.environ,
            "GRPC_PORT": "0",
            "METRICS_PORT": "0",
            "ADMIN_PORT": "0",
            # Calls without a deadline must not fail on a busy machine.
            "GRPC_TIMEOUT": "10s",
            **self.settings,
        }
        self.log = open(self.log_path, "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [self.binary, *self.arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        deadline = time.monotonic() + BANNER_SECONDS_MAX
        while not {"grpc", "admin"} <= self.ports.keys():
            if self.process.poll() is not None:
                self._give_up(f"the server exited with {self.process.returncode}")
            if time.monotonic() > deadline:
                self._give_up(f"the banner lacks the gRPC or admin address: {self.ports}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def _read(self):
        """Reads continuously, so that the server never blocks on a full pipe."""
        for line in self.process.stdout:
            found = re.match(r"\s*(grpc|admin|metrics)\b\D*?((?:[\d.]+|\[[\da-f:]+\]):\d+)", line, re.I)
            if found:
                self.ports[found[1].lower()] = found[2]
            self.log.write(line)
            self.log.flush()

    def _give_up(self, why):
        self.process.kill()
        self.log.flush()
        tail = self.log_path.read_text(encoding="utf-8")[-4000:]
        sys.exit(f"{why}; its output:\n{tail}\n0 passed, 1 failed, 0 skipped")

    @property
    def address(self):
        return self.ports["grpc"]

    def command(self, *words):
        """Runs a command of the binary against this server and returns its stdout."""
        done = subprocess.run(
            [self.binary, *words, "--admin", self.ports["admin"]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def stop(self):
        """Sends SIGTERM and checks for exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS_MAX)
        assert code == 0, f"exit code {code}"
