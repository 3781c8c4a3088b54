"""Checks spans received by an OTLP receiver: call spans, transaction spans with links to calls, sampling by
traceparent, and a receiver that terminates."""

import secrets
import time

import grpc
from inventory.v1 import inventory_pb2, inventory_pb2_grpc
from load import OWN_CHANNEL, SECONDS, Events, fresh
from metrics_cases import text_of
from prometheus import until
from receiver import Receiver, Span

COMMIT = "inventory.v1.Inventory/CommitReservation"
SERVER, CLIENT = 2, 3
ARRIVES_SECONDS_MAX = 20
TOGETHER = 40
# Export fails with the first batch after the receiver terminates.
DROPS_SECONDS_MAX = 40


class Caller:
    """A client that sends its own traceparent."""

    def __init__(self, address: str, event: str):
        self.channel = grpc.insecure_channel(address, OWN_CHANNEL)
        self.stub = inventory_pb2_grpc.InventoryStub(self.channel)
        self.event = event

    def commit(self, sampled: bool, event: str = "", qty: int = 1):
        """Starts a commit; returns the trace id, the span id of the caller, and the call."""
        trace, span = secrets.token_hex(16), secrets.token_hex(8)
        request = inventory_pb2.CommitReq(reservation_id=fresh("tr"), event_id=event or self.event, qty=qty)
        parent = [("traceparent", f"00-{trace}-{span}-{'01' if sampled else '00'}")]
        return trace, span, self.stub.CommitReservation.future(request, timeout=SECONDS, metadata=parent)


def arrived(receiver: Receiver, trace: str, kind: int) -> Span:
    def found():
        return next((s for s in receiver.spans if s.trace == trace and s.kind == kind), None)

    return until(found, ARRIVES_SECONDS_MAX, f"a span of kind {kind} of trace {trace}")


def dropped(text: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith("inventory_trace_spans_dropped_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def exported(text: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith("inventory_trace_spans_exported_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def play(suite, server, events: Events, receiver: Receiver) -> None:
    caller = Caller(server.address, events.quiet)

    @suite.case("the span of a sampled call has the caller's span as parent, and its attributes")
    def _():
        trace, parent, call = caller.commit(sampled=True)
        assert call.result().status == "CONFIRMED"
        span = arrived(receiver, trace, SERVER)
        assert span.parent == parent, span
        assert span.name == COMMIT, span.name
        attributes = span.attributes
        assert attributes.get("rpc.system.name", attributes.get("rpc.system")) == "grpc", attributes
        assert str(attributes.get("rpc.method", "")).endswith("CommitReservation"), attributes
        assert events.quiet in attributes.values(), attributes
        assert "CONFIRMED" in attributes.values(), attributes
        assert 0 < span.seconds < SECONDS and not span.failed, span
        assert span.resource.get("service.name"), span.resource
        print(f"     {span.name} {attributes}", flush=True)

    @suite.case("the span of a refused call has the reason and is not an error")
    def _():
        trace, _, call = caller.commit(sampled=True, event="evt_nowhere")
        assert call.code() == grpc.StatusCode.NOT_FOUND, call.code()
        span = arrived(receiver, trace, SERVER)
        assert "EVENT_NOT_FOUND" in span.attributes.values(), span.attributes
        assert not span.failed, span

    @suite.case("a call with an unsampled parent exports no span")
    def _():
        unsampled, _, call = caller.commit(sampled=False)
        assert call.result().status == "CONFIRMED"
        later, _, call = caller.commit(sampled=True)
        call.result()
        arrived(receiver, later, SERVER)
        assert not [span for span in receiver.spans if span.trace == unsampled]

    @suite.case("transaction spans link to the spans of their calls")
    def _():
        calls = [caller.commit(sampled=True, event=events.quiet) for _ in range(TOGETHER)]
        for _, _, call in calls:
            assert call.result().status == "CONFIRMED"
        spans = [arrived(receiver, trace, SERVER) for trace, _, _ in calls]
        wanted = {(span.trace, span.id) for span in spans}

        def transactions():
            return [s for s in receiver.spans if s.kind == CLIENT and set(s.links) & wanted]

        until(
            lambda: wanted <= {link for span in transactions() for link in span.links},
            ARRIVES_SECONDS_MAX,
            "a link to each of the calls",
        )
        largest = max(transactions(), key=lambda span: len(span.links))
        assert len(largest.links) > 1, "every transaction has one call only"
        attributes = largest.attributes
        assert "TransactWriteItems" in str(attributes) + largest.name, largest
        print(
            f"     {TOGETHER} calls in {len(transactions())} transactions, at most {len(largest.links)} links; "
            f"{largest.name} {attributes}",
            flush=True,
        )

    @suite.case("the exported-span counter matches the received spans")
    def _():
        def equal():
            count = exported(text_of(server.ports["metrics"]))
            return count > 0 and len(receiver.spans) >= count

        until(equal, ARRIVES_SECONDS_MAX, f"{len(receiver.spans)} spans arrived, more were counted")

    @suite.case("a terminated receiver does not delay calls, and dropped spans are counted")
    def _():
        before = dropped(text_of(server.ports["metrics"]))
        receiver.stop()
        slowest = 0.0

        def counted():
            nonlocal slowest
            begun = time.monotonic()
            calls = [caller.commit(sampled=True) for _ in range(50)]
            assert all(call.code() == grpc.StatusCode.OK for _, _, call in calls)
            slowest = max(slowest, time.monotonic() - begun)
            return dropped(text_of(server.ports["metrics"])) - before

        count = until(counted, DROPS_SECONDS_MAX, "a span counted as dropped")
        print(
            f"     {count:.0f} dropped; 50 calls at once took at most {slowest * 1e3:.0f} ms meanwhile",
            flush=True,
        )
        assert slowest < 2, slowest

    caller.channel.close()
