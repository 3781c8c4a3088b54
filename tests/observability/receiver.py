"""Runs an OTLP receiver (rotel, from pip) that forwards spans to a sink in this process, which decodes them. Checks
of spans are in trace_cases.py."""

import dataclasses
import gzip
import http.server
import importlib.util
import pathlib
import socket
import subprocess
import threading
import time

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from prometheus import free_port

UP_SECONDS_MAX = 20


@dataclasses.dataclass(frozen=True)
class Span:
    """A span with its own attributes and those of its resource."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    seconds: float
    attributes: dict
    links: list[tuple[str, str]]
    resource: dict
    failed: bool


def plain(attributes) -> dict:
    """OTLP attributes as a dict."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def spans_of(body: bytes) -> list[Span]:
    found = []
    for resource in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans:
        about = plain(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                found.append(
                    Span(
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        name=span.name,
                        kind=span.kind,
                        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        attributes=plain(span.attributes),
                        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                        resource=about,
                        failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    )
                )
    return found


class Sink:
    """Receives OTLP over HTTP from rotel and stores the spans."""

    def __init__(self):
        self.spans: list[Span] = []
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                # rotel compresses even with compression=none.
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                sink.spans += spans_of(body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Receiver:
    """rotel on free ports; a context manager."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.sink = Sink()
        self.address = f"127.0.0.1:{free_port()}"

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    @property
    def spans(self) -> list[Span]:
        return list(self.sink.spans)

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        package = importlib.util.find_spec("rotel")
        assert package and package.origin, "rotel is not installed"
        self.log = open(self.folder / "rotel.log", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [
                pathlib.Path(package.origin).parent / "rotel-agent",
                "start",
                f"--otlp-grpc-endpoint={self.address}",
                f"--otlp-http-endpoint=127.0.0.1:{free_port()}",
                "--exporter=otlp",
                f"--otlp-exporter-endpoint={self.sink.url}",
                "--otlp-exporter-protocol=http",
                "--otlp-exporter-compression=none",
                "--batch-timeout=200ms",
            ],
            stdout=self.log,
            stderr=self.log,
        )
        deadline = time.monotonic() + UP_SECONDS_MAX
        host, port = self.address.split(":")
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise SystemExit(f"rotel did not start; see {self.folder / 'rotel.log'}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stops the receiver; received spans stay available."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        self.stop()
        self.log.close()
        self.sink.server.shutdown()
