"""Spans, as a real OTLP receiver gets them: of calls, of transactions with links to the calls in them, by the
caller's traceparent; and a receiver that dies."""

import secrets
import time

import grpc
from inventory.v1 import inventory_pb2, inventory_pb2_grpc
from load import OWN_CHANNEL, SECONDS, Stage, fresh
from metrics_cases import text_of
from prometheus import until
from receiver import Receiver, Span

COMMIT = "inventory.v1.Inventory/CommitReservation"
SERVER, CLIENT = 2, 3
ARRIVES_SECONDS_MAX = 20
TOGETHER = 40
# A dead receiver is found out by the first batch that fails.
DROPS_SECONDS_MAX = 40


class Caller:
    """Commits with a traceparent of its own."""

    def __init__(self, address: str, event: str):
        self.channel = grpc.insecure_channel(address, OWN_CHANNEL)
        self.stub = inventory_pb2_grpc.InventoryStub(self.channel)
        self.event = event

    def commit(self, sampled: bool, event: str = "", qty: int = 1):
        """Starts one; its trace and span as the caller has them, and the call."""
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


def play(suite, server, stage: Stage, receiver: Receiver) -> None:
    caller = Caller(server.address, stage.quiet)

    @suite.case("a sampled call's span arrives under its caller's span, with what it was about")
    def _():
        trace, parent, call = caller.commit(sampled=True)
        assert call.result().status == "CONFIRMED"
        span = arrived(receiver, trace, SERVER)
        assert span.parent == parent, span
        assert span.name == COMMIT, span.name
        told = span.attributes
        assert told.get("rpc.system.name", told.get("rpc.system")) == "grpc", told
        assert str(told.get("rpc.method", "")).endswith("CommitReservation"), told
        assert stage.quiet in told.values(), told
        assert "CONFIRMED" in told.values(), told
        assert 0 < span.seconds < SECONDS and not span.failed, span
        assert span.resource.get("service.name"), span.resource
        print(f"     {span.name} {told}", flush=True)

    @suite.case("a refused call's span says why, and is no failure of the server's")
    def _():
        trace, _, call = caller.commit(sampled=True, event="evt_nowhere")
        assert call.code() == grpc.StatusCode.NOT_FOUND, call.code()
        span = arrived(receiver, trace, SERVER)
        assert "EVENT_NOT_FOUND" in span.attributes.values(), span.attributes
        assert not span.failed, span

    @suite.case("a call whose caller is not sampled leaves no span")
    def _():
        unsampled, _, call = caller.commit(sampled=False)
        assert call.result().status == "CONFIRMED"
        later, _, call = caller.commit(sampled=True)
        call.result()
        arrived(receiver, later, SERVER)
        assert not [span for span in receiver.spans if span.trace == unsampled]

    @suite.case("the spans of transactions link to the calls in them")
    def _():
        calls = [caller.commit(sampled=True, event=stage.quiet) for _ in range(TOGETHER)]
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
        assert len(largest.links) > 1, "every transaction carried one call only"
        told = largest.attributes
        assert "TransactWriteItems" in str(told) + largest.name, largest
        print(
            f"     {TOGETHER} calls in {len(transactions())} transactions, at most {len(largest.links)} links; "
            f"{largest.name} {told}",
            flush=True,
        )

    @suite.case("what arrived is what the server counts")
    def _():
        def equal():
            count = exported(text_of(server.ports["metrics"]))
            return count > 0 and len(receiver.spans) >= count

        until(equal, ARRIVES_SECONDS_MAX, f"{len(receiver.spans)} spans arrived, more were counted")

    @suite.case("a receiver that is gone holds up nobody, and what is dropped is counted")
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
